"""Fits of the campaign: random parameters on random data in every form that a user may have it in.

A :class:`Case` holds plain values only, so it can be printed, shrunk, and sent to another process. ``outcome`` runs one
and returns what came of it: the weights and predictions, or the error. test_campaign.py draws cases and compares.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from hypothesis import strategies as st

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.data.targets import CLASSIFIER_LOSSES, REGRESSOR_LOSSES
from fastmlp.model.initialization import INITIALIZERS
from fastmlp.training.optimizers import SOLVERS
from fastmlp.training.schedules import SCHEDULES, SHARES

from helpers import HIDDEN
from layouts import MATRIX

ESTIMATORS = {"classifier": MLPClassifier, "regressor": MLPRegressor}


@dataclass(frozen=True)
class Case:
    """An estimator with its data. Numbers are drawn from ``seed``."""

    estimator: str
    parameters: dict[str, Any]
    target: str  # key of TARGETS
    rows: int
    features: int
    seed: int
    dtype: str = "float64"
    oddity: str = "none"  # key of ODDITIES: what is strange about X
    weights: str = "none"  # key of WEIGHTS
    validation: str = "none"  # none, given, eval_set (two sets)
    call: str = "fit"  # fit, twice (warm_start as the parameters say), partial_fit
    form: str = "plain"  # key of FORMS: how X is held
    changes: dict[str, Any] = field(default_factory=dict)  # parameters that must not matter: n_jobs

    @property
    def is_sparse(self) -> bool:
        return self.form in SPARSE


# --- data ------------------------------------------------------------------------------------------------------------


def _multilabel(rng, n):
    return rng.randint(0, 2, (n, 3))


#: Targets by name, as functions of (random state, number of rows).
TARGETS = {
    "classifier": {
        "two": lambda rng, n: rng.randint(0, 2, n),
        "two texts": lambda rng, n: np.array(["no", "yes"])[rng.randint(0, 2, n)],
        "three": lambda rng, n: rng.randint(0, 3, n) * 10 - 5,
        "many": lambda rng, n: rng.randint(0, max(2, n // 2), n),
        "rare": lambda rng, n: (np.arange(n) == 0).astype(int),
        "one": lambda rng, n: np.zeros(n, int),
        "booleans": lambda rng, n: rng.rand(n) < 0.5,
        "labels": _multilabel,
        "sparse labels": lambda rng, n: sp.csr_matrix(_multilabel(rng, n)),
    },
    "regressor": {
        "numbers": lambda rng, n: rng.randn(n),
        "counts": lambda rng, n: rng.poisson(3, n),
        "positive": lambda rng, n: rng.rand(n) + 0.1,
        "constant": lambda rng, n: np.full(n, 2.5),
        "huge": lambda rng, n: rng.randn(n) * 1e200,
        "tiny": lambda rng, n: rng.randn(n) * 1e-200,
        "two outputs": lambda rng, n: rng.randn(n, 2),
        "column": lambda rng, n: rng.randn(n, 1),
        "distributions": lambda rng, n: rng.dirichlet([1, 1, 1], n),
        "NaN": lambda rng, n: np.where(np.arange(n) == n // 2, np.nan, rng.randn(n)),
    },
}


def _with(value):
    def put(rng, X):
        X[rng.randint(len(X)), rng.randint(X.shape[1])] = value
        return X

    return put


#: What may be strange about X.
ODDITIES = {
    "none": lambda rng, X: X,
    "constant": lambda rng, X: np.ones_like(X),
    "zeros": lambda rng, X: np.zeros_like(X),
    "huge": lambda rng, X: X * 1e30,
    "tiny": lambda rng, X: X * 1e-30,
    "one huge column": lambda rng, X: np.concatenate([X[:, :-1], X[:, -1:] * 1e15], axis=1),
    "mostly zeros": lambda rng, X: X * (rng.rand(*X.shape) < 0.2),
    "NaN": _with(np.nan),
    "inf": _with(np.inf),
}

#: Sample weights.
WEIGHTS = {
    "none": lambda rng, n: None,
    "ones": lambda rng, n: np.ones(n),
    "random": lambda rng, n: rng.rand(n),
    "integers": lambda rng, n: rng.randint(0, 3, n),
    "some zero": lambda rng, n: (rng.rand(n) < 0.3).astype(float),
    "zeros": lambda rng, n: np.zeros(n),
    "huge": lambda rng, n: rng.rand(n) * 1e30,
    "negative": lambda rng, n: rng.randn(n),
    "too few": lambda rng, n: np.ones(n - 1),
}


def _wide_indices(X):
    X = sp.csr_matrix(X)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


def _unsorted(X):
    X = sp.csr_matrix(X)
    for start, end in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        X.indices[start:end] = X.indices[start:end][::-1]
        X.data[start:end] = X.data[start:end][::-1]
    X.has_sorted_indices = False
    return X


#: Dense forms of one X: what is computed must not depend on them. scikit-learn makes float64 of big-endian float32.
DENSE = {
    "plain": np.ascontiguousarray,
    **MATRIX,
    "frame": pd.DataFrame,
    "named frame": lambda X: pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])]),
}

#: Sparse forms of one X.
SPARSE = {
    "csr": sp.csr_matrix,
    "csr array": sp.csr_array,
    "wide indices": _wide_indices,
    "csc": sp.csc_matrix,
    "coo": sp.coo_matrix,
    "lil": sp.lil_matrix,
}

FORMS = DENSE | SPARSE


@dataclass
class Rows:
    """What is drawn for a case: rows to train on, and as many to validate on."""

    X: Any
    y: Any
    weight: Any
    X_val: Any
    y_val: Any
    plain: np.ndarray  # X in its plain form


def rows_of(case):
    """Draw the data of a case; only the form of X depends on ``case.form``."""
    rng = np.random.RandomState(case.seed)
    X = ODDITIES[case.oddity](rng, rng.randn(case.rows, case.features)).astype(case.dtype)
    y = TARGETS[case.estimator][case.target](rng, case.rows)
    weight = WEIGHTS[case.weights](rng, case.rows)
    order = rng.permutation(case.rows)
    form = FORMS[case.form]
    return Rows(form(X), y, weight, form(X[order]), y[order], X)


# --- what comes of a case --------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """Weights, predictions and curve of a fit, or the class and text of its error."""

    error: tuple[str, str] | None = None
    weights: list[np.ndarray] = field(default_factory=list)
    predictions: Any = None
    curve: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    estimator: Any = None

    def same_as(self, other) -> bool:
        """Return whether both are the same, bit for bit; the texts of errors may name the form of X."""
        if self.error or other.error:
            return (self.error and self.error[0]) == (other.error and other.error[0])
        return (
            all(a.tobytes() == b.tobytes() for a, b in zip(self.weights, other.weights, strict=True))
            and dense(self.predictions).tobytes() == dense(other.predictions).tobytes()
            and np.array(self.curve).tobytes() == np.array(other.curve).tobytes()
        )


def dense(values):
    return values.toarray() if sp.issparse(values) else np.asarray(values)


#: Errors that a user may see.
EXPECTED_ERRORS = (ValueError, TypeError, AttributeError, MemoryError, NotImplementedError)


def outcome(case):
    """Run a case, and return what came of it; an error of another class than the expected ones is raised."""
    rows = rows_of(case)
    estimator = ESTIMATORS[case.estimator](**case.parameters | case.changes)
    with warnings.catch_warnings(record=True) as seen, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        try:
            _call(case, estimator, rows)
            predictions = estimator.predict(rows.X)
        except EXPECTED_ERRORS as error:
            return Outcome(error=(type(error).__name__, str(error)), estimator=estimator)
    weights = [np.array(w) for w in (*estimator.coefs_, *estimator.intercepts_)]
    texts = [str(w.message) for w in seen]
    return Outcome(None, weights, predictions, list(getattr(estimator, "loss_curve_", [])), texts, estimator)


def _call(case, estimator, rows):
    options = {} if rows.weight is None else {"sample_weight": rows.weight}
    if case.call == "partial_fit":
        classes = {"classes": np.unique(rows.y)} if case.estimator == "classifier" and not sp.issparse(rows.y) else {}
        estimator.partial_fit(rows.X, rows.y, **options, **classes)
        estimator.partial_fit(rows.X, rows.y, **options)
        return
    if case.validation == "given":
        options |= {"X_val": rows.X_val, "y_val": rows.y_val}
    elif case.validation == "eval_set":
        options |= {"eval_set": [(rows.X, rows.y), (rows.X_val, rows.y_val)]}
    for _ in range(2 if case.call == "twice" else 1):
        estimator.fit(rows.X, rows.y, **options)


# --- drawing ---------------------------------------------------------------------------------------------------------

_ACTIVATION = st.sampled_from(
    [
        *HIDDEN,
        ("elu", {"alpha": 0.7}),
        ("leaky_relu", {"negative_slope": 0.2}),
    ]
)
_SCHEDULE = st.sampled_from(
    [*SCHEDULES, ("step", {"step_size": 1, "gamma": 0.5}), ("one_cycle", {"max_lr": 0.1}), ("plateau", {"patience": 1})]
)

#: Values that make sense by themselves, if not always together.
SENSIBLE = {
    "hidden_layer_sizes": st.one_of(st.integers(1, 40), st.lists(st.integers(1, 24), max_size=3).map(tuple)),
    "activation": _ACTIVATION,
    "solver": st.sampled_from([*SOLVERS, ("rmsprop", {"rho": 0.9}), ("adam", {"beta_1": 0.5})]),
    "alpha": st.sampled_from([0.0, 1e-4, 1.0, 100.0]),
    "batch_size": st.one_of(st.just("auto"), st.integers(1, 70)),
    "learning_rate": _SCHEDULE,
    "learning_rate_init": st.sampled_from([1e-8, 1e-3, 0.05, 1.0, 1e3]),
    "power_t": st.sampled_from([0.0, 0.5, 2.0]),
    "shuffle": st.booleans(),
    "tol": st.sampled_from([0.0, 1e-4, 1.0]),
    "warm_start": st.booleans(),
    "momentum": st.sampled_from([0.0, 0.9, 1.0]),
    "nesterovs_momentum": st.booleans(),
    "early_stopping": st.booleans(),
    "validation_fraction": st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    "beta_1": st.sampled_from([0.0, 0.9, 0.999]),
    "beta_2": st.sampled_from([0.0, 0.9, 0.999]),
    "epsilon": st.sampled_from([1e-30, 1e-8, 1.0]),
    "n_iter_no_change": st.sampled_from([1, 2, 10, np.inf]),
    "max_fun": st.sampled_from([1, 15000]),
    "weight_decay": st.sampled_from([None, 0.0, 0.01, 0.9]),
    "weight_decay_schedule": st.sampled_from([*SHARES, ("flat_cos", {"flat": 0.2})]),
    "dropout_schedule": st.sampled_from([*SHARES]),
    "patience_growth": st.sampled_from([0.0, 1.0]),
    "max_grad_norm": st.sampled_from([None, 1e-6, 1.0]),
    "drop_last": st.booleans(),
    "l1_ratio": st.sampled_from([0.0, 0.5, 1.0]),
    "dropout": st.sampled_from([0.0, 0.3, 0.99]),
    "input_dropout": st.sampled_from([0.0, 0.3]),
    "batch_norm": st.sampled_from([False, True, "before", "after"]),
    "init": st.sampled_from([*INITIALIZERS]),
    "monitor": st.sampled_from(["score", "loss", ["loss", "score"], {"a": "score", "b": "r2"}, "accuracy", "r2"]),
    "train_score": st.booleans(),
    "restore_best": st.sampled_from([None, True, False, "last"]),
}

LOSSES = {
    "classifier": [*CLASSIFIER_LOSSES, ("log_loss", {"label_smoothing": 0.1}), ("focal", {"gamma": 1.5})],
    "regressor": [*REGRESSOR_LOSSES, ("huber", {"delta": 0.5}), ("quantile", {"quantile": 0.9})],
}

#: Values that make no sense anywhere, or hardly.
SENSELESS = st.sampled_from(
    [None, -1, 0, 1.5, np.nan, np.inf, -np.inf, 10**30, "", "adm", b"relu", (), [], {}, [None], (1, "a"), np.float32(2),
     np.array([3]), object, True, 1j, ("adam",), ("step", {"a": 1}), [[2]], "a" * 1000]
)  # fmt: skip


@st.composite
def cases(draw):
    """Draw a case: some parameters that make sense, sometimes one that does not, and data of any kind."""
    estimator = draw(st.sampled_from(sorted(ESTIMATORS)))
    names = draw(st.lists(st.sampled_from(sorted(SENSIBLE)), max_size=8, unique=True))
    parameters = {name: draw(SENSIBLE[name]) for name in names}
    if draw(st.integers(0, 2)) == 0:
        parameters["loss"] = draw(st.sampled_from(LOSSES[estimator]))
    if estimator == "classifier" and draw(st.integers(0, 5)) == 0:
        parameters["class_weight"] = draw(st.sampled_from(["balanced", {0: 0, 1: 1}, {0: 2.0}]))
    if draw(st.integers(0, 7)) == 0:
        parameters[draw(st.sampled_from(sorted({*SENSIBLE, "loss", "max_iter"})))] = draw(SENSELESS)
    common = draw(st.booleans())
    return Case(
        estimator,
        {"max_iter": draw(st.integers(1, 4)), "random_state": draw(st.integers(0, 3))} | parameters,
        target=draw(st.sampled_from(sorted(TARGETS[estimator]))),
        rows=draw(st.one_of(st.integers(2, 12), st.integers(13, 90))),
        features=draw(st.integers(1, 20)),
        seed=draw(st.integers(0, 1000)),
        dtype=draw(st.sampled_from(["float64", "float32"])),
        oddity="none" if common else draw(st.sampled_from(sorted(ODDITIES))),
        weights="none" if common else draw(st.sampled_from(sorted(WEIGHTS))),
        validation=draw(st.sampled_from(["none", "none", "given", "eval_set"])),
        call=draw(st.sampled_from(["fit", "fit", "twice", "partial_fit"])),
        form=draw(st.sampled_from(["plain", "csr"])),
    )
