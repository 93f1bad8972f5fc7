"""What MLPClassifier and MLPRegressor share: the road from data to fitted weights, and back to predictions.

``fit`` in one screen: validate -> what to train for -> Network -> targets -> initial flat params (or those behind
coefs_) -> train -> expose views.  Whatever does not fit on that screen lives in targets.py, network.py, weights.py,
monitoring.py, training.py, prediction.py, backends.py; there are no numerics here.
"""

from __future__ import annotations

import inspect
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils._param_validation import validate_parameter_constraints
from sklearn.utils.validation import _check_sample_weight, _check_y, check_is_fitted, validate_data

from fastmlp import backends, checkpoint, device_arrays, targets, weights
from fastmlp.backends import Data
from fastmlp.initialization import initial_params
from fastmlp.model_methods import ModelMethods
from fastmlp.monitoring import Validation, given_validation, new_history, validation_split
from fastmlp.network import Network
from fastmlp.parameters import CONSTRAINTS, activations_of, check_batches, check_lbfgs, check_monitor, dropout_rates
from fastmlp.prediction import Prediction, engine_rows
from fastmlp.sklearn_callbacks import CallbackSupportMixin, fit_task
from fastmlp.targets import Objective
from fastmlp.training import Run, train_lbfgs, train_stochastic

backends.get("auto")  # imported with the estimators, so that the first fit is not slower than the next


Method = TypeVar("Method", bound=Callable)


def fit_context(method: Method) -> Method:
    """scikit-learn's decorator of fit and partial_fit, which by itself hides their signatures from type checkers."""
    return _fit_context(prefer_skip_nested_validation=True)(method)


@dataclass(frozen=True)
class Extras:
    """What a fit may bring besides X, y and sample_weight."""

    validation: tuple[Any, Any, Any] | None = None  # X, y, sample_weight
    start: tuple[Any, ...] = ()  # coef_init, intercept_init; () if neither is given
    resume_from: Any = None
    callbacks: Sequence[Callable[[Any], Any]] = ()
    incremental: bool = False  # one more epoch: partial_fit


class _BaseMLP(ModelMethods, CallbackSupportMixin, BaseEstimator, metaclass=ABCMeta):
    """Fit and the forward pass of both estimators."""

    _parameter_constraints: ClassVar[dict] = CONSTRAINTS
    #: Whether targets are numbers.
    _numeric_targets: ClassVar[bool]

    # parameters that are read here
    hidden_layer_sizes: Any
    activation: Any
    solver: str
    max_iter: int
    random_state: Any
    warm_start: bool
    early_stopping: bool
    validation_fraction: float
    backend: str
    n_jobs: int | None
    batch_norm: bool
    init: Any
    callbacks: Any

    def _store(self, arguments: dict[str, Any]) -> None:
        """Keep the constructor's arguments under their names, untouched, as scikit-learn wants it."""
        for name in arguments.keys() - {"self"}:
            setattr(self, name, arguments[name])

    def _validate_params(self) -> None:
        # a default is valid: most parameters have theirs, and judging them all takes as long as some epochs
        given = {name: getattr(self, name) for name in _defaults(type(self))}
        given = {name: value for name, value in given.items() if value is not _defaults(type(self))[name]}
        validate_parameter_constraints(self._parameter_constraints, given, caller_name=type(self).__name__)

    # --- what a task defines ---------------------------------------------------------------------------------------

    @abstractmethod
    def _learn_targets(self, y: np.ndarray, incremental: bool) -> None:
        """Learn the classes of y, or check them against those learned before."""

    @abstractmethod
    def _check_validation_targets(self, y: np.ndarray, y_val: np.ndarray) -> None:
        """Refuse y_val of another kind than y."""

    @abstractmethod
    def _weigh(self, y: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray | None:
        """Sample weights with class weights multiplied in."""

    @abstractmethod
    def _objective(self, y: np.ndarray) -> Objective:
        """What a network is trained for on y."""

    @abstractmethod
    def _encode(self, y: np.ndarray, dtype: np.dtype, objective: Objective) -> np.ndarray:
        """Training targets."""

    @abstractmethod
    def _decode(self, output: np.ndarray) -> np.ndarray:
        """Predictions from outputs (n, n_outputs)."""

    @abstractmethod
    def _score(self, output: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None) -> float:
        """Validation score from outputs (n, n_outputs)."""

    @abstractmethod
    def _stratify(self, y: np.ndarray) -> np.ndarray | None:
        """What the validation split is stratified by."""

    # --- fitting ---------------------------------------------------------------------------------------------------

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        eval_set: Any = None,
        coef_init: Any = None,
        intercept_init: Any = None,
        resume_from: Any = None,
    ) -> Self:
        """Fit the network to X and y.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training rows; float32 and float64 are used as they are, in any memory layout. With ``backend="cuda"`` also
            an array on the GPU (of CuPy, PyTorch, JAX or Numba), C-contiguous, which is read where it lies.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, label indicators, or values to regress on.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the loss.
        X_val : {array-like, sparse matrix} of shape (n_val, n_features), default=None
            Rows to validate on after each epoch, which early stopping watches instead of holding out rows of X. In a
            :class:`~sklearn.pipeline.Pipeline` with ``transform_input=["X_val"]`` they are transformed as X is.
        y_val : array-like of shape (n_val,) or (n_val, n_outputs), default=None
            Their targets.
        sample_weight_val : array-like of shape (n_val,), default=None
            Their weights.
        eval_set : list of one tuple (X, y), default=None
            Another way to give `X_val` and `y_val`.
        coef_init : list of array-like of shape (fan_in, fan_out), default=None
            Weights of each layer to start from.
        intercept_init : list of array-like of shape (fan_out,), default=None
            Biases of each layer to start from.
        resume_from : str or path-like, default=None
            File of a :class:`fastmlp.callbacks.Checkpoint`: go on with the fit that wrote it, on the same data and with
            the same parameters, to the weights that it would have come to, bit for bit.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            For invalid data or parameters, an unknown backend, or weights that diverged.
        MemoryError
            If the layer sizes cannot fit this machine.
        """
        validation = given_validation(X_val, y_val, sample_weight_val, eval_set)
        start = () if coef_init is None and intercept_init is None else (coef_init, intercept_init)
        max_epochs = 0 if self.solver == "lbfgs" else self.max_iter
        with fit_task(self, X, y, sample_weight, max_epochs=max_epochs) as reporters:
            callbacks = (*(self.callbacks or ()), *reporters)
            return self._fit(X, y, sample_weight, Extras(validation, start, resume_from, callbacks))

    def _fit(self, X: Any, y: Any, sample_weight: Any, extras: Extras) -> Self:
        hidden = self._hidden_sizes()
        backends.get(self.backend)  # an unknown name is refused before anything else
        self._check_combinations(extras)
        first_pass = not hasattr(self, "coefs_") or (not self.warm_start and not extras.incremental)
        X, y = self._validate_input(X, y, reset=first_pass)
        self._learn_targets(y, extras.incremental)
        sample_weight = self._validate_weight(sample_weight, y)
        self._random_state = check_random_state(self.random_state)
        objective = self._objective(y)
        network = self._new_network(X, hidden, objective) if first_pass else self._network_to_go_on_with(objective)
        n_epochs = 1 if extras.incremental else self.max_iter
        engine = backends.get(self.backend, backends.work_of_fit(network, X.shape[0], n_epochs))
        data = self._data(X, y, self._weigh(y, sample_weight), network, objective)
        validation = self._validation_data(extras.validation, y, network, objective)
        snapshot = None if extras.resume_from is None else checkpoint.load(extras.resume_from)
        if extras.start:  # refused before anything changes
            weights.start_from(network, np.empty(network.n_params, network.dtype), *extras.start)
        if self.solver != "lbfgs" and (validation is not None or not self.early_stopping):
            check_batches(self, X.shape[0])  # what a split leaves is not known yet
        if first_pass:
            self._initialize(network, objective)
        if self.solver == "lbfgs":
            network = network.with_dtype(np.float64)
        self.n_outputs_ = network.widths[-1]
        params = weights.flat_params(self, network)
        if extras.start:
            weights.start_from(network, params, *extras.start)
            self._best_params = params.copy()
        self._expose(network, params)
        if self.solver == "lbfgs":
            self._expose(network, train_lbfgs(self, engine, network, params, data))
        else:
            run = self._run(engine, network, params, data, y, validation, extras.incremental)
            train_stochastic(run, extras.callbacks, snapshot, single_epoch=extras.incremental)
        self._check_finite()
        return self

    def _validate_input(self, X: Any, y: Any, reset: bool) -> tuple[Any, Any]:
        """Validated X and y, with scikit-learn's errors."""
        y = device_arrays.on_host(self, y, "y")
        checks = {"multi_output": True, "y_numeric": self._numeric_targets}
        if device_arrays.is_device_array(X):
            X, y = device_arrays.validated(self, X, reset), _check_y(y, **checks, estimator=self)
            check_consistent_length(X, y)
            device_arrays.check_finite(X)
        else:
            dtypes = (np.float64, np.float32)
            X, y = validate_data(self, X, y, accept_sparse=["csr", "csc"], dtype=dtypes, reset=reset, **checks)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y

    def _validate_weight(self, sample_weight: Any, y: np.ndarray) -> np.ndarray | None:
        """Validated weights of the rows that have these targets."""
        if sample_weight is None:
            return None
        # y stands for X, which may be where scikit-learn cannot look
        return _check_sample_weight(device_arrays.on_host(self, sample_weight, "sample_weight"), y)

    def _run(
        self,
        engine: Any,
        network: Network,
        params: np.ndarray,
        data: Data,
        y: np.ndarray,
        given: tuple[Data, np.ndarray] | None,
        incremental: bool,
    ) -> Run:
        """The training to come, with validation rows if there are any: those given, or a share of the data."""
        rows = validation = None
        if given is not None:
            validation = Validation(self, engine, network, params, *given)
        elif self.early_stopping:
            if incremental:
                raise ValueError("partial_fit does not support early_stopping=True")
            rows, held_out = validation_split(
                data.X.shape[0], self.validation_fraction, self._random_state, self._stratify(y)
            )
            validation = Validation(self, engine, network, params, data, y, held_out)
        return Run(self, engine, network, params, data, rows, validation, keep_optimizer=incremental)

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if isinstance(sizes, Iterable) else [sizes]
        if np.any(np.array(sizes) <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return sizes

    def _check_combinations(self, extras: Extras) -> None:
        given = extras.validation is not None
        if self.solver == "lbfgs":
            check_lbfgs(self, validation=given, resumes=extras.resume_from is not None)
        elif not extras.incremental:
            check_monitor(self, has_validation=given or self.early_stopping)

    def _new_network(self, X: Any, hidden: list[int], objective: Objective) -> Network:
        widths = (X.shape[1], *(int(h) for h in hidden), objective.n_outputs)
        network = self._network(widths, objective.loss, np.dtype(X.dtype))
        # parameters, gradient and their best copy, or two optimizer states
        network.check_memory(n_vectors=3)
        return network

    def _network_to_go_on_with(self, objective: Objective) -> Network:
        """The network to train further, for warm starts and partial_fit."""
        widths, dtype = weights.linear_shape(self.coefs_, self.intercepts_)
        if objective.link != self.out_activation_:
            raise ValueError(
                f"the fitted network has the output activation {self.out_activation_!r}, the loss needs"
                f" {objective.link!r}: a loss cannot be exchanged for this one without a new fit"
            )
        if "bn_scales_" in vars(self) and not self.batch_norm:
            raise ValueError("batch_norm=False, but the fitted network has batch normalisation: it needs a new fit")
        return self._network(widths, objective.loss, dtype)

    def _network(self, widths: tuple[int, ...], loss: Any, dtype: np.dtype) -> Network:
        n_hidden = len(widths) - 2
        dropout, input_dropout = dropout_rates(self, n_hidden)
        activations = activations_of(self.activation, n_hidden)
        return Network(widths, activations, loss, dtype, dropout, input_dropout, bool(self.batch_norm))

    def _fitted_network(self) -> Network:
        """The network that the fitted arrays describe, whoever set them, as it predicts."""
        widths, dtype = weights.linear_shape(self.coefs_, self.intercepts_)
        activations = activations_of(self.activation, len(widths) - 2)
        loss = targets.LOSS_OF_LINK[self.out_activation_]
        return Network(widths, activations, loss, dtype, batch_norm="bn_scales_" in vars(self))

    def _data(
        self, X: Any, y: np.ndarray, sample_weight: np.ndarray | None, network: Network, objective: Objective
    ) -> Data:
        dtype = np.dtype(np.float64) if self.solver == "lbfgs" else network.dtype
        device_arrays.check_dtype(X, dtype, "solver='lbfgs' works in" if self.solver == "lbfgs" else "the weights are")
        weight = None if sample_weight is None else sample_weight.astype(dtype, copy=False)
        return Data(engine_rows(X), self._encode(y, dtype, objective), weight)

    def _validation_data(
        self, given: tuple[Any, Any, Any] | None, y: np.ndarray, network: Network, objective: Objective
    ) -> tuple[Data, np.ndarray] | None:
        """Validation rows as engines take them, and their targets as users see them."""
        if given is None:
            return None
        X_val, y_val, weight = given
        try:
            X_val, y_val = self._validate_input(X_val, y_val, reset=False)
            self._check_validation_targets(y, y_val)
            weight = self._weigh(y_val, self._validate_weight(weight, y_val))
            if weight is not None and not np.any(weight):
                raise ValueError("no row has a weight")
            return self._data(X_val, y_val, weight, network, objective), y_val
        except (TypeError, ValueError) as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"validation data: {error}") from error

    def _initialize(self, network: Network, objective: Objective) -> None:
        """Fitted attributes of a first fit, in scikit-learn's order of random draws."""
        self.out_activation_ = objective.link
        self.n_iter_ = 0
        self.t_ = 0
        self.n_layers_ = network.n_layers + 1
        logistic = network.activations == ("logistic",) * (network.n_layers - 1)
        gain = 2.0 if self.activation == "logistic" or (logistic and network.activations) else 6.0
        params = initial_params(network, self.init, self._random_state, gain)
        self._expose(network, params)
        self._best_params = params.copy() if self.early_stopping else params
        for name in ("validation_loss_curve_", "history_", "_best_monitored", "_dropout_seed"):
            self.__dict__.pop(name, None)
        if self.solver != "lbfgs":
            self.loss_curve_: list[float] = []
            self.history_ = new_history()
            self._no_improvement_count = 0
            self.validation_scores_: list[float] | None = [] if self.early_stopping else None
            self.best_validation_score_ = -np.inf if self.early_stopping else None
            self.best_loss_ = None if self.early_stopping else np.inf

    def _expose(self, network: Network, params: np.ndarray) -> None:
        weights.expose(self, network, params)
        self._idle_predictions: list[Prediction] = []

    def _check_finite(self) -> None:
        arrays = (*self.coefs_, *self.intercepts_, *weights.unit_arrays(self))
        if not all(np.isfinite(w).all() for w in arrays if w is not None):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be"
                " preprocessed."
            )

    # --- prediction ------------------------------------------------------------------------------------------------

    def _outputs_of(self, X: Any, in_kind: bool = False) -> Any:
        """Outputs (n, n_outputs) of the present weights for X as users give it.

        A NumPy array; with `in_kind`, X on a GPU and scikit-learn's array_api_dispatch, one of X's own library.
        """
        idle: list[Prediction] = self.__dict__.get("_idle_predictions", [])
        # out of the list while in use: a concurrent call makes its own
        prediction = idle.pop() if idle else None
        if prediction is None or not prediction.fits(self):
            check_is_fitted(self)
            prediction = Prediction(self)
        out = prediction(self, X) if prediction.takes(X) else None
        if out is None:
            out = self._outputs_of_any(prediction, X, in_kind)
        idle.append(prediction)
        return out

    def _outputs_of_any(self, prediction: Prediction, X: Any, in_kind: bool) -> Any:
        """Outputs for X that needs validation."""
        if device_arrays.is_device_array(X):
            return prediction.of_device_array(self, X, in_kind and device_arrays.in_kind())
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        dtype = np.result_type(X.dtype, prediction.network.dtype)
        dtype = dtype if dtype in (np.float32, np.float64) else np.dtype(np.float64)
        X = engine_rows(X if X.dtype in (np.float32, np.float64) else X.astype(dtype))
        if dtype != prediction.network.dtype:
            return prediction.in_dtype(self, X, dtype)
        return prediction.outputs(self, X)[0]

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_idle_predictions", None)
        if "coefs_" in state and state.get("_best_params") is self.coefs_[0].base:
            state.pop("_best_params", None)  # the very vector of the weights, which a copy would not be
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "coefs_" in state and "out_activation_" in state:
            # pickling has cut the views apart; parameters that make no sense any more are predict's to complain about
            with suppress(ValueError):
                network = self._fitted_network()
                self._expose(network, weights.flat_params(self, network))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


@lru_cache(maxsize=64)
def _defaults(cls: type) -> dict[str, Any]:
    """Default of each parameter of a constructor, by name, in the order in which scikit-learn validates them."""
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    return {name: parameters[name].default for name in cls._get_param_names()}  # type: ignore[attr-defined]
