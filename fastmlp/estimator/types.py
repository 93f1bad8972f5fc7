"""Types of the estimators' parameters, for type checkers and editors.

The names are written out, because a checker runs no code. ``tests/test_types.py`` compares them with the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from fastmlp.kernels.language import ActivationFormula, LossFormula
from fastmlp.training.callbacks import EpochInfo

# --- names ------------------------------------------------------------------------------------------------------------

SolverName: TypeAlias = Literal[
    "lbfgs",
    "sgd",
    "momentum",
    "nesterov",
    "adam",
    "adamw",
    "amsgrad",
    "nadam",
    "rmsprop",
    "adagrad",
    "adadelta",
    "lion",
]
ActivationName: TypeAlias = Literal[
    "identity",
    "logistic",
    "tanh",
    "relu",
    "leaky_relu",
    "prelu",
    "rrelu",
    "relu6",
    "elu",
    "selu",
    "celu",
    "gelu",
    "gelu_tanh",
    "silu",
    "mish",
    "softplus",
    "softsign",
    "hardtanh",
    "hardsigmoid",
    "hardswish",
    "step",
]
ClassifierLossName: TypeAlias = Literal["log_loss", "focal", "hinge", "squared_hinge", "perceptron"]
RegressorLossName: TypeAlias = Literal[
    "squared_error",
    "poisson",
    "kl_divergence",
    "absolute_error",
    "huber",
    "log_cosh",
    "quantile",
    "gamma",
]
ScheduleName: TypeAlias = Literal[
    "constant",
    "invscaling",
    "adaptive",
    "step",
    "exponential",
    "cosine",
    "cosine_restarts",
    "one_cycle",
    "plateau",
    "warmup_cosine",
    "flat_cos",
    "coslog4",
]
ShareName: TypeAlias = Literal[
    "constant",
    "step",
    "exponential",
    "cosine",
    "cosine_restarts",
    "warmup_cosine",
    "flat_cos",
    "coslog4",
]
InitializerName: TypeAlias = Literal[
    "auto",
    "glorot_uniform",
    "glorot_normal",
    "he_uniform",
    "he_normal",
    "lecun_uniform",
    "lecun_normal",
    "pytorch",
    "orthogonal",
]
BackendName: TypeAlias = Literal["auto", "cython", "numba", "cuda", "reference"]
Placement: TypeAlias = Literal["before", "after"]
MatmulPrecision: TypeAlias = Literal["highest", "high", "medium"]
ScorerName: TypeAlias = Literal[
    "accuracy",
    "adjusted_mutual_info_score",
    "adjusted_rand_score",
    "average_precision",
    "balanced_accuracy",
    "completeness_score",
    "d2_absolute_error_score",
    "d2_brier_score",
    "d2_log_loss_score",
    "explained_variance",
    "f1",
    "f1_macro",
    "f1_micro",
    "f1_samples",
    "f1_weighted",
    "fowlkes_mallows_score",
    "homogeneity_score",
    "jaccard",
    "jaccard_macro",
    "jaccard_micro",
    "jaccard_samples",
    "jaccard_weighted",
    "matthews_corrcoef",
    "mutual_info_score",
    "neg_brier_score",
    "neg_log_loss",
    "neg_max_error",
    "neg_mean_absolute_error",
    "neg_mean_absolute_percentage_error",
    "neg_mean_gamma_deviance",
    "neg_mean_poisson_deviance",
    "neg_mean_squared_error",
    "neg_mean_squared_log_error",
    "neg_median_absolute_error",
    "neg_negative_likelihood_ratio",
    "neg_root_mean_squared_error",
    "neg_root_mean_squared_log_error",
    "normalized_mutual_info_score",
    "positive_likelihood_ratio",
    "precision",
    "precision_macro",
    "precision_micro",
    "precision_samples",
    "precision_weighted",
    "r2",
    "rand_score",
    "recall",
    "recall_macro",
    "recall_micro",
    "recall_samples",
    "recall_weighted",
    "roc_auc",
    "roc_auc_ovo",
    "roc_auc_ovo_weighted",
    "roc_auc_ovr",
    "roc_auc_ovr_weighted",
    "top_k_accuracy",
    "v_measure_score",
]

# --- what a parameter takes -------------------------------------------------------------------------------------------

#: Parameters of a choice, as in ``("focal", {"gamma": 2.0})``; JSON and YAML, which have no tuples, give a list.
Given: TypeAlias = Mapping[str, float | None]

HiddenLayerSizes: TypeAlias = int | np.integer[Any] | Sequence[int | np.integer[Any]] | np.ndarray
Solver: TypeAlias = SolverName | tuple[SolverName, Given] | Sequence[SolverName | Given]
Activation: TypeAlias = (
    ActivationName
    | tuple[ActivationName, Given]
    | ActivationFormula
    | Sequence[ActivationName | tuple[ActivationName, Given] | ActivationFormula | Given]
)
ClassifierLoss: TypeAlias = (
    ClassifierLossName | tuple[ClassifierLossName, Given] | Sequence[ClassifierLossName | Given] | LossFormula
)
RegressorLoss: TypeAlias = (
    RegressorLossName | tuple[RegressorLossName, Given] | Sequence[RegressorLossName | Given] | LossFormula
)
LearningRate: TypeAlias = (
    ScheduleName | tuple[ScheduleName, Given] | Sequence[ScheduleName | Given] | Callable[[float], float]
)
ShareSchedule: TypeAlias = ShareName | tuple[ShareName, Given] | Sequence[ShareName | Given] | Callable[[float], float]
ClassWeight: TypeAlias = Mapping[Any, float] | Sequence[Mapping[Any, float]] | Literal["balanced"]
BatchSize: TypeAlias = int | Literal["auto"]
RandomState: TypeAlias = int | np.integer[Any] | np.random.RandomState
Dropout: TypeAlias = float | Sequence[float] | np.ndarray
BatchNorm: TypeAlias = bool | Placement | Sequence[bool | Placement]
FrozenLayers: TypeAlias = Sequence[int] | np.ndarray | None
Initializer: TypeAlias = InitializerName | Callable[[np.random.RandomState, int, int], Any]
Metric: TypeAlias = Literal["score", "loss"] | ScorerName | Callable[..., float]
Monitor: TypeAlias = Metric | Sequence[Literal["score", "loss"] | ScorerName] | Mapping[str, Metric]
Last: TypeAlias = Literal["last"]
EnsembleStopping: TypeAlias = Literal["member", "ensemble"]
Callbacks: TypeAlias = Sequence[Callable[[EpochInfo], bool | None]]
