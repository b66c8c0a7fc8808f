"""004-2.1.4: what hidden size and the number of words do to a translation, and four runs that differ in more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from windtunnel.comparison.comparison import Comparison
from windtunnel.experiments.decoder_only import course_decoder
from windtunnel.experiments.frame import (
    Claim,
    Drawing,
    Findings,
    Given,
    Progress,
    Row,
    Setting,
    Steps,
    draw,
    interval,
    table,
)
from windtunnel.experiments.makemore_ladder import block_means
from windtunnel.experiments.training import folders_of, train, trained
from windtunnel.experiments.translators import COURSE, SOME, translating
from windtunnel.models import TranslatorConfig
from windtunnel.report.charts import Curve, Panel, dots, lines
from windtunnel.report.figures import dev_losses
from windtunnel.runs.arms import Arm
from windtunnel.runs.grid import make_grid
from windtunnel.stats.intervals import Estimate, mean_interval, paired_difference
from windtunnel.tasks import Translation
from windtunnel.training.data import open_store
from windtunnel.training.evaluate import evaluate
from windtunnel.training.events import Evaluation
from windtunnel.training.optimizer import OptimizerConfig
from windtunnel.training.run import load, open_run, resolve
from windtunnel.training.run_config import RunConfig
from windtunnel.training.schedule import ScheduleConfig

ROW, E28, E29 = Row("004-2.1.4"), Row("E28"), Row("E29")
CORPORA = {"small": "pig-latin-small", "large": "pig-latin"}
PUBLISHED = {32: 17_886, 64: 68_510, 128: 268_062}
"""Parameters of the source's decoder without embeddings, by what it calls its number of hidden layers."""
PRINTED = {(32, "small"): 0.963, (32, "large"): 1.277, (64, "small"): 0.417, (64, "large"): 0.583}
DIFFERING = {(32, "small"): (4, 64, 100), (32, "large"): (3, 512, 100), (64, "small"): (3, 64, 50),
             (64, "large"): (3, 512, 50)}  # fmt: skip
"""Layers, batch and epochs of the source's runs."""
SHORTER = 10
"""Its runs are here so many times as short, at so many times its learning rate of 5e-4."""
STEPS, LR, SEEDS, FEWER_SEEDS = 800, 6e-3, 6, 3
SIZES = (32, 64)
SIZE_PRINTED = "1.277 to .583, .963 to .417"
HEADS = ("run", "layers", "batch", "epochs", "steps here", "printed", "own words: lowest loss", "same words: loss",
         "same words: right")  # fmt: skip

Cell = tuple[int, str]
"""Hidden size and words."""
Scores = Mapping[Cell, Sequence[float]]
"""One number a seed."""


def translation_grid(at: Setting) -> Findings:
    """Translation: hidden size and data.

    Encoder-decoders of the course's blocks were trained with hidden size 32 and 64 on few and on many words, all else
    equal, and judged on the same words, which none of them had seen. Then the source's own four runs, which differ in
    layers, batch and epochs too: judged each on its own held-out words, as the source did, and on the same ones.
    """
    yield sizes()
    found = yield from matched(at)
    scores = {name: scores_of(found, name) for name in ("loss", "exact_match")}
    yield from effects(scores)
    yield curves(found)
    own, common = yield from as_it_was(at)
    yield from orderings(own, common)
    yield losses_figure(scores["loss"], own, common)


def sizes() -> Claim:
    """E28: whether what the source calls hidden layers is a number of layers."""
    wide = {h: course_decoder(h).n_parameters(embeddings=False) for h in PUBLISHED}
    deep = {h: course_decoder(32).replace(n_layers=h).n_parameters(embeddings=False) for h in PUBLISHED}
    printed, width, depth = (", ".join(f"{n:,}" for n in own.values()) for own in (PUBLISHED, wide, deep))
    said = f"parameters of 4 layers of these widths: {width}; of so many layers of width 32: {depth}"
    return E28.shows("32, 64 and 128 are numbers of hidden layers", deep == PUBLISHED, said, printed,
                     wide=wide, deep=deep)  # fmt: skip


# ------------------------------------------------------------------------------------------------------- matched grid


def name_of(cell: Cell) -> str:
    """As an arm of the matched grid is called."""
    return f"h {cell[0]}, {cell[1]}"


def encoder_decoder(at: Setting, h: int, n_layers: int) -> TranslatorConfig:
    """The course's blocks, a quarter as wide in a quick run."""
    return TranslatorConfig(n_layers=n_layers, d_model=at.size(h, quick=h // 4), **COURSE)


def matched(at: Setting) -> Steps[Comparison]:
    """The four runs with all else equal: one corpus, of which two draw as many words as the small one has."""
    steps = at.size(STEPS, quick=8)
    large, few = pairs(at, "large"), len(pairs(at, "small").examples("train"))
    often = {"eval_every": max(1, steps // 8), "eval_tokens": 5000}
    arms = [
        Arm(name_of((h, data)), translating(at, CORPORA["large"], encoder_decoder(at, h, 3), steps, LR,
                                            n_examples=few if data == "small" else None, **often))
        for h, data in PRINTED
    ]  # fmt: skip
    yield Given({
        "matched grid": f"3 + 3 layers, {steps} steps of {arms[0].config.train.batch_size} words, lr {LR:g}",
        "words": f"small {few:,}, drawn from large {len(large.examples('train')):,}; {large.n_units('dev'):,} held "
        "out of both",
    })  # fmt: skip
    found = yield from trained(at, "the matched grid", arms, at.seeds(SEEDS), "matched")
    return found


def pairs(at: Setting, data: str) -> Translation:
    """The task on a corpus."""
    config = translating(at, CORPORA[data], TranslatorConfig(**COURSE), 1, LR)
    store = open_store(config)
    return Translation(store, resolve(config, store).model)


def scores_of(found: Comparison, metric: str) -> Scores:
    """Of each cell the scores of the seeds with which no run of the grid diverged."""
    each = {cell: [run.scores[metric] for arm in found.arms if arm.name == name_of(cell) for run in arm.seeds]
            for cell in PRINTED}  # fmt: skip
    kept = [i for i in range(len(found.arms[0].seeds)) if all(math.isfinite(own[i]) for own in each.values())]
    return {cell: [own[i] for i in kept] for cell, own in each.items()}


def effect(scores: Scores, plus: Sequence[Cell], minus: Sequence[Cell]) -> Estimate:
    """The mean of some cells minus that of others, paired by seed."""
    high, low = ([float(np.mean(own)) for own in zip(*(scores[cell] for cell in cells), strict=True)]
                 for cells in (plus, minus))  # fmt: skip
    return paired_difference(low, high)


def main_effects(scores: Scores) -> dict[str, Estimate]:
    """What the larger hidden size does, what more words do, and by how much the second depends on the first."""
    wide, many = ([cell for cell in PRINTED if cell[i] == value] for i, value in ((0, 64), (1, "large")))
    narrow, few = ([cell for cell in PRINTED if cell not in own] for own in (wide, many))
    crossed = [(64, "large"), (32, "small")]
    both = effect(scores, crossed, [cell for cell in PRINTED if cell not in crossed])
    return {"hidden size 64, not 32": effect(scores, wide, narrow), "large, not small": effect(scores, many, few),
            "the second at 64 minus at 32, halved": both}  # fmt: skip


def more_words(scores: Scores, h: int) -> Estimate:
    """The score on many words minus that on few, at one hidden size."""
    return effect(scores, [(h, "large")], [(h, "small")])


def effects(scores: Mapping[str, Scores]) -> Findings:
    """Both factors, with all else equal."""
    loss, exact = (main_effects(own) for own in scores.values())
    size, data, _ = loss
    lower = (("hidden size 64: a lower loss than 32", size, SIZE_PRINTED),
             ("more words to learn from: a lower loss", data, "higher: .963 to 1.277, .417 to .583"))  # fmt: skip
    for statement, name, printed in lower:
        yield ROW.within(f"{statement}, all else equal", loss[name], high=-SOME, printed=printed,
                         shown=nats(loss[name]))  # fmt: skip
        share = f"{statement.partition(':')[0]}: more of the held-out words right"
        yield ROW.within(share, exact[name], low=SOME, shown=f"{interval(exact[name], '+.4f')} of all words")
    for h in SIZES:
        yield higher(more_words(scores["loss"], h), "all else equal", h)
    heads = ("effect", "loss, nats per token", "share of words right")
    yield table("Effects, all else equal, 95 % intervals over seeds", heads,
                ((name, *(interval(own[name], "+.4f") for own in (loss, exact))) for name in loss))  # fmt: skip


def higher(difference: Estimate, where: str, h: int) -> Claim:
    """E29: whether more words make the loss higher."""
    few, many = (f"{PRINTED[h, data]:g}" for data in CORPORA)
    return E29.within(f"{where}: more words, a higher loss at hidden size {h}", difference, low=SOME,
                      printed=f"{few} to {many}", shown=nats(difference))  # fmt: skip


# ----------------------------------------------------------------------------------------------- the source's four runs


def as_it_was(at: Setting) -> Steps[tuple[Scores, Scores]]:
    """The source's runs, shorter: the lowest losses on their own held-out words, and all scores on the same words."""
    arms = {cell: Arm(f"{name_of(cell)}: {n_layers} layers, batch {batch}", their_run(at, cell))
            for cell, (n_layers, batch, _) in DIFFERING.items()}  # fmt: skip
    yield Given({
        "the source's runs": f"{SHORTER} times as short at {SHORTER} times its rate, which falls by .99 an epoch of "
        "its own; the lowest of 5 evaluations, patience left out",
    })  # fmt: skip
    grid = make_grid(list(arms.values()), at.seeds(FEWER_SEEDS), at.out / "runs")
    yield from train(at, "the source's runs", grid)
    task, places = pairs(at, "large"), [(cell, seed) for cell in arms for seed in grid.seeds]
    own: dict[Cell, list[float]] = {cell: [] for cell in arms}
    common: dict[Cell, list[float]] = {cell: [] for cell in arms}
    exact: dict[Cell, list[float]] = {cell: [] for cell in arms}
    for i, (cell, seed) in enumerate(places):
        yield Progress("the same words", i, len(places))
        folder = grid.folders[arms[cell].name, seed]
        own[cell].append(min(e.loss for e in open_run(folder).events() if isinstance(e, Evaluation)))
        loaded = load(folder)
        assert loaded.tokenizer.to_json() == task.store.tokenizer.to_json()
        found = evaluate(loaded.model, task, "dev", loaded.step)
        common[cell].append(found.loss)
        exact[cell].append(found.scores["exact_match"])
    yield table("The source's design, means over seeds", HEADS, (
        (name_of(cell), *map(str, DIFFERING[cell]), f"{arms[cell].config.train.steps:,}", f"{PRINTED[cell]:g}",
         *(f"{float(np.mean(scores[cell])):.4f}" for scores in (own, common, exact)))
        for cell in arms
    ))  # fmt: skip
    return own, common


def their_run(at: Setting, cell: Cell) -> RunConfig:
    """One of the source's runs, shorter."""
    (h, data), (n_layers, batch, epochs) = cell, DIFFERING[cell]
    n_words = len(pairs(at, data).examples("train"))
    steps = at.size(math.ceil(n_words / batch) * epochs // SHORTER, quick=6)
    lr, batch = SHORTER * 5e-4, at.size(batch, quick=batch // 16)
    config = translating(at, CORPORA[data], encoder_decoder(at, h, n_layers), steps, lr, batch_size=batch,
                         eval_every=max(1, steps // 5))  # fmt: skip
    return config.replace(
        optimizer=OptimizerConfig(lr=lr, beta_2=0.999, weight_decay=0.0),
        schedule=ScheduleConfig(curve="linear", warmup=0, final_fraction=0.99**epochs),
    )


def orderings(own: Scores, common: Scores) -> Findings:
    """E29: the source's two conclusions in its own design."""
    for where, scores in (("its design, each on its own words", own), ("its design, on the same words", common)):
        for h in SIZES:
            yield higher(more_words(scores, h), where, h)
        size = next(iter(main_effects(scores).values()))
        statement = f"{where}: hidden size 64, a lower loss"
        yield E29.within(statement, size, high=-SOME, printed=SIZE_PRINTED, shown=nats(size))


def nats(difference: Estimate) -> str:
    """A difference of losses with its interval."""
    return f"{interval(difference, '+.4f')} nats per token"


# ------------------------------------------------------------------------------------------------------------- figures


def curves(found: Comparison) -> Drawing:
    """Train loss in means of many steps, and the loss of a sample of held-out words (marks), by words and by size."""
    events = {cell: [open_run(folder).events() for folder in folders_of(found, name_of(cell))] for cell in PRINTED}
    both: dict[Cell, list[Curve]] = {}
    for cell, runs in events.items():
        dev = {step: float(np.mean(losses)) for step, losses in dev_losses(runs).items() if step}
        both[cell] = [([*dev], [*dev.values()]), block_means(runs)]

    def panel(title: str, cells: Mapping[str, Cell]) -> Panel:
        own = {name: both[cell] for name, cell in cells.items()}
        return lines(own, title=title, yscale="log", xlabel="step", ylabel="loss: train, held out (marks)")

    by_words = [panel(f"{data} data", {f"h {h}": (h, data) for h in SIZES}) for data in CORPORA]
    by_size = [panel(f"hidden size {h}", {data: (h, data) for data in CORPORA}) for h in SIZES]
    return draw("curves", *by_words, *by_size, columns=2, share="xy")


def losses_figure(equal: Scores, own: Scores, common: Scores) -> Drawing:
    """Of the four runs what was printed, the source's design, and all else equal."""
    series: dict[str, dict[str, float | Estimate]] = {
        "printed": {name_of(cell): loss for cell, loss in PRINTED.items()},
        "its design, own words": {name_of(cell): mean_interval(own[cell]) for cell in PRINTED},
        "its design, same words": {name_of(cell): mean_interval(common[cell]) for cell in PRINTED},
        "all else equal, same words": {name_of(cell): mean_interval(equal[cell]) for cell in PRINTED},
    }
    return draw("losses", dots(series, [name_of(cell) for cell in PRINTED], log="x", xlabel="loss, nats per token"),
                size=(8.0, 4.4))  # fmt: skip
