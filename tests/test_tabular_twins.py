"""Nets for tables against PyTorch twins: RealMLP-TD-S, RealMLP-TD, TabM-mini, TabM; same weights, batches and masks.

A twin is written as PyTorch users write it, differentiated by autograd, and updated by ``torch.optim``.  RealMLP's
linear layers are x W / sqrt(fan_in) + b there (neural tangent parametrisation).  Ours are x W' + b with W' = g W and
g = fan_in^-1/2.  A step of Adam on W is one on W' with lr' = g lr and epsilon' = epsilon / g: ``factors`` of a segment.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest

from fastmlp.engines import backends
from fastmlp.kernels.contract import Data
from fastmlp.kernels.feature_table import Block
from fastmlp.model.network import Network

from helpers import dropout_mask
from tabular_networks import ENGINES

torch = pytest.importorskip("torch")
F = torch.nn.functional

STEPS, BATCH, SEED = 20, 16, 12345
N = STEPS * BATCH + 5  # the last rows of an epoch make no whole batch: they are dropped


# ------------------------------------------------------------------------------- schedules, recipes


def coslog4(t):
    """Four cycles of doubling length, 0 at both ends."""
    return 0.5 * (1 - math.cos(2 * math.pi * math.log2(1 + 15 * t)))


def flat_cos(t):
    """1 in the first half, then half a wave down to 0."""
    return 1 if t < 0.5 else 0.5 * (1 + math.cos(math.pi * (2 * t - 1)))


def constant(t):
    return 1.0


class Recipe(NamedTuple):
    """A net and how it is trained; names of arrays are those of our segments, factors of a missing name are 1."""

    network: Network
    forward: Callable  # ({(name, layer): tensor}, X (n, columns), masks) -> logits (n, members, outputs)
    columns: Callable  # (rng, n) -> X
    lr: float
    lr_schedule: Callable = constant
    betas: tuple = (0.9, 0.95)
    lr_factors: Mapping = MappingProxyType({})
    weight_decay: float = 0.0
    decay_factors: Mapping = MappingProxyType({})
    decay_schedule: Callable = constant
    dropout_schedule: Callable = constant
    max_norm: float | None = None
    ntk: bool = False  # whether the twin's linear layers divide by sqrt(fan_in)

    def gain(self, segment):
        """Return what the twin's array is multiplied by to be ours."""
        rows = segment.rows // segment.heads
        return rows**-0.5 if self.ntk and segment.name == "W" else 1.0


# ------------------------------------------------------------------------------- the twins


def linear_ntk(p, i, x):
    W = p["W", i]
    return x @ W / math.sqrt(len(W)) + p["b", i]


def td_s_twin(p, X, masks):
    """RealMLP-TD-S: a scale per column, then three layers of SELU."""
    x = X * p["input_scale", 0]
    for i in range(3):
        x = F.selu(linear_ntk(p, i, x))
    return linear_ntk(p, 3, x)[:, None]


def td_twin(activation):
    """RealMLP-TD: embeddings of numbers and categories in front, parametric activations, dropout."""

    def forward(p, X, masks):
        numbers, plain, codes = X[:, :3], X[:, :7], X[:, 7:].long()
        waves = torch.cos(2 * math.pi * numbers[:, :, None] * p["periodic_frequency", 0] + p["periodic_phase", 0])
        V = p["periodic_weight", 0].reshape(3, 4, 16)
        e = (waves[:, :, None, :] * V).sum(-1) + p["periodic_bias", 0]  # (n, 3 features, 4)
        tables = torch.split(p["embedding", 2], [12, 30])
        categories = [F.embedding(codes[:, j], table) for j, table in enumerate(tables)]
        x = torch.cat([e.flatten(1), plain, *categories], dim=1) * p["input_scale", 0]
        for i in range(3):
            z = linear_ntk(p, i, x)
            x = (z + (activation(z) - z) * p["mix", i]) * masks[i]
        return linear_ntk(p, 3, x)[:, None]

    return forward


def ple(p, x, t, counts):
    """Piecewise-linear embeddings, version B: a linear one plus what the components of each bin bring."""
    parts = []
    for j, (count, V) in enumerate(zip(counts, torch.split(p["piecewise_bins", 0], counts), strict=True)):
        components = torch.stack(
            [(t[:, j] - b).clamp(None if b == 0 else 0, None if b == count - 1 else 1) for b in range(count)], dim=1
        )
        parts.append(x[:, j, None] * p["piecewise_weight", 0][j] + p["piecewise_bias", 0][j] + components @ V)
    return torch.cat(parts, dim=1)


def tabm_mini_twin(p, X, masks):
    """TabM-mini with piecewise-linear embeddings: members differ in the first factors and in their heads."""
    x = torch.cat([ple(p, X[:, :2], X[:, 2:4], [5, 7]), X[:, 4:]], dim=1)
    x = x[:, None, :] * p["input_scale", 0]  # (n, members, columns)
    for i in range(2):
        x = F.relu(x @ p["W", i] + p["b", i]) * masks[i]
    return torch.einsum("nki,kio->nko", x, p["W", 2]) + p["b", 2]


def tabm_twin(p, X, masks):
    """TabM: every layer is a BatchEnsemble."""
    x = X[:, None, :].expand(-1, 4, -1)
    for i in range(3):
        r = p["input_scale", 0] if i == 0 else p["member_in", i]
        x = F.relu(((x * r) @ p["W", i]) * p["member_out", i] + p["b", i]) * masks[i]
    return torch.einsum("nki,kio->nko", x, p["W", 3]) + p["b", 3]


def numbers(n_columns):
    return lambda rng, n: rng.normal(size=(n, n_columns))


def td_columns(rng, n):
    """Three numbers, a category as four columns of 0 and 1, two categories as codes."""
    one_hot = np.eye(4)[rng.integers(0, 4, n)]
    codes = np.stack([rng.integers(0, 12, n), rng.integers(0, 30, n)], axis=1)
    return np.concatenate([rng.normal(size=(n, 3)), one_hot, codes], axis=1)


def ple_columns(rng, n):
    """Two numbers, their places among 5 and 7 bins, a category as three columns."""
    x = rng.normal(size=(n, 2))
    places = (x + 2) * [1.2, 1.9]  # some lie below the first knot, and above the last one
    return np.concatenate([x, places, np.eye(3)[rng.integers(0, 3, n)]], axis=1)


def network(widths, activation, loss, **options):
    return Network(widths, (activation,) * (len(widths) - 2), loss, np.dtype("float64"), **options)


SMOOTHED = ("log_loss", {"label_smoothing": 0.1})
TD_BLOCKS = (
    Block("periodic", (0, 1, 2), 4, (), 16),
    Block("plain", tuple(range(7))),
    Block("embedding", (7, 8), 8, (12, 30)),
)
PERIODIC = ("periodic_frequency", "periodic_phase", "periodic_weight", "periodic_bias")
TD = {
    "lr_schedule": coslog4,
    "lr_factors": {"input_scale": 6, "b": 0.1, "mix": 0.1, **dict.fromkeys(PERIODIC, 0.1)},
    "weight_decay": 0.02,
    "decay_factors": {"input_scale": 36, "b": 0, "mix": 0.01, **dict.fromkeys(PERIODIC, 0.01)},  # squares
    "decay_schedule": flat_cos,
    "dropout_schedule": flat_cos,
    "ntk": True,
}
ADAMW = {
    "lr": 2e-3,
    "betas": (0.9, 0.999),
    "weight_decay": 3e-4,
    "decay_factors": {"b": 0, "piecewise_bins": 0},
    "max_norm": 1.0,
}


def td(activation, loss, n_outputs, lr, dropout):
    widths = (12 + 7 + 16, 24, 20, 24, n_outputs)
    options = {"inputs": TD_BLOCKS, "input_scale": True, "parametric_activations": True, "dropout": dropout}
    twin = td_twin(getattr(F, activation))
    return Recipe(network(widths, activation, loss, **options), twin, td_columns, lr, **TD)


RECIPES = {
    "td-s": Recipe(
        network((6, 24, 24, 24, 3), "selu", SMOOTHED, input_scale=True), td_s_twin, numbers(6), 0.04, coslog4,
        lr_factors={"input_scale": 6, "b": 0.1}, ntk=True,
    ),
    "td classifier": td("selu", SMOOTHED, 3, 0.04, 0.0),
    "td classifier, dropout": td("selu", SMOOTHED, 3, 0.04, 0.15),
    "td regressor": td("mish", "squared_error", 1, 0.2, 0.15),
    "tabm-mini with bins": Recipe(
        network(
            (2 * 16 + 3, 24, 24, 3), "relu", "log_loss",
            inputs=(Block("piecewise", (0, 1, 2, 3), 16, (5, 7)), Block("plain", (4, 5, 6))),
            input_scale=True, members=6, dropout=0.1,
        ),
        tabm_mini_twin, ple_columns, **ADAMW,
    ),
    "tabm": Recipe(
        network(
            (5, 24, 20, 24, 2), "relu", "squared_error",
            input_scale=True, members=4, batch_ensemble=True, dropout=0.1,
        ),
        tabm_twin, numbers(5), **ADAMW,
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------- both trainings


def first_arrays(recipe, rng):
    """Return first values of the twin's arrays, {(name, layer): array}."""
    found = {}
    for segment in recipe.network.segments:
        if segment.name == "W":
            size = 1 if recipe.ntk else (segment.rows // segment.heads) ** -0.5
        else:
            size = 1 if segment.name == "embedding" else 0.4
        mean = 1 if segment.name in ("input_scale", "member_in", "member_out", "mix") else 0
        found[segment.name, segment.layer] = rng.normal(mean, size, segment.shape)
    return found


def ours_of(recipe, arrays):
    """Return our flat vector of the twin's arrays."""
    params = np.empty(recipe.network.n_params)
    for segment in recipe.network.segments:
        values = np.asarray(arrays[segment.name, segment.layer])
        params[segment.where] = (recipe.gain(segment) * values).ravel()
    return params


def targets(recipe, rng, n):
    n_outputs = recipe.network.widths[-1]
    classes = recipe.network.loss != "squared_error"
    return rng.integers(0, n_outputs, n) if classes else rng.normal(size=(n, n_outputs))


def twin_loss(recipe, logits, y):
    """The mean of the members' losses."""
    entry = recipe.network.loss
    losses = []
    for member in range(logits.shape[1]):
        z = logits[:, member]
        if entry == "squared_error":  # half the sum over the outputs: what our gradient is of
            losses.append(((z - y) ** 2 / 2).sum(1).mean())
        else:
            smoothing = entry[1]["label_smoothing"] if isinstance(entry, tuple) else 0.0
            losses.append(F.cross_entropy(z, y, label_smoothing=smoothing))
    return torch.stack(losses).mean()


def twin_masks(recipe, step, t):
    """Factors of each hidden layer's output, from the definition of the masks in integers."""
    net, found = recipe.network, []
    for i, width in enumerate(net.widths[1:-1]):
        rate = (net.dropout[i] if net.dropout else 0) * recipe.dropout_schedule(t)
        kept = dropout_mask(SEED, step, i + 1, rate, BATCH * net.members, width) / (1 - rate)
        shape = (BATCH, net.members, width) if net.members > 1 else (BATCH, width)
        found.append(torch.tensor(kept.reshape(shape)))
    return found


def train_twin(recipe, arrays, X, y, batches):
    """Return the twin's arrays after a step per batch."""
    p = {key: torch.tensor(values, requires_grad=True) for key, values in arrays.items()}
    groups = [{"params": [tensor], "name": key[0]} for key, tensor in p.items()]
    optimizer = torch.optim.Adam(groups, lr=recipe.lr, betas=recipe.betas, eps=1e-8)
    for step, rows in enumerate(batches):
        t = step / len(batches)
        optimizer.zero_grad()
        twin_loss(recipe, recipe.forward(p, X[rows], twin_masks(recipe, step, t)), y[rows]).backward()
        if recipe.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(p.values(), recipe.max_norm)
        lr = recipe.lr * recipe.lr_schedule(t)
        decay = recipe.weight_decay * recipe.decay_schedule(t) * lr
        for group in optimizer.param_groups:
            group["lr"] = lr * recipe.lr_factors.get(group["name"], 1)
            with torch.no_grad():  # decoupled: before the step
                group["params"][0].mul_(1 - decay * recipe.decay_factors.get(group["name"], 1))
        optimizer.step()
    return {key: tensor.detach() for key, tensor in p.items()}


@dataclass
class Adam:
    """Our optimizer of a recipe: PyTorch's form of Adam is the rule "adamw", with or without decay."""

    recipe: Recipe
    states: list
    rule: str = "adamw"
    t: int = 0
    factors: np.ndarray = field(init=False)
    decay_factors: np.ndarray = field(init=False)

    def __post_init__(self):
        self.max_grad_norm = self.recipe.max_norm
        rows, decays = [], []
        for segment in self.recipe.network.segments:
            gain = self.recipe.gain(segment)
            rows.append([gain * self.recipe.lr_factors.get(segment.name, 1), 1, 1, 1, 1 / gain])
            decays.append(self.recipe.decay_factors.get(segment.name, 1))
        self.factors, self.decay_factors = np.array(rows, dtype=float), np.array(decays, dtype=float)

    def _coming(self, n_steps, value):
        return np.array([value(self.t + i) for i in range(n_steps)], dtype=float)

    def _lr(self, step):
        return self.recipe.lr * self.recipe.lr_schedule(step / STEPS)

    def scalars(self, n_steps):
        b1, b2 = self.recipe.betas
        row = lambda s: [self._lr(s) / (1 - b1 ** (s + 1)), math.sqrt(1 - b2 ** (s + 1)), b1, b2, 1e-8]  # noqa: E731
        return self._coming(n_steps, row)

    def decays(self, n_steps):
        recipe = self.recipe
        return self._coming(n_steps, lambda s: recipe.weight_decay * recipe.decay_schedule(s / STEPS) * self._lr(s))

    def dropouts(self, n_steps):
        return self._coming(n_steps, lambda s: self.recipe.dropout_schedule(s / STEPS))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", RECIPES)
def test_training_is_the_twins(name, engine, one_torch_thread):
    """Parameters after 20 steps at 1e-9, predictions at 1e-10."""
    recipe, engine = RECIPES[name], backends.get(engine)
    rng = np.random.default_rng(3)
    net, X, y = recipe.network, recipe.columns(rng, N), targets(recipe, rng, N)
    arrays = first_arrays(recipe, rng)
    params, order = ours_of(recipe, arrays), rng.permutation(N)[: STEPS * BATCH]
    theirs = train_twin(recipe, arrays, torch.tensor(X), torch.tensor(y), order.reshape(STEPS, BATCH))
    optimizer = Adam(recipe, [np.zeros_like(params) for _ in range(2)])
    before = params.copy()
    engine.train_epoch(engine.workspace(net, BATCH), params, Data(X, y), order, BATCH, 0.0, optimizer, seed=SEED)
    expected = ours_of(recipe, theirs)
    assert optimizer.t == STEPS
    for segment in net.segments:
        got, wanted = params[segment.where], expected[segment.where]
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12, err_msg=segment.name)
        assert not np.array_equal(got, before[segment.where]), f"{segment.name} was not trained"
    out = np.empty((N, net.widths[-1]))
    engine.predict(engine.workspace(net, BATCH), params, X, out)
    masks = [torch.ones(1, dtype=torch.float64)] * (net.n_layers - 1)
    logits = recipe.forward(theirs, torch.tensor(X), masks)
    link = (lambda z: z) if net.loss == "squared_error" else (lambda z: torch.softmax(z, -1))
    np.testing.assert_allclose(out, link(logits).mean(1).numpy(), rtol=1e-10, atol=1e-12)
