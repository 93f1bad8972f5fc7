"""L-BFGS: SciPy's, around an engine's ``loss_and_grad``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import scipy.optimize
from sklearn.utils.fixes import parse_version, sp_version

from fastmlp.data.warned import of_library
from fastmlp.engines.backends import Data
from fastmlp.model.network import Network
from fastmlp.sklearn_compat import _check_optimize_result
from fastmlp.training import standardized, weightless
from fastmlp.training.diagnosis import has_own_formulas, report


def train_lbfgs(estimator: Any, engine: ModuleType, network: Network, params: np.ndarray, data: Data) -> np.ndarray:
    """Train on all rows at once by SciPy's L-BFGS-B; return the solution (n_params,).

    SciPy works in float64, so `network` has float64 for any dtype of X. A ValueError says that a formula of the user's
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
    """Return the solution (n_params,); `params` are the latest weights that were looked at."""
    workspace = engine.workspace(network, data.X.shape[0], estimator.n_jobs)
    watched = has_own_formulas(network)
    finite, wrong = params.copy() if watched else None, None  # the last good weights, and the first bad ones after them

    grad = np.empty_like(params)

    # SciPy asks for the loss and then for the gradient at the same x; its own bookkeeping for a function that returns
    # both compares x with the x before, which takes longer than the loss of a small net.
    def loss(x: np.ndarray) -> float:
        nonlocal finite, wrong
        params[...] = x  # what the estimator keeps should the user interrupt
        value = engine.loss_and_grad(workspace, params, data, estimator.alpha, grad)
        if watched:
            if np.isfinite(value) and np.isfinite(grad).all():
                finite, wrong = x.copy(), None
            elif wrong is None:
                wrong = x.copy()
        return value

    def gradient(x: np.ndarray) -> np.ndarray:
        return grad.copy()

    options: dict[str, Any] = {"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol}
    if sp_version < parse_version("1.15"):
        # later versions of SciPy no longer print
        options["iprint"] = 1 if estimator.verbose is True or estimator.verbose >= 1 else -1
    result = scipy.optimize.minimize(loss, params.copy(), method="L-BFGS-B", jac=gradient, options=options)
    estimator.loss_ = result.fun
    if wrong is not None and not (np.isfinite(result.fun) and np.isfinite(result.jac).all()):
        params[...] = finite
        raise report(network, wrong, data, f"iteration {result.nit + 1}", "of the last finite loss")
    estimator.n_iter_ = of_library(_check_optimize_result, "lbfgs", result, estimator.max_iter)
    return result.x
