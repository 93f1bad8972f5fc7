"""Targets per task: its loss, and users' y <-> the targets and outputs of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.class_weight import compute_sample_weight

from fastmlp.kernels import formulas
from fastmlp.model import choices

#: Loss by output activation: the canonical pairs, for which d loss / d z = prediction - target.
LOSS_OF_LINK = {
    "softmax": "log_loss",
    "logistic": "binary_log_loss",
    "identity": "squared_error",
    "exp": "poisson",
}

#: Name of a loss for classifiers -> its row for class indices or one output per class, and its row for 0/1 outputs.
CLASSIFIER_LOSSES = {
    "log_loss": ("log_loss", "binary_log_loss"),
    "focal": ("focal", "binary_focal"),
    "hinge": ("hinge", "hinge"),
    "squared_hinge": ("squared_hinge", "squared_hinge"),
    "perceptron": ("perceptron", "perceptron"),
}
#: Those that give decision values, by which one class is told from the rest, and no probabilities.
DECISION_LOSSES = tuple(name for name, (row, _) in CLASSIFIER_LOSSES.items() if formulas.LOSSES[row].link == "identity")

#: Losses of regressors: the rows that no classifier uses, and whose targets are not classes.
REGRESSOR_LOSSES = tuple(
    name
    for name, row in formulas.LOSSES.items()
    if not row.class_targets and all(name not in rows for rows in CLASSIFIER_LOSSES.values())
)


class Objective(NamedTuple):
    """What a network is trained for."""

    loss: Any  # an entry of Network.loss
    link: str  # output activation
    n_outputs: int
    smoothing: float = 0.0  # how far 0/1 targets are moved towards 1/2


def task_of(binarizer: LabelBinarizer) -> str:
    """Return the task of a classifier: "binary", "multiclass" or "multilabel"."""
    return "multilabel" if binarizer.y_type_.startswith("multilabel") else binarizer.y_type_


def resolve_loss(task: str, loss: Any, n_outputs: int) -> Objective:
    """Return the row of ``formulas.LOSSES`` that serves a task, and its link, for a loss as users write it.

    Tasks are "binary", "multiclass", "multilabel" and "regression". A "binary" network has one output, others have one
    per class, label or column of y. The ValueError says that the loss is unknown, that a parameter of it is out of
    range, or that the combination makes no sense.

    Examples
    --------
    >>> from fastmlp.data.targets import resolve_loss
    >>> resolve_loss("multiclass", ("log_loss", {"label_smoothing": 0.1}), 3)
    Objective(loss=('log_loss', {'label_smoothing': 0.1}), link='softmax', n_outputs=3, smoothing=0.0)
    >>> resolve_loss("binary", ("focal", {"gamma": 1}), 1)
    Objective(loss=('binary_focal', {'gamma': 1.0}), link='logistic', n_outputs=1, smoothing=0.0)
    """
    if task == "regression":
        chosen = choices.entry(formulas.LOSSES, loss, "loss", REGRESSOR_LOSSES)
        if chosen == "kl_divergence" and n_outputs < 2:
            raise ValueError(
                "loss='kl_divergence' needs y of shape (n_samples, n_categories) with two or more categories: each row "
                "is a distribution over them"
            )
        return Objective(chosen, link_of(chosen), n_outputs)
    return _classifier_objective(task, loss, n_outputs)


def _classifier_objective(task: str, loss: Any, n_outputs: int) -> Objective:
    chosen = choices.entry(formulas.LOSSES, loss, "loss", CLASSIFIER_LOSSES)
    if choices.is_formula(chosen):
        return _formula_objective(task, chosen, n_outputs)
    name, given = choices.name_of(chosen), choices.given_parameters(chosen)
    if task == "multilabel" and name in DECISION_LOSSES:
        raise ValueError(
            f"loss={name!r} makes no sense with multilabel targets: it tells classes apart by the largest decision "
            "value, of which several labels may be true at once; use 'log_loss' or 'focal'"
        )
    row = CLASSIFIER_LOSSES[name][0 if task == "multiclass" else 1]
    takes = {parameter: value for parameter, value in given.items() if parameter in formulas.LOSSES[row].parameters}
    smoothing = 0.0 if "label_smoothing" in takes else given.get("label_smoothing", 0.0)
    return Objective((row, takes) if takes else row, link_of(row), n_outputs, smoothing)


def _formula_objective(task: str, loss: Any, n_outputs: int) -> Objective:
    """Return the objective of a formula whose targets are 0 and 1, one for each output."""
    if loss.link == "exp":
        raise ValueError(
            f"loss={loss!r} has link='exp', whose predictions are no probabilities: MLPClassifier takes"
            " formulas with the link 'identity', of decision values, or 'logistic'"
        )
    if task == "multiclass" and loss.link == "logistic":
        raise ValueError(
            f"loss={loss!r} has link='logistic', the probability of one class or label: for {n_outputs} classes take"
            " link='identity', of which the largest decision value wins"
        )
    if task == "multilabel" and loss.link == "identity":
        raise ValueError(
            f"loss={loss!r} has link='identity', decision values of which the largest wins; several labels may be true"
            " at once: take link='logistic'"
        )
    return Objective(loss, loss.link, n_outputs)


def gives_decisions(loss: Any) -> bool:
    """Return whether classifiers with this loss, as users write it, have decision values and no probabilities."""
    if choices.is_formula(loss):
        return getattr(loss, "link", None) == "identity"
    return choices.name_of(loss) in DECISION_LOSSES


def takes_classes(loss: Any) -> bool:
    """Return whether the targets of a loss, an entry of ``Network.loss``, are class indices."""
    return not choices.is_formula(loss) and formulas.LOSSES[choices.name_of(loss)].class_targets


def link_of(loss: Any) -> str:
    """Return the output activation of a loss, an entry of ``Network.loss``."""
    return formulas.LOSSES[choices.name_of(loss)].link if isinstance(loss, str | tuple) else loss.link


# --- classes ----------------------------------------------------------------------------------------------------------


def binarizer_of(y: Any) -> LabelBinarizer:
    """Return scikit-learn's binarizer, fitted on the targets of a classifier.

    It looks five times at what kind of targets they are. Whole numbers and texts in one column need one look.
    """
    binarizer = LabelBinarizer()
    if type(y) is not np.ndarray or y.ndim != 1 or y.dtype.kind not in "biuU" or not y.dtype.isnative:
        return binarizer.fit(y)
    classes = np.unique(y)
    if 2 * len(classes) > len(y):  # some releases of scikit-learn warn of so many
        return binarizer.fit(y)
    binarizer.y_type_ = "multiclass" if len(classes) > 2 else "binary"
    binarizer.sparse_input_ = False
    binarizer.classes_ = np.array(list(classes))  # texts no longer than the longest of them
    return binarizer


def n_class_outputs(binarizer: LabelBinarizer) -> int:
    """Return the number of output neurons: one per class or label, a single one for two classes."""
    return 1 if binarizer.y_type_ == "binary" else len(binarizer.classes_)


def encode_classes(
    binarizer: LabelBinarizer, y: np.ndarray, dtype: np.dtype, objective: Objective | None = None
) -> np.ndarray:
    """Return the training targets of a classifier for class labels (n,) or label indicators (n, n_labels).

    They are class indices (n,) intp for more than two classes, unless the loss takes one output per class; else 0/1
    (n, n_outputs) of the dtype, y (1 - smoothing) + smoothing / 2. Without an objective the loss is log loss.
    """
    by_class = objective is None or takes_classes(objective.loss)
    if binarizer.y_type_ == "multiclass" and by_class:
        return np.searchsorted(binarizer.classes_, y).astype(np.intp, copy=False)
    if binarizer.y_type_ == "binary" and y.ndim == 1:
        # y has been judged already: the binarizer would judge it again, which takes longer than some epochs
        is_second = y == binarizer.classes_[1] if len(binarizer.classes_) == 2 else np.zeros(len(y), dtype=bool)
        encoded = is_second.astype(dtype).reshape(-1, 1)
    else:
        encoded = np.ascontiguousarray(binarizer.transform(y), dtype=dtype)
    if objective is None or objective.smoothing == 0.0:
        return encoded
    return encoded * dtype.type(1.0 - objective.smoothing) + dtype.type(0.5 * objective.smoothing)


def decode_classes(binarizer: LabelBinarizer, outputs: np.ndarray, link: str = "logistic") -> np.ndarray:
    """Return the class labels (n,), or label indicators (n, n_labels), from outputs (n, n_outputs).

    With the link "identity" outputs are decision values, with the threshold 0, else probabilities. Indicators are
    sparse, as scikit-learn's binarizer makes them, if those that it was fitted on were.
    """
    classes = binarizer.classes_
    if binarizer.y_type_ == "multiclass":
        return classes.take(outputs.argmax(axis=1), mode="clip")
    chosen = (outputs > (0.0 if link == "identity" else 0.5)).astype(int)
    if binarizer.y_type_ == "binary":
        return np.repeat(classes[0], len(chosen)) if len(classes) == 1 else classes[chosen.ravel()]
    return binarizer.inverse_transform(chosen) if binarizer.sparse_input_ else chosen


def weigh_classes(
    class_weight: Any, classes: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None
) -> np.ndarray | None:
    """Return the sample weights (n,) times the class weights, float64; without class weights they are as given.

    Class weights are as in scikit-learn: None, "balanced", a dict of label to weight, or for multilabel targets a list
    of dicts; a class that a dict does not name has weight 1. `classes` are the sorted labels, y is (n,) or
    (n, n_labels). A ValueError refuses weights that are negative or no numbers, and classes that y does not have.
    """
    if class_weight is None:
        return sample_weight
    for of_output in class_weight if isinstance(class_weight, list) else [class_weight]:
        _check_class_weight(of_output)
    if isinstance(class_weight, Mapping) and y.ndim == 1:
        weight = _weight_per_class(class_weight, classes)[np.searchsorted(classes, y)]
    else:
        weight = compute_sample_weight(class_weight, y)
    return weight if sample_weight is None else weight * sample_weight


def _check_class_weight(class_weight: Any) -> None:
    if isinstance(class_weight, Mapping):
        for label, weight in class_weight.items():
            if not isinstance(weight, Real) or not 0 <= float(weight) < np.inf:
                raise ValueError(f"class_weight[{label!r}] must be in [0, inf), got {weight!r}")
    elif not isinstance(class_weight, str) or class_weight != "balanced":
        raise ValueError(f"class_weight must be None, 'balanced' or a dict of label to weight, got {class_weight!r}")


def _weight_per_class(class_weight: Mapping[Any, float], classes: np.ndarray) -> np.ndarray:
    labels = classes.tolist()
    unknown = [label for label in class_weight if label not in labels]
    # weights for absent classes are all right, a fold may lack one, unless a present class is without: a typing error
    if unknown and any(label not in class_weight for label in labels):
        raise ValueError(f"class_weight names {unknown}, which y does not have; its classes are {labels}")
    return np.array([class_weight.get(label, 1.0) for label in labels], dtype=np.float64)


# --- values -----------------------------------------------------------------------------------------------------------

#: How far the sum of a distribution may be from 1: distributions come rounded.
SUM_TOLERANCE = 1e-4


def _check_positive(y: np.ndarray) -> None:
    if not (y > 0).all():
        raise ValueError(f"loss='gamma' needs targets above 0, got {y.min():g}")


def _check_distributions(y: np.ndarray) -> None:
    needs = "loss='kl_divergence' needs rows of y that are distributions"
    if (y < 0).any():
        raise ValueError(f"{needs}, got the probability {y.min():g}")
    sums = y.sum(axis=1, dtype=np.float64)
    wrong = ~(np.abs(sums - 1.0) <= SUM_TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"{needs} and add up to 1; row {row} adds up to {sums[row]:g}")


#: Checks of targets (n, n_outputs) by loss. None for poisson: scikit-learn takes negative ones, its loss is NaN then.
CHECKS: dict[str, Callable[[np.ndarray], None]] = {"gamma": _check_positive, "kl_divergence": _check_distributions}


def check_standardizable(objective: Objective) -> None:
    """Raise a ValueError if standardised targets make no sense for a loss, because its outputs have a range."""
    if objective.link != "identity":
        raise ValueError(
            f"standardize_y=True makes no sense with loss={choices.name_of(objective.loss)!r}, whose predictions have a"
            f" range of their own (link {objective.link!r}); it is for"
            f" {[name for name in REGRESSOR_LOSSES if link_of(name) == 'identity']}"
        )


def encode_values(y: Any, dtype: np.dtype, loss: Any = "squared_error") -> np.ndarray:
    """Return the training targets of a regressor: (n, n_outputs) of the dtype.

    A TypeError refuses sparse y and y without numbers: for text and dates NumPy's own, as scikit-learn's users know it.
    A ValueError refuses targets that this loss cannot have: 0 or less for "gamma", rows that are no distributions for
    "kl_divergence".
    """
    if issparse(y):
        raise TypeError("y must be a dense array of numbers, got a sparse matrix")
    y = np.asarray(y)
    if y.dtype.kind not in "biufO":
        np.subtract(y, np.empty(y.shape, dtype))
    encoded = np.ascontiguousarray(y.reshape(len(y), -1), dtype=dtype)
    if isinstance(loss, str | tuple) and choices.name_of(loss) in CHECKS:
        CHECKS[choices.name_of(loss)](encoded)
    return encoded
