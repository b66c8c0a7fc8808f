"""The cost of a run against what torch counts, and against a real step."""

import io
import json

import pytest
import torch
from rich.console import Console

from windtunnel.inspect.cost import (
    activation_bytes,
    cost,
    count_forward_flops,
    hidden_shapes,
    optimizer_bytes,
    parameter_shapes,
)
from windtunnel.inspect.shapes import intermediates
from windtunnel.models import Transformer, TransformerConfig, TranslatorConfig, build
from windtunnel.report.cost_tables import cost_tables, readable_bytes
from windtunnel.tasks.cross_entropy import loss_sum
from windtunnel.training.optimizer import OptimizerConfig, build_optimizer, optimizer_tensors
from windtunnel.training.recipes import recipe
from windtunnel.training.run_config import RunConfig, TrainConfig

BASE = TransformerConfig(vocab_size=65, context_length=16, n_layers=3, n_heads=4, d_model=32, dropout=0.1)

VARIANTS = {
    "gpt2": {},
    "grouped": {"n_kv_heads": 2},
    "multi-query": {"n_kv_heads": 1},
    "swiglu": {"activation": "swiglu"},
    "swiglu without bias": {"activation": "swiglu", "bias": False, "d_ff": 50},
    "window": {"window": 4},
    "window a layer": {"window": (4, None, 2)},
    "untied": {"tie_embeddings": False},
    "rope and rms": {"position": "rope", "norm": "rms"},
    "alibi, no bias": {"position": "alibi", "bias": False},
    "no norm": {"norm": "none", "position": "sinusoidal"},
    "post norm": {"norm_position": "post"},
}
variants = pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)


@variants
def test_parameters_by_formula_are_what_torch_counts(changes):
    config = BASE.replace(**changes)
    rows = config.parameter_rows()
    assert sum(row.n_parameters for row in rows) == sum(p.numel() for p in build(config, 0).parameters())
    for row in rows:
        assert eval(row.formula, {"__builtins__": {}}, config.formula_names()) == row.n_parameters  # noqa: S307


@variants
def test_parameters_of_each_module_are_its_own(changes):
    config = BASE.replace(**changes)
    counted = {}
    for name, parameter in build(config, 0).named_parameters():
        part = name.split(".", 2)[2] if name.startswith("blocks.") else name
        kind = "norms" if part.startswith("norm") else part.rsplit(".", 1)[0]
        kind = {"position.embedding": "position"}.get(kind, kind)
        kind = "feed_forward" if kind.startswith("feed_forward") else kind
        counted[kind] = counted.get(kind, 0) + parameter.numel()
    assert {row.module: row.n_parameters for row in config.parameter_rows()} == counted


@variants
def test_forward_flops_by_formula_are_what_torch_counts(changes):
    config = BASE.replace(**changes)
    for length in (1, 16):
        assert sum(config.flops_by_part(length).values()) == count_forward_flops(config, length)


def test_the_backward_pass_costs_twice_the_forward():
    from torch.utils.flop_counter import FlopCounterMode

    from windtunnel.nn.attention import attend_reference

    model = build(BASE, 0)
    with FlopCounterMode(display=False) as forward:
        logits = model(torch.zeros(2, 16, dtype=torch.int64), attend=attend_reference)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    assert forward.get_total_flops() == 2 * sum(BASE.flops_by_part(16).values())
    assert backward.get_total_flops() == 2 * forward.get_total_flops()


@variants
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_are_those_that_a_real_step_keeps(changes, precision):
    config = BASE.replace(**changes)
    model, kept = build(config, 0).train(), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    ids = torch.zeros(3, 16, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = model(ids)
        loss_sum(logits, ids)
    real = sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in weights)
    assert activation_bytes(config, 3, 16, precision) == real > 0


def test_recomputed_blocks_keep_what_goes_into_them_and_the_inside_of_one():
    config = TransformerConfig(vocab_size=50, context_length=32, n_layers=6, n_heads=4, d_model=64)
    kept, whole = (activation_bytes(config, 2, 32, "fp32", recompute) for recompute in (True, False))
    stream = 4 * 2 * 32 * 64
    shallow = activation_bytes(config.replace(n_layers=1), 2, 32, "fp32")
    assert kept == shallow + 5 * stream
    assert kept < 0.35 * whole


@pytest.mark.parametrize("settings", [{}, {"name": "sgd"}, {"name": "sgd", "momentum": 0.0}, {"name": "muon"}])
def test_the_optimizer_keeps_as_many_bytes_as_stated(settings):
    config, model = OptimizerConfig(**settings), build(BASE, 0)
    optimizer = build_optimizer(model, config)
    model(torch.zeros(1, 4, dtype=torch.int64)).sum().backward()
    optimizer.step()
    kept = sum(tensor.nbytes for tensor in optimizer_tensors(optimizer, model).values())
    assert optimizer_bytes(config, parameter_shapes(BASE), hidden_shapes(BASE)) == kept


@pytest.mark.parametrize(("groups", "half_precision_bytes"), [(1, 3072), (4, 12288), (12, 36864)])
def test_the_cache_of_gpt2_small_in_half_precision(groups, half_precision_bytes):
    assert 2 * TransformerConfig(n_kv_heads=groups).cache_elements_per_token() == half_precision_bytes


def test_the_cache_is_as_large_as_a_real_one():
    config = RunConfig(corpus="x", model=BASE.replace(n_kv_heads=2))
    cache = build(config.model, 0).new_cache(1, config.model.context_length)
    assert cost(config).memory.kv_cache_full_context == cache.keys.nbytes + cache.values.nbytes


def test_gpt2_small_is_counted_without_being_allocated():
    found = cost(recipe("gpt2", "x"))
    assert found.n_parameters == found.n_parameters_counted == 124_439_808
    assert found.flops.forward_per_token == found.flops.forward_counted
    assert found.memory.weights == found.memory.gradients == 4 * 124_439_808
    assert found.memory.kv_cache_per_token == 2 * 36_864
    assert found.micro_batch == 2
    assert found.flops.training_per_step == pytest.approx(3 * found.flops.forward_counted * 1024 * 8)
    assert any("vocab_size" in note for note in found.notes)


@variants
def test_shapes_are_those_of_the_modules_outputs(changes):
    """The output of every module without children, in a real forward pass, is the last one listed for it."""
    config = BASE.replace(**changes)
    expected = {}
    model = build(config, 0).eval()
    leaves = [(path, module) for path, module in model.named_modules() if not list(module.children())]
    for path, module in leaves:
        module.register_forward_hook(lambda m, i, o, path=path: expected.update({path: tuple(o.shape)}))
    with torch.no_grad():
        model(torch.zeros(2, 16, dtype=torch.int64))
    listed = {}
    for row in intermediates(config, 2, 16):
        first, _, last = row.module.removeprefix("blocks.").partition(".")[0].partition("-")
        for layer in range(int(first), int(last or first) + 1) if row.module.startswith("blocks.") else [None]:
            listed[row.module.replace(f"blocks.{first}-{last}", f"blocks.{layer}")] = row.shape
    assert "blocks.2.attention.qkv" in listed
    silent = {path for path, module in leaves if type(module).__name__ in ("Dropout", "NoNorm", "Position")}
    for path, shape in expected.items():
        assert path in silent or listed[path] == shape, path


def test_equal_layers_are_listed_once_and_unequal_ones_apart():
    assert {row.module for row in intermediates(BASE, 2, 16) if row.module.endswith("qkv")} == {
        "blocks.0-2.attention.qkv"
    }
    rows = intermediates(BASE.replace(window=(4, 4, None)), 2, 16)
    assert {(row.module, row.layers) for row in rows if row.operation == "softmax"} == {
        ("blocks.0-1.attention", 2),
        ("blocks.2.attention", 1),
    }
    (weights,) = {row.shape for row in rows if row.operation == "softmax"}
    assert weights == (2, 4, 16, 16)


def test_a_view_has_no_bytes_of_its_own():
    rows = intermediates(BASE, 2, 16)
    assert {row.bytes for row in rows if row.operation in ("split", "transpose", "unflatten")} == {0}
    assert {row.bytes for row in rows if row.module.endswith("widen")} == {2 * 16 * 128 * 4}


def test_the_tables_show_the_numbers_and_the_json_holds_them():
    config = RunConfig(corpus="x", model=BASE, train=TrainConfig(batch_size=6, grad_accumulation=4, precision="fp32"))
    found = cost(config)
    assert found.micro_batch == 2
    assert found.notes == ()
    console = Console(width=140, record=True, quiet=False, file=io.StringIO())
    for table in cost_tables(found):
        console.print(table)
    text = console.export_text()
    for number in (found.n_parameters, found.memory.activations, found.memory.optimizer, found.memory.training):
        assert f"{number:,}" in text
    assert "blocks.0-2.attention" in text
    assert "2 x 4 x 16 x 16" in text
    data = json.loads(json.dumps(found.to_dict()))
    assert data["memory"]["training"] == found.memory.training
    first = {"module": "embedding", "formula": "vocab_size * d_model", "n_parameters": 65 * 32, "is_embedding": True}
    assert data["parameters"][0] == first


@pytest.mark.parametrize(("n", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB")])
def test_bytes_are_readable(n, text):
    assert readable_bytes(n) == text


def test_the_parameter_shapes_are_the_models():
    assert parameter_shapes(BASE) == [parameter.shape for parameter in Transformer(BASE).parameters()]


def test_the_cache_of_a_translator_keeps_the_source_too():
    model = TranslatorConfig(vocab_size=11, context_length=6, n_layers=2, n_heads=2, d_model=8)
    made = model.build(0).eval()
    cache = made.new_cache(1, 6)
    made(torch.zeros(1, 6, dtype=torch.int64), torch.zeros(1, 6, dtype=torch.int64), cache=cache)
    of_source = sum(part.nbytes for layer in cache.of_memory.values() for part in layer)
    kept = cache.keys.nbytes + cache.values.nbytes + of_source
    assert cost(RunConfig(corpus="x", model=model)).memory.kv_cache_full_context == kept
