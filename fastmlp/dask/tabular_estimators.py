"""RealMLP and TabM on clusters of Dask: frames and arrays go in as they are, columns of texts and gaps included.

What they learn of a column they learn of the training rows of all workers (data/coded_rows.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fastmlp.dask import prediction
from fastmlp.dask.estimators import OWN, OnDask, is_distributed, refuse_communicator
from fastmlp.dask.work import Outcome
from fastmlp.tabular_estimators import RealMLPClassifier, RealMLPRegressor, TabMClassifier, TabMRegressor
from fastmlp.training.given_sets import given_validation


@dataclass(eq=False, repr=False)
class _OnTables(OnDask):
    """What estimators for tables have besides."""

    def fit(  # type: ignore[override] # first weights, and checkpoints, are of networks without a coder
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        eval_set: Any = None,
        communicator: Any = None,
    ) -> Any:
        """Fit the network to a table X and y, where they lie.

        The weights are those of the local estimator on the same rows in the same order, up to rounding; what is learned
        of the columns is the same to the last bit.

        Parameters
        ----------
        X : Dask DataFrame or array of shape (n_samples, n_features)
            Columns of texts or categories, missing values and booleans are all right. Numbers of rows of partitions may
            be unknown. X in memory is fitted in this process.
        y : Dask array, Series or DataFrame of shape (n_samples,) or (n_samples, n_outputs)
            With the partitions of X; it is cut like X where the sizes of both are known.
        sample_weight : Dask array or Series of shape (n_samples,), default=None
        X_val, y_val, sample_weight_val, eval_set : collections of Dask, default=None
            Rows to validate on, as in the local estimator.
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
            If a worker dies, leaves or hangs.
        """
        if is_distributed(X, y, sample_weight):
            refuse_communicator(communicator)
            validation = given_validation(X_val, y_val, sample_weight_val, eval_set)
            return self._run("fit", (X, y, sample_weight), validation, {})
        self._validate_params()
        rows = {"X_val": X_val, "y_val": y_val, "sample_weight_val": sample_weight_val, "eval_set": eval_set}
        local = self._plain().fit(X, y, sample_weight, **rows, communicator=communicator)  # its networks are local ones
        return self._taken(Outcome(0, "", local, None, []), [])


@dataclass(eq=False, repr=False)
class _OnClasses(_OnTables):
    """What classifiers have besides."""

    _summed_score = prediction.accuracy, prediction.mean_accuracy

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class (or label), without computing it yet.

        Parameters
        ----------
        X : Dask DataFrame or array of shape (n_samples, n_features)

        Returns
        -------
        Dask array or DataFrame of shape (n_samples, n_classes)
            The columns of a frame are ``classes_``.
        """
        return self._predicted("predict_proba", X, self.classes_)

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithm of :meth:`predict_proba`, without computing it yet.

        Parameters
        ----------
        X : Dask DataFrame or array of shape (n_samples, n_features)

        Returns
        -------
        Dask array or DataFrame of shape (n_samples, n_classes)
        """
        return self._predicted("predict_log_proba", X, self.classes_)


@dataclass(eq=False, repr=False)
class DaskRealMLPClassifier(_OnClasses, RealMLPClassifier):
    """RealMLP that trains on the rows of Dask collections, where they lie on the workers of a cluster: classification.

    The weights are those of :class:`fastmlp.RealMLPClassifier` on the same rows, up to rounding, however the rows are
    partitioned. With the same partitions on the same workers they are the same bits.

    Parameters
    ----------
    client : distributed.Client, default=None
        The cluster; None: the current client. With an asynchronous one, `fit` and `score` return awaitables.
    timeout : float, default=60.0
        Seconds that a worker waits for another one, before the fit ends with an error that names it.

        All other parameters are those of :class:`fastmlp.RealMLPClassifier`, except that `n_ens` and `n_cv` are
        refused. `n_jobs` is the number of threads on each worker; None: those that the worker has. Callbacks run on the
        worker of the first rows.

    Attributes
    ----------
    classes_, coder_, network_, coefs_, intercepts_, history_, ... : those of the local estimator

    Examples
    --------
    >>> import dask.dataframe as dd
    >>> from distributed import Client
    >>> from fastmlp.dask import DaskRealMLPClassifier
    >>> client = Client(n_workers=2, threads_per_worker=1)  # doctest: +SKIP
    >>> people = dd.read_parquet("people/")  # doctest: +SKIP
    >>> clf = DaskRealMLPClassifier(random_state=0)  # doctest: +SKIP
    >>> clf.fit(people.drop(columns="buys"), people["buys"])  # doctest: +SKIP
    """

    _parameter_constraints: ClassVar[dict] = RealMLPClassifier._parameter_constraints | OWN
    _local_class = RealMLPClassifier


@dataclass(eq=False, repr=False)
class DaskRealMLPRegressor(_OnTables, RealMLPRegressor):
    """RealMLP that trains on the rows of Dask collections, where they lie on the workers of a cluster: regression.

    The weights are those of :class:`fastmlp.RealMLPRegressor` on the same rows, up to rounding, however the rows are
    partitioned. With the same partitions on the same workers they are the same bits.

    Parameters
    ----------
    client : distributed.Client, default=None
        The cluster; None: the current client. With an asynchronous one, `fit` and `score` return awaitables.
    timeout : float, default=60.0
        Seconds that a worker waits for another one, before the fit ends with an error that names it.

        All other parameters are those of :class:`fastmlp.RealMLPRegressor`, except that `n_ens` and `n_cv` are refused.
        `n_jobs` is the number of threads on each worker; None: those that the worker has. Callbacks run on the worker
        of the first rows.

    Attributes
    ----------
    coder_, network_, coefs_, intercepts_, history_, ... : those of the local estimator
    """

    _parameter_constraints: ClassVar[dict] = RealMLPRegressor._parameter_constraints | OWN
    _local_class = RealMLPRegressor
    _summed_score = prediction.r2, prediction.mean_r2


@dataclass(eq=False, repr=False)
class DaskTabMClassifier(_OnClasses, TabMClassifier):
    """TabM that trains on the rows of Dask collections, where they lie on the workers of a cluster: classification.

    The weights are those of :class:`fastmlp.TabMClassifier` on the same rows, up to rounding, however the rows are
    partitioned. With the same partitions on the same workers they are the same bits.

    Parameters
    ----------
    client : distributed.Client, default=None
        The cluster; None: the current client. With an asynchronous one, `fit` and `score` return awaitables.
    timeout : float, default=60.0
        Seconds that a worker waits for another one, before the fit ends with an error that names it.

        All other parameters are those of :class:`fastmlp.TabMClassifier`, except that `n_ens` and `n_cv` are refused.
        `n_jobs` is the number of threads on each worker; None: those that the worker has. Callbacks run on the worker
        of the first rows.

    Attributes
    ----------
    classes_, coder_, network_, coefs_, intercepts_, history_, ... : those of the local estimator
    """

    _parameter_constraints: ClassVar[dict] = TabMClassifier._parameter_constraints | OWN
    _local_class = TabMClassifier


@dataclass(eq=False, repr=False)
class DaskTabMRegressor(_OnTables, TabMRegressor):
    """TabM that trains on the rows of Dask collections, where they lie on the workers of a cluster: regression.

    The weights are those of :class:`fastmlp.TabMRegressor` on the same rows, up to rounding, however the rows are
    partitioned. With the same partitions on the same workers they are the same bits.

    Parameters
    ----------
    client : distributed.Client, default=None
        The cluster; None: the current client. With an asynchronous one, `fit` and `score` return awaitables.
    timeout : float, default=60.0
        Seconds that a worker waits for another one, before the fit ends with an error that names it.

        All other parameters are those of :class:`fastmlp.TabMRegressor`, except that `n_ens` and `n_cv` are refused.
        `n_jobs` is the number of threads on each worker; None: those that the worker has. Callbacks run on the worker
        of the first rows.

    Attributes
    ----------
    coder_, network_, coefs_, intercepts_, history_, ... : those of the local estimator
    """

    _parameter_constraints: ClassVar[dict] = TabMRegressor._parameter_constraints | OWN
    _local_class = TabMRegressor
    _summed_score = prediction.r2, prediction.mean_r2
