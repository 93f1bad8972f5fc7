"""Every engine against PyTorch: copied weights, equal batches, 50 steps, the same weights afterwards.

The quick tests take 15 steps.  A case is a row of the tables below.  PyTorch's side is built from its own functions,
its autograd and its optimizers wherever it has them, in float64; where it has none (log-cosh, pinball, gamma, focal,
Lion, the straight-through step) the formula of the paper is written in tensors and autograd does the rest.  Nothing of
PyTorch's side knows how our gradients are computed.

Needs PyTorch, which comes with an extra of its own: pip install "fastmlp[judges]".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse as sp

from fastmlp.engines import backends
from fastmlp.kernels import formulas
from fastmlp.kernels.contract import Data

from helpers import (
    HIDDEN,
    LOSSES,
    RULES,
    dropout_mask,
    make_data,
    make_network,
    make_params,
    name_of,
    parameters_of,
)

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastmlp[rivals]"')
F = torch.nn.functional

# PyTorch judges the formulas; that the engines agree with one another is tested elsewhere
pytestmark = [pytest.mark.covers("engine"), pytest.mark.usefixtures("one_torch_thread")]

RTOL = 1e-7
STEPS = 50  # of all tests
FEW_STEPS = 15  # of the quick ones
SEED = 0xFEDCBA9876543210  # of the dropout masks

# ------------------------------------------------------------------------------- PyTorch's formulas


def step(z):
    """The perceptron's step, with the gradient of hardtanh."""
    through = F.hardtanh(z)
    return through + ((z >= 0).to(z.dtype) - through).detach()


ACTIVATIONS: dict[str, Callable] = {
    "identity": lambda z: z,
    "logistic": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "prelu": None,  # its slope is a tensor of the network
    "relu6": F.relu6,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": lambda z, beta: F.softplus(z, beta, threshold=100),  # PyTorch cuts it off at 20
    "softsign": F.softsign,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "step": step,
}


def focal(z, y, gamma):
    log_p = -F.cross_entropy(z, y, reduction="none")
    return -((1 - log_p.exp()) ** gamma) * log_p


def binary_focal(z, y, gamma):  # as torchvision.ops.sigmoid_focal_loss without its alpha
    p = torch.sigmoid(z)
    p_t = p * y + (1 - p) * (1 - y)
    return ((1 - p_t) ** gamma * F.binary_cross_entropy_with_logits(z, y, reduction="none")).sum(1)


def hinge(z, y):
    return torch.clamp(1 - (2 * y - 1) * z, min=0)


def quantile_loss(z, y, quantile):
    return torch.maximum(quantile * (y - z), (quantile - 1) * (y - z)).sum(1)


def elementwise(loss):
    """One of PyTorch's losses of (input, target, reduction=...) as a sum over the outputs."""
    return lambda z, y, **parameters: loss(z, y, reduction="none", **parameters).sum(1)


#: logits (n, k), targets and parameters -> loss of each row (n,)
LOSS: dict[str, Callable] = {
    "log_loss": lambda z, y, **parameters: F.cross_entropy(z, y, reduction="none", **parameters),
    "focal": focal,
    "binary_log_loss": elementwise(F.binary_cross_entropy_with_logits),
    "binary_focal": binary_focal,
    "kl_divergence": lambda z, y: F.kl_div(F.log_softmax(z, 1), y, reduction="none").sum(1),
    "hinge": lambda z, y: hinge(z, y).sum(1),
    "perceptron": lambda z, y: torch.clamp((1 - 2 * y) * z, min=0).sum(1),
    "squared_hinge": lambda z, y: (hinge(z, y) ** 2).sum(1),
    "squared_error": lambda z, y: elementwise(F.mse_loss)(z, y) / 2,
    "absolute_error": elementwise(F.l1_loss),
    "huber": elementwise(F.huber_loss),
    "log_cosh": lambda z, y: torch.log(torch.cosh(z - y)).sum(1),
    "quantile": quantile_loss,
    "poisson": lambda z, y: (F.poisson_nll_loss(z, y, reduction="none") + torch.xlogy(y, y) - y).sum(1),
    "gamma": lambda z, y: (y * torch.exp(-z) + z - torch.log(y) - 1).sum(1),
}

# ------------------------------------------------------------------------------- optimizers

LR, MOMENTUM, BETA_1, BETA_2, EPSILON, RHO, MOMENTUM_DECAY = 0.01, 0.9, 0.8, 0.95, 1e-6, 0.97, 4e-3
BETAS = {"lr": LR, "betas": (BETA_1, BETA_2), "eps": EPSILON}
PLAIN = {"beta_1": BETA_1, "beta_2": BETA_2, "epsilon": EPSILON}


class SklearnAdam(torch.optim.Adam):
    """scikit-learn adds epsilon to sqrt(v), PyTorch to the corrected root: its epsilon in PyTorch's terms."""

    def step(self):
        group = self.param_groups[0]
        taken = self.state[group["params"][0]].get("step", 0)
        group["eps"] = EPSILON / np.sqrt(1 - BETA_2 ** (int(taken) + 1))
        super().step()


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, algorithm 2: the sign of an interpolation, then the moving average."""

    def __init__(self, params):
        super().__init__(params, {})

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            m = self.state[p].setdefault("m", torch.zeros_like(p))
            p -= LR * torch.sign(BETA_1 * m + (1 - BETA_1) * p.grad)
            m.mul_(BETA_2).add_(p.grad, alpha=1 - BETA_2)


def corrected(t):
    """Adam's step size and the root of its second bias correction, at step t = 1, 2, ..."""
    return {"step_size": LR / (1 - BETA_1**t), "root_2": np.sqrt(1 - BETA_2**t)}


def nesterov_corrected(t):
    """NAdam's schedule of the momentum."""
    mu = [BETA_1 * (1 - 0.5 * 0.96 ** (k * MOMENTUM_DECAY)) for k in range(1, t + 2)]
    product = np.prod(mu[:-1])
    return {
        "step_g": LR * (1 - mu[-2]) / (1 - product),
        "step_m": LR * mu[-1] / (1 - product * mu[-1]),
        "root_2": np.sqrt(1 - BETA_2**t),
    }


def sklearn_corrected(t):
    return {"lr": LR * np.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)}


#: rule -> (PyTorch's optimizer of these tensors, our scalars by name, those that change with the step)
SOLVERS: dict[str, tuple[Callable, dict[str, float], Callable]] = {
    "sgd": (lambda p: torch.optim.SGD(p, LR), {"lr": LR}, lambda t: {}),
    "momentum": (lambda p: torch.optim.SGD(p, LR, MOMENTUM), {"lr": LR, "momentum": MOMENTUM}, lambda t: {}),
    "nesterov": (
        lambda p: torch.optim.SGD(p, LR, MOMENTUM, nesterov=True),
        {"lr": LR, "momentum": MOMENTUM},
        lambda t: {},
    ),
    "adam": (lambda p: SklearnAdam(p, **BETAS), PLAIN, sklearn_corrected),
    "adamw": (lambda p: torch.optim.AdamW(p, **BETAS, weight_decay=0), PLAIN, corrected),
    "amsgrad": (lambda p: torch.optim.Adam(p, **BETAS, amsgrad=True), PLAIN, corrected),
    "nadam": (lambda p: torch.optim.NAdam(p, **BETAS, momentum_decay=MOMENTUM_DECAY), PLAIN, nesterov_corrected),
    "rmsprop": (
        lambda p: torch.optim.RMSprop(p, LR, RHO, EPSILON),
        {"lr": LR, "rho": RHO, "epsilon": EPSILON},
        lambda t: {},
    ),
    "adagrad": (lambda p: torch.optim.Adagrad(p, LR, eps=EPSILON), {"lr": LR, "epsilon": EPSILON}, lambda t: {}),
    "adadelta": (
        lambda p: torch.optim.Adadelta(p, 50 * LR, RHO, EPSILON),
        {"lr": 50 * LR, "rho": RHO, "epsilon": EPSILON},
        lambda t: {},
    ),
    "lion": (Lion, {"lr": LR, "beta_1": BETA_1, "beta_2": BETA_2}, lambda t: {}),
}


class Solver:
    """What an engine needs of an optimizer, with the scalars of ``SOLVERS``."""

    def __init__(self, case, n_params):
        row = formulas.OPTIMIZERS[case.solver]
        self.rule, self.t = case.solver, 0
        self.states = [np.zeros(n_params) for _ in row.states]
        self.names, self.case = row.scalars, case
        self.max_grad_norm = case.max_grad_norm

    def scalars(self, n_steps):
        _, fixed, of_step = SOLVERS[self.rule]
        rows = [{**fixed, **of_step(self.t + 1 + i)} for i in range(n_steps)]
        return np.array([[row[name] for name in self.names] for row in rows])

    def decays(self, n_steps):
        return np.full(n_steps, LR * self.case.weight_decay) if self.case.weight_decay else None


# ------------------------------------------------------------------------------- a network and its training


@dataclass(frozen=True)
class Case:
    """One comparison; the defaults are a plain network with nothing special about it."""

    name: str
    activation: Any = "tanh"  # one entry, or one per hidden layer
    loss: Any = "squared_error"
    solver: str = "sgd"
    alpha: float = 0.0
    l1: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float | None = None
    batch_norm: Any = False
    dropout: tuple = ()
    input_dropout: float = 0.0
    weighted: bool = False
    kind: str = "C"  # of X, see helpers.LAYOUTS
    widths: tuple = (5, 7, 6, 3)

    def network(self):
        regularizers = {"batch_norm": self.batch_norm, "dropout": self.dropout, "input_dropout": self.input_dropout}
        return make_network(self.widths, self.loss, self.activation, **regularizers)


class TorchNetwork:
    """The network in tensors, from our flat vector and back."""

    def __init__(self, case, network, params):
        tensor = lambda a: torch.tensor(a.copy(), requires_grad=True)  # noqa: E731
        self.case, self.network = case, network
        self.W = [tensor(W) for W in network.coefs(params)]
        self.b = [tensor(b) for b in network.intercepts(params)]
        self.units = [{k: tensor(v) for k, v in units.items()} for units in network.unit_parameters(params)]
        self.running = [
            {k: torch.tensor(v.copy()) for k, v in statistics.items()}
            for statistics in network.running_statistics(params)
        ]
        self.trained = [*self.W, *self.b, *(v for units in self.units for v in units.values())]

    def flat(self):
        """-> our flat vector (n_params,)."""
        network, params = self.network, np.empty(self.network.n_params)
        for view, tensor in zip(network.coefs(params) + network.intercepts(params), self.W + self.b, strict=True):
            view[...] = tensor.detach()
        ours = network.unit_parameters(params) + network.running_statistics(params)
        for views, tensors in zip(ours, self.units + self.running, strict=True):
            for name, view in views.items():
                view[...] = tensors[name].detach()
        return params

    def dropped(self, a, layer, t):
        rate = [self.network.input_dropout, *(self.network.dropout or [0] * len(self.units))][layer]
        if rate == 0:
            return a
        return a * torch.tensor(dropout_mask(SEED, t, layer, rate, *a.shape)) / (1 - rate)

    def logits(self, X, t):
        """Forward through the network, in training mode, as step t + 1 does."""
        a = self.dropped(X, 0, t)
        for i, (W, b) in enumerate(zip(self.W, self.b, strict=True)):
            z = F.linear(a, W.T, b)
            if i == len(self.units):
                return z
            placement = self.network.batch_norm[i] if self.network.batch_norm else ""
            z = self.normalised(z, i) if placement == "before" else z
            a = self.activate(z, i)
            a = self.normalised(a, i) if placement == "after" else a
            a = self.dropped(a, i + 1, t)

    def normalised(self, x, i):
        running, units = self.running[i], self.units[i]
        return F.batch_norm(x, running["mean"], running["var"], units["scale"], units["shift"], training=True)

    def activate(self, z, i):
        entry = self.network.activations[i]
        if name_of(entry) == "prelu":
            return F.prelu(z, self.units[i]["slope"])
        return ACTIVATIONS[name_of(entry)](z, **parameters_of(formulas.ACTIVATIONS, entry))

    def loss(self, X, y, w, t):
        """-> (what is minimised, what is reported): the penalised mean loss of a batch."""
        row = formulas.LOSSES[name_of(self.case.loss)]
        of_rows = LOSS[name_of(self.case.loss)]
        rows = of_rows(self.logits(X, t), y, **parameters_of(formulas.LOSSES, self.case.loss))
        penalty = sum(self.case.alpha / 2 * (W**2).sum() + self.case.l1 * W.abs().sum() for W in self.W)
        reported = rows / (self.network.widths[-1] if row.mean_over_outputs else 1)  # as scikit-learn does
        return ((rows * w).sum() + penalty) / w.sum(), ((reported * w).sum() + penalty).item() / w.sum().item()


def train_torch(case, network, params, data, orders, batch_size):
    """-> (flat vector, losses of the epochs) of PyTorch's training."""
    model = TorchNetwork(case, network, params)
    optimizer = SOLVERS[case.solver][0](model.trained)
    X = torch.tensor(data.X.toarray() if sp.issparse(data.X) else np.array(data.X))
    y = torch.tensor(data.y)
    w = torch.ones(len(y), dtype=torch.float64) if data.sample_weight is None else torch.tensor(data.sample_weight)
    losses, t = [], 0
    for order in orders:
        total = 0.0
        for rows in torch.tensor(order).split(batch_size):
            optimizer.zero_grad()
            loss, reported = model.loss(X[rows], y[rows], w[rows], t)
            loss.backward()
            if case.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.trained, case.max_grad_norm)
            with torch.no_grad():
                for p in model.trained:  # as AdamW does
                    p *= 1 - LR * case.weight_decay
            optimizer.step()
            total, t = total + reported * len(rows), t + 1
        losses.append(total / len(order))
    return model.flat(), losses


@pytest.fixture(scope="module", params=backends.available())
def engine(request):
    """Each engine, the reference among them."""
    return backends.get(request.param)


@pytest.fixture(scope="module")
def steps(tier):
    """How many steps are compared."""
    return FEW_STEPS if tier == "quick" else STEPS


class Comparison:
    """A case with its data, and what PyTorch makes of it: computed once for all engines."""

    made: ClassVar[dict[str, "Comparison"]] = {}

    def __init__(self, case, n, batch_size, n_epochs):
        rng = np.random.default_rng(0)
        self.network, self.batch_size = case.network(), batch_size
        self.params = make_params(rng, self.network)
        self.data = make_data(rng, self.network, n, kind=case.kind)
        if case.weighted:
            self.data = self.data._replace(sample_weight=rng.uniform(0.1, 3, n))
        self.orders = [rng.permutation(n) for _ in range(n_epochs)]
        self.expected = train_torch(case, self.network, self.params, self.data, self.orders, batch_size)


def check(engine, case, steps, n=56, batch_size=12):
    """As many steps of both; by default the last batch of an epoch is shorter than the others."""
    key = repr((case, n))
    if key not in Comparison.made:
        Comparison.made[key] = Comparison(case, n, batch_size, steps // -(-n // batch_size))
    this = Comparison.made[key]
    expected, expected_losses = this.expected
    got, solver = this.params.copy(), Solver(case, len(this.params))
    workspace = engine.workspace(this.network, batch_size)
    losses = [
        engine.train_epoch(workspace, got, this.data, order, batch_size, case.alpha, solver, case.l1, SEED)
        for order in this.orders
    ]
    assert solver.t == steps
    moved = np.abs(expected - this.params)[: this.network.n_linear].max()
    assert moved > 1e-3, "nothing was learned: the case shows nothing"
    np.testing.assert_allclose(got, expected, rtol=RTOL, atol=1e-12)
    np.testing.assert_allclose(losses, expected_losses, rtol=RTOL, atol=1e-12)


# ------------------------------------------------------------------------------- the cases


def name(case):
    return case.name


def twin(table, key):
    """The key, skipped where the table lacks it: a row that is new in formulas.py."""
    return pytest.param(key, marks=() if key in table else pytest.mark.skip(f"no twin in PyTorch stated for {key!r}"))


#: PyTorch draws other slopes; test_random_slopes.py compares their distribution.
DRAWING = [key for key in HIDDEN if formulas.ACTIVATIONS[key].drawn]


@pytest.mark.parametrize("activation", [twin(ACTIVATIONS, key) for key in HIDDEN if key not in DRAWING])
def test_activation(engine, steps, activation):
    check(engine, Case(activation, activation), steps)


@pytest.mark.parametrize("loss", [twin(LOSS, key) for key in LOSSES])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss(engine, steps, loss, weighted):
    check(engine, Case(loss, loss=loss, weighted=weighted), steps)


@pytest.mark.parametrize("solver", [twin(SOLVERS, key) for key in RULES])
@pytest.mark.parametrize("activation", ["tanh", "prelu"])
def test_solver(engine, steps, solver, activation):
    """With prelu the vector goes on behind the biases."""
    check(engine, Case(solver, activation, "log_loss", solver), steps)


WITH_PARAMETERS = [
    Case("leaky_relu", ("leaky_relu", {"negative_slope": 0.2})),
    Case("prelu", ("prelu", {"slope": 0.1})),
    Case("elu", ("elu", {"alpha": 0.7})),
    Case("celu", ("celu", {"alpha": 1.5})),  # PyTorch rounds this one to float32
    Case("softplus", ("softplus", {"beta": 2.5})),
    Case("hardtanh", ("hardtanh", {"min_val": -0.3, "max_val": 1.2})),
    Case("hardtanh, one of two", ("hardtanh", {"max_val": 0.5})),
    Case("one entry per layer", (("elu", {"alpha": 0.7}), "relu")),
    Case("prelu in one layer", ("prelu", "gelu")),
    Case("prelu in the other", ("gelu", "prelu")),
    Case("label smoothing", loss=("log_loss", {"label_smoothing": 0.1})),
    Case("label smoothing, weighted", loss=("log_loss", {"label_smoothing": 0.3}), weighted=True),
    Case("focal", loss=("focal", {"gamma": 0.7})),
    Case("focal that is log_loss", loss=("focal", {"gamma": 0.0})),
    Case("binary_focal", loss=("binary_focal", {"gamma": 3.5})),
    Case("huber", loss=("huber", {"delta": 0.4})),
    Case("quantile", loss=("quantile", {"quantile": 0.9})),
]


@pytest.mark.parametrize("case", WITH_PARAMETERS, ids=name)
def test_parameters(engine, steps, case):
    check(engine, case, steps)


PRELU_NORM = {"activation": "prelu", "batch_norm": True}
REGULARIZERS = [
    Case("L2", alpha=0.5),
    Case("L1", l1=0.3),
    Case("elastic net", alpha=0.3, l1=0.2, weighted=True),
    Case("elastic net, adam", solver="adam", alpha=0.3, l1=0.2),
    Case("weight decay", weight_decay=0.3),
    Case("weight decay, adamw", "prelu", solver="adamw", weight_decay=0.3),
    Case("weight decay, lion", solver="lion", weight_decay=0.3),
    Case("weight decay, batch norm", "prelu", "log_loss", "adamw", weight_decay=0.3, batch_norm=True),
    Case("clipped", max_grad_norm=0.05),
    Case("clipped, but wide enough", max_grad_norm=1e3),
    Case("clipped with penalty", solver="momentum", max_grad_norm=0.2, alpha=0.5, l1=0.1),
    Case("clipped, prelu and batch norm", **PRELU_NORM, loss="log_loss", solver="adamw", max_grad_norm=0.1),
    Case("batch norm", batch_norm=True),
    Case("batch norm, relu", "relu", "log_loss", "adamw", batch_norm=True),
    Case("batch norm, prelu", **PRELU_NORM, loss="log_loss"),
    Case("batch norm, weighted", "gelu", batch_norm=True, weighted=True),
    Case("batch norm, sparse", "silu", batch_norm=True, kind="csr int32"),
    Case("batch norm after", "relu", "log_loss", "adamw", batch_norm="after"),
    Case("batch norm after, sgd", "tanh", batch_norm="after", weighted=True),
    Case("batch norm after, prelu", "prelu", "log_loss", batch_norm="after"),
    Case("batch norm after, sparse", "silu", batch_norm="after", kind="csr int32"),
    Case("batch norm after, then before", ("relu", "gelu"), solver="adam", batch_norm=["after", True]),
    Case("batch norm before, then after", ("gelu", "logistic"), solver="adam", batch_norm=("before", "after")),
    Case("batch norm after the second", "prelu", "log_loss", batch_norm=[False, "after"], max_grad_norm=0.1),
    Case("dropout behind batch norm after", "mish", batch_norm="after", dropout=(0.3, 0.5), input_dropout=0.1),
    Case("dropout", dropout=(0.3, 0.5)),
    Case("dropout in one layer", "relu", dropout=(0.0, 0.6)),
    Case("dropout, prelu", "prelu", "log_loss", "adamw", dropout=(0.2, 0.2)),
    Case("input dropout", input_dropout=0.2),
    Case("input dropout, sparse", input_dropout=0.2, kind="csr int32"),
    Case("input dropout, no hidden layer", loss="log_loss", input_dropout=0.4, widths=(5, 3)),
    Case("dropout behind batch norm", "mish", batch_norm=True, dropout=(0.3, 0.5), input_dropout=0.1),
    Case(
        "all of it",
        **PRELU_NORM,
        loss=("log_loss", {"label_smoothing": 0.1}),
        solver="adamw",
        alpha=0.1,
        l1=0.1,
        weight_decay=0.1,
        max_grad_norm=0.5,
        dropout=(0.1, 0.2),
        input_dropout=0.1,
        weighted=True,
    ),
]


@pytest.mark.parametrize("case", REGULARIZERS, ids=name)
def test_regularizer(engine, steps, case):
    check(engine, case, steps)


WIDE = {"widths": (37, 130, 67, 10)}


def test_wide_layers_and_one_batch_for_all(engine, steps):
    """Widths beyond a vector register, all rows in each step."""
    case = Case("wide", ("gelu", "elu"), "log_loss", "adamw", alpha=0.1, batch_norm=True, dropout=(0.2, 0.2), **WIDE)
    check(engine, case, steps, n=70, batch_size=70)


SEQUENCES = {"after": ["after"], "after, then before": ["after", "before"], "in the second only": [False, "after"]}


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_batch_norm_is_a_module_of_pytorch(engine, name, solver):
    """A step, and the predictions after it, are those of ``torch.nn.Sequential`` with ``BatchNorm1d`` in that place."""
    where = SEQUENCES[name]
    network = make_network((*(5, 7, 6)[: len(where) + 1], 3), "log_loss", "relu", batch_norm=where)
    rng = np.random.default_rng(2)
    params, X, y = make_params(rng, network), rng.normal(size=(20, 5)), rng.integers(0, 3, 20)
    modules = []
    for i, (fan_in, fan_out) in enumerate(network.shapes):
        modules.append(torch.nn.Linear(fan_in, fan_out))
        if i < len(where):
            norm = [torch.nn.BatchNorm1d(fan_out)] if where[i] else []
            relu = [torch.nn.ReLU()]
            modules += norm + relu if where[i] == "before" else relu + norm
    model = torch.nn.Sequential(*modules).double()

    def tensors():
        """PyTorch's tensors and our views of the flat vector that hold the same."""
        linear = [m for m in modules if isinstance(m, torch.nn.Linear)]
        norms = iter([m for m in modules if isinstance(m, torch.nn.BatchNorm1d)])
        yield from zip([m.weight.T for m in linear], network.coefs(params), strict=True)
        yield from zip([m.bias for m in linear], network.intercepts(params), strict=True)
        for units, running in zip(network.unit_parameters(params), network.running_statistics(params), strict=True):
            if units:
                m = next(norms)
                yield from ((m.weight, units["scale"]), (m.bias, units["shift"]))
                yield from ((m.running_mean, running["mean"]), (m.running_var, running["var"]))

    with torch.no_grad():
        for theirs, ours in tensors():
            theirs.copy_(torch.tensor(ours))
    optimizer = SOLVERS[solver][0](model.parameters())
    F.cross_entropy(model(torch.tensor(X)), torch.tensor(y)).backward()
    optimizer.step()
    case = Case(name, "relu", "log_loss", solver, batch_norm=where)
    workspace, order = engine.workspace(network, 20), np.arange(20)
    engine.train_epoch(workspace, params, Data(X, y.astype(np.intp)), order, 20, 0.0, Solver(case, len(params)))
    for theirs, ours in tensors():
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-6, atol=1e-9)
    plain, folded = network.folded(params)
    predicted = np.empty((20, 3))
    engine.predict(engine.workspace(plain, 20), folded, X, predicted)
    expected = torch.softmax(model.eval()(torch.tensor(X)), 1).detach().numpy()
    np.testing.assert_allclose(predicted, expected, rtol=1e-6)
