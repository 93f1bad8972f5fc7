"""Fits that several ranks take part in, each with some of the rows, come to the weights of a fit in one process.

Ranks are threads (fastmlp/distributed/threads.py); they share nothing but their communicator.
"""

import gc
import inspect
import itertools
import os
import time
import warnings
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse as sp

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.callbacks import Checkpoint
from fastmlp.distributed import (
    Alone,
    CommunicationError,
    Communicator,
    Partitions,
    on_threads,
    ranks_of_threads,
    shared_memory,
)
from fastmlp.distributed.communicator import DIRECT_BYTES, PAIR_BYTES
from fastmlp.distributed.engine import SharedEngine
from fastmlp.engines import backends
from fastmlp.kernels import interrupts, reference
from fastmlp.kernels.contract import Engine

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

#: Whether ranks on threads share memory.
HAS_MEMORY = hasattr(os, "memfd_create")

# --- rows, and how ranks have them ------------------------------------------------------------------------------------

N = 61


def rows_of(task, n=N, seed=0):
    """X (n, 5) float64, y of a task."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5))
    scores = X @ rng.normal(size=(5, 3)) + 0.3 * rng.normal(size=(n, 3))
    y = {
        "binary": np.where(scores[:, 0] > 0, "yes", "no"),
        "multiclass": scores.argmax(axis=1) * 10,
        "multilabel": (scores > 0).astype(int),
        "regression": scores[:, 0],
        "outputs": scores[:, :2],
    }[task]
    return X, y


#: Lengths of the partitions of each rank by their number in the table: name -> a mapping for each rank.
PARTITIONS = {
    "one": [{0: 61}],
    "even": [{0: 31}, {1: 30}],
    "uneven": [{0: 7}, {1: 50}, {2: 4}],
    "empty": [{0: 30}, {1: 0}, {2: 31}],
    "single rows": [{0: 1}, {1: 59}, {2: 1}],
    "several": [{4: 11, 0: 20}, {3: 1, 1: 0}, {2: 29}],
    "nobody": [{0: 61}, {}],
}


class Here:
    """The part of arrays that one rank has."""

    def __init__(self, of_ranks, rank):
        self.lengths, starts, at = of_ranks[rank], {}, 0
        for number, n in sorted((number, n) for lengths in of_ranks for number, n in lengths.items()):
            starts[number], at = at, at + n
        pieces = [np.arange(starts[number], starts[number] + n) for number, n in self.lengths.items()]
        self.rows = np.concatenate([*pieces, np.empty(0, dtype=int)]).astype(int)

    def __call__(self, array):
        return None if array is None else array[self.rows]

    def X(self, X):
        return Partitions(self(X), self.lengths)


def fit_on_ranks(estimator_of, of_ranks, X, y, weight=None, timeout=20, **sets):
    """Return the estimators of all ranks; a validation set is shared out by halves."""

    def fit(communicator):
        here = Here(of_ranks, communicator.rank)
        given = {name: array[communicator.rank :: communicator.size] for name, array in sets.items()}
        estimator = estimator_of()
        return estimator.fit(here.X(X), here(y), here(weight), communicator=communicator, **given)

    return on_threads(fit, len(of_ranks), timeout=timeout)


def assert_same_fit(estimators, expected, tolerance=1e-12):
    """All ranks have the same bits, and what a fit in one process has up to rounding."""
    for estimator in estimators:
        for name in ("coefs_", "intercepts_", "loss_curve_", "validation_loss_curve_", "validation_scores_"):
            values, theirs = getattr(expected, name, None), getattr(estimator, name, None)
            assert (values is None) == (theirs is None), name
            for value, its in zip(values or [], theirs or [], strict=True):
                np.testing.assert_allclose(its, value, rtol=tolerance, atol=tolerance, err_msg=name)
        assert estimator.n_iter_ == expected.n_iter_
        assert getattr(estimator, "t_", 0) == getattr(expected, "t_", 0)
        for W, first in zip(estimator.coefs_, estimators[0].coefs_, strict=True):
            assert np.array_equal(W, first)


class Case(NamedTuple):
    """One fit, and how its rows are shared out."""

    partitions: str
    task: str
    solver: str = "adam"
    weighted: bool = False
    kind: str = "dense"
    options: dict = {}  # noqa: RUF012 # read only


#: The combinations: each solver, task, partitioning and option occurs, most of them together with several others.
CASES = [
    Case("one", "binary"),
    Case("even", "multiclass", "adam", True, options={"dropout": 0.3, "batch_size": 16}),
    Case("uneven", "regression", "sgd", options={"early_stopping": True}),
    Case("empty", "multilabel", "adamw", True, options={"input_dropout": 0.2, "batch_size": 10}),
    Case("single rows", "outputs", "adam", options={"standardize_y": True, "batch_size": 7}),
    Case("several", "binary", "sgd", True, options={"early_stopping": True, "validation_fraction": 0.3}),
    Case("nobody", "multiclass", "lbfgs", True),
    Case("uneven", "binary", "lbfgs", options={"alpha": 0.1}),
    Case("several", "regression", "lbfgs", True, options={"standardize_y": True}),
    Case("empty", "multiclass", "nadam", options={"class_weight": "balanced", "batch_size": 9}),
    Case("several", "multiclass", "rmsprop", options={"early_stopping": True, "class_weight": "balanced"}),
    Case("uneven", "outputs", "lion", options={"l1_ratio": 0.5, "alpha": 0.01, "batch_size": 20, "max_iter": 3}),
    Case("single rows", "binary", "adam", True, options={"max_grad_norm": 0.1, "batch_size": 5, "dropout": 0.5}),
    Case("even", "regression", "adagrad", True, options={"train_score": True, "batch_size": 30, "drop_last": True}),
    Case("nobody", "regression", "adadelta", options={"shuffle": False, "batch_size": 8}),
    Case("several", "multilabel", "amsgrad", True, options={"learning_rate": "cosine", "batch_size": 13}),
    Case("uneven", "multiclass", "adam", True, "csr", {"input_dropout": 0.3, "batch_size": 12}),
    Case("empty", "binary", "lbfgs", False, "csr"),
    Case("even", "regression", "sgd", False, "float32", {"batch_size": 12}),
    Case("several", "multiclass", "sgd", True, "weightless", {"batch_size": 2, "nesterovs_momentum": False}),
    Case("several", "binary", "adam", False, "csr", {"early_stopping": True, "monitor": "f1_micro"}),
    Case("uneven", "regression", "sgd", options={"loss": "huber", "learning_rate": "adaptive", "tol": 0.1}),
    Case("empty", "binary", "adam", True, options={"loss": "focal", "restore_best": True, "early_stopping": True}),
    Case("even", "multiclass", "sgd", options={"activation": ("elu", {"alpha": 0.5}), "batch_size": 61}),
    Case("single rows", "multiclass", "adam", options={"activation": "prelu", "batch_size": 1, "max_iter": 2}),
    Case("several", "regression", "adamw", True, options={"loss": "quantile", "weight_decay": 0.1}),
]


@pytest.mark.parametrize(
    "case, backend",
    [
        *((case, "cython") for case in CASES),
        *((case, "reference") for case in CASES[1:5]),
        *(pytest.param(case, "reference", marks=pytest.mark.exhaustive) for case in [CASES[0], *CASES[5:]]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value[:5])),
)
def test_the_weights_of_one_process(case, backend):
    X, y = rows_of(case.task)
    X = sp.csr_array(np.where(np.abs(X) > 0.7, X, 0)) if case.kind == "csr" else X
    X = X.astype(np.float32) if case.kind == "float32" else X
    weight = np.random.default_rng(5).uniform(0.1, 2, len(y)) if case.weighted else None
    if case.kind == "weightless":
        weight[:40] = 0
    cls = MLPRegressor if case.task in ("regression", "outputs") else MLPClassifier
    options = {"max_iter": 6, "solver": case.solver, "random_state": 3, "backend": backend, **case.options}

    def estimator():
        return cls(hidden_layer_sizes=(6, 5), **options)

    expected = estimator().fit(X, y, weight)
    found = fit_on_ranks(estimator, PARTITIONS[case.partitions], X, y, weight)
    assert_same_fit(found, expected, 2e-5 if case.kind == "float32" else 1e-12)
    if case.solver != "lbfgs":
        assert found[-1].history_["loss"] == found[0].history_["loss"]
    assert np.array_equal(found[0].predict(X), found[-1].predict(X))


def test_cases_are_many():
    assert len(CASES) >= 25
    assert {case.partitions for case in CASES} == {*PARTITIONS}


@pytest.mark.parametrize("partitions", ["even", "several", "nobody"])
def test_validation_rows_of_all_ranks(partitions):
    X, y = rows_of("multiclass")
    X_val, y_val = rows_of("multiclass", 21, seed=1)
    weight = np.linspace(0.5, 2, 21)
    sets = {"X_val": X_val, "y_val": y_val, "sample_weight_val": weight}
    order = np.concatenate(
        [np.arange(21)[i :: len(PARTITIONS[partitions])] for i in range(len(PARTITIONS[partitions]))]
    )

    def estimator():
        return MLPClassifier(
            hidden_layer_sizes=(6,), max_iter=8, random_state=0, early_stopping=True, monitor=["score", "loss"]
        )

    expected = estimator().fit(X, y, **{name: array[order] for name, array in sets.items()})
    found = fit_on_ranks(estimator, PARTITIONS[partitions], X, y, **sets)
    assert_same_fit(found, expected)
    assert found[0].validation_scores_ == found[-1].validation_scores_


def test_repeated_fits_have_the_same_bits():
    X, y = rows_of("multiclass")
    fits = [
        fit_on_ranks(
            lambda: MLPClassifier(hidden_layer_sizes=(6,), max_iter=5, random_state=1), PARTITIONS["uneven"], X, y
        )[0]
        for _ in range(2)
    ]
    assert np.array_equal(fits[0].coefs_[0], fits[1].coefs_[0])


def test_no_seed_is_that_of_rank_0():
    X, y = rows_of("multiclass")
    found = fit_on_ranks(lambda: MLPClassifier(hidden_layer_sizes=(6,), max_iter=3), PARTITIONS["uneven"], X, y)
    assert all(np.array_equal(one.coefs_[0], found[0].coefs_[0]) for one in found)


@pytest.mark.parametrize("function", backends.CONTRACT)
def test_the_engine_in_front_has_the_calls_of_the_contract(function):
    theirs, ours = getattr(Engine, function), getattr(SharedEngine(reference, Alone()), function)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    assert SharedEngine(reference, Alone()).__name__ == reference.__name__


# --- further training -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_partial_fit_and_warm_start(task):
    X, y = rows_of(task)
    cls = MLPRegressor if task == "regression" else MLPClassifier
    classes = {} if task == "regression" else {"classes": np.unique(y) if y.ndim == 1 else np.arange(3)}

    def train(here=lambda array: array, wrap=lambda X: X, **together):
        estimator = cls(hidden_layer_sizes=(6,), random_state=0, dropout=0.2, batch_size=10)
        for _ in range(3):
            estimator.partial_fit(wrap(here(X)), here(y), **classes, **together)
        warm = cls(hidden_layer_sizes=(6,), random_state=0, max_iter=3, warm_start=True, batch_size=10)
        for _ in range(2):
            warm.fit(wrap(here(X)), here(y), **together)
        return estimator, warm

    expected = train()

    def of_rank(communicator):
        here = Here(PARTITIONS["empty"], communicator.rank)
        return train(here, lambda X: Partitions(X, here.lengths), communicator=communicator)

    for found, one in zip(zip(*on_threads(of_rank, 3, timeout=20), strict=True), expected, strict=True):
        assert_same_fit(found, one)


def test_resumed_fit(tmp_path):
    """A checkpoint of three ranks is resumed by two: to the weights of an uninterrupted fit of one process."""
    X, y = rows_of("multiclass")
    path = tmp_path / "fit.npz"

    def estimator(max_iter=9, **options):
        return MLPClassifier(
            hidden_layer_sizes=(6,), max_iter=max_iter, random_state=0, early_stopping=True, dropout=0.1, **options
        )

    expected = estimator().fit(X, y)
    fit_on_ranks(lambda: estimator(4, callbacks=[Checkpoint(path)]), PARTITIONS["several"], X, y)

    def resume(communicator):
        here = Here(PARTITIONS["even"], communicator.rank)
        file = path if communicator.rank == 0 else "a file that only rank 0 can see"
        return estimator().fit(here(X), here(y), resume_from=file, communicator=communicator)

    assert_same_fit(on_threads(resume, 2, timeout=20), expected)


# --- callbacks --------------------------------------------------------------------------------------------------------


def test_callbacks_of_rank_0_count_for_all():
    """They stop, set the learning rate, edit weights and change parameters; those of other ranks are not called."""
    X, y = rows_of("regression")
    calls = []

    class Steers:
        def on_fit_begin(self, estimator):
            calls.append("begin")

        def on_fit_end(self, estimator):
            calls.append("end")

        def __call__(self, info):
            calls.append(info.epoch)
            if info.epoch == 1:
                info.set_learning_rate(0.05)
            if info.epoch == 2:
                info.estimator.coefs_[0][0] *= 2
            if info.epoch == 3:
                info.estimator.coefs_ = [W + 0.1 for W in info.estimator.coefs_]
                info.estimator.tol = 0.5
            return info.epoch == 5

        def __repr__(self):
            return "Steers"

    def refuse(info):
        raise AssertionError("only rank 0 calls its callbacks")

    def fit(communicator=None, here=slice(None)):
        of_rank_0 = communicator is None or communicator.rank == 0
        estimator = MLPRegressor(
            hidden_layer_sizes=(6,), random_state=0, callbacks=[Steers()] if of_rank_0 else [refuse]
        )
        return estimator.fit(X[here], y[here], communicator=communicator)

    expected, heard = fit(), calls.copy()
    calls.clear()
    found = on_threads(lambda c: fit(c, slice(30 * c.rank, 30 + 31 * c.rank)), 2, timeout=20)
    assert_same_fit(found, expected)
    assert calls == heard
    assert [one.stopped_by_ for one in found] == ["Steers"] * 2
    assert [one.tol for one in found] == [0.5, 0.5]
    assert found[1].history_["learning_rate"] == expected.history_["learning_rate"]


def test_only_rank_0_prints_and_warns(capsys):
    X, y = rows_of("regression")

    def fit(communicator):
        here = slice(30 * communicator.rank, 30 + 31 * communicator.rank)
        return MLPRegressor(hidden_layer_sizes=(6,), random_state=0, verbose=True, max_iter=2).fit(
            X[here], y[here], communicator=communicator
        )

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = on_threads(fit, 2, timeout=20)
    assert capsys.readouterr().out.count("Iteration 2, ") == 1
    assert len([one for one in caught if "Maximum iterations" in str(one.message)]) == 1
    assert all(one.verbose for one in found)


# --- what is wrong on one rank is an error on all ---------------------------------------------------------------------


def errors_of(fit, size=3, timeout=10):
    """Return the error of each rank."""
    errors = {}

    def catch(communicator):
        try:
            fit(communicator)
        except (Exception, KeyboardInterrupt) as error:
            errors[communicator.rank] = error

    on_threads(catch, size, timeout=timeout)
    return [errors.get(rank) for rank in range(size)]


def faulty(what):
    """Return a fit that goes wrong on rank 1, or on ranks that differ."""
    X, y = rows_of("multiclass")
    X, y = np.array_split(X, 3), np.array_split(y, 3)
    options = [{} for _ in range(3)]
    if what == "NaN":
        X[1][3, 2] = np.nan
    elif what == "features":
        X[1] = X[1][:, :4]
    elif what == "dtype":
        X[1] = X[1].astype(np.float32)
    elif what == "length":
        y[1] = y[1][1:]
    elif what == "kind of y":
        y[1] = y[1].astype(str)
    elif what == "parameter":
        options[1] = {"alpha": 0.5}
    elif what == "rows":
        X[1], y[1] = Partitions(X[1], {0: len(X[1])}), y[1]
    elif what == "none":
        X, y = [one[:0] for one in X], [one[:0] for one in y]

    def fit(communicator):
        estimator = MLPClassifier(hidden_layer_sizes=(4,), max_iter=2, random_state=0, **options[communicator.rank])
        rank = communicator.rank
        weight = np.ones(len(y[1])) if (what, rank) == ("weight", 1) else None
        start = {"coef_init": [np.zeros((5, 4)), np.zeros((4, 3))]} if (what, rank) == ("start", 1) else {}
        estimator.fit(X[rank], y[rank], weight, communicator=communicator, **start)

    return fit


@pytest.mark.parametrize(
    "what, message",
    {
        "NaN": "rank 1: Input X contains NaN",
        "features": "rank 1 has features 4, rank 0 has 5",
        "dtype": "rank 1 has X of dtype float32, rank 0 has float64",
        "length": "rank 1: Found input variables with inconsistent numbers of samples",
        "kind of y": "rank 1 has y of kind and shape",
        "parameter": "rank 1 has parameter alpha 0.5, rank 0 has 0.0001",
        "weight": "rank 1 has sample_weight given, rank 0 has none",
        "rows": "partition 0 is on rank 0 and on rank 1",
        "start": "rank 1 has weights to start from",
        "none": "no rank has a row",
    }.items(),
)
def test_what_is_wrong_on_one_rank(what, message):
    for error in errors_of(faulty(what)):
        assert isinstance(error, ValueError)
        assert error.told  # a rank that told others might be faster than what they find themselves
        with pytest.raises(ValueError, match=message):
            raise error


def test_engines_that_differ():
    X, y = rows_of("binary")

    def fit(communicator):
        backend = "reference" if communicator.rank == 2 else "cython"
        MLPClassifier(hidden_layer_sizes=(4,), backend=backend).fit(X, y, communicator=communicator)

    for error in errors_of(fit):
        assert "rank 2 has parameter backend 'reference', rank 0 has 'cython'" in str(error)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_norm": True}, "batch_norm makes no sense with communicator"),
        ({"n_ens": 2}, "communicator makes no sense with n_ens=2"),
    ],
)
def test_options_that_are_refused(options, message):
    X, y = rows_of("binary")
    with pytest.raises(ValueError, match=message):
        MLPClassifier(hidden_layer_sizes=(4,), **options).fit(X, y, communicator=Alone())


@pytest.mark.parametrize("backend", sorted({*backends.available()} - {"cython", "reference"}))
def test_other_engines_are_refused(backend):
    X, y = rows_of("binary")
    with pytest.raises(ValueError, match="has no steps that several processes take together"):
        MLPClassifier(hidden_layer_sizes=(4,), backend=backend).fit(X.astype(np.float32), y, communicator=Alone())


@pytest.mark.parametrize("given", [3, "MPI", object()])
def test_what_is_no_communicator(given):
    X, y = rows_of("binary")
    with pytest.raises(TypeError, match=r"communicator must be a fastmlp\.distributed\.Communicator"):
        MLPClassifier(hidden_layer_sizes=(4,)).fit(X, y, communicator=given)


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_rank_that_fails_ends_all():
    """At any place: the others are told, and do not wait for the timeout."""
    X, y = rows_of("regression")

    def breaks(info):
        if info.epoch == 2:
            raise OSError("the disk is full")

    def fit(communicator):
        MLPRegressor(hidden_layer_sizes=(4,), random_state=0, callbacks=[breaks]).fit(X, y, communicator=communicator)

    errors = errors_of(fit, timeout=60)
    assert isinstance(errors[0], OSError)
    for error in errors[1:]:
        assert isinstance(error, CommunicationError)
        assert error.rank == 0
        assert "rank 0 has failed: OSError: the disk is full" in str(error)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("place", ["callback", "between calls"])
def test_an_interrupted_rank_ends_all(place, solver):
    """It keeps the epochs that are done; the others end with an error that names it."""
    X, y = rows_of("regression")
    stop, fitted = interrupts.Stop(), []

    def interrupt(info):
        if info.epoch == 3 and place == "callback":
            raise KeyboardInterrupt
        stop.wanted = info.epoch == 3

    def fit(communicator):
        estimator = MLPRegressor(hidden_layer_sizes=(4,), random_state=0, solver=solver, n_iter_no_change=100)
        if solver == "adam":
            estimator.set_params(callbacks=[interrupt])
        elif communicator.rank == 0:
            stop.wanted = True
        with interrupts.stoppable(stop if communicator.rank == 0 else interrupts.Stop()):
            fitted.append(estimator.fit(X, y, communicator=communicator))

    errors = errors_of(fit, 2, timeout=60)
    assert isinstance(errors[1], CommunicationError)
    assert "rank 0 has failed: it was interrupted" in str(errors[1])
    assert [one.n_iter_ for one in fitted] == ([3] if solver == "adam" else [])


def test_a_rank_that_never_comes():
    X, y = rows_of("regression")

    def fit(communicator):
        if communicator.rank != 1:
            MLPRegressor(hidden_layer_sizes=(4,), random_state=0).fit(X, y, communicator=communicator)

    errors = errors_of(fit, timeout=0.5)
    assert errors[1] is None
    assert any("rank 1 did not answer within 0.5 seconds" in str(errors[rank]) for rank in (0, 2))
    assert all(isinstance(errors[rank], CommunicationError) for rank in (0, 2))


def test_ranks_at_different_points():
    def talk(communicator):
        communicator.allgather(1) if communicator.rank else communicator.barrier()

    errors = errors_of(talk, 2)
    assert "rank 1 is at another point of its fit" in str(errors[0])
    assert "rank 0 is at another point of its fit" in str(errors[1])


# --- the communicator -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 7, 5 * DIRECT_BYTES])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("shares_memory", [True, False])
def test_sums_in_the_order_of_ranks(shares_memory, size, n, dtype):
    vectors = np.random.default_rng(0).normal(size=(size, n)).astype(dtype)
    expected = vectors[0].copy()
    for vector in vectors[1:]:
        expected += vector

    def reduce(communicator):
        vector = vectors[communicator.rank].copy()
        if shares_memory:
            memory = communicator.vector(n, vector.dtype)
            in_slices = size > 1 and vector.nbytes > (PAIR_BYTES if size == 2 else DIRECT_BYTES)
            assert (memory is not None) == (in_slices and HAS_MEMORY)
            if memory is not None:
                memory[...], vector = vector, memory
        communicator.allreduce(vector)
        return vector

    for found in on_threads(reduce, size, timeout=20):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", [2, 3])
def test_sums_of_vectors_that_differ_in_length_and_dtype(size):
    """Memory that is shared is another one for each, and each sum is there before anybody goes on."""

    def reduce(communicator):
        swap, n_wrong = communicator._swap, 0

        def late(*args):
            found = swap(*args)
            time.sleep(0.002 * (communicator.rank == 1))
            return found

        communicator._swap = late
        for n, dtype in 10 * [(90_000, np.float64), (60_000, np.float64), (90_000, np.float32)]:
            vector = communicator.vector(n, np.dtype(dtype)) if HAS_MEMORY else np.zeros(n, dtype)
            for _ in range(2):
                vector[...] = 1 + communicator.rank
                communicator.allreduce(vector)
                n_wrong += np.count_nonzero(vector != size * (size + 1) / 2)
        return n_wrong

    assert on_threads(reduce, size, timeout=20) == [0] * size


needs_memory = pytest.mark.skipif(not HAS_MEMORY, reason="only Linux has memory without a name")


def descriptors():
    """Return how many files this process has open."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@needs_memory
@pytest.mark.parametrize("backend", ["cython", "reference"])
@pytest.mark.parametrize("partitions", ["even", "uneven", "nobody"])
@pytest.mark.parametrize("options", [{"max_grad_norm": 0.5}, {"solver": "lbfgs"}], ids=["adam", "lbfgs"])
def test_gradients_in_shared_memory(options, partitions, backend):
    """One communicator serves several fits, of networks whose gradients are of one length or of another."""
    (X, y), of_ranks = rows_of("regression"), PARTITIONS[partitions]
    options = {"random_state": 0, "max_iter": 4, "batch_size": 20, "backend": backend, **options}
    nets = [(130, 260), (130, 260), (135, 250)]
    expected = [MLPRegressor(hidden_layer_sizes=net, **options).fit(X, y) for net in nets]

    def fit(communicator):
        here, found = Here(of_ranks, communicator.rank), []
        for net in nets:
            estimator = MLPRegressor(hidden_layer_sizes=net, **options)
            found.append(estimator.fit(here.X(X), here(y), communicator=communicator))
            assert len(communicator._rooms) == communicator.size
        return found

    for fits, whole in zip(zip(*on_threads(fit, len(of_ranks), timeout=60), strict=True), expected, strict=True):
        assert_same_fit(fits, whole)


@needs_memory
def test_rooms_are_memory_of_all_ranks_and_leave_no_file():
    def meet(communicator):
        rooms = shared_memory.rooms(communicator, 10_000)
        assert not rooms[communicator.rank].any()
        rooms[communicator.rank][...] = 1 + communicator.rank
        communicator.barrier()
        return [(len(room), room.min(), room.max()) for room in rooms]

    before = descriptors()
    assert on_threads(meet, 3, timeout=20) == [[(10_000, 1 + rank, 1 + rank) for rank in range(3)]] * 3
    assert descriptors() == before


def _elsewhere(place, numbers=itertools.count()):  # noqa: B008 # ranks on threads share it
    return place._replace(machine=next(numbers))


def _hidden(place):
    return place._replace(path="/proc/self/fd/a-file-that-is-not-there")


def _mistaken(place):
    return place._replace(mark=bytes(16))


def _none(place):
    return None


@needs_memory
@pytest.mark.parametrize("changed", [_none, _elsewhere, _hidden, _mistaken])
def test_ranks_without_rooms_send_what_they_have(monkeypatch, changed):
    new_room = shared_memory._new_room

    def another(n_bytes):
        descriptor, place = new_room(n_bytes)
        return descriptor, changed(place)

    def add(communicator):
        vector = np.full(100_000, 1.0 + communicator.rank)
        shared = [communicator.vector(len(vector), vector.dtype) for _ in range(2)]
        communicator.allreduce(vector)
        return shared, vector.min(), vector.max()

    before = descriptors()
    monkeypatch.setattr(shared_memory, "_new_room", another)
    assert on_threads(add, 2, timeout=20) == [([None, None], 3.0, 3.0)] * 2
    assert descriptors() == before


@needs_memory
@pytest.mark.parametrize("broken", ["memfd_create", "posix_fallocate"])
def test_a_system_that_refuses_shared_memory(monkeypatch, broken):
    def refuse(*_):
        raise OSError("not permitted")

    before = descriptors()
    monkeypatch.setattr(os, broken, refuse)
    assert on_threads(lambda communicator: shared_memory.rooms(communicator, 100), 2, timeout=20) == [None, None]
    assert descriptors() == before


def test_values_of_all_ranks():
    def talk(communicator: Communicator):
        communicator.barrier()
        return communicator.allgather({"rank": communicator.rank}), communicator.broadcast(communicator.rank + 7)

    assert on_threads(talk, 3, timeout=20) == [([{"rank": 0}, {"rank": 1}, {"rank": 2}], 7)] * 3


@pytest.mark.parametrize("backend", ["cython", "reference"])
def test_messages_and_bytes_of_a_step(backend):
    """One sum per step, of the gradient and two numbers more, and no weights: counted, not believed."""
    X = rows_of("regression")[0]
    y = np.random.default_rng(0).normal(size=(N, 16))  # widths of whole vectors: engines add no zeros

    def sent(max_iter):
        def fit(communicator):
            here = slice(30 * communicator.rank, 30 + 31 * communicator.rank)
            options = {"random_state": 0, "max_iter": max_iter, "batch_size": 10, "backend": backend}
            estimator = MLPRegressor(hidden_layer_sizes=(16,), **options)
            estimator.fit(X[here], y[here], communicator=communicator)
            return np.array([communicator.n_messages, communicator.n_bytes])

        return on_threads(fit, 2, timeout=20)[0]

    n_params, n_steps, header = 5 * 16 + 16 * 16 + 16 + 16, 7, 16
    assert (sent(5) - sent(3)).tolist() == [2 * n_steps, 2 * n_steps * (8 * (n_params + 2) + header)]


def test_communicators_say_what_is_wrong_with_them():
    with pytest.raises(ValueError, match=r"rank must lie in \[0, 2\), got 2"):
        type(ranks_of_threads(2)[0])(2, 2, 1.0, None)
    with pytest.raises(ValueError, match="timeout must be above 0 seconds, got 0"):
        ranks_of_threads(2, timeout=0)
    with pytest.raises(ValueError, match="lengths must add up to the 3 rows of X"):
        Partitions(np.zeros((3, 2)), {0: 2})


def test_a_communicator_whose_fit_has_failed_is_over():
    X, y = rows_of("binary")
    alone = Alone()
    with pytest.raises(ValueError, match="batch_norm"):
        MLPClassifier(hidden_layer_sizes=(4,), batch_norm=True).fit(X, y, communicator=alone)
    with pytest.raises(CommunicationError, match="this communicator is over"):
        alone.barrier()


@pytest.mark.parametrize("size", [0, -1])
def test_there_is_at_least_one_rank(size):
    with pytest.raises(ValueError, match=f"size must be at least 1, got {size}"):
        on_threads(lambda communicator: None, size)
