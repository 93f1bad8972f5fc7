"""The table of engines: all have the same functions, and a name that cannot be used says why."""

import inspect
import re
import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from fastmlp.engines import backends
from fastmlp.kernels import reference
from fastmlp.kernels.contract import Engine
from fastmlp.model.network import Network

AVAILABLE = backends.available()


def parameters(function):
    """(name, kind, default) of each parameter; annotations are each engine's own affair."""
    signature = inspect.signature(function)
    return [(p.name, p.kind, p.default) for p in signature.parameters.values()]


@pytest.mark.parametrize("function", backends.CONTRACT)
@pytest.mark.parametrize("name", AVAILABLE)
def test_signatures_are_those_of_the_contract(name, function):
    theirs, ours = getattr(backends.get(name), function), getattr(Engine, function)
    assert parameters(theirs) == parameters(ours)
    assert theirs.__doc__, f"{name}.{function} has no docstring"


@pytest.mark.parametrize("function", backends.CONTRACT)
def test_the_contract_documents_each_argument(function):
    documented = getattr(Engine, function).__doc__
    for name, _, _ in parameters(getattr(Engine, function)):
        assert re.search(rf"^        {name} : ", documented, re.MULTILINE), f"{name} is not documented"


def test_a_compiled_engine_is_there():
    """Or every test that runs over the engines would pass by running none."""
    assert "cython" in AVAILABLE
    assert "reference" in AVAILABLE


@pytest.mark.parametrize("name", AVAILABLE)
def test_get_returns_a_module(name):
    assert isinstance(backends.get(name), ModuleType)
    assert backends.get(name) is backends.get(name)


def test_auto_is_the_first_available():
    assert backends.get("auto") is backends.get(AVAILABLE[0])


@pytest.fixture
def without_cython(monkeypatch):
    """The table as it is where the extension was not built."""
    absent = replace(backends.BACKENDS["cython"], module="fastmlp.kernels.no_such_engine")
    monkeypatch.setitem(backends.BACKENDS, "cython", absent)


def test_auto_goes_by_the_size_of_the_fit_where_no_extension_is(without_cython):
    """Nothing is compiled for a small net; the reference needs no compiler."""
    assert backends.get("auto") is reference
    assert backends.get("auto", backends.COMPILING_PAYS / 2) is reference
    expected = "numba" if "numba" in AVAILABLE else "reference"
    assert backends.get("auto", backends.COMPILING_PAYS) is backends.get(expected)


@pytest.mark.nightly  # a process; that of test_installations.py looks for Numba, too
def test_small_fits_do_not_import_numba_where_no_extension_is():
    code = (
        "import sys; sys.modules['fastmlp.kernels._engine'] = None\n"
        "import numpy as np, fastmlp\n"
        "fastmlp.MLPClassifier(max_iter=2).fit(np.eye(4), [0, 1, 0, 1]).predict(np.eye(4))\n"
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_no_gpu_is_taken_without_being_named(without_cython, monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "cuda", replace(backends.BACKENDS["cuda"], module=reference.__name__))
    monkeypatch.setitem(backends.BACKENDS, "numba", backends.Row("fastmlp.kernels.no_such_engine", ""))
    monkeypatch.setitem(backends.BACKENDS, "reference", backends.Row("fastmlp.kernels.formulas", ""))
    assert backends.get("auto", 1e300).__name__ == "fastmlp.kernels.formulas"


def test_work_of_a_fit():
    network = Network((4, 5, 3), ("relu",), "log_loss", np.dtype("float64"))
    assert backends.work_of_fit(network, n_rows=10, n_epochs=7) == 6 * (4 * 5 + 5 * 3) * 10 * 7


@pytest.mark.parametrize("name", ["no such engine", "", "Cython"])
def test_unknown_backend_lists_the_available_ones(name):
    with pytest.raises(ValueError) as caught:
        backends.get(name)
    for available in AVAILABLE:
        assert available in str(caught.value)
    assert repr(name) in str(caught.value)


@pytest.fixture
def ghost(monkeypatch):
    """A registered engine whose module is not installed."""
    row = backends.Row("fastmlp.kernels.no_such_engine", "pip install ectoplasm")
    monkeypatch.setitem(backends.BACKENDS, "ghost", row)


def test_backend_that_is_not_installed_says_what_to_install(ghost):
    with pytest.raises(ImportError, match="pip install ectoplasm") as caught:
        backends.get("ghost")
    assert "ghost" in str(caught.value)


def test_backend_that_cannot_work_here_says_why(monkeypatch, tmp_path):
    (tmp_path / "no_device.py").write_text("raise ImportError('no device was found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(backends.BACKENDS, "ghost", backends.Row("no_device", "pip install ectoplasm"))
    with pytest.raises(ImportError, match="backend='ghost' cannot be used here: no device was found"):
        backends.get("ghost")


def test_backend_that_is_not_installed_is_not_available(ghost):
    assert backends.available() == AVAILABLE


def test_backend_that_is_not_installed_is_not_auto(monkeypatch, ghost):
    """Even where it comes first."""
    first = {"ghost": backends.BACKENDS["ghost"], **backends.BACKENDS}
    monkeypatch.setattr(backends, "BACKENDS", first)
    assert next(iter(backends.BACKENDS)) == "ghost"
    assert backends.get("auto") is backends.get(AVAILABLE[0])
