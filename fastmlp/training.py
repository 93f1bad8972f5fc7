"""Training: epochs, batches, validation and early stopping around an engine's ``train_epoch``, and L-BFGS around its
``loss_and_grad``.

Here the trajectory is made the same as scikit-learn's: the order of random draws, the stopping rules, the texts.
The *record* is the estimator: these functions read its parameters and write its fitted attributes (``loss_curve_``,
``n_iter_``, ...), which live on from one ``partial_fit`` or warm start to the next.

An epoch: shuffle -> engine.train_epoch -> record -> validate -> schedule -> stop on a plateau? -> callbacks.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import scipy.optimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.fixes import parse_version, sp_version
from sklearn.utils.optimize import _check_optimize_result

from fastmlp import snapshots
from fastmlp.backends import Data
from fastmlp.diagnosis import Guard, has_own_formulas, report
from fastmlp.monitoring import Validation, new_history
from fastmlp.network import Network
from fastmlp.optimizers import make_optimizer
from fastmlp.parameters import check_batches
from fastmlp.schedules import Schedule


class Run:
    """One stochastic training: what each epoch needs.

    Parameters
    ----------
    record : estimator
        Read for parameters, written with fitted attributes; ``record._optimizer`` holds the optimizer.
    engine : module
        A backend.
    network : Network
    params : ndarray of shape (n_params,)
        Trained in place.
    data : Data
    rows : ndarray of intp, optional
        The rows of `data` to train on; all if left out.
    validation : Validation, optional
    keep_optimizer : bool
        Go on with the record's optimizer and dropout masks, if it has them (partial_fit).

    Attributes
    ----------
    order : ndarray of intp
        All rows to train on, shuffled in place.
    visited : ndarray of intp
        The part of it, a view, that an epoch visits: all but what drop_last drops.
    finished : bool
        A stopping rule holds.
    """

    def __init__(
        self,
        record: Any,
        engine: ModuleType,
        network: Network,
        params: np.ndarray,
        data: Data,
        rows: np.ndarray | None = None,
        validation: Validation | None = None,
        keep_optimizer: bool = False,
    ) -> None:
        self.record, self.engine, self.network, self.params, self.data = record, engine, network, params, data
        self.validation = validation
        self.order = np.arange(data.X.shape[0], dtype=np.intp) if rows is None else rows.copy()
        self.batch_size = _batch_size(record.batch_size, len(self.order))
        self.visited = self.order[: check_batches(record, len(self.order))]
        self.workspace = engine.workspace(network, self.batch_size, record.n_jobs)
        self.finished = False
        self._take_optimizer(keep_optimizer)
        self._prepare_record()
        self.guard = Guard(self) if has_own_formulas(network) else None

    def _take_optimizer(self, keep: bool) -> None:
        """Make an optimizer and draw the key of dropout masks, or keep those of the record."""
        record, network = self.record, self.network
        old = record.__dict__.get("_optimizer") if keep else None
        if old is None or any(state.shape != self.params.shape for state in old.states):
            n_steps = -(-len(self.visited) // self.batch_size)
            record._optimizer = make_optimizer(record.solver, network, vars(record), n_steps, record.max_iter)
            record._dropout_seed = None
        if record.__dict__.get("_dropout_seed") is None:
            record._dropout_seed = _dropout_seed(network, record)
        self.optimizer = record._optimizer
        schedule = self.optimizer.schedule
        self._constant_rate = schedule.initial if type(schedule) is Schedule else None
        self.alpha = record.alpha * (1 - record.l1_ratio)
        # only what is in use: the usual call stays as short as it was
        options = {"l1": record.alpha * record.l1_ratio or None, "seed": record._dropout_seed}
        self.options = {name: value for name, value in options.items() if value is not None}

    def _prepare_record(self) -> None:
        """The attributes that epochs write to, where a fit before, or a user who set weights, has left them out."""
        record = self.record
        record.n_iter_ = 0
        record.__dict__.setdefault("history_", new_history())
        if not self.watches_validation and record.__dict__.get("best_loss_", np.inf) is None:
            record.best_loss_ = np.inf
        if self.validation is None:
            return
        record.__dict__.setdefault("validation_loss_curve_", [])
        record.__dict__.setdefault("_best_params", self.params)
        if getattr(record, "validation_scores_", None) is None:
            record.validation_scores_, record.best_validation_score_ = [], -np.inf
        monitored = "loss" if record.monitor == "loss" else "score"
        if record.__dict__.get("_monitored", monitored) != monitored:
            record._best_monitored = -np.inf  # a loss and a score cannot be compared
        record.__dict__.setdefault("_best_monitored", -np.inf)
        record._monitored = monitored

    @property
    def watches_validation(self) -> bool:
        """Whether validation rows, not the training loss, decide when to stop."""
        return self.validation is not None and self.record.early_stopping

    @property
    def keeps_best(self) -> bool:
        """Whether the best weights on the validation rows are kept."""
        wanted = self.record.restore_best
        return self.watches_validation if wanted is None else self.validation is not None and wanted

    # --- one epoch -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """From here on epochs are new ones."""
        record = self.record
        self._visit_all = self.steps(self.visited)
        self._n_losses = len(record.loss_curve_)
        self._n_validations = 0 if self.validation is None else len(record.validation_loss_curve_)
        self._ends = [time.perf_counter()]
        self._rates: list[float] = []

    def epoch(self) -> None:
        """Train for an epoch and note how it went; on tiny data that must cost next to nothing."""
        record = self.record
        if record.shuffle:
            # sklearn.utils.shuffle shuffles indices and takes the order before by them: the same swaps
            self.engine.shuffle(self.order, record._random_state)
        loss = self._visit_all()
        if self.guard is not None:
            self.guard.after_epoch(loss)
        if self._constant_rate is None:
            self._rates.append(self.optimizer.scheduled_rate)
        _record_epoch(record, loss, len(self.visited))
        if self.validation is None:
            _watch_loss(record)
            self.optimizer.after_score(loss)
        else:
            self._validate(*self.validation())
        self.optimizer.after_epoch(record.t_)
        self._ends.append(time.perf_counter())

    def steps(self, rows: np.ndarray) -> Callable[[], float]:
        """What trains on these rows, batch by batch, and returns their mean loss."""
        args = self.workspace, self.params, self.data, rows, self.batch_size, self.alpha, self.optimizer
        return partial(self.engine.train_epoch, *args, **self.options)

    def _validate(self, loss: float, score: float) -> None:
        """What validation rows decide: count epochs without improvement, and keep the best weights."""
        record = self.record
        _record_validation(record, loss, score)
        by_loss = record.monitor == "loss"
        value, best = -loss if by_loss else score, record._best_monitored
        if value > best:
            record._best_monitored, record.best_validation_score_ = value, score
            if self.keeps_best:
                record._best_params = self.params.copy()
        if record.early_stopping:
            # scikit-learn's comparison as it stands: a NaN score neither counts nor becomes the best
            falls_short = value < best + record.tol
            record._no_improvement_count = record._no_improvement_count + 1 if falls_short else 0
        else:
            _watch_loss(record)
        self.optimizer.after_score(loss if by_loss else score, higher_is_better=not by_loss)

    def judge(self) -> bool:
        """Whether training has gone without improvement for so long that it ends."""
        record = self.record
        if record._no_improvement_count > record.n_iter_no_change:
            self.finished, text = self.optimizer.on_plateau()
            if record.verbose:
                what = "Training loss"
                if self.watches_validation:
                    what = "Validation loss" if record.monitor == "loss" else "Validation score"
                print(
                    f"{what} did not improve more than tol={record.tol:f} for "
                    f"{record.n_iter_no_change:d} consecutive epochs.{text}"
                )
            if not self.finished:
                record._no_improvement_count = 0
        return self.finished

    # --- history -------------------------------------------------------------------------------------------------

    def write_history(self) -> None:
        """Append the new epochs to ``history_``."""
        record, n = self.record, len(self._ends) - 1
        new = {
            "loss": record.loss_curve_[self._n_losses :][:n],
            "validation_loss": [np.nan] * n,
            "score": [np.nan] * n,
            "learning_rate": [self._constant_rate] * n if self._constant_rate is not None else self._rates[:n],
            "seconds": np.diff(self._ends).tolist(),
        }
        if self.validation is not None:
            new["validation_loss"] = record.validation_loss_curve_[self._n_validations :][:n]
            new["score"] = record.validation_scores_[-len(record.validation_loss_curve_) :][self._n_validations :][:n]
        for name, column in new.items():
            record.history_[name].extend(column)
        self._n_losses += n
        self._n_validations += n
        self._ends = self._ends[-1:]
        self._rates = []

    def info(self) -> Any:
        """What callbacks are told about the latest epoch."""
        from fastmlp.callbacks import EpochInfo  # only those who have callbacks pay for the import

        self.write_history()
        latest = {name: column[-1] for name, column in self.record.history_.items()}
        if self.validation is None:
            latest["validation_loss"] = latest["score"] = None
        return EpochInfo(
            epoch=self.record.n_iter_,
            max_iter=self.record.max_iter,
            estimator=self.record,
            snapshot=lambda: snapshots.take(self),
            **latest,
        )


def train_stochastic(
    run: Run,
    callbacks: Sequence[Callable[[Any], Any]] = (),
    snapshot: Mapping[str, Any] | None = None,
    single_epoch: bool = False,
) -> None:
    """Mini-batch training until a stopping rule holds or a callback asks to stop; the run's params change in place.

    Parameters
    ----------
    run : Run
    callbacks : sequence of callable
    snapshot : mapping, optional
        Of a training to resume.
    single_epoch : bool
        For partial_fit.
    """
    if snapshot is not None:
        snapshots.restore(run, snapshot)
    run.begin()
    try:
        if callbacks:
            from fastmlp.callbacks import watching

            with watching(callbacks, run.record) as after_epoch:
                _train(run, after_epoch, single_epoch)
        else:
            _train(run, None, single_epoch)
    finally:
        run.write_history()
    if run.keeps_best:
        run.params[...] = run.record._best_params
        # as in scikit-learn, a warm start trains on the very vector it calls the best so far
        run.record._best_params = run.params


def _train(run: Run, after_epoch: Callable[[Any], bool] | None, single_epoch: bool) -> None:
    record = run.record
    try:
        while record.n_iter_ < record.max_iter and not run.finished:
            run.epoch()
            stop = run.judge()
            if after_epoch is not None:
                stop = after_epoch(run.info()) or stop
            if stop or single_epoch:
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


def _batch_size(batch_size: int | str, n_samples: int) -> int:
    if batch_size == "auto":
        return min(200, n_samples)
    if int(batch_size) > n_samples:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=4
        )
    return int(np.clip(batch_size, 1, n_samples))


def _dropout_seed(network: Network, record: Any) -> int | None:
    """Key of the dropout masks, in [0, 2^64); None without dropout, for which nothing is drawn."""
    if not (network.dropout or network.input_dropout):
        return None
    drawn = int.from_bytes(record._random_state.bytes(8), "little")
    # a warm start may draw the same number again: the rows seen so far tell it from the fit before
    return (drawn + record.t_) % 2**64


def _record_epoch(record: Any, loss: float, n_samples: int) -> None:
    record.n_iter_ += 1
    record.loss_ = loss
    record.t_ += n_samples
    record.loss_curve_.append(loss)
    if record.verbose:
        print(f"Iteration {record.n_iter_}, loss = {loss:.8f}")


def _record_validation(record: Any, loss: float, score: float) -> None:
    record.validation_loss_curve_.append(loss)
    record.validation_scores_.append(score)
    if record.verbose:
        print(f"Validation loss: {loss:f}" if record.monitor == "loss" else f"Validation score: {score:f}")


def _watch_loss(record: Any) -> None:
    """Count epochs in which the training loss did not fall by more than tol."""
    loss = record.loss_curve_[-1]
    record._no_improvement_count = record._no_improvement_count + 1 if loss > record.best_loss_ - record.tol else 0
    if loss < record.best_loss_:
        record.best_loss_ = loss


# --- L-BFGS ----------------------------------------------------------------------------------------------------------


def train_lbfgs(record: Any, engine: ModuleType, network: Network, params: np.ndarray, data: Data) -> np.ndarray:
    """Full-batch training by SciPy's L-BFGS-B; returns the solution (n_params,).

    SciPy works in float64, so `network` is a float64 one whatever the dtype of X.

    Raises
    ------
    ValueError
        If a formula of the user's own left the finite numbers; `params` are then the last finite ones.
    """
    workspace = engine.workspace(network, data.X.shape[0], record.n_jobs)
    watched = has_own_formulas(network)
    finite, wrong = params.copy() if watched else None, None  # the last good weights, and the first bad ones after them

    grad = np.empty_like(params)

    # SciPy asks for the loss and then for the gradient at the same x; its own bookkeeping for a function that returns
    # both compares x with the x before, which takes longer than the loss of a small net.
    def loss(x: np.ndarray) -> float:
        nonlocal finite, wrong
        params[...] = x  # what the estimator keeps should the user interrupt
        value = engine.loss_and_grad(workspace, params, data, record.alpha, grad)
        if watched:
            if np.isfinite(value) and np.isfinite(grad).all():
                finite, wrong = x.copy(), None
            elif wrong is None:
                wrong = x.copy()
        return value

    def gradient(x: np.ndarray) -> np.ndarray:
        return grad.copy()

    options: dict[str, Any] = {"maxfun": record.max_fun, "maxiter": record.max_iter, "gtol": record.tol}
    if sp_version < parse_version("1.15"):
        # later versions of SciPy no longer print
        options["iprint"] = 1 if record.verbose is True or record.verbose >= 1 else -1
    result = scipy.optimize.minimize(loss, params.copy(), method="L-BFGS-B", jac=gradient, options=options)
    record.loss_ = result.fun
    if wrong is not None and not (np.isfinite(result.fun) and np.isfinite(result.jac).all()):
        params[...] = finite
        raise report(network, wrong, data, f"iteration {result.nit + 1}", "of the last finite loss")
    record.n_iter_ = _check_optimize_result("lbfgs", result, record.max_iter)
    return result.x
