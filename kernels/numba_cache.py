"""Compiled code of the Numba engine: modules rendered, compiled at first use, kept on disk for the next process.

Where it sits: numba_cpu.py asks :func:`code` for the functions of a dtype.  They live in modules that codegen.py
renders out of numba_math.py, numba_network.py and formulas.py into a folder of the user's cache.  The folder's name is
a hash of the first two texts and of the machine's vector width, and modules of formulas have one of theirs: what Numba
keeps beside them is never stale.  A user's formula is a module of its own.  Files and folders are code_folder.py's
affair.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from fastmlp.kernels import code_folder, codegen, formulas
from fastmlp.kernels.code_folder import key_of, lock, made, user_folder

HERE = Path(__file__).parent
#: Kind of function -> its arguments: so many integers, so many doubles.
SIGNATURES = {"value": (3, 0), "forward": (4, 0), "backward": (5, 0), "loss": (10, 0), "rule": (6, 4)}


@lru_cache(maxsize=1)
def formulas_key() -> str:
    """Tells the modules of formulas apart; the driver, which takes longest to compile, does not depend on them."""
    return key_of(*(Path(str(module.__file__)).read_text(encoding="utf-8") for module in (codegen, formulas)))


@lru_cache(maxsize=1)
def machine() -> tuple[int, int]:
    """(bytes of a vector register, rows of a register tile) of this processor."""
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
    """The name of the folder in which this driver's code on this machine belongs."""
    texts = [
        _template("math"),
        _template("network"),
        *map(inspect.getsource, (codegen.numba_head, codegen.numba_network)),
    ]
    return f"numba-{key_of(*texts, repr(machine()), sys.version)}"


def compiled() -> dict[str, bool]:
    """Whether the driver of each dtype is on disk already; Numba is not imported."""
    with contextlib.suppress(OSError, RuntimeError):
        place = user_folder() / _name()
        return {tag: any(place.glob(f"**/network_{tag}.train*.nbc")) for tag in ("float32", "float64")}
    return {"float32": False, "float64": False}


def folder() -> Path:
    """The folder of this driver's code on this machine, made if need be."""
    return made(_name(), "numba")


def load(name: str, render: Callable[[], str]) -> ModuleType:
    """The module of this name in the folder, rendered if it is not there yet."""
    return code_folder.load(folder(), name, render)


class Code:
    """The code of one dtype: functions by name, compiled when they are first asked for.

    Attributes
    ----------
    names : dict
        Constants of numba_network.py: places in its tables, and LANES.
    """

    def __init__(self, double: bool) -> None:
        self.double, self.tag = double, "float64" if double else "float32"
        self.network = load(f"network_{self.tag}", lambda: codegen.numba_network(self.head(), _template("network")))
        self.names = {name: value for name, value in vars(self.network).items() if name.isupper()}
        self._compiled: dict[tuple[str, str, str], object] = {}
        self.run = _Runner(self.network)

    def head(self) -> str:
        vector_bytes, tile_rows = machine()
        return codegen.numba_head(_template("math"), double=self.double, vector_bytes=vector_bytes, tile_rows=tile_rows)

    def formulas(self) -> ModuleType:
        return load(f"formulas_{self.tag}_{formulas_key()}", lambda: codegen.numba_module(formulas, self.head()))

    def slope_reads_z(self, name: str) -> bool:
        return hasattr(self.formulas(), f"forward_{name}")

    def named(self, name: str) -> Callable[[str], int]:
        """kind -> address of the function of this kind of a row of formulas.py."""
        return lambda kind: self._address(self.formulas(), kind, name)

    def own(self, formula) -> Callable[[str], int]:
        """kind -> address of the function of this kind of a user's formula."""
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

    def __call__(self, name: str, *args):
        return self.functions[name](*args)


@lru_cache
def _template(name: str) -> str:
    return (HERE / f"numba_{name}.py").read_text(encoding="utf-8")


_codes: dict[bool, Code] = {}


def code(double: bool) -> Code:
    """The code of a dtype.

    Raises
    ------
    ImportError
        If Numba does not import, or must not compile.
    """
    if double not in _codes:
        with lock:
            import numba

            if numba.config.DISABLE_JIT:
                raise ImportError("backend='numba' needs Numba's compiler, which NUMBA_DISABLE_JIT turns off")
            if double not in _codes:
                _codes[double] = Code(double)
    return _codes[double]
