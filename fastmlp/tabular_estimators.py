"""RealMLP and TabM: networks for tables, as scikit-learn's estimators.

Here is what tells the models and the tasks apart.  What they share is in estimator/tabular.py, their published values
in estimator/recipes.py, the parameters' documentation in estimator/tabular_parameters.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.preprocessing import LabelBinarizer

from fastmlp.data import targets
from fastmlp.data.targets import Objective
from fastmlp.estimator import recipes, types
from fastmlp.estimator.base import entered
from fastmlp.estimator.class_targets import ClassTargets
from fastmlp.estimator.methods import FileMethods
from fastmlp.estimator.mistakes import explained
from fastmlp.estimator.parameters import activations_of
from fastmlp.estimator.tabular import BaseTabular
from fastmlp.estimator.tabular_parameters import RealMLPParameters, TabMParameters, constraints_of, document
from fastmlp.model import choices, tabular_initialization
from fastmlp.model.network import Network
from fastmlp.preprocessing.coder import ColumnCoder
from fastmlp.preprocessing.learned import Categorical, Numeric
from fastmlp.training import metrics
from fastmlp.training.factors import Factors

# --- tasks ------------------------------------------------------------------------------------------------------------


class _Classes(ClassifierMixin, FileMethods, ClassTargets, BaseTabular):
    """Targets that are classes, one output each, or labels of which several may be true."""

    _numeric_targets = False
    _label_binarizer: LabelBinarizer

    def _learn_targets(self, y: np.ndarray, incremental: bool) -> None:
        self._label_binarizer = targets.binarizer_of(y)
        self.classes_ = self._label_binarizer.classes_

    @property
    def _is_multilabel(self) -> bool:
        return targets.task_of(self._label_binarizer) == "multilabel"

    def _objective(self, y: np.ndarray) -> Objective:
        task = "multilabel" if self._is_multilabel else "multiclass"
        return targets.resolve_loss(task, self.loss, len(self.classes_))

    def _encode(self, y: np.ndarray, dtype: np.dtype, objective: Objective) -> np.ndarray:
        if self._is_multilabel:
            return targets.encode_classes(self._label_binarizer, y, dtype, objective)
        return np.searchsorted(self.classes_, y).astype(np.intp, copy=False)

    def _stratify(self, y: np.ndarray) -> np.ndarray | None:
        counts = np.unique(y, return_counts=True)[1] if y.ndim == 1 else np.zeros(1)
        n_held_out = np.ceil(self.validation_fraction * len(y))
        return y if counts.min() >= 2 and len(counts) <= min(n_held_out, len(y) - n_held_out) else None

    def _score(self, y: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None) -> metrics.Score:
        if targets.ndim == 1:
            return metrics.accuracy(lambda outputs: outputs.argmax(axis=1) == targets, sample_weight)
        truth = targets > 0.5  # label smoothing has moved 0 and 1 towards 1/2
        return metrics.accuracy(lambda outputs: ((outputs > 0.5) == truth).all(axis=1), sample_weight)

    def _decode(self, output: np.ndarray) -> np.ndarray:
        if self._is_multilabel:
            return targets.decode_classes(self._label_binarizer, output)
        return self.classes_.take(output.argmax(axis=1))

    def _keep_out_of_fold(self, outputs: np.ndarray) -> None:
        self.oof_predict_proba_ = outputs

    def predict(self, X: Any) -> np.ndarray:
        """Predict class labels.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        return self._decode(self._outputs_of(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class (or label).

        Parameters
        ----------
        X : table of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``.
        """
        return self._outputs_of(X)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of :meth:`predict_proba`.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        proba = self.predict_proba(X)
        return np.log(proba, out=proba)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class _Values(RegressorMixin, FileMethods, BaseTabular):
    """Targets that are numbers, standardised for training."""

    _numeric_targets = True
    clamp_output: bool | None

    def _standardizes(self) -> bool:
        # losses of positive targets cannot, and a formula means the targets as they are
        return not choices.is_formula(self.loss) and targets.link_of(choices.name_of(self.loss)) == "identity"

    def _note_targets(self, y: np.ndarray) -> None:
        if self.clamp_output:
            y = y.reshape(len(y), -1).astype(np.float64)
            self.target_range_ = np.array([y.min(axis=0), y.max(axis=0)])

    def _objective(self, y: np.ndarray) -> Objective:
        return targets.resolve_loss("regression", self.loss, 1 if y.ndim == 1 else y.shape[1])

    def _encode(self, y: np.ndarray, dtype: np.dtype, objective: Objective) -> np.ndarray:
        # standardised before they are rounded to the network's dtype
        return targets.encode_values(y, np.dtype(np.float64) if self._standardizes() else dtype, objective.loss)

    def _score(self, y: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None) -> metrics.Score:
        score = metrics.r2(y, sample_weight, targets.dtype)
        return lambda outputs: score(self._within_range(outputs))

    def _decode(self, output: np.ndarray) -> np.ndarray:
        output = self._within_range(output)
        return output.ravel() if output.shape[1] == 1 else output

    def _within_range(self, output: np.ndarray) -> np.ndarray:
        """Return outputs (n, n_outputs) within the range of the training targets, if predictions stay there."""
        if "target_range_" not in vars(self):
            return output
        low, high = self.target_range_.astype(output.dtype)
        return np.clip(output, low, high)

    def _keep_out_of_fold(self, outputs: np.ndarray) -> None:
        self.oof_prediction_ = self._decode(outputs)

    def predict(self, X: Any) -> np.ndarray:
        """Predict values.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        return self._decode(self._outputs_of(X))


# --- models -----------------------------------------------------------------------------------------------------------


class _RealMLP(BaseTabular):
    """RealMLP's network, first values, and factors of its learning rates."""

    tol: ClassVar[float] = 0.0
    drop_last: ClassVar[bool] = True
    _epochs_are_planned = True
    restore_best = "last"

    preset: Any
    use_parametric_act: bool | None
    num_emb_type: Any
    plr_sigma: float
    plr_hidden_1: int
    plr_hidden_2: int
    max_one_hot_cat_size: float | None
    embedding_size: int
    scale_lr_factor: float
    bias_lr_factor: float
    act_lr_factor: float
    plr_lr_factor: float
    first_layer_lr_factor: float

    def _recipe(self) -> Mapping[str, Any]:
        recipe = dict(recipes.REALMLP[self.preset])
        given = self.get_params(deep=False)
        return recipes.resolved(
            {name: value for name, value in recipe.items() if name in given}, given, not self._numeric_targets
        )

    def _coder(self, n_rows: int) -> ColumnCoder:
        limit = self.max_one_hot_cat_size
        return ColumnCoder(
            categorical_features=self.categorical_features,
            scaling="robust_smooth_clip",
            one_hot_limit=None if limit is None or limit == np.inf else int(limit),
            embedding_size=self.embedding_size,
            numeric_embedding="periodic" if self.num_emb_type == "pbld" else None,
            numeric_size=self.plr_hidden_2 - 1,
            frequencies=self.plr_hidden_1,
        )

    def _shape(self) -> dict[str, Any]:
        names = [*map(choices.name_of, activations_of(self.activation, len(self._hidden_sizes())))]
        for name in ("prelu", "rrelu"):
            if self.use_parametric_act and name in names:
                raise ValueError(
                    f"use_parametric_act=True, as with preset='td', makes no sense with activation {name!r}, which has"
                    " slopes of its own: set use_parametric_act=False"
                )
        return {"input_scale": True, "parametric_activations": bool(self.use_parametric_act)}

    def _first_params(self, network: Network, random_state: np.random.RandomState, look: Any) -> np.ndarray:
        if self.preset == "td-s":
            return tabular_initialization.normal_params(network, random_state)
        return tabular_initialization.data_driven_params(network, random_state, look, self.plr_sigma)

    def _segment_factors(self, network: Network) -> Factors:
        """Return the factors by which steps on W = g V are those on V, where g = fan_in^-1/2, times the recipe's.

        The factor of a learning rate enters the decay twice, as in the published implementation.
        """
        lr, decay, epsilon = [], [], []
        for segment in network.segments:
            factor, gain = self._lr_factor(segment.name, segment.layer), 1.0
            if segment.name == "W":
                gain = network.widths[segment.layer] ** -0.5
            lr.append(factor * gain)
            decay.append(0.0 if segment.name == "b" else factor**2)
            epsilon.append(1.0 / gain)
        return Factors(np.array(lr), np.array(decay), np.array(epsilon))

    def _lr_factor(self, name: str, layer: int) -> float:
        first = self.first_layer_lr_factor if layer == 0 else 1.0
        if name.startswith("periodic_"):
            return self.plr_lr_factor
        of_kind = {"W": first, "b": first * self.bias_lr_factor}
        return of_kind.get(name, {"input_scale": self.scale_lr_factor, "mix": self.act_lr_factor}.get(name, 1.0))


class _TabM(BaseTabular):
    """TabM's network, first values, and which of its arrays decay."""

    tol: ClassVar[float] = 1e-12  # an epoch as good as the best one is no improvement
    drop_last: ClassVar[bool] = False

    arch_type: Any
    k: int
    batch_size: Any
    num_emb_type: Any
    num_emb_n_bins: int
    d_embedding: int

    def _recipe(self) -> Mapping[str, Any]:
        found = recipes.resolved(recipes.TABM, self.get_params(deep=False), not self._numeric_targets)
        if self.hidden_layer_sizes is None:
            found["hidden_layer_sizes"] = recipes.TABM_SIZES[self.num_emb_type]
        return found

    def _note_rows(self, n_rows: int) -> None:
        if self.batch_size == "auto":
            self.batch_size = recipes.tabm_batch_size(n_rows)
        super()._note_rows(n_rows)

    def _coder(self, n_rows: int) -> ColumnCoder:
        return ColumnCoder(
            categorical_features=self.categorical_features,
            scaling="quantile_normal",
            numeric_embedding="piecewise" if self.num_emb_type == "pwl" else None,
            numeric_size=self.d_embedding,
            n_bins=max(min(self.num_emb_n_bins, n_rows - 1), 1),  # fewer than rows
        )

    def _shape(self) -> dict[str, Any]:
        return {"input_scale": True, "members": self.k, "batch_ensemble": self.arch_type == "tabm"}

    def _first_params(self, network: Network, random_state: np.random.RandomState, look: Any) -> np.ndarray:
        return tabular_initialization.member_params(network, random_state, _widths(self.coder_, network))

    def _segment_factors(self, network: Network) -> Factors:
        still = ("b", "piecewise_weight", "piecewise_bias")
        return Factors(decay=np.array([float(segment.name not in still) for segment in network.segments]))


def _widths(coder: ColumnCoder, network: Network) -> list[int]:
    """Return how many columns of the first layer's input each feature makes; all 0 and 1 of a feature are its own."""
    embedded = [block for block in network.inputs if block.kind != "plain"]
    shown = [column.width for column in coder.columns if isinstance(column, Categorical) and column.width]
    n_others = network.widths[0] - sum(shown) - sum(block.width for block in embedded)
    n_indicators = sum(isinstance(column, Numeric) and bool(column.indicator) for column in coder.columns)
    widths = [block.size for block in embedded for _ in range(block.n_features)]
    return [*widths, *[1] * (n_others - n_indicators), *shown, *[1] * n_indicators]


@entered
@document
@explained
@dataclass(eq=False, repr=False)
class RealMLPClassifier(_RealMLP, _Classes, RealMLPParameters):
    """RealMLP, a tuned multi-layer perceptron for tables: classification.

    Tables go straight in: texts, categories, booleans and missing values are coded, numbers are scaled robustly. The
    defaults are the published ones, tuned on 118 data sets.

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
    Holzmueller, Grinsztajn and Steinwart (2024), Better by default: strong pre-tuned MLPs and boosted trees on tabular
    data, arXiv:2407.04491.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastmlp import RealMLPClassifier
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> clf = RealMLPClassifier(hidden_layer_sizes=(32, 32), max_iter=64, random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict] = constraints_of(RealMLPParameters, True)

    loss: types.ClassifierLoss | None = field(default=None, kw_only=True)
    class_weight: types.ClassWeight | None = field(default=None, kw_only=True)


@entered
@document
@explained
@dataclass(eq=False, repr=False)
class RealMLPRegressor(_RealMLP, _Values, RealMLPParameters):
    """RealMLP, a tuned multi-layer perceptron for tables: regression on one or several outputs.

    Tables go straight in: texts, categories, booleans and missing values are coded, numbers are scaled robustly, and
    targets are standardised. The defaults are the published ones, tuned on 118 data sets.

    Parameters
    ----------
    %(parameters)s

    Attributes
    ----------
    target_range_ : ndarray of shape (2, n_outputs)
        Smallest and largest training target; only if predictions are clamped.

    %(attributes)s

    References
    ----------
    Holzmueller, Grinsztajn and Steinwart (2024), Better by default: strong pre-tuned MLPs and boosted trees on tabular
    data, arXiv:2407.04491.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from fastmlp import RealMLPRegressor
    >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
    >>> reg = RealMLPRegressor(hidden_layer_sizes=(32, 32), max_iter=32, random_state=0).fit(X, y)
    >>> reg.score(X, y) > 0.4
    True
    """

    _parameter_constraints: ClassVar[dict] = constraints_of(RealMLPParameters, False) | {
        "clamp_output": ["boolean", None]
    }

    loss: types.RegressorLoss | None = field(default=None, kw_only=True)
    clamp_output: bool | None = field(default=None, kw_only=True)


@entered
@document
@explained
@dataclass(eq=False, repr=False)
class TabMClassifier(_TabM, _Classes, TabMParameters):
    """TabM, many multi-layer perceptrons that share their weights, for tables: classification.

    Tables go straight in: texts, categories, booleans and missing values are coded, numbers are mapped to a normal
    distribution and embedded. The members' mean probability is the prediction.

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
    Gorishniy, Kotelnikov and Babenko (2024), TabM: advancing tabular deep learning with parameter-efficient ensembling,
    arXiv:2410.24210.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastmlp import TabMClassifier
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> clf = TabMClassifier(k=4, hidden_layer_sizes=(32,), max_iter=20, n_iter_no_change=20, random_state=0)
    >>> clf.fit(X, y).score(X, y) > 0.8
    True
    """

    _parameter_constraints: ClassVar[dict] = constraints_of(TabMParameters, True)

    loss: types.ClassifierLoss | None = field(default=None, kw_only=True)
    class_weight: types.ClassWeight | None = field(default=None, kw_only=True)


@entered
@document
@explained
@dataclass(eq=False, repr=False)
class TabMRegressor(_TabM, _Values, TabMParameters):
    """TabM, many multi-layer perceptrons that share their weights, for tables: regression on one or several outputs.

    Tables go straight in: texts, categories, booleans and missing values are coded, numbers are mapped to a normal
    distribution and embedded, targets are standardised. The members' mean is the prediction.

    Parameters
    ----------
    %(parameters)s

    Attributes
    ----------
    target_range_ : ndarray of shape (2, n_outputs)
        Smallest and largest training target; only if predictions are clamped.

    %(attributes)s

    References
    ----------
    Gorishniy, Kotelnikov and Babenko (2024), TabM: advancing tabular deep learning with parameter-efficient ensembling,
    arXiv:2410.24210.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from fastmlp import TabMRegressor
    >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
    >>> reg = TabMRegressor(k=4, hidden_layer_sizes=(32,), max_iter=20, n_iter_no_change=20, random_state=0)
    >>> reg.fit(X, y).score(X, y) > 0.3
    True
    """

    _parameter_constraints: ClassVar[dict] = constraints_of(TabMParameters, False) | {"clamp_output": ["boolean"]}

    loss: types.RegressorLoss | None = field(default=None, kw_only=True)
    clamp_output: bool = field(default=False, kw_only=True)
