"""004-2.1.v: a sentence in Pig Latin by a trained encoder-decoder, and where its cross-attention looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from windtunnel.experiments.frame import Claim, Drawing, Findings, Given, Progress, Row, Setting, draw, table
from windtunnel.experiments.training import train
from windtunnel.experiments.translators import MODERN, translating
from windtunnel.generation.translate import Translated, target_tokens, translate_all
from windtunnel.inspect.attention import as_numpy, recording
from windtunnel.models import Translator, TranslatorConfig
from windtunnel.nn.mode import evaluating
from windtunnel.report.charts import heat
from windtunnel.runs.arms import Arm
from windtunnel.runs.grid import make_grid
from windtunnel.text.corpora.pig_latin import pig_latin, words
from windtunnel.text.splits import document_split
from windtunnel.text.store import TextConfig
from windtunnel.training.data import open_task
from windtunnel.training.evaluate import evaluate
from windtunnel.training.run import TrainedModel, load

ROW = Row("004-2.1.v")
SENTENCE = "the air conditioning is working"
PRINTED = "ethay airway onditioningcay isway orkingway"
STEPS, WIDTH, SEEDS, LR = 1500, 48, 3, 3e-3
HEADS = ("seed", "word", "in the list", "translation", "right", "probability", "of its least probable letter")
END = "¶"
SHOWN = 24
"""Letters of a target that a heat map shows at most."""
HELD_OUT = 200
"""Held-out words on which heads are asked where they look."""


@dataclass(frozen=True)
class Looks:
    """Where the cross-attention looks while a target is written.

    weights: (n_layers, n_heads, T, S) float32: of what follows the begin mark and each letter of the target but the
        last, over the letters of the source and its end mark; rows sum to 1.
    gap: the largest difference of these logits from those of the fast path.
    """

    weights: npt.NDArray[np.float32]
    gap: float


def translate_sentence(at: Setting) -> Findings:
    """A sentence in Pig Latin.

    Encoder-decoders were trained on four fifths of the large list of words, each with another seed; each then
    translated a sentence word by word, greedily, as it would any word that it has never seen.
    """
    steps, model = at.size(STEPS, quick=8), TranslatorConfig(n_layers=2, d_model=at.size(WIDTH, quick=8), **MODERN)
    config = translating(at, "pig-latin", model, steps, LR)
    yield Given({"model": f"2 + 2 layers x {model.d_model}, {model.n_heads} heads, rotary positions",
                 "training": f"{steps} steps of {config.train.batch_size} words, lr {LR:g}"})  # fmt: skip
    yield ROW.same("the printed translation is what the rule gives", pig_latin(SENTENCE), PRINTED, "{}: exact")
    where = {word: place(word, config.text) for word in SENTENCE.split()}
    yield known(where)
    grid = make_grid([Arm("encoder-decoder", config)], at.seeds(SEEDS, quick=1), at.out / "runs")
    yield from train(at, "the runs", grid)
    loaded = [load(folder) for folder in grid.folders.values()]
    yield Progress("translating", 0, 1)
    made = [translate_all(trained, SENTENCE.split()) for trained in loaded]
    yield exact(made)
    rows = [row for trained, own in zip(loaded, made, strict=True) for row in rows_of(trained, own, where)]
    yield table("The sentence, word by word", HEADS, rows)
    yield table("Words that no run has seen", ("seed", "loss, nats per token", "right"),
                (held_out(trained) for trained in loaded))  # fmt: skip
    yield from attention(loaded[0], made[0])


def place(word: str, text: TextConfig) -> str:
    """Where the list has a word."""
    if word not in words():
        return "not in it"
    return "in training" if split_of(word, text) == "train" else "held out"


def split_of(word: str, text: TextConfig) -> str:
    """The split of a word of the list."""
    return document_split(word, text.dev_fraction, text.test_fraction)


def known(where: dict[str, str]) -> Claim:
    """Which words of the sentence were in training."""
    said = "; ".join(f"{word}: {found}" for word, found in where.items())
    seen = [word for word, found in where.items() if found == "in training"]
    shown = f"{len(seen)} of {len(where)}: {said}"
    return ROW.shows("every word of the sentence was in training", len(seen) == len(where), shown, where=where)


def exact(made: Sequence[Sequence[Translated]]) -> Claim:
    """Whether every run writes the sentence as it was printed."""
    written = [" ".join(one.target for one in own) for own in made]
    right = written.count(PRINTED)
    first = written[0] if len(written[0]) <= 2 * len(PRINTED) else f"{written[0][: 2 * len(PRINTED)]}…"
    shown = f"{right} of {len(written)} runs; the first: {first}"
    return ROW.shows(SENTENCE, right == len(written), shown, PRINTED, written=written)


def rows_of(trained: TrainedModel, made: Sequence[Translated], where: dict[str, str]) -> list[tuple[str, ...]]:
    """Each word with its translation and probabilities."""
    rows: list[tuple[str, ...]] = []
    for one in made:
        least = min(2.0 ** -(token.surprise_bits or 0.0) for token in target_tokens(trained, one, 1))
        right = "yes" if one.target == pig_latin(one.source) else "no"
        rows.append((str(trained.run.config.seed), one.source, where[one.source], one.target[: 2 * SHOWN], right,
                     f"{one.probability:.4f}", f"{least:.4f}"))  # fmt: skip
    return rows


def held_out(trained: TrainedModel) -> tuple[str, str, str]:
    """Seed, loss and the share of right words on the dev split."""
    config = trained.run.config
    found = evaluate(trained.model, open_task(config), "dev", trained.step)
    return str(config.seed), f"{found.loss:.4f}", f"{found.scores['exact_match']:.2%}"


# ----------------------------------------------------------------------------------------------------------- attention


def looks(trained: TrainedModel, source: str, target: str) -> Looks:
    """The cross-attention of an encoder-decoder while it reads a source and writes a target."""
    model, tokenizer = trained.model, trained.tokenizer
    assert isinstance(model, Translator)
    source_1S = torch.tensor([[*tokenizer.encode(source).tolist(), tokenizer.end_id]])
    ids_1T = torch.tensor([[tokenizer.end_id, *tokenizer.encode(target).tolist()]])
    weights: list[Tensor] = []
    with torch.no_grad(), evaluating(model):
        memory = model.encode(source_1S)
        logits = model(ids_1T, memory=memory, attend=recording(weights))
        gap = float((logits - model(ids_1T, memory=memory)).abs().max())
    return Looks(as_numpy(weights[1::2]), gap)  # in each block of the decoder self-attention comes first


def copied(word: str) -> list[int]:
    """Of each letter of a word's translation, up to the ending, the place in the word that it is copied from.

    The word has no hyphen.
    """
    target = pig_latin(word)
    moved = next(n for n in range(len(word) + 1) if target.startswith(word[n:] + word[:n]))
    return [*range(moved, len(word)), *range(moved)]


def attention(trained: TrainedModel, made: Sequence[Translated]) -> Findings:
    """Heat maps of every layer and head, and whether a head looks at the letter that is copied."""
    found = {one.source: looks(trained, one.source, one.target) for one in made}
    gaps = [own.gap for own in found.values()]
    yield ROW.equal("the attention shown is that of the fast path: logits", gaps, 1e-4)
    sums = [float(np.abs(own.weights.sum(-1) - 1).max()) for own in found.values()]
    yield ROW.equal("each row of it sums to 1", sums, 1e-5)
    yield aligned(trained)
    for one in made:
        yield heat_maps(found[one.source], one)


def aligned(trained: TrainedModel) -> Claim:
    """How often each head looks most at the letter that is copied next, on held-out words without a hyphen."""
    text = trained.run.config.text
    chosen = [word for word in words() if "-" not in word and split_of(word, text) == "dev"][:HELD_OUT]
    hits = []
    for word in chosen:
        where = copied(word)
        most = looks(trained, word, pig_latin(word)).weights.argmax(-1)[..., : len(where)]
        hits.append((most == np.array(where)).sum(-1))
    shares = np.sum(hits, axis=0) / sum(map(len, chosen))
    layer, head = np.unravel_index(shares.argmax(), shares.shape)
    shown = f"layer {layer + 1} head {head + 1} for {shares.max():.1%} of the letters of {len(chosen)} held-out words"
    return ROW.shows("one head looks most at the letter that is copied next, for 9 of 10", shares.max() >= 0.9,
                     shown, shares=shares.tolist())  # fmt: skip


def heat_maps(found: Looks, one: Translated) -> Drawing:
    """A map a layer and head: what is written next down, the source across."""
    written, read = [*one.target, END][:SHOWN], [*one.source, END]
    panels = [
        heat(weights[: len(written)], read, rows=written, title=f"layer {layer + 1}, head {head + 1}",
             xlabel=f"source; {END} is its end", ylabel="written next")
        for layer, heads in enumerate(found.weights) for head, weights in enumerate(heads)
    ]  # fmt: skip
    return draw(f"attention-{one.source}", *panels, columns=len(found.weights[0]))
