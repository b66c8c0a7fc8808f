"""004-2.2: translation by a decoder alone: its tensors, its loss, and beside an encoder-decoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from windtunnel.comparison.comparison import Comparison
from windtunnel.experiments.frame import Claim, Findings, Given, Progress, Row, Setting, interval
from windtunnel.experiments.training import trained
from windtunnel.experiments.translators import COURSE, MODERN, SOME, translating
from windtunnel.models import ModelConfig, TransformerConfig, TranslatorConfig, build
from windtunnel.nn.positions import sinusoidal
from windtunnel.runs.arms import Arm
from windtunnel.tasks.cross_entropy import loss_sum
from windtunnel.tasks.translation import TURN, Pairs
from windtunnel.text.batches import IGNORED, Batch
from windtunnel.training.data import open_store, open_task

TENSORS, FORWARD, TRAINED, E30 = Row("004-2.2.1"), Row("004-2.2.2"), Row("004-2.2.3"), Row("E30")
SOS, EOS, EOP = 27, 28, 29
"""The source's marks: begin, end, and the turn from source to target."""
SOURCE, TARGET = [5, 6], [6, 5, 0, 24]
READ, PREDICTED = [27, 5, 6, 29, 6, 5, 0, 24], [5, 6, 29, 6, 5, 0, 24, 28]
LENGTH, PLACES = 19, 1000
"""Tokens of a sequence, and positions of the source's table."""
SEEDS, CORPUS = 6, "pig-latin-small"
SHAPES = {"the course's": (COURSE, 44, 52, 6e-3, 1000), "modern": (MODERN, 44, 48, 3e-3, 800)}
"""Of both kinds of blocks the widths of the encoder-decoder and of the decoder alone, learning rate and steps."""
PRINTED = ".428 at h 128; encoder-decoder .417 at h 64"


def decoder_only(at: Setting) -> Findings:
    """Translation by a decoder alone.

    The source's tensors are made and windtunnel's of the same pair; then encoder-decoders of 2 + 2 layers and decoders
    of 4 layers with as many parameters were trained on the same words with paired seeds, once for the same number of
    steps and once for the same FLOPs.
    """
    yield Progress("tensors", 0, 2)
    yield from tensors()
    yield Progress("forward", 1, 2)
    yield from forward()
    yield from loss_after_the_turn(at)
    yield from not_an_encoder()
    for name in SHAPES:
        yield from beside(at, name)


# ------------------------------------------------------------------------------------------------------------ tensors


def as_written(source: Sequence[int], target: Sequence[int]) -> tuple[list[int], list[int]]:
    """What the source's model reads, and what it is to predict."""
    return [SOS, *source, EOP, *target], [*source, EOP, *target, EOS]


def pair_of(source: Sequence[int], target: Sequence[int]) -> Batch:
    """The same pair as `Pairs` has it, with the source's numbers for the end mark and the turn."""
    ids = np.array([*source, EOP, *target])
    return Pairs(ids, np.array([0, len(ids)]), SOS, EOP, context_length=len(ids) + 1).take(np.array([0]))


def tensors() -> Findings:
    """004-2.2.1."""
    read, predicted = as_written(SOURCE, TARGET)
    yield TENSORS.same("SOS source EOP target", str(read), str(READ))
    yield TENSORS.same("source EOP target EOS", str(predicted), str(PREDICTED))
    batch = pair_of(SOURCE, TARGET)
    own, targets = batch.ids[0].tolist(), batch.targets[0].tolist()
    yield TENSORS.same("`Pairs` reads the same, with its end mark for SOS and a TAB for EOP", str(own), str(READ))
    left_out = [IGNORED] * (len(SOURCE) + 1)
    right = [*left_out, *predicted[len(left_out) : -1], SOS]
    statement = "its targets are those, but for the source and EOP, which are left out, and one mark for SOS and EOS"
    yield TENSORS.same(statement, str(targets), str(right))


# ------------------------------------------------------------------------------------------------------------ forward


def course_decoder(h: int) -> TransformerConfig:
    """The source's decoder: four layers x h, 30 tokens."""
    return TransformerConfig(vocab_size=30, n_layers=4, d_model=h, **COURSE)


def positions_as_written(x_BTH: Tensor, places_PH: Tensor) -> Tensor:
    """What the source adds to its embeddings."""
    return x_BTH + places_PH[:, :]


def forward() -> Findings:
    """004-2.2.2: positions, shapes and parameters."""
    x, places = torch.zeros(64, LENGTH, 128), sinusoidal(torch.arange(PLACES), 128)
    yield adds(x, places)
    cut = x + places[:LENGTH]
    own = sinusoidal(torch.arange(LENGTH), 128)
    shown = str(tuple(cut.shape))
    yield FORWARD.equal("cut to the length of the sequence it does", float((cut - own).abs().max()), shown=shown)
    config = course_decoder(128)
    yield FORWARD.same("parameters at h 128, without embeddings", config.n_parameters(embeddings=False), 268_062)
    with torch.no_grad():
        logits = build(config, 0)(torch.zeros(64, LENGTH, dtype=torch.int64))
    yield FORWARD.same("logits of 64 sequences", str(tuple(logits.shape)), str((64, LENGTH, 30)))


def adds(x: Tensor, places: Tensor) -> Claim:
    """Whether the source's code runs on a sequence shorter than its table."""
    statement = f"`positional_encodings[:, :]` of {PLACES:,} positions fits a sequence of {LENGTH} tokens"
    try:
        said = str(tuple(positions_as_written(x, places).shape))
    except RuntimeError as error:
        said = str(error)
        return FORWARD.shows(statement, False, f"RuntimeError: {said}", error=said)
    return FORWARD.shows(statement, True, said, shape=said)


def loss_after_the_turn(at: Setting) -> Findings:
    """004-2.2.2: what the loss counts, on pairs of the corpus."""
    config = translating(at, CORPUS, TransformerConfig(**COURSE), 1, 1e-3)
    store = open_store(config)
    batch = open_task(config, store).examples("train").take(np.arange(64), 0)
    generator = torch.Generator().manual_seed(at.seed)
    logits = torch.randn(*batch.ids.shape, store.tokenizer.vocab_size, generator=generator, requires_grad=True)
    (slope,) = torch.autograd.grad(loss_sum(logits, batch.targets), logits)
    size = slope.abs().amax(-1)
    turn = int(store.tokenizer.encode(TURN)[0])
    before = (batch.ids == turn).cumsum(1) == 0  # positions that predict the source or the turn
    after = float(size[~before & (batch.targets != IGNORED)].min())
    shown = f"largest gradient before it, beside at least {after:.2g} after it"
    yield FORWARD.equal("the loss does not depend on any logit before the turn", size[before].numpy(), 0.0, shown=shown)
    with torch.no_grad():
        moved = logits.masked_fill(before[..., None], 7.0)
        gap = float((loss_sum(moved, batch.targets) - loss_sum(logits, batch.targets)).abs())
    yield FORWARD.equal("other logits there leave it as it is", gap, 0.0, shown=f"{int(before.sum()):,} positions")
    yield Given({"corpus": CORPUS, "tokens": f"{store.tokenizer.vocab_size}, the source has 30: one mark more"})


def not_an_encoder() -> Findings:
    """E30: what the source calls encoder-only."""
    ids = torch.arange(LENGTH)[None]
    other = ids.clone()
    other[0, -1] += 1
    change = {}
    for causal in (True, False):
        model = build(course_decoder(128).replace(causal=causal), 0)
        with torch.no_grad():
            change[causal] = float((model(ids) - model(other))[:, :-1].abs().max())
    shown = f"another last token changes the logits before it by {change[True]:.2g}"
    yield E30.shows("the model is encoder-only", change[True] > 1e-6, shown, change=change[True])
    shown = f"by {change[False]:.2g} where attention sees all"
    yield E30.shows("an encoder would see the token that it is to predict", change[False] > 1e-6, shown,
                    change=change[False])  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ trained


def arms_of(at: Setting, name: str) -> list[Arm]:
    """Encoder-decoder and decoder of this kind of blocks."""
    blocks, width, wider, lr, steps = SHAPES[name]
    if at.quick:
        width, wider, steps = 8, 8, 8
    models: dict[str, ModelConfig] = {
        "encoder-decoder": TranslatorConfig(n_layers=2, d_model=width, **blocks),
        "decoder-only": TransformerConfig(n_layers=4, d_model=wider, **blocks),
    }
    return [Arm(arm, translating(at, CORPUS, model, steps, lr)) for arm, model in models.items()]


def beside(at: Setting, name: str) -> Findings:
    """004-2.2.3: both, at equal parameters and steps, then at equal FLOPs."""
    arms, key = arms_of(at, name), name.split("'")[0].removeprefix("the ")
    train, (width, wider) = arms[0].config.train, (arm.config.model.widest for arm in arms)
    said = f"2 + 2 layers x {width} beside 4 x {wider}; {train.steps} steps of {train.batch_size} words"
    yield Given({f"{name} blocks": f"{said}, lr {arms[0].config.optimizer.lr:g}"})
    found = yield from trained(at, f"{name} blocks, equal steps", arms, at.seeds(SEEDS), f"{key}-steps")
    if not at.quick:
        yield alike(found, name, "parameters", [arm.n_parameters for arm in found.arms])
    yield from better(found, f"{name} blocks, equal parameters and steps")
    flops = [arm.flops for arm in found.arms]
    shown = f"{flops[1] / flops[0]:.2f} times: source and target go through all of its layers"
    yield TRAINED.shows(f"{name} blocks: a step of the decoder alone costs more FLOPs", flops[1] > flops[0], shown,
                        flops=flops)  # fmt: skip
    budget = ("flops", flops[0] * (1 + 1e-9))  # rounding must not take a step away
    found = yield from trained(at, f"{name} blocks, equal FLOPs", arms, at.seeds(SEEDS), f"{key}-flops", budget)
    if not at.quick:
        yield alike(found, name, "FLOPs", [arm.flops for arm in found.arms])
    yield from better(found, f"{name} blocks, equal parameters and FLOPs")


def alike(found: Comparison, name: str, what: str, values: Sequence[float]) -> Claim:
    """Whether both arms have the same, up to a hundredth."""
    gap = abs(values[1] / values[0] - 1)
    shown = " and ".join(f"{value:,.4g}" if what == "FLOPs" else f"{value:,}" for value in values)
    return TRAINED.shows(f"{name} blocks: the same {what} (within 1 %)", gap <= 0.01, f"{shown}; apart by {gap:.2%}",
                         values=values, steps=[arm.steps for arm in found.arms])  # fmt: skip


def better(found: Comparison, what: str) -> Findings:
    """The verdict on the loss, and exact matches beside it."""
    statement, judgement = f"decoder-only: a lower loss than encoder-decoder; {what}", found.judgements[0]
    yield TRAINED.judged(statement, judgement, ["better"], PRINTED, named=False)
    difference = judgement.others["exact_match"]
    shares = ", ".join(f"{arm.name} {arm.scores['exact_match'].estimate:.1%}" for arm in found.arms)
    statement = f"decoder-only: more words right; {what}"
    shown = f"{interval(difference, '+.4f')} of all words: {shares}"
    yield TRAINED.within(statement, difference, low=SOME, shown=shown)
