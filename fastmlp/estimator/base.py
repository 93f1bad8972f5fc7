"""What MLPClassifier and MLPRegressor share: the way from data to fitted weights, and to predictions.

``fit`` goes in one direction, and each step is a call of one module::

    validate (inputs) -> encode (targets) -> Network (architecture) -> Data (inputs) -> first values (initialization,
    state) -> Task (training) -> epochs -> views (weights)

From the first values on, an ensemble does the same for each of its members (ensemble.py).  Estimators for tables
(tabular.py) have steps of their own where these have methods: they split the rows first, and code the columns.

An estimator keeps nothing private but ``_training``, a :class:`fastmlp.training.state.TrainingState`, the encoder of
its labels, and predictions for later use.  It contains no numerics.
"""

from __future__ import annotations

import inspect
import os
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from fastmlp.data import device_arrays, inputs
from fastmlp.data.shared_rows import SharedRows
from fastmlp.data.targets import Objective
from fastmlp.distributed.ranks import Ranks, fit_together
from fastmlp.engines import backends
from fastmlp.engines.backends import Data
from fastmlp.estimator import architecture, ensemble, flat_parameters, pickled, types
from fastmlp.estimator.mistakes import about_parameters, check_values, explained_call
from fastmlp.estimator.parameters import CONSTRAINTS, Parameters, check_lbfgs, check_monitor
from fastmlp.estimator.prediction import EnsemblePrediction, Prediction
from fastmlp.model import choices, weights
from fastmlp.model.network import Network
from fastmlp.model.tabular_initialization import Look
from fastmlp.sklearn_compat import _fit_context
from fastmlp.training import checkpoint, state, weightless
from fastmlp.training.callbacks import check_callbacks
from fastmlp.training.factors import Factors, freezing
from fastmlp.training.given_sets import given_validation
from fastmlp.training.many import Task
from fastmlp.training.metrics import Score
from fastmlp.training.optimizers import SOLVERS
from fastmlp.training.run import check_batches
from fastmlp.training.sklearn_callbacks import CallbackSupportMixin, fit_task
from fastmlp.training.validation import Split, evaluation_of

backends.get("auto")  # imported with the estimators, so the first fit is not slower than the next

Method = TypeVar("Method", bound=Callable)
#: The estimator that a method returns: editors know the class by a type variable, not by Self.
Fitted = TypeVar("Fitted", bound="BaseNetwork")


def fit_context(method: Method) -> Method:
    """Apply scikit-learn's decorator of fit, and let errors about its arguments name the estimator."""
    return explained_call(_fit_context(prefer_skip_nested_validation=True)(method))


@dataclass(frozen=True)
class Extras:
    """What a fit may bring besides X, y and sample_weight."""

    validation: Mapping[str, tuple[Any, Any, Any]] = field(default_factory=dict)  # name -> X, y, sample_weight
    start: tuple[Any, ...] = ()  # coef_init, intercept_init; () if neither is given
    resume_from: Any = None
    callbacks: Sequence[Callable[[Any], Any]] = ()
    incremental: bool = False  # one more epoch: partial_fit
    one_batch: bool = False  # one more step on all rows: train_on_batch
    anew: bool = False  # first weights, whatever there is: initialize
    communicator: Any = None  # of the processes that have rows, if there are several
    ranks: Ranks | None = None  # these processes, while they fit


#: The estimators by name: what a model file may name, and what scikit-learn has counterparts of.
ESTIMATORS: dict[str, type] = {}

Estimator = TypeVar("Estimator", bound=type)


def entered(cls: Estimator) -> Estimator:
    """Enter a class in ``ESTIMATORS``; its subclasses, which may fit or predict otherwise, are not entered."""
    ESTIMATORS[cls.__name__] = cls
    return cls


class BaseNetwork(CallbackSupportMixin, BaseEstimator, metaclass=ABCMeta):
    """Fit and the forward pass of all estimators."""

    _parameter_constraints: ClassVar[dict]
    #: Whether targets are numbers.
    _numeric_targets: ClassVar[bool]
    #: Whether `max_iter` epochs are a whole training, because the schedules end with them.
    _epochs_are_planned: ClassVar[bool] = False
    _training: state.TrainingState

    # parameters whose places and defaults differ
    hidden_layer_sizes: Any
    activation: Any
    loss: Any
    solver: types.Solver
    max_iter: int
    learning_rate_init: Any
    random_state: types.RandomState | None
    early_stopping: bool
    warm_start: bool
    backend: types.BackendName
    callbacks: types.Callbacks | None
    fit_intercept: bool
    frozen_layers: types.FrozenLayers
    n_cv: int

    # what a fit leaves, for type checkers
    coefs_: list[np.ndarray]
    intercepts_: list[np.ndarray]
    loss_: float
    best_loss_: float | None
    loss_curve_: list[float]
    validation_scores_: list[float] | None
    best_validation_score_: float | None
    validation_loss_curve_: list[float]
    history_: dict[str, list[float]]
    evals_result_: dict[str, dict[str, list[float]]]
    estimators_: list[Any]  # of ensembles
    oof_score_: float
    stopped_by_: str | None
    n_iter_: int
    t_: int
    n_layers_: int
    n_outputs_: int
    n_features_in_: int
    feature_names_in_: np.ndarray
    out_activation_: str
    classes_: np.ndarray  # of classifiers

    if TYPE_CHECKING:  # scikit-learn makes them at run time

        def set_fit_request(self: Fitted, **requests: bool | str | None) -> Fitted: ...
        def set_partial_fit_request(self: Fitted, **requests: bool | str | None) -> Fitted: ...
        def set_score_request(self: Fitted, **requests: bool | str | None) -> Fitted: ...
        def set_callbacks(self: Fitted, *callbacks: Any) -> Fitted: ...

    def _validate_params(self) -> None:
        # a default is valid: most parameters have theirs, and judging them all takes as long as some epochs
        defaults = _defaults(type(self)).items()
        given = {name: value for name, default in defaults if (value := getattr(self, name)) is not default}
        check_values(self, given)
        if "solver" in given:  # everything that follows asks for its name
            choices.entry(SOLVERS, self.solver, "solver")

    # --- parameters ------------------------------------------------------------------------------------------------

    @classmethod
    @lru_cache(maxsize=64)  # scikit-learn reads the signature at each call, and a clone makes two
    def _get_param_names(cls) -> list[str]:
        return super()._get_param_names()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters of this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Whether to list the parameters of the present choices too: ``loss__gamma`` with ``loss="focal"``.

        Returns
        -------
        dict of str to object
        """
        params = super().get_params(deep=deep)
        return params | flat_parameters.listed(self, _defaults(type(self))) if deep else params

    def set_params(self: Fitted, **params: Any) -> Fitted:
        """Set parameters of this estimator.

        Parameters
        ----------
        **params : object
            Arguments of the constructor, and parameters of `activation`, `loss`, `solver`, `learning_rate` and the
            other schedules under flat names: ``loss__gamma=1.5``. A choice is set before its parameters, in whatever
            order they come.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If there is no such parameter; the message lists the valid ones, and says which one was probably meant.
        """
        own = {name: value for name, value in params.items() if not flat_parameters.is_flat(self, name)}
        flat = flat_parameters.chosen(self, params)
        try:
            super().set_params(**own | flat)
        except ValueError as error:
            raise ValueError(f"{error}{about_parameters(self, own)}") from None
        return self

    def _get_params_html(self, deep: bool = True, *args: Any, **kwargs: Any) -> Any:
        # the table of a notebook shows the constructor's parameters
        return super()._get_params_html(False, *args, **kwargs)

    # --- what a task defines ---------------------------------------------------------------------------------------

    def _learn_targets(self, y: np.ndarray, incremental: bool) -> None:
        """Learn the classes of y, if there are any, or check them against those learned before."""

    def _check_targets(self, y: np.ndarray) -> None:
        """Refuse classes that have not been learned."""

    def _check_validation_targets(self, y: np.ndarray, y_val: np.ndarray) -> None:
        """Refuse y_val of another kind than y."""
        if y_val.shape[1:] != y.shape[1:]:
            raise ValueError(f"y has shape {y.shape}, y_val has shape {y_val.shape}")

    def _weigh(self, y: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray | None:
        """Return the sample weights with class weights, if there are any, multiplied in."""
        return sample_weight

    def _stratify(self, y: np.ndarray) -> np.ndarray | None:
        """Return the labels by which the validation split is stratified, if it is."""
        return None

    def _standardizes(self) -> bool:
        """Return whether training sees standardised targets."""
        return False

    def _segment_factors(self, network: Network) -> Factors | None:
        """Return the factors of the learning rate, decay and epsilon of each segment, if there are any."""
        if self.frozen_layers is None and self.fit_intercept:
            return None
        return freezing(network, architecture.frozen_layers(self, network), not self.fit_intercept)

    # --- what estimators for tables do otherwise -------------------------------------------------------------------

    def _validated(self, X: Any, y: Any, reset: bool) -> tuple[Any, Any]:
        """Return X and y validated; `reset` says whether X tells the features."""
        return inputs.validated(self, X, y, reset)

    def _prepared(
        self, X: Any, y: np.ndarray, extras: Extras, random_state: np.random.RandomState
    ) -> tuple[Any, Split | None]:
        """Return the matrix that the network reads, and the split of its rows if it had to be drawn for that."""
        return X, None

    def _matrix(self, X: Any) -> Any:
        """Return the matrix that the network reads, for rows validated after the training rows."""
        return X

    def _shown_rows(self, X: Any, rows: np.ndarray | None) -> Any:
        """Return some rows of the matrix that the network reads, or all, as the user's scorers take them."""
        if isinstance(X, SharedRows):
            return X  # which scorers hand to predictions; no process has all of its rows
        return device_arrays.host_rows(X, rows)

    def _network_to_train(self, X: Any, objective: Objective, first_pass: bool) -> Network:
        return architecture.network_to_train(self, X, objective, first_pass)

    def _first_params(self, network: Network, random_state: np.random.RandomState, look: Look | None) -> np.ndarray:
        """Return the flat vector (n_params,) that training starts from; tabular nets `look` at training rows."""
        return architecture.first_params(self, network, random_state)

    def _training_parameters(self) -> dict[str, Any]:
        """Return the parameters that an optimizer is made of."""
        return {name: getattr(self, name) for name in type(self).__dataclass_fields__}

    @abstractmethod
    def _objective(self, y: np.ndarray) -> Objective:
        """Return what a network is trained for on y."""

    @abstractmethod
    def _encode(self, y: np.ndarray, dtype: np.dtype, objective: Objective) -> np.ndarray:
        """Return the training targets."""

    @abstractmethod
    def _decode(self, output: np.ndarray) -> np.ndarray:
        """Return the predictions from outputs (n, n_outputs)."""

    @abstractmethod
    def _keep_out_of_fold(self, outputs: np.ndarray) -> None:
        """Keep outputs (n, n_outputs) as the attribute of out-of-fold predictions."""

    @abstractmethod
    def _score(self, y: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None) -> Score:
        """Return the score of these rows as a function of outputs (n, n_outputs); `targets` are y encoded."""

    # --- fitting ---------------------------------------------------------------------------------------------------

    @fit_context
    def fit(
        self: Fitted,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        eval_set: Any = None,
        coef_init: Sequence[Any] | None = None,
        intercept_init: Sequence[Any] | None = None,
        resume_from: str | os.PathLike[str] | None = None,
        communicator: Any = None,
    ) -> Fitted:
        """Fit the network to X and y.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training rows; float32 and float64 are used as they are, in any memory layout. With ``backend="cuda"`` also
            an array on the GPU (of CuPy, PyTorch, JAX or Numba), C-contiguous, which is read where it lies.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, label indicators, or values to regress on.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the loss. A batch whose weights are all zero is left out: it changes nothing, and the
            loss of an epoch is the mean over the rows of the others.
        X_val : {array-like, sparse matrix} of shape (n_val, n_features), default=None
            Rows to validate on after each epoch, which early stopping watches instead of holding out rows of X. In a
            :class:`~sklearn.pipeline.Pipeline` with ``transform_input=["X_val"]`` they are transformed as X is.
        y_val : array-like of shape (n_val,) or (n_val, n_outputs), default=None
            Their targets.
        sample_weight_val : array-like of shape (n_val,), default=None
            Their weights.
        eval_set : tuple (X, y), list of such tuples, or dict of str to tuple, default=None
            Sets of rows to evaluate after each epoch; the third entry of a tuple, if it has one, are the weights. Those
            in a list are called 'validation_0', 'validation_1', ... The last set is the one that early stopping
            watches, unless `X_val` is given.
        coef_init : list of array-like of shape (fan_in, fan_out), default=None
            Weights of each layer to start from; an entry that is None leaves a layer as it would be without.
        intercept_init : list of array-like of shape (fan_out,), default=None
            Biases of each layer to start from, likewise.
        resume_from : str or path-like, default=None
            File of a :class:`fastmlp.callbacks.Checkpoint`: go on with the fit that wrote it, on the same data and with
            the same parameters, to the weights that it would have reached, bit for bit.
        communicator : Communicator or MPI communicator, default=None
            Of several processes, the ranks, that make this call together, each with rows of its own: those of X are
            then the ranks' rows, one rank's after the other's, or :class:`fastmlp.distributed.Partitions`. With mpi4py
            ``MPI.COMM_WORLD``. All ranks get the weights of a fit on all rows. Callbacks are those of rank 0.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            For invalid data or parameters, an unknown backend, sample weights that are zero for all rows or, negative,
            cancel in a batch, or weights that diverged.
        MemoryError
            If the layer sizes cannot fit this machine.
        CommunicationError
            If another rank fails, or does not answer in time.
        """
        validation = given_validation(X_val, y_val, sample_weight_val, eval_set)
        start = () if coef_init is None and intercept_init is None else (coef_init, intercept_init)
        # scikit-learn's callbacks know a single sequence of epochs
        max_epochs = 0 if choices.name_of(self.solver) == "lbfgs" or ensemble.size(self) > 1 else self.max_iter
        with fit_task(self, X, y, sample_weight, max_epochs=max_epochs) as reporters:
            callbacks = (*(self.callbacks or ()), *(reporters if max_epochs else ()))
            extras = Extras(validation, start, resume_from, callbacks, communicator=communicator)
            return self._fit(X, y, sample_weight, extras)

    def _fit(self, X: Any, y: Any, sample_weight: Any, extras: Extras) -> Self:
        if extras.communicator is not None:
            fit_together(self, X, y, sample_weight, extras)
        elif (task := self._task(X, y, sample_weight, extras)) is not None:
            task.train()
        return self

    def _task(self, X: Any, y: Any, sample_weight: Any, extras: Extras) -> Task | None:
        """Return the training that is ready to begin; None if there is nothing to train, or an ensemble was trained."""
        self._check_parameters(extras)
        first_pass = extras.anew or not hasattr(self, "coefs_") or not (self.warm_start or extras.incremental)
        X, y = self._validated(X, y, reset=first_pass)
        if extras.one_batch:
            self._check_targets(y)
        else:
            self._learn_targets(y, extras.incremental)
        y = inputs.dense_targets(self, y)
        sample_weight = inputs.validated_weight(self, sample_weight, y, all_zero=extras.incremental)
        ranks, random_state, objective = extras.ranks, state.random_state(self, first_pass), self._objective(y)
        random_state = random_state if ranks is None else ranks.random_state(random_state)
        X, split = self._prepared(X, y, extras, random_state)

        network = self._network_to_train(X, objective, first_pass)
        n_epochs = 1 if extras.incremental else self.max_iter
        engine = backends.get(self.backend, backends.work_of_fit(network, X.shape[0], n_epochs))
        architecture.check_memory(self, network, engine, X.shape[0], self._has_validation(extras))
        engine = engine if ranks is None else ranks.engine(engine, network)
        data = inputs.encoded(self, X, y, self._weigh(y, sample_weight), network, objective)
        if not extras.incremental:
            weightless.check_weight(data.sample_weight)
        has_epochs = choices.name_of(self.solver) != "lbfgs"
        evaluation = evaluation_of(self, engine, network, objective, y, extras.validation) if has_epochs else None
        load = partial(checkpoint.load, extras.resume_from)
        snapshot = None if extras.resume_from is None else load() if ranks is None else ranks.of_first(load)
        self._check_before_changes(network, X, extras)

        if ensemble.size(self) > 1:
            prepared = ensemble.Prepared(engine, network, objective, data, y, evaluation, extras.callbacks)
            ensemble.fit(self, prepared, random_state)
            return None
        if first_pass:
            ensemble.forget(self)
            rows = None if split is None else split.rows
            look = Look(engine, data.X, rows, self.n_jobs, device_arrays.host_rows)
            self._begin(network, objective, random_state, look)
        task = self._ready(engine, network, data, random_state, extras.start)
        if extras.incremental and data.sample_weight is not None and not data.sample_weight.any():
            self.__dict__.setdefault("loss_", np.nan)  # rows without weight change nothing
            return None
        if evaluation is not None and not extras.anew:
            split = evaluation.split(data, y, random_state) if split is None else split
            task.evaluation, task.rows = evaluation, evaluation.train_and_held_out(data, y, split)
        task.callbacks, task.snapshot, task.single_epoch = extras.callbacks, snapshot, extras.incremental
        return task

    def _ready(
        self, engine: ModuleType, network: Network, data: Data, random_state: np.random.RandomState, start: Any = ()
    ) -> Task:
        """Return the training on all rows of the data that goes on from the present weights, or from `start`."""
        training = state.of(self)
        training.random_state = random_state
        if choices.name_of(self.solver) == "lbfgs":
            network = network.with_dtype(np.float64)
        self.n_outputs_ = network.widths[-1]
        params = weights.flat_params(self, network)
        if not params.flags.writeable:  # a user's own vector, of a memory map for instance
            params = params.copy()
        if start:
            weights.start_from(network, params, *start)
            training.best_params = params.copy()
            given = zip(("W", "b"), start, strict=True)
            kept = (name for name, arrays in given if arrays is None or arrays[-1] is None)  # of the last layer
            training.drawn = tuple(name for name in kept if name in training.drawn)
        self._expose(network, params)
        return Task(self, engine, network, params, data)

    def _has_validation(self, extras: Extras) -> bool:
        return bool(extras.validation) or self.early_stopping or self.n_cv > 1

    def _check_parameters(self, extras: Extras) -> None:
        """Refuse parameters that are wrong for any data, or contradict each other."""
        self._hidden_sizes()
        backends.get(self.backend)
        given = bool(extras.validation)
        if not self.fit_intercept and extras.start and extras.start[1] is not None:
            raise ValueError("intercept_init makes no sense with fit_intercept=False: all biases are 0")
        if ensemble.size(self) > 1:
            ensemble.check(self, given, extras.start, extras.resume_from, extras.communicator)
        if choices.name_of(self.solver) == "lbfgs":
            check_lbfgs(self, validation=given, resumes=extras.resume_from is not None)
        elif extras.incremental:
            if self.early_stopping:
                what = "train_on_batch" if extras.one_batch else "partial_fit"
                raise ValueError(f"{what} does not support early_stopping=True")
        else:
            check_monitor(self, has_validation=self._has_validation(extras))

    def _check_before_changes(self, network: Network, X: Any, extras: Extras) -> None:
        """Refuse first weights, batches of other sizes and what is no callback before anything changes."""
        if extras.callbacks:
            check_callbacks(extras.callbacks)
        if extras.start:
            weights.start_from(network, np.empty(network.n_params, network.dtype), *extras.start)
        architecture.check_frozen(self, network)
        if choices.name_of(self.solver) != "lbfgs" and (extras.validation or not self._has_validation(extras)):
            check_batches(self, X.shape[0], extras.one_batch)  # what a split leaves is not known yet

    def _begin(
        self, network: Network, objective: Objective, random_state: np.random.RandomState, look: Look | None = None
    ) -> None:
        """Give a first fit its weights and fitted attributes, in scikit-learn's order of random draws."""
        self.out_activation_ = objective.link
        self.n_layers_ = network.n_layers + 1
        params = self._first_params(network, random_state, look)
        self._expose(network, params)
        state.begin(self, random_state, params)

    def _hidden_sizes(self) -> list[int]:
        return architecture.hidden_sizes(self)

    def _fitted_network(self) -> Network:
        """Return the network that the fitted arrays describe, as it predicts, also if a user has set them."""
        return architecture.fitted_network(self)

    def _expose(self, network: Network, params: np.ndarray) -> None:
        weights.expose(self, network, params)
        self._idle_predictions: list[Prediction] = []

    # --- prediction ------------------------------------------------------------------------------------------------

    def _outputs_of(self, X: Any, in_kind: bool = False) -> Any:
        """Return outputs (n, n_outputs) of the present weights for X as users give it.

        A NumPy array; with `in_kind`, X on a GPU and scikit-learn's array_api_dispatch, one of X's own library.
        """
        idle: list[Prediction | EnsemblePrediction] = self.__dict__.get("_idle_predictions", [])
        # out of the list while in use: a concurrent call makes its own
        prediction = idle.pop() if idle else None
        if prediction is None or not prediction.fits(self):
            check_is_fitted(self)
            prediction = EnsemblePrediction(self) if ensemble.is_ensemble(self) else Prediction(self)
        out = prediction(self, X) if prediction.takes(X) else None
        if out is None:
            out = self._outputs_of_any(prediction, X, in_kind)
        idle.append(prediction)
        return out

    def _outputs_of_any(self, prediction: Prediction | EnsemblePrediction, X: Any, in_kind: bool) -> Any:
        """Return outputs for X that needs validation."""
        if device_arrays.is_device_array(X):
            return prediction.of_device_array(self, X, in_kind and device_arrays.in_kind())
        inputs.warn_of_categories(X)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        dtype = np.result_type(X.dtype, prediction.network.dtype)
        dtype = dtype if dtype in (np.float32, np.float64) else np.dtype(np.float64)
        try:
            X = inputs.engine_rows(X if X.dtype in (np.float32, np.float64) else X.astype(dtype))
        except OverflowError as error:
            raise ValueError("X holds a number beyond the range of float64") from error
        if dtype != prediction.network.dtype:
            return prediction.in_dtype(self, X, dtype)
        return prediction.outputs(self, X)[0]

    if not TYPE_CHECKING:  # which would find every name then

        def __getattr__(self, name: str) -> Any:
            if name in ensemble.OF_MEMBERS and ensemble.is_ensemble(self):
                raise AttributeError(ensemble.no_such_attribute(self, name), name=name, obj=self)
            return object.__getattribute__(self, name)  # raises what it raised before

    # --- scikit-learn's names, which its own tests use ---------------------------------------------------------------

    @property
    def _optimizer(self) -> Any:
        training = self.__dict__.get("_training")
        if training is None or training.optimizer is None:
            raise AttributeError(f"this {type(self).__name__} has no optimizer: no epochs were trained")
        return training.optimizer

    @property
    def _no_improvement_count(self) -> int:
        if "_training" not in self.__dict__:
            raise AttributeError(f"this {type(self).__name__} has not been trained")
        return self._training.stopping.count

    @_no_improvement_count.setter
    def _no_improvement_count(self, count: int) -> None:
        state.of(self).stopping.count = count

    def __sklearn_is_fitted__(self) -> bool:
        return "coefs_" in vars(self) or ensemble.is_ensemble(self)

    # --- copies ------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        kept = dict(super().__getstate__())
        kept.pop("_idle_predictions", None)
        if "_training" in kept:
            kept["_training"] = kept["_training"].copied()  # a shallow copy counts for itself
        return pickled.marked(kept)

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept = pickled.restored(self, state, _defaults(type(self)))
        super().__setstate__(kept)
        if "coefs_" in kept and "out_activation_" in kept:
            # pickling has cut the views apart; parameters that make no sense any more are predict's to complain about
            with suppress(ValueError):
                network = self._fitted_network()
                self._expose(network, weights.flat_params(self, network))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class _BaseMLP(Parameters, BaseNetwork):
    """What MLPClassifier and MLPRegressor share."""

    _parameter_constraints: ClassVar[dict] = CONSTRAINTS


@lru_cache(maxsize=64)
def _defaults(cls: type) -> dict[str, Any]:
    """Return the default of each parameter of a constructor by name, in the order of scikit-learn's validation."""
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    return {name: parameters[name].default for name in cls._get_param_names()}  # type: ignore[attr-defined]
