"""001-1.2.1 to 1.2.10 and E6 to E10: ten questions about the code of a GPT, answered by values of a live model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.data import Dataset

from windtunnel.experiments.frame import Findings, Given, Progress, Row, Setting, draw
from windtunnel.experiments.small_gpt import as_batch, gpt_nano
from windtunnel.generation.decode import decode
from windtunnel.generation.sampling import SamplingConfig
from windtunnel.models import Transformer
from windtunnel.report.charts import histograms
from windtunnel.tasks.cross_entropy import losses
from windtunnel.text.batches import IGNORED, Documents
from windtunnel.text.tokenizers import Tokenizer, gpt2_tokenizer

ROWS = [Row(f"001-1.2.{n}") for n in range(1, 11)]
E6, E7, E8, E9, E10 = (Row(f"E{n}") for n in range(6, 11))
SENTENCE, LONGER = "I rub the dog.", "He and I can hold a cat."
CONTEXT, CLASSES, STD = 1024, 2, 0.02
TEMPERATURES = (0.3, 0.6, 0.8, 1.0, 2.0)


@dataclass(frozen=True)
class Reading:
    """What is read: a model with random weights, GPT-2's tokens, and two sentences as ids."""

    model: Transformer
    tokenizer: Tokenizer
    sentences: tuple[tuple[int, ...], ...]


def reading_a_gpt(at: Setting) -> Findings:
    """Ten questions about a GPT.

    gpt-nano with GPT-2's tokens was built, untrained. Each question about its code is answered by what the live model,
    its data and its decoding do: a shape, a count, a spread, or a difference that must be zero.
    """
    yield Progress("building the model")
    tokenizer = gpt2_tokenizer()
    ids = tuple(tuple(tokenizer.encode(text).tolist()) for text in (SENTENCE, LONGER))
    reading = Reading(gpt_nano(tokenizer.vocab_size, CONTEXT, at.seed).eval(), tokenizer, ids)
    n = sum(p.numel() for p in reading.model.parameters())
    yield Given(
        {"model": "3 layers x 48, 3 heads", "parameters": n, "context": CONTEXT, "sentences": [SENTENCE, LONGER]}
    )
    with torch.no_grad():
        yield from data(reading)
        yield from padding(reading)
        yield from targets(reading)
        yield from decoding(reading)
        yield from heads(reading)
        yield from spreads(reading)
        yield from positions(reading)
        yield from skips(reading)


# --------------------------------------------------------------------------------------------------------------- data


def data(reading: Reading) -> Findings:
    """1.2.1: what a data set is here."""
    ids, ends = np.concatenate(reading.sentences), np.cumsum([0, *map(len, reading.sentences)])
    assert reading.tokenizer.end_id is not None
    examples = Documents(ids, ends, reading.tokenizer.end_id, CONTEXT)
    rows = examples.take(np.array([1, 0]))
    first = tuple(rows.ids[1, 1 : 1 + len(reading.sentences[0])].tolist())
    base = isinstance(examples, Dataset)
    shown = f"`{type(examples).__name__}`: length {len(examples)}, examples by index; a torch Dataset: {base}"
    statement = "a data set needs a length and examples by index, and no base class"
    holds = not base and len(examples) == 2 and first == reading.sentences[0]
    yield ROWS[0].shows(statement, holds, shown, "torch.utils.data.Dataset", length=len(examples), base=base)


def padding(reading: Reading) -> Findings:
    """1.2.2 and E6: what padding is, and whether it counts."""
    rows = as_batch(reading.sentences)
    unread = rows.targets == IGNORED
    sums = [float(losses(reading.model(rows.ids.masked_fill(unread, id)), rows.targets).sum()) for id in (0, 1, 777)]
    statement = "padding stands on the right, out of the targets: which id it has changes no loss"
    shown = f"{int(unread.sum())} of {unread.numel()} places; {sums[0]:.4f} nats with the ids 0, 1 and 777"
    yield ROWS[1].equal(statement, [abs(x - sums[0]) for x in sums], 1e-4, shown=shown)
    token, logits = reading.tokenizer.token(1), reading.model(rows.ids.masked_fill(unread, 1))
    own, diluted = (float(losses(logits, t).sum()) for t in (rows.targets, rows.targets.masked_fill(unread, 1)))
    shown = f"id 1 is the token {token}; as a target it adds {diluted - own:.1f} nats to {own:.1f}"
    statement = "padding with ones is padding with nothing"
    yield E6.shows(statement, diluted == own, shown, "pads with ones", token=token, own=own, counted=diluted)


def targets(reading: Reading) -> Findings:
    """1.2.3 and 1.2.4: what is predicted from what, and how often."""
    rows, (one, _) = as_batch(reading.sentences), reading.sentences
    inside = rows.targets[:, :-1] != IGNORED
    differ = int((rows.targets[:, :-1] != rows.ids[:, 1:])[inside & (rows.targets[:, 1:] != IGNORED)].sum())
    yield ROWS[2].shows(
        "Y is X one token later", differ == 0, f"{differ} tokens differ", "Y = X shifted", differ=differ
    )
    alone = as_batch([one])
    together = losses(reading.model(alone.ids), alone.targets)[0]
    each = [
        losses(reading.model(torch.tensor([one[:n]]))[:, -1:], torch.tensor([[one[n]]])) for n in range(1, len(one))
    ]
    yield ROWS[3].same(f'"{SENTENCE}" is 4 examples', alone.n_targets, 4)
    gap = float((together - torch.cat(each).flatten()).abs().max())
    yield ROWS[3].equal("their losses are those of its 4 beginnings, each read by itself", gap, 1e-5)


# ----------------------------------------------------------------------------------------------------------- decoding


def decoding(reading: Reading) -> Findings:
    """1.2.5 and E7."""

    def text(sampling: SamplingConfig, seed: int = 0) -> tuple[int, ...]:
        return tuple(new.id for new in decode(reading.model, reading.sentences[0], 8, sampling, seed))

    greedy = text(SamplingConfig(temperature=0))
    argmax = list(reading.sentences[0])
    for _ in greedy:
        argmax.append(int(reading.model(torch.tensor([argmax]))[0, -1].argmax()))
    statement = "greedy decoding takes the most probable token at each step"
    yield ROWS[4].same(statement, str(list(greedy)), str(argmax[-len(greedy) :]))
    drawn = len({text(SamplingConfig(), seed) for seed in range(5)})
    shown = f"{drawn} texts of 5 seeds with windtunnel's default, {SamplingConfig().temperature} and no top_k"
    yield ROWS[4].shows("drawing is something else: every seed has its text", drawn == 5, shown, texts=drawn)
    same = sum(text(SamplingConfig(temperature=t, top_k=1), seed=3) == greedy for t in TEMPERATURES)
    statement = "top-k with k = 1 is another way to decode than greedy"
    shown = f"the same text at {same} of {len(TEMPERATURES)} temperatures: of one token nothing is drawn"
    yield E7.shows(statement, same < len(TEMPERATURES), shown, "top-k with k=1", same=same)


def heads(reading: Reading) -> Findings:
    """1.2.6 and E8: what the two heads read, and where they are made and used."""
    model, (ids, _) = reading.model, reading.sentences
    lm_head, classifier_head = model.head, nn.Linear(model.config.d_model, CLASSES)
    assert lm_head is not None
    hidden = model.hidden(torch.tensor([ids]))
    shapes = [tuple(out.shape) for out in (lm_head(hidden), classifier_head(hidden[:, -1, :]))]
    expected = [(1, len(ids), reading.tokenizer.vocab_size), (1, CLASSES)]
    yield ROWS[5].same("one head reads every position, a classifier's only the last", str(shapes), str(expected))
    called: list[nn.Module] = []
    hook = register_module_forward_hook(lambda module, *_: called.append(module))
    small = gpt_nano(8, 8, 0)
    when_made = len(called)
    small(torch.tensor([[1, 2]]))
    hook.remove()
    uses = sum(module is small.head for module in called)
    shown = (
        f"a module of the class `{type(small.head).__name__}`, made with the model and called {when_made} times then; "
    )
    statement, is_method = "the heads come from a method `torch.nn.linear`", not isinstance(small.head, nn.Linear)
    yield E8.shows(statement, is_method or when_made > 0 or uses != 1, f"{shown}{uses} in a forward pass",
                   "torch.nn.linear", when_made=when_made, uses=uses)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ weights


def spreads(reading: Reading) -> Findings:
    """1.2.7, 1.2.9 and E9: what tokens and positions start as."""
    model = reading.model
    tables = {"wte": named(model, "embedding.weight"), "wpe": named(model, "position.embedding.weight")}
    for row, (name, table) in zip((ROWS[6], ROWS[8]), tables.items(), strict=True):
        bound = 4 * STD / (2 * table.numel()) ** 0.5
        row_shown = f"mean {float(table.mean()):.1e}, standard deviation {float(table.std()):.5f} of {table.numel():,}"
        yield row.equal(f"{name} starts as N(0, .02)", abs(float(table.std()) - STD), bound,
                        "normal(0, .02)", row_shown)  # fmt: skip
    fresh = nn.Embedding(1000, model.config.d_model).weight
    stds = {"fresh": float(fresh.std()), "model": float(tables["wte"].std())}
    shown = f"a fresh one has {stds['fresh']:.3f}, this one {stds['model']:.3f}: it was filled again"
    statement = "wte keeps the N(0, 1) of nn.Embedding"
    yield E9.shows(statement, abs(stds["model"] - 1) < 0.1, shown, "nn.Embedding", **stds)
    values = {name: table.flatten()[:50_000].numpy() for name, table in tables.items()}
    yield draw("weights", histograms(values, 41, xlabel="weight at the start"))


def named(model: nn.Module, name: str) -> Tensor:
    """A parameter, by its name."""
    return model.get_parameter(name).detach()


def positions(reading: Reading) -> Findings:
    """1.2.8 and E10: which object holds the positions, and what is looked up in it."""
    model, ids = reading.model, torch.tensor([reading.sentences[0]])
    shape = (model.config.context_length, model.config.d_model)
    tables = [name for name, p in model.named_parameters() if tuple(p.shape) == shape]
    shown = f"{', '.join(tables)}: {shape}"
    yield ROWS[7].shows(
        "one parameter has a row for each position", len(tables) == 1, shown, "transformer.wpe", shape=shape
    )
    [entered] = seen(model, [model.blocks[0]], ids, before=True)
    rows = named(model, "position.embedding.weight")[: ids.shape[1]]
    gap = float((entered - named(model, "embedding.weight")[ids] - rows).abs().max())
    yield ROWS[7].equal("the first block reads a token's row and its position's, added", gap)
    shown = f"the module has {shape}; what is looked up for a sentence {tuple(rows.shape)}, and is no parameter"
    same = tuple(rows.shape) == shape
    yield E10.shows("`pos_emb` is the object with the positions", same, shown, "pos_emb", looked_up=tuple(rows.shape))


def skips(reading: Reading) -> Findings:
    """1.2.10: what a block adds, and what is left of it without its branches."""
    model, ids = reading.model, torch.tensor([reading.sentences[1]])
    block = model.blocks[1]
    parts = [block.get_submodule(name) for name in ("attention", "feed_forward")]
    before, (attended, forwarded), after = (
        seen(model, [block], ids, True),
        seen(model, parts, ids),
        seen(model, [block], ids),
    )
    gap = float((before[0] + attended + forwarded - after[0]).abs().max())
    yield ROWS[9].equal("a block's output is its input and two branches, added", gap)
    stds = [float(named(model, f"blocks.1.{name}.weight").std()) for name in ("attention.out", "feed_forward.narrow")]
    scaled = STD / (2 * model.config.n_layers) ** 0.5
    shown = ", ".join(f"{std:.5f}" for std in stds)
    yield ROWS[9].equal("what writes a branch starts as N(0, .02 / sqrt(2 layers)): .00816",
                        [abs(std - scaled) for std in stds], 4e-4, ".00816", shown)  # fmt: skip
    kept = {name: weight.clone() for name, weight in model.state_dict().items()}
    zeroed(model)
    gap = float((seen(model, [model.blocks[0]], ids, True)[0] - seen(model, [model.blocks[-1]], ids)[0]).abs().max())
    model.load_state_dict(kept)
    yield ROWS[9].equal("with both branches of every block at zero the input comes out of the last", gap)


def zeroed(model: Transformer) -> None:
    """Set what writes a branch to zero, in every block."""
    for name, parameter in model.named_parameters():
        if ".attention.out." in name or ".feed_forward.narrow." in name:
            parameter.zero_()


def seen(model: Transformer, modules: Iterable[nn.Module], ids: Tensor, before: bool = False) -> list[Tensor]:
    """What modules give in a forward pass, or what they read."""
    found: list[Tensor] = []
    hooks = [module.register_forward_hook(lambda _, read, gave: found.append(read[0] if before else gave))
             for module in modules]  # fmt: skip
    model(ids)
    for hook in hooks:
        hook.remove()
    return found
