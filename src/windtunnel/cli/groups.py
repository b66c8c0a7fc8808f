"""How `windtunnel --help` shows the commands: in groups, by what they are for; and an example of each."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

GROUPS = {
    "Train": ("train", "resume", "check", "runs", "settings", "corpora"),
    "Compare and measure": ("compare", "judge", "evaluate", "scale", "stats", "experiment"),
    "Use and look inside": ("generate", "translate", "classify", "look", "explain", "cost", "label", "search"),
    "Models from elsewhere": ("models", "import", "export", "alter", "fold", "cache"),
}
EXAMPLES = {
    "train": ("train names --recipe tiny --seeds 4", "train mine.csv --column text=body --lr 0.003"),
    "resume": ("resume last", "resume last --steps 4000"),
    "check": ("check tiny --corpus names", "check last"),
    "runs": ("runs --sort loss --corpus names", "runs A B --figure both.png"),
    "settings": ("settings schedule", "settings lr"),
    "compare": ("compare names --vary model.norm=layer,rms --seeds 6",),
    "judge": ("judge --arm 'a=python a.py {seed}' --arm 'b=python b.py {seed}' --metric 'loss ([0-9.]+)'",),
    "evaluate": ("evaluate last --split test",),
    "scale": ("scale names --minutes 60 --hold-out",),
    "experiment": ("experiment", "experiment email-ab-test"),
    "generate": ("generate last mar --tokens 8",),
    "translate": ("translate last 'the air'",),
    "classify": ("classify last 'a text'",),
    "search": ("search last 'three fish'", "search last 'a red fish' --pictures photos --html found.html"),
    "look": ("look last anna", "look last --ablate 0.1 --judge"),
    "cost": ("cost small",),
    "label": ("label stories.csv --budget 100",),
    "import": ("import FOLDER --corpus names",),
    "export": ("export last exported",),
    "alter": ("alter RUN --kv-heads 2 --out FOLDER",),
    "fold": ("fold RUN --out FOLDER",),
}
"""What to type, without the word windtunnel."""


class Grouped(TyperGroup):
    """The commands of `windtunnel` below the headings of GROUPS; a command that is in none is shown at the end."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        groups = {
            **GROUPS,
            "More": tuple(sorted(set(self.commands) - {name for own in GROUPS.values() for name in own})),
        }
        width = max(map(len, self.commands))
        for heading, names in groups.items():
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(64))
                for name in names
                if name in self.commands
            ]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def epilog(name: str) -> str | None:
    """The examples of a command, each on a line of its own."""
    if name not in EXAMPLES:
        return None
    return "\b\nExamples:\n" + "\n".join(f"  windtunnel {words}" for words in EXAMPLES[name])
