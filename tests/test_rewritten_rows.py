"""A sparse X that another thread rewrites during a fit: an error or a wrong number, never a crash of the process."""

import subprocess
import sys

import pytest

from fastmlp.engines import backends

from tiers import exhaustive

RACE = """
import sys, threading, time, warnings
import numpy as np, scipy.sparse as sp
from fastmlp import MLPClassifier

warnings.simplefilter("ignore")
backend, dtype = sys.argv[1:]
clean = sp.random(400, 300, density=0.1, format="csr", random_state=0)
clean.indices, clean.indptr = clean.indices.astype(dtype), clean.indptr.astype(dtype)
y = np.arange(400) % 3
# a few epochs of one large batch: most of the time is spent behind the check of the arguments
est = MLPClassifier((32,), max_iter=3, batch_size=400, backend=backend, random_state=0).fit(clean, y)


def write(X, part):
    while not done:
        begun.wait(0.01)
        begun.clear()
        for value in (2**31 - 1, -(2**31), -1, 300, 10**6):
            if part == "replaced":
                for name in ("data", "indices", "indptr"):
                    setattr(X, name, getattr(clean, name).copy())
            else:
                array = getattr(X, part)
                array[len(array) // 2 :] = value
                time.sleep(0.0002)
                array[...] = getattr(clean, part)


for part in ("indices", "indptr", "replaced"):
    X, begun, done, trained = clean.copy(), threading.Event(), False, 0
    thread = threading.Thread(target=write, args=(X, part))
    thread.start()
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        begun.set()
        try:
            est.fit(X, y)
            est.predict(X)
            trained += 1
        except (ValueError, IndexError):
            pass
    done = True
    thread.join()
    print(part, trained)
"""


@pytest.mark.parametrize("dtype", ["int32", *exhaustive("int64")])
@pytest.mark.parametrize("backend", [name for name in ("cython", "numba") if name in backends.available()])
def test_indices_that_change_during_a_fit(backend, dtype):
    done = subprocess.run([sys.executable, "-c", RACE, backend, dtype], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "replaced" in done.stdout
