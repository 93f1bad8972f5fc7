"""What may go wrong around the CUDA engine's kernels: interrupts, copies in flight, other GPUs, memory, installations.

Most of it runs in Numba's simulator, whose copies and kernels are done at once.  The fixture ``asynchronous`` puts them
off until somebody waits for their stream, as a device may.
"""

import importlib
import os
import signal
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

import fastmlp.callbacks
from fastmlp import MLPClassifier
from fastmlp.data import device_arrays
from fastmlp.engines import backends
from fastmlp.engines.backends import Data
from fastmlp.kernels import reference
from fastmlp.kernels.numba_cuda import driver, interrupts, memory, pace, prediction, settings, training
from fastmlp.kernels.numba_cuda.workspace import Workspace

from helpers import assert_close, make_data, make_network, make_optimizer, make_params, steady_simulator

USABLE = "cuda" in backends.available()
SIMULATED = USABLE and driver.simulated()
in_simulator = pytest.mark.skipif(not SIMULATED, reason="plays a device in Numba's simulator: NUMBA_ENABLE_CUDASIM=1")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def engine():
    if not USABLE:
        pytest.skip(backends.why_not("cuda"))
    if not SIMULATED:
        yield backends.get("cuda")
        return
    with steady_simulator():
        yield backends.get("cuda")


class LazyStream:
    """A stream that does nothing until somebody waits for it."""

    def __init__(self):
        self.todo = []

    def synchronize(self):
        todo, self.todo = self.todo, []
        for call in todo:
            call()


@pytest.fixture
def asynchronous(engine, monkeypatch):
    """Kernels and copies in a stream are put off until the stream is waited for, and may see what was written since."""
    if not SIMULATED:
        pytest.skip("plays an asynchronous device in Numba's simulator")
    array_type = type(driver.api().device_array(1, np.float64))
    to_device, to_host, launch = array_type.copy_to_device, array_type.copy_to_host, driver.Launch.__call__

    def later(call, stream, *arguments):
        if isinstance(stream, LazyStream):
            stream.todo.append(lambda: call(*arguments))
            return None
        return call(*arguments)

    monkeypatch.setattr(driver.api(), "stream", LazyStream)
    monkeypatch.setattr(array_type, "copy_to_device", lambda to, ary, stream=0: later(to_device, stream, to, ary))
    monkeypatch.setattr(
        array_type, "copy_to_host", lambda there, ary=None, stream=0: later(to_host, stream, there, ary)
    )
    monkeypatch.setattr(
        driver.Launch, "__call__", lambda self, *args: later(launch, self._configuration[2], self, *args)
    )


# ------------------------------------------------------------------------------- device and host stay together


class Fit:
    """A training on an engine and on the reference, side by side."""

    def __init__(self, engine, n=8, batch_size=2):
        self.network = make_network((3, 4, 2), dropout=(0.3,))
        self.data = make_data(np.random.default_rng(3), self.network, n)
        self.n, self.batch_size = n, batch_size
        self.ours, self.theirs = (
            (module, module.workspace(self.network, batch_size), *self._start()) for module in (engine, reference)
        )

    def _start(self):
        rng = np.random.default_rng(0)
        params = make_params(rng, self.network)
        return params, make_optimizer(rng, "adam", self.network.n_params, np.float64)

    def epoch(self, which, rows=None):
        module, workspace, params, optimizer = which
        order = np.arange(self.n if rows is None else rows)
        return module.train_epoch(workspace, params, self.data, order, self.batch_size, 0.1, optimizer, seed=5)

    def compare(self):
        (_, _, params, optimizer), (_, _, expected, other) = self.ours, self.theirs
        assert optimizer.t == other.t
        np.testing.assert_allclose(params, expected, rtol=1e-9)
        np.testing.assert_allclose(optimizer.states, other.states, rtol=1e-9)


@in_simulator
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("number", [1, 3])
def test_an_error_right_after_a_launch_leaves_the_host_as_it_was(engine, monkeypatch, error, number):
    """Nobody knows then what the device has done: the next epoch begins with what the host has."""
    fit, launch, calls = Fit(engine), driver.Launch.__call__, []
    fit.epoch(fit.ours)
    fit.epoch(fit.theirs)

    def broken(self, *arguments):
        launch(self, *arguments)
        calls.append(number)
        if len(calls) == number:
            raise error

    monkeypatch.setattr(settings, "LAUNCH_SECONDS", 0)  # a launch for each step
    monkeypatch.setattr(driver.Launch, "__call__", broken)
    with pytest.raises(error):
        fit.epoch(fit.ours)
    monkeypatch.undo()
    fit.compare()
    fit.epoch(fit.ours)
    fit.epoch(fit.theirs)
    fit.compare()


@in_simulator
def test_an_error_between_two_launches_keeps_the_steps_done(engine, monkeypatch):
    fit, launch = Fit(engine), training.Training._launch
    monkeypatch.setattr(settings, "LAUNCH_SECONDS", 0)  # a launch for each step

    def broken(self, *arguments):
        if self.done == 3:
            raise MemoryError
        launch(self, *arguments)

    monkeypatch.setattr(training.Training, "_launch", broken)
    with pytest.raises(MemoryError):
        fit.epoch(fit.ours)
    monkeypatch.undo()
    fit.epoch(fit.theirs, rows=6)
    fit.compare()
    fit.epoch(fit.ours)
    fit.epoch(fit.theirs)
    fit.compare()


def interrupt(*arguments):
    os.kill(os.getpid(), signal.SIGINT)


def hold_back(fit):
    fit.ours[1].holds_back = True
    return fit


@in_simulator
def test_what_is_held_back_comes_when_it_is_fetched(engine):
    fit = hold_back(Fit(engine))
    _, workspace, params, optimizer = fit.ours
    before, moments = params.copy(), np.copy(optimizer.states)
    for _ in range(2):
        fit.epoch(fit.ours)
        fit.epoch(fit.theirs)
    np.testing.assert_array_equal(params, before)
    np.testing.assert_array_equal(optimizer.states, moments)
    assert optimizer.t == fit.theirs[3].t
    workspace.fetch(states=False)
    np.testing.assert_allclose(params, fit.theirs[2], rtol=1e-9)
    np.testing.assert_array_equal(optimizer.states, moments)
    params[...] = fit.theirs[2][...] = params / 2  # a caller may write what was fetched
    fit.epoch(fit.ours)
    fit.epoch(fit.theirs)
    workspace.fetch()
    fit.compare()


@in_simulator
def test_other_calls_of_a_workspace_see_what_is_held_back(engine):
    fit = hold_back(Fit(engine))
    _, workspace, params, _ = fit.ours
    fit.epoch(fit.ours)
    fit.epoch(fit.theirs)
    found, expected = np.empty((2, 8, 2))
    engine.predict(workspace, params, fit.data.X, found)
    reference.predict(fit.theirs[1], fit.theirs[2], fit.data.X, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    engine.predict(workspace, params.copy(), fit.data.X, found)  # another array: the first is written before
    fit.compare()
    other = fit._start()
    fit.epoch((engine, workspace, *other))
    fit.compare()
    assert other[1].t == fit.ours[3].t


@in_simulator
def test_an_error_right_after_a_launch_loses_what_is_held_back(engine, monkeypatch):
    """Parameters and states are those that were fetched last, and so is the number of steps."""
    fit, launch = hold_back(Fit(engine)), driver.Launch.__call__
    fit.epoch(fit.ours)
    fit.epoch(fit.theirs)
    fit.ours[1].fetch()
    fit.epoch(fit.ours)

    def broken(self, *arguments):
        launch(self, *arguments)
        raise RuntimeError

    monkeypatch.setattr(driver.Launch, "__call__", broken)
    with pytest.raises(RuntimeError):
        fit.epoch(fit.ours)
    monkeypatch.undo()
    fit.compare()
    fit.epoch(fit.ours)
    fit.epoch(fit.theirs)
    fit.ours[1].fetch()
    fit.compare()


@in_simulator
@pytest.mark.parametrize("method", ["fetch", "give"])
def test_a_copy_to_the_host_that_fails_is_made_up_for(engine, monkeypatch, method):
    fit, original, calls = Fit(engine), getattr(memory.Mirror, method), []

    def interrupted(self, *arguments):
        original(self, *arguments)
        calls.append(method)
        if len(calls) == 1:
            interrupt()

    hold_back(fit)
    fit.epoch(fit.ours)
    fit.epoch(fit.theirs)
    monkeypatch.setattr(memory.Mirror, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit.ours[1].fetch()
    fit.compare()


def copies_of_a_fit(monkeypatch, **options):
    """The copies of parameters and states to the host during a fit, and the estimator."""
    rng, copies, original = np.random.default_rng(0), [], memory.Mirror.fetch
    X, y = rng.normal(size=(12, 3)), np.arange(12) % 2
    with monkeypatch.context() as patch:
        patch.setattr(memory.Mirror, "fetch", lambda self: copies.append(self) or original(self))
        settings = {"max_iter": 5, "batch_size": 6, "random_state": 0, "n_iter_no_change": 99, **options}
        clf = MLPClassifier(3, backend="cuda", **settings).fit(X, y)
    return len(copies), clf


@in_simulator
@pytest.mark.parametrize(
    "options, n_copies",
    [
        ({}, 3),
        ({"learning_rate": "adaptive", "solver": "sgd"}, 2),
        ({"early_stopping": True}, 5 + 2),
        ({"callbacks": [lambda info: None]}, 5 * 3),
        ({"callbacks": [fastmlp.callbacks.TimeLimit(1e9)]}, 3),
        ({"callbacks": [lambda info: info.snapshot() and None]}, 5 * 3),
        ({"callbacks": [fastmlp.callbacks.Recorder()]}, 5 + 2),
    ],
)
def test_weights_and_states_come_back_when_somebody_reads_them(engine, monkeypatch, options, n_copies):
    found, ours = copies_of_a_fit(monkeypatch, **options)
    assert found == n_copies
    monkeypatch.setattr(Workspace, "holds_back", property(lambda self: False, lambda self, value: None))
    _, theirs = copies_of_a_fit(monkeypatch, **options)
    for one, other in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(ours._training.optimizer.states, theirs._training.optimizer.states, strict=True):
        np.testing.assert_array_equal(one, other)


@in_simulator
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that a process sends to itself alone")
@pytest.mark.parametrize("where", ["launch", "wait", "measured", "fetch", "give"])
def test_ctrl_c_at_any_moment_keeps_host_and_device_together(engine, monkeypatch, where):
    fit = Fit(engine)
    owner, name = {
        "launch": (driver.Launch, "__call__"),
        "wait": (driver.Timer, "seconds"),
        "measured": (pace.Pace, "measured"),
        "fetch": (memory.Mirror, "fetch"),
        "give": (memory.Mirror, "give"),
    }[where]
    monkeypatch.setattr(settings, "LAUNCH_SECONDS", 0)
    original, calls = getattr(owner, name), []

    def interrupted(*arguments):
        result = original(*arguments)
        calls.append(name)
        if len(calls) == 2:
            interrupt()
        return result

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit.epoch(fit.ours)
    monkeypatch.undo()
    done = fit.ours[3].t - fit.theirs[3].t
    assert done == (4 if where in ("fetch", "give") else 2)
    fit.epoch(fit.theirs, rows=2 * done)
    fit.compare()
    fit.epoch(fit.ours)
    fit.epoch(fit.theirs)
    fit.compare()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that a process sends to itself alone")
def test_deferred_interrupts_come_at_the_end():
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        interrupt()
        reached.append(True)
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with interrupts.deferred():
        pass
    failures = []

    def in_a_thread():
        try:
            with interrupts.deferred():
                reached.append(threading.current_thread().name)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=in_a_thread, name="other")
    thread.start()
    thread.join()
    assert reached == [True, "other"]
    assert not failures


# ------------------------------------------------------------------------------- predictions in flight


def predict(engine, workspace, params, X, out):
    assert engine.predict(workspace, params, X, out)
    return out


@pytest.mark.parametrize("kind", ["host", "device"])
@pytest.mark.parametrize("layout", ["C", "csr int32"])
def test_a_block_in_flight_is_not_overwritten(engine, asynchronous, monkeypatch, kind, layout):
    monkeypatch.setattr(settings, "PREDICT_ROWS", 3)
    network = make_network((5, 4, 2))
    X, params = (
        make_data(np.random.default_rng(0), network, 17, kind=layout).X,
        make_params(np.random.default_rng(7), network),
    )
    expected, out = np.empty((17, 2)), np.zeros((17, 2))
    reference.predict(reference.workspace(network, 3), params, X, expected)
    to = driver.api().to_device(out) if kind == "device" else out
    predict(engine, engine.workspace(network, 3), params, X, to)
    assert_close(to.copy_to_host() if kind == "device" else out, expected, terms=10, scale=1)


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("where", ["_upload", "_launch"])
def test_an_interrupted_prediction_leaves_nothing_behind(engine, asynchronous, monkeypatch, where, stop):
    """Neither old rows in the next answer, nor an error there."""
    monkeypatch.setattr(settings, "PREDICT_ROWS", 3)
    network = make_network((3, 4, 2))
    X, params = np.random.default_rng(0).normal(size=(14, 3)), make_params(np.random.default_rng(7), network)
    workspace, original, calls = engine.workspace(network, 3), getattr(prediction.Blocks, where), []

    def interrupted(self, *arguments):
        calls.append(where)
        if len(calls) == stop and where == "_upload":
            raise KeyboardInterrupt
        result = original(self, *arguments)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(prediction.Blocks, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.predict(workspace, params, X, np.zeros((14, 2)))
    monkeypatch.setattr(prediction.Blocks, where, original)
    assert all(slot.block is None and not slot.stream.todo for slot in workspace.prediction.slots)
    expected = np.empty((2, 2))
    reference.predict(reference.workspace(network, 3), params, X[:2] + 1, expected)
    assert_close(predict(engine, workspace, params, X[:2] + 1, np.zeros((2, 2))), expected, terms=10, scale=1)


def sizes_of_blocks(engine, monkeypatch, workspace, n):
    """Rows of the blocks of a prediction, and the rows of the buffers that it pinned."""
    network, blocks, pinned = workspace.network, [], []
    launch, original = prediction.Blocks._launch, driver.pinned
    with monkeypatch.context() as patch:
        patch.setattr(
            prediction.Blocks, "_launch", lambda self, *args: blocks.append(args[2] - args[1]) or launch(self, *args)
        )
        patch.setattr(driver, "pinned", lambda shape, *args: pinned.append(shape[0]) or original(shape, *args))
        X, out = np.zeros((n, network.widths[0])), np.zeros((n, network.widths[-1]))
        engine.predict(workspace, np.zeros(network.n_params), X, out)
    return blocks, pinned


@in_simulator
def test_large_predictions_overlap_and_memory_is_pinned_once(engine, monkeypatch):
    for name, value in {"OVERLAP_ROWS": 8, "FEWEST_ROWS": 4, "LAUNCH_SECONDS": 1e9}.items():
        monkeypatch.setattr(settings, name, value)
    workspace = engine.workspace(make_network((2, 2)), 4)
    blocks, pinned = sizes_of_blocks(engine, monkeypatch, workspace, 60)
    assert blocks == [16, 16, 16, 12]
    assert set(pinned) == {16}
    for n in (1, 3, 7, 15, 37, 59):
        blocks, pinned = sizes_of_blocks(engine, monkeypatch, workspace, n)
        assert sum(blocks) == n
        assert not pinned, f"{n} rows pinned memory again"
    monkeypatch.setattr(settings, "PREDICT_BYTES", 5 * 8 * 4)  # a row has 2 features and 2 outputs
    assert max(sizes_of_blocks(engine, monkeypatch, engine.workspace(make_network((2, 2)), 4), 60)[0]) == 5


@in_simulator
def test_pinned_memory_that_does_not_suffice_is_halved_and_then_named(engine, monkeypatch):
    room, original = [8], driver.api().pinned_array

    def pinned_array(shape, dtype):
        if shape[0] > room[0]:
            raise RuntimeError("[2] Call to cuMemHostAlloc results in CUDA_ERROR_OUT_OF_MEMORY")
        return original(shape, dtype)

    monkeypatch.setattr(driver.api(), "pinned_array", pinned_array)
    monkeypatch.setattr(settings, "FEWEST_ROWS", 4)
    workspace = engine.workspace(make_network((2, 2)), 4)
    for _ in range(2):
        blocks, _ = sizes_of_blocks(engine, monkeypatch, workspace, 30)
        assert max(blocks) == 8
    room[0] = 1
    with pytest.raises(MemoryError, match=r"no page-locked memory for 4 rows of X: 6\.1e-05 MiB are needed"):
        sizes_of_blocks(engine, monkeypatch, engine.workspace(make_network((2, 2)), 4), 30)


# ------------------------------------------------------------------------------- launches are short


def test_launches_grow_until_they_take_long_enough_and_shrink_again():
    clock = pace.Pace(first_seconds=settings.LAUNCH_SECONDS / 4)
    assert clock.units(1000) == 4
    clock.measured(4, settings.LAUNCH_SECONDS / 1e6)
    assert clock.units(1000) == 4 * settings.GROWTH
    assert clock.units(10) == 10
    clock.measured(32, settings.LAUNCH_SECONDS / 2)
    assert clock.units(1000) == 64
    clock.measured(64, 200 * settings.LAUNCH_SECONDS)
    assert clock.units(1000) == 1


@in_simulator
@pytest.mark.parametrize("double", [False, True])
def test_the_first_launch_is_short_even_on_a_slow_device(engine, double):
    """No device that the engine works on is slower than what the first launch assumes."""
    for widths in ((2, 3, 2), (512, 2048, 512), (10, 10)):
        network = make_network(widths, dtype=np.float64 if double else np.float32)
        data = make_data(np.random.default_rng(0), network, 4)
        workspace = engine.workspace(network, 2)
        rows = workspace.data(data)
        first = training.training_of(workspace, rows, 4, 2, "adam").pace.units(10**9)
        work = first * 2 * 6 * workspace.n_weights
        assert first <= settings.LAUNCH_SECONDS / settings.FIRST_STEP
        assert work <= settings.LAUNCH_SECONDS * settings.FIRST_RATE[workspace.dtype.itemsize] or first == 1


@in_simulator
@pytest.mark.parametrize("seconds", [1e-6, 0.04, 10.0])
def test_a_launch_takes_as_much_as_fits_and_the_bits_stay(engine, monkeypatch, seconds):
    """Parts of a step, a step or many, by what a chunk of rows takes on the device."""
    monkeypatch.setattr(settings, "CHUNK_ROWS", 2)
    network = make_network((3, 4, 2), dropout=(0.3,))
    data = make_data(np.random.default_rng(3), network, 23, True)
    data.sample_weight[:] += 0.1

    def trained():
        rng, workspace = np.random.default_rng(0), engine.workspace(network, 5)
        params = make_params(rng, network)
        optimizer = make_optimizer(rng, "adam", network.n_params, np.float64)
        values = [
            engine.train_epoch(workspace, params, data, np.arange(23), 5, 0.1, optimizer, seed=1) for _ in range(2)
        ]
        grad = np.empty_like(params)
        plain = engine.workspace(make_network((3, 4, 2)), 23)
        values.append(engine.loss_and_grad(plain, params, data, 0.1, grad))
        return np.concatenate([values, params, *optimizer.states, grad]), workspace.launches + plain.launches

    monkeypatch.setattr(settings, "LAUNCH_SECONDS", 1e9)
    expected, least = trained()
    monkeypatch.setattr(settings, "LAUNCH_SECONDS", 0.1)
    monkeypatch.setattr(settings, "FIRST_STEP", seconds)
    taken = []
    monkeypatch.setattr(driver.Timer, "seconds", lambda self: taken[-1] * seconds)
    limits = training.Training._limits

    def noted(self, first, last, chunks, phases, offset):
        taken.append((last - first) * (chunks[1] - chunks[0]))
        return limits(self, first, last, chunks, phases, offset)

    monkeypatch.setattr(training.Training, "_limits", noted)
    found, launches = trained()
    np.testing.assert_array_equal(found, expected)
    assert least == 3
    assert launches == len(taken)
    assert max(taken) <= max(1, 0.1 / seconds)
    assert {1e-6: launches == 3, 0.04: 12 <= launches <= 24, 10.0: launches == 2 * 14 + 12}[seconds]


@in_simulator
def test_the_seconds_of_launches_are_added_up(engine, monkeypatch):
    monkeypatch.setattr(driver.Timer, "seconds", lambda self: 0.25)
    monkeypatch.setattr(settings, "LAUNCH_SECONDS", 0)
    fit = Fit(engine)
    fit.epoch(fit.ours)
    assert fit.ours[1].device_seconds == 0.25 * fit.ours[1].launches == 1.0


# ------------------------------------------------------------------------------- another GPU


class Elsewhere:
    """An array that says it lies at an address."""

    def __init__(self, shape, address=4096):
        self.shape, self.dtype = shape, np.dtype(np.float64)
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": "<f8", "data": (address, False), "version": 3, "stream": None
        }  # fmt: skip


@pytest.fixture
def second_gpu(engine, monkeypatch):
    """A machine with two GPUs, of which this thread works on the first, and all addresses are the second's."""
    monkeypatch.setattr(driver, "current_device", lambda: 0)
    monkeypatch.setattr(driver, "device_of", lambda pointer: 1 if pointer else 0)


@pytest.mark.parametrize("name", ["X", "out"])
def test_an_array_of_another_gpu_is_refused(engine, second_gpu, name):
    network = make_network((3, 2))
    arrays = {"X": np.zeros((5, 3)), "out": np.zeros((5, 2))}
    arrays[name] = Elsewhere(arrays[name].shape)
    with pytest.raises(ValueError, match=f"{name} is on GPU 1, and this thread works on GPU 0"):
        engine.predict(engine.workspace(network, 5), np.zeros(network.n_params), arrays["X"], arrays["out"])


def test_rows_of_another_gpu_are_refused_in_training(engine, second_gpu):
    network = make_network((3, 2))
    data = Data(Elsewhere((5, 3)), np.zeros(5, np.intp))
    optimizer = make_optimizer(np.random.default_rng(0), "sgd", network.n_params, np.float64)
    with pytest.raises(ValueError, match="X is on GPU 1, and this thread works on GPU 0"):
        engine.train_epoch(
            engine.workspace(network, 2), np.zeros(network.n_params), data, np.arange(5), 2, 0.1, optimizer
        )


def test_estimators_refuse_arrays_of_another_gpu(engine, second_gpu):
    with pytest.raises(ValueError, match="X is on GPU 1, and this thread works on GPU 0"):
        device_arrays.view(Elsewhere((5, 3)))
    with pytest.raises(ValueError, match="y is on GPU 1"):
        device_arrays.on_host(MLPClassifier(backend="cuda"), Elsewhere((5,)), "y")


def test_a_workspace_belongs_to_its_gpu(engine, monkeypatch):
    network = make_network((3, 2))
    workspace = engine.workspace(network, 5)
    monkeypatch.setattr(driver, "current_device", lambda: 3)
    with pytest.raises(ValueError, match=f"arrays are on GPU {workspace.device}, and this thread works on GPU 3"):
        engine.predict(workspace, np.zeros(network.n_params), np.zeros((5, 3)), np.zeros((5, 2)))


def test_the_driver_tells_whose_an_address_is(monkeypatch):
    answers = {4096: (0, 2), 8192: (1, -1)}

    def get(found, attribute, pointer):
        assert attribute.value == 9
        status, found._obj.value = answers[pointer.value]
        return status

    monkeypatch.setattr(driver, "simulated", lambda: False)
    monkeypatch.setattr(driver, "current_device", lambda: 7)
    monkeypatch.setattr(driver.ctypes, "CDLL", lambda name: types.SimpleNamespace(cuPointerGetAttribute=get))
    assert driver.device_of(4096) == 2
    assert driver.device_of(0) == 7
    with pytest.raises(ValueError, match=r"0x2000 belongs to no GPU of this process \(CUDA error 1\)"):
        driver.device_of(8192)


# ------------------------------------------------------------------------------- streams of others


@pytest.mark.parametrize(
    ("interface", "expected"),
    [({}, ["context"]), ({"stream": None}, []), ({"stream": 7}, [7])],
    ids=["names no stream", "needs no waiting", "names a stream"],
)
def test_only_the_stream_of_an_array_is_waited_for(monkeypatch, interface, expected):
    waited = []
    stream = lambda number: types.SimpleNamespace(synchronize=lambda: waited.append(number))  # noqa: E731
    cuda = types.SimpleNamespace(external_stream=stream, synchronize=lambda: waited.append("context"))
    monkeypatch.setattr(driver, "api", lambda: cuda)
    driver.wait_for(types.SimpleNamespace(__cuda_array_interface__=interface))
    assert waited == expected


def test_the_stream_of_numbas_arrays_is_waited_for(monkeypatch):
    waited = []
    stream = lambda name: types.SimpleNamespace(synchronize=lambda: waited.append(name))  # noqa: E731
    monkeypatch.setattr(driver, "api", lambda: types.SimpleNamespace(default_stream=lambda: stream("default")))
    driver.wait_for(types.SimpleNamespace(__cuda_ndarray__=True, stream=0))
    driver.wait_for(types.SimpleNamespace(__cuda_ndarray__=True, stream=stream("own")))
    assert waited == ["default", "own"]


@in_simulator
def test_no_call_waits_for_the_whole_device(engine, monkeypatch):
    monkeypatch.setattr(driver.api(), "synchronize", lambda: pytest.fail("waits for everybody's work"))
    fit = Fit(engine)
    fit.epoch(fit.ours)
    engine.predict(fit.ours[1], fit.ours[2], fit.data.X, np.zeros((8, 2)))


# ------------------------------------------------------------------------------- installations

needs_numba_cuda = pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="needs numba-cuda")
FORGET_THE_PTH_FILE = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if type(finder).__name__ != "NumbaCudaFinder"]
sys.modules.pop("_numba_cuda_redirector", None)
"""


def in_a_process(code):
    code = FORGET_THE_PTH_FILE + code
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@needs_numba_cuda
def test_numba_cuda_is_taken_where_no_pth_file_is_read():
    """As after pip install --target: Python reads no .pth files there, and numba.cuda would be Numba's own old code."""
    done = in_a_process(
        "from fastmlp.kernels.numba_cuda import driver\nprint(driver.import_cuda().__file__, sys.modules['numba.cuda'])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("numba_cuda") == 2


@needs_numba_cuda
def test_numbas_own_cuda_is_refused():
    done = in_a_process(
        "try:\n    import numba.cuda\nexcept ImportError:\n    sys.exit(77)\n"
        "from fastmlp.kernels.numba_cuda import driver\ndriver.import_cuda()"
    )
    if done.returncode == 77:
        pytest.skip("this Numba has no CUDA code of its own")
    assert "numba.cuda was imported from Numba itself" in done.stderr
