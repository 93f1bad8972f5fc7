"""Compiled code of the Numba engine: modules rendered, compiled at first use, kept on disk for the next process.

Where it sits: numba_cpu.py asks :func:`code` for the functions of a dtype.  They live in modules that codegen.py
renders out of numba_math.py, numba_network.py and formulas.py into a folder of the user's cache.  The folder's name is
a hash of the first two texts and of the machine's vector width, and modules of formulas have one of theirs: what Numba
keeps beside them is never stale.  A user's formula is a module of its own.  Files are written whole or not at all, so
that processes may start side by side.

``FASTMLP_CACHE_DIR`` names another folder; where none can be written to, a warning says that code is compiled anew in
every process.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.util
import inspect
import os
import secrets
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from fastmlp.kernels import codegen, formulas

HERE = Path(__file__).parent
#: Kind of function -> its arguments: so many integers, so many doubles.
SIGNATURES = {"value": (3, 0), "forward": (4, 0), "backward": (5, 0), "loss": (10, 0), "rule": (6, 4)}

_lock = threading.RLock()


def user_folder() -> Path:
    """Where programs keep what they can make again."""
    given = os.environ.get("FASTMLP_CACHE_DIR")
    if given:
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "fastmlp" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fastmlp"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastmlp"


def _key(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def formulas_key() -> str:
    """Tells the modules of formulas apart; the driver, which takes longest to compile, does not depend on them."""
    return _key(*(Path(str(module.__file__)).read_text(encoding="utf-8") for module in (codegen, formulas)))


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


def _place() -> Path:
    """Where this driver's code on this machine belongs."""
    texts = [
        _template("math"),
        _template("network"),
        *map(inspect.getsource, (codegen.numba_head, codegen.numba_network)),
    ]
    return user_folder() / f"numba-{_key(*texts, repr(machine()), sys.version)}"


def compiled() -> dict[str, bool]:
    """Whether the driver of each dtype is on disk already; Numba is not imported."""
    with contextlib.suppress(OSError, RuntimeError):
        place = _place()
        return {tag: any(place.glob(f"**/network_{tag}.train*.nbc")) for tag in ("float32", "float64")}
    return {"float32": False, "float64": False}


@lru_cache(maxsize=1)
def folder() -> Path:
    """The folder of this driver's code on this machine, made if need be."""
    try:
        place = _place()
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=place):
            return place
    except (OSError, RuntimeError) as error:  # no home, no right to write to it, or no room in it
        warnings.warn(
            f"backend='numba' has nowhere to keep its code and compiles it anew in each process ({error}); "
            "FASTMLP_CACHE_DIR names another folder",
            RuntimeWarning,
            stacklevel=2,
        )
        place = Path(tempfile.mkdtemp(prefix="fastmlp-numba-"))
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        return place


def load(name: str, render: Callable[[], str]) -> ModuleType:
    """The module of this name in the folder, rendered if it is not there yet."""
    full = f"fastmlp_{name}"
    if full in sys.modules:
        return sys.modules[full]
    path = folder() / f"{name}.py"
    if not path.exists():
        part = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
        part.write_text(render(), encoding="utf-8")
        os.utime(part, (1e9, 1e9))  # Numba's stamp of the file: the same whoever wrote it
        os.replace(part, path)
    spec = importlib.util.spec_from_file_location(full, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full]
        raise
    return module


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
        key = _key(formulas_key(), *sources.values())
        texts = {names[kind]: source for kind, source in sources.items()}
        module = load(f"own_{key}_{self.tag}", lambda: codegen.numba_formula(self.head(), texts))
        return lambda kind: self._address(module, kind, "own")

    def _address(self, module: ModuleType, kind: str, name: str) -> int:
        key = module.__name__, kind, name
        with _lock:
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
        with _lock:
            import numba

            if numba.config.DISABLE_JIT:
                raise ImportError("backend='numba' needs Numba's compiler, which NUMBA_DISABLE_JIT turns off")
            if double not in _codes:
                _codes[double] = Code(double)
    return _codes[double]
