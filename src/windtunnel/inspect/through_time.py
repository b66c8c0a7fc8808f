"""How far a recurrent network's past reaches: the gradient of each state with respect to each one before it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from windtunnel.errors import ConfigError
from windtunnel.models import RNN, Model


def through_time(model: Model, ids: Sequence[int]) -> Tensor:
    """Spectral norms (T, T), float64: at [t, s] that of d state_t / d state_s; state_t follows token t of a text.

    They are 1 on the diagonal and 0 above it. Below it they shrink or grow about exponentially in t - s where a
    gradient vanishes or explodes (Pascanu et al. 2013, arXiv 1211.5063, section 2). A state is the vectors of all
    layers, of an lstm h and c. Exact, by autograd; the time grows as T^2 times the cube of the state's size.

    Raises:
        ConfigError: for a model that is no recurrent language model, or a text without tokens.
    """
    if not isinstance(model, RNN) or model.config.encoder:
        kind = "has an encoder" if isinstance(model, RNN) else f"is of the family {model.config.family}"
        raise ConfigError(f"gradients through time need a recurrent language model, and this model {kind}")
    if not len(ids):
        raise ConfigError("gradients through time need a text of at least one token, given none")
    jacobians_TXX = step_jacobians(model, ids)
    norms_TT = jacobians_TXX.new_zeros(len(ids), len(ids))
    since_SXX = jacobians_TXX[:0]  # d state_t / d state_s for all s < t
    for t, jacobian_XX in enumerate(jacobians_TXX):
        since_SXX = torch.cat([jacobian_XX @ since_SXX, torch.eye(len(jacobian_XX)).to(since_SXX)[None]])
        norms_TT[t, : t + 1] = torch.linalg.matrix_norm(since_SXX, ord=2)
    return norms_TT


def factor_per_step(norms_TT: Tensor) -> float:
    """Geometric mean of the norms from each token to the next, of `through_time`; NaN for a single token."""
    return float(norms_TT.diagonal(-1).log().mean().exp())


def step_jacobians(model: RNN, ids: Sequence[int]) -> Tensor:
    """d state_t / d state_t-1 for each token t of a text, (T, X, X) in float64; X is the size of a state.

    A step reads X rows at once, one for each number of the new state, so that one backward pass gives all gradients.
    """
    exact = copy.deepcopy(model).double().eval()
    cell, c = model.config.kind_of_cell, model.config
    size = c.n_layers * cell.n_states * c.d_model
    device = model.embedding.weight.device
    x_TD = exact.embed(torch.tensor(ids, device=device))[0].detach()
    states_LNBD = x_TD.new_zeros(c.n_layers, cell.n_states, size, c.d_model)
    jacobians = []
    for x_D in x_TD:
        before_LNBD = states_LNBD.clone().requires_grad_()
        _, after_LNBD = exact.read(x_D.expand(size, 1, -1), before_LNBD)
        (gradient_LNBD,) = torch.autograd.grad(_rows(after_LNBD).diagonal().sum(), before_LNBD)
        jacobians.append(_rows(gradient_LNBD))
        states_LNBD = after_LNBD.detach()
    return torch.stack(jacobians)


def _rows(states_LNBD: Tensor) -> Tensor:
    """Each row's state as one vector, (B, X)."""
    return states_LNBD.permute(2, 0, 1, 3).flatten(1)
