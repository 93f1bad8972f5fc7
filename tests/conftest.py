"""Fixtures of the tests, Hypothesis profiles, and the three tiers (see tiers.py)."""

import os
import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from fastmlp.engines import backends

import parity
from tiers import mark_tiers

# The same examples on every run: a failure is the change's, not the day's.  "explore" draws new
# ones: HYPOTHESIS_PROFILE=explore pytest tests/test_kernels.py
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", derandomize=True, max_examples=6, **_COMMON)
settings.register_profile("gate", derandomize=True, max_examples=12, **_COMMON)
settings.register_profile("all", derandomize=True, max_examples=25, **_COMMON)
settings.register_profile("explore", max_examples=300, **_COMMON)

# Pictures are drawn without a window.
os.environ.setdefault("MPLBACKEND", "agg")

# A shell that starts the tests in the background has them ignore Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def tier_of(config):
    """Return the tier that is asked for."""
    return {"not exhaustive": "quick", "not nightly": "gate"}.get(config.option.markexpr, "all")


def pytest_configure(config):
    """Take as many examples as the tier is to have."""
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", tier_of(config)))


#: Files of few tests that take long.  They come first, lest one process wait for another at the end.
LONG = ["test_add_activation.py", "test_docs.py", "test_realmlp.py", "test_dask.py", "test_mpi.py", "test_gpu_check.py"]


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is marked
def pytest_collection_modifyitems(items):
    mark_tiers(items)
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
def tier(request):
    """The tier that runs: quick, gate, all."""
    return tier_of(request.config)


ENGINES = [name for name in backends.available() if name != "reference"]


# Module scope: Hypothesis runs many examples within one fixture's life.
@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    """Each engine that is to be judged by the reference."""
    return backends.get(request.param)


def instruction_sets():
    """(engine, instruction set or None); a set asked for by FASTMLP_ISA is the only one."""
    for name in ENGINES:
        module = backends.get(name)
        if not hasattr(module, "isas") or os.environ.get("FASTMLP_ISA"):
            yield pytest.param((name, None), id=name)
        else:
            yield from (pytest.param((name, isa), id=f"{name}-{isa}") for isa in module.isas())


@pytest.fixture(scope="module", params=[*instruction_sets()])
def engine_on_every_isa(request):
    """Each engine, once for every instruction set that it has on this machine."""
    name, isa = request.param
    module = backends.get(name)
    if isa is None:
        yield module
        return
    before = module.isa()
    module.use_isa(isa)
    yield module
    module.use_isa(before)


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread():
    """Products are small in the tests: BLAS threads cost more than they bring, most of it in waiting."""
    with parity.one_blas_thread():
        yield


@pytest.fixture(scope="module")
def one_torch_thread():
    """Tensors are small here: PyTorch's threads would mostly wait for one another."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[parity.CLASSIFIER, parity.REGRESSOR], ids=["classifier", "regressor"])
def twins(request):
    """scikit-learn's class and ours."""
    return request.param


@pytest.fixture(scope="module", params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param
