"""First weights of a network, by name or by a user's function.

The formulas are Keras': a weight matrix W (fan_in, fan_out) is drawn with variance scale / n, where n is fan_in or the
mean of fan_in and fan_out; uniform draws have the bounds +-sqrt(3 scale / n), and normal ones are not truncated. Biases
are zero. "auto" is scikit-learn's own (:meth:`Network.initial_params`), which draws the biases too, and so does
"pytorch", which is what ``torch.nn.Linear`` begins with.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from sklearn.utils import check_random_state

from fastmlp.model import spelling
from fastmlp.model.network import Network

# --- where draws come from --------------------------------------------------------------------------------------------


class _Unseeded(ISeedSequence):
    """What a generator begins with that is seeded right away."""

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        return [1] * n_words


def random_state_of(seed: Any) -> np.random.RandomState:
    """Return what scikit-learn's check_random_state returns.

    ``RandomState(seed)`` first fills its state with entropy of the system, which takes as long as ten epochs of a small
    fit, and then seeds it. This one is only seeded.
    """
    if not isinstance(seed, Integral):
        return check_random_state(seed)
    unseeded: Any = _Unseeded()  # NumPy's types know seed sequences of its own only
    random_state = np.random.RandomState(np.random.MT19937(unseeded))
    random_state.seed(int(seed))
    return random_state


# --- initializers -----------------------------------------------------------------------------------------------------

Initializer = Callable[[np.random.RandomState, int, int], Any]


def _scaled(scale: float, of_both: bool, normal: bool) -> Initializer:
    """Return draws of variance scale / n, where n is fan_in or the mean of both fans."""

    def draw(rng: np.random.RandomState, fan_in: int, fan_out: int) -> np.ndarray:
        variance = scale / ((fan_in + fan_out) / 2 if of_both else fan_in)
        if normal:
            return rng.normal(0.0, np.sqrt(variance), (fan_in, fan_out))
        bound = np.sqrt(3.0 * variance)
        return rng.uniform(-bound, bound, (fan_in, fan_out))

    return draw


def _orthogonal(rng: np.random.RandomState, fan_in: int, fan_out: int) -> np.ndarray:
    """Return orthonormal columns, or rows where there are more columns than rows (Saxe et al. 2013, arXiv:1312.6120).

    The signs of R's diagonal make the QR decomposition unique, and so Q uniform among such matrices (Mezzadri 2006).
    """
    Q, R = np.linalg.qr(rng.normal(size=(max(fan_in, fan_out), min(fan_in, fan_out))))
    Q *= np.where(np.diag(R) < 0, -1.0, 1.0)
    return Q if fan_in >= fan_out else Q.T


#: Name -> function of (rng, fan_in, fan_out) that returns W; "auto" is scikit-learn's and draws biases as well.
INITIALIZERS: dict[str, Initializer | None] = {
    "auto": None,
    "glorot_uniform": _scaled(1.0, of_both=True, normal=False),
    "glorot_normal": _scaled(1.0, of_both=True, normal=True),
    "he_uniform": _scaled(2.0, of_both=False, normal=False),
    "he_normal": _scaled(2.0, of_both=False, normal=True),
    "lecun_uniform": _scaled(1.0, of_both=False, normal=False),
    "lecun_normal": _scaled(1.0, of_both=False, normal=True),
    "pytorch": _scaled(1.0 / 3.0, of_both=False, normal=False),  # the bound is 1 / sqrt(fan_in)
    "orthogonal": _orthogonal,
}
#: Those that draw biases, too: name -> function of (rng, fan_in, fan_out) that returns b (fan_out,).
BIASES: dict[str, Initializer] = {
    "pytorch": lambda rng, fan_in, fan_out: rng.uniform(-(fan_in**-0.5), fan_in**-0.5, fan_out),
}


def initial_params(network: Network, init: str | Initializer, rng: np.random.RandomState, gain: float) -> np.ndarray:
    """Return the flat vector (n_params,) that training starts from.

    `init` is a key of ``INITIALIZERS``, or a function (rng, fan_in, fan_out) -> W of shape (fan_in, fan_out), which is
    called once per layer from the input on. `gain` is that of "auto", whose bound is sqrt(gain / (fan_in + fan_out)).
    A ValueError says that the name is unknown, or that the function returns another shape, or what is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.model.initialization import initial_params
    >>> from fastmlp.model.network import Network
    >>> network = Network((4, 3), (), "log_loss", np.dtype("float64"))
    >>> params = initial_params(network, "orthogonal", np.random.RandomState(0), gain=6.0)
    >>> W = network.coefs(params)[0]
    >>> np.allclose(W.T @ W, np.eye(3)), params[-3:]
    (True, array([0., 0., 0.]))
    """
    if not callable(init) and (not isinstance(init, str) or init not in INITIALIZERS):
        raise ValueError(
            f"init={init!r} is unknown; valid are {sorted(INITIALIZERS)} and a function (rng, fan_in, fan_out) -> W"
            f"{spelling.hint(init, INITIALIZERS)}"
        )
    draw = init if callable(init) else INITIALIZERS[init]
    if draw is None:
        return network.initial_params(rng, gain)
    params = np.zeros(network.n_params, dtype=network.dtype)
    network.reset_units(params)
    draw_biases = None if callable(init) else BIASES.get(init)
    for layer, (W, b) in enumerate(zip(network.coefs(params), network.intercepts(params), strict=True)):
        _copy(W, draw(rng, *W.shape), f"what init={init!r} returns for layer {layer}")
        if draw_biases is not None:
            b[...] = draw_biases(rng, *W.shape)
    return params


def _copy(view: np.ndarray, given: Any, name: str) -> None:
    """Copy numbers of the right shape into a view of the flat vector."""
    array = np.asarray(given)
    if array.shape != view.shape:
        raise ValueError(f"{name} must have shape {view.shape}, got {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers, got dtype {array.dtype}")
    view[...] = array
    if not np.isfinite(view).all():
        raise ValueError(f"{name} must be finite in {view.dtype}")
