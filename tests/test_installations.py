"""What works where a part is missing: no extension, no Numba, Numba's compiler turned off, nowhere to keep code.

Each installation is made for a process of its own: a copy of the package without the extension, or a process in which a
module does not import.  That the engines compute the same is tested elsewhere.
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

from tiers import exhaustive

# an editable installation would find the extension that the copy lacks
HEAD = """
import sys, warnings
sys.meta_path[:] = [f for f in sys.meta_path if not COPY or "__editable__" not in getattr(f, "__module__", "")]
import numpy as np
from sklearn.datasets import load_iris
warnings.simplefilter("ignore", category=UserWarning)
"""
NO_NUMBA = """
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "llvmlite"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""
FIT = """
import fastmlp
from fastmlp.engines import backends

def fit(backend="auto", max_iter=30):
    X, y = load_iris(return_X_y=True)
    clf = fastmlp.MLPClassifier((7,), max_iter=max_iter, random_state=0, learning_rate_init=0.02, backend=backend)
    return clf.fit(X, y).score(X, y)
"""

needs_cython = pytest.mark.skipif("cython" not in backends.available(), reason="needs the Cython engine")
needs_numba = pytest.mark.skipif("numba" not in backends.available(), reason=f"{backends.why_not('numba')}")


def run(code, *arguments, copy=None, **environment):
    """What a script prints, in a process of its own that has the package as it is installed, or a copy of it."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"COPY = {copy is not None}{HEAD}{code}", *arguments],
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


# ------------------------------------------------------------------------------- no extension


def test_without_the_extension_small_fits_are_the_references(without_extension):
    code = (
        "assert fit() > 0.8\n"
        "assert backends.get('auto') is backends.get('reference')\n"
        "assert 'reinstall fastmlp where a C compiler is present' in backends.why_not('cython')\n"
        "print(fastmlp.__file__)"
    )
    assert run(FIT + code, copy=without_extension).startswith(without_extension)


@needs_numba
def test_without_the_extension_large_fits_are_numbas(without_extension):
    code = (
        "assert backends.available()[0] == 'numba', backends.available()\n"
        "assert 'numba' not in sys.modules\n"
        "assert backends.get('auto', backends.COMPILING_PAYS) is backends.get('numba')\n"
        "backends.BACKENDS['numba'] = backends.Row(backends.BACKENDS['numba'].module, '', 0.0)\n"
        "assert backends.get('auto') is backends.get('numba')\n"
        "assert fit() > 0.8 and 'numba' in sys.modules"
    )
    run(FIT + code, copy=without_extension)


def test_without_extension_or_numba_everything_is_the_references(without_extension):
    code = (
        "assert backends.available() == ('reference',), backends.available()\n"
        "assert backends.get('auto', 1e300) is backends.get('reference')\n"
        "assert fit() > 0.8"
    )
    run(NO_NUMBA + FIT + code, copy=without_extension)


def test_without_the_extension_the_command_line_works(without_extension):
    code = "from fastmlp.cli.app import app; app()"
    assert "C compiler" in run(code, "info", copy=without_extension, COLUMNS="300")


# ------------------------------------------------------------------------------- no Numba


@needs_cython
def test_without_numba_its_engine_says_what_to_install():
    code = (
        "assert backends.available() == ('cython', 'reference'), backends.available()\n"
        "assert fit() > 0.8 and fit('reference') > 0.8\n"
        "try:\n"
        "    fit('numba')\n"
        "except ImportError as error:\n"
        "    print(error)"
    )
    message = run(NO_NUMBA + FIT + code)
    assert "backend='numba' is not installed (No module named 'numba')" in message
    assert 'pip install "fastmlp[numba]"' in message


@needs_cython
@pytest.mark.parametrize("value", ["1", *exhaustive("2")])
def test_without_numbas_compiler_its_engine_says_so(value):
    code = (
        "assert 'numba' not in backends.available() and 'numba' not in sys.modules\n"
        "assert fit() > 0.8\n"
        "try:\n"
        "    fit('numba')\n"
        "except ImportError as error:\n"
        "    print(error)"
    )
    assert "backend='numba' cannot be used here: NUMBA_DISABLE_JIT is set" in run(FIT + code, NUMBA_DISABLE_JIT=value)


@pytest.mark.parametrize("value", ["0", *exhaustive("")])
def test_numbas_compiler_is_not_off_by_these(value):
    code = "from fastmlp.engines import backends; print(backends.why_not('numba'))"
    assert "NUMBA_DISABLE_JIT" not in run(code, NUMBA_DISABLE_JIT=value)
