"""Recurrent networks: every cell is its readable twin, and what is read in parts is what is read at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from windtunnel.errors import ConfigError
from windtunnel.generation.compiled import Steps
from windtunnel.generation.decode import Reader
from windtunnel.inspect.cost import activation_bytes, count_forward_flops, parameter_shapes
from windtunnel.inspect.doctor.activations import activations
from windtunnel.models import RNN, RNNConfig, as_transformer, build
from windtunnel.nn.alignment import ALIGNMENTS, align
from windtunnel.nn.recurrent import CELLS, StateCache, recur, step_reference
from windtunnel.tasks.cross_entropy import loss_sum
from windtunnel.training.muon import hidden_matrices

V, LENGTH = 13, 8
VARIANTS = {
    **{cell: {"cell": cell} for cell in CELLS},
    "three layers, untied": {"n_layers": 3, "tie_embeddings": False},
    "without biases": {"cell": "lstm", "cell_bias": False},
}
variants = pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
cells = pytest.mark.parametrize("cell", CELLS)


def config_of(**changes) -> RNNConfig:
    return RNNConfig(**{"vocab_size": V, "context_length": LENGTH, "n_layers": 2, "d_model": 16, **changes})


def model_of(**changes) -> RNN:
    """In evaluation mode, with weights large enough for the gates to leave their middles."""
    model = build(config_of(**changes), seed=0).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(2).add_(0.3 if "bias" in name else 0)
    return model


def ids_of(rows: int = 3, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(0))


@variants
def test_a_layer_is_its_cell_step_by_step(changes):
    model = model_of(**changes)
    cell, layer = CELLS[model.config.cell], model.layers[0]
    draw = torch.Generator().manual_seed(1)
    x_BTI = torch.randn(3, LENGTH, 16, generator=draw)
    state = begin = torch.rand(cell.n_states, 3, 16, generator=draw)
    rows = []
    for t in range(LENGTH):
        state = step_reference(cell, layer, x_BTI[:, t], state)
        rows.append(state[0])
    y_BTD, last_NBD = recur(layer, x_BTI, begin)
    torch.testing.assert_close(y_BTD, torch.stack(rows, dim=1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(last_NBD, state, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(recur(layer, x_BTI)[0], recur(layer, x_BTI, torch.zeros_like(begin))[0])


def test_the_cells_are_those_of_their_papers():
    """One unit each, by hand: W = 1, U = 2, all biases 0, x = .3, h = .5, c = .7."""
    sigmoid, tanh, a = (lambda x: 1 / (1 + np.exp(-x))), np.tanh, 0.3 + 2 * 0.5
    by_hand = {
        "elman": [tanh(a)],
        "gru": [sigmoid(a) * 0.5 + (1 - sigmoid(a)) * tanh(0.3 + sigmoid(a) * 2 * 0.5)],
        "lstm": [0.0, sigmoid(a) * 0.7 + sigmoid(a) * tanh(a)],
    }
    by_hand["lstm"][0] = sigmoid(a) * tanh(by_hand["lstm"][1])
    for name, cell in CELLS.items():
        layer = cell.module(1, 1, bias=False)
        torch.nn.init.ones_(layer.weight_ih_l0)
        torch.nn.init.constant_(layer.weight_hh_l0, 2.0)
        state = torch.tensor([0.5, 0.7])[: cell.n_states, None, None]
        found = step_reference(cell, layer, torch.tensor([[0.3]]), state)
        np.testing.assert_allclose(found.detach().flatten(), by_hand[name], rtol=1e-6)


@variants
def test_formulas_count_parameters_and_flops(changes):
    config = config_of(**changes)
    for row in config.parameter_rows():
        assert eval(row.formula, {"__builtins__": {}}, config.formula_names()) == row.n_parameters  # noqa: S307
    counted = sum(shape.numel() for shape in parameter_shapes(config))
    assert sum(row.n_parameters for row in config.parameter_rows()) == counted
    assert sum(config.flops_by_part(LENGTH).values()) == count_forward_flops(config, LENGTH)
    assert activation_bytes(config, 2, LENGTH, "fp32") > 4 * 2 * LENGTH * (2 * 16 + V)


@variants
def test_what_is_read_in_parts_is_what_is_read_at_once(changes):
    model, ids = model_of(**changes), ids_of()
    cache = model.new_cache(3, LENGTH)
    with torch.no_grad():
        parts = torch.cat([model(part, cache=cache) for part in ids.split([3, 1, 1, 3], dim=1)], dim=1)
        torch.testing.assert_close(parts, model(ids), rtol=1e-5, atol=1e-5)
    assert cache.length == LENGTH


@cells
def test_a_reader_reads_token_by_token_and_keeps_rows(cell, monkeypatch):
    model, lengths = model_of(cell=cell), []
    real = model.forward
    monkeypatch.setattr(model, "forward", lambda ids, **more: (lengths.append(ids.shape[1]), real(ids, **more))[1])
    reader, ids = Reader(model, steps=Steps(model, compile=True)), ids_of().numpy()
    last = [reader.read(ids[:, :3]), reader.read(ids[:, 3:4])]
    reader.keep([2, 0, 0, 1])
    ids = ids[[2, 0, 0, 1]]
    last += [reader.read(ids[:, t : t + 1]) for t in range(4, LENGTH)]
    slid = reader.read(ids[:, :1])  # past the context
    assert lengths == [3, 1, 1, 1, 1, 1, LENGTH]
    assert reader.compiled is None
    with torch.no_grad():
        whole = real(torch.tensor(ids))[:, 4:].double().numpy()
        window = real(torch.tensor(np.hstack([ids[:, 1:], ids[:, :1]])))[:, -1].double().numpy()
    np.testing.assert_allclose(np.stack(last[2:], axis=1), whole, rtol=0, atol=2e-5)
    np.testing.assert_allclose(slid, window, rtol=0, atol=2e-5)


def test_a_selected_cache_is_a_copy():
    model, cache = model_of(), StateCache(LENGTH)
    assert cache.select(torch.tensor([0])).states_LNBD is None
    with torch.no_grad():
        model(ids_of(), cache=cache)
        chosen = cache.select(torch.tensor([2, 2]))
        model(ids_of(2, 1), cache=chosen)
        assert (chosen.length, cache.length) == (LENGTH + 1, LENGTH)
        states = StateCache(LENGTH)
        model(ids_of(), cache=states)
    assert torch.equal(cache.states_LNBD, states.states_LNBD)


@cells
def test_it_begins_as_it_says(cell):
    model = build(RNNConfig(vocab_size=500, d_model=64, cell=cell), seed=0)
    assert model.embedding.weight.std().item() == pytest.approx(1 / 8, rel=0.02)
    for layer in model.layers:
        assert layer.weight_ih_l0.std().item() == pytest.approx(1 / 8, rel=0.05)
        for matrix in layer.weight_hh_l0.chunk(CELLS[cell].n_gates):
            torch.testing.assert_close(matrix @ matrix.T, torch.eye(64), rtol=0, atol=1e-5)
        bias = (layer.bias_ih_l0 + layer.bias_hh_l0).unflatten(0, (-1, 64)).mean(dim=1)
        assert bias.tolist() == ([0, 1, 0, 0] if cell == "lstm" else [0] * CELLS[cell].n_gates)
    assert not torch.equal(model.layers[0].weight_hh_l0, model.layers[1].weight_hh_l0)
    assert model.embed(torch.arange(500))[0].std().item() == pytest.approx(1, rel=0.02)
    untied = build(RNNConfig(vocab_size=500, d_model=64, cell=cell, tie_embeddings=False), seed=0)
    assert untied.embedding.weight.std().item() == pytest.approx(1, rel=0.02)
    assert torch.equal(untied.layers[0].weight_hh_l0, model.layers[0].weight_hh_l0)


def test_dropout_is_on_the_way_up_and_not_from_token_to_token():
    model = model_of(dropout=0.5).train()
    torch.manual_seed(0)
    assert not torch.equal(model(ids_of()), model(ids_of()))
    assert all(layer.dropout == 0 for layer in model.layers)
    assert torch.equal(model.eval()(ids_of()), model(ids_of()))


def test_muon_sees_each_gates_matrix():
    parts = hidden_matrices(model_of(cell="lstm"))
    assert list(parts.values()) == [[16] * 4] * 4


def test_the_doctor_sees_what_each_layer_puts_out():
    found = {place.place: place for place in activations(model_of(), {"ids": ids_of()})}
    assert [found[f"layers.{i}"].depth for i in range(2)] == [0, 1]
    assert found["layers.0"].n_units == 16


@cells
def test_in_bfloat16_the_loss_is_about_the_same(cell):
    model, ids = model_of(cell=cell).train(), ids_of()
    exact = loss_sum(model(ids), ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = loss_sum(model(ids), ids)
    rough.backward()
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)
    assert all(p.grad.isfinite().all() for p in model.parameters())


@cells
def test_it_learns_to_remember(cell):
    """The third token is the first again: only a state can know it."""
    model = build(RNNConfig(vocab_size=4, d_model=24, n_layers=1, cell=cell), seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    draw = torch.Generator().manual_seed(0)
    for _ in range(150):
        ids = torch.randint(4, (32, 2), generator=draw)
        loss = loss_sum(model(ids)[:, 1:], ids[:, :1]) / 32
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_what_it_is_not_is_said():
    with pytest.raises(ConfigError, match="generator"):
        config_of().build(0, torch.Generator())
    with pytest.raises(ConfigError, match=r"cell.*'elman', 'gru' or 'lstm'"):
        config_of().replace(cell="rnn")
    with pytest.raises(ConfigError, match="needs a transformer, and this model is of the family rnn"):
        as_transformer(model_of(), "look")


PAIRS = {
    **{f"{cell}, {attention}": {"cell": cell, "attention": attention} for cell in CELLS for attention in ALIGNMENTS},
    "one direction, dot": {"bidirectional": False, "attention": "dot"},
    "one direction, additive": {"bidirectional": False, "cell": "lstm", "tie_embeddings": False},
    "no attention": {"attention": "none", "cell": "lstm"},
    "no attention, one direction, one layer": {"attention": "none", "bidirectional": False, "n_layers": 1},
    "without biases": {"cell_bias": False},
}
pairs = pytest.mark.parametrize("changes", PAIRS.values(), ids=PAIRS)
LENGTHS = torch.tensor([6, 3, 1])


def sources() -> dict[str, torch.Tensor]:
    source = torch.randint(V, (3, 6), generator=torch.Generator().manual_seed(7))
    return {"source": source, "source_kept": torch.arange(6) < LENGTHS[:, None]}


def test_the_task_decides_whether_there_is_an_encoder():
    plain = config_of()
    assert (plain.reads, plain.for_pairs().reads) == ("stream", "pair")
    assert plain.for_pairs() == config_of(encoder=True) == config_of(encoder=True).for_pairs()
    assert config_of(encoder=False).for_pairs().reads == "stream"
    one, two = (build(config, 0).state_dict() for config in (plain, plain.for_pairs()))
    assert all(
        torch.equal(two[name], weight) for name, weight in one.items()
    )  # the decoder begins as the language model


@pairs
def test_formulas_of_pairs_count_parameters_and_flops(changes):
    config = config_of(encoder=True, **changes)
    for row in config.parameter_rows():
        assert eval(row.formula, {"__builtins__": {}}, config.formula_names()) == row.n_parameters, row  # noqa: S307
    counted = sum(shape.numel() for shape in parameter_shapes(config))
    assert sum(row.n_parameters for row in config.parameter_rows()) == counted
    assert sum(config.flops_by_part(LENGTH).values()) == count_forward_flops(config, LENGTH)


@pairs
def test_padding_steps_and_memory_change_nothing(changes):
    model, ids, given = model_of(encoder=True, **changes), ids_of(), sources()
    with torch.no_grad():
        logits = model(ids, **given)
        alone = [model(ids[r : r + 1], given["source"][r : r + 1, :n])[0] for r, n in enumerate(LENGTHS.tolist())]
        memory, cache = model.encode(**given), model.new_cache(3, LENGTH)
        steps = [model(ids[:, t : t + 1], memory=memory, cache=cache) for t in range(LENGTH)]
        chosen = model(ids[[2, 0]], memory=memory.select(torch.tensor([2, 0])))
        backwards = model(ids, given["source"].flip(1))
    torch.testing.assert_close(torch.stack(alone), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(steps, dim=1), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(chosen, logits[[2, 0]], rtol=1e-4, atol=1e-5)
    assert (backwards[0] - logits[0]).abs().amax(dim=-1).min() > 1e-4  # the order of a source counts


@pairs
def test_the_gradient_of_pairs_reaches_every_parameter(changes):
    model, ids = model_of(encoder=True, **changes).train(), ids_of()
    loss_sum(model(ids[:, :-1], **sources()), ids[:, 1:]).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-7] == []


@pairs
def test_attention_is_a_distribution_over_the_source(changes):
    model, ids, given = model_of(encoder=True, **changes), ids_of(), sources()
    if model.config.attention == "none":
        with pytest.raises(ConfigError, match="attention=none"):
            model.attention_weights(ids, **given)
        return
    weights_BTS = model.attention_weights(ids, **given)
    assert weights_BTS.shape == (3, LENGTH, 6)
    torch.testing.assert_close(weights_BTS.sum(dim=-1), torch.ones(3, LENGTH))
    assert (weights_BTS > 0).equal(given["source_kept"][:, None].expand(-1, LENGTH, -1))


def test_scores_are_those_of_their_papers():
    draw = torch.Generator().manual_seed(0)
    h, m = torch.randn(2, 3, 4, generator=draw), torch.randn(2, 5, 6, generator=draw)
    dot, additive = ALIGNMENTS["dot"](4, 6), ALIGNMENTS["additive"](4, 6)
    with torch.no_grad():
        found = dot(h, dot.keys(m)), additive(h, additive.keys(m))
        for t in range(3):
            for s in range(5):
                assert found[0][1, t, s].item() == pytest.approx((h[1, t] @ dot.key.weight @ m[1, s]).item(), abs=1e-5)
                inner = additive.query.weight @ h[1, t] + additive.key.weight @ m[1, s] + additive.key.bias
                by_hand = additive.score.weight[0] @ inner.tanh()
                assert found[1][1, t, s].item() == pytest.approx(by_hand.item(), abs=1e-5)
        assert torch.equal(ALIGNMENTS["dot"](6, 6).keys(m), m)
    assert align(torch.zeros(1, 1, 4), torch.tensor([[True, True, False, False]])).tolist() == [[[0.5, 0.5, 0, 0]]]


def test_a_source_and_an_encoder_belong_together():
    with pytest.raises(ConfigError, match=r"has no encoder.*model.encoder=true"):
        model_of()(ids_of(), **sources())
    with pytest.raises(ConfigError, match="give source, or its memory"):
        model_of(encoder=True)(ids_of())


@pytest.mark.parametrize("attention", ALIGNMENTS)
def test_it_learns_to_copy_words(attention):
    """Words of five letters that it was not shown; id 0 is the end mark."""
    model = build(RNNConfig(vocab_size=11, d_model=48, n_layers=1, encoder=True, attention=attention), seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    draw = torch.Generator().manual_seed(0)

    def batch(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        words = torch.randint(1, 11, (n, 5), generator=draw)
        end = torch.zeros(n, 1, dtype=torch.long)
        return torch.cat([words, end], dim=1), torch.cat([end, words], dim=1)

    for _ in range(500):
        source, ids = batch(32)
        loss = loss_sum(model(ids, source), source) / source.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    source, ids = batch(200)
    with torch.no_grad():
        right = (model(ids, source).argmax(dim=-1) == source).all(dim=1).float().mean().item()
        looks = model.attention_weights(ids, source).argmax(dim=-1)
    assert right > 0.9
    assert (looks == torch.arange(6))[:, :5].float().mean() > 0.8  # each letter is written while looking at it
