"""The worked examples of docs/architecture.md, executed: their lines are applied to a copy of the sources, the copy is
built, and the conformance tests and a fit run there with the new activation and the new loss of softmax."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# builds an extension: half a minute
pytestmark = pytest.mark.exhaustive

ROOT = Path(__file__).parents[1]
FIT = """
import numpy as np
from sklearn.datasets import load_iris
from sklearn.preprocessing import scale
import fastmlp, fastmlp.kernels._engine
assert fastmlp.__file__.startswith({out!r}), fastmlp.__file__
X, y = load_iris(return_X_y=True)
X, shares = scale(X), np.eye(3)[y]
examples = {{
    "gaussian": lambda **given: fastmlp.MLPClassifier((16,), "gaussian", **given).fit(X, y),
    "poly1": lambda **given: fastmlp.MLPRegressor("poly1", (16,), learning_rate_init=0.01, **given).fit(X, shares),
}}
for name, fit in examples.items():
    one, two = (fit(max_iter=300, random_state=0, backend=backend) for backend in ("cython", "reference"))
    np.testing.assert_allclose(one.coefs_[0], two.coefs_[0], rtol=1e-6)
    right = one.predict(X) if name == "gaussian" else one.predict(X).argmax(axis=1)
    assert np.mean(right == y) > 0.9, name
"""


def additions():
    """(file, old text, new text) of each diff block of the document."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    for file, block in re.findall(r"```diff (\S+)\n(.*?)```", text, flags=re.DOTALL):
        lines = block.splitlines()
        old = "".join(line[1:] + "\n" for line in lines if not line.startswith("+"))
        new = "".join(line[1:] + "\n" for line in lines)
        yield file, old, new


def run(command, folder, **environment):
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


#: Name in an example -> the tests that iterate over its table; a loss is also tried in the CUDA engine's simulator.
CONFORMANCE = {
    "gaussian": ("kernels", "kernel_networks", "gradients", "reference", "engine_options", "options"),
    "poly1": ("kernels", "gradients", "options"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the sources with the example's lines, built (the baseline instruction set suffices)."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("fastmlp", "kernels", "tests"):
        skip = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "engine.c", "generated")
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    changed = set()
    for file, old, new in additions():
        source = (folder / file).read_text()
        assert source.count(old) == 1, f"{file} no longer has, once:\n{old}"
        (folder / file).write_text(source.replace(old, new))
        changed.add(file)
    assert changed == {"kernels/formulas.py", "kernels/reference.py"}
    build = [sys.executable, "setup.py", "-q", "build", "--build-lib", "out"]
    run(build, folder, FASTMLP_BUILD_ISAS="baseline", FASTMLP_CFLAGS="-O1")  # compiled in a third of the time of -O3
    return folder


def test_it_trains(copy):
    # -P keeps the source folder, where the package lies unbuilt, off the path
    out = str(copy / "out")
    run([sys.executable, "-P", "-c", FIT.format(out=out)], copy, PYTHONPATH=out)


def passed(copy, name, files, **environment):
    """Run the tests of these files that have the name in theirs; return how many passed."""
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", name]
    printed = run([*command, *files], copy, PYTHONPATH=str(copy / "out"), **environment)
    return int(re.search(r"(\d+) passed", printed)[1])


@pytest.mark.parametrize("name", CONFORMANCE)
def test_it_is_covered_by_the_conformance_tests(copy, name):
    assert passed(copy, name, [f"tests/test_{file}.py" for file in CONFORMANCE[name]]) >= 4


def test_a_loss_is_covered_in_the_cuda_engine(copy):
    assert passed(copy, "poly1", ["tests/test_cuda.py"], NUMBA_ENABLE_CUDASIM="1") >= 2
