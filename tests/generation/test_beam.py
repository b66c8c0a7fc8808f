"""Beam search: the exact best of all texts where it is wide enough, greedy where it is 1, the same in a batch."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from windtunnel.errors import ConfigError
from windtunnel.generation.beam import Beam, search
from windtunnel.generation.decode import Reader, decode
from windtunnel.generation.sampling import SamplingConfig, log_softmax
from windtunnel.text.tokenizers import characters_tokenizer

END = 0
CONTEXT = 12


class Chain:
    """A reader whose next token depends on the last one only; it counts the rows of each read."""

    def __init__(self, probabilities):
        with np.errstate(divide="ignore"):
            self.logits_VV = np.log(np.array(probabilities, dtype=float))
        self.rows, self.lengths = None, []

    def read(self, ids_BT):
        self.lengths.append(len(ids_BT))
        assert self.rows is None or len(ids_BT) == self.rows
        self.rows = len(ids_BT)
        return self.logits_VV[ids_BT[:, -1]]

    def keep(self, rows_B):
        assert max(rows_B) < self.rows
        self.rows = len(rows_B)


def of_double(make, **settings):
    trained = make(**settings)
    trained.model.double()
    return trained.model


def texts(found):
    return [[one.ids for one in some] for some in found]


def every_text(model, row, room, n_vocab):
    """The readable twin: all texts of at most `room` tokens with their log-probabilities, one forward pass each."""
    for n in range(1, room + 1):
        for ids in itertools.product(range(n_vocab), repeat=n):
            if END in ids[:-1] or (n < room and ids[-1] != END):
                continue
            with torch.no_grad():
                log_TV = log_softmax(model(torch.tensor([[*row, *ids[:-1]]]))[0].numpy())
            yield ids, sum(log_TV[len(row) - 1 + i, id] for i, id in enumerate(ids))


@pytest.mark.parametrize("alpha", [0, 0.6, 2])
@pytest.mark.parametrize(("letters", "length", "room"), [("abc", 2, 5), ("ab", 1, 6)])
def test_a_beam_of_all_continuations_finds_the_best_of_all_texts_in_their_order(make, alpha, letters, length, room):
    model = of_double(make, tokenizer=characters_tokenizer(letters, end=True), context_length=room + length - 1)
    n_vocab, row = len(letters) + 1, [END, 2][:length]
    width = (n_vocab - 1) ** (room - 1) * n_vocab  # all texts, and all that do not end yet
    all_texts = [
        (ids[-1] != END, -total / ((5 + len(ids)) / 6) ** alpha, ids, total)
        for ids, total in every_text(model, row, room, n_vocab)
    ]
    for wanted in (1, 10, width):
        (found,) = search(Reader(model), np.array([row]), END, room, Beam(width, wanted, alpha))
        expected = sorted(all_texts)[:wanted]
        assert [one.ids for one in found] == [ids for _, _, ids, _ in expected]
        np.testing.assert_allclose([one.log_probability for one in found], [t for *_, t in expected], atol=1e-12)
        np.testing.assert_allclose([one.score for one in found], [-s for _, s, *_ in expected], atol=1e-12)
        assert [one.complete for one in found] == [not cut for cut, *_ in expected]
    assert math.fsum(math.exp(total) for *_, total in all_texts) == pytest.approx(1)


def test_a_beam_of_1_is_greedy_decoding(trained):
    """For every variant of the model, in a batch and past rows that have ended, in float32."""
    rows_ST = np.random.default_rng(0).integers(1, 6, (20, 3))
    found = search(Reader(trained.model), rows_ST, END, CONTEXT - 2, Beam())
    for row_T, (one,) in zip(rows_ST, found, strict=True):
        drawn = list(decode(trained.model, row_T, CONTEXT - 2, SamplingConfig(temperature=0), seed=0))
        ids = [position.id for position in drawn]
        ids = ids[: ids.index(END) + 1] if END in ids else ids
        assert list(one.ids) == ids
        assert one.complete == (ids[-1] == END)
        log_p = sum(log_softmax(position.logits_V)[position.id] for position in drawn[: len(ids)])
        assert one.log_probability == pytest.approx(log_p, abs=1e-4)


@pytest.mark.parametrize("width", [1, 3, 20])
@pytest.mark.parametrize("position", ["rope", "learned"])
def test_rows_in_a_batch_and_without_a_cache_are_as_each_by_itself(make, monkeypatch, width, position):
    model = of_double(make, position=position)
    rows_ST, beam = np.random.default_rng(1).integers(0, 6, (7, 4)), Beam(width, min(width, 5))
    together = search(Reader(model), rows_ST, END, CONTEXT - 3, beam)
    alone = [search(Reader(model), row_T[None], END, CONTEXT - 3, beam)[0] for row_T in rows_ST]
    monkeypatch.setattr(type(model), "new_cache", lambda *_: None)
    slowly = search(Reader(model), rows_ST, END, CONTEXT - 3, beam)
    assert texts(together) == texts(alone) == texts(slowly)
    assert len({str(some) for some in texts(together)}) > 3
    for some, one_by_one, without in zip(together, alone, slowly, strict=True):
        for a, b, c in zip(some, one_by_one, without, strict=True):
            assert a.log_probability == pytest.approx(b.log_probability, abs=1e-12)
            assert a.log_probability == pytest.approx(c.log_probability, abs=1e-12)


def test_a_beam_finds_what_greedy_decoding_walks_past():
    """.6 x .3 x .9 by way of the more probable first token, .4 x .9 by way of the other; alpha 0."""
    chain = [[0, 0.6, 0.4, 0], [0.3, 0.3, 0, 0.4], [0.9, 0.1, 0, 0], [0.9, 0.1, 0, 0]]
    (greedy,), (wide,) = (
        search(Chain(chain), np.array([[END]]), END, 5, Beam(width, width, 0))[0][:1] for width in (1, 2)
    )
    assert (greedy.ids, wide.ids) == ((1, 3, 0), (2, 0))
    assert math.exp(greedy.log_probability) == pytest.approx(0.6 * 0.4 * 0.9)
    assert math.exp(wide.log_probability) == pytest.approx(0.4 * 0.9)


def test_the_length_penalty_decides_between_short_and_long():
    """0 at once with .4, or 1 1 1 0 with .6 x .7 x .7 x .7 = .2058: log .4 / 1 = -.916, log .2058 / 1.5^alpha."""
    chain = [[0.4, 0.6, 0], [0, 0, 1], [0.343, 0, 0.657]]
    first = {alpha: search(Chain(chain), np.array([[END]]), END, 3, Beam(3, 1, alpha))[0][0] for alpha in (0, 1.2, 1.9)}
    assert [one.ids for one in first.values()] == [(0,), (0,), (1, 2, 0)]
    total = math.log(0.6 * 0.343)
    assert first[1.9].score == pytest.approx(total / (8 / 6) ** 1.9)
    assert math.log(0.4) < first[1.9].score < 0


def test_among_equals_the_lower_id_comes_first():
    found = search(Chain(np.ones((3, 3)) / 3), np.array([[END], [END]]), END, 3, Beam(4, 4, 0))
    assert texts(found) == [[(0,), (1, 0), (2, 0), (1, 1, 0)]] * 2
    longer = [[0, 0.5, 0.5, 0], [0, 0, 0, 1], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert texts(search(Chain(longer), np.array([[END]]), END, 3, Beam(2, 2, 0))) == [[(1, 3, 0), (2, 0)]]


def test_what_has_ended_leaves_the_batch_and_a_row_that_nothing_can_win_is_done():
    """From 1 the end is almost sure; from 2 it never comes, and the room fills."""
    chain = [[1, 0, 0, 0], [0.98, 0.01, 0.01, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]]
    reader = Chain(chain)
    ended, filled = search(reader, np.array([[1], [2]]), END, 6, Beam(2, 1))
    assert reader.lengths == [2, 2, 2, 2, 2, 2]  # both rows, then the two hypotheses of the second
    assert [one.ids for one in ended] == [(0,)]
    assert [(one.ids, one.complete) for one in filled] == [((2,) * 6, False)]
    reader = Chain(chain)
    (both,) = search(reader, np.array([[1]]), END, 6, Beam(2, 2))
    assert reader.lengths[:2] == [1, 2]  # two are wanted, so the search goes on
    assert [one.ids for one in both] == [(0,), (1, 0)]


def test_a_beam_may_be_wider_than_the_vocabulary_and_takes_no_id_that_no_token_has(make):
    trained = make(vocab_size=64)
    (found,) = search(Reader(trained.model), np.array([[1, 2]]), END, 4, Beam(50, 50), vocab_size=6)
    assert len(found) == 50
    assert max(max(one.ids) for one in found) == 5
    (found,) = search(Reader(trained.model), np.array([[1, 2]]), END, 4, Beam(50, 50))
    assert max(max(one.ids) for one in found) > 5


@pytest.mark.parametrize(("given", "message"), [
    ({"width": 0}, "at least 1, given 0 and 1"),
    ({"wanted": 0}, "at least 1, given 1 and 0"),
    ({"width": 2, "wanted": 3}, "beam of 2 finds no more than 2, and alternatives is 3; give a beam of at least 3"),
    ({"length_penalty": -0.1}, "number of at least 0, given -0.1"),
    ({"length_penalty": math.nan}, "number of at least 0, given nan"),
    ({"length_penalty": math.inf}, "number of at least 0, given inf"),
])  # fmt: skip
def test_what_is_no_beam_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        Beam(**given)


def test_the_penalty_is_that_of_equation_14():
    assert Beam(length_penalty=1).penalty(1) == 1
    assert Beam(length_penalty=0.5).penalty(19) == pytest.approx(2)
    assert Beam().penalty(7) == pytest.approx(2**0.6)
