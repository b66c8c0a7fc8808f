"""What every family of models keeps: each test runs over a table of tiny configs, one or more a family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from windtunnel.config import ConfigError, fingerprint, flatten, parse, to_json
from windtunnel.inspect.cost import count_forward_flops
from windtunnel.models import FAMILIES, ClassifierConfig, MLPConfig, Model, ModelConfig, RNNConfig, TransformerConfig
from windtunnel.models.captions import BagConfig, CaptionTransformerConfig
from windtunnel.models.clip import CLIPConfig
from windtunnel.models.encoder import BERT
from windtunnel.models.encoder import EncoderConfig as TextEncoderConfig
from windtunnel.models.translator import EncoderConfig, TranslatorConfig
from windtunnel.models.vision import ConvolutionalConfig, ViTConfig
from windtunnel.nn.blocks import Blocks, Layers, blocks_of, layers_of
from windtunnel.nn.cache import Cache
from windtunnel.tasks.cross_entropy import loss_sum
from windtunnel.training import machine
from windtunnel.training.checkpoint import load_weights
from windtunnel.training.muon import hidden_matrices
from windtunnel.training.run_config import RunConfig

V, LENGTH = 13, 8
TRUNK: dict[str, Any] = {"n_layers": 2, "n_heads": 2, "d_model": 16, "dropout": 0.0}
PLAIN = TransformerConfig(vocab_size=V, context_length=LENGTH, **TRUNK)
TINY: dict[str, ModelConfig] = {
    "transformer": PLAIN,
    "transformer, like GPT-NeoX": PLAIN.replace(
        position="rope", parallel=True, rotary_fraction=0.25, tie_embeddings=False
    ),
    "transformer, like OLMo 2": PLAIN.replace(
        n_heads=4, n_kv_heads=2, norm="rms", norm_position="branch", qk_norm="whole", activation="swiglu", bias=False
    ),
    "transformer, like Qwen3": PLAIN.replace(
        n_heads=4, n_kv_heads=2, d_head=6, position="rope", qk_norm="head", bias=False, norm_bias=True, qkv_bias=True
    ),
    "transformer, some biases": PLAIN.replace(
        qkv_bias=False, out_bias=False, feed_forward_bias=False, norm_bias=False, embedding_norm=True
    ),
    "mlp": MLPConfig(vocab_size=V, context_length=3, n_layers=2, d_hidden=16, hidden_bias=False, init_output=1.0),
    "translator": TranslatorConfig(
        vocab_size=V,
        context_length=LENGTH,
        **TRUNK,
        encoder=EncoderConfig(
            n_layers=3, n_heads=4, n_kv_heads=2, d_model=24, position="sinusoidal", norm="rms", bias=False
        ),
    ),
    "rnn": RNNConfig(vocab_size=V, context_length=LENGTH, n_layers=2, d_model=16, cell="lstm"),
    "encoder": TextEncoderConfig(vocab_size=V, context_length=LENGTH, trunk=BERT.replace(**TRUNK)),
    "classifier": ClassifierConfig(
        vocab_size=V,
        context_length=LENGTH,
        n_labels=V,  # so that an id can be a label
        trunk=TransformerConfig(**TRUNK, causal=False),
    ),
    "clip": CLIPConfig(
        vocab_size=V,
        context_length=LENGTH,
        picture=ViTConfig(size=8, trunk=TransformerConfig(**TRUNK, causal=False)),
        caption=CaptionTransformerConfig(trunk=TransformerConfig(**TRUNK, causal=False)),
        d_shared=12,
    ),
    "clip, like CLIP": CLIPConfig(
        vocab_size=V,
        context_length=LENGTH,
        picture=ViTConfig(
            size=8,
            pool="class",
            trunk=TransformerConfig(**TRUNK, causal=False, embedding_norm=True, activation="quick_gelu"),
        ),
        caption=CaptionTransformerConfig(pool="last", trunk=TransformerConfig(**TRUNK, activation="quick_gelu")),
        d_shared=12,
    ),
    "clip, convolutional": CLIPConfig(
        vocab_size=V,
        context_length=LENGTH,
        picture=ConvolutionalConfig(size=8, widths=(4, 8)),
        caption=CaptionTransformerConfig(trunk=TransformerConfig(**TRUNK, causal=False)),
    ),
    "clip, bag": CLIPConfig(
        vocab_size=V,
        context_length=LENGTH,
        picture=ViTConfig(size=8, trunk=TransformerConfig(**TRUNK, causal=False)),
        caption=BagConfig(d_model=16, dropout=0.0),
    ),
    "rnn, pairs": RNNConfig(vocab_size=V, context_length=LENGTH, n_layers=2, d_model=16, encoder=True),
}

PLACED: dict[str, dict[str, Any]] = {
    "its own positions": {},
    "rope": {"position": "rope", "n_kv_heads": 1},
    "alibi": {"position": "alibi"},
    "sinusoidal, window": {"position": "sinusoidal", "window": 3},
    "not causal": {"causal": False},
}
"""Ways to know where a token stands, for families that have several."""

WHOLE = ("text", "captioned")
"""What is read by models that predict no token."""

families = pytest.mark.parametrize("family", TINY)


def model_of(family: str, **changes: Any) -> Model:
    """In evaluation mode, with weights large enough for every id to be felt in the logits."""
    model = TINY[family].replace(**changes).build(0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.dim() > 1 else 1)
    return model


def ids_of(rows: int = 3, length: int = LENGTH, seed: int = 0) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def call(model: Model, ids: Tensor, **named: Any) -> Tensor:
    """The logits of ids; a model that reads pairs is given a source for each row, one of captions V pictures, always
    the same."""
    if model.config.reads == "pair":
        named |= {"source": torch.arange(5 * len(ids)).reshape(len(ids), 5) % V}
    if isinstance(model.config, CLIPConfig):
        shape = model.config.picture.example(V).shape
        named |= {"pictures": torch.rand(shape, generator=torch.Generator().manual_seed(9))}
    logits: Tensor = model(ids=ids, **named)
    return logits


def loss_of(model: Model, ids: Tensor) -> Tensor:
    """Summed nats of the tokens that the logits are of, all but the last of which the model was shown."""
    logits = call(model, ids[:, :-1])
    return loss_sum(logits, ids[:, -logits.shape[1] :])


def test_the_table_has_every_family_by_its_name() -> None:
    assert {config.family for config in TINY.values()} == FAMILIES.keys()
    for name, config in TINY.items():
        assert type(config) is FAMILIES[config.family]
        assert config.family == name.partition(",")[0] == FAMILIES[config.family].model_fields["family"].default


@families
def test_a_model_is_a_function_of_its_config_and_seed(family: str) -> None:
    one, same, other = (TINY[family].build(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert {name: t.shape for name, t in TINY[family].create().state_dict().items()} == {
        name: t.shape for name, t in one.items()
    }


@families
def test_a_generator_draws_the_weights_or_is_refused(family: str) -> None:
    config = TINY[family]
    if not config.replays_generator:
        with pytest.raises(ConfigError, match="generator"):
            config.build(0, torch.Generator())
        return
    one, same = (config.build(seed, torch.Generator().manual_seed(5)).state_dict() for seed in (0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)


@families
def test_the_formulas_count_the_parameters(family: str) -> None:
    config, model = TINY[family], model_of(family)
    for row in config.parameter_rows():
        assert eval(row.formula, {"__builtins__": {}}, config.formula_names()) == row.n_parameters  # noqa: S307
    assert config.n_parameters() == sum(p.numel() for p in model.parameters())
    tables = [m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    assert config.n_parameters() - config.n_parameters(embeddings=False) == sum(tables)


@families
def test_the_flops_are_those_that_torch_counts(family: str) -> None:
    config = TINY[family]
    counted = count_forward_flops(config, config.context_length)
    length = config.context_length if config.reads in WHOLE else config.targets_per_example
    assert sum(config.flops_by_part(length).values()) == counted


@families
def test_a_config_comes_back_from_json_as_its_own_kind(family: str) -> None:
    config = RunConfig(corpus="names", model=TINY[family])
    again = parse(RunConfig, RunConfig.model_validate_json(to_json(config)).model_dump())
    assert type(again.model) is type(TINY[family])
    assert fingerprint(again) == fingerprint(config)


@families
def test_saved_weights_make_the_same_model(family: str, tmp_path: Path) -> None:
    model = model_of(family)
    safetensors.torch.save_model(model, str(tmp_path / "model.safetensors"))
    again = TINY[family].create()
    load_weights(again, dict(model.state_dict()) | safetensors.torch.load_file(tmp_path / "model.safetensors"))
    assert torch.equal(call(again.eval(), ids_of()), call(model, ids_of()))


@families
@pytest.mark.parametrize("causal", [True, False])
def test_what_a_model_says_of_causality_is_true(family: str, causal: bool) -> None:
    """Other tokens from the sixth on move the logits at them, and those before only without a causal mask."""
    config = TINY[family]
    if config.reads in WHOLE:
        pytest.skip("a label is of the whole text")
    if not causal and "causal" not in type(config).model_fields:
        pytest.skip("a model of this family is always causal")
    config = config if causal else config.replace(causal=False)
    assert config.is_causal == causal
    model, ids, at = config.build(0).eval(), ids_of(1), 5
    changed = torch.cat([ids[:, :at], (ids[:, at:] + 1) % V], dim=1)
    moved = (call(model, changed) - call(model, ids)).abs().amax(dim=-1)[0]
    first = at - (LENGTH - len(moved))  # the logits that stand at the first changed id
    assert moved[first:].min() > 0
    assert (moved[:first].max() == 0) == causal


@families
def test_the_gradient_of_a_logit_is_zero_at_later_tokens(family: str) -> None:
    """Of the logit of id 0, so that a table which is also the head has one more gradient there only."""
    model = model_of(family)
    model.embedding.weight = torch.nn.Parameter(torch.randn(LENGTH, model.embedding.embedding_dim))
    if model.config.reads in WHOLE:
        pytest.skip("a label is of the whole text")
    logits = call(model, torch.arange(LENGTH)[None])  # every token has a row of its own
    middle = logits.shape[1] // 2
    last_seen = LENGTH - logits.shape[1] + middle
    logits[0, middle, 0].backward()
    assert model.embedding.weight.grad is not None
    felt = model.embedding.weight.grad.abs().sum(dim=-1)
    assert felt[last_seen] > 0
    assert felt[last_seen + 1 :].max() == 0


@families
def test_the_gradient_reaches_every_parameter(family: str) -> None:
    model = model_of(family).train()
    loss_of(model, ids_of(8)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-6, name


@families
def test_compiled_is_eager(family: str) -> None:
    if not machine.has_compiler():
        pytest.skip("there is no C++ compiler")
    model, found = model_of(family).train(), []
    for run in (loss_of, torch.compile(loss_of)):
        model.zero_grad()
        loss = run(model, ids_of())
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for eager, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)


@families
def test_blocks_and_layers_are_found_where_there_are_some(family: str) -> None:
    config, model = TINY[family], torch.nn.Sequential(model_of(family))  # at any depth
    n_layers = sum(n for name, n in config.formula_names().items() if name.endswith("n_layers"))
    assert len(blocks_of(model)) == (n_layers if config.has_blocks else 0)
    assert len(layers_of(model)) == n_layers
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    assert all(isinstance(m, Layers) for m in lists), "a list of layers that training does not see"
    assert any(isinstance(m, Blocks) for m in lists) == config.has_blocks


@families
def test_muon_moves_what_is_inside_of_layers_and_no_head(family: str) -> None:
    """Whatever holds a model: a head with a dot in its name stays AdamW's."""
    model = torch.nn.ModuleDict({"body": model_of(family), "heads": torch.nn.ModuleList([torch.nn.Linear(16, 3)])})
    inside = {p for layer in layers_of(model) for p in layer.parameters() if p.dim() == 2}
    assert set(hidden_matrices(model)) == inside
    assert all(sum(rows) == p.shape[0] for p, rows in hidden_matrices(model).items())


@families
def test_rows_of_a_padded_batch_are_what_they_are_alone(family: str) -> None:
    if TINY[family].reads in WHOLE:
        pytest.skip("a model of whole texts must be told what is padding")
    model, ids, lengths = model_of(family), ids_of(), [LENGTH, 6, 4]
    for row, length in enumerate(lengths):
        ids[row, length:] = 0
    logits = call(model, ids)
    for row, length in enumerate(lengths):
        alone = call(model, ids[:, :length])[row]
        torch.testing.assert_close(logits[row, : len(alone)], alone, rtol=1e-5, atol=1e-5)


@families
@pytest.mark.parametrize("changes", PLACED.values(), ids=PLACED)
def test_padding_on_either_side_is_hidden(family: str, changes: dict[str, Any]) -> None:
    """Logits and the gradient of what is no padding are those of each row alone; padding's own logits are finite."""
    config = TINY[family]
    if not config.attends or config.reads in ("pair", *WHOLE):
        pytest.skip("a model of this family cannot be told what is padding, or has no logits there")
    model = model_of(family, **changes)
    ids, kept = ids_of(), torch.ones(3, LENGTH, dtype=torch.bool)
    kept[0, :3] = kept[1, -2:] = kept[2, :1] = kept[2, -4:] = False
    logits = model(ids=ids, kept=kept)
    assert logits.isfinite().all()
    alone = [model(ids[row : row + 1, kept[row]])[0] for row in range(3)]
    torch.testing.assert_close(logits[kept], torch.cat(alone), rtol=1e-4, atol=1e-5)
    weights = torch.randn(logits[kept].shape, generator=torch.Generator().manual_seed(1))
    parameters = list(model.parameters())
    together = torch.autograd.grad((logits[kept] * weights).sum(), parameters)
    apart = torch.autograd.grad((torch.cat(alone) * weights).sum(), parameters)
    for ours, theirs in zip(together, apart, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@families
def test_rows_of_padding_before_them_are_continued_by_a_cache(family: str) -> None:
    """A prompt and what follows, in two passes: padding stays hidden, and positions are each row's own."""
    config = TINY[family]
    if not config.attends or not config.cache_elements_per_token() or config.reads == "pair":
        pytest.skip("a model of this family has no cache, or cannot be told what is padding")
    model, ids, kept = model_of(family), ids_of(2), torch.ones(2, LENGTH, dtype=torch.bool)
    kept[1, :3] = False
    cache = model.new_cache(2, LENGTH)
    with torch.no_grad():
        first = model(ids[:, :5], cache=cache, kept=kept[:, :5])
        rest = [model(ids[:, t : t + 1], cache=cache, kept=kept[:, : t + 1]) for t in range(5, LENGTH)]
        logits = torch.cat([first, *rest], dim=1)
        for row in range(2):
            torch.testing.assert_close(
                logits[row, kept[row]], model(ids[row : row + 1, kept[row]])[0], rtol=1e-4, atol=1e-5
            )


@families
def test_a_cache_takes_what_its_config_says(family: str) -> None:
    cache = model_of(family).new_cache(1, 1)
    n_elements = cache.keys.numel() + cache.values.numel() if isinstance(cache, Cache) else 0
    assert n_elements == TINY[family].cache_elements_per_token()


@families
def test_the_bias_setting_is_one_of_the_configs(family: str) -> None:
    assert TINY[family].bias_setting in flatten(TINY[family])


@families
def test_a_family_says_whether_it_takes_an_attention_function(family: str) -> None:
    model = model_of(family)
    if not model.config.attends:
        with pytest.raises(TypeError):
            call(model, ids_of(), attend=None)
        return
    called = []
    call(model, ids_of(), attend=lambda q, *rest, **named: called.append(q) or q)
    n_attentions = sum("attention" in type(module).__name__.lower() for module in model.modules())
    assert len(called) == n_attentions >= len(blocks_of(model))


@families
def test_a_source_is_read_once_and_its_padding_is_hidden(family: str) -> None:
    """With the memory of the sources, token by token, each row alone: the logits are those of all at once."""
    model, ids = model_of(family), ids_of()
    if model.config.reads != "pair":
        pytest.skip("a model of this family reads no source")
    source, lengths = ids_of(3, 6, seed=1), torch.tensor([6, 3, 1])
    kept = torch.arange(6) < lengths[:, None]
    with torch.no_grad():
        logits = model(ids, source=source, source_kept=kept)
        other = model(ids, source=torch.where(kept, source, (source + 1) % V), source_kept=kept)
        memory, cache = model.encode(source, kept), model.new_cache(3, LENGTH)
        steps = [model(ids[:, t : t + 1], memory=memory, cache=cache) for t in range(LENGTH)]
        rows = torch.tensor([2, 0])
        chosen = model(ids[rows], memory=memory.select(rows))
        alone = [model(ids[r : r + 1], source=source[r : r + 1, :n])[0] for r, n in enumerate(lengths.tolist())]
    torch.testing.assert_close(other, logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(chosen, logits[rows], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.stack(alone), logits, rtol=1e-4, atol=1e-5)
    moved = model(ids, source=(source + 1) % V, source_kept=kept) - logits
    assert moved.abs().amax(dim=-1).min() > 1e-4  # every token of the target feels the source


def test_a_new_family_is_one_subclass() -> None:
    """What has no default must be said, or the config cannot be made."""
    with pytest.raises(TypeError, match="abstract"):
        ModelConfig(family="none", vocab_size=2, context_length=2)  # type: ignore[abstract]
