"""The table of engines: all have the same functions, and a name that cannot be used says why."""

import inspect
from types import ModuleType, SimpleNamespace

import pytest

from fastmlp import backends
from fastmlp.kernels import reference

AVAILABLE = backends.available()


def parameters(function):
    """(name, kind, default) of each parameter; annotations are each engine's own affair."""
    signature = inspect.signature(function)
    return [(p.name, p.kind, p.default) for p in signature.parameters.values()]


def test_contract_is_what_the_reference_offers():
    assert sorted(backends.CONTRACT) == sorted(reference.__all__)


@pytest.mark.parametrize("function", sorted(backends.CONTRACT))
@pytest.mark.parametrize("name", AVAILABLE)
def test_signatures_are_those_of_the_reference(name, function):
    theirs, ours = getattr(backends.get(name), function), getattr(reference, function)
    assert parameters(theirs) == parameters(ours)
    assert theirs.__doc__, f"{name}.{function} has no docstring"


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
    row = SimpleNamespace(module="fastmlp.kernels.no_such_engine", install="pip install ectoplasm")
    monkeypatch.setitem(backends.BACKENDS, "ghost", row)


def test_backend_that_is_not_installed_says_what_to_install(ghost):
    with pytest.raises(ImportError, match="pip install ectoplasm") as caught:
        backends.get("ghost")
    assert "ghost" in str(caught.value)


def test_backend_that_is_not_installed_is_not_available(ghost):
    assert backends.available() == AVAILABLE


def test_backend_that_is_not_installed_is_not_auto(monkeypatch, ghost):
    """Even where it comes first."""
    first = {"ghost": backends.BACKENDS["ghost"], **backends.BACKENDS}
    monkeypatch.setattr(backends, "BACKENDS", first)
    assert next(iter(backends.BACKENDS)) == "ghost"
    assert backends.get("auto") is backends.get(AVAILABLE[0])
