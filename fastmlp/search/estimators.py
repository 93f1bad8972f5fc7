"""The estimators of a search: fit draws and trains trials, and keeps the greedy ensemble of the best.

::

    X, y -> splits (rows) -> drawn parameters (spaces) -> Trials (trials), side by side -> weights (ensembling)
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Sequence
from copy import deepcopy
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.utils import check_random_state, get_tags, indexable
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d, has_fit_parameter

from fastmlp.data.warned import warn
from fastmlp.estimator.mistakes import explained
from fastmlp.estimator.parameters import Names
from fastmlp.search import ensembling, results, spaces
from fastmlp.search.joined import as_ensemble
from fastmlp.search.rows import Rows, Split, splits_of
from fastmlp.search.trials import KEPT, Deadline, Plan, Trial, n_side_by_side, probabilities
from fastmlp.sklearn_compat import HasMethods, Interval, _check_sample_weight, _fit_context
from fastmlp.training.many import fit_many

#: Share of the time limit that the selection of the ensemble may take after the end.
_OVERTIME = 0.05

_PARAMETERS = """
    estimator : estimator, default=None
        What to tune: an estimator of fastmlp or any other of scikit-learn's kind, also a Pipeline. None is
        :class:`~fastmlp.RealMLP{task}`, whose best epoch is chosen by `scoring`. The first trial has its parameters as
        they are.

    param_distributions : dict or list of dict, default=None
        Names of parameters and what to draw: lists, or distributions with ``rvs``, such as SciPy's; the same that
        scikit-learn's ``RandomizedSearchCV`` takes. None is :func:`fastmlp.search.space_of` of the estimator.

    time_limit : float or None, default=600
        Seconds for the search. At the end no trial begins, and networks in training stop after the epoch. The first
        trial has at least an epoch.

    n_trials : int, default=200
        Trials at most, the first included.

    ensemble_size : int, default=25
        Rounds of the greedy selection, and so the largest number of trials in the ensemble. 1 keeps the best trial.

    cv : int, splitter or iterable, default=None
        Folds of a cross-validation: scores are means over the folds, and a trial in the ensemble is the mean of its
        folds' estimators. An int makes shuffled folds, stratified for classes. None holds out rows once.

    validation_fraction : float, default=0.2
        Share of the rows to hold out if `cv` is None.

    scoring : str, callable or None, default=None
        One of scikit-learn's scorers, by which trials and ensembles are compared. None is {score}.

    n_jobs : int, default=None
        Trials to train side by side, on threads, each with one thread; None is one per core. The results are the same
        for any number.

    random_state : int, RandomState instance or None, default=None
        Source of the split, of the parameters, and of each fit's `random_state` where the estimator has none.

    verbose : int, default=0
        1 prints a line for each trial that is the best so far, 2 for every trial.
"""

_ATTRIBUTES = """
    estimators_ : list of estimator
        The fitted estimators of the ensemble, of each trial one per fold.

    weights_ : ndarray of shape (n_estimators,)
        Their weights, which sum to 1.

    ensemble_score_ : float
        Score of the ensemble on the validation rows; at least `best_score_`.

    best_params_, best_score_, best_index_ : dict, float, int
        The best single trial. The parameters of the first trial are ``{}``.

    cv_results_ : dict of ndarray
        A row per trial, with scikit-learn's columns, and `status` and `ensemble_weight`.

    n_features_in_ : int
        Features seen during fit.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, if X had string column names.
"""


def _documented(task: str, score: str) -> Callable[[type], type]:
    """Return a decorator that inserts the shared parameters and attributes into a class docstring."""

    def document(cls: type) -> type:
        parameters = _PARAMETERS.strip("\n").format(task=task, score=score)
        doc = (cls.__doc__ or "").replace("    %(parameters)s", parameters)
        cls.__doc__ = doc.replace("    %(attributes)s", _ATTRIBUTES.strip("\n"))
        return cls

    return document


class _EnsembleSearch(MetaEstimatorMixin, metaclass=ABCMeta):
    """What the searches of both tasks share."""

    _parameter_constraints: ClassVar[dict] = {
        "estimator": [HasMethods(["fit", "predict", "get_params", "set_params"]), None],
        "param_distributions": [dict, list, None],
        "time_limit": [Interval(Real, 0, None, closed="neither"), None],
        "n_trials": [Interval(Integral, 1, None, closed="left")],
        "ensemble_size": [Interval(Integral, 1, None, closed="left")],
        "cv": ["cv_object"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "scoring": [Names(get_scorer_names()), callable, None],
        "n_jobs": [Interval(Integral, 1, None, closed="left"), Interval(Integral, None, -1, closed="right"), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _task: ClassVar[str]

    # what a fit leaves, for type checkers
    estimators_: list[Any]
    weights_: np.ndarray
    classes_: np.ndarray  # of classifiers

    def __init__(
        self,
        estimator: Any = None,
        param_distributions: spaces.Space | None = None,
        *,
        time_limit: float | None = 600.0,
        n_trials: int = 200,
        ensemble_size: int = 25,
        cv: Any = None,
        validation_fraction: float = 0.2,
        scoring: Any = None,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.param_distributions = param_distributions
        self.time_limit = time_limit
        self.n_trials = n_trials
        self.ensemble_size = ensemble_size
        self.cv = cv
        self.validation_fraction = validation_fraction
        self.scoring = scoring
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # --- fitting ---------------------------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Search, and keep the ensemble.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            Whatever the estimator takes.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, or values to regress on.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, in fits and scores.
        X_val, y_val, sample_weight_val : array-like, default=None
            Rows to judge trials by, instead of held-out ones.

        Returns
        -------
        self : object
            The search, which predicts as the ensemble.

        Raises
        ------
        ValueError
            For invalid parameters or data, or if the first trial fails with one.

        Notes
        -----
        Ctrl-C ends the search and keeps the ensemble of the trials that are finished, with a warning.
        """
        deadline, random_state = Deadline(self.time_limit), check_random_state(self.random_state)
        base = self._base()
        rows = self._rows(base, X, y, sample_weight, "y")
        self._learn_targets(rows.y)
        splits = self._splits(base, rows, (X_val, y_val, sample_weight_val), random_state)
        drawn, seeds = self._drawn(base, len(splits), random_state)
        n_threads = n_side_by_side(base, len(drawn), self.n_jobs)
        scorer, classes = check_scoring(self, scoring=self.scoring), getattr(self, "classes_", None)
        plan = Plan(base, splits, scorer, classes, deadline, one_thread_each=n_threads > 1)
        found = [Trial(plan, number, *each) for number, each in enumerate(zip(drawn, seeds, strict=True))]
        kept: list[Trial] = []

        def on_end(trial: Trial) -> None:
            self._ended(trial, kept)

        fit_many(found, n_threads, on_end)
        self._keep(plan, [trial for trial in found if trial.status != "not begun"])
        return self

    def _own_estimator(self) -> Any:
        return spaces.default_estimator(self._task, self.scoring) if self.estimator is None else self.estimator

    def _base(self) -> Any:
        """Return the estimator to tune; a ValueError says what is wrong with it."""
        base = self._own_estimator()
        name, kind = type(base).__name__, self._task.lower()
        if get_tags(base).estimator_type != kind:
            raise ValueError(f"estimator must be a {kind}, got {name}")
        if kind == "classifier" and not hasattr(base, "predict_proba"):
            raise ValueError(
                f"estimator must have probabilities, of which a search takes means; {name} as given has none"
            )
        return base

    def _rows(self, base: Any, X: Any, y: Any, sample_weight: Any, y_name: str) -> Rows:
        """Return rows as users give them; targets and weights as arrays."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires {y_name} to be passed, but the target {y_name} is None")
        X, y = indexable(X, y)
        y = column_or_1d(y, warn=True) if self._task == "Classifier" else np.asarray(y)
        if sample_weight is None:
            return Rows(X, y)
        if not has_fit_parameter(base, "sample_weight"):
            raise ValueError(f"sample_weight is given, but fit of {type(base).__name__} takes none")
        return Rows(X, y, _check_sample_weight(sample_weight, X))

    def _splits(self, base: Any, rows: Rows, given: Sequence[Any], random_state: np.random.RandomState) -> list[Split]:
        X_val, y_val, weight_val = given
        if X_val is None:
            if y_val is not None or weight_val is not None:
                raise ValueError("y_val and sample_weight_val need X_val")
            return splits_of(rows, self.cv, self.validation_fraction, self._task == "Classifier", random_state)
        if self.cv is not None:
            raise ValueError(f"X_val makes no sense with cv={self.cv!r}: the rows of each fold are its validation rows")
        validation = self._rows(base, X_val, y_val, weight_val, "y_val")
        unknown = np.setdiff1d(validation.y, self.classes_) if self._task == "Classifier" else ()
        if len(unknown):
            raise ValueError(f"y_val has classes that y does not have: {unknown}; y has {self.classes_}")
        return [Split(rows, given=validation)]

    def _drawn(
        self, base: Any, n_splits: int, random_state: np.random.RandomState
    ) -> tuple[list[dict[str, Any]], list[list[int]]]:
        """Return the parameters of all trials, and a seed for each split; the first trial has the estimator's own."""
        space = spaces.space_of(base) if self.param_distributions is None else self.param_distributions
        for part in ParameterSampler(space, 1).param_distributions:  # refuses what is no space
            (tried,) = ParameterSampler(part, 1, random_state=0)
            clone(base).set_params(**tried)  # an unknown name is an error
        n_drawn = self.n_trials - 1
        if not spaces.draws_numbers(space):
            n_drawn = min(n_drawn, len(ParameterGrid(space)))
        # two sources: a trial is the same for any number of trials
        of_parameters, of_fits = random_state.randint(np.iinfo(np.int32).max, size=2)
        drawn = [{}, *(ParameterSampler(space, n_drawn, random_state=of_parameters) if n_drawn else ())]
        seeds = np.random.RandomState(of_fits).randint(np.iinfo(np.int32).max, size=(len(drawn), n_splits))
        return drawn, seeds.tolist()

    def _ended(self, trial: Trial, kept: list[Trial]) -> None:
        """Enter a trial among the best, which keep their estimators; report it. The first trial keeps its own."""
        if trial.is_finished:
            kept.append(trial)
            kept.sort(key=lambda other: (other.key, -other.number), reverse=True)
            for other in kept[KEPT:]:
                if other.number:
                    other.forget()
            del kept[KEPT:]
        if trial.status != "not begun" and self.verbose > (not kept or trial is not kept[0]):
            best, seconds = kept[0].score if kept else np.nan, sum(trial.seconds)
            print(f"Trial {trial.number}: {trial.status}, score {trial.score:.6g}, best {best:.6g}, {seconds:.2f} s")

    def _keep(self, plan: Plan, begun: Sequence[Trial]) -> None:
        """Select the ensemble of the finished trials, and write the fitted attributes."""
        self._tell(begun)
        weights = self._weights(plan, [trial for trial in begun if trial.outputs])
        chosen = [trial for trial in begun if weights.get(trial.number)]
        self.estimators_ = [estimator for trial in chosen for estimator in trial.estimators]
        copies = ensembling.copies([weights[trial.number] for trial in chosen], self.ensemble_size)
        self._copies = [n for n, trial in zip(copies, chosen, strict=True) for _ in trial.estimators]
        shares = [weights[trial.number] / len(trial.estimators) for trial in chosen]
        self.weights_ = np.repeat(shares, [len(trial.estimators) for trial in chosen])
        means = ensembling.means([trial.outputs for trial in chosen], [weights[trial.number] for trial in chosen])
        self.ensemble_score_ = float(np.mean(plan.scores(means)))
        self.cv_results_ = results.table_of(begun, [weights.get(trial.number, 0.0) for trial in begun])
        best = max(begun, key=lambda trial: trial.key)
        self.best_index_, self.best_params_, self.best_score_ = begun.index(best), dict(best.params), best.score

    def _weights(self, plan: Plan, candidates: Sequence[Trial]) -> dict[int, float]:
        """Return the weights of the ensemble by the numbers of the trials."""

        def has_time() -> bool:
            return plan.deadline.left > -_OVERTIME * plan.deadline.seconds

        weights = ensembling.select([trial.outputs for trial in candidates], plan.key, self.ensemble_size, has_time)
        return {trial.number: float(weight) for trial, weight in zip(candidates, weights, strict=True)}

    def _tell(self, begun: Sequence[Trial]) -> None:
        """Warn of trials that failed or were interrupted; raise a KeyboardInterrupt if none is finished."""
        finished = sum(trial.is_finished for trial in begun)
        if any(trial.status == "interrupted" for trial in begun):
            if not finished:
                raise KeyboardInterrupt
            warn(f"the search was interrupted: the ensemble is made of the {finished} trials that were finished")
        failed = [trial for trial in begun if trial.error is not None]
        if failed:
            first = failed[0]
            warn(
                f"{len(failed)} of {len(begun)} trials failed, the first with {first.params}:"
                f" {type(first.error).__name__}: {first.error}",
                FitFailedWarning,
            )

    def _learn_targets(self, y: np.ndarray) -> None:
        """Learn the classes of y, if there are any."""

    # --- afterwards ------------------------------------------------------------------------------------------------

    def to_estimator(self) -> Any:
        """Return the ensemble as one estimator of the class that was tuned, such as MLPClassifier.

        It is what a fit with `n_ens` gives, so it can be saved and exported.  Its networks are those of `estimators_`,
        in proportion to their weights: of a weight of 2/5 there are two among five.

        Returns
        -------
        estimator
            With the networks in its own `estimators_`, the same objects.

        Raises
        ------
        ValueError
            If something else than fastmlp's own estimators was tuned, or if networks differ in their outputs.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from fastmlp import EnsembleSearchClassifier, MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = MLPClassifier(max_iter=20, learning_rate_init=0.01)
        >>> search = EnsembleSearchClassifier(clf, {"alpha": [0.1, 1.0]}, n_trials=3, random_state=0).fit(X, y)
        >>> type(search.to_estimator()).__name__
        'MLPClassifier'
        """
        check_is_fitted(self)
        return as_ensemble([member for member, n in zip(self.estimators_, self._copies, strict=True) for _ in range(n)])

    def _mean(self, outputs_of: Callable[[Any], np.ndarray]) -> np.ndarray:
        """Return the weighted mean of what the estimators come to, added in their order."""
        check_is_fitted(self)
        return ensembling.weighted_mean([outputs_of(estimator) for estimator in self.estimators_], list(self.weights_))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the score of the ensemble by `scoring`.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        float
        """
        weight = {} if sample_weight is None else {"sample_weight": sample_weight}
        if self.scoring is None:
            return super().score(X, y, **weight)
        return float(check_scoring(self, scoring=self.scoring)(self, X, y, **weight))

    @property
    def n_features_in_(self) -> int:
        """Number of features seen during fit."""
        return self._of_first("n_features_in_")

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the features, if X had string column names."""
        return self._of_first("feature_names_in_")

    def _of_first(self, name: str) -> Any:
        fitted = vars(self).get("estimators_")
        if not fitted or not hasattr(fitted[0], name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        return getattr(fitted[0], name)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = deepcopy(get_tags(self._own_estimator()).input_tags)
        return tags


@explained
@_documented("Classifier", "the accuracy")
class EnsembleSearchClassifier(_EnsembleSearch, ClassifierMixin, BaseEstimator):
    """Search for a classifier's parameters within a time limit, and average the best trials.

    Parameters are drawn at random. Each trial is judged by validation rows, and its predictions for them are kept. From
    these, the ensemble is selected greedily. The first trial has the estimator's own parameters, so neither the best
    trial nor the ensemble scores worse on the validation rows.

    Parameters
    ----------
    %(parameters)s

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.

    %(attributes)s

    References
    ----------
    Caruana, Niculescu-Mizil, Crew and Ksikes (2004), Ensemble selection from libraries of models.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastmlp import EnsembleSearchClassifier, MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPClassifier(learning_rate_init=0.01, max_iter=50, early_stopping=True)
    >>> search = EnsembleSearchClassifier(clf, {"alpha": [0.001, 0.1, 1.0]}, n_trials=4, random_state=0)
    >>> search.fit(X, y).ensemble_score_ >= search.best_score_
    True
    """

    _task = "Classifier"

    def _learn_targets(self, y: np.ndarray) -> None:
        kind = type_of_target(y, input_name="y", raise_unknown=True)
        if kind not in ("binary", "multiclass"):
            raise ValueError(f"Unknown label type: y must be the labels of two or more classes, it is {kind}")
        self.classes_ = np.unique(y)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the class of the largest mean probability.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        means = self.predict_proba(X)
        return self.classes_[means.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the weighted mean of the estimators' probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``.
        """
        return self._mean(lambda estimator: probabilities(estimator, X, self.classes_))


@explained
@_documented("Regressor", "R2")
class EnsembleSearchRegressor(_EnsembleSearch, RegressorMixin, BaseEstimator):
    """Search for a regressor's parameters within a time limit, and average the best trials.

    Parameters are drawn at random. Each trial is judged by validation rows, and its predictions for them are kept. From
    these, the ensemble is selected greedily. The first trial has the estimator's own parameters, so neither the best
    trial nor the ensemble scores worse on the validation rows.

    Parameters
    ----------
    %(parameters)s

    Attributes
    ----------
    %(attributes)s

    References
    ----------
    Caruana, Niculescu-Mizil, Crew and Ksikes (2004), Ensemble selection from libraries of models.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from fastmlp import EnsembleSearchRegressor, MLPRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = MLPRegressor(learning_rate_init=0.01, max_iter=50, early_stopping=True)
    >>> search = EnsembleSearchRegressor(reg, {"hidden_layer_sizes": [16, 32]}, n_trials=3, random_state=0)
    >>> search.fit(X, y / y.std()).ensemble_score_ >= search.best_score_
    True
    """

    _task = "Regressor"

    def predict(self, X: Any) -> np.ndarray:
        """Return the weighted mean of the estimators' predictions.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        return self._mean(lambda estimator: np.asarray(estimator.predict(X)))
