"""Several networks in one fit: side by side on threads, the same bits for any number of them; ensembles and folds."""

import threading
import time

import numpy as np
import pytest

from fastmlp.engines import backends
from fastmlp.kernels import interrupts
from fastmlp.model.network import Network
from fastmlp.training.optimizers import Optimizer
from fastmlp.training.schedules import Schedule

#: Engines whose work other threads can stop; the CUDA engine trains on the calling thread.
STOPPABLE = [name for name in backends.available() if name != "cuda"]

# --- how a thread stops another -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STOPPABLE)
def test_a_thread_stops_a_running_epoch(name):
    """The steps done are kept, as after Ctrl-C; a thread that nobody asked goes on."""
    engine = backends.get(name)
    rng = np.random.default_rng(0)
    network = Network((32, 512, 512, 1), ("relu", "relu"), "squared_error", np.dtype("float32"))
    n = 2_000
    data = backends.Data(rng.normal(size=(n, 32)).astype("f4"), np.zeros((n, 1), "f4"))
    params = rng.normal(scale=0.01, size=network.n_params).astype("f4")
    workspace, stop, seen = engine.workspace(network, 200, 1), interrupts.Stop(), []
    order = np.tile(np.arange(n, dtype=np.intp), 2_000)  # hours of work
    optimizer = Optimizer("sgd", network, Schedule(1e-6))

    def train():
        with interrupts.stoppable(stop):
            try:
                engine.train_epoch(workspace, params, data, order, 200, 0.0, optimizer)
            except KeyboardInterrupt:
                seen.append(time.perf_counter())

    engine.train_epoch(workspace, params, data, order[:200], 200, 0.0, optimizer)  # compiles, if the engine does
    before = params.copy()
    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    time.sleep(0.5)
    asked, stop.wanted = time.perf_counter(), True
    thread.join(60)
    assert len(seen) == 1 and seen[0] - asked < 1.0
    assert 1 < optimizer.t < 20_000 and (params != before).any()
    engine.train_epoch(workspace, params, data, order[:200], 200, 0.0, optimizer)
