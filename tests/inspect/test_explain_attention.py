"""The head in the open is the head of the model, and row 002-4 comes out to the last digit."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from windtunnel.errors import ConfigError, DataError
from windtunnel.inspect import explain_attention as rows
from windtunnel.inspect.explain_attention import explain_head, explain_row, variance_of_scores
from windtunnel.inspect.explain_head import variances
from windtunnel.models import MLPConfig, TransformerConfig, build

SMALL = {"vocab_size": 20, "context_length": 16, "n_layers": 2, "n_heads": 4, "d_model": 32}
VARIANTS = {
    "gpt2": {},
    "rope, grouped queries": {"position": "rope", "n_kv_heads": 2},
    "alibi, window": {"position": "alibi", "window": 3, "bias": False},
    "post norm": {"norm_position": "post", "position": "sinusoidal"},
    "wide heads": {"d_head": 12, "norm": "rms", "position": "none"},
}
IDS = np.random.default_rng(0).integers(0, 20, 7).tolist()
TOKENS = [f"t{id}" for id in IDS]


def large(**changes):
    """A model with weights large enough for its attention to be uneven, and biases that are not zero."""
    model = build(TransformerConfig(**{**SMALL, **changes}), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6 if parameter.dim() > 1 else 1).add_(
                0.1 * torch.randn(parameter.shape, generator=generator)
            )
    return model


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layer", [1, 2])
def test_every_head_equals_the_models_own(variant, layer):
    model = large(**VARIANTS[variant])
    for head in range(1, 5):
        found = explain_head(model, IDS, TOKENS, layer, head)
        assert found.max_difference <= 1e-5
        assert found.variance_ratio == pytest.approx(found.d_head, rel=1e-12)
        assert found.matrix("weights").std() > 0.01


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_heads_outputs_add_up_to_the_attentions(variant):
    model = large(**VARIANTS[variant])
    made = []
    handle = model.blocks[1].attention.register_forward_hook(lambda m, i, output: made.append(output[0]))
    with torch.no_grad():
        model.eval()(torch.tensor([IDS]))
        handle.remove()
        heads = [explain_head(model, IDS, TOKENS, 2, head).matrix("output") for head in range(1, 5)]
        bias = 0 if model.blocks[1].attention.out.bias is None else model.blocks[1].attention.out.bias
        torch.testing.assert_close(sum(heads) + bias, made[0], atol=1e-4, rtol=1e-4)


def test_matrices_have_their_shapes_in_order():
    found = explain_head(large(position="rope"), IDS, TOKENS, 1, 2)
    shapes = {matrix.name: tuple(matrix.values.shape) for matrix in found.matrices}
    assert shapes["x"] == (7, 32)
    assert shapes["Wq"] == shapes["Wk"] == shapes["Wv"] == (32, 8)
    assert shapes["bq"] == (1, 8)
    assert shapes["cos"] == (7, 4)
    assert shapes["q"] == shapes["k unturned"] == shapes["v"] == shapes["mix"] == (7, 8)
    assert shapes["scores"] == shapes["masked"] == shapes["weights"] == (7, 7)
    assert shapes["output"] == (7, 32)
    order = list(shapes)
    assert order.index("q unturned") < order.index("q") < order.index("scores") < order.index("weights")
    assert found.to_dict()["matrices"][order.index("masked")]["values"][0][1] is None


def test_the_row_is_exact_in_fractions():
    """x Wq (x Wk)^T in exact arithmetic is the row's scores."""

    def exact(matrix):
        return [[Fraction(str(number)) for number in row] for row in matrix]

    def times(a, b):
        return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a]

    q, k = times(exact(rows.ROW_X), exact(rows.ROW_WQ)), times(exact(rows.ROW_X), exact(rows.ROW_WK))
    expected = [["28.3", "26.9", "27.6"], ["24.2", "21.4", "22.8"], ["26.25", "24.15", "25.2"]]
    assert times(q, list(zip(*k, strict=True))) == exact(expected)


def test_the_row_gives_the_sources_weights():
    found = explain_row()
    expected = [[0.5047, 0.1876, 0.3077], [0.6624, 0.0915, 0.2461], [0.5874, 0.1331, 0.2796]]
    assert found.matrix("weights").round(decimals=4).tolist() == expected
    assert [round(x, 4) for x in found.variances] == [5.2081, 2.6041]
    assert found.variance_ratio == pytest.approx(2, rel=1e-14)
    assert found.tokens[found.looked_at_by[1]] == "he"
    assert found.looks_at == (0, 0, 0)
    assert any("0.5737, 0.1415, 0.2849" in note for note in found.notes)
    assert any("are ours" in note for note in found.notes)
    assert "score of «he 1» on «likes 2» = q · k = 2.9·2.9 + 4.3·4.3 = 26.9" in found.steps


@pytest.mark.parametrize("d_head", [3, 8, 64])
def test_the_ratio_of_variances_is_d_head_for_any_numbers(d_head):
    """Claim E17; that the variance itself is d_head needs independent numbers."""
    scores = torch.rand(9, 9).exp() * 17 - 3
    before, after = variances(scores, torch.ones(9, 9, dtype=torch.bool), d_head)
    assert before / after == pytest.approx(d_head, rel=1e-12)
    assert variance_of_scores(d_head) == pytest.approx(d_head, rel=0.1)


def test_a_hidden_entry_is_said_to_be_hidden():
    found = explain_head(large(), IDS, TOKENS, query=2, key=5)
    assert any("is hidden from" in step for step in found.steps)
    assert any("= 0.0000" in step for step in found.steps if step.startswith("weight"))


def test_one_token_has_no_variance():
    found = explain_head(large(), IDS[:1], TOKENS[:1])
    assert (found.variances, found.variance_ratio) == (None, None)


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"layer": 3}, "no layer 3; the model has 1 to 2"), ({"head": 0}, "no head 0"), ({"query": 8}, "no query 8"),
     ({"key": 0}, "no key 0; the text has 1 to 7")],
)  # fmt: skip
def test_what_is_not_there_is_refused(asked, words):
    with pytest.raises(ConfigError, match=words):
        explain_head(large(), IDS, TOKENS, **asked)


def test_a_model_without_attention_and_a_long_text_are_refused():
    with pytest.raises(ConfigError, match="needs a transformer, and this model is of the family mlp"):
        explain_head(build(MLPConfig(), 0), IDS, TOKENS)
    with pytest.raises(DataError, match=r"21 tokens.*1 to 16"):
        explain_head(large(), IDS * 3, TOKENS * 3)
