"""Batches: a pure function of (seed, step); each example once an epoch; padding that changes nothing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.errors import DataError
from windtunnel.models import TransformerConfig, build
from windtunnel.tasks import Language
from windtunnel.tasks.cross_entropy import loss_sum
from windtunnel.text.batches import (
    IGNORED,
    Batch,
    Documents,
    Positions,
    Subset,
    Windows,
    batch,
    collate,
    shuffled,
)


def windows(n: int, context_length: int) -> Windows:
    """Windows over the tokens 0, 1, 2, ..., so that a token tells its place."""
    return Windows(np.arange(n, dtype=np.uint32), context_length)


def documents(lengths: list[int], context_length: int) -> Documents:
    """Documents of these lengths over the tokens 1, 2, 3, ...; 0 is the end mark."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Documents(np.arange(1, offsets[-1] + 1, dtype=np.uint16), offsets, 0, context_length)


def predicted(batches: list[Batch]) -> list[int]:
    """All targets that are not padding."""
    return [token for each in batches for token in each.targets[each.targets != IGNORED].tolist()]


def swept(source: Documents | Positions) -> list[list[int]]:
    """Context and targets of every row of a sweep, one row at a time."""
    return [[*row.ids[0].tolist(), *row.targets[0, -1:].tolist()] for row in source.sweep(1)]


def epoch(source: Windows | Documents | Subset, size: int, seed: int, number: int = 0) -> list[int]:
    """The targets of one epoch, whose ends may lie inside batches, in order."""
    first, last = number * len(source), (number + 1) * len(source)
    rows: list[torch.Tensor] = []
    for step in range(first // size, -(-last // size)):
        for place, row in enumerate(batch(source, size, seed, step).targets, start=step * size):
            if first <= place < last:
                rows.append(row[row != IGNORED])
    assert len(rows) == len(source)
    return torch.cat(rows).tolist()


def digest(source: Windows | Documents, seed: int, step: int) -> str:
    drawn = batch(source, 7, seed, step)
    return hashlib.sha256(drawn.ids.numpy().tobytes() + drawn.targets.numpy().tobytes()).hexdigest()


def test_a_batch_depends_on_seed_and_step_only():
    source = documents([3, 9, 1, 5, 0, 2, 12, 4], 4)
    wanted = [(seed, step) for seed in (0, 1, 2**40) for step in (0, 1, 5, 10**9)]
    first = {at: digest(source, *at) for at in wanted}
    assert len(set(first.values())) == len(wanted)
    assert {at: digest(source, *at) for at in reversed(wanted)} == first


def test_a_batch_is_equal_in_another_process():
    code = (
        "import hashlib, numpy as np; from windtunnel.text.batches import Windows, batch;"
        "b = batch(Windows(np.arange(1003, dtype=np.uint32), 10), 7, 5, 123);"
        "print(hashlib.sha256(b.ids.numpy().tobytes() + b.targets.numpy().tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(windows(1003, 10), 5, 123)


def test_a_subset_is_the_same_for_every_seed_and_grows():
    source = documents([3, 9, 1, 5, 0, 2, 12, 4], 20)
    two, five, all_of = (Subset(source, size) for size in (2, 5, 8))
    seen = {source.sequence(i).tobytes() for i in two.chosen}
    for seed in (0, 1):
        rows = [batch(two, 1, seed, step) for step in range(6)]
        assert len({row.targets.numpy().tobytes() for row in rows}) == 2
        assert sorted(epoch(two, 1, seed)) == sorted(epoch(two, 1, 7))
    assert len(seen) == 2 == len(set(two.chosen) & set(five.chosen))
    assert sorted(epoch(all_of, 3, 0)) == sorted(epoch(source, 3, 0))
    assert sorted(predicted(list(five.sweep(2)))) == sorted(epoch(five, 2, 0))
    with pytest.raises(DataError, match=r"train\.n_examples is 9, and the train split has only 8"):
        Subset(source, 9)


def test_batches_are_those_of_before():
    """A change of the order is a change of every run: it needs a new format number."""
    assert batch(windows(100, 10), 4, seed=0, step=3).ids[:, 0].tolist() == FIRST_IDS


FIRST_IDS = [62, 32, 82, 22]


@settings(max_examples=60)
@given(st.integers(1, 3000), st.integers(0, 2**48 - 1))
def test_shuffled_is_a_permutation(n, key):
    assert sorted(shuffled(np.arange(n), n, key).tolist()) == list(range(n))


def test_shuffled_spreads_evenly():
    """Over many keys each place gets each value about equally often: chi-squared, 80 +- 5 standard deviations."""
    n, draws = 9, 4500
    seen = np.zeros((n, n))
    for key in range(draws):
        seen[np.arange(n), shuffled(np.arange(n), n, key * 7919)] += 1
    chi_squared = ((seen - draws / n) ** 2 / (draws / n)).sum()
    assert chi_squared < (n - 1) ** 2 + 5 * np.sqrt(2 * (n - 1) ** 2)


def test_shuffled_knows_billions_without_a_table():
    n = 10**10
    drawn = shuffled(np.arange(5 * 10**9, 5 * 10**9 + 1000), n, 3)
    assert len(set(drawn.tolist())) == 1000
    assert 0 <= drawn.min() < n // 50
    assert n - n // 50 < drawn.max() < n


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 200), st.integers(1, 9), st.integers(0, 9))
def test_each_window_once_an_epoch(context_length, extra, size, seed):
    source = windows(context_length + extra, context_length)
    for number in range(3):
        found = Counter(epoch(source, size, seed, number))
        assert set(found.values()) == {1}
        assert len(found) == len(source) * context_length
        assert max(found) - min(found) == len(found) - 1  # one stretch without gaps
        assert len(source.ids) - 1 - len(found) < 2 * context_length


@pytest.mark.parametrize("n", [11, 15, 19, 20, 21, 29, 30, 104])
def test_every_token_is_predicted_in_some_epoch(n):
    source = windows(n, 10)
    seen = {token for number in range(400) for token in epoch(source, 4, 0, number)}
    assert seen == set(range(1, n))


def test_targets_follow_their_inputs():
    drawn = batch(windows(200, 10), 6, 0, 0)
    assert torch.equal(drawn.targets, drawn.ids + 1)
    assert drawn.ids.dtype == drawn.targets.dtype == torch.int64
    assert drawn.n_targets == 60


def test_another_order_each_epoch_and_seed():
    source = documents([2] * 60, 8)
    orders = {tuple(epoch(source, 7, seed, number)) for seed in range(3) for number in range(3)}
    assert len(orders) == 9
    assert len({tuple(sorted(order)) for order in orders}) == 1
    starts = {min(epoch(windows(200, 10), 7, 0, number)) for number in range(40)}
    assert len(starts) > 8  # windows also start elsewhere


@settings(max_examples=60)
@given(st.lists(st.integers(0, 25), min_size=1, max_size=20), st.integers(1, 9), st.integers(1, 7))
def test_each_token_of_each_document_once(lengths, context_length, size):
    source = documents(lengths, context_length)
    expected = Counter({0: len(lengths), **dict.fromkeys(range(1, sum(lengths) + 1), 1)})
    assert Counter(epoch(source, size, 0)) == expected
    assert Counter(epoch(source, size, 3, number=1)) == expected
    batches = list(source.sweep(size))
    assert Counter(predicted(batches)) == expected
    assert all(each.ids.shape[1] <= context_length for each in batches)


def test_a_long_document_continues_where_it_was_cut():
    source = documents([7], 4)
    assert [source.sequence(i).tolist() for i in range(len(source))] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 0]]
    assert swept(documents([3], 4)) == [[0, 1, 2, 3, 0]]
    assert swept(documents([4], 4)) == [[0, 1, 2, 3, 4], [4, 0]]


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 100), st.integers(1, 5))
def test_a_sweep_over_running_text_predicts_each_token_once(context_length, extra, size):
    source = windows(context_length + extra, context_length)
    assert sorted(predicted(list(source.sweep(size)))) == list(range(1, context_length + extra))


@settings(max_examples=40)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.integers(1, 300))
def test_a_sample_is_a_part_of_the_sweep(lengths, max_tokens):
    for source in (documents(lengths, 5), windows(sum(lengths) + 6, 5)):
        whole = Counter(predicted(list(source.sweep(3))))
        part = Counter(predicted(list(source.sweep(3, max_tokens))))
        assert part <= whole
        assert min(max_tokens, whole.total()) <= part.total() < max_tokens + 13


def test_a_sample_is_not_the_shortest_or_the_first():
    lengths = [1] * 200 + [9] * 200
    part = list(documents(lengths, 10).sweep(8, max_tokens=600))
    tokens = Counter(len(row[row != IGNORED]) for each in part for row in each.targets)
    assert 0.6 < tokens[2] / tokens[10] < 1.6
    starts = [int(each.ids[0, 0]) for each in windows(10_000, 10).sweep(1, max_tokens=200)]
    assert max(starts) > 5000
    assert starts == sorted(starts)


def positions(lengths: list[int], context_length: int) -> Positions:
    """The predictions of the documents that `documents` makes."""
    source = documents(lengths, context_length)
    return Positions(source.ids, source.offsets, 0, context_length)


def test_a_position_is_predicted_from_the_tokens_before_it():
    assert swept(positions([3], 3)) == [[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 0]]
    assert swept(positions([2, 0, 1], 2)) == [[0, 0, 0], [0, 0, 3], [0, 3, 0], [0, 0, 1], [0, 1, 2], [1, 2, 0]]
    text = Positions(np.arange(5, 9, dtype=np.uint16), None, None, 2)
    assert swept(text) == [[5, 5, 6], [5, 6, 7], [6, 7, 8]]
    drawn = text.take(np.array([2, 0]))
    assert (drawn.ids.tolist(), drawn.targets.tolist()) == ([[6, 7], [5, 5]], [[8], [6]])


@settings(max_examples=60)
@given(st.lists(st.integers(0, 25), min_size=1, max_size=20), st.integers(1, 9), st.integers(1, 7))
def test_positions_are_the_targets_of_documents(lengths, context_length, size):
    """In the same order in a sweep, which is what losses by document rest on; each once an epoch."""
    whole, single = documents(lengths, context_length), positions(lengths, context_length)
    assert len(single) == sum(lengths) + len(lengths)
    assert predicted(list(single.sweep(size))) == predicted(list(whole.sweep(size)))
    assert Counter(epoch(single, size, 0, number=1)) == Counter(epoch(whole, size, 0))


def test_a_batch_of_positions_can_be_split():
    drawn = batch(positions([3, 9, 1, 5], 4), 7, 0, 0)
    parts = drawn.split(3)
    assert torch.equal(torch.cat([part.ids for part in parts]), drawn.ids)
    assert torch.equal(torch.cat([part.targets for part in parts]), drawn.targets)


def test_nothing_to_predict_is_an_error_with_the_cure():
    with pytest.raises(DataError, match="holds nothing to predict; give more text"):
        Positions(np.zeros(0, np.uint16), np.zeros(1, np.int64), 0, 2)
    with pytest.raises(DataError, match="holds nothing to predict; give more text"):
        Positions(np.zeros(1, np.uint16), None, None, 2)


@pytest.fixture(scope="module")
def model():
    config = TransformerConfig(vocab_size=60, context_length=24, n_layers=2, n_heads=2, d_model=16, dropout=0.0)
    return build(config, 0)


def loss_and_gradient(model, drawn: Batch) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = loss_sum(model(drawn.ids), drawn.targets) / drawn.n_targets
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])


def test_more_padding_changes_neither_loss_nor_gradient(model):
    source = documents([3, 9, 1, 5, 0, 2, 12, 4], 16)
    rows = [source.sequence(i) for i in range(len(source))]
    narrow, wide = collate(rows), collate(rows, width=24)
    assert (narrow.ids.shape[1], wide.ids.shape[1]) == (13, 24)
    assert narrow.n_targets == wide.n_targets == 36 + 8
    loss, gradient = loss_and_gradient(model, narrow)
    wide_loss, wide_gradient = loss_and_gradient(model, wide)
    assert wide_loss == pytest.approx(loss, abs=1e-6)
    assert (wide_gradient - gradient).abs().max() < 1e-6
    # Padding that did count would show.
    counted = wide._replace(targets=wide.targets.clamp(min=0))
    assert abs(loss_and_gradient(model, counted)[0] - loss) > 1e-3


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8, 20])
def test_split_keeps_every_row_and_cuts_padding(parts):
    source = documents([3, 9, 1, 5, 0, 2, 12, 4], 16)
    whole = collate([source.sequence(i) for i in range(len(source))], width=20)
    cut = whole.split(parts)
    assert sum(len(part.ids) for part in cut) == 8
    assert sorted(predicted(cut)) == sorted(predicted([whole]))
    for part in cut:
        assert (part.targets[:, -1] != IGNORED).any()
        assert part.ids.shape == part.targets.shape


@pytest.mark.parametrize(("n", "context_length", "suggested"), [(10, 10, 5), (9, 32, 8), (1, 8, 1), (0, 8, 1)])
def test_too_little_text_is_an_error_with_the_cure(n, context_length, suggested):
    with pytest.raises(DataError) as caught:
        windows(n, context_length)
    assert f"the train split holds {n} tokens, one window needs {context_length + 1}" in str(caught.value)
    assert f"give more text or a shorter context: --set model.context_length={suggested}" in str(caught.value)
    if n > 1:
        windows(n, suggested)


def test_no_document_is_an_error_with_the_cure():
    with pytest.raises(DataError, match="holds no document; give more text"):
        documents([], 4)


@dataclass(frozen=True)
class Store:
    """The fields of a TokenStore that batches read."""

    corpus: SimpleNamespace
    tokenizer: SimpleNamespace
    splits: dict[str, SimpleNamespace]


@pytest.mark.parametrize(("unit", "kind"), [("line", Documents), ("file", Windows), ("text", Windows)])
def test_lines_are_documents_and_the_rest_is_running_text(unit, kind):
    offsets = None if unit == "text" else np.array([0, 10, 30])
    part = SimpleNamespace(ids=np.arange(1, 31, dtype=np.uint16), offsets=offsets, n_bytes=30)
    store = Store(SimpleNamespace(unit=unit), SimpleNamespace(end_id=0), {"dev": part})
    assert type(Language(store, TransformerConfig(context_length=8)).examples("dev")) is kind
    whole = Language(replace(store, splits={"train": part, "dev": part}), TransformerConfig(context_length=30))
    if unit != "line":
        assert len(whole.examples("dev")) == 1  # one shorter window
        with pytest.raises(DataError, match="the train split holds 30 tokens"):
            whole.examples("train")
