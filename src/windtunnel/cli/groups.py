"""How `windtunnel --help` shows the commands: in groups, by what they are for; and an example of each."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

GROUPS = {
    "Train": ("train", "resume", "check", "runs", "settings", "corpora"),
    "Compare and measure": ("compare", "judge", "evaluate", "scale", "stats", "experiment"),
    "Use and look inside": ("generate", "translate", "classify", "look", "explain", "cost", "label", "search", "serve"),
    "Models from elsewhere": ("models", "import", "export", "alter", "fold", "cache"),
}
EXAMPLES = {
    "train": ("train names --recipe tiny --seeds 4", "train mine.csv --column text=body --lr 0.003"),
    "resume": ("resume last", "resume last --steps 4000"),
    "check": ("check tiny --corpus names", "check last"),
    "runs": (
        "runs --sort loss --corpus names",
        "runs --watch",
        "runs A B --figure both.png",
        "runs A --export tensorboard",
    ),
    "settings": ("settings schedule", "settings lr"),
    "compare": (
        "compare names --vary model.norm=layer,rms --seeds 6",
        "compare a.txt:0.7,b.txt:0.3 --vary 'corpus=a.txt:0.7,b.txt:0.3;a.txt:0.5,b.txt:0.5'",
    ),
    "judge": ("judge --arm 'a=python a.py {seed}' --arm 'b=python b.py {seed}' --metric 'loss ([0-9.]+)'",),
    "evaluate": ("evaluate last --split test",),
    "scale": ("scale names --minutes 60 --hold-out",),
    "experiment": ("experiment", "experiment email-ab-test"),
    "generate": ("generate last mar --tokens 8",),
    "translate": ("translate last 'the air'",),
    "classify": ("classify last 'a text'",),
    "search": ("search last 'three fish'", "search last 'a red fish' --pictures photos --html found.html"),
    "look": ("look last anna", "look last --ablate 1.2 --judge"),
    "cost": ("cost small",),
    "label": ("label stories.csv --budget 100",),
    "serve": ("serve", "serve runs --port 0 --memory 4"),
    "import": ("import FOLDER --corpus names",),
    "export": ("export last exported",),
    "alter": ("alter RUN --kv-heads 2 --out FOLDER",),
    "fold": ("fold RUN --out FOLDER",),
    "corpora": ("corpora", "corpora get shakespeare"),
    "corpora get": ("corpora get shakespeare",),
    "models": ("models", "models get smollm2-135m"),
    "models get": ("models get smollm2-135m",),
    "cache": ("cache", "cache clear features"),
    "cache clear": ("cache clear models features",),
    "explain": ("explain parameters 236-472-472-10", "explain attention last anna"),
    "explain shapes": ("explain shapes '(3,1,4) -> squeeze(1) -> @ (4,5)'", "explain shapes 'bmm (2,3,4) (2,?,5)'"),
    "explain parameters": ("explain parameters 236-472-472-10 --no-bias", "explain parameters tiny"),
    "explain embedding": ("explain embedding 10x5 1,3,5",),
    "explain loss": ("explain loss --logits '2,0,-1; 0,1,3' --targets 0,2",),
    "explain attention": ("explain attention last anna --layer 1 --head 2",),
    "explain augmentation": ("explain augmentation last --html sheet.html",),
    "explain replay": ("explain replay 1.3744735717773438",),
    "stats": ("stats mean 2.031 2.034 2.028", "stats proportions A=100/1000 B=130/1000"),
    "stats proportions": ("stats proportions A=100/1000 B=130/1000 C=115/1000 --control A",),
    "stats coin": ("stats coin 7/10", "stats coin 7/10 9/10 --prior 2,2"),
    "stats mean": ("stats mean 2.031 2.034 2.028 --below 2.04",),
    "stats paired": ("stats paired 2.03,2.04,2.02 2.01,2.03,2.01", "stats paired losses.csv"),
    "stats power": ("stats power --effect 0.01 --sd 0.008",),
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
