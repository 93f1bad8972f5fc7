"""MLPClassifier and MLPRegressor: scikit-learn's contract around an engine.

Here is what only one of the two has: its loss, its targets and its kinds of predictions. What they share is in base.py,
the parameters' documentation in parameters.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MethodType
from typing import Any, ClassVar, Self, cast

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target, unique_labels

from fastmlp.data import device_arrays, targets
from fastmlp.data.targets import Objective
from fastmlp.estimator import ensemble, types
from fastmlp.estimator.base import Extras, Method, _BaseMLP, entered, fit_context
from fastmlp.estimator.class_targets import ClassTargets
from fastmlp.estimator.inside import Inside
from fastmlp.estimator.methods import ModelMethods
from fastmlp.estimator.mistakes import explained
from fastmlp.estimator.parameters import (
    CLASSIFIER_CONSTRAINTS,
    CONSTRAINTS,
    HINGE_LOSSES,
    REGRESSOR_CONSTRAINTS,
    document,
)
from fastmlp.model import choices
from fastmlp.sklearn_compat import _AvailableIfDescriptor, _check_partial_fit_first_call
from fastmlp.training import metrics
from fastmlp.training.optimizers import STOCHASTIC_SOLVERS


def _has_partial_fit(estimator: MLPClassifier) -> bool:
    _trains_one_network(estimator)
    solver = choices.name_of(estimator.solver)
    if solver not in STOCHASTIC_SOLVERS:
        raise AttributeError(f"partial_fit is only available for stochastic optimizers. {solver} is not stochastic.")
    return True


def _trains_one_network(estimator: _BaseMLP) -> bool:
    if ensemble.size(estimator) > 1:
        raise AttributeError(
            f"partial_fit makes no sense with n_ens={estimator.n_ens!r}, n_cv={estimator.n_cv!r}: it trains one network"
            " further; call that of each of estimators_"
        )
    return True


def _if_partial_fit(method: Method) -> Method:
    # scikit-learn's decorators hide signatures from type checkers and editors: functions like this one do not
    return cast(Method, available_if(_has_partial_fit)(method))


def _if_one_network(method: Method) -> Method:
    return cast(Method, available_if(_trains_one_network)(method))


def _has_probabilities(estimator: MLPClassifier) -> bool:
    if _is_hinge(estimator):
        raise AttributeError(
            f"loss={estimator.loss!r} gives decision values, which are no probabilities: use decision_function"
        )
    return True


def _has_decision_values(estimator: MLPClassifier) -> bool:
    if not _is_hinge(estimator):
        raise AttributeError("decision_function is only available with the hinge losses; use predict_proba")
    return True


class _IfProbabilities(_AvailableIfDescriptor):
    """``available_if(_has_probabilities)`` with a short cut, because every prediction asks it."""

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is not None and obj.loss == "log_loss":
            return MethodType(self.fn, obj)
        return super().__get__(obj, owner)


def _if_probabilities(method: Method) -> Method:
    return cast(Method, _IfProbabilities(method, _has_probabilities, attribute_name=method.__name__))


def _if_decision_values(method: Method) -> Method:
    return cast(Method, available_if(_has_decision_values)(method))


def _is_hinge(estimator: MLPClassifier) -> bool:
    loss = estimator.loss
    return (loss[0] if choices.is_pair(loss) else loss) in HINGE_LOSSES


def _indicators(y: Any) -> Any:
    """Return label indicators of at least one row, from which a binarizer learns the labels."""
    return y if y.shape[0] else np.zeros((1, y.shape[1]), dtype=int)  # a process without rows


@entered
@document
@explained
@dataclass(eq=False, repr=False)
class MLPClassifier(ClassifierMixin, ModelMethods, Inside, ClassTargets, _BaseMLP):
    """Multi-layer perceptron classifier: binary, multiclass and multilabel.

    Drop-in for :class:`sklearn.neural_network.MLPClassifier`: the same parameters and ``random_state`` give the same
    weights, up to rounding.

    Parameters
    ----------
    %(parameters)s

    loss : {'log_loss', 'focal', 'hinge', 'squared_hinge'} or (name, dict), default='log_loss'
        The minimised loss: log loss; focal loss, which gives less weight to rows that are classified well
        (``("focal", {"gamma": 2.0})``); or the hinge losses, one class against the rest, which give decision values
        (:meth:`decision_function`) instead of probabilities and are not for multilabel targets. Log loss takes
        smoothed labels: ``("log_loss", {"label_smoothing": 0.1})`` mixes that share of the uniform distribution into
        the targets.

    class_weight : dict, list of dict or 'balanced', default=None
        Weights of classes, as in scikit-learn; they multiply the sample weights, also those of validation rows.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.

    %(attributes)s

    References
    ----------
    Rumelhart, Hinton and Williams (1986), Learning representations by back-propagating errors.
    Kingma and Ba (2014), Adam: a method for stochastic optimization, arXiv:1412.6980.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import scale
    >>> from fastmlp import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPClassifier((16,), learning_rate_init=0.01, max_iter=500, random_state=0).fit(scale(X), y)
    >>> clf.score(scale(X), y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict] = CONSTRAINTS | CLASSIFIER_CONSTRAINTS
    _numeric_targets = False

    hidden_layer_sizes: types.HiddenLayerSizes = (100,)
    activation: types.Activation = "relu"
    loss: types.ClassifierLoss = field(default="log_loss", kw_only=True)
    class_weight: types.ClassWeight | None = field(default=None, kw_only=True)

    def _learn_targets(self, y: np.ndarray, incremental: bool) -> None:
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._label_binarizer = targets.binarizer_of(y)
            self.classes_ = self._label_binarizer.classes_
            return
        if self.warm_start:
            classes = unique_labels(y)
            if set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit."
                    f" Previously got {self.classes_}, `y` has {classes}"
                )
        else:
            self._check_targets(y)

    def _check_targets(self, y: np.ndarray) -> None:
        classes = unique_labels(y)
        if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
            )

    def _objective(self, y: np.ndarray) -> Objective:
        binarizer = self._label_binarizer
        task, n_outputs = targets.task_of(binarizer), targets.n_class_outputs(binarizer)
        return targets.resolve_loss(task, self.loss, n_outputs)

    def _encode(self, y: np.ndarray, dtype: np.dtype, objective: Objective) -> np.ndarray:
        return targets.encode_classes(self._label_binarizer, y, dtype, objective)

    def _decode(self, output: np.ndarray) -> np.ndarray:
        return targets.decode_classes(self._label_binarizer, output, self.out_activation_)

    def _stratify(self, y: np.ndarray) -> np.ndarray | None:
        # scikit-learn stratifies where there is one output (two classes, not more), by the encoded y as text
        return self._label_binarizer.transform(y).ravel().astype(bool).astype(str) if self.n_outputs_ == 1 else None

    def _score(self, y: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None) -> metrics.Score:
        threshold, task = 0.0 if _is_hinge(self) else 0.5, self._label_binarizer.y_type_
        # targets are class indices, or 0/1 that label smoothing has moved towards 1/2
        truth = targets if targets.ndim == 1 else targets.argmax(axis=1) if task == "multiclass" else targets > 0.5

        def correct(outputs: np.ndarray) -> np.ndarray:
            if task == "multiclass":
                return outputs.argmax(axis=1) == truth
            if task == "binary" and len(self.classes_) == 1:
                return np.ones(len(outputs), dtype=bool)
            return ((outputs > threshold) == truth).all(axis=1)

        return metrics.accuracy(correct, sample_weight)

    @_if_partial_fit
    @fit_context
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None, *, communicator: Any = None
    ) -> Self:
        """Train for one epoch, going on from the present weights and optimizer.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
        sample_weight : array-like of shape (n_samples,), default=None
            Rows without weight change nothing; before any other rows `loss_` is then NaN.
        classes : array-like of shape (n_classes,), default=None
            All classes that any call will bring; needed in the first one.
        communicator : Communicator or MPI communicator, default=None
            Of several processes that make this call together, as for :meth:`fit`.

        Returns
        -------
        self : object
        """
        if _check_partial_fit_first_call(self, classes):
            y = device_arrays.on_host(self, y, "y")
            self._label_binarizer = LabelBinarizer()
            self._label_binarizer.fit(_indicators(y) if type_of_target(y).startswith("multilabel") else classes)
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' makes no sense with partial_fit, which sees a part of the rows; compute the"
                " weights over all of them with sklearn.utils.class_weight.compute_class_weight and pass them as a dict"
            )
        return self._fit(X, y, sample_weight, Extras(incremental=True, communicator=communicator))

    def predict(self, X: Any) -> np.ndarray:
        """Predict class labels.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Class labels, or label indicators; a NumPy array wherever X is. Indicators are a sparse matrix, as in
            scikit-learn, if the first fit got them as one.
        """
        return self._decode(self._outputs_of(X))

    @_if_decision_values
    def decision_function(self, X: Any) -> np.ndarray:
        """Return the decision values of the hinge losses; the predicted class has the largest.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes one value per row, positive for ``classes_[1]``; otherwise columns in the order of
            ``classes_``. For X on a GPU, with scikit-learn's ``array_api_dispatch``, an array of X's own library.
        """
        values = self._outputs_of(X, True)
        return values.ravel() if self.n_outputs_ == 1 else values

    def _keep_out_of_fold(self, outputs: np.ndarray) -> None:
        if _is_hinge(self):
            self.oof_decision_function_ = outputs.ravel() if self.n_outputs_ == 1 else outputs
        else:
            self.oof_predict_proba_ = self._probabilities(outputs)

    @_if_probabilities
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class (or label).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``; rows sum to one, except for multilabel targets. For X on a GPU, with
            scikit-learn's ``array_api_dispatch``, an array of X's own library.
        """
        return self._probabilities(self._outputs_of(X, True))

    def _probabilities(self, proba: Any) -> Any:
        """Return the probabilities of all classes, from outputs (n, n_outputs)."""
        if self.n_outputs_ > 1:
            return proba
        if type(proba) is not np.ndarray:
            return device_arrays.both_classes(proba)
        both = np.empty((len(proba), 2), dtype=proba.dtype)
        both[:, 1:] = proba
        np.subtract(1, proba, out=both[:, :1])
        return both

    @_if_probabilities
    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of :meth:`predict_proba`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        proba = self.predict_proba(X)
        if type(proba) is not np.ndarray:
            return device_arrays.namespace(proba).log(proba)
        return np.log(proba, out=proba)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = not _is_hinge(self)
        return tags


@entered
@document
@explained
@dataclass(eq=False, repr=False)
class MLPRegressor(RegressorMixin, ModelMethods, Inside, _BaseMLP):
    """Multi-layer perceptron regressor for one or several outputs.

    Drop-in for :class:`sklearn.neural_network.MLPRegressor`: the same parameters and ``random_state`` give the same
    weights, up to rounding.

    Parameters
    ----------
    loss : {'squared_error', 'absolute_error', 'huber', 'log_cosh', 'quantile', 'poisson', 'gamma', 'kl_divergence'}, \
            (name, dict) or formula, default='squared_error'
        The minimised loss: half the squared error; the absolute error; Huber's loss (``("huber", {"delta": 1.0})``);
        log cosh of the error; the pinball loss of a quantile (``("quantile", {"quantile": 0.9})``); half the Poisson
        (``y >= 0``) or gamma (``y > 0``) deviance with exponential output; the Kullback-Leibler divergence of
        distributions (each row of y is one) with softmax output; or a formula made by :func:`fastmlp.loss`.

    %(parameters)s

    standardize_y : bool, default=False
        Whether to train on ``(y - mean) / std``, by the training rows and for each output. Predictions, scores and the
        fitted weights are in the units of y: std and mean are folded into the last layer. Losses, `tol` and parameters
        of the loss (Huber's delta) are in units of std. Not for losses whose targets have a range of their own.

    Attributes
    ----------
    %(attributes)s

    References
    ----------
    Rumelhart, Hinton and Williams (1986), Learning representations by back-propagating errors.
    Kingma and Ba (2014), Adam: a method for stochastic optimization, arXiv:1412.6980.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import scale
    >>> from fastmlp import MLPRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = MLPRegressor(hidden_layer_sizes=(32,), learning_rate_init=0.01, max_iter=500, random_state=0)
    >>> reg.fit(scale(X), scale(y)).score(scale(X), scale(y)) > 0.5
    True
    """

    _parameter_constraints: ClassVar[dict] = CONSTRAINTS | REGRESSOR_CONSTRAINTS
    _numeric_targets = True

    loss: types.RegressorLoss = "squared_error"
    hidden_layer_sizes: types.HiddenLayerSizes = (100,)
    activation: types.Activation = "relu"
    standardize_y: bool = field(default=False, kw_only=True)

    def _standardizes(self) -> bool:
        return self.standardize_y

    def _objective(self, y: np.ndarray) -> Objective:
        objective = targets.resolve_loss("regression", self.loss, 1 if y.ndim == 1 else y.shape[1])
        if self.standardize_y:
            targets.check_standardizable(objective)
        return objective

    def _encode(self, y: np.ndarray, dtype: np.dtype, objective: Objective) -> np.ndarray:
        # standardised before they are rounded to the network's dtype
        return targets.encode_values(y, np.dtype(np.float64) if self.standardize_y else dtype, objective.loss)

    def _decode(self, output: np.ndarray) -> np.ndarray:
        return output.ravel() if output.shape[1] == 1 else output

    def _keep_out_of_fold(self, outputs: np.ndarray) -> None:
        self.oof_prediction_ = self._decode(outputs)

    def _score(self, y: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None) -> metrics.Score:
        return metrics.r2(y, sample_weight, targets.dtype)

    def predict(self, X: Any) -> np.ndarray:
        """Predict values.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Values. For X on a GPU, with scikit-learn's ``array_api_dispatch``, an array of X's own library.
        """
        return self._decode(self._outputs_of(X, True))

    # not only for stochastic solvers: scikit-learn's regressor, unlike its classifier, goes on with lbfgs too
    @_if_one_network
    @fit_context
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, *, communicator: Any = None) -> Self:
        """Train for one epoch, going on from the present weights and optimizer.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None
            Rows without weight change nothing; before any other rows `loss_` is then NaN.
        communicator : Communicator or MPI communicator, default=None
            Of several processes that make this call together, as for :meth:`fit`.

        Returns
        -------
        self : object
        """
        return self._fit(X, y, sample_weight, Extras(incremental=True, communicator=communicator))
