"""scikit-learn's searches with candidates and folds side by side on threads; all else is scikit-learn's own."""

from __future__ import annotations

from typing import Any, Self

from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

from fastmlp.search.threads import on_threads, together
from fastmlp.search.trials import trains_at_once, trains_side_by_side


class _OnThreads:
    """Fit on threads."""

    n_jobs: int | None
    estimator: Any

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit all candidates on all folds, then the best one on all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows; whatever the estimator takes.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Their targets.
        **params : dict of str to object
            For the estimator's ``fit``, the scorer and the splitter, as scikit-learn's search takes them.

        Returns
        -------
        self : object
            The fitted search.

        Raises
        ------
        KeyboardInterrupt
            If the user interrupts several threads; the networks in training are stopped.
        Exception
            What scikit-learn's search raises: for parameters that it does not know, if all fits fail, and with
            ``error_score="raise"`` the error of a fit.
        """
        self._validate_params()  # type: ignore[attr-defined] # before anybody asks the estimator
        n_at_once = trains_at_once(self.estimator)
        n_threads = None if trains_side_by_side(self.estimator) else 1
        with together(n_at_once) if n_at_once > 1 else on_threads(n_threads):
            return super().fit(X, y, **params)  # type: ignore[misc]


class BatchedGridSearchCV(_OnThreads, GridSearchCV):
    """Search a grid as scikit-learn's ``GridSearchCV`` does, with the fits side by side on threads.

    Parameters, attributes, scores and warnings are those of :class:`sklearn.model_selection.GridSearchCV`.  Other
    than there, `n_jobs` means threads of this process, and None is one per core.  So there are no workers to start,
    and X is not sent anywhere.  Each network uses one thread.  `cv_results_` is the same for every `n_jobs`, but for
    its times.

    The estimator may be a Pipeline, or any other estimator of scikit-learn's kind.

    See Also
    --------
    fastmlp.search.on_threads : The same for all else that scikit-learn computes by joblib.
    fastmlp.EnsembleSearchClassifier : Search within a time limit, and keep an ensemble.

    Notes
    -----
    Each fit that is under way holds a copy of its training rows.

    With ``backend="cuda"`` fits take turns on the processor, whatever `n_jobs` says.  The GPU trains small networks of
    all fits at the same time, and large ones one after the other.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.search import BatchedGridSearchCV
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> grid = {"alpha": [1e-4, 1e-2], "hidden_layer_sizes": [(8,), (16,)]}
    >>> search = BatchedGridSearchCV(MLPClassifier(solver="lbfgs", random_state=0), grid, cv=3).fit(X, y)
    >>> search.best_score_ > 0.9
    np.True_
    """


class BatchedRandomizedSearchCV(_OnThreads, RandomizedSearchCV):
    """Draw candidates as scikit-learn's ``RandomizedSearchCV`` does, and fit them side by side on threads.

    Parameters, attributes, scores and warnings are those of :class:`sklearn.model_selection.RandomizedSearchCV`;
    `n_jobs` means threads, as in :class:`BatchedGridSearchCV`.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.search import BatchedRandomizedSearchCV, LogUniform
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> space = {"alpha": LogUniform(1e-5, 1e-1)}
    >>> estimator = MLPClassifier((8,), solver="lbfgs", random_state=0)
    >>> search = BatchedRandomizedSearchCV(estimator, space, n_iter=4, cv=3, random_state=0).fit(X, y)
    >>> len(search.cv_results_["params"])
    4
    """
