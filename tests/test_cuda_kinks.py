"""Every activation, slope and loss of the CUDA engine where formulas have corners and ends, judged by the reference.

It runs on a GPU if there is one, or in Numba's simulator (NUMBA_ENABLE_CUDASIM=1).  What is checked is in kinks.py.
"""

from contextlib import nullcontext

import numpy as np
import pytest

from fastmlp.data.targets import link_of
from fastmlp.engines import backends
from fastmlp.kernels.numba_cuda import driver

import kinks
from helpers import steady_simulator
from tiers import covering, each_value_once, label

# overflow and NaN are what these tests are about
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@pytest.fixture(scope="module")
def engine():
    if "cuda" not in backends.available():
        pytest.skip(backends.why_not("cuda"))
    with steady_simulator() if driver.simulated() else nullcontext():
        yield backends.get("cuda")


@by_dtype
@pytest.mark.parametrize("entry", [*kinks.ACTIVATIONS, *kinks.OWN_ACTIVATIONS], ids=label)
def test_activations(engine, entry, dtype):
    kinks.check_activation(engine, entry, dtype)


@by_dtype
def test_learned_slopes(engine, dtype):
    kinks.check_learned_slopes(engine, dtype, (1, 5, 9))


# plain pytest takes one loss of each link: in the simulator each test lasts seconds
@each_value_once
@by_dtype
@pytest.mark.parametrize(
    "entry", covering([*kinks.LOSSES, *kinks.OWN_LOSSES], lambda loss: {"link": link_of(loss)}), ids=label
)
def test_losses(engine, entry, dtype):
    if link_of(entry) == "softmax":
        kinks.check_softmax_loss(engine, entry, dtype)
    else:
        kinks.check_loss_in_parts(engine, entry, dtype)
