"""Compiled code of the Numba engine: modules rendered, compiled at first use, kept on disk for the next process.

Where it sits: the engine asks :func:`code_of` for the functions of a dtype.  They live in modules that codegen renders
from template/ and formulas.py into a folder of the user's cache.  The folder's name is a hash of the template's texts
and of the machine's vector width, and modules of formulas have a hash of theirs: what Numba keeps beside them is never
stale.  A user's formula is a module of its own.  Files and folders are the affair of code_folder.py.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fastmlp.kernels import code_folder, codegen, formulas, layer_table
from fastmlp.kernels.code_folder import key_of, lock, made, user_folder
from fastmlp.kernels.codegen import common, numba

TEMPLATE = Path(__file__).parent / "template"
#: Parts of the driver, in order; math.py is in front of them, and of every other module.
PARTS = ("tables", "teams", "products", "rows", "stages", "losses", "updates", "network")
#: Kind of function -> the numbers of its arguments: integers, doubles.
SIGNATURES = {
    "value": (3, 0), "forward": (4, 0), "backward": (5, 0), "loss": (10, 0), "terms": (9, 0), "rule": (6, 4),
}  # fmt: skip


@lru_cache(maxsize=1)
def formulas_key() -> str:
    """Return what tells the modules of formulas apart; the driver, longest to compile, does not depend on them."""
    return key_of(*map(inspect.getsource, (common, numba, formulas)))


@lru_cache(maxsize=1)
def machine() -> tuple[int, int]:
    """Return (bytes of a vector register, rows of a register tile) of this processor."""
    from llvmlite import binding

    with contextlib.suppress(RuntimeError):
        features = binding.get_host_cpu_features()
        if features.get("avx512f"):
            return 64, 8
        if features.get("avx"):
            return 32, 4
    return 16, 4


@lru_cache(maxsize=1)
def _name() -> str:
    """Return the name of the folder in which this driver's code on this machine belongs."""
    writer = inspect.getsource(codegen.numba_head)
    return f"numba-{key_of(_driver(_template('math')), writer, repr(machine()), sys.version)}"


def _driver(head: str) -> str:
    """Return the text of the driver's module."""
    return codegen.numba_network(head, layer_table.constants(), map(_template, PARTS))


def compiled() -> dict[str, bool]:
    """Return whether the driver of each dtype is on disk already; Numba is not imported."""
    with contextlib.suppress(OSError, RuntimeError):
        place = user_folder() / _name()
        return {tag: any(place.glob(f"**/network_{tag}.train*.nbc")) for tag in ("float32", "float64")}
    return {"float32": False, "float64": False}


def folder() -> Path:
    """Return the folder of this driver's code on this machine, made if need be."""
    return made(_name(), "numba")


def load(name: str, render: Callable[[], str]) -> ModuleType:
    """Return the module of this name in the folder, rendered if it is not there yet."""
    return code_folder.load(folder(), name, render)


class Code:
    """The code of one dtype: functions by name, compiled when they are first asked for.

    Attributes
    ----------
    names : dict
        Constants of the template: places in its tables, LANES, CLASS_ROWS.
    """

    def __init__(self, double: bool) -> None:
        self.double, self.tag = double, "float64" if double else "float32"
        self.network = load(f"network_{self.tag}", lambda: _driver(self.head()))
        self.names = {name: value for name, value in vars(self.network).items() if name.isupper()}
        self._compiled: dict[tuple[str, str, str], Any] = {}
        self.run = _Runner(self.network)

    def head(self) -> str:
        """Return the text in front of every module of this dtype."""
        vector_bytes, tile_rows = machine()
        return codegen.numba_head(_template("math"), double=self.double, vector_bytes=vector_bytes, tile_rows=tile_rows)

    def formulas(self) -> ModuleType:
        """Return the module of formulas.py."""
        return load(f"formulas_{self.tag}_{formulas_key()}", lambda: codegen.numba_module(formulas, self.head()))

    def slope_reads_z(self, name: str) -> bool:
        """Whether the slope of an activation is a function of z."""
        return hasattr(self.formulas(), f"forward_{name}")

    def named(self, name: str) -> Callable[[str], int]:
        """Return kind -> address of the function of this kind of a row of formulas.py."""
        return lambda kind: self._address(self.formulas(), kind, name)

    def own(self, formula: Any) -> Callable[[str], int]:
        """Return kind -> address of the function of this kind of a user's formula."""
        kinds = [kind for kind in formula.kinds if kind != "formula"]
        sources = {kind: formula.program_source(kind) for kind in kinds}
        names = dict(zip(sources, ("value", "slope" if "slope" in sources else "delta"), strict=True))
        key = key_of(formulas_key(), *sources.values())
        texts = {names[kind]: source for kind, source in sources.items()}
        module = load(f"own_{key}_{self.tag}", lambda: codegen.numba_formula(self.head(), texts))
        return lambda kind: self._address(module, kind, "own")

    def _address(self, module: ModuleType, kind: str, name: str) -> int:
        key = module.__name__, kind, name
        with lock:
            if key not in self._compiled:
                from numba import cfunc, types

                longs, doubles = SIGNATURES[kind]
                signature = types.void(*[types.int64] * longs, *[types.float64] * doubles)
                self._compiled[key] = cfunc(signature, **module.KERNEL)(getattr(module, f"{kind}_{name}"))
            return self._compiled[key].address


class _Runner:
    """Calls functions of the network's module by name."""

    def __init__(self, module: ModuleType) -> None:
        self.functions = vars(module)

    def __call__(self, name: str, *args: Any) -> Any:
        return self.functions[name](*args)


@lru_cache
def _template(name: str) -> str:
    return (TEMPLATE / f"{name}.py").read_text(encoding="utf-8")


_codes: dict[bool, Code] = {}


def code_of(dtype: Any) -> Code:
    """Return the code of a dtype.

    Raises
    ------
    ImportError
        If Numba does not import, or must not compile.
    """
    double = bool(np.dtype(dtype) == np.float64)
    if double not in _codes:
        with lock:
            import numba as compiler

            if compiler.config.DISABLE_JIT:
                raise ImportError("backend='numba' needs Numba's compiler, which NUMBA_DISABLE_JIT turns off")
            if double not in _codes:
                _codes[double] = Code(double)
    return _codes[double]
