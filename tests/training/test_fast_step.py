"""The fast way to train against its slow twin: the loss with its gradient in one pass, and compiled blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import config_of, final_hashes, finish, names_file, stop_after, store_of
from torch import Tensor

from windtunnel.errors import ConfigError
from windtunnel.models import MLPConfig, ModelConfig, TransformerConfig, build
from windtunnel.nn import linear
from windtunnel.nn.feedforward import gelu_tanh
from windtunnel.tasks import Language, cross_entropy
from windtunnel.tasks.cross_entropy import loss_sum, training_loss_sum
from windtunnel.text.batches import IGNORED, Batch
from windtunnel.text.store import TextConfig
from windtunnel.training import compiling, machine
from windtunnel.training.compiling import compile_blocks, loss_function
from windtunnel.training.loop import fit, resume
from windtunnel.training.run import resolve
from windtunnel.training.run_config import RunConfig, TrainConfig
from windtunnel.training.step import gradients


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [1, 5 * 12, 2**22])
@pytest.mark.parametrize("tokens_last", [False, True])
def test_the_training_loss_and_its_gradient_are_those_of_the_plain_loss(
    dtype: torch.dtype, chunk: int, tokens_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one entry of the vocabulary, by five and at once; padding counts nothing and gets no gradient."""
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    torch.manual_seed(0)
    logits = (4 * torch.randn(3, 4, 11)).to(dtype)
    if tokens_last:
        logits = logits.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    targets = torch.randint(0, 11, (3, 4))
    targets[1, 2:] = IGNORED
    agrees_with_the_plain_loss(training_loss_sum, logits, targets)


def agrees_with_the_plain_loss(function: Callable[[Tensor, Tensor], Tensor], logits: Tensor, targets: Tensor) -> None:
    found = []
    for loss_of in (function, loss_sum):
        leaf = logits.clone().requires_grad_()
        loss = loss_of(leaf, targets)
        (loss / 7).backward()
        assert leaf.grad is not None
        found.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=0)
    tolerance = 1e-6 if logits.dtype == torch.float32 else 2**-7
    torch.testing.assert_close(found[0][1], found[1][1], rtol=tolerance, atol=1e-8)
    assert found[0][1][targets == IGNORED].abs().max() == 0


def test_the_gradient_of_a_training_loss_is_computed_once_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the place of the logits, which a second time would need."""
    monkeypatch.setattr(cross_entropy, "CHUNK", 1)
    logits = torch.randn(1, 4, 11, requires_grad=True)
    loss = training_loss_sum(logits, torch.zeros(1, 4, dtype=torch.long))
    loss.backward(retain_graph=True)
    assert logits.grad is not None
    assert torch.equal(logits.grad, logits)
    with pytest.raises(RuntimeError, match="computed once"):
        loss.backward()


@pytest.mark.skipif(not machine.has_compiler(), reason="needs a C++ compiler")
class TestCompiled:
    """Compiled for real; each test compiles one small block."""

    def test_gelu_is_the_same_function_and_so_is_its_slope(self) -> None:
        x = torch.linspace(-8, 8, 999)
        results = []
        for function in (gelu_tanh, torch.compile(gelu_tanh)):
            leaf = x.clone().requires_grad_()
            y = function(leaf)
            y.sum().backward()
            results.append((y.detach(), leaf.grad))
        torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=3e-6)
        torch.testing.assert_close(results[0][0], F.gelu(x, approximate="tanh"))

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_blocks_compute_the_same_and_share_one_graph(self, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """In bfloat16 with the products of large matrices."""
        monkeypatch.setattr(linear, "LARGE", 1)
        config = TransformerConfig(
            vocab_size=13, context_length=8, n_layers=3, n_heads=2, d_model=16, position="rope", dropout=0.0
        )
        ids = torch.randint(0, 13, (4, 8))
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        found = []
        for compiled in (False, True):
            model = build(config, seed=0)
            if compiled:
                compile_blocks(model)
            with machine.autocast(precision):
                logits = model(ids)
            loss_sum(logits, ids).backward()
            found.append({name: p.grad for name, p in model.named_parameters()})
        rtol, atol = (1e-4, 1e-5) if precision == "fp32" else (2**-5, 2**-5)
        torch.testing.assert_close(found[1], found[0], rtol=rtol, atol=atol)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
        with torch.no_grad():  # another shape, without gradients: nothing more is compiled
            model(ids[:3, :5])
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1

    @pytest.mark.parametrize(
        "model",
        [
            TransformerConfig(vocab_size=13, context_length=8, n_layers=1, n_heads=2, d_model=16, dropout=0.2),
            MLPConfig(vocab_size=13, context_length=8, d_hidden=16, batch_norm=True),
        ],
        ids=lambda model: model.family,
    )
    def test_one_graph_of_loss_and_gradient_computes_the_same(
        self, model: ModelConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With dropout, in two parts, of which the gradients add up, and with the products of large matrices."""
        monkeypatch.setattr(linear, "LARGE", 1)
        monkeypatch.setattr(compiling, "SMALL_STEPS", 1)
        text = TextConfig(unit="text")
        batch = Batch({"ids": torch.randint(0, 13, (4, 8))}, torch.randint(0, 13, (4, model.targets_per_example)))
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        found = []
        for compiled in (False, True):
            train = TrainConfig(precision="fp32", compile=compiled, steps=1)
            config = RunConfig(corpus="", text=text, model=model, train=train)
            assert compiling.in_one_graph(config) == compiled
            own = build(model, seed=0)
            loss = gradients(loss_function(own, Language(None, model), config), batch, 2, seed=0, step=0)
            found.append((loss, {name: p.grad for name, p in own.named_parameters()}, dict(own.named_buffers())))
        assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)
        torch.testing.assert_close(found[1][1:], found[0][1:], rtol=1e-4, atol=1e-6)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1

    @pytest.mark.parametrize("graphs", ["blocks", "one graph"])
    def test_a_compiled_run_with_dropout_resumes_bit_for_bit(
        self, graphs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        changes = ["train.compile=true", "train.steps=6", "train.save_every=3", "train.grad_accumulation=1"]
        changes += ["text.unit=text", "model.n_layers=1"]
        monkeypatch.setattr(compiling, "SMALL_STEPS", 1 if graphs == "one graph" else 7)
        compiled = config_of(names_file(tmp_path), *changes)
        whole = finish(compiled, tmp_path / "whole")
        stop_after(compiled, tmp_path / "parts", 3)
        torch._dynamo.reset()  # as in another process
        assert finish(compiled, tmp_path / "parts") == whole
        assert final_hashes(tmp_path / "parts") == final_hashes(tmp_path / "whole")
        eager = finish(compiled.replace(train=compiled.train.replace(compile=False)), tmp_path / "eager")
        assert whole[0] == pytest.approx(eager[0], rel=1e-2)
        assert len(whole) == 6


@pytest.mark.skipif(not machine.has_compiler(), reason="needs a C++ compiler")
def test_one_graph_is_for_long_runs_of_small_models_on_one_machine() -> None:
    small = TransformerConfig(vocab_size=65, context_length=64, n_layers=4, n_heads=4, d_model=128)
    train = TrainConfig(precision="bf16", compile=True, steps=compiling.SMALL_STEPS)
    config = RunConfig(corpus="", text=TextConfig(unit="text"), model=small, train=train)
    assert compiling.in_one_graph(config)
    assert not compiling.in_one_graph(config, n_ranks=2)
    others: list[dict[str, Any]] = [
        {"train": train.replace(steps=compiling.SMALL_STEPS - 1)},
        {"train": train.replace(compile=False)},
        {"train": train.replace(recompute=True)},
        {"train": train.replace(batch_size=120)},
        {"text": TextConfig(unit="line")},
    ]
    assert not any(compiling.in_one_graph(config.replace(**other)) for other in others)


@pytest.mark.skipif(not machine.has_compiler(), reason="needs a C++ compiler")
def test_without_a_compiler_a_compiled_run_goes_on_uncompiled_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was made where there was one; `auto` does not ask for one that is not there."""
    config = config_of(names_file(tmp_path), "train.compile=true", "train.steps=2")
    begun = fit(config, tmp_path / "run")
    next(begun)
    begun.close()
    monkeypatch.setenv("PATH", "")
    started, *_, stopped = resume(tmp_path / "run")
    assert "no C++ compiler" in started.note
    assert stopped.reason == "finished"
    with pytest.raises(ConfigError, match=r"train.compile=true needs a C\+\+ compiler"):
        resolve(config, store_of(config))
    long = config.replace(train=config.train.replace(compile="auto", steps=10**9))
    assert resolve(long, store_of(long)).train.compile is False
    monkeypatch.undo()
    assert resolve(long, store_of(long)).train.compile is True
