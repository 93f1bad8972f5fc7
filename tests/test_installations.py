"""What works where a part is missing: no extension, no Numba, Numba's compiler turned off.

Processes of their own try this: one with a copy of the package without the extension, one with the package as it is
installed.  Each hides Numba first, and finds it afterwards.  That the engines compute the same is tested elsewhere.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastmlp
from fastmlp import kernels
from fastmlp.engines import backends

HEAD = """
import os, sys, warnings
# an editable installation would find the extension that the copy lacks
sys.meta_path[:] = [f for f in sys.meta_path if not COPY or "__editable__" not in getattr(f, "__module__", "")]
import numpy as np
warnings.simplefilter("ignore", category=UserWarning)
import sklearn.neural_network  # recent versions import rich themselves
before = set(sys.modules)
import fastmlp
from fastmlp.engines import backends

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "llvmlite"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

X = np.random.default_rng(0).normal(size=(60, 4))
y = (X[:, 0] > 0).astype(int)

def fit(backend="auto"):
    clf = fastmlp.MLPClassifier((7,), max_iter=30, random_state=0, learning_rate_init=0.05, backend=backend)
    return clf.fit(X, y).score(X, y)

def refusal():
    try:
        fit("numba")
    except ImportError as error:
        return str(error)

sys.meta_path.insert(0, Missing())
"""

needs_cython = pytest.mark.skipif("cython" not in backends.available(), reason="needs the Cython engine")


def run(code, copy=None, **environment):
    """What a script prints, in a process of its own that has the package as it is installed, or a copy of it."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"COPY = {copy is not None}{HEAD}{code}"],
        env={**os.environ, **environment, **({"PYTHONPATH": copy} if copy else {})},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def without_extension(tmp_path_factory):
    """A folder that holds the package as it is where nothing was compiled."""
    folder = tmp_path_factory.mktemp("pure")
    skip = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "cython", "kernels")
    shutil.copytree(Path(fastmlp.__file__).parent, folder / "fastmlp", ignore=skip)
    shutil.copytree(Path(kernels.__file__).parent, folder / "fastmlp" / "kernels", ignore=skip)
    return str(folder)


WITHOUT_EXTENSION = """
print(fastmlp.__file__)
assert backends.available() == ("reference",), backends.available()
assert "reinstall fastmlp where a C compiler is present" in backends.why_not("cython")
assert backends.get("auto", 1e300) is backends.get("reference")
assert fit() > 0.8

del sys.meta_path[0]  # Numba may be found
assert backends.get("auto") is backends.get("reference")
assert fit() > 0.8
assert "numba" not in sys.modules, "a small fit imports it"

from fastmlp.cli.app import app
app(["info"], standalone_mode=False)
"""
LARGE_FITS = """
assert backends.available()[0] == "numba", backends.available()
assert backends.get("auto", backends.COMPILING_PAYS) is backends.get("numba")
backends.BACKENDS["numba"] = backends.Row(backends.BACKENDS["numba"].module, "", 0.0)
assert backends.get("auto") is backends.get("numba")
assert fit() > 0.8 and "numba" in sys.modules
"""


def test_without_the_extension_the_other_engines_stand_in(without_extension):
    """Small fits are the reference's, large ones Numba's, if it is there; the command line works."""
    code = WITHOUT_EXTENSION + (LARGE_FITS if "numba" in backends.available() else "")
    said = run(code, copy=without_extension, COLUMNS="300")
    assert said.startswith(without_extension) and "C compiler" in said


WITHOUT_NUMBA = """
assert backends.available() == ("cython", "reference"), backends.available()
assert fit() > 0.8 and fit("reference") > 0.8
print(refusal())

del sys.meta_path[0]
for value in ("1", "2"):  # what turns Numba's compiler off
    os.environ["NUMBA_DISABLE_JIT"] = value
    assert "numba" not in backends.available()
    assert fit() > 0.8
    print(refusal())
for value in ("0", ""):
    os.environ["NUMBA_DISABLE_JIT"] = value
    assert "NUMBA_DISABLE_JIT" not in (backends.why_not("numba") or "")
from fastmlp.data import device_arrays
assert fit() > 0.8 and not device_arrays.is_device_array(X)
early = {"typer", "rich", "numba", "matplotlib"} & (set(sys.modules) - before)
assert not early, early
"""


@needs_cython
def test_without_numba_or_its_compiler_its_engine_says_so():
    missing, *turned_off = run(WITHOUT_NUMBA).splitlines()
    assert "backend='numba' is not installed (No module named 'numba')" in missing
    assert 'pip install "fastmlp[numba]"' in missing
    expected = "backend='numba' cannot be used here: NUMBA_DISABLE_JIT is set"
    assert len(turned_off) == 2 and all(expected in text for text in turned_off)
