"""L-BFGS around an engine's ``loss_and_grad``: SciPy's iterates, compiled where the Cython engine is.

An installation without the compiled engine calls SciPy, whose Python takes longer than the loss of a small net.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import scipy.optimize

from fastmlp.data.warned import of_library
from fastmlp.engines.backends import Data
from fastmlp.kernels import interrupts
from fastmlp.model.network import Network
from fastmlp.sklearn_compat import _check_optimize_result
from fastmlp.training import standardized, weightless
from fastmlp.training.diagnosis import has_own_formulas, report
from fastmlp.training.factors import frozen_pieces

compiled_minimize: Callable[..., tuple[float, int, int, str]] | None
try:
    from fastmlp.kernels._engine import minimize as compiled_minimize
except ImportError:
    compiled_minimize = None

#: Vectors of float64 that a fit takes in all: ten pairs, work space, copies of SciPy's, the engine's own.
VECTORS = 42 if compiled_minimize is None else 29


def train_lbfgs(estimator: Any, engine: ModuleType, network: Network, params: np.ndarray, data: Data) -> np.ndarray:
    """Train on all rows at once by L-BFGS; return the solution (n_params,), which is `params`.

    L-BFGS works in float64, so `network` has float64 for any dtype of X. A ValueError says that a formula of the user's
    own left the finite numbers; `params` are then the last finite ones.
    """
    vars(estimator).pop("stopped_by_", None)  # of epochs before a warm start
    if data.sample_weight is not None and data.sample_weight.sum() == 0:
        raise ValueError(weightless.CANCEL.format("all rows"))
    units = standardized.begin(estimator, network, params, data)
    if units is None:
        return _minimize(estimator, engine, network, params, data)
    try:
        units.params[...] = _minimize(estimator, engine, network, units.params, units.data(data))
    finally:
        standardized.end(estimator, network, units, params)
    return params


def _minimize(estimator: Any, engine: ModuleType, network: Network, params: np.ndarray, data: Data) -> np.ndarray:
    """Return the solution (n_params,) in `params`, which hold the latest weights that were looked at."""
    workspace = engine.workspace(network, data.X.shape[0], estimator.n_jobs)
    grad = np.empty_like(params)
    frozen = frozen_pieces(estimator._segment_factors(network), network)

    def loss() -> float:
        interrupts.check()  # engines look after half a giga-operation: many evaluations of a small network
        value = engine.loss_and_grad(workspace, params, data, estimator.alpha, grad)
        for piece in frozen:
            grad[piece] = 0.0  # so no step and no pair of the approximation has anything there
        return value

    watch = _Watch(params, grad) if has_own_formulas(network) else None
    result = minimize(
        loss if watch is None else watch.watched(loss),
        params,
        grad,
        estimator.tol,
        estimator.max_iter,
        estimator.max_fun,
    )
    estimator.loss_ = result.fun
    if watch is not None and watch.wrong is not None and not watch.is_finite(result.fun):
        params[...] = watch.finite
        raise report(network, watch.wrong, data, f"iteration {result.nit + 1}", "of the last finite loss")
    estimator.n_iter_ = of_library(_check_optimize_result, "lbfgs", result, estimator.max_iter)
    return params


class _Watch:
    """The last good weights, and the first bad ones after them, of a network whose formulas may leave the finite."""

    def __init__(self, params: np.ndarray, grad: np.ndarray) -> None:
        self.params, self.grad = params, grad
        self.finite = params.copy()
        self.wrong: np.ndarray | None = None

    def is_finite(self, loss: float) -> bool:
        """Return whether this loss and the present gradient are finite."""
        return bool(np.isfinite(loss)) and bool(np.isfinite(self.grad).all())

    def watched(self, loss: Callable[[], float]) -> Callable[[], float]:
        """Return `loss`, after which the present weights are noted."""

        def watched_loss() -> float:
            value = loss()
            if self.is_finite(value):
                self.finite, self.wrong = self.params.copy(), None
            elif self.wrong is None:
                self.wrong = self.params.copy()
            return value

        return watched_loss


def minimize(
    evaluate: Callable[[], float], x: np.ndarray, grad: np.ndarray, tol: float, max_iter: int, max_fun: int
) -> scipy.optimize.OptimizeResult:
    """Minimise a function by L-BFGS; the result has SciPy's words and numbers.

    Parameters
    ----------
    evaluate : callable
        Takes nothing; returns the value at the present `x`, and writes the gradient there into `grad`.
    x : ndarray of float64 of shape (n,)
        Where to begin; in the end the solution.
    grad : ndarray of float64 of shape (n,)
    tol : float
        No component of the gradient is larger at a minimum.
    max_iter, max_fun : int
        Most iterations; evaluations after which no iteration begins.
    """
    if compiled_minimize is None:
        return _scipys(evaluate, x, grad, tol, max_iter, max_fun)
    value, n_iter, n_evaluations, message = compiled_minimize(evaluate, x, grad, tol, max_iter, max_fun)
    ended = n_iter >= max_iter or n_evaluations > max_fun
    status = 0 if message.startswith("CONVERGENCE") else 1 if ended else 2
    return scipy.optimize.OptimizeResult(
        fun=value, jac=grad, nit=n_iter, nfev=n_evaluations, status=status, message=message, x=x
    )


def _scipys(
    evaluate: Callable[[], float], x: np.ndarray, grad: np.ndarray, tol: float, max_iter: int, max_fun: int
) -> scipy.optimize.OptimizeResult:
    # SciPy asks for the value and then for the gradient at the same point; its own bookkeeping for a function that
    # returns both compares the point with the one before, which takes longer than the loss of a small net.
    def value_at(point: np.ndarray) -> float:
        x[...] = point
        return evaluate()

    def gradient(point: np.ndarray) -> np.ndarray:
        return grad.copy()

    options = {"maxfun": max_fun, "maxiter": max_iter, "gtol": tol}
    result = scipy.optimize.minimize(value_at, x.copy(), method="L-BFGS-B", jac=gradient, options=options)
    x[...], grad[...] = result.x, result.jac
    return result
