"""Where the CUDA engine cannot work: what its errors say that is missing.  No device is needed, and no simulator."""

import re
import sys

import numpy as np
import pytest

from fastmlp.engines import backends
from fastmlp.kernels.numba_cuda import driver


@pytest.fixture
def machine(monkeypatch):
    """A machine of which everything works until a test takes it away."""
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(driver, "find_spec", lambda name: name != "numba_cuda_mlir" or None)
    monkeypatch.setattr(driver, "DEVICE_FILES", (__file__,))
    library = type("Library", (), {"version": 13000, "code": 0})
    library.cuDriverGetVersion = lambda found: setattr(found._obj, "value", library.version) or library.code
    monkeypatch.setattr(driver.ctypes, "CDLL", lambda name: library)
    return library


def test_check_passes_where_all_is_there(machine):
    driver.check()


def test_no_package(machine, monkeypatch):
    monkeypatch.setattr(driver, "find_spec", lambda name: name == "numba" or None)
    with pytest.raises(ImportError, match="No module named 'numba_cuda'") as caught:
        driver.check()
    assert caught.value.name == "numba_cuda"


def test_the_error_of_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(driver, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "fastmlp.kernels.numba_cuda.engine", raising=False)
    with pytest.raises(ImportError, match=re.escape('pip install "fastmlp[cuda]"')):
        backends.get("cuda")


def test_no_driver(machine, monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(driver.ctypes, "CDLL", missing)
    with pytest.raises(ImportError, match="driver is not installed") as caught:
        driver.check()
    assert caught.value.name is None


def test_old_driver(machine):
    machine.version = 11080
    with pytest.raises(ImportError, match=r"too old: it supports CUDA 11\.8, 12\.0 or later"):
        driver.check()


def test_a_driver_that_does_not_answer(machine):
    machine.code = 999
    with pytest.raises(ImportError, match="does not answer"):
        driver.check()


@pytest.mark.skipif(sys.platform != "linux", reason="devices are files on Linux only")
def test_no_device_file(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(driver, "DEVICE_FILES", (str(tmp_path / "*"),))
    with pytest.raises(ImportError, match="no CUDA device"):
        driver.check()


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_devices(machine, monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    with pytest.raises(ImportError, match="hides all of them"):
        driver.check()


def test_memory_errors_say_what_and_how_much(monkeypatch):
    class Api:
        def device_array(self, size, dtype):
            raise RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(driver, "api", Api)
    monkeypatch.setattr(driver, "free_memory", lambda: 2**29)
    with pytest.raises(MemoryError, match=r"no room for X: 8 GiB are needed, 0\.5 GiB are free"):
        driver.allocate(2**30, np.float64, "X")
