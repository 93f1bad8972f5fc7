"""Packages that not every installation has."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def needed(module: str, by: str, install: str) -> Any:
    """Import a module of an optional package; an ImportError says what needs it and how to install it."""
    package = module.partition(".")[0]
    try:
        import_module(package)
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{by} needs {package}: pip install {install}") from error
