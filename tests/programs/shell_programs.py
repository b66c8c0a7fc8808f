"""Programs that take a few milliseconds, as shell commands."""

NOISE = "awk -v seed={seed} 'BEGIN { srand(seed); for (i = 0; i < 5; i++) x = rand(); "
"""A program in a few milliseconds: x is a number of the seed, from 0 to 1; srand is the same in every run."""


def prints(what):
    """A command that prints this awk expression of x, as `loss VALUE`."""
    return NOISE + f'printf "loss %.6f\\n", {what} }}\''
