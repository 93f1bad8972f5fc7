"""The contract "same trajectory": a whole fit goes scikit-learn's way, update for update.

A table of cases, built as products of factor levels, one test each. Every case fits scikit-learn's
estimator and ours with the same seed and compares weights, losses, scores, counters, predictions,
warnings and the position in the random stream. Tolerances: parity.tolerance.
"""

from dataclasses import dataclass, field, replace
from zlib import crc32

import numpy as np
import pytest

from fastmlp.engines import backends

import parity
from parity import (
    CLASSIFIER_TASKS,
    EPOCHS,
    SOLVERS,
    TASKS,
    fit,
    fit_in_parts,
    fit_then_parts,
    fit_twice,
    fit_weighted,
    product,
)
from tiers import covering

pytestmark = pytest.mark.usefixtures("one_blas_thread")

STOCHASTIC = ("sgd", "adam")
ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
EVERY = {"solver": SOLVERS, "activation": ACTIVATIONS, "task": TASKS}
EVERY_STOCHASTIC = EVERY | {"solver": STOCHASTIC}
TWO_TASKS = ("multiclass", "regression")  # one per estimator

# Step sizes at which 22 epochs move the weights a good way without diverging. alpha is large
# enough for the L2 term to show in the weights if it were wrong. Batches of 24 out of 80 rows: the
# last one is smaller.
COMMON = {
    "hidden_layer_sizes": (9,),
    "max_iter": EPOCHS,
    "alpha": 0.1,
    "batch_size": 24,
    "n_iter_no_change": 1000,
}
LEARNING_RATE = {"sgd": 0.02, "adam": 0.01, "lbfgs": 0.001}


def lbfgs_alpha(task):
    """A penalty that keeps L-BFGS well conditioned: 22 iterations must not amplify one rounding.

    With several regression targets scikit-learn's loss is the mean over them but its gradient is
    that of their sum, and the penalty is the same in both: the larger it is, the more the two
    disagree, and the sooner the line search fails at a place that rounding decides.
    """
    return 0.01 if task == "multioutput" else 1.0


# ----------------------------------------------------------------------------------------- cases
# What meets in the cases of plain `pytest`: pairs of factors (see tiers.py); each set of parameters occurs.
MEET = ("what", "group solver", "solver activation", "solver task", "backend solver")


@dataclass(frozen=True)
class Case:
    group: str
    solver: str
    activation: str
    task: str
    protocol: object = fit
    container: str = "dense"
    dtype: type = np.float64
    n_rows: int = parity.N_ROWS
    params: dict = field(default_factory=dict)
    backend: str | None = None  # of ours, where it is not the default

    def __str__(self):
        shown = [self.group, self.solver, self.activation, self.task]
        if self.protocol is not fit:
            shown.append(self.protocol.__name__)
        if self.container != "dense":
            shown.append(self.container)
        if self.n_rows != parity.N_ROWS:
            shown.append(f"n{self.n_rows}")
        for value in self.params.values():
            shown.append(f"{value:g}" if isinstance(value, float) else str(value))
        return "-".join(shown).replace(" ", "")

    def factors(self):
        """Return what MEET is about."""
        what = f"{self.group} {self.protocol.__name__} {self.container} {self.n_rows} {self.params}"
        four = {"group": self.group, "solver": self.solver, "activation": self.activation, "task": self.task}
        return four | {"what": what, "backend": self.backend}

    @property
    def seed(self):
        """Another one for each case, the same one in each run, wherever the case stands."""
        return crc32(str(self).encode())

    def estimator_params(self):
        lr = {"learning_rate_init": LEARNING_RATE[self.solver]}
        own = {"solver": self.solver, "activation": self.activation, "random_state": self.seed}
        alpha = {"alpha": lbfgs_alpha(self.task)} if self.solver == "lbfgs" else {}
        return COMMON | lr | alpha | own | self.params


def cases(group, levels, *, protocol=fit, container="dense", dtype=np.float64, n_rows=parity.N_ROWS, **params):
    """The product of levels; the level "params" is a list of dicts of estimator parameters."""
    return [
        Case(
            group,
            row["solver"],
            row["activation"],
            row["task"],
            protocol,
            container,
            dtype,
            n_rows,
            params | row.get("params", {}),
        )
        for row in product(**levels)
    ]


BATCHES = [{"batch_size": size} for size in (1, 7, parity.N_ROWS, "auto")]
MOMENTA = [
    {"momentum": 0.0, "nesterovs_momentum": False, "learning_rate_init": 0.1},
    {"momentum": 0.0, "nesterovs_momentum": True, "learning_rate_init": 0.1},
    {"momentum": 0.9, "nesterovs_momentum": False},
    {"momentum": 0.9, "nesterovs_momentum": True},
]
# adaptive: a tolerance that no epoch meets, so that the rate is divided by 5 every third epoch
SCHEDULES = [
    {"learning_rate": "constant"},
    {"learning_rate": "invscaling", "power_t": 0.3, "learning_rate_init": 0.2},
    {"learning_rate": "adaptive", "tol": 1.0, "n_iter_no_change": 2, "learning_rate_init": 0.1},
]
LAYERS = [{"hidden_layer_sizes": s} for s in ((), 5, (1,), (33,), (7, 5, 6), [13, 8, 4])]
# L-BFGS is chaotic on these, in scikit-learn too: one rounding more and it ends elsewhere.
ODD_LAYERS = [{"hidden_layer_sizes": s} for s in ((7, 1, 6), [33, 17, 8])]
ADAM_RATES = [
    {"beta_1": 0.0},
    {"beta_1": 0.5, "beta_2": 0.9},
    {"beta_2": 0.0, "epsilon": 1e-2},
    {"epsilon": 0.1},
]
ALPHAS = [{"alpha": alpha} for alpha in (0, 1e-4, 5.0)]
EARLY = {"early_stopping": True, "validation_fraction": 0.25}
# Fits that stop by themselves: tol and patience are met well before max_iter.
STOPPING = [
    {"tol": 3e-3, "n_iter_no_change": 3},
    {"tol": 1e-2, "n_iter_no_change": 1},
    EARLY | {"tol": 1e-3, "n_iter_no_change": 4},
]
LBFGS = {"solver": ("lbfgs",)}
SGD = {"solver": ("sgd",)}
ADAM = {"solver": ("adam",)}
TWO = {"task": TWO_TASKS}

CASES = [
    *cases("plain", EVERY),
    *cases("sample_weight", EVERY, protocol=fit_weighted),
    *cases("sparse", EVERY, container="csr"),
    *cases("sparse", EVERY, container="csc"),
    *cases("sparse", EVERY_STOCHASTIC | TWO, container="csr_array", **EARLY),
    *cases("sparse", EVERY | TWO, container="csc_array", protocol=fit_weighted),
    *cases("sparse", EVERY_STOCHASTIC | TWO, container="csc", protocol=fit_in_parts),
    *cases("early_stopping", EVERY, **EARLY),
    *cases("early_stopping", EVERY_STOCHASTIC | TWO, protocol=fit_weighted, **EARLY),
    *cases("early_stopping", EVERY_STOCHASTIC | TWO, protocol=fit_twice, **EARLY),
    *cases("warm_start", EVERY_STOCHASTIC, protocol=fit_twice),
    *cases("warm_start", EVERY | LBFGS, protocol=fit_twice, max_iter=EPOCHS // 2),
    *cases("partial_fit", EVERY_STOCHASTIC, protocol=fit_in_parts),
    *cases("partial_fit", EVERY_STOCHASTIC | TWO, protocol=fit_then_parts),
    *cases("batch", EVERY_STOCHASTIC | TWO | {"params": BATCHES}),
    *cases("batch", EVERY_STOCHASTIC | TWO, protocol=fit_weighted, batch_size=7),
    *cases("batch", EVERY_STOCHASTIC | TWO, n_rows=230, batch_size="auto"),
    *cases("momentum", EVERY | SGD | TWO | {"params": MOMENTA}),
    *cases("schedule", EVERY | SGD | {"params": SCHEDULES}),
    *cases("schedule", EVERY | SGD | TWO | {"params": SCHEDULES}, **EARLY),
    *cases("schedule", EVERY | SGD | TWO | {"params": SCHEDULES[1:2]}, protocol=fit_in_parts),
    *cases("adam_rates", EVERY | ADAM | TWO | {"params": ADAM_RATES}),
    *cases("layers", EVERY | {"params": LAYERS}),
    *cases("layers", EVERY_STOCHASTIC | {"params": ODD_LAYERS}),
    *cases("alpha", EVERY | TWO | {"params": ALPHAS}),
    *cases("no_shuffle", EVERY, shuffle=False),
    *cases("no_shuffle", EVERY_STOCHASTIC | TWO, shuffle=False, container="csr"),
    *cases("patience_inf", EVERY, n_iter_no_change=np.inf, tol=1e3),
    *cases("max_fun", EVERY | LBFGS | TWO, max_fun=25, max_iter=1000),
]
STOPPING_CASES = cases("stopping", EVERY_STOCHASTIC | {"params": STOPPING}, max_iter=1000)
FLOAT32_CASES = [
    *cases("float32", EVERY_STOCHASTIC, dtype=np.float32),
    # fewer iterations: near the minimum float32 L-BFGS goes where the rounding errors push it
    *cases("float32", EVERY | LBFGS, dtype=np.float32, max_iter=10),
    *cases("float32", EVERY_STOCHASTIC | TWO, dtype=np.float32, protocol=fit_weighted),
    *cases("float32", EVERY_STOCHASTIC | TWO, dtype=np.float32, container="csr"),
    *cases("float32", EVERY_STOCHASTIC | TWO, dtype=np.float32, **EARLY),
    *cases("float32", EVERY_STOCHASTIC | TWO, dtype=np.float32, protocol=fit_in_parts),
]
OTHER_BACKENDS_CASES = [
    *cases("other", EVERY_STOCHASTIC),
    *cases("other", EVERY | TWO, protocol=fit_weighted, container="csr"),
    *cases("other", EVERY | LBFGS | TWO, hidden_layer_sizes=(7, 5)),
    *cases("other", EVERY | SGD | TWO | {"params": MOMENTA[:3]}),
]


# ----------------------------------------------------------------------------------------- tests
def problem_of(case):
    """-> X, y, sample_weight in the case's container and dtype."""
    X, y, sw = parity.make_problem(case.task, case.n_rows, seed=case.seed % 7)
    if case.task not in CLASSIFIER_TASKS:
        y = y.astype(case.dtype)
    return parity.as_container(X.astype(case.dtype), case.container), y, sw


def run_both(case):
    """Fit the twins as the case says. -> (scikit-learn's, ours), the X they saw."""
    X, y, sw = problem_of(case)
    expected, got = parity.observe_both(
        parity.twins_of(case.task),
        lambda est: case.protocol(est, X, y, sw),
        **case.estimator_params(),
    )
    for outcome in (expected, got):
        if outcome.error is not None:
            raise outcome.error
    parity.assert_same_noise(expected, got)
    return expected.value, got.value, X


@pytest.mark.parametrize("case", covering(CASES, Case.factors, MEET, gate=()), ids=str)
def test_float64(case):
    sk, fm, X = run_both(case)
    converged = case.solver == "lbfgs" and sk.n_iter_ < EPOCHS
    assert parity.count_epochs(sk) >= 20 or converged
    parity.assert_same_model(sk, fm, X, parity.tolerance(X.dtype, parity.count_steps(sk, X)))


@pytest.mark.parametrize("case", covering(STOPPING_CASES, Case.factors, MEET, gate=()), ids=str)
def test_float64_stops_at_the_same_epoch(case):
    """Stopping by tol: the same decision, taken after the same epoch."""
    sk, fm, X = run_both(case)
    assert sk.n_iter_ < case.estimator_params()["max_iter"]
    parity.assert_same_model(sk, fm, X, parity.tolerance(X.dtype, parity.count_steps(sk, X)))


@pytest.mark.parametrize("case", covering(FLOAT32_CASES, Case.factors, MEET, gate=()), ids=str)
def test_float32(case):
    sk, fm, X = run_both(case)
    tol = parity.tolerance(X.dtype, parity.count_steps(sk, X))
    if case.solver == "lbfgs":
        w, loss = parity.amplification(lambda X: refit_theirs(case, X), sk, X)
        assert w < 0.01, "chaotic: the case shows nothing"
        tol = tol._replace(weights_floor=max(tol.weights_floor, 4 * w), loss=max(tol.loss, 4 * loss))
    parity.assert_same_model(sk, fm, X, tol)


def refit_theirs(case, X):
    _, y, sw = problem_of(case)
    est = parity.twins_of(case.task).theirs(**case.estimator_params())
    return parity.observe(case.protocol, est, X, y, sw).value


ON_BACKENDS = [replace(case, backend=name) for name in backends.available()[1:] for case in OTHER_BACKENDS_CASES]
ON_BACKENDS = covering(ON_BACKENDS, Case.factors, MEET, gate=())


@pytest.mark.parametrize("case", ON_BACKENDS, ids=lambda case: f"{case}-{case.backend}")
def test_every_backend_goes_the_same_way(case):
    """The table above runs on the engine that "auto" takes; a part of it on the others."""

    def on_backend(est, X, y, sw):
        if "backend" in est.get_params():
            est.set_params(backend=case.backend)
        return case.protocol(est, X, y, sw)

    sk, fm, X = run_both(replace(case, protocol=on_backend))
    parity.assert_same_model(sk, fm, X, parity.tolerance(X.dtype, parity.count_steps(sk, X)))


def test_number_of_combinations(capsys):
    """The table is what it claims to be: every pair of levels occurs, no case twice."""
    table = CASES + STOPPING_CASES + FLOAT32_CASES + OTHER_BACKENDS_CASES
    assert len({(str(c), c.dtype) for c in table}) == len(table)
    seen = {(c.group, c.solver, c.activation) for c in CASES}
    for group in {c.group for c in CASES}:
        solvers = {c.solver for c in CASES if c.group == group}
        for solver in solvers:
            assert {a for g, s, a in seen if (g, s) == (group, solver)} == set(ACTIVATIONS)
    with capsys.disabled():
        print(
            f"\n{len(CASES)} float64 combinations, {len(STOPPING_CASES)} that stop by tol, "
            f"{len(FLOAT32_CASES)} in float32, {len(OTHER_BACKENDS_CASES)} on each other engine"
        )
    assert (len(CASES), len(STOPPING_CASES), len(FLOAT32_CASES)) == (1616, 144, 136)
