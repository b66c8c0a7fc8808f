"""Logistic regression, with its Fisher information.

The loss is the mean negative log-likelihood (nats) + l2/2·‖w‖² + l1·‖w‖₁. The first column of x is one for every
example; its weight, the intercept, is not penalised. x is (n, features), y (n,) of 0 and 1, weights (features,).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def sigmoid(z: Floats) -> Floats:
    """The logistic function."""
    return 1 / (1 + np.exp(-z))


def information(x: Floats, w: Floats) -> Floats:
    """Fisher information X'PX with P = diag(p(1-p)); its inverse is the covariance of the weights."""
    p = sigmoid(x @ w)
    return (x.T * (p * (1 - p))) @ x


def newton(x: Floats, y: Floats, start: Floats | None = None, l2: float = 0.0) -> Floats:
    """Newton's method, which for logistic regression is iteratively reweighted least squares.

    Where the Hessian is singular `lstsq` takes the shortest step, which never moves along the flat direction.
    """
    w = np.zeros(x.shape[1]) if start is None else start.copy()
    ridge = l2 * np.diag([0.0] + [1.0] * (x.shape[1] - 1))
    for _ in range(30):
        gradient = x.T @ (sigmoid(x @ w) - y) / len(y) + ridge @ w
        step = np.linalg.lstsq(information(x, w) / len(y) + ridge, gradient, rcond=1e-12)[0]
        w -= step
        if np.abs(step).max() < 1e-13:
            break
    return w


def proximal(x: Floats, y: Floats, start: Floats | None = None, l1: float = 0.0) -> Floats:
    """Proximal gradient descent: a gradient step, then every penalised weight moves towards 0 and stops there."""
    w = np.zeros(x.shape[1]) if start is None else start.copy()
    rate = 4 / np.linalg.norm(x.T @ x / len(y), 2)  # 1 over the largest curvature, for p(1-p) <= 1/4
    shrink = rate * l1 * np.array([0.0] + [1.0] * (x.shape[1] - 1))
    for _ in range(5000):
        before = w
        w = w - rate * (x.T @ (sigmoid(x @ w) - y)) / len(y)
        w = np.sign(w) * np.maximum(np.abs(w) - shrink, 0)
        if np.abs(w - before).max() < 1e-13:
            break
    return w


def with_sklearn(x: Floats, y: Floats, start: Floats | None = None, *, l2: float = 0.0, l1: float = 0.0) -> Floats:
    """scikit-learn's answer to the same loss, from zeros or from `start`."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    strength = l1 + l2
    model = LogisticRegression(
        C=1 / (strength * len(y)) if strength else np.inf,
        l1_ratio=1.0 if l1 else 0.0,
        solver="saga" if l1 else "lbfgs",
        tol=1e-9,
        max_iter=2000,
        warm_start=start is not None,
        random_state=0,
    )
    if start is not None:
        model.coef_, model.intercept_, model.classes_ = start[None, 1:].copy(), start[:1].copy(), np.array([0.0, 1.0])
    model.fit(x[:, 1:], y)
    return np.concatenate([model.intercept_, model.coef_[0]])
