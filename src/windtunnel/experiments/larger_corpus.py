"""001-3.1 and 3.2: a model of some 470 kB of text, loaded and resumed, and how much of what it writes is copied."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from windtunnel.errors import DataError
from windtunnel.experiments.frame import Drawing, Findings, Given, Progress, Row, Setting, draw, table
from windtunnel.experiments.training import apart, losses_of, saved, write_corpus
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import SamplingConfig
from windtunnel.generation.write import write_samples
from windtunnel.report.charts import lines
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.text.corpora import open_corpus
from windtunnel.text.store import TextConfig, TokenStore
from windtunnel.training.checkpoint import checkpoints
from windtunnel.training.data import open_store, open_task
from windtunnel.training.evaluate import evaluate
from windtunnel.training.events import Evaluation, Started, Step
from windtunnel.training.loop import resume
from windtunnel.training.recipes import quick
from windtunnel.training.run import create_run, load, open_run, resolve
from windtunnel.training.run_config import RunConfig

LOADED, WRITTEN = Row("001-3.1"), Row("001-3.2")
CHARACTERS, FEWEST, PART = 480_000, 20_000, 25
"""The text is cut there, and must be so long; and a part of it is this many times shorter."""
GRAM, TEXTS, TOKENS, TEMPERATURE = 8, 36, 100, 0.8
PROMPTS = {"python": ("def ", "import ", "    return ")}
COURSE_PROMPTS = ("He and I", "Money is")


@dataclass(frozen=True)
class Copied:
    """What a model wrote, and the shares of its 8-grams, and of its held-out text's, that its training text has."""

    texts: list[str]
    share: Estimate
    held_out: float
    train: float
    dev: float


def larger_corpus(at: Setting) -> Findings:
    """A model on a larger corpus.

    A transformer of 2 layers x 128 was trained on a text of some 470 kB without a break, and again with one: stopped
    in the middle and resumed. A third was trained as long on a twenty-fifth of the text. What they wrote at temperature
    0.8 is judged by the share of its sequences of 8 words that stand in the text that was trained on.
    """
    given, corpus = at.corpus or "python", at.out / "text.txt"
    text = first_characters(given, at.size(CHARACTERS, quick=30_000))
    part = at.out / "part.txt"
    write_corpus(corpus, text)
    write_corpus(part, text[: len(text) // PART * (5 if at.quick else 1)])
    whole = config_of(at, corpus)
    shape = f"2 layers x {whole.model.widest}, context {whole.model.context_length}"
    yield Given({"corpus": given, "characters": len(text), "model": shape, "steps": whole.train.steps})
    runs = at.out / "runs"
    yield from trained(whole, runs / "whole", "without a break")
    yield from trained(whole, runs / "resumed", "with a break", break_at=whole.train.steps // 2)
    tokenizer = str(runs / "whole" / "tokenizer.json")  # else their losses a token could not be compared
    yield from trained(config_of(at, part, tokenizer), runs / "part", "a part of the text")
    yield from same_model(runs / "whole", runs / "resumed")
    prompts = COURSE_PROMPTS if at.corpus else PROMPTS["python"]
    held_out = open_run(runs / "whole").store()
    found = {name: copied(runs / name, held_out, prompts, at) for name in ("whole", "part")}
    yield from judged(found)
    yield losses_drawn({name: runs / name for name in found})


def first_characters(corpus: str, n: int) -> str:
    """The beginning of a corpus as one text; documents are divided by a line break.

    Raises:
        DataError: when it is too short to train on a part of it.
    """
    own, parts, length = open_corpus(corpus), list[str](), 0
    for document in own.read():
        parts.append(document if own.unit == "text" else f"{document}\n")
        length += len(parts[-1])
        if length >= n:
            break
    if length < FEWEST:
        raise DataError(
            f"{corpus} has {length:,} characters; expected at least {FEWEST:,}, a part of which is trained on"
        )
    return "".join(parts)[:n]


def config_of(at: Setting, corpus: Path, tokenizer: str = "bpe") -> RunConfig:
    """The recipe `quick`, smaller, with 1,024 tokens; a tenth of the text is held out."""
    base, steps = quick(str(corpus)), at.size(250, quick=6)
    every = {"eval_every": steps, "save_every": steps, "sample_tokens": 0, "compile": False, "threads": 1}
    return base.replace(
        text=TextConfig(tokenizer=tokenizer, vocab_size=1024, dev_fraction=0.1, test_fraction=0.0),
        model=base.model.replace(d_model=128, n_heads=2, d_ff=512),
        schedule=base.schedule.replace(warmup=min(30, steps // 2)),
        train=base.train.replace(steps=steps, batch_size=at.size(16, quick=4), **every),
        seed=at.seed,
    )


# -------------------------------------------------------------------------------------------------- loaded and resumed


def trained(config: RunConfig, folder: Path, what: str, break_at: int = 0) -> Findings:
    """Train a run, or read it where it is; with a break its process is asked to stop once, and it is resumed."""
    store, done = open_store(config), [0]
    create_run(folder, resolve(config, store), store)
    for stop in (True, False) if break_at and not checkpoints(folder) else (False,):
        for event in resume(folder, lambda stop=stop: stop and done[0] >= break_at):  # type: ignore[misc]
            if isinstance(event, Step):
                done[0] = event.step
                yield Progress(what, event.step, config.train.steps)


def same_model(whole: Path, resumed: Path) -> Findings:
    """001-3.1: a run with a break and one without, and a model that is loaded."""
    ours, theirs = losses_of(whole), losses_of(resumed)
    begins = [event.step for event in open_run(resumed).events() if isinstance(event, Started)]
    gap = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    yield LOADED.equal(f"stopped at step {begins[-1]} and resumed, it has the same loss at every step", gap, 0,
                       shown=f"{len(ours)} losses, the last {ours[-1]:.4f}")  # fmt: skip
    shown = f"{len(saved(whole))} tensors"
    yield LOADED.equal("and the same weights and optimizer state", apart(whole, resumed), 0, shown=shown)
    then = [event for event in open_run(whole).events() if isinstance(event, Evaluation)][-1].loss
    trained = load(whole)
    task = open_task(trained.run.config, trained.run.store())
    again = evaluate(trained.model, task, "dev", trained.step).loss
    yield LOADED.equal("loaded, the model has the loss that it had when it was saved", abs(again - then), 0,
                       shown=f"{again:.4f} on held-out text")  # fmt: skip
    statement = "training lowers the loss below that of a guess that knows nothing"
    yield LOADED.shows(statement, again < task.blind, f"{again:.4f} and {task.blind:.4f}", loss=again, blind=task.blind)


# -------------------------------------------------------------------------------------------------------------- copied


def words(text: str) -> list[str]:
    """Words and signs."""
    return re.findall(r"\w+|[^\w\s]", text)


def grams(text: str) -> list[tuple[str, ...]]:
    """Every sequence of 8 words and signs."""
    own = words(text)
    return list(zip(*(own[i:] for i in range(GRAM)), strict=False))


def share_copied(text: str, known: set[tuple[str, ...]]) -> float:
    """The share of a text's 8-grams that are known; 0 where it has none."""
    own = grams(text)
    return sum(gram in known for gram in own) / len(own) if own else 0.0


def copied(folder: Path, held_out: TokenStore, prompts: Sequence[str], at: Setting) -> Copied:
    """What the model of a run writes, and what of it stands in the text that it was trained on."""
    model = load(folder)
    own, config = model.run.store(), model.run.config
    train, dev = (model.tokenizer.decode(store.splits[name].ids) for store, name in ((own, "train"), (held_out, "dev")))
    known = set(grams(train))
    sampling, n_tokens = SamplingConfig(temperature=TEMPERATURE), at.size(TOKENS, quick=30)
    n_texts = at.size(TEXTS, quick=6) // len(prompts)
    texts = [
        one.text
        for prompt in prompts
        for one in write_samples(model, Request(prompt, n_tokens, sampling, at.seed), n_texts)
    ]
    losses = (
        evaluate(model.model, open_task(config, store), name, model.step, 20_000).loss
        for store, name in ((own, "train"), (held_out, "dev"))
    )
    return Copied(
        texts, mean_interval([share_copied(text, known) for text in texts]), share_copied(dev, known), *losses
    )


def judged(found: Mapping[str, Copied]) -> Findings:
    """001-3.2: copied shares beside the losses."""
    whole, part = found["whole"], found["part"]
    shown = f"{{}}; of held-out text {100 * whole.held_out:.1f} %"
    statement = "trained on the whole text, it copies no larger share of its 8-grams than held-out text has, plus .05"
    yield WRITTEN.within(statement, whole.share, high=whole.held_out + 0.05, shown=shown)
    shown = f"{{}}; of held-out text {100 * part.held_out:.1f} %"
    statement = "trained on a part, it copies a larger share: it knows its text by heart"
    yield WRITTEN.within(statement, part.share, low=part.held_out + 0.05, shown=shown)
    gaps = {name: own.dev - own.train for name, own in found.items()}
    shown = f"held-out minus trained loss {gaps['whole']:.2f}, of the part {gaps['part']:.2f}"
    statement = "the losses say the same: the part's is lower on what was trained on, and higher on what was not"
    holds = part.train < whole.train and part.dev > whole.dev
    yield WRITTEN.shows(statement, holds, shown, whole=gaps["whole"], part=gaps["part"])
    heads = ("trained on", "8-grams copied", "of held-out text", "loss, trained on", "loss, held out")
    titles = {"whole": "the whole text", "part": "a part of it"}
    rows = [(titles[name], own.share, own.held_out, own.train, own.dev) for name, own in found.items()]
    yield table("What is copied, beside the loss in nats per token", heads, rows)
    shown_texts = [(name, own.texts[i]) for name, own in found.items() for i in (0, -1)]
    rows_of_text = [(titles[name], " ".join(text.split())[:200]) for name, text in shown_texts]
    yield table("What they wrote", ("trained on", "text"), rows_of_text)


def losses_drawn(folders: Mapping[str, Path]) -> Drawing:
    """The loss of every step."""
    curves = {name: (range(1, len(own) + 1), own) for name, own in ((n, losses_of(f)) for n, f in folders.items())}
    return draw("losses", lines(curves, xlabel="step", ylabel="loss, nats per token"))
