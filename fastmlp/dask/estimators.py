"""DaskMLPClassifier and DaskMLPRegressor: the local estimators, with rows that lie on the workers of a cluster.

What estimators for tables (tabular_estimators.py) have in common with them is here, too.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, Self

import dask
import numpy as np
from dask import is_dask_collection
from distributed import Client, get_client, get_worker, rejoin, secede
from sklearn.utils.validation import check_is_fitted

from fastmlp.dask import fitting, prediction
from fastmlp.dask.fitting import Job
from fastmlp.dask.partitions import Frame, is_collection
from fastmlp.dask.sessions import WorkerLost as WorkerLost
from fastmlp.dask.work import Outcome
from fastmlp.data import warned
from fastmlp.estimator.base import BaseNetwork
from fastmlp.estimators import (
    MLPClassifier,
    MLPRegressor,
    _if_decision_values,
    _if_one_network,
    _if_partial_fit,
    _if_probabilities,
)
from fastmlp.sklearn_compat import Interval
from fastmlp.training.given_sets import given_validation

#: Parameters that local estimators do not have, and what they may be.
OWN: dict[str, Any] = {"client": "no_validation", "timeout": [Interval(Real, 0, None, closed="neither")]}


@dataclass(eq=False, repr=False)
class OnDask(BaseNetwork):
    """What all have: a fit on a cluster, predictions without computing them."""

    _local_class: ClassVar[type]
    _summed_score: ClassVar[tuple[Callable, Callable]]

    client: Any = field(default=None, kw_only=True)
    timeout: float = field(default=60.0, kw_only=True)

    # --- fitting ---------------------------------------------------------------------------------------------------

    def _run(self, method: str, rows: tuple[Any, Any, Any], validation: Any, options: dict[str, Any]) -> Any:
        self._validate_params()
        for name in ("n_ens", "n_cv"):
            if getattr(self, name) > 1:
                raise ValueError(
                    f"{name}={getattr(self, name)} makes no sense with Dask collections: several networks train side by"
                    " side, not over several workers; fit them one by one"
                )
        client = self._client()
        job = Job(self._plain(), method, rows, validation, options, self.timeout)
        names = list(rows[0].columns) if isinstance(rows[0], Frame) else []

        with _thread_of_a_task_given_back():
            outcome: Any = client.sync(fitting.fit, client, job)
        if not inspect.isawaitable(outcome):
            return self._taken(outcome, names)

        async def later() -> Self:
            return self._taken(await outcome, names)

        return later()

    def _client(self) -> Client:
        if self.client is not None:
            return self.client
        try:
            return get_client()
        except ValueError:
            raise RuntimeError(
                f"{type(self).__name__} needs a client to train on Dask collections: make one, distributed.Client(), or"
                " give it as client="
            ) from None

    def _taken(self, outcome: Outcome, names: list[Any]) -> Self:
        """Return self with what a fit has left, besides parameters, which stay the user's objects."""
        parameters = self._get_param_names()
        state = outcome.estimator.__getstate__()
        for name in [name for name in self.__dict__ if name not in parameters]:
            del self.__dict__[name]
        self.__setstate__({name: value for name, value in state.items() if name not in parameters})
        if names and all(isinstance(name, str) for name in names):
            self.feature_names_in_ = np.asarray(names, dtype=object)
        own, drawn = self.random_state, outcome.estimator.random_state
        if isinstance(own, np.random.RandomState):  # it has moved on, as in a local fit
            own.set_state(drawn.get_state())
        warned.warn_once_each(outcome.warnings)
        return self

    # --- as a local estimator --------------------------------------------------------------------------------------

    def to_local(self) -> Any:
        """Return the plain estimator, independent of this one; it needs neither Dask nor a cluster.

        Returns
        -------
        estimator
        """
        return copy.deepcopy(self._plain())

    def _plain(self) -> Any:
        """Return the plain estimator with the same parameters, which shares the fitted arrays."""
        state = {name: value for name, value in self.__getstate__().items() if name not in OWN}
        cls: Any = self._local_class
        local = cls.__new__(cls)
        local.__setstate__(state)
        return local

    def save(self, path: Any, **options: Any) -> None:
        """Write the plain estimator to one safetensors file; see :func:`fastmlp.saving.model_writer.save`."""
        self._plain().save(path, **options)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"client": None}

    def __sklearn_clone__(self) -> Any:
        without = copy.copy(self)  # a client cannot be copied
        made = super(OnDask, without).__sklearn_clone__()
        made.client = self.client
        return made

    # --- prediction ------------------------------------------------------------------------------------------------

    def _predicted(self, method: str, X: Any, columns: Any = None) -> Any:
        check_is_fitted(self)
        if not is_collection(X):
            return getattr(self._plain(), method)(X)
        return prediction.lazily(self._plain(), X, method, columns)

    def predict(self, X: Any) -> Any:
        """Predict without computing yet.

        Parameters
        ----------
        X : Dask array or DataFrame of shape (n_samples, n_features)
            X in memory is predicted at once.

        Returns
        -------
        Dask array, or Series or DataFrame with the index of X
        """
        return self._predicted("predict", X)

    def _validated(self, X: Any, y: Any, reset: bool) -> tuple[Any, Any]:
        _refuse_collections(X)  # initialize, train_on_batch and others
        return super()._validated(X, y, reset)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Return the mean accuracy of a classifier, or R^2 of a regressor, computed block by block.

        Parameters
        ----------
        X : Dask array or DataFrame of shape (n_samples, n_features)
        y : Dask array, Series or DataFrame of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : Dask array or Series of shape (n_samples,), default=None

        Returns
        -------
        float
            With an asynchronous client an awaitable of it.
        """
        if not is_distributed(X, y, sample_weight):
            return self._plain().score(X, y, sample_weight)
        sums, finish = self._summed_score
        lazy = sums(*prediction.arrays(X, y, sample_weight, self.predict(X)))
        try:
            client = self._client()
        except RuntimeError:  # a prediction needs none
            return finish(*dask.compute(*lazy))

        async def run() -> float:
            return finish(*await client.gather(client.compute(list(lazy))))

        return client.sync(run)


def is_distributed(X: Any, y: Any, sample_weight: Any) -> bool:
    """Return whether X is a collection of Dask; a TypeError refuses y or weights that are one if X is not."""
    for name, rows in (("y", y), ("sample_weight", sample_weight)):
        if is_dask_collection(rows) and not is_collection(X):
            raise TypeError(f"{name} is a Dask collection, X is of type {type(X).__name__}: give both on Dask")
    return is_collection(X)


@contextmanager
def _thread_of_a_task_given_back() -> Iterator[None]:
    """Let other tasks have the thread of this one, if this is a task: it only waits for them."""
    try:
        get_worker()
    except ValueError:
        yield
        return
    secede()
    try:
        yield
    finally:
        rejoin()


def _refuse_collections(X: Any) -> None:
    if is_collection(X):
        raise TypeError(f"this method takes rows in memory, got {type(X).__name__}: compute() some of its rows")


def refuse_communicator(given: Any) -> None:
    """Refuse a communicator beside Dask collections, by a ValueError."""
    if given is not None:
        raise ValueError("communicator makes no sense with Dask collections: the workers that have rows are the ranks")


@dataclass(eq=False, repr=False)
class _OnMatrices(OnDask):
    """What estimators that read matrices of numbers have besides."""

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
        communicator: Any = None,
    ) -> Any:
        """Fit the network to X and y, where they lie.

        The weights are those of the local estimator on the same rows in the same order, up to rounding.

        Parameters
        ----------
        X : Dask array or DataFrame of shape (n_samples, n_features)
            Blocks are NumPy arrays, SciPy's sparse matrices, or partitions of numbers; their sizes may be unknown. X in
            memory is fitted in this process.
        y : Dask array, Series or DataFrame of shape (n_samples,) or (n_samples, n_outputs)
            With the partitions of X; it is cut like X where the sizes of both are known.
        sample_weight : Dask array or Series of shape (n_samples,), default=None
        X_val, y_val, sample_weight_val, eval_set : collections of Dask, default=None
            Rows to validate on, as in the local estimator.
        coef_init, intercept_init : list of array-like, default=None
            As in the local estimator.
        resume_from : str or path-like, default=None
            File of a :class:`fastmlp.callbacks.Checkpoint`, which all workers must see.
        communicator : Communicator, default=None
            For X in memory, as in the local estimator; the workers of a cluster have their own.

        Returns
        -------
        self : object
            With an asynchronous client an awaitable of it.

        Raises
        ------
        ValueError
            For invalid data, with the partition, or invalid parameters.
        fastmlp.dask.WorkerLost
            If a worker dies, leaves or hangs, and there is no Checkpoint to go on from.
        """
        given = {"coef_init": coef_init, "intercept_init": intercept_init, "resume_from": resume_from}
        if not is_distributed(X, y, sample_weight):
            rows = {"X_val": X_val, "y_val": y_val, "sample_weight_val": sample_weight_val, "eval_set": eval_set}
            return super().fit(X, y, sample_weight, **rows, **given, communicator=communicator)
        refuse_communicator(communicator)
        validation = given_validation(X_val, y_val, sample_weight_val, eval_set)
        options = {name: value for name, value in given.items() if value is not None}
        return self._run("fit", (X, y, sample_weight), validation, options)

    def transform(self, X: Any) -> Any:
        """Return the outputs of the last hidden layer, without computing them yet.

        Parameters
        ----------
        X : Dask array or DataFrame of shape (n_samples, n_features)

        Returns
        -------
        Dask array or DataFrame of shape (n_samples, width)
        """
        return self._predicted("transform", X, self.get_feature_names_out())

    def layer_outputs(self, X: Any, layer: int | None = None) -> Any:
        """Return what each layer makes of X in memory; see :meth:`fastmlp.MLPClassifier.layer_outputs`."""
        _refuse_collections(X)
        return self._plain().layer_outputs(X, layer)


@dataclass(eq=False, repr=False)
class DaskMLPClassifier(_OnMatrices, MLPClassifier):
    """Classifier that trains on the rows of Dask collections, where they lie on the workers of a cluster.

    The weights are those of :class:`fastmlp.MLPClassifier` on the same rows, up to rounding, however the rows are
    partitioned. With the same partitions on the same workers they are the same bits.

    Parameters
    ----------
    client : distributed.Client, default=None
        The cluster; None: the current client. With an asynchronous one, `fit`, `partial_fit` and `score` return
        awaitables.
    timeout : float, default=60.0
        Seconds that a worker waits for another one, before the fit ends with an error that names it.

        All other parameters are those of :class:`fastmlp.MLPClassifier`. `n_jobs` is the number of threads on each
        worker; None: those that the worker has. Callbacks run on the worker of the first rows.

    Attributes
    ----------
    classes_, coefs_, intercepts_, loss_curve_, history_, ... : those of the local estimator

    Examples
    --------
    >>> import dask.array as da
    >>> from distributed import Client
    >>> from fastmlp.dask import DaskMLPClassifier
    >>> client = Client(n_workers=2, threads_per_worker=1)  # doctest: +SKIP
    >>> X = da.random.default_rng(0).normal(size=(1000, 5), chunks=(250, 5))  # doctest: +SKIP
    >>> clf = DaskMLPClassifier((16,), random_state=0).fit(X, X[:, 0] > 0)  # doctest: +SKIP
    >>> clf.predict(X)  # doctest: +SKIP
    dask.array<_of_block, shape=(1000,), dtype=bool, chunksize=(250,), chunktype=numpy.ndarray>
    """

    _parameter_constraints: ClassVar[dict] = MLPClassifier._parameter_constraints | OWN
    _local_class = MLPClassifier
    _summed_score = prediction.accuracy, prediction.mean_accuracy

    @_if_partial_fit
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None, *, communicator: Any = None
    ) -> Any:
        """Train for one epoch, going on from the present weights and optimizer.

        Parameters
        ----------
        X : Dask array or DataFrame of shape (n_samples, n_features)
        y : Dask array, Series or DataFrame of shape (n_samples,) or (n_samples, n_labels)
        sample_weight : Dask array or Series of shape (n_samples,), default=None
        classes : array-like of shape (n_classes,), default=None
            All classes that any call will bring; needed in the first one.
        communicator : Communicator, default=None
            For X in memory, as for :meth:`fit`.

        Returns
        -------
        self : object
            With an asynchronous client an awaitable of it.
        """
        if not is_distributed(X, y, sample_weight):
            return super().partial_fit(X, y, sample_weight, classes, communicator=communicator)
        refuse_communicator(communicator)
        return self._run("partial_fit", (X, y, sample_weight), {}, {} if classes is None else {"classes": classes})

    @_if_probabilities
    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class (or label), without computing it yet.

        Parameters
        ----------
        X : Dask array or DataFrame of shape (n_samples, n_features)

        Returns
        -------
        Dask array or DataFrame of shape (n_samples, n_classes)
            The columns of a frame are ``classes_``.
        """
        return self._predicted("predict_proba", X, self.classes_)

    @_if_probabilities
    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithm of :meth:`predict_proba`, without computing it yet.

        Parameters
        ----------
        X : Dask array or DataFrame of shape (n_samples, n_features)

        Returns
        -------
        Dask array or DataFrame of shape (n_samples, n_classes)
        """
        return self._predicted("predict_log_proba", X, self.classes_)

    @_if_decision_values
    def decision_function(self, X: Any) -> Any:
        """Return the decision values of the hinge losses, without computing them yet.

        Parameters
        ----------
        X : Dask array or DataFrame of shape (n_samples, n_features)

        Returns
        -------
        Dask array, Series or DataFrame of shape (n_samples,) or (n_samples, n_classes)
        """
        return self._predicted("decision_function", X, self.classes_)


@dataclass(eq=False, repr=False)
class DaskMLPRegressor(_OnMatrices, MLPRegressor):
    """Regressor that trains on the rows of Dask collections, where they lie on the workers of a cluster.

    The weights are those of :class:`fastmlp.MLPRegressor` on the same rows, up to rounding, however the rows are
    partitioned. With the same partitions on the same workers they are the same bits.

    Parameters
    ----------
    client : distributed.Client, default=None
        The cluster; None: the current client. With an asynchronous one, `fit`, `partial_fit` and `score` return
        awaitables.
    timeout : float, default=60.0
        Seconds that a worker waits for another one, before the fit ends with an error that names it.

        All other parameters are those of :class:`fastmlp.MLPRegressor`. `n_jobs` is the number of threads on each
        worker; None: those that the worker has. Callbacks run on the worker of the first rows.

    Attributes
    ----------
    coefs_, intercepts_, loss_curve_, history_, ... : those of the local estimator
    """

    _parameter_constraints: ClassVar[dict] = MLPRegressor._parameter_constraints | OWN
    _local_class = MLPRegressor
    _summed_score = prediction.r2, prediction.mean_r2

    @_if_one_network
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, *, communicator: Any = None) -> Any:
        """Train for one epoch, going on from the present weights and optimizer.

        Parameters
        ----------
        X : Dask array or DataFrame of shape (n_samples, n_features)
        y : Dask array, Series or DataFrame of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : Dask array or Series of shape (n_samples,), default=None
        communicator : Communicator, default=None
            For X in memory, as for :meth:`fit`.

        Returns
        -------
        self : object
            With an asynchronous client an awaitable of it.
        """
        if not is_distributed(X, y, sample_weight):
            return super().partial_fit(X, y, sample_weight, communicator=communicator)
        refuse_communicator(communicator)
        return self._run("partial_fit", (X, y, sample_weight), {}, {})
