"""Training: epochs, batches, validation and early stopping around an engine's ``train_epoch``, and L-BFGS around its
``loss_and_grad``.

Here the trajectory is made the same as scikit-learn's: the order of random draws, the stopping rules, the texts.
The *record* is the estimator: these functions read its parameters and write its fitted attributes (``loss_curve_``,
``n_iter_``, ...), which live on from one ``partial_fit`` or warm start to the next.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import scipy.optimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils.fixes import parse_version, sp_version
from sklearn.utils.optimize import _check_optimize_result

from fastmlp.backends import Data
from fastmlp.network import Network


def train_stochastic(
    record: Any,
    engine: ModuleType,
    network: Network,
    params: np.ndarray,
    data: Data,
    rows: np.ndarray | None = None,
    score: Callable[[], float] | None = None,
    single_epoch: bool = False,
) -> None:
    """Mini-batch training until a stopping rule holds; params are updated in place.

    Parameters
    ----------
    record : estimator
        Read for parameters, written with fitted attributes; ``record._optimizer`` holds the optimizer.
    engine : module
        A backend.
    network : Network
    params : ndarray of shape (n_params,)
    data : Data
    rows : ndarray of intp, optional
        The rows of `data` to train on; all if left out.
    score : callable, optional
        Validation score of the present params; early stopping if given.
    single_epoch : bool
        For partial_fit.
    """
    order = np.arange(data.X.shape[0], dtype=np.intp) if rows is None else rows.copy()
    n_samples = len(order)
    batch_size = _batch_size(record.batch_size, n_samples)
    workspace = engine.workspace(network, batch_size, record.n_jobs)
    optimizer = record._optimizer
    try:
        record.n_iter_ = 0
        for _ in range(record.max_iter):
            if record.shuffle:
                # sklearn.utils.shuffle shuffles indices and takes the order before by them: the same swaps
                engine.shuffle(order, record._random_state)
            loss = engine.train_epoch(workspace, params, data, order, batch_size, record.alpha, optimizer)
            _record_epoch(record, loss, n_samples)
            if score is None:
                _watch_loss(record)
            else:
                _watch_score(record, score(), params)
            optimizer.after_epoch(record.t_)
            if record._no_improvement_count > record.n_iter_no_change:
                if _stops_on_plateau(record, early_stopping=score is not None):
                    break
                record._no_improvement_count = 0
            if single_epoch:
                break
            if record.n_iter_ == record.max_iter:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({record.max_iter:d}) "
                    "reached and the optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=2,
                )
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=2)
    if score is not None:
        params[...] = record._best_params
        # as in scikit-learn, a warm start trains on the very vector it calls the best so far
        record._best_params = params


def _batch_size(batch_size: int | str, n_samples: int) -> int:
    if batch_size == "auto":
        return min(200, n_samples)
    if int(batch_size) > n_samples:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=3
        )
    return int(np.clip(batch_size, 1, n_samples))


def _record_epoch(record: Any, loss: float, n_samples: int) -> None:
    record.n_iter_ += 1
    record.loss_ = loss
    record.t_ += n_samples
    record.loss_curve_.append(loss)
    if record.verbose:
        print(f"Iteration {record.n_iter_}, loss = {loss:.8f}")


def _watch_loss(record: Any) -> None:
    """Count epochs in which the training loss did not fall by more than tol."""
    loss = record.loss_curve_[-1]
    record._no_improvement_count = record._no_improvement_count + 1 if loss > record.best_loss_ - record.tol else 0
    if loss < record.best_loss_:
        record.best_loss_ = loss


def _watch_score(record: Any, score: float, params: np.ndarray) -> None:
    """Count epochs in which the validation score did not rise by tol; remember the best parameters."""
    record.validation_scores_.append(score)
    if record.verbose:
        print(f"Validation score: {score:f}")
    # scikit-learn's comparisons as they stand: a NaN score neither counts nor becomes the best
    falls_short = score < record.best_validation_score_ + record.tol
    record._no_improvement_count = record._no_improvement_count + 1 if falls_short else 0
    if score > record.best_validation_score_:
        record.best_validation_score_ = score
        record._best_params = params.copy()


def _stops_on_plateau(record: Any, early_stopping: bool) -> bool:
    what = "Validation score" if early_stopping else "Training loss"
    stop, text = record._optimizer.on_plateau()
    if record.verbose:
        print(
            f"{what} did not improve more than tol={record.tol:f} for "
            f"{record.n_iter_no_change:d} consecutive epochs.{text}"
        )
    return stop


def validation_split(
    n_samples: int, fraction: float, rng: np.random.RandomState, stratify: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(train, validation) row indices: scikit-learn's split, without copying any row.

    Raises
    ------
    ValueError
        If fewer than two rows would be left for validation.
    """
    train, validation = train_test_split(
        np.arange(n_samples, dtype=np.intp), random_state=rng, test_size=fraction, stratify=stratify
    )
    if len(validation) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    return train, validation


def train_lbfgs(record: Any, engine: ModuleType, network: Network, params: np.ndarray, data: Data) -> np.ndarray:
    """Full-batch training by SciPy's L-BFGS-B; returns the solution (n_params,).

    SciPy works in float64, so `network` is a float64 one whatever the dtype of X.
    """
    workspace = engine.workspace(network, data.X.shape[0], record.n_jobs)

    grad = np.empty_like(params)

    # SciPy asks for the loss and then for the gradient at the same x; its own bookkeeping for a function that returns
    # both compares x with the x before, which takes longer than the loss of a small net.
    def loss(x: np.ndarray) -> float:
        params[...] = x  # what the estimator keeps should the user interrupt
        return engine.loss_and_grad(workspace, params, data, record.alpha, grad)

    def gradient(x: np.ndarray) -> np.ndarray:
        return grad.copy()

    options: dict[str, Any] = {"maxfun": record.max_fun, "maxiter": record.max_iter, "gtol": record.tol}
    if sp_version < parse_version("1.15"):
        # later versions of SciPy no longer print
        options["iprint"] = 1 if record.verbose is True or record.verbose >= 1 else -1
    result = scipy.optimize.minimize(loss, params.copy(), method="L-BFGS-B", jac=gradient, options=options)
    record.n_iter_ = _check_optimize_result("lbfgs", result, record.max_iter)
    record.loss_ = result.fun
    return result.x
