"""Programs that take a few milliseconds, as shell commands."""

NOISE = "awk -v seed={seed} 'BEGIN { x = (seed + 3) * 37 % 101 / 101; "
"""x is a number of the seed, from 0 to 1: .10, .47, .83, .20, .56, .93 ..."""


def prints(what):
    """A command that prints this awk expression of x, as `loss VALUE`."""
    return NOISE + f'printf "loss %.6f\\n", {what} }}\''
