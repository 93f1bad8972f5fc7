"""Networks with feature blocks, members and what else nets for tables need, drawn by Hypothesis; rows that fit them.

Read by test_inputs.py (the reference before its judges) and test_tabular_engines.py (engines before the reference).
``ENGINES`` names the engines that have all of these features: the one list that those tests go through.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from fastmlp.engines import backends
from fastmlp.kernels import reference
from fastmlp.kernels.contract import Data
from fastmlp.kernels.feature_table import Block
from fastmlp.model.network import Network

from helpers import HIDDEN, LOSSES, Steps, make_targets


def _trains_all_features(name):
    network = Network(
        (2, 3, 2), ("tanh",), "log_loss", np.dtype("float64"), (Block("plain", (0, 1)),), True, 2, True,
        parametric_activations=True,
    )  # fmt: skip
    try:
        backends.get(name).workspace(network, 4)
    except ValueError as error:
        assert str(error).startswith(f"backend={name!r} has no "), error
        return False
    return True


#: Engines that have every feature of a network; the others refuse what they lack.
ENGINES = [name for name in backends.available() if _trains_all_features(name)]


class Case(NamedTuple):
    """A network, and what each column of its X holds: "number", ("place", bins) or ("code", categories)."""

    network: Network
    columns: tuple

    def data(self, rng, n, *, weighted=False):
        """Return n random rows: places lie below, on and between the knots, and above the last one."""
        network = self.network
        X = np.empty((n, len(self.columns)), network.dtype)
        for j, column in enumerate(self.columns):
            what, count = column if isinstance(column, tuple) else (column, 0)
            if what == "number":
                X[:, j] = rng.normal(size=n)
            elif what == "code":
                X[:, j] = rng.integers(0, count, n)
            else:
                t = rng.uniform(-0.7, count + 0.7, n)
                X[:, j] = np.where(rng.uniform(size=n) < 0.2, np.round(t), t)
        y = make_targets(rng, network.loss, n, network.widths[-1], network.dtype)
        return Data(X, y, rng.uniform(0.1, 3, n).astype(network.dtype) if weighted else None)

    def params(self, rng, gain=0.7):
        """Return a flat vector that keeps the size of what flows through."""
        network, params = self.network, np.empty(self.network.n_params)
        for segment in network.segments:
            if segment.name == "W":
                values = rng.normal(0, gain / np.sqrt(segment.rows / segment.heads), segment.size)
            elif segment.of_units or segment.name in ("input_scale", "member_in", "member_out"):
                values = rng.uniform(0.3, 1.3, segment.size)  # a variance must be positive
            else:
                values = rng.normal(0, 0.4, segment.size)
            params[segment.where] = values
        return params.astype(network.dtype)


@dataclass
class Plans(Steps):
    """An optimizer with factors of its own for each segment, and with a schedule of dropout."""

    factors: np.ndarray | None = None  # (n_segments, n_scalars)
    decay_factors: np.ndarray | None = None  # (n_segments,)
    dropout_factors: np.ndarray | None = None  # (any length,), one for each step in turn
    learning_rates: np.ndarray | None = field(default=None)  # (any length,), likewise in place of the first scalar

    def scalars(self, n_steps):
        """float64 (n_steps, n_scalars) for steps t + 1 .. t + n_steps."""
        rows = super().scalars(n_steps)
        if self.learning_rates is not None:
            rows[:, 0] = self.learning_rates[self._coming(n_steps, self.learning_rates)]
        return rows

    def dropouts(self, n_steps):
        """float64 (n_steps,), or None."""
        if self.dropout_factors is None:
            return None
        return self.dropout_factors[self._coming(n_steps, self.dropout_factors)]

    def _coming(self, n_steps, values):
        return (self.t + np.arange(n_steps)) % len(values)


def make_plans(rng, rule, network, *, planned=True, max_grad_norm=None, weight_decay=None):
    """Return an optimizer halfway through a training, with factors if ``planned``."""
    names = reference.OPTIMIZERS[rule].scalars
    states = [rng.uniform(0, 0.1, network.n_params).astype(network.dtype) for _ in reference.OPTIMIZERS[rule].states]
    plans = Plans(rule, states, 3, weight_decay, max_grad_norm)
    if planned:
        high = [1.0 if name.startswith(("beta", "rho", "momentum")) else 2.0 for name in names]
        plans.factors = rng.uniform(0.5, high, (len(network.segments), len(names)))
        plans.factors[rng.integers(len(plans.factors))] *= rng.integers(2)  # frozen, or not
        plans.decay_factors = rng.uniform(0, 3, len(network.segments))
        plans.dropout_factors = rng.uniform(0, 1, 7)
        plans.dropout_factors[[1, 4]] = 1, 0
    return plans


# ------------------------------------------------------------------------------- what Hypothesis draws


@st.composite
def blocks(draw, max_blocks=4, max_features=4, max_size=9, kinds=("plain", "periodic", "piecewise", "embedding")):
    """Return (blocks, columns): blocks of any mix; plain and periodic ones may read columns that others read."""
    found, columns = [], []
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=max_blocks)):
        n = draw(st.integers(1, max_features))
        numbers = [j for j, column in enumerate(columns) if column == "number"]
        if kind in ("plain", "periodic") and numbers and draw(st.booleans()):
            own = draw(st.lists(st.sampled_from(numbers), min_size=1, max_size=n, unique=True))
        else:
            own = [*range(len(columns), len(columns) + n)]
            counts = tuple(draw(st.integers(1, 7)) for _ in own)
            columns += [("code", count) for count in counts] if kind == "embedding" else ["number"] * n
        size = 1 if kind == "plain" else draw(st.integers(1, max_size))
        if kind == "periodic":
            found.append(Block(kind, tuple(own), size, (), draw(st.integers(1, 17))))
        elif kind == "piecewise":
            places = range(len(columns), len(columns) + n)
            columns += [("place", count) for count in counts]
            found.append(Block(kind, (*own, *places), size, counts))
        else:
            found.append(Block(kind, tuple(own), size, counts if kind == "embedding" else ()))
    return tuple(found), tuple(columns)


@st.composite
def cases(draw, dtype, max_width=33, max_hidden=3, max_members=5, drops=True, activations=HIDDEN, losses=LOSSES):
    """Return a Case: networks with and without each feature, in any combination that Network allows.

    Without ``drops`` they have nothing that only training has.
    """
    sizes = st.integers(1, max_width)
    inputs, columns = draw(st.one_of(st.just(((), ())), blocks(), blocks()))
    width = sum(block.width for block in inputs) if inputs else draw(sizes)
    hidden = draw(st.lists(sizes, max_size=max_hidden))
    mixed = draw(st.booleans())
    names = [name for name in activations if not (mixed and name in ("prelu", "rrelu"))]
    members = draw(st.sampled_from([1, 1, *range(2, max_members + 1)]))
    options = {}
    if drops:
        rates = st.sampled_from([0.0, 0.15, 0.5])
        options["dropout"] = tuple(draw(rates) for _ in hidden)
        options["input_dropout"] = 0.0 if inputs else draw(rates)
        if members == 1:
            options["batch_norm"] = [draw(st.sampled_from(["", "", "before", "after"])) for _ in hidden]
    network = Network(
        (width, *hidden, draw(st.integers(1, 9))),
        tuple(draw(st.sampled_from(names)) for _ in hidden),
        draw(st.sampled_from(losses)),
        np.dtype(dtype),
        inputs,
        input_scale=members > 1 or draw(st.booleans()),
        members=members,
        batch_ensemble=members > 1 and draw(st.booleans()),
        parametric_activations=mixed,
        **options,
    )
    return Case(network, columns if inputs else ("number",) * width)


def large_case(dtype, members):
    """Return a case with all kinds of blocks and with some width."""
    inputs = (
        Block("periodic", (0, 1, 2), 3, (), 16),
        Block("plain", (0, 1, 2, 3)),
        Block("piecewise", (4, 5, 6, 7), 16, (48, 5)),
        Block("embedding", (8, 9), 8, (100, 3)),
    )
    columns = (*["number"] * 6, ("place", 48), ("place", 5), ("code", 100), ("code", 3))
    network = Network(
        (3 * 3 + 4 + 2 * 16 + 2 * 8, 70, 65, 3), ("mish", "selu"), ("log_loss", {"label_smoothing": 0.1}),
        np.dtype(dtype), inputs, True, members, members > 1, parametric_activations=True, dropout=(0.15, 0.1),
    )  # fmt: skip
    return Case(network, columns)
