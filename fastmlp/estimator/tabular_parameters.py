"""Parameters of the estimators for tables: what each accepts, with its default, and their documentation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

import numpy as np

from fastmlp.data.targets import REGRESSOR_LOSSES
from fastmlp.estimator import types
from fastmlp.estimator.parameters import HIDDEN_ACTIVATIONS, Names, parameter
from fastmlp.kernels.language import ActivationFormula, LossFormula
from fastmlp.model.network import MATMUL_PRECISIONS
from fastmlp.sklearn_compat import Interval, Options
from fastmlp.training.schedules import SCHEDULES, SHARES

#: Losses of classifiers of tables: those that give probabilities.
CLASSIFIER_LOSSES = ("log_loss", "focal")

_AT_LEAST_1 = Interval(Integral, 1, None, closed="left")
_ABOVE_0 = Interval(Real, 0, None, closed="neither")
_AT_LEAST_0 = Interval(Real, 0, None, closed="left")
_BELOW_1 = Interval(Real, 0, 1, closed="left")
_NEVER = Options(Real, {np.inf})


# ruff: noqa: RUF009 - parameter() returns a field, made once
@dataclass(eq=False, repr=False, kw_only=True)
class TabularParameters:
    """The arguments that all constructors of estimators for tables have, with their defaults; kept as given."""

    categorical_features: Any = parameter("from_dtype", Names({"from_dtype"}), "array-like", None)
    validation_fraction: float = parameter(0.2, _BELOW_1)
    monitor: types.Monitor = parameter("score", str, callable, list, tuple, dict)
    beta_1: float = parameter(0.9, _BELOW_1)
    epsilon: float = parameter(1e-8, _ABOVE_0)
    max_grad_norm: float | None = parameter(None, _ABOVE_0, None)
    random_state: types.RandomState | None = parameter(None, "random_state")
    train_score: bool = parameter(False, "boolean")
    callbacks: types.Callbacks | None = parameter(None, list, tuple, None)
    verbose: bool | int = parameter(False, "verbose")
    dtype: Literal["float32", "float64"] = parameter("float32", Names({"float32", "float64"}))
    backend: types.BackendName = parameter("auto", str)
    n_jobs: int | None = parameter(None, _AT_LEAST_1, Interval(Integral, None, -1, closed="right"), None)
    n_ens: int = parameter(1, _AT_LEAST_1)
    ens_stopping: types.EnsembleStopping = parameter("member", Names({"member", "ensemble"}))
    n_cv: int = parameter(1, _AT_LEAST_1)
    matmul_precision: types.MatmulPrecision = parameter("highest", Names(MATMUL_PRECISIONS))


@dataclass(eq=False, repr=False, kw_only=True)
class RealMLPParameters(TabularParameters):
    """The arguments of RealMLP's constructors; None stands for the preset's value."""

    preset: Literal["td", "td-s"] = parameter("td", Names({"td", "td-s"}))
    ens_stopping: types.EnsembleStopping = parameter("ensemble", Names({"member", "ensemble"}))
    loss: Any = parameter(None)
    hidden_layer_sizes: types.HiddenLayerSizes = parameter((256, 256, 256), "array-like", _AT_LEAST_1)
    activation: types.Activation | None = parameter(
        None, Names(HIDDEN_ACTIVATIONS), tuple, list, ActivationFormula, None
    )
    use_parametric_act: bool | None = parameter(None, "boolean", None)
    batch_size: int = parameter(256, _AT_LEAST_1)
    max_iter: int = parameter(256, _AT_LEAST_1)
    learning_rate: types.LearningRate = parameter("coslog4", Names(SCHEDULES), tuple, list, callable)
    learning_rate_init: float | None = parameter(None, _ABOVE_0, None)
    beta_2: float = parameter(0.95, _BELOW_1)
    dropout: types.Dropout | None = parameter(None, Real, tuple, list, np.ndarray, None)
    dropout_schedule: types.ShareSchedule = parameter("flat_cos", Names(SHARES), tuple, list, callable)
    weight_decay: float | None = parameter(None, _BELOW_1, None)
    weight_decay_schedule: types.ShareSchedule = parameter("flat_cos", Names(SHARES), tuple, list, callable)
    n_iter_no_change: float = parameter(np.inf, _AT_LEAST_1, _NEVER)
    patience_growth: float = parameter(1.0, _AT_LEAST_0)
    num_emb_type: Literal["pbld", "none"] | None = parameter(None, Names({"pbld", "none"}), None)
    plr_sigma: float = parameter(0.1, _ABOVE_0)
    plr_hidden_1: int = parameter(16, _AT_LEAST_1)
    plr_hidden_2: int = parameter(4, Interval(Integral, 2, None, closed="left"))
    max_one_hot_cat_size: float | None = parameter(None, _AT_LEAST_1, _NEVER, None)
    embedding_size: int = parameter(8, _AT_LEAST_1)
    scale_lr_factor: float = parameter(6.0, _AT_LEAST_0)
    bias_lr_factor: float = parameter(0.1, _AT_LEAST_0)
    act_lr_factor: float = parameter(0.1, _AT_LEAST_0)
    plr_lr_factor: float = parameter(0.1, _AT_LEAST_0)
    first_layer_lr_factor: float = parameter(1.0, _AT_LEAST_0)


@dataclass(eq=False, repr=False, kw_only=True)
class TabMParameters(TabularParameters):
    """The arguments of TabM's constructors; None stands for a value that depends on others."""

    arch_type: Literal["tabm", "tabm-mini"] = parameter("tabm", Names({"tabm", "tabm-mini"}))
    k: int = parameter(32, Interval(Integral, 2, None, closed="left"))
    loss: Any = parameter(None)
    hidden_layer_sizes: types.HiddenLayerSizes | None = parameter(None, "array-like", _AT_LEAST_1, None)
    activation: types.Activation = parameter("relu", Names(HIDDEN_ACTIVATIONS), tuple, list, ActivationFormula)
    batch_size: types.BatchSize = parameter("auto", Names({"auto"}), _AT_LEAST_1)
    max_iter: int = parameter(1000, _AT_LEAST_1)
    learning_rate: types.LearningRate = parameter("constant", Names(SCHEDULES), tuple, list, callable)
    learning_rate_init: float = parameter(0.002, _ABOVE_0)
    beta_2: float = parameter(0.999, _BELOW_1)
    dropout: types.Dropout = parameter(0.1, Real, tuple, list, np.ndarray)
    weight_decay: float = parameter(3e-4, _BELOW_1)
    max_grad_norm: float | None = parameter(1.0, _ABOVE_0, None)
    n_iter_no_change: float = parameter(16, _AT_LEAST_1, _NEVER)
    num_emb_type: Literal["pwl", "none"] = parameter("pwl", Names({"pwl", "none"}))
    num_emb_n_bins: int = parameter(48, Interval(Integral, 2, None, closed="left"))
    d_embedding: int = parameter(16, _AT_LEAST_1)


_LOSSES = {
    True: [Names(CLASSIFIER_LOSSES), tuple, list, None],
    False: [Names(REGRESSOR_LOSSES), tuple, list, LossFormula, None],
}


def constraints_of(parameters: type, is_classifier: bool) -> dict[str, list[Any]]:
    """Return scikit-learn's validation of each parameter."""
    found = {row.name: row.metadata["allowed"] for row in fields(parameters)}
    of_classes: dict[str, list[Any]] = {"class_weight": [dict, list, Names({"balanced"}), None]}
    return found | {"loss": _LOSSES[is_classifier]} | (of_classes if is_classifier else {})


# --- documentation ---------------------------------------------------------------------------------------------------

_SHARED = """
    categorical_features : 'from_dtype', array-like of bool, int or str, or None, default='from_dtype'
        The categorical columns: a mask, indices or names, as in
        :class:`~sklearn.ensemble.HistGradientBoostingClassifier`. With 'from_dtype' they are the columns of texts, of
        objects that are not all numbers, and of dtypes made for categories.

    validation_fraction : float, default=0.2
        Share of the rows that is held out to choose the best epoch, stratified by class, unless fit gets validation
        rows; 0 trains on all rows and keeps the last epoch.

    monitor : 'score', 'loss', scorer name, callable, list of names or dict of name to scorer, default='score'
        What is watched on the validation rows, as in :class:`~fastmlp.MLPClassifier`: accuracy or R2 by default.

    beta_1, epsilon : float, default=0.9 and 1e-8
        Decay of Adam's first moment; what is added to the root of the second one.

    random_state : int, RandomState instance or None, default=None
        Source of the split, first weights, dropout's seed and shuffles.

    train_score : bool, default=False
        Whether to evaluate the training rows, too, after each epoch.

    callbacks : list of callable, default=None
        Each is called with an :class:`fastmlp.callbacks.EpochInfo` after each epoch. Its `estimator` is a copy of this
        one in training.

    verbose : bool, default=False
        Whether to print the loss of each epoch.

    dtype : {{'float32', 'float64'}}, default='float32'
        Of the weights and of all arithmetic.

    backend : str, default='auto'
        Engine, as in :class:`~fastmlp.MLPClassifier`.

    n_jobs : int, default=None
        Most threads to use; None leaves the choice to the engine.

    n_ens : int, default=1
        Networks to train on the same rows, each from its own first weights. Predictions are their mean, of
        probabilities or values. They train side by side, one thread each.

    ens_stopping : {{'member', 'ensemble'}}, default={ens_stopping}
        Whose validation score chooses the epoch of each network, and stops its training: its own, or that of the mean
        of all networks on the same rows, which then all have the same epoch.

    n_cv : int, default=1
        Folds of cross-validation; with more than 1 there are `n_ens` networks per fold. Each trains on the rows outside
        its fold and has those of the fold as validation rows.

    matmul_precision : {{'highest', 'high', 'medium'}}, default='highest'
        How exact the matrix products are at the least, as in :class:`~fastmlp.MLPClassifier`; with `dtype` 'float64'
        there is 'highest' only.
"""

_REALMLP = """
    preset : {{'td', 'td-s'}}, default='td'
        Values of the parameters that are None: the tuned defaults of RealMLP, or those of its simplified form.

    loss : {losses}, default=None
        The minimised loss. None is {loss_default}.

    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=(256, 256, 256)
        Units of each hidden layer.

    activation : name, (name, dict), formula or sequence, default=None
        Activation of the hidden layers. None is 'selu' for classes, 'mish' for values.

    use_parametric_act : bool, default=None
        Whether each neuron learns how much of its activation it has. None is True with 'td', False with 'td-s'.

    batch_size : int, default=256
        Rows per mini-batch; the last batch of an epoch is left out if it is not whole.

    max_iter : int, default=256
        Epochs. Schedules depend on it.

    learning_rate : name, (name, dict) or callable, default='coslog4'
        Schedule of the learning rate.

    learning_rate_init : float, default=None
        Largest learning rate, in the NTK parametrisation. None is 0.04 for classes; for values 0.2, 0.07 with 'td-s'.

    beta_2 : float, default=0.95
        Decay of Adam's second moment.

    dropout : float or sequence of float, default=None
        Share of the hidden units that each step leaves out. None is 0.15 with 'td', 0 with 'td-s'.

    dropout_schedule, weight_decay_schedule : name, (name, dict) or callable, default='flat_cos'
        What multiplies `dropout` and `weight_decay` in each step.

    weight_decay : float, default=None
        Decoupled weight decay, not of the biases. None is 0.02 with 'td', 0 with 'td-s'.

    max_grad_norm : float, default=None
        Largest norm of the gradient.

    n_iter_no_change : int, default=np.inf
        Epochs without improvement after which training stops.

    patience_growth : float, default=1.0
        What `n_iter_no_change` grows by for each epoch up to the latest improvement.

    num_emb_type : {{'pbld', 'none'}}, default=None
        How numbers are embedded: periodically, beside the number itself, or not at all. None is 'pbld' with 'td'.

    plr_sigma : float, default=0.1
        Spread of the first frequencies of 'pbld'.

    plr_hidden_1 : int, default=16
        Frequencies per number.

    plr_hidden_2 : int, default=4
        Numbers made of each number, itself included.

    max_one_hot_cat_size : int or np.inf, default=None
        Categories of a column, with one for unknown, up to which it is one-hot; columns with more have embeddings. None
        is 9 with 'td', all with 'td-s'.

    embedding_size : int, default=8
        Numbers made of a category that is embedded.

    scale_lr_factor, bias_lr_factor, act_lr_factor, plr_lr_factor : float, default=6, 0.1, 0.1 and 0.1
        Factors of the learning rate: of the scale in front of the first layer, biases, parametric activations, and
        embeddings of numbers.

    first_layer_lr_factor : float, default=1.0
        Factor of the learning rate of the first layer's weights and biases.
"""

_CLAMP = """
    clamp_output : bool, default=None
        Whether predictions stay within the range of the training targets. None is {clamp}.
"""

_CLASS_WEIGHT = """
    class_weight : dict or 'balanced', default=None
        Weights of classes; they multiply the sample weights, also those of validation rows.
"""

_TABM = """
    arch_type : {{'tabm', 'tabm-mini'}}, default='tabm'
        Whether members differ in factors of all layers and in biases, or only in factors of the first layer's input.

    k : int, default=32
        Members: networks that share most of their weights.

    loss : {losses}, default=None
        The minimised loss. None is {loss_default}.

    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=None
        Units of each hidden layer. None is (512, 512) if numbers are embedded, else (512, 512, 512).

    activation : name, (name, dict), formula or sequence, default='relu'
        Activation of the hidden layers.

    batch_size : int, default='auto'
        Rows per mini-batch; 'auto' is 32 for less than 2800 training rows, then 64, 128, 256, 512 and 1024 from 4500,
        6400, 32 000 and 108 000 rows.

    max_iter : int, default=1000
        Most epochs.

    learning_rate : name, (name, dict) or callable, default='constant'
        Schedule of the learning rate.

    learning_rate_init : float, default=0.002
        Learning rate.

    beta_2 : float, default=0.999
        Decay of Adam's second moment.

    dropout : float or sequence of float, default=0.1
        Share of the hidden units that each step leaves out.

    weight_decay : float, default=0.0003
        Decoupled weight decay, not of the biases.

    max_grad_norm : float, default=1.0
        Largest norm of the gradient.

    n_iter_no_change : int, default=16
        Epochs without improvement of the members' mean on the validation rows after which training stops.

    num_emb_type : {{'pwl', 'none'}}, default='pwl'
        How numbers are embedded: by piecewise linear functions, or not at all.

    num_emb_n_bins : int, default=48
        Most pieces of each.

    d_embedding : int, default=16
        Numbers made of each number.
"""

_ATTRIBUTES = """
    coder_ : fastmlp.preprocessing.coder.ColumnCoder
        What was learned about the columns.

    network_ : fastmlp.model.network.Network
        The network.

    coefs_ : list of ndarray of shape (fan_in, fan_out)
        Weights of each layer, views of one flat vector.

    intercepts_ : list of ndarray of shape (fan_out,)
        Biases of each layer.

    input_scale_ : list of ndarray
        Factors of the columns that the first layer reads. Networks that have them also have ``activation_mixes_``,
        ``periodic_frequency_``, ``periodic_phase_``, ``periodic_weight_``, ``periodic_bias_``, ``piecewise_weight_``,
        ``piecewise_bias_``, ``piecewise_bins_``, ``embedding_``, ``member_in_`` and ``member_out_``.

    history_ : dict of list
        A row per epoch, as in :class:`~fastmlp.MLPClassifier`.

    best_validation_score_ : float or None
        Validation score of the best epoch.

    n_iter_ : int
        Epochs done.

    estimators_ : list of estimator
        The fitted networks, each an estimator of its own; only with `n_ens` or `n_cv`.

    n_features_in_ : int
        Features seen during fit.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, if X had string column names.
"""

Documented = TypeVar("Documented", bound=type)


def document(cls: Documented) -> Documented:
    """Insert parameters and attributes into the docstring of an estimator for tables."""
    is_realmlp, is_classifier = issubclass(cls, RealMLPParameters), cls.__name__.endswith("Classifier")
    smoothed = " with labels smoothed by 0.1, unless `monitor` judges probabilities" if is_realmlp else ""
    text = (_REALMLP if is_realmlp else _TABM) + (_CLASS_WEIGHT if is_classifier else _CLAMP) + _SHARED
    names = "{" + ", ".join(map(repr, CLASSIFIER_LOSSES if is_classifier else REGRESSOR_LOSSES)) + "} or (name, dict)"
    filled = text.format(
        losses=names if is_classifier else f"{names} or formula",
        loss_default=f"'log_loss'{smoothed}" if is_classifier else "'squared_error'",
        ens_stopping="'ensemble'" if is_realmlp else "'member'",
        clamp="True with 'td', False with 'td-s'" if is_realmlp else "False",
    )
    doc = cls.__doc__ or ""
    doc = doc.replace("    %(parameters)s", filled.strip("\n"))
    cls.__doc__ = doc.replace("    %(attributes)s", _ATTRIBUTES.strip("\n"))
    return cls
