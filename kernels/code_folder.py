"""Modules that are made at run time: written into the user's cache folder, where Numba keeps their machine code too.

Where it sits: numba_cpu/cache.py and numba_cuda/driver.py render texts; here they become files, and modules.  A name
must change with the text, so that nothing in the folder is ever stale.  Files are written whole or not at all, so that
processes may start side by side.  ``FASTMLP_CACHE_DIR`` names another folder.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
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

lock = threading.RLock()


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


def key_of(*texts: str) -> str:
    """A short hash of texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


@lru_cache
def made(name: str, backend: str) -> Path:
    """The folder of this name within the user's, made if need be; a temporary one where that cannot be written to."""
    try:
        place = user_folder() / name
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=place):
            return place
    except (OSError, RuntimeError) as error:  # no home, no right to write to it, or no room in it
        warnings.warn(
            f"backend={backend!r} has nowhere to keep its code and compiles it anew in each process ({error}); "
            "FASTMLP_CACHE_DIR names another folder",
            RuntimeWarning,
            stacklevel=2,
        )
        place = Path(tempfile.mkdtemp(prefix="fastmlp-"))
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        return place


def load(folder: Path, name: str, render: Callable[[], str]) -> ModuleType:
    """The module of this name in a folder, rendered if it is not there yet."""
    full = f"fastmlp_{name}"
    with lock:
        if full in sys.modules:
            return sys.modules[full]
        path = folder / f"{name}.py"
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
