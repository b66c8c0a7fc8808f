"""What a model looks at while it translates: every layer and head, and how far each copies its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from windtunnel.errors import ConfigError
from windtunnel.generation.prompt import token_text
from windtunnel.generation.trace import TokenTrace
from windtunnel.generation.translate import Translated, read_ids, target_tokens
from windtunnel.inspect.attention import as_numpy, attention, recording
from windtunnel.models import RNN, Model, Transformer, Translator
from windtunnel.nn.attention import distances, visible
from windtunnel.nn.mode import evaluating
from windtunnel.training.run import TrainedModel

Weights = npt.NDArray[np.float32]
Seen = npt.NDArray[np.bool_]
SOURCE, WRITTEN = "source token", "token written"
WITHOUT = "translate without --attention"
MOST_WEIGHTS = 2_000_000
"""Weights of all translations that are looked at together: a page of them is about 5 MB."""


@dataclass(frozen=True)
class Heads:
    """One kind of attention of a translation: T tokens look at S tokens.

    row: what a row is, SOURCE or WRITTEN.
    weights: (n_layers, n_heads, T, S) float32; row t of a head sums to 1.
    seen: (n_layers, T, S) bool, the columns that a row may look at at all.
    rows, columns: the texts of the tokens; a token of the target is the row in which it is written.
    n_source: how many columns, the first ones, are the source with its marks.
    equal: (T, S) bool, True where a column is of the source and is the very token that the row writes; None for rows
        that write nothing.
    """

    kind: str
    row: str
    weights: Weights
    seen: Seen
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    n_source: int
    equal: Seen | None = None


@dataclass(frozen=True)
class TranslationAttention:
    """A translation, its tokens with what each could have been, and the attention under which it was written.

    max_difference: largest absolute difference between the logits of the pass that shows its weights and of the fast
        path.
    """

    translated: Translated
    tokens: tuple[TokenTrace, ...]
    kinds: tuple[Heads, ...]
    max_difference: float


@dataclass(frozen=True)
class Copying:
    """How far a head copies: the mean, over the tokens written that their source has too, of its weight on them there.

    weight: the weight of the head on source tokens that equal the token which is written.
    chance: what a head would have there that looks at everything it may see alike.
    n_tokens: how many tokens the mean is over; an end mark is not one of them.
    """

    layer: int
    head: int
    weight: float
    chance: float
    n_tokens: int


def translation_attention(
    trained: TrainedModel, translations: Sequence[Translated], alternatives: int = 6
) -> list[TranslationAttention]:
    """The attention under which the best target of each source was written; equal sources are looked at once.

    Args:
        alternatives: how many of the most probable tokens are given with each token of a target.

    Raises:
        ConfigError: for a model without attention that can be shown, or more weights than MOST_WEIGHTS.
    """
    require_attention(trained)
    found: dict[str, TranslationAttention] = {}
    n_weights = 0
    for one in translations:
        if one.source in found:
            continue
        kinds, difference = _kinds(trained, one)
        n_weights += sum(heads.weights.size for heads in kinds)
        if n_weights > MOST_WEIGHTS:
            raise ConfigError(
                f"the attention of {len(found) + 1} of these sources is {n_weights:,} weights, and at most "
                f"{MOST_WEIGHTS:,} are shown; give fewer sources, or shorter ones"
            )
        found[one.source] = TranslationAttention(
            one, tuple(target_tokens(trained, one, alternatives)), kinds, difference
        )
    return list(found.values())


def require_attention(trained: TrainedModel) -> None:
    """Raises ConfigError for a model whose attention cannot be shown."""
    model, folder = trained.model, trained.run.folder
    if not isinstance(model, Transformer | Translator | RNN):
        raise ConfigError(f"{folder} is of the family {model.config.family}, which has no attention; {WITHOUT}")
    if isinstance(model, RNN) and (model.config.reads != "pair" or model.attention is None):
        raise ConfigError(
            f"{folder} is an rnn with encoder={model.config.encoder} and attention={model.config.attention}, which "
            f"looks at no source; {WITHOUT}"
        )


def copying(seen: Sequence[TranslationAttention]) -> list[Copying]:
    """Of every head that looks at the source while it writes, over all tokens written; none where no source has a
    token of its target."""
    weights: list[npt.NDArray[np.float64]] = []
    chances: list[npt.NDArray[np.float64]] = []
    for heads in (heads for one in seen for heads in one.kinds):
        if heads.equal is None:
            continue
        rows_T = heads.equal.any(axis=1)
        weights.append((heads.weights * heads.equal).sum(axis=-1, dtype=np.float64)[:, :, rows_T])
        chances.append(((heads.seen & heads.equal).sum(axis=-1) / heads.seen.sum(axis=-1))[:, rows_T])
    weights_LHN, chances_LN = np.concatenate(weights, axis=-1), np.concatenate(chances, axis=-1)
    n_layers, n_heads, n_tokens = weights_LHN.shape
    if n_tokens == 0:
        return []
    mean_LH, chance_L = weights_LHN.mean(axis=-1), chances_LN.mean(axis=-1)
    return [
        Copying(layer + 1, head + 1, float(mean_LH[layer, head]), float(chance_L[layer]), n_tokens)
        for layer in range(n_layers)
        for head in range(n_heads)
    ]


def _kinds(trained: TrainedModel, one: Translated) -> tuple[tuple[Heads, ...], float]:
    (source, before), written = read_ids(trained, one), one.alternatives[0].ids
    if isinstance(trained.model, Translator):
        return _of_pair(trained, trained.model, source, before, written)
    if isinstance(trained.model, RNN):
        return _of_rnn(trained, trained.model, source, before, written)
    assert isinstance(trained.model, Transformer)
    return _of_stream(trained, trained.model, source, before, written)


def _of_pair(
    trained: TrainedModel, model: Translator, source: Sequence[int], before: Sequence[int], written: Sequence[int]
) -> tuple[tuple[Heads, ...], float]:
    source_1S, before_1T = _rows(model, source, before)
    encoder: list[Tensor] = []
    decoder: list[Tensor] = []
    with torch.no_grad(), evaluating(model):
        memory = model.encode(source_1S, attend=recording(encoder))
        shown = model(before_1T, memory=memory, attend=recording(decoder))
        difference = float((model(before_1T, source_1S) - shown).abs().max())
    # In each block of the decoder self-attention comes first.
    of_encoder, of_decoder, across = as_numpy(encoder), as_numpy(decoder[::2]), as_numpy(decoder[1::2])
    reads, begins, writes = (_texts(trained, ids) for ids in (source, before, written))
    n_source = len(source)
    before_it = _seen(model.config.windows, len(before))
    everything = np.ones((len(across), len(before), n_source), dtype=np.bool_)
    among = np.ones((len(of_encoder), n_source, n_source), dtype=np.bool_)
    same = _equal(trained, written, source)
    kinds = (
        Heads("encoder self-attention", SOURCE, of_encoder, among, reads, reads, n_source),
        Heads("decoder self-attention", WRITTEN, of_decoder, before_it, writes, begins, 0),
        Heads("cross-attention", WRITTEN, across, everything, writes, reads, n_source, same),
    )
    return kinds, difference


def _of_rnn(
    trained: TrainedModel, model: RNN, source: Sequence[int], before: Sequence[int], written: Sequence[int]
) -> tuple[tuple[Heads, ...], float]:
    """One layer of one head; the pass that is shown mixes the source by the weights that are shown."""
    source_1S, before_1T = _rows(model, source, before)
    assert model.join is not None
    with torch.no_grad(), evaluating(model):
        weights_1TS = model.attention_weights(before_1T, source_1S)
        mixed_1TE = weights_1TS @ model.encode(source_1S).vectors_BSE

        def mix(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
            return (torch.cat([given[0][..., : model.config.d_model], mixed_1TE], dim=-1),)

        with model.join.register_forward_pre_hook(mix):
            shown = model(before_1T, source_1S)
        difference = float((model(before_1T, source_1S) - shown).abs().max())
    weights = as_numpy([weights_1TS])
    seen = np.ones((1, len(before), len(source)), dtype=np.bool_)
    writes, reads = _texts(trained, written), _texts(trained, source)
    same = _equal(trained, written, source)
    return (Heads("attention to the source", WRITTEN, weights, seen, writes, reads, len(source), same),), difference


def _rows(model: Model, *rows: Sequence[int]) -> tuple[Tensor, ...]:
    """Each of the ids as a batch of one."""
    return tuple(torch.tensor([list(ids)], device=model.embedding.weight.device) for ids in rows)


def _of_stream(
    trained: TrainedModel, model: Transformer, source: Sequence[int], before: Sequence[int], written: Sequence[int]
) -> tuple[tuple[Heads, ...], float]:
    ids = [*source, *before]
    found, seen, first = attention(model, ids), _seen(model.config.windows, len(ids)), len(source) - 1
    reads, writes = _texts(trained, ids), _texts(trained, written)
    inside, target, begins = found.weights[:, :, :first, :first], found.weights[:, :, first:], reads[:first]
    same = _equal(trained, written, source, len(ids))
    kinds = (
        Heads("self-attention inside the source", SOURCE, inside, seen[:, :first, :first], begins, begins, first),
        Heads("self-attention of the target", WRITTEN, target, seen[:, first:], writes, reads, len(source), same),
    )
    return kinds, found.max_difference


def _texts(trained: TrainedModel, ids: Sequence[int]) -> tuple[str, ...]:
    return tuple(token_text(trained.tokenizer, id) for id in ids)


def _seen(windows: Sequence[int | None], length: int) -> Seen:
    """(n_layers, T, T): what each token may look at, itself and those before it within the window."""
    return np.stack([visible(distances(length, length), window).numpy() for window in windows])


def _equal(trained: TrainedModel, written: Sequence[int], source: Sequence[int], n_columns: int | None = None) -> Seen:
    """(T, S): where a token of the source equals the one that is written; marks equal none, nor does the source's last,
    its end or turn."""
    marks = set(trained.tokenizer.marks.values())
    equal = np.zeros((len(written), n_columns or len(source)), dtype=np.bool_)
    for row, id in enumerate(written):
        equal[row, : len(source) - 1] = [id == other and id not in marks for other in source[:-1]]
    return equal
