"""Where fastmlp is found: a checkout that is not installed, or an installation.

In a checkout the kernels lie beside the package and not in it, and there are no metadata.  So a folder is made with
links that have the installed form, and named in PYTHONPATH, which all children inherit.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
CHECKOUT = SCRIPTS.parent


def is_checkout() -> bool:
    """Return whether these scripts lie in the sources of fastmlp."""
    return (CHECKOUT / "fastmlp" / "__init__.py").exists() and (CHECKOUT / "kernels" / "formulas.py").exists()


def tests() -> Path | None:
    """Return the folder of the tests, None if there is none."""
    folder = CHECKOUT / "tests"
    return folder if is_checkout() and (folder / "test_cuda.py").exists() else None


def find_fastmlp(out: Path) -> dict[str, str]:
    """Make fastmlp importable here, and return the environment in which children find it, too."""
    places = [str(SCRIPTS)]
    if is_checkout():
        places.append(str(_linked(out.resolve() / "path")))
    sys.path[:0] = [place for place in places if place not in sys.path]
    known = os.environ.get("PYTHONPATH")
    paths = os.pathsep.join([*places, *([known] if known else [])])
    # a child that looks in the present folder first would find the checkout's package there, without its kernels
    return {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}


def _linked(folder: Path) -> Path:
    """Make a folder with links to the checkout in the form of an installation, and return it."""
    package = folder / "fastmlp"
    package.mkdir(parents=True, exist_ok=True)
    entries = {path.name: path for path in (CHECKOUT / "fastmlp").iterdir() if path.name != "__pycache__"}
    for name, path in {**entries, "kernels": CHECKOUT / "kernels"}.items():
        link = package / name
        if link.is_symlink():
            link.unlink()
        link.symlink_to(path, target_is_directory=path.is_dir())
    text = (CHECKOUT / "fastmlp" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"', text, re.MULTILINE)
    number = version.group(1) if version else "0"
    metadata = folder / f"fastmlp-{number}.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fastmlp\nVersion: {number}\n", encoding="utf-8")
    return folder
