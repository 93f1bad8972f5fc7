"""The engines: their contract, their table, and the choice of one.

A backend is a module with the functions of :class:`fastmlp.kernels.contract.Engine`, where each is documented; a test
compares the signatures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from fastmlp.kernels.contract import CONTRACT as CONTRACT
from fastmlp.kernels.contract import Data as Data
from fastmlp.kernels.contract import Epochs as Epochs
from fastmlp.model import spelling

if TYPE_CHECKING:
    from fastmlp.model.network import Network


def _packed(n_states: int, above_first: float) -> float:
    """Return the vectors of an engine that pads parameters and states, and transposes weights above the first layer."""
    return (1 + n_states) + 1 + above_first  # 1: the gradient


def _no_matrix_units() -> tuple[str | None, tuple[str, ...], str | None]:
    return None, (), "this engine has no kernels for them"


def _matrix_units() -> tuple[str | None, tuple[str, ...], str | None]:
    from fastmlp.kernels import _engine

    return _engine.matrix_units()


def _in_panels(network: Network, n_rows: int) -> float:
    """Return the share of the parameters that the Cython engine keeps a second time, in panels."""
    from fastmlp.kernels import _engine

    rows, size = _engine.panels()
    if n_rows * network.members < rows:
        return 0.0
    least = size / network.dtype.itemsize
    return sum(s.size for s in network.segments if s.name == "W" and s.size > least) / network.n_params


# A layout of a weight's halves, in numbers of the weight's size: two halves of 16 bits, one, none.
HALVES = {"highest": 0.0, "high": 1.0, "medium": 0.5}


@dataclass(frozen=True)
class Row:
    """One engine.

    `holds` maps the number of an optimizer's states, and the share of the parameters that are weights above the first
    layer (all weights, if something in front of it learns), to the memory of a training: in vectors of the size of the
    parameters, besides these and the states.
    """

    module: str  # that implements it; importing it is cheap, and fails if the engine cannot work
    install: str  # what to do if it does not import
    pays_from: float = 0.0  # floating-point operations of a fit from which "auto" takes it; infinity: only by name
    holds: Callable[[int, float], float] = _packed
    packs: bool = True  # whether it works on copies of the parameters that it is given
    side_by_side: bool = True  # whether several threads may train, each with a workspace of its own
    at_once: int = 1  # trainings whose epochs go into one call of train_many, where the engine has it
    # The name of the matrix units in use, or None; for which values of matmul_precision; why there are none, or None.
    # The engine must import.
    matrix_units: Callable[[], tuple[str | None, tuple[str, ...], str | None]] = _no_matrix_units
    # The share of a network's parameters that is kept a second time in training with batches of so many rows.
    copies: Callable[[Network, int], float] = lambda network, n_rows: 0.0

    def vectors(self, n_states: int, above_first: float, network: Network, n_rows: int) -> float:
        """Return what `holds` says, and the second layout of the weights: halves for matrix units, or copies.

        Every weight has halves in the layout that its product reads; one above the first layer has them transposed too.
        """
        precision = network.matmul_precision
        halves = HALVES[precision] * (1 + above_first) if precision in self.matrix_units()[1] else 0.0
        return self.holds(n_states, above_first) + (halves or self.copies(network, n_rows))


# Loading compiled code takes half a second; compiling it takes 20 seconds, once per machine.  For more operations than
# these the reference takes longer than that.
COMPILING_PAYS = 1e10

# In the order in which "auto" looks for one.  It depends only on what is installed and on the size of the fit, so the
# same fit uses the same engine.  A GPU rounds differently and is shared with others: it is used only if it is named.
BACKENDS: dict[str, Row] = {
    "cython": Row(
        "fastmlp.kernels._engine",
        "reinstall fastmlp where a C compiler is present: pip install fastmlp",
        matrix_units=_matrix_units,
        copies=_in_panels,
    ),
    "numba": Row(
        "fastmlp.kernels.numba_cpu",
        'pip install "fastmlp[numba]"',
        COMPILING_PAYS,
        lambda n_states, above_first: _packed(max(n_states, 1), above_first),
    ),
    "cuda": Row(
        "fastmlp.kernels.numba_cuda.engine",
        'pip install "fastmlp[cuda]"',
        math.inf,
        side_by_side=False,  # a launch takes the whole device
        at_once=256,  # each net has a block, and needs a thread of Python's
    ),
    "reference": Row(
        "fastmlp.kernels.reference",
        "reinstall fastmlp: pip install fastmlp",
        # weights and gradient layer by layer, and what NumPy's expressions hold for a moment
        holds=lambda n_states, above_first: 4.5 + max(n_states - 1, 0),
        packs=False,
        side_by_side=False,  # NumPy's BLAS has threads of its own
    ),
}


def get(name: str, work: float = 0.0) -> ModuleType:
    """Return the engine of this name; "auto" means the first of ``BACKENDS`` that imports and pays for this work.

    Parameters
    ----------
    name : str
        A key of ``BACKENDS``, or "auto".
    work : float, default=0.0
        Floating-point operations of the fit to come; see :func:`work_of_fit`.

    Raises
    ------
    ValueError
        If there is no engine of this name; the message lists those available.
    ImportError
        If the engine exists but cannot be used here; the message says why, and what to install.

    Examples
    --------
    >>> from fastmlp.engines import backends
    >>> backends.get("reference").__name__
    'fastmlp.kernels.reference'
    """
    if name == "auto":
        usable = (candidate for candidate, row in BACKENDS.items() if row.pays_from <= work)
        name = next(candidate for candidate in usable if why_not(candidate) is None)
    if name not in BACKENDS:
        here = ["auto", *available()]
        raise ValueError(f"backend={name!r} is unknown; available: {here}{spelling.hint(name, ['auto', *BACKENDS])}")
    row = BACKENDS[name]
    try:
        return import_module(row.module)
    except ImportError as error:
        if error.name is None:  # installed, and finds that it cannot work
            raise ImportError(f"backend={name!r} cannot be used here: {error}") from error
        raise ImportError(f"backend={name!r} is not installed ({error}); {row.install}", name=error.name) from error


def row_of(engine: ModuleType) -> Row:
    """Return the row of an engine that :func:`get` returned."""
    return next(row for row in BACKENDS.values() if row.module == engine.__name__)


def work_of_fit(network: Network, n_rows: int, n_epochs: int) -> float:
    """Return the floating-point operations of a fit: two per weight, row and epoch in each of three products."""
    return 6.0 * network.n_weights * n_rows * n_epochs


def available() -> tuple[str, ...]:
    """Return the names of the engines that import on this machine, preferred first."""
    return tuple(name for name in BACKENDS if why_not(name) is None)


def why_not(name: str) -> str | None:
    """Return why an engine cannot be used here, or None if it can."""
    try:
        get(name)
    except ImportError as error:
        return str(error)
    return None
