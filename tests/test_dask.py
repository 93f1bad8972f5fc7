"""The estimators on clusters of Dask: the weights of one machine, whatever the partitions; lazy predictions; errors."""

import asyncio
import copy
import gc
import os
import pickle
import subprocess
import sys
import time
import uuid
from concurrent.futures import CancelledError
from contextlib import ExitStack

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.callbacks import Checkpoint

from tiers import covering, exhaustive, nightly

pytest.importorskip("distributed")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
delayed = pytest.importorskip("dask").delayed
pd = pytest.importorskip("pandas")

from dask_clusters import cluster_of, leftovers  # noqa: E402
from distributed import Client  # noqa: E402

from fastmlp.dask import DaskMLPClassifier, DaskMLPRegressor, WorkerLost, fitting, scattering, sessions, work  # noqa: E402
from fastmlp.dask.communicator import PIECE_BYTES, DaskCommunicator  # noqa: E402
from fastmlp.distributed.communicator import DIRECT_BYTES, PAIR_BYTES, CommunicationError, Communicator  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer", "ignore:lbfgs failed")

N, N_VAL, N_FEATURES = 157, 40, 5

#: Name -> numbers of rows of the blocks; those of frames and unknown sizes come from "uneven".
PARTITIONS = {
    "one": (157,),
    "even": (40, 40, 40, 37),
    "uneven": (3, 90, 14, 50),
    "empty": (0, 70, 0, 0, 80, 7, 0),
    "single-row": (1, 1, 100, 1, 53, 1),
    "more than workers": (20,) * 7 + (17,),
}


@pytest.fixture(scope="module")
def clients():
    """A function of a number of workers, of one thread each: a client of them."""
    with ExitStack() as stack:
        made = {}

        def of(n_workers):
            if n_workers not in made:
                made[n_workers] = stack.enter_context(cluster_of(n_workers))
            return made[n_workers]

        yield of


@pytest.fixture
def client(clients):
    """A client of two workers."""
    return clients(2)


def rows_of(task, n=N, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, N_FEATURES))
    if task == "binary":
        y = np.where(X[:, 0] + X[:, 1] ** 2 > 0.5, "yes", "no")
    elif task == "multiclass":
        y = np.digitize(X[:, 0], [-0.5, 0.5]) + 3
    elif task == "multilabel":
        y = (X[:, :3] > 0).astype(int)
    elif task == "regression":
        y = X[:, 0] * X[:, 1] + X[:, 2]
    else:
        y = np.stack([X[:, 0] * X[:, 1], X[:, 2]], axis=1)
    return X, y, rng.uniform(0.5, 2, size=n)


def spread(values, partitions):
    """Return rows as a Dask collection in these partitions."""
    if partitions in ("frame", "unknown"):
        blocks = spread(values, "uneven").to_delayed().ravel()
        if partitions == "frame":
            wrap = pd.DataFrame if values.ndim == 2 else pd.Series
            return dd.from_map(lambda block: wrap(block), [block.compute() for block in blocks])
        shape = (np.nan, *values.shape[1:])
        return da.concatenate(
            [da.from_delayed(b, shape, dtype=values.dtype) for b in blocks], allow_unknown_chunksizes=True
        )
    if partitions == "columns":
        return da.from_array(values, chunks=(50, 2)) if values.ndim == 2 else spread(values, "even")
    if partitions == "sparse":
        blocks = spread(values, "uneven")
        return blocks.map_blocks(sparse.csr_matrix) if values.shape[1:] == (N_FEATURES,) else blocks
    cuts = PARTITIONS[partitions]
    n = len(values)
    chunks = cuts if n == sum(cuts) else (1, n - 3, 0, 2)
    return da.from_array(values, chunks=(chunks, *values.shape[1:]))


def case(task, partitions="uneven", solver="adam", weights=False, validation=None, way="fit", **options):
    return {"task": task, "partitions": partitions, "solver": solver, "weights": weights, "validation": validation,
            "way": way, "options": options}  # fmt: skip


CASES = [
    case("binary"),
    case("binary", "one", "sgd"),
    case("binary", "even", "lbfgs", weights=True),
    case("binary", "uneven", "adamw", validation="X_val", restore_best=True),
    case("binary", "empty", "adam", dropout=0.3),
    case("binary", "single-row", "rmsprop", weights=True, validation="split", early_stopping=True),
    case("binary", "unknown", "nadam", class_weight="balanced"),
    case("binary", "frame", "lion", way="resumed"),
    case("binary", "sparse", "adam", weights=True),
    case("binary", "columns", "momentum", drop_last=True),
    case("multiclass", "one", "lbfgs"),
    case("multiclass", "even", "adam", weights=True, validation="X_val", monitor="loss"),
    case("multiclass", "uneven", "sgd", validation="split", early_stopping=True, learning_rate="adaptive"),
    case("multiclass", "empty", "nesterov", weights=True, class_weight="balanced"),
    case("multiclass", "single-row", "adagrad", dropout=0.2, input_dropout=0.1),
    case("multiclass", "unknown", "adam", way="partial_fit"),
    case("multiclass", "frame", "adam", weights=True, validation="X_val"),
    case("multiclass", "sparse", "lbfgs", alpha=0.01),
    case("multiclass", "more than workers", "adadelta", max_grad_norm=0.1),
    case("multilabel", "uneven", "adam", validation="X_val"),
    case("multilabel", "empty", "lbfgs", weights=True),
    case("multilabel", "more than workers", "adam", dropout=0.3, way="resumed"),
    case("regression", "one", "adam", weights=True, validation="X_val"),
    case("regression", "even", "sgd", learning_rate="invscaling", shuffle=False),
    case("regression", "uneven", "lbfgs", weights=True),
    case("regression", "empty", "adam", validation="split", early_stopping=True, monitor="loss"),
    case("regression", "single-row", "amsgrad", loss="huber", weights=True, way="resumed"),
    case("regression", "unknown", "adam", dropout=0.2, validation="X_val"),
    case("regression", "frame", "lbfgs"),
    case("regression", "sparse", "adamw", weight_decay=0.1, way="partial_fit"),
    case("regression", "more than workers", "adam", standardize_y=True),
    case("outputs", "columns", "adam", weights=True, validation="X_val"),
    case("outputs", "empty", "lbfgs", alpha=0.1),
    case("outputs", "frame", "adam", learning_rate="one_cycle", way="warm"),
    case("outputs", "unknown", "sgd", dropout=0.3, batch_size=13, way="partial_fit"),
]


def factors(row):
    return {"kind": row["task"], "partitions": row["partitions"], "way": row["way"]}


def trained(make, case, collections, tmp_path, **own):
    """Return an estimator that is trained as the case says, on these rows."""
    X, y, w, X_val, y_val, w_val = collections
    options = {
        "hidden_layer_sizes": (7, 4),
        "solver": case["solver"],
        "max_iter": 4,
        "random_state": 3,
        "batch_size": 40,
    }
    estimator = make(**options | case["options"] | own)
    w = w if case["weights"] else None
    given = {"X_val": X_val, "y_val": y_val} if case["validation"] == "X_val" else {}
    if given and case["weights"]:
        given["sample_weight_val"] = w_val
    if case["way"] == "fit":
        return estimator.fit(X, y, w, **given)
    if case["way"] == "warm":
        return estimator.set_params(warm_start=True).fit(X, y, w, **given).fit(X, y, w, **given)
    if case["way"] == "partial_fit":
        classes = {"classes": np.array([3, 4, 5])} if case["task"] == "multiclass" else {}
        return estimator.partial_fit(X, y, w, **classes).partial_fit(X, y, w).partial_fit(X, y, w)
    path = tmp_path / f"{make.__name__}.npz"
    clone(estimator).set_params(max_iter=2, callbacks=[Checkpoint(path)]).fit(X, y, w, **given)
    return estimator.fit(X, y, w, **given, resume_from=path)


def assert_same(ours, local):
    """All that training has left is the same, up to rounding."""
    for a, b in zip((*ours.coefs_, *ours.intercepts_), (*local.coefs_, *local.intercepts_), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    assert ours.n_iter_ == local.n_iter_
    assert ours.t_ == local.t_
    np.testing.assert_allclose(ours.loss_, local.loss_, rtol=1e-11)
    for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_"):
        found, expected = getattr(ours, name, None), getattr(local, name, None)
        assert (found is None) == (expected is None), name
        if expected is not None:
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13, err_msg=name)


# every case on some number of workers, which knows nothing of solvers and weights
@pytest.mark.covers("n_workers case", gate=("",))
@pytest.mark.parametrize("n_workers", [2, *exhaustive(1, 3), *nightly(4)])
@pytest.mark.parametrize(
    "case",
    covering(CASES, factors, ("way",)),
    ids=lambda case: "-".join((case["task"], case["partitions"], case["solver"])),
)
def test_weights_are_those_of_one_machine(clients, n_workers, case, tmp_path):
    is_regression = case["task"] in ("regression", "outputs")
    local, ours = (MLPRegressor, DaskMLPRegressor) if is_regression else (MLPClassifier, DaskMLPClassifier)
    arrays = (*rows_of(case["task"]), *rows_of(case["task"], N_VAL, 1))
    if case["partitions"] == "sparse":
        arrays = (sparse.csr_matrix(arrays[0]), *arrays[1:3], sparse.csr_matrix(arrays[3]), *arrays[4:])
        dense = (a.toarray() if sparse.issparse(a) else a for a in arrays)
        collections = [spread(a, case["partitions"]) for a in dense]
    else:
        collections = [spread(a, case["partitions"]) for a in arrays]
    expected = trained(local, case, arrays, tmp_path)
    assert_same(trained(ours, case, collections, tmp_path, client=clients(n_workers)), expected)


def _collect(wanted):
    gc.enable() if wanted else gc.disable()


@pytest.fixture
def tidy_client(client):
    """A client of two workers that collect no garbage: what a fit does not let go of stays."""
    client.run(_collect, False)
    yield client
    client.run(_collect, True)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_net_whose_gradients_are_summed_in_slices(tidy_client, solver):
    X, y, _ = rows_of("regression")
    options = {"hidden_layer_sizes": (130, 260), "max_iter": 4, "random_state": 0, "batch_size": 50, "solver": solver}
    local = MLPRegressor(**options).fit(X, y)
    assert sum(one.nbytes for one in local.coefs_) > PAIR_BYTES
    X, y = spread(X, "even"), spread(y, "even")
    fits = [DaskMLPRegressor(client=tidy_client, **options).fit(X, y) for _ in range(2)]
    for one in fits:
        assert_same(one, local)
        assert all(np.array_equal(a, b) for a, b in zip(one.coefs_, fits[0].coefs_, strict=True))
    assert leftovers(tidy_client) == {}


def _break_sums(wanted):
    """Let rank 0 fail at a sum while the others wait for it, or do so no longer."""

    def breaks(self, parts, out, *copies):
        if self.rank == 0 and self._rooms:
            raise OSError("the disk is full")
        Communicator._sum(self, parts, out, *copies)

    if wanted:
        DaskCommunicator._sum = breaks
    elif "_sum" in vars(DaskCommunicator):
        del DaskCommunicator._sum


@pytest.mark.parametrize("place", ["callback", "sum"])
def test_a_fit_that_fails_keeps_no_shared_memory(tidy_client, place):
    def breaks(info):
        if info.epoch == 2:
            raise OSError("the disk is full")

    X, y, _ = rows_of("regression")
    X, y = spread(X, "even"), spread(y, "even")
    callbacks = [breaks] if place == "callback" else None
    tidy_client.run(_break_sums, place == "sum")
    try:
        with pytest.raises(OSError, match="the disk is full"):
            DaskMLPRegressor(hidden_layer_sizes=(130, 260), callbacks=callbacks, client=tidy_client).fit(X, y)
    finally:
        tidy_client.run(_break_sums, False)
    assert leftovers(tidy_client) == {}


@pytest.mark.exhaustive  # workers begin with imports
def test_same_bits_each_time(clients):
    client_of_three = clients(3)
    X, y, _ = rows_of("multiclass")
    X, y = client_of_three.persist([spread(X, "more than workers"), spread(y, "more than workers")])
    first, second = (
        DaskMLPClassifier((8,), max_iter=5, random_state=0, client=client_of_three).fit(X, y).coefs_ for _ in range(2)
    )
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


@pytest.mark.exhaustive
def test_rows_of_X_get_no_second_owner(client):
    """Which rank a block belongs to must not depend on what an earlier fit has copied."""
    first, second = client.scheduler_info()["workers"]
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 1)), rng.integers(2, size=(60, 9))  # y is longer: Dask would bring X to it
    X = client.persist(da.from_array(X, chunks=(20, 1)), workers=[first])
    y = client.persist(da.from_array(y, chunks=(20, 9)), workers=[second])
    DaskMLPClassifier((3,), max_iter=2, client=client).fit(X, y)
    assert set(client.who_has(X).values()) == {(first,)}


# --- predictions ------------------------------------------------------------------------------------------------------

FITTED = {
    "classifier": (MLPClassifier, "multiclass", {}),
    "hinge": (MLPClassifier, "multiclass", {"loss": "hinge"}),
    "multilabel": (MLPClassifier, "multilabel", {}),
    "regressor": (MLPRegressor, "regression", {}),
    "outputs": (MLPRegressor, "outputs", {}),
}


def fitted(name):
    """Return a local estimator, with its task."""
    cls, task, options = FITTED[name]
    local = cls(hidden_layer_sizes=(6,), max_iter=20, n_iter_no_change=np.inf, random_state=0, **options)
    return local.fit(*rows_of(task)[:2]), task


def on_dask(local, **own):
    """Return a Dask estimator with what a local one has learned."""
    cls = DaskMLPRegressor if isinstance(local, MLPRegressor) else DaskMLPClassifier
    made = cls(**local.get_params(deep=False), **own)
    made.__setstate__({**local.__getstate__(), **own})
    return made


@pytest.mark.parametrize("partitions", ["empty", "unknown", "frame", "sparse", "columns"])
@pytest.mark.parametrize("name", FITTED)
def test_predictions_are_lazy_and_in_kind(name, partitions):
    """Without a cluster: any scheduler computes them."""
    local, task = fitted(name)
    X = rows_of(task)[0]
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        if not hasattr(local, method):
            assert not hasattr(on_dask(local), method)
            continue
        expected = getattr(local, method)(X)
        lazy = getattr(on_dask(local), method)(spread(X, partitions))
        found = lazy.compute(scheduler="sync")
        if partitions == "frame":
            kind = pd.DataFrame if expected.ndim == 2 else pd.Series
            assert isinstance(found, kind)
            assert isinstance(lazy._meta, kind)
            assert (found.index == spread(X, "frame").compute().index).all()
            if method == "predict_proba":
                assert list(found.columns) == list(local.classes_)
            found = found.to_numpy()
        else:
            assert isinstance(lazy, da.Array)
            assert lazy.chunks[0] == spread(X, partitions).chunks[0] or partitions == "unknown"
        assert lazy.ndim == expected.ndim
        assert found.dtype == expected.dtype == getattr(lazy, "dtype", expected.dtype)
        np.testing.assert_array_equal(found, expected) if found.dtype.kind == "i" else np.testing.assert_allclose(
            found, expected, rtol=1e-12, atol=1e-14)  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("partitions", ["empty", "unknown", "frame"])
@pytest.mark.parametrize("name", ["classifier", "multilabel", "regressor", "outputs"])
def test_score(name, partitions, weighted):
    local, task = fitted(name)
    X, y, w = rows_of(task, N, 5)
    lazy = [spread(a, partitions) for a in (X, y, w)]
    found = on_dask(local).score(lazy[0], lazy[1], lazy[2] if weighted else None)
    assert found == pytest.approx(local.score(X, y, w if weighted else None), rel=1e-12)


def test_features_are_lazy_and_what_looks_inside_takes_rows_in_memory():
    X = np.random.default_rng(0).normal(size=(40, 3))
    y = X[:, 0]
    reg = DaskMLPRegressor(hidden_layer_sizes=(4, 2), random_state=0).initialize(X, y)
    expected = reg.to_local().transform(X)
    blocks, frame = da.from_array(X, (10, 3)), dd.from_pandas(pd.DataFrame(X), npartitions=2)
    np.testing.assert_array_equal(reg.transform(blocks).compute(), expected)
    np.testing.assert_array_equal(reg.transform(X), expected)
    found = reg.transform(frame)
    assert list(found.columns) == list(reg.get_feature_names_out())
    np.testing.assert_array_equal(found.compute(), expected)
    np.testing.assert_array_equal(reg.layer_outputs(X, 1), expected)
    for method, args in {"layer_outputs": (), "initialize": (y,), "train_on_batch": (y,)}.items():
        with pytest.raises(TypeError, match="rows in memory"):
            getattr(reg, method)(blocks, *args)


def test_wrong_columns_are_refused_before_anything_is_computed():
    ours = on_dask(fitted("classifier")[0])
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 5 features"):
        ours.predict(da.zeros((10, 3)))
    with pytest.raises(ValueError, match="X has 1 dimension"):
        ours.predict(da.zeros(10))


# --- as an estimator --------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_local_copy_needs_no_dask(client, tmp_path):
    X, y, _ = rows_of("multiclass")
    ours = DaskMLPClassifier((6,), max_iter=3, random_state=0, client=client)
    ours.fit(spread(X, "frame").rename(columns=str), spread(y, "frame"))
    local = ours.to_local()
    assert type(local) is MLPClassifier
    assert list(local.feature_names_in_) == ["0", "1", "2", "3", "4"]
    assert not any(np.shares_memory(a, b) for a, b in zip(local.coefs_, ours.coefs_, strict=True))
    ours.save(tmp_path / "model.safetensors")
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(local))
    np.save(tmp_path / "expected.npy", local.predict_proba(X))
    code = """
import pickle, sys
sys.modules["dask"] = sys.modules["distributed"] = None
import numpy as np, pandas as pd, fastmlp
X = pd.DataFrame(np.load("X.npy"), columns=list("01234"))
for model in (pickle.load(open("model.pickle", "rb")), fastmlp.load("model.safetensors")):
    np.testing.assert_array_equal(model.predict_proba(X), np.load("expected.npy"))
"""
    np.save(tmp_path / "X.npy", X)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True)


def test_parameters_clones_and_pickles(client):
    ours = DaskMLPClassifier((3,), alpha=0.5, client=client, timeout=7)
    assert {"client", "timeout", "alpha"} < set(ours.get_params())
    made = clone(ours).set_params(alpha=0.1)
    assert made.client is client
    assert (made.timeout, made.alpha, ours.alpha) == (7, 0.1, 0.5)
    assert pickle.loads(pickle.dumps(ours)).client is None
    assert copy.deepcopy(ours).client is None
    assert "client" not in ours.to_local().get_params()
    with pytest.raises(ValueError, match="'timeout' parameter"):
        clone(ours).set_params(timeout=0).fit(da.zeros((4, 2)), da.zeros(4))


def test_rows_in_memory_train_here():
    X, y, _ = rows_of("multiclass")
    options = {"hidden_layer_sizes": (6,), "max_iter": 3, "random_state": 0}
    assert_same(DaskMLPClassifier(**options).fit(X, y), MLPClassifier(**options).fit(X, y))


@pytest.mark.exhaustive
def test_search_of_sklearn(client):
    X, y, _ = rows_of("multiclass")
    grid = {"alpha": [1e-4, 10.0]}
    options = {"hidden_layer_sizes": (6,), "max_iter": 3, "random_state": 0}
    ours = GridSearchCV(DaskMLPClassifier(**options, client=client), grid, cv=2)
    ours.fit(spread(X, "even"), spread(y, "even"))
    local = GridSearchCV(MLPClassifier(**options), grid, cv=2).fit(X, y)
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], local.cv_results_["mean_test_score"])
    assert_same(ours.best_estimator_, local.best_estimator_)


def test_asynchronous_client(client):
    X, y, _ = rows_of("regression")

    async def run():
        async with Client(client.scheduler.address, asynchronous=True) as own:
            ours = DaskMLPRegressor(hidden_layer_sizes=(6,), max_iter=3, random_state=0, client=own)
            fitted = await ours.fit(spread(X, "even"), spread(y, "even"))
            assert fitted is ours
            await ours.partial_fit(spread(X, "even"), spread(y, "even"))
            return ours, await ours.score(spread(X, "even"), spread(y, "even"))

    ours, score = asyncio.run(run())
    local = MLPRegressor(hidden_layer_sizes=(6,), max_iter=3, random_state=0).fit(X, y).partial_fit(X, y)
    assert_same(ours, local)
    assert score == pytest.approx(local.score(X, y), rel=1e-9)


def _fit_in_a_task(make):
    return DaskMLPClassifier((6,), max_iter=3, random_state=0).fit(*make()).to_local()


@pytest.mark.exhaustive
def test_a_fit_within_a_task(client):
    """The task gives its thread back while it waits: the workers have one each."""
    X, y, _ = rows_of("multiclass")
    found = client.submit(_fit_in_a_task, lambda: (spread(X, "even"), spread(y, "even"))).result()
    assert_same(found, MLPClassifier((6,), max_iter=3, random_state=0).fit(X, y))


def test_predictions_need_a_fit():
    with pytest.raises(NotFittedError):
        DaskMLPClassifier().predict(da.zeros((4, 2)))


def test_random_state_of_the_user_moves_on(client):
    X, y, _ = rows_of("regression")
    ours, local = np.random.RandomState(0), np.random.RandomState(0)
    for _ in range(2):
        found = DaskMLPRegressor(hidden_layer_sizes=(6,), max_iter=2, random_state=ours, client=client).fit(
            spread(X, "even"), y
        )
        expected = MLPRegressor(hidden_layer_sizes=(6,), max_iter=2, random_state=local).fit(X, y)
        assert_same(found, expected)


# --- the communicator -------------------------------------------------------------------------------------------------


def each_rank(client, function, size, *args, timeout=20):
    """Return what a function of a communicator returns on each rank."""
    name, addresses = uuid.uuid4().hex, sorted(client.scheduler_info(-1)["workers"])[:size]
    client.run(work.prepare, name, addresses, timeout, "auto", workers=addresses)
    tasks = [client.submit(_with, name, function, *args, workers=[address], pure=False) for address in addresses]
    return client.gather(tasks)


def _with(name, function, *args):
    from distributed import get_worker

    worker = get_worker()
    session = sessions.of(worker, name)
    try:
        return function(DaskCommunicator(session, worker.get_current_task()), *args)
    finally:
        session.end(("done", session.rank, None))


HAS_MEMORY = hasattr(os, "memfd_create")


def _zeros(communicator, n, dtype, shares_memory):
    """Return a vector in memory that ranks share, where that serves a sum of it."""
    shared = communicator.vector(n, np.dtype(dtype)) if shares_memory else None
    in_slices = _in_slices(n * np.dtype(dtype).itemsize, communicator.size)
    assert (shared is not None) == (shares_memory and in_slices)
    return np.zeros(n, dtype) if shared is None else shared


def _sum(communicator, n, dtype, shares_memory):
    vector = _zeros(communicator, n, dtype, shares_memory)
    vector[...] = np.random.default_rng(communicator.rank).normal(size=n).astype(dtype)
    before = communicator.n_messages, communicator.n_bytes
    communicator.allreduce(vector)
    return vector.copy(), communicator.n_messages - before[0], communicator.n_bytes - before[1]


def _in_slices(n_bytes, size):
    return size > 1 and n_bytes > (PAIR_BYTES if size == 2 else DIRECT_BYTES)


@pytest.mark.parametrize("shares_memory", [HAS_MEMORY, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 1000, 20_000, 70_001, 3_000_001])
@pytest.mark.parametrize("size", [2, *exhaustive(1, 3), *nightly(4)])
def test_allreduce_adds_in_the_order_of_the_ranks(clients, size, n, dtype, shares_memory):
    found = each_rank(clients(2 if size == 2 else max(size, 3)), _sum, size, n, dtype, shares_memory)
    expected = np.zeros(n, dtype)
    for rank in range(size):
        expected += np.random.default_rng(rank).normal(size=n).astype(dtype)
    n_bytes = n * np.dtype(dtype).itemsize
    in_slices = _in_slices(n_bytes, size)
    n_pieces = 1 if shares_memory else max(1, n_bytes // size // PIECE_BYTES)  # of a slice
    for vector, n_messages, sent in found:
        np.testing.assert_array_equal(vector, expected)
        assert n_messages == (size - 1) * (2 * n_pieces if in_slices else 1)
        # in slices each rank sends nearly two vectors, else one to each other rank; a message has a header of 16 bytes
        expected_bytes = (2 * n_bytes / size if in_slices else n_bytes) * (size - 1) + 16 * n_messages
        assert sent == pytest.approx(expected_bytes, abs=64)


def _sums(communicator, n, shares_memory):
    """Return the ends of some sums; a rank that is late must get what the others have sent, not what they send next."""
    found, vector = [], _zeros(communicator, n, float, shares_memory)
    for i in range(6):
        vector[...] = 10.0**i * (1 + communicator.rank)
        time.sleep(0.02 * (i % 2 == communicator.rank))
        communicator.allreduce(vector)
        found.append((vector.min(), vector.max()))
        vector[...] = np.nan  # it is the caller's again
    return found


@pytest.mark.parametrize("shares_memory", [HAS_MEMORY, False])
@pytest.mark.parametrize("n", [30_000, 70_000, 400_000])
def test_sums_do_not_mix(clients, n, shares_memory):
    assert each_rank(clients(2), _sums, 2, n, shares_memory) == [[(3 * 10.0**i,) * 2 for i in range(6)]] * 2


def test_sums_of_workers_in_one_process():
    """Their comms hand over the memory itself."""
    with cluster_of(2, processes=False, dashboard_address=":0") as client:
        for n, shares_memory in ((10_000, False), (400_000, False), (400_000, HAS_MEMORY)):
            assert each_rank(client, _sums, 2, n, shares_memory) == [[(3 * 10.0**i,) * 2 for i in range(6)]] * 2


def _fails_between_pieces(communicator, n, does_not_read):
    """Rank 0 fails before it has said where pieces belong, or when it has read some; return the error of this rank."""
    name = "expect" if does_not_read else "take"

    def breaks(*args):
        time.sleep(0.2)  # until pieces of rank 1 have come
        raise OSError("the disk is full")

    if communicator.rank == 0:
        setattr(communicator.session, name, breaks)
    try:
        communicator.allreduce(np.ones(n))
    except OSError as error:
        communicator.session.end(("failed", 0, f"rank 0 has failed: {error}"))
        return str(error)
    except CommunicationError as error:
        return str(error)
    return "no error"


def _waiting():
    """Return how many coroutines wait for a place of a piece."""
    gc.collect()
    coroutines = [one for one in gc.get_objects() if type(one).__name__ == "coroutine"]
    return sum(one.__qualname__ == "Session._read_piece" for one in coroutines)


@pytest.mark.parametrize("does_not_read", [True, False])
def test_a_rank_that_fails_between_pieces(clients, does_not_read):
    client, began = clients(2), time.monotonic()
    errors = each_rank(client, _fails_between_pieces, 2, 3_000_001, does_not_read, timeout=60)
    assert errors == ["the disk is full", "rank 0 has failed: the disk is full"]
    assert time.monotonic() - began < 30
    assert leftovers(client) == {}
    assert set(client.run(_waiting).values()) == {0}


def _others(communicator):
    communicator.barrier()
    words = communicator.allgather({"rank": communicator.rank, "array": np.arange(communicator.rank)})
    return [word["rank"] for word in words], communicator.broadcast(f"from {communicator.rank}")


@pytest.mark.exhaustive
def test_small_objects(clients):
    assert each_rank(clients(3), _others, 3) == [([0, 1, 2], "from 0")] * 3


def test_a_rank_that_does_not_begin_is_named(client):
    """As one whose threads other tasks hold: its session is open, its task waits."""
    name, addresses = uuid.uuid4().hex, sorted(client.scheduler_info(-1)["workers"])
    client.run(work.prepare, name, addresses, 1.0, "auto", workers=addresses)
    future = client.submit(_with, name, _others, workers=[addresses[1]], pure=False)
    with pytest.raises(WorkerLost, match=rf"worker {addresses[0]} \(rank 0\) did not begin within 1 s") as caught:
        future.result()
    assert (caught.value.rank, caught.value.address) == (0, addresses[0])
    client.run(sessions.close, name)
    assert leftovers(client) == {}


# --- wrong input ------------------------------------------------------------------------------------------------------

X, y, w = rows_of("multiclass")
NAN = X.copy()
NAN[100, 2] = np.nan


def even(values):
    return spread(values, "even")


def other_columns():
    def part(columns):
        return pd.DataFrame(X[:50, :2], columns=columns)

    parts = [delayed(part)(columns) for columns in (["a", "b"], ["b", "a"])]
    frame = dd.from_delayed(parts, meta=part(["a", "b"])[:0], verify_meta=False)
    return frame, da.from_array(y[:100], chunks=50)


#: Name -> what makes X, y and weights, the error, a part of its text.
WRONG = {
    "one dimension": (lambda: (da.zeros(10), da.zeros(10)), TypeError, "X must be a Dask array or frame of 2 dim"),
    "y in memory": (lambda: (spread(X, "unknown"), y), TypeError, "y is of type ndarray"),
    "X in memory": (lambda: (X, even(y)), TypeError, "y is a Dask collection, X is of type ndarray"),
    "fewer targets": (lambda: (even(X), da.from_array(y[:-1])), ValueError, "157 rows, y has 156"),
    "other partitions": (lambda: (spread(X, "unknown"), even(y)[:80]), ValueError, "X has 4 partitions, y has 2"),
    "other rows": (lambda: (spread(X, "unknown"), even(y)), ValueError, "partition 0 of X .*3 rows, .*y has 40"),
    "NaN": (lambda: (even(NAN), even(y)), ValueError, r"partition 2 of X \(on tcp.*NaN"),
    "NaN in weights": (lambda: (even(X), even(y), even(NAN[:, 2])), ValueError, "partition 2 .*sample_weight"),
    "other columns": (other_columns, ValueError, "columns are"),
    "no targets": (lambda: (even(X), None), ValueError, "y is missing"),
    "no rows": (lambda: (even(X)[:0], even(y)[:0]), ValueError, "X has no rows"),
    "texts": (lambda: (even(np.full(X.shape, "a")), even(y)), ValueError, "partition 0 of X .* is refused"),
    "parameter": (lambda: (even(X), even(y)), ValueError, "'alpha' parameter"),
    "unknown class": (lambda: (even(X), even(y)), ValueError, r"partition 0 of X: y has classes \[5\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(client, name):
    make, error, text = WRONG[name]
    ours = DaskMLPClassifier((3,), max_iter=2, client=client, alpha=-1 if name == "parameter" else 0.1)
    with pytest.raises(error, match=text):
        ours.partial_fit(*make(), classes=[3, 4]) if name == "unknown class" else ours.fit(*make())
    assert leftovers(client) == {}


def test_other_columns_in_validation_rows(client):
    ours = DaskMLPClassifier((3,), max_iter=2, client=client)
    with pytest.raises(ValueError, match="X has 5 columns, X of 'validation' has 2"):
        ours.fit(spread(X, "even"), spread(y, "even"), X_val=da.zeros((4, 2)), y_val=da.ones(4))


def test_no_client():
    with pytest.raises(RuntimeError, match="DaskMLPClassifier needs a client"):
        DaskMLPClassifier().fit(spread(X, "even"), spread(y, "even"))


@pytest.mark.exhaustive
def test_no_workers():
    with cluster_of(0) as client, pytest.raises(RuntimeError, match="has had no workers for 2 s"):
        DaskMLPClassifier(client=client, timeout=2).fit(spread(X, "even"), spread(y, "even"))


def test_error_on_a_worker_names_it(client):
    with pytest.raises(ValueError, match="largest") as caught:
        DaskMLPClassifier((3,), max_iter=2, client=client, callbacks=[_fail]).fit(spread(X, "even"), spread(y, "even"))
    assert "This was raised on worker tcp://" in "".join(caught.value.__notes__)
    assert leftovers(client) == {}


def _fail(info):
    raise ValueError("the largest of errors")


def _pretend(version, dask_worker):
    work.__version__ = version


def test_other_versions_are_refused(client):
    from fastmlp import __version__

    address = sorted(client.scheduler_info(-1)["workers"])[1]
    client.run(_pretend, "0.0.9", workers=[address])
    try:
        with pytest.raises(
            RuntimeError, match=rf"workers differ in fastmlp: .*{address} has 0.0.9|has 0.0.9.*{address}"
        ):
            # both workers have rows
            DaskMLPClassifier((3,), max_iter=2, client=client).fit(*scattering.scattered(client, X, y))
    finally:
        client.run(_pretend, __version__, workers=[address])
    assert leftovers(client) == {}


class _Ended:
    """A future of a task that Dask has cancelled, or that has raised an error."""

    def __init__(self, error):
        self.error = error

    def done(self):
        return True

    def __await__(self):
        raise self.error
        yield


@pytest.mark.parametrize(
    ("is_there", "message"), [(False, "worker a .rank 0. has died"), (True, "the fit was cancelled")]
)
def test_a_task_that_dask_cancels_because_its_worker_is_gone(monkeypatch, is_there, message):
    """The client hears of the task before the next look at the workers; then it must look."""
    known = {"a", "b"}

    class Pulse(fitting.Pulse):
        async def look(self, at_once=False):
            known.difference_update({"a"} if at_once and not is_there else ())

        def why_lost(self, address):
            return "" if address in known else "has died or left the cluster"

    async def at_once(futures, **options):
        pass

    monkeypatch.setattr(fitting, "Pulse", Pulse)
    monkeypatch.setattr(fitting, "wait", at_once)
    lost = WorkerLost("worker a (rank 0) has closed its connection", 0, "a") if not is_there else RuntimeError("x")
    futures = [_Ended(CancelledError("fastmlp-1-0")), _Ended(lost)]
    with pytest.raises(RuntimeError, match=message) as caught:
        asyncio.run(fitting._watched(None, ["a", "b"], futures, 5.0))
    assert isinstance(caught.value, WorkerLost) == (not is_there)
