"""Every activation, slope and loss where formulas have corners and ends: zeros of both signs, kinks, infinities, NaN.

Built-in ones, a user's, and built-in ones as a user would write them, in every engine on CPUs and on every instruction
set.  What is checked is in kinks.py, which test_cuda_kinks.py uses too.
"""

import numpy as np
import pytest

from fastmlp.data.targets import link_of
from fastmlp.kernels import reference

import kinks
from helpers import HIDDEN, name_of

# overflow and NaN are what these tests are about
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

WIDTHS = (1, 3, 8, 17, 33)

# every entry in each engine; a dtype or an instruction set is the same source, compiled once more
each_entry = pytest.mark.covers("engine_on_every_isa dtype", "entry engine")
# a user's formula takes Numba a second to compile
each_own_formula = pytest.mark.covers("engine_on_every_isa dtype")


@pytest.fixture(scope="module")
def engine(engine_on_every_isa):
    return engine_on_every_isa


@each_entry
@pytest.mark.parametrize("entry", kinks.ACTIVATIONS, ids=str)
def test_activations(engine, dtype, entry):
    kinks.check_activation(engine, entry, dtype)


@each_entry
@pytest.mark.parametrize("entry", [entry for entry in kinks.ACTIVATIONS if name_of(entry) in HIDDEN], ids=str)
def test_activations_of_all_widths(engine, dtype, entry):
    kinks.check_rectangles(engine, entry, dtype, WIDTHS)


def test_learned_slopes(engine, dtype):
    kinks.check_learned_slopes(engine, dtype, WIDTHS)


@each_entry
@pytest.mark.parametrize("entry", [entry for entry in kinks.LOSSES if link_of(entry) != "softmax"], ids=str)
def test_losses(engine, dtype, entry):
    kinks.check_loss(engine, entry, dtype)


@each_entry
@pytest.mark.parametrize("entry", [entry for entry in kinks.LOSSES if link_of(entry) == "softmax"], ids=str)
def test_losses_of_softmax(engine, dtype, entry):
    kinks.check_softmax_loss(engine, entry, dtype)


@each_own_formula
@pytest.mark.parametrize("entry", kinks.OWN_ACTIVATIONS, ids=lambda entry: entry.source[16:].strip())
def test_formulas_of_users(engine, dtype, entry):
    kinks.check_activation(engine, entry, dtype)
    kinks.check_rectangles(engine, entry, dtype, WIDTHS)


@each_own_formula
@pytest.mark.parametrize("entry", kinks.OWN_LOSSES, ids=lambda entry: f"{entry.source[19:].strip()} {entry.link}")
def test_losses_of_users(engine, dtype, entry):
    kinks.check_loss(engine, entry, dtype)


@each_own_formula
@pytest.mark.parametrize("entry", HIDDEN)
def test_built_in_activations_as_users_write_them(engine, dtype, entry):
    kinks.check_activation(engine, kinks.built_in_as_formula(entry), dtype, entry)


# --- the judge: limits that it must state itself ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "y", "z", "value"),
    [
        ("poisson", 0.5, np.inf, np.inf),  # exp(z) - y z
        ("poisson", 0.0, np.inf, np.inf),
        ("poisson", 0.0, -np.inf, 0.0),
        ("poisson", -0.0, -np.inf, 0.0),
        ("poisson", 0.5, -np.inf, np.inf),
        ("gamma", 0.5, np.inf, np.inf),  # y exp(-z) + z
        ("gamma", 0.5, -np.inf, np.inf),
        ("hinge", 1.0, np.inf, 0.0),
        ("hinge", 1.0, -np.inf, np.inf),
        ("binary_focal", 1.0, np.inf, 0.0),
        ("binary_focal", 1.0, -np.inf, np.inf),
        ("log_cosh", 0.0, np.inf, np.inf),
        ("huber", 0.0, -np.inf, np.inf),
    ],
)
def test_losses_have_their_limits(engine_on_every_isa, dtype, name, y, z, value):
    for one in (reference.loss, kinks.loss_of(engine_on_every_isa)):
        assert one(name, np.array([[z]], dtype), np.array([[y]], dtype))[0] == value


@pytest.mark.parametrize("k", range(3))
def test_kl_divergence_of_what_has_no_probability(engine_on_every_isa, dtype, k):
    logits, y = np.array([[-np.inf, 0, 0]], dtype), np.eye(3, dtype=dtype)[[k]]
    for one in (reference.loss, kinks.loss_of(engine_on_every_isa)):
        assert one("kl_divergence", logits, y)[0] == pytest.approx(np.inf if k == 0 else np.log(2))
