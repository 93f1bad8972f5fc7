"""How fits on a cluster end when something fails: within the stated time, and with an error that names the worker."""

import asyncio
import os
import signal
import threading
import time

import numpy as np
import pytest

from fastmlp import MLPRegressor
from fastmlp.callbacks import Checkpoint

pytest.importorskip("distributed")
da = pytest.importorskip("dask.array")

from dask_clusters import cluster_of, leftovers  # noqa: E402
from distributed import Client  # noqa: E402

from fastmlp.dask import DaskMLPRegressor, WorkerLost  # noqa: E402

TIMEOUT = 6

pytestmark = [
    pytest.mark.exhaustive,
    # they wait for timeouts, and a busy machine may hold up a process for longer than these
    pytest.mark.skipif("FASTMLP_CAMPAIGN" not in os.environ, reason="of the nightly run: bash .ci/nightly"),
    pytest.mark.filterwarnings("ignore:Stochastic Optimizer"),
]


@pytest.fixture
def client():
    """A client of a cluster of two workers, which a test may spoil."""
    with cluster_of(2) as client:
        DaskMLPRegressor(hidden_layer_sizes=(3,), max_iter=1, client=client).fit(*rows())  # imports take their time
        yield client


def rows():
    """Return X and y, which Dask can compute again."""
    X = da.random.default_rng(0).normal(size=(600, 4), chunks=(100, 4))
    return X, X[:, 0] * X[:, 1]


class Slowly:
    """A callback: wait after each epoch, and say in a file which one it was."""

    def __init__(self, path, seconds=0.1):
        self.path, self.seconds = path, seconds

    def __call__(self, info):
        self.path.write_text(str(info.epoch))
        time.sleep(self.seconds)


def wait_for_epoch(path, n):
    deadline = time.monotonic() + 60
    while not path.exists() or int(path.read_text() or 0) < n:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def estimator(client, tmp_path, *callbacks, **options):
    callbacks = [Slowly(tmp_path / "epoch"), *callbacks]
    options = {"max_iter": 30, "n_iter_no_change": np.inf, "random_state": 0, "timeout": TIMEOUT, **options}
    return DaskMLPRegressor(hidden_layer_sizes=(8,), client=client, callbacks=callbacks, **options)


def harm(client, tmp_path, how, place):
    """Begin a thread that harms the first or the last rank's worker during a fit; return its address when it has."""
    pids = client.run(os.getpid)
    found = []

    def work():
        wait_for_epoch(tmp_path / "epoch", 8)
        ranks = {rank: address for address, rank in client.run(_rank).items() if rank is not None}
        address = ranks[min(ranks) if place == "first" else max(ranks)]
        found.append((address, time.monotonic()))
        if how == "retire":
            client.retire_workers([address])
        else:
            os.kill(pids[address], getattr(signal, how))

    thread = threading.Thread(target=work)
    thread.start()
    return thread, found, pids


def _rank(dask_worker):
    return next((one.rank for name, one in dask_worker.extensions.items() if name.startswith("fastmlp-")), None)


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP", "retire"])
def test_a_lost_worker_is_named_in_time(client, tmp_path, how, place):
    thread, found, pids = harm(client, tmp_path, how, place)
    with pytest.raises(WorkerLost) as caught:
        estimator(client, tmp_path).fit(*rows())
    ended = time.monotonic()
    thread.join()
    ((address, sent),) = found
    assert address in str(caught.value)
    assert caught.value.address == address
    assert ended - sent < 2 * TIMEOUT + 6
    if how == "SIGSTOP":
        os.kill(pids[address], signal.SIGKILL)
        time.sleep(1)
    assert leftovers(client) == {}


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP", "retire"])
def test_a_fit_goes_on_from_its_checkpoint(client, tmp_path, how, place):
    thread, _, _ = harm(client, tmp_path, how, place)
    path = tmp_path / "fit.npz"
    ours = estimator(client, tmp_path, Checkpoint(path, every=3)).fit(*rows())
    thread.join()
    X, y = (values.compute(scheduler="sync") for values in rows())
    local = MLPRegressor(hidden_layer_sizes=(8,), max_iter=30, n_iter_no_change=np.inf, random_state=0).fit(X, y)
    for a, b in zip(ours.coefs_, local.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    assert ours.n_iter_ == 30
    assert leftovers(client) == {}


def test_a_checkpoint_of_an_earlier_fit_is_not_taken(client, tmp_path):
    path = tmp_path / "fit.npz"
    X, y = rows()
    estimator(client, tmp_path, Checkpoint(path), random_state=5, max_iter=20).set_params(timeout=60).fit(X, y)
    thread, _, _ = harm(client, tmp_path, "SIGKILL", "last")
    (tmp_path / "epoch").unlink()
    ours = estimator(client, tmp_path, Checkpoint(path, every=1000)).fit(X, y)
    thread.join()
    local = MLPRegressor(hidden_layer_sizes=(8,), max_iter=30, n_iter_no_change=np.inf, random_state=0)
    local.fit(X.compute(scheduler="sync"), y.compute(scheduler="sync"))
    np.testing.assert_allclose(ours.coefs_[0], local.coefs_[0], rtol=1e-12, atol=1e-12)


def test_a_single_rank_that_hangs(client, tmp_path):
    """No other rank waits for it: the scheduler hears no heartbeat."""
    thread, found, pids = harm(client, tmp_path, "SIGSTOP", "first")
    X, y = rows()
    with pytest.raises(WorkerLost, match="it hangs") as caught:
        estimator(client, tmp_path).fit(X.rechunk(-1), y.rechunk(-1))
    thread.join()
    assert found[0][0] in str(caught.value)
    assert time.monotonic() - found[0][1] < 2 * TIMEOUT + 6
    os.kill(pids[found[0][0]], signal.SIGKILL)


def test_two_fits_at_once(client, tmp_path):
    X, y = rows()
    found = {}

    def fit(seed):
        options = {"max_iter": 20, "random_state": seed, "client": client, "timeout": 20}
        found[seed] = DaskMLPRegressor(hidden_layer_sizes=(8,), **options).fit(X, y)

    threads = [threading.Thread(target=fit, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    X, y = (values.compute(scheduler="sync") for values in (X, y))
    for seed, ours in found.items():
        local = MLPRegressor(hidden_layer_sizes=(8,), max_iter=20, random_state=seed).fit(X, y)
        np.testing.assert_allclose(ours.coefs_[0], local.coefs_[0], rtol=1e-12, atol=1e-12)
    assert len(found) == 4
    assert leftovers(client) == {}


def test_a_cancelled_fit_leaves_the_workers(client, tmp_path):
    X, y = rows()

    async def run():
        async with Client(client.scheduler.address, asynchronous=True) as own:
            task = asyncio.ensure_future(estimator(own, tmp_path, max_iter=1000).fit(X, y))
            while not (tmp_path / "epoch").exists():
                await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert leftovers(client) == {}


def test_a_client_that_disconnects(client, tmp_path):
    own = Client(client.scheduler.address, set_as_default=False)
    errors = []

    def fit():
        try:
            estimator(own, tmp_path, max_iter=1000).fit(*rows())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    wait_for_epoch(tmp_path / "epoch", 3)
    own.close()
    assert leftovers(client, patience=15) == {}
    thread.join(15)
    assert not thread.is_alive()
    assert len(errors) == 1


def test_lost_data_is_an_error(client):
    X, y = client.scatter([np.zeros((10, 2)), np.zeros(10)])
    lazy_X = da.from_delayed(_delayed(X), (10, 2), dtype=float)
    lazy_y = da.from_delayed(_delayed(y), (10,), dtype=float)
    X.cancel(force=True)
    with pytest.raises(Exception, match=r"cancelled|lost"):
        DaskMLPRegressor(hidden_layer_sizes=(3,), max_iter=2, client=client, timeout=TIMEOUT).fit(lazy_X, lazy_y)


def _delayed(future):
    from dask import delayed

    return delayed(future)


def test_the_scheduler_goes(tmp_path):
    with cluster_of(2) as client:
        DaskMLPRegressor(hidden_layer_sizes=(3,), max_iter=1, client=client).fit(*rows())
        errors = []

        def fit():
            try:
                estimator(client, tmp_path, max_iter=1000).fit(*rows())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        wait_for_epoch(tmp_path / "epoch", 3)
        client.cluster.sync(client.cluster.scheduler.close)
        thread.join(30)
        assert not thread.is_alive()
        assert isinstance(errors[0], ConnectionError | RuntimeError)
