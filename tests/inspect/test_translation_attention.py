"""The attention of a translation is that of the pass that wrote it, and what a head copies is counted right."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from windtunnel.errors import ConfigError
from windtunnel.generation.translate import translate
from windtunnel.inspect import translation_attention as module
from windtunnel.inspect.translation_attention import Heads, copying, translation_attention
from windtunnel.models import FAMILIES, RNN, build
from windtunnel.nn.attention import Mask, attention_weights
from windtunnel.tasks import TranslationConfig
from windtunnel.text.store import TextConfig
from windtunnel.text.tokenizers import characters_tokenizer
from windtunnel.training.run import Run, TrainedModel
from windtunnel.training.run_config import RunConfig

SMALL = {"context_length": 12, "n_layers": 2, "d_model": 16, "dropout": 0.0, "tie_embeddings": False}
TWO = {"n_heads": 2}
VARIANTS = {
    "transformer": ("transformer", TWO | {"position": "rope"}),
    "transformer, window": ("transformer", TWO | {"position": "alibi", "window": [None, 3]}),
    "translator": ("translator", TWO | {"position": "rope"}),
    "translator, another encoder": ("translator", TWO | {"encoder": {"n_layers": 1, "n_heads": 4}, "n_kv_heads": 1}),
    "translator, window": ("translator", TWO | {"window": 2, "norm_position": "post"}),
    "rnn": ("rnn", {}),
    "rnn, dot": ("rnn", {"attention": "dot", "cell": "lstm", "bidirectional": False}),
}


def untrained(family, changes):
    """A model whose weights are random and large."""
    tokenizer = characters_tokenizer("\tabc", end=True)
    settings = FAMILIES[family](vocab_size=tokenizer.vocab_size, **SMALL, **changes)
    config = RunConfig(
        corpus="none",
        text=TextConfig(unit="line"),
        task=TranslationConfig(),
        model=settings.for_pairs(),
    )
    network = build(config.model, seed=6).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8 if parameter.dim() > 1 and family != "rnn" else 1)
    return TrainedModel(Run(Path("runs/untrained"), config, tokenizer, {}), network, tokenizer, 1, ())


@pytest.fixture(params=VARIANTS, name="trained")
def _variants(request):
    return untrained(*VARIANTS[request.param])


def test_the_pass_that_is_shown_gives_the_logits_under_which_the_target_was_written(trained):
    for one in translation_attention(trained, translate(trained, "ab c cabba")):
        assert 0 <= one.max_difference < 1e-4
        written = tuple(token.id for token in one.tokens)
        assert written == one.translated.alternatives[0].ids
        probability = math.prod(token.probability_1 for token in one.tokens)
        assert probability == pytest.approx(one.translated.probability, rel=1e-3)


def test_every_row_sums_to_one_over_what_it_may_look_at_and_no_padding_is_shown(trained):
    for one in translation_attention(trained, translate(trained, "ab c cabba")):
        names = [trained.tokenizer.token(id) for id in one.translated.alternatives[0].ids]
        source = list(one.translated.source)
        for heads in one.kinds:
            assert heads.weights.shape[2:] == heads.seen.shape[1:] == (len(heads.rows), len(heads.columns))
            np.testing.assert_allclose(heads.weights.sum(axis=-1), 1, atol=1e-5)
            np.testing.assert_array_equal((heads.weights > 0).any(axis=1), heads.seen)
            assert list(heads.rows) == names if heads.row == "token written" else set(source) <= set(heads.rows)
        to_source = one.kinds[-1]
        apart = trained.model.config.reads == "pair"
        read = [*source, "<end>"] if apart else ["<end>", *source, r"\t", *names[:-1]]
        assert list(to_source.columns) == read
        assert list(to_source.columns[: to_source.n_source]) == (read if apart else read[: len(source) + 2])


def test_cross_attention_is_that_of_the_formula():
    """By hand, from what the modules of the fast pass are given."""
    trained = untrained(*VARIANTS["translator"])
    (one,) = translation_attention(trained, translate(trained, "cab"))
    given = {}
    for layer, block in enumerate(trained.model.decoder.blocks):
        block.cross_attention.register_forward_pre_hook(lambda m, args, layer=layer: given.update({layer: (m, *args)}))
    end, tokenizer = trained.tokenizer.end_id, trained.tokenizer
    with torch.no_grad():
        source = torch.tensor([[*tokenizer.encode("cab").tolist(), end]])
        trained.model(torch.tensor([[end, *one.translated.alternatives[0].ids[:-1]]]), source)
        for layer, (cross, x_BTD, shared) in given.items():
            q = cross.q(x_BTD).unflatten(-1, (2, 8)).transpose(1, 2)
            k = cross.kv(shared.memory.hidden_BSE)[..., :16].unflatten(-1, (2, 8)).transpose(1, 2)
            by_hand = attention_weights(q, k, Mask(causal=False))[0]
            np.testing.assert_allclose(one.kinds[2].weights[layer], by_hand, atol=1e-5)
            torch.testing.assert_close(by_hand, (q @ k.mT / 8**0.5).softmax(-1)[0])


def test_what_was_shown_of_the_target_is_the_lower_part_of_the_whole_map():
    from windtunnel.inspect.attention import attention

    trained = untrained(*VARIANTS["transformer"])
    (one,) = translation_attention(trained, translate(trained, "cab"))
    encoded, tokenizer = trained.tokenizer.encode("cab\t").tolist(), trained.tokenizer
    whole = attention(trained.model, [tokenizer.end_id, *encoded, *one.translated.alternatives[0].ids[:-1]]).weights
    inside, target = one.kinds
    np.testing.assert_array_equal(inside.weights, whole[:, :, :4, :4])
    np.testing.assert_array_equal(target.weights, whole[:, :, 4:])


def test_another_model_than_the_fast_one_would_be_noticed(trained, monkeypatch):
    from windtunnel.inspect import attention
    from windtunnel.nn.attention import attend_reference

    true_weights = RNN.attention_weights
    monkeypatch.setattr(attention, "attend_reference", lambda q, *rest: attend_reference(q * 3, *rest))
    monkeypatch.setattr(RNN, "attention_weights", lambda *given: true_weights(*given).roll(1, dims=-1))
    (one,) = translation_attention(trained, translate(trained, "cab"))
    assert one.max_difference > 1e-3


def test_a_source_is_looked_at_once(trained, monkeypatch):
    each = translation_attention(trained, translate(trained, "ab c"))
    monkeypatch.setattr(module, "MOST_WEIGHTS", sum(heads.weights.size for one in each for heads in one.kinds))
    seen = translation_attention(trained, translate(trained, "ab c ab"))
    assert [one.translated.source for one in seen] == ["ab", "c"]


def test_equal_tokens_are_of_the_source_and_no_marks(trained):
    """The target's own tokens, the end mark of both and the turn are not copies."""
    for one in translation_attention(trained, translate(trained, "abc ab c cabba")):
        heads = one.kinds[-1]
        for (row, column), is_equal in np.ndenumerate(heads.equal):
            same = heads.rows[row] == heads.columns[column]
            assert is_equal == (same and column < heads.n_source and heads.rows[row] in ("a", "b", "c"))
        assert all(other.equal is None for other in one.kinds[:-1])


def test_a_turn_that_is_written_equals_none(trained):
    encode, end = (lambda text: trained.tokenizer.encode(text).tolist()), trained.tokenizer.end_id
    equal = module._equal(trained, [*encode("\tb"), end], [end, *encode("ab\t")], 6)
    assert np.argwhere(equal).tolist() == [[1, 2]]


def test_copying_is_the_mean_weight_on_equal_tokens_against_looking_at_everything_alike():
    weights = np.array([[
        [[0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8]],
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]],
    ]], dtype=np.float32)  # fmt: skip
    equal = np.array([[True, False, False], [True, False, True], [False, False, False]])
    seen = np.array([[[True, True, False], [True, True, True], [True, True, True]]])
    heads = Heads("cross-attention", "token written", weights, seen, ("a",) * 3, ("a",) * 3, 3, equal)
    first, second = copying([SimpleNamespace(kinds=(heads,))])
    assert (first.layer, first.head, second.layer, second.head) == (1, 1, 1, 2)
    assert first.weight == pytest.approx((0.5 + 0.8) / 2)
    assert second.weight == pytest.approx((0.0 + 1.0) / 2)
    assert first.chance == second.chance == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert first.n_tokens == 2
    both = copying([SimpleNamespace(kinds=(heads,)), SimpleNamespace(kinds=(heads,))])
    assert (both[0].weight, both[0].n_tokens) == (pytest.approx(first.weight), 4)
    nothing = Heads("cross-attention", "token written", weights, seen, ("a",) * 3, ("b",) * 3, 3, equal & False)
    assert copying([SimpleNamespace(kinds=(nothing,))]) == []


def test_too_much_to_look_at_is_said(trained, monkeypatch):
    monkeypatch.setattr(module, "MOST_WEIGHTS", 10)
    with pytest.raises(ConfigError, match=r"the attention of 1 of these sources is .* weights, and at most 10"):
        translation_attention(trained, translate(trained, "ab"))


def test_a_model_without_attention_is_refused():
    trained = untrained("rnn", {"attention": "none"})
    with pytest.raises(ConfigError, match=r"is an rnn with encoder=True and attention=none, which looks at no source"):
        translation_attention(trained, [])
    trained = untrained("rnn", {"encoder": False})
    with pytest.raises(ConfigError, match=r"is an rnn with encoder=False and attention=additive, which looks"):
        translation_attention(trained, [])
    model = SimpleNamespace(config=SimpleNamespace(family="mlp"))
    with pytest.raises(ConfigError, match=r"is of the family mlp, which has no attention; translate without"):
        translation_attention(SimpleNamespace(model=model, run=trained.run), [])
