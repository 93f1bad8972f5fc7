"""Parameters of the estimators: what each accepts, which combinations make sense, and their documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np

from fastmlp.data.targets import CLASSIFIER_LOSSES, REGRESSOR_LOSSES
from fastmlp.estimator import types
from fastmlp.kernels import formulas
from fastmlp.kernels.language import ActivationFormula, LossFormula
from fastmlp.model import choices
from fastmlp.model.initialization import INITIALIZERS
from fastmlp.model.network import MATMUL_PRECISIONS
from fastmlp.model.stages import OPTIONS
from fastmlp.sklearn_compat import Interval, Options, StrOptions
from fastmlp.training.metrics import metrics_of
from fastmlp.training.optimizers import SOLVERS
from fastmlp.training.schedules import SCHEDULES, SHARES

HIDDEN_ACTIVATIONS = tuple(name for name, row in formulas.ACTIVATIONS.items() if row.hidden)

_AT_LEAST_1 = Interval(Integral, 1, None, closed="left")
_AT_LEAST_0 = Interval(Real, 0, None, closed="left")
_BELOW_1 = Interval(Real, 0, 1, closed="left")


class Names(StrOptions):
    """scikit-learn's StrOptions; the list in its errors is sorted."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(set(names))

    def __str__(self) -> str:
        return f"a str among {{{', '.join(map(repr, sorted(self.options)))}}}"


def parameter(default: Any, *allowed: Any) -> Any:
    """Return the field of a parameter with its default and scikit-learn's validation of it."""
    return field(default=default, metadata={"allowed": list(allowed)})


# ruff: noqa: RUF009 - parameter() returns a field, made once
@dataclass(eq=False, repr=False, kw_only=True)
class Parameters:
    """The keyword arguments that both constructors have, with their defaults; kept as they are given."""

    solver: types.Solver = parameter("adam", Names(SOLVERS), tuple, list)
    alpha: float = parameter(0.0001, _AT_LEAST_0)
    batch_size: types.BatchSize = parameter("auto", Names({"auto"}), _AT_LEAST_1)
    learning_rate: types.LearningRate = parameter("constant", Names(SCHEDULES), tuple, list, callable)
    learning_rate_init: float = parameter(0.001, Interval(Real, 0, None, closed="neither"))
    power_t: float = parameter(0.5, _AT_LEAST_0)
    max_iter: int = parameter(200, _AT_LEAST_1)
    shuffle: bool | int = parameter(True, "boolean", Interval(Integral, 2, None, closed="left"))
    random_state: types.RandomState | None = parameter(None, "random_state")
    tol: float = parameter(1e-4, _AT_LEAST_0)
    verbose: bool | int = parameter(False, "verbose")
    warm_start: bool = parameter(False, "boolean")
    momentum: float = parameter(0.9, Interval(Real, 0, 1, closed="both"))
    nesterovs_momentum: bool = parameter(True, "boolean")
    early_stopping: bool = parameter(False, "boolean")
    validation_fraction: float = parameter(0.1, _BELOW_1)
    beta_1: float = parameter(0.9, _BELOW_1)
    beta_2: float = parameter(0.999, _BELOW_1)
    epsilon: float = parameter(1e-8, Interval(Real, 0, None, closed="neither"))
    n_iter_no_change: float = parameter(10, _AT_LEAST_1, Options(Real, {np.inf}))
    max_fun: int = parameter(15000, _AT_LEAST_1)
    backend: types.BackendName = parameter("auto", str)
    n_jobs: int | None = parameter(None, _AT_LEAST_1, Interval(Integral, None, -1, closed="right"), None)
    patience_growth: float = parameter(0.0, _AT_LEAST_0)
    weight_decay: float | None = parameter(None, _BELOW_1, None)
    weight_decay_schedule: types.ShareSchedule = parameter("constant", Names(SHARES), tuple, list, callable)
    max_grad_norm: float | None = parameter(None, Interval(Real, 0, None, closed="neither"), None)
    drop_last: bool = parameter(False, "boolean")
    l1_ratio: float = parameter(0.0, Interval(Real, 0, 1, closed="both"))
    dropout: types.Dropout = parameter(0.0, Real, tuple, list, np.ndarray)
    input_dropout: float = parameter(0.0, Real)
    dropout_schedule: types.ShareSchedule = parameter("constant", Names(SHARES), tuple, list, callable)
    batch_norm: types.BatchNorm = parameter(False, "boolean", Names({"before", "after"}), tuple, list)
    init: types.Initializer = parameter("auto", Names(INITIALIZERS), callable)
    fit_intercept: bool = parameter(True, "boolean")
    frozen_layers: types.FrozenLayers = parameter(None, tuple, list, np.ndarray, None)
    monitor: types.Monitor = parameter("score", str, callable, list, tuple, dict)
    restore_best: bool | types.Last | None = parameter(None, "boolean", Names({"last"}), None)
    callbacks: types.Callbacks | None = parameter(None, list, tuple, None)
    train_score: bool = parameter(False, "boolean")
    n_ens: int = parameter(1, _AT_LEAST_1)
    ens_stopping: types.EnsembleStopping = parameter("member", Names({"member", "ensemble"}))
    n_cv: int = parameter(1, _AT_LEAST_1)
    matmul_precision: types.MatmulPrecision = parameter("highest", Names(MATMUL_PRECISIONS))


#: scikit-learn's validation of each parameter that both estimators have.
CONSTRAINTS: dict[str, list[Any]] = {
    "hidden_layer_sizes": ["array-like", _AT_LEAST_1],
    "activation": [Names(HIDDEN_ACTIVATIONS), tuple, list, ActivationFormula],
    **{row.name: row.metadata["allowed"] for row in fields(Parameters)},
}

CLASSIFIER_CONSTRAINTS: dict[str, list[Any]] = {
    "loss": [Names(CLASSIFIER_LOSSES), tuple, list, LossFormula],
    "class_weight": [dict, list, Names({"balanced"}), None],
}
REGRESSOR_CONSTRAINTS: dict[str, list[Any]] = {
    "loss": [Names(REGRESSOR_LOSSES), tuple, list, LossFormula],
    "standardize_y": ["boolean"],
}


# --- values that depend on one another -------------------------------------------------------------------------------


def activations_of(activation: Any, n_hidden: int) -> tuple[Any, ...]:
    """One entry per hidden layer; ValueError for names, parameters and lengths that make no sense."""
    return choices.entries(formulas.ACTIVATIONS, activation, "activation", n_hidden, HIDDEN_ACTIVATIONS)


def _is_schedule(value: Any) -> bool:
    return choices.name_of(value) != "constant"


def _draws_slopes(value: Any) -> bool:
    several = isinstance(value, tuple | list | np.ndarray) and not choices.is_pair(value)
    return any(choices.name_of(one) == "rrelu" for one in (value if several else [value]))


# What needs steps over mini-batches: (parameter, whether a value asks for it, why it makes no sense with 'lbfgs').
_STEPS_ONLY: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    (
        "learning_rate",
        lambda value: value not in ("constant", "invscaling", "adaptive"),  # these it ignores, as in scikit-learn
        "its line search finds the length of each step",
    ),
    *((name, option.asks, option.why_no_lbfgs) for name, option in OPTIONS.items()),
    ("drop_last", bool, "it sees all rows at once, not batches"),
    ("l1_ratio", bool, "it needs a smooth loss; use alpha alone"),
    ("weight_decay", bool, "it is decoupled from the loss, of which alone 'lbfgs' knows; use alpha"),
    ("weight_decay_schedule", _is_schedule, "it has no weight decay and no steps"),
    ("dropout_schedule", _is_schedule, "it has no dropout and no steps"),
    ("max_grad_norm", bool, "it needs the true gradient"),
    ("restore_best", bool, "it has no epochs, of which one could be the best"),
    ("patience_growth", bool, "it has no epochs"),
    ("callbacks", bool, "it has no epochs"),
    ("train_score", bool, "it has no epochs"),
    ("ens_stopping", lambda value: value != "member", "it has no epochs"),
    ("matmul_precision", lambda value: value != "highest", "it computes in float64, which has 'highest' only"),
    ("activation", lambda value: "step" in np.ravel(np.array(value, dtype=object)), "its slope is only a stand-in"),
    ("activation", _draws_slopes, "its slopes are drawn anew in each step; use leaky_relu with their mean"),
)


def check_lbfgs(estimator: Any, *, validation: bool, resumes: bool) -> None:
    """Refuse what 'lbfgs' cannot do; the ValueError names the parameter and the reason."""
    for name, asks, why in _STEPS_ONLY:
        value = getattr(estimator, name)
        if asks(value):
            raise ValueError(f"{name}={value!r} makes no sense with solver='lbfgs': {why}")
    for argument, given in (("validation data (X_val or eval_set)", validation), ("resume_from", resumes)):
        if given:
            raise ValueError(f"{argument} makes no sense with solver='lbfgs': it has no epochs")


#: Where validation data come from.
_VALIDATION = "X_val and y_val, or eval_set, in fit, or early_stopping=True"


def check_monitor(estimator: Any, *, has_validation: bool) -> None:
    """Refuse a monitor that does not exist, and one that has nothing to look at."""
    monitor = estimator.monitor
    metrics = None if monitor in ("score", "loss") else metrics_of(monitor)
    if has_validation:
        return
    if metrics is not None and not estimator.train_score:
        raise ValueError(f"monitor={monitor!r} needs validation data: {_VALIDATION}")
    if estimator.restore_best:
        given = f"restore_best={estimator.restore_best!r}"
        raise ValueError(f"{given} needs validation data to tell which weights are best: {_VALIDATION}")


# --- documentation ---------------------------------------------------------------------------------------------------

_PARAMETERS = """
    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=(100,)
        Units of each hidden layer; an int is one layer, an empty sequence none.

    activation : {activations}, (name, dict), formula or sequence, default='relu'
        Activation of the hidden layers: a name; a name with parameters, ``("leaky_relu", {{"negative_slope": 0.2}})``;
        a formula made by :func:`fastmlp.activation`; or a sequence of these with an entry per hidden layer. 'prelu'
        learns a slope per unit. 'rrelu' draws the slope of each negative number anew in every step of training, and has
        the mean slope elsewhere. 'step' is the perceptron's, trained with a straight-through gradient.

    solver : {solvers} or (name, dict), default='adam'
        'lbfgs' trains on all rows at once (with SciPy's iterates, always in float64), the others on mini-batches. 'sgd'
        has scikit-learn's momentum, 'momentum' and 'nesterov' are the same with `nesterovs_momentum` set by the name.
        Where scikit-learn has no such solver the formulas are PyTorch's. Parameters of a solver are given as
        ``("rmsprop", {{"rho": 0.9}})``. `momentum`, `beta_1`, `beta_2` and `epsilon` may be given there too, instead of
        the constructor's.

    alpha : float, default=0.0001
        Strength of the penalty on the weights; divided by the (weighted) number of rows of a batch.

    batch_size : int, default='auto'
        Rows per mini-batch; 'auto' is ``min(200, n_samples)``. 1 is a single sample, n_samples the full batch.

    learning_rate : {schedules}, (name, dict) or callable, default='constant'
        Schedule of the learning rate: 'constant', as given; 'invscaling', ``learning_rate_init / t ** power_t`` after
        each epoch; 'adaptive', divided by five whenever training stops to improve ('adam' ignores these two, as in
        scikit-learn). The others change it per step or epoch, see :mod:`fastmlp.training.schedules`; parameters are
        given as ``("step", {{"step_size": 10, "gamma": 0.5}})``. A callable maps the progress of training, from 0 to 1
        over `max_iter` epochs, to a factor of `learning_rate_init`.

    learning_rate_init : float, default=0.001
        Learning rate of the stochastic solvers at the start.

    power_t : float, default=0.5
        Exponent of 'invscaling'.

    max_iter : int, default=200
        Most epochs (stochastic solvers) or iterations ('lbfgs').

    shuffle : bool or int, default=True
        Whether each epoch visits the rows in a new order. A number of rows is for tables on a disk: the table is cut
        into blocks of so many rows, these come in random order, and the rows of 16 blocks at a time are mixed.

    random_state : int, RandomState instance or None, default=None
        Source of initial weights, validation split, the seed of dropout and rrelu, and shuffles, drawn in
        scikit-learn's order.

    tol : float, default=1e-4
        What counts as an improvement; for 'lbfgs' the gradient tolerance.

    verbose : bool, default=False
        Whether to print the loss of each epoch.

    warm_start : bool, default=False
        Whether fit goes on from the weights of the fit before.

    momentum : float, default=0.9
        Momentum of 'sgd', 'momentum' and 'nesterov', in [0, 1].

    nesterovs_momentum : bool, default=True
        Whether the momentum of 'sgd' is Nesterov's.

    early_stopping : bool, default=False
        Whether to watch validation rows, stop when they no longer improve, and keep the best weights. The rows are
        those given to fit; otherwise a share of the training rows is held out.

    validation_fraction : float, default=0.1
        Share of the rows held out by early stopping.

    beta_1 : float, default=0.9
        Decay of the first moment of Adam, its variants and Lion, in [0, 1).

    beta_2 : float, default=0.999
        Decay of the second moment of Adam and its variants, and of Lion's momentum, in [0, 1).

    epsilon : float, default=1e-8
        Added to the root of the second moment.

    n_iter_no_change : int, default=10
        Epochs without improvement after which training stops; ``np.inf``: never. Then `max_iter` epochs are the plan,
        and without `warm_start` no ConvergenceWarning says that they are done.

    patience_growth : float, default=0.0
        What `n_iter_no_change` grows by for each epoch up to the latest improvement. With 1, training stops at the
        first epoch above ``2 * best + n_iter_no_change``, where `best` is the epoch of that improvement.

    max_fun : int, default=15000
        Most evaluations of the loss by 'lbfgs'.

    backend : str, default='auto'
        Engine: 'cython' (compiled ahead of time), 'numba' (compiled here), 'cuda' (NVIDIA GPUs; never taken unless it
        is named), or 'reference' (plain NumPy, for cross-checks). 'auto' is 'cython' where that was built; else 'numba'
        where it is installed and the fit is large enough to compile for; else 'reference'.

    n_jobs : int, default=None
        Most threads to use; None leaves the choice to the engine.

    weight_decay : float, default=None
        Decoupled weight decay: each step shrinks all trained parameters by the factor ``1 - lr * weight_decay``. None
        is 0.01 for 'adamw' and 0 for the others.

    weight_decay_schedule : {shares}, (name, dict) or callable, default='constant'
        What multiplies `weight_decay` in each step, besides the learning rate: a schedule of `learning_rate` that
        begins with 1 and stays within [0, 1]. A callable maps the progress of training to such a factor.

    max_grad_norm : float, default=None
        Largest norm of the gradient over all parameters; a longer one is scaled down to it.

    drop_last : bool, default=False
        Whether to leave out the last batch of an epoch if it is not whole. A `batch_size` above the number of rows is
        one whole batch of all rows.

    l1_ratio : float, default=0.0
        Share of alpha that is an L1 penalty: 0 is L2, 1 is L1, between them lies the elastic net.

    dropout : float or sequence of float, default=0.0
        Share of the hidden units, in [0, 1), that each step leaves out; one rate, or one per hidden layer. What stays
        is scaled up, so that prediction needs nothing.

    input_dropout : float, default=0.0
        The same for the features.

    dropout_schedule : {shares}, (name, dict) or callable, default='constant'
        What multiplies `dropout` and `input_dropout` in each step, as `weight_decay_schedule` does with the decay.

    batch_norm : bool, {{'before', 'after'}} or sequence of these, default=False
        Where hidden layers normalise over each batch: 'before' the activation, which True means too, or 'after' it; one
        for all, or one per hidden layer. Prediction uses running statistics, folded into the weights.

    init : {initializers} or callable, default='auto'
        Initial weights: 'auto' are scikit-learn's, 'pytorch' PyTorch's; the others have zero biases. A callable maps
        ``(random_state, fan_in, fan_out)`` to a matrix of this shape.

    fit_intercept : bool, default=True
        Whether layers have biases. Without, all of `intercepts_` are and stay 0.

    frozen_layers : sequence of int, default=None
        Layers whose arrays no step changes: indices of `coefs_`, from 0, or from the end if negative. Neither weight
        decay nor `max_grad_norm` sees them. Running statistics of batch normalisation follow the batches all the same.

    monitor : 'score', 'loss', scorer name, callable, list of names or dict of name to scorer, default='score'
        What early stopping watches on the validation rows: the score (accuracy or R2), the loss, or one of
        scikit-learn's scorers, ``scorer(estimator, X, y)``. Of several the first is watched; all are recorded.

    restore_best : bool or 'last', default=None
        Whether fit ends with the weights of the epoch that did best on the validation rows. None: with early stopping.
        Of equally good epochs True takes the first and 'last' the last.

    callbacks : list of callable, default=None
        Each is called with an :class:`fastmlp.callbacks.EpochInfo` after each epoch of fit. It stops training by
        returning True, and lets it go on by None or False; another value is a TypeError. partial_fit calls none.

    train_score : bool, default=False
        Whether to evaluate the training rows, too, after each epoch: 'train_score' and 'train_loss' in `history_`.

    n_ens : int, default=1
        Networks to train on the same rows, each from its own first weights. Predictions are their mean: of
        probabilities, decision values or values. They train side by side, one thread each.

    ens_stopping : {{'member', 'ensemble'}}, default='member'
        Whose validation score early stopping watches, and whose best epoch the networks go back to: that of each
        network, or that of the mean of all networks on the same rows, which then all have the same epoch.

    n_cv : int, default=1
        Folds of cross-validation; with more than 1 there are `n_ens` networks per fold. Each trains on the rows outside
        its fold and has those of the fold as validation rows. Predictions are the mean over all networks.

    matmul_precision : {{'highest', 'high', 'medium'}}, default='highest'
        How exact the matrix products of a float32 network are at the least, in training and prediction. 'highest' is
        float32 throughout. Where the processor has matrix units, 'high' multiplies halves of bfloat16 in three products
        (errors of about 1e-5), 'medium' in one (about 1e-2). On tensor cores of a GPU they multiply TF32, in three
        products (about 1e-6) or in one (about 1e-3). Sums, weights, states and losses stay float32. Elsewhere both
        compute 'highest'. For float64, and for 'lbfgs', there is 'highest' only.
"""

_ATTRIBUTES = """
    loss_ : float
        Loss of the last epoch or iteration.

    best_loss_ : float or None
        Lowest training loss; None with early stopping.

    loss_curve_ : list of float
        Loss of each epoch (stochastic solvers).

    validation_scores_ : list of float or None
        Validation score of each epoch; None without validation rows.

    best_validation_score_ : float or None
        Validation score of the best epoch; None without validation rows.

    validation_loss_curve_ : list of float
        Validation loss of each epoch, without penalty; only with validation rows.

    history_ : dict of list
        A row per epoch: 'loss', 'validation_loss', 'score' (NaN without validation rows), 'learning_rate' (of the
        epoch's last step) and 'seconds' (that the epoch took; epochs in one call of the engine share its time). What
        further sets and metrics came to is in columns named ``<set>_<metric>``.

    evals_result_ : dict of dict of list
        Name of a set -> name of a metric, or 'loss' -> its value after each epoch; only if rows are evaluated.

    stopped_by_ : str or None
        Name of the callback that stopped the last fit; None if none did (stochastic solvers).

    t_ : int
        Training rows seen.

    estimators_ : list of estimator
        The fitted networks, each an estimator of its own, fold by fold; only with `n_ens` or `n_cv`. Losses, curves and
        weights are theirs: the ensemble has none of its own, except that `n_iter_` is the largest.

    oof_predict_proba_, oof_decision_function_, oof_prediction_ : ndarray of shape (n_samples, ...)
        Out-of-fold predictions, each row by the networks that were not trained on it; only with `n_cv`. The first is
        of classifiers, the second of those with decision values, the third of regressors.

    oof_score_ : float
        Accuracy or R2 of the out-of-fold predictions, weighted as the loss is; only with `n_cv`.

    coefs_ : list of ndarray of shape (fan_in, fan_out)
        Weights of each layer, views of one flat vector after fit.  Editing or replacing them changes predictions.

    intercepts_ : list of ndarray of shape (fan_out,)
        Biases of each layer.

    bn_scales_, bn_shifts_, bn_means_, bn_vars_ : list of ndarray of shape (fan_out,)
        Learned scale and shift, and running mean and variance, of each hidden layer (None for a layer that does not
        normalise); with batch_norm.

    prelu_slopes_ : list of ndarray of shape (fan_out,)
        Learned slopes of each hidden layer (None for a layer with another activation); with 'prelu'.

    n_features_in_ : int
        Features seen during fit.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, if X had string column names.

    n_iter_ : int
        Epochs or iterations done.

    n_layers_ : int
        Layers, input and output included.

    n_outputs_ : int
        Output units.

    out_activation_ : str
        Output activation.
"""


Documented = TypeVar("Documented", bound=type)


def document(cls: Documented) -> Documented:
    """Insert the shared parameters and attributes into a class docstring."""
    parameters = _PARAMETERS.strip("\n").format(
        activations=_braces(HIDDEN_ACTIVATIONS),
        solvers=_braces(SOLVERS),
        schedules=_braces(SCHEDULES),
        shares=_braces(SHARES),
        initializers=_braces(INITIALIZERS),
    )
    doc = cls.__doc__ or ""
    cls.__doc__ = doc.replace("    %(parameters)s", parameters).replace("    %(attributes)s", _ATTRIBUTES.strip("\n"))
    return cls


def _braces(names: Any) -> str:
    return "{" + ", ".join(repr(name) for name in names) + "}"
