"""Batch norm folded into the weights before it: at inference it is a fixed linear map, and two of those are one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from windtunnel.errors import ConfigError, DataError
from windtunnel.models import MLP, Model, as_mlp
from windtunnel.nn.norms import BatchNorm
from windtunnel.tasks import Task
from windtunnel.training import machine
from windtunnel.training.data import open_task
from windtunnel.training.evaluate import evaluate
from windtunnel.training.events import Evaluation
from windtunnel.training.imports import create_from
from windtunnel.training.run import Run, load


@dataclass(frozen=True)
class Agreement:
    """Two models on all predictions of a split: the largest difference of any logit, and how often both would choose
    the same token."""

    largest: float
    same: int
    n: int


@dataclass(frozen=True)
class Folded:
    """A run whose model has no batch norm any more, beside the model that it was made of."""

    run: Run
    before: Evaluation
    after: Evaluation
    agreement: Agreement
    n_before: int
    n_after: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        plain = {name: getattr(self, name) for name in ("n_before", "n_after")}
        parts = {name: asdict(getattr(self, name)) for name in ("before", "after", "agreement")}
        return {"run": str(self.run.folder), **parts, **plain}


def fold(model: Model) -> MLP:
    """The same function without batch norm, in evaluation mode and in the precision of the model.

    With y = gain (Wx + b - mean) / std + shift, W' = gain / std W and b' = gain / std (b - mean) + shift. Mean and
    standard deviation are the running ones, so a batch no longer changes what is predicted for an example in it.

    Raises:
        ConfigError: for a model without batch norm.
    """
    if not any(isinstance(module, BatchNorm) for module in model.modules()):
        what = f"this {model.config.family} has none"
        raise ConfigError(f"nothing to fold: batch norm is what can be folded into the weights before it, and {what}")
    model = as_mlp(model, "folding")
    folded = MLP(model.config.replace(batch_norm=False, hidden_bias=True))
    folded.to(model.output.weight).eval()
    weights = {name: tensor for name, tensor in model.state_dict().items() if ".norm." not in name}
    for i, layer in enumerate(model.layers):
        assert isinstance(layer.norm, BatchNorm)
        linear = f"layers.{i}.linear"
        weights[f"{linear}.weight"], weights[f"{linear}.bias"] = fold_linear(
            weights[f"{linear}.weight"], weights.get(f"{linear}.bias"), layer.norm
        )
    folded.load_state_dict(weights)
    return folded


def fold_linear(weight_FI: Tensor, bias_F: Tensor | None, norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Weight (F, I) and bias (F,) of one linear map that does what a linear map and the norm behind it do.

    Computed in float64 and rounded once.
    """
    scale_F = norm.weight.detach().double() / norm.running_std.double()
    centred_F = -norm.running_mean.double() if bias_F is None else bias_F.double() - norm.running_mean.double()
    bias = scale_F * centred_F + norm.bias.detach().double()
    return (scale_F[:, None] * weight_FI.double()).to(weight_FI), bias.to(weight_FI)


def agreement(one: Model, other: Model, task: Task, split: str = "dev") -> Agreement:
    """Compare two models of one task on every prediction of a split, each in evaluation mode."""
    largest, same, n = 0.0, 0, 0
    one.eval(), other.eval()
    with torch.no_grad():
        for batch in task.examples(split).sweep(task.rows):
            inputs = batch.to(one.embedding.weight.device).inputs
            a, b = one(**inputs), other(**inputs)
            largest = max(largest, float((a - b).abs().max()))
            same += int((a.argmax(-1) == b.argmax(-1)).sum())
            n += a.shape[0] * a.shape[1]
    return Agreement(largest, same, n)


def fold_run(run: Path, folder: Path) -> Folded:
    """Make a run in `folder` whose model is another run's with its batch norm folded away, and compare the two.

    Raises:
        ConfigError: when there is no batch norm, the run has no corpus, or the folder for the new run is taken.
        DataError: when nothing of the corpus is held out.
    """
    trained = load(run)
    model = fold(trained.model).to(machine.device())
    store = trained.run.store()
    if len(store.splits["dev"].ids) == 0:
        raise DataError(f"nothing of {trained.run.config.corpus} is held out, so the two models cannot be compared")
    task = open_task(trained.run.config, store)
    before = evaluate(trained.model, task, "dev", trained.step)
    after = evaluate(model, task, "dev", 0)
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    made = create_from(trained, folder, "folded", model.config, weights, store, before, after)
    n_before, n_after = (sum(p.numel() for p in m.parameters()) for m in (trained.model, model))
    same = agreement(trained.model, model, task)
    return Folded(made, before, after, same, n_before, n_after, trained.warnings)
