"""Solvers and their parameters; stochastic optimizers as the host sees them: state vectors, the scalars of each step.

The rules themselves are formulas (kernels/formulas.py, OPTIMIZERS); an engine asks an optimizer for its ``rule``, its
``states``, the tables of ``scalars``, ``decays`` and ``dropouts`` for the steps to come, the ``factors`` and
``decay_factors`` of the segments and its ``max_grad_norm``, and counts the steps in ``t``. A scalar that is no
hyper-parameter, such as a bias correction, has its formula in ``CORRECTIONS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastmlp.kernels import formulas
from fastmlp.model import choices
from fastmlp.model.network import Network
from fastmlp.training import attributes, schedules
from fastmlp.training.factors import Factors, checked, table_of
from fastmlp.training.schedules import SCHEDULES, Schedule

#: What stochastic solvers are called: the rules, of which "sgd" takes the momentum that it is asked for.
STOCHASTIC_SOLVERS = tuple(formulas.OPTIMIZERS)


class Solver(NamedTuple):
    """Parameters of a solver and their ranges; None stands for the estimator's parameter of the same name."""

    parameters: Mapping[str, float | None]
    ranges: Mapping[str, str]


# Parameters that scikit-learn's constructor has too.
_SHARED = {"momentum": "[0, 1]", "beta_1": "[0, 1)", "beta_2": "[0, 1)", "epsilon": "(0, inf)"}
# Parameters that only fastmlp's solvers have.
_OWN: dict[str, dict[str, float]] = {
    "nadam": {"momentum_decay": 4e-3},
    "rmsprop": {"rho": 0.99},
    "adadelta": {"rho": 0.9},
}
_RANGES = {**_SHARED, "rho": "[0, 1)", "momentum_decay": "[0, inf)"}


def _solver(rule: str) -> Solver:
    """Return the row of a rule: those of its scalars that do not depend on the step."""
    scalars = ("momentum",) if rule == "sgd" else formulas.OPTIMIZERS[rule].scalars
    own = _OWN.get(rule, {})
    parameters = {**{name: None for name in scalars if name in _SHARED}, **own}
    return Solver(parameters, {name: _RANGES[name] for name in parameters})


#: What `solver` may be: a name, or (name, {parameter: value}).
SOLVERS: dict[str, Solver] = {"lbfgs": Solver({}, {}), **{rule: _solver(rule) for rule in STOCHASTIC_SOLVERS}}

#: Schedules that scikit-learn's adam ignores when they are chosen by name alone.
IGNORED_BY_ADAM = ("invscaling", "adaptive")

Column = Any  # float64 (n_steps,), or a number for all steps


# --- scalars that depend on the step: rate and step count t from 1 -> columns by name ---------------------------------


def _adam(rate: Column, t: np.ndarray, hyper: Mapping[str, float]) -> dict[str, Column]:
    # scikit-learn's: both corrections in the rate, epsilon outside of them
    return {"lr": rate * np.sqrt(1 - hyper["beta_2"] ** t) / (1 - hyper["beta_1"] ** t)}


def _torch_adam(rate: Column, t: np.ndarray, hyper: Mapping[str, float]) -> dict[str, Column]:
    return {"step_size": rate / (1 - hyper["beta_1"] ** t), "root_2": np.sqrt(1 - hyper["beta_2"] ** t)}


#: Rules with other scalars than hyper-parameters and the schedule's rate, "lr".
CORRECTIONS: dict[str, Callable[[Column, np.ndarray, Mapping[str, float]], dict[str, Column]]] = {
    "adam": _adam,
    "adamw": _torch_adam,
    "amsgrad": _torch_adam,
}


#: What a schedule of shares may multiply, by the estimator's parameter.
SCHEDULED = {"weight_decay_schedule": "weight_decay", "dropout_schedule": "dropout"}


class Optimizer:
    """State of one stochastic solver.

    `rule` is a key of ``formulas.OPTIMIZERS``, `schedule` gives the learning rate of every step, `hyper` has
    hyper-parameters by the names of the rule's scalars. Weight decay is decoupled: before each step the parameters
    shrink by the share rate * weight_decay (Loshchilov and Hutter 2017, arXiv:1711.05101). Gradients longer than
    `max_grad_norm` are shortened to it. `factors` belong to the network's segments. `shares` are schedules in [0, 1] of
    the weight decay and of the dropout rates, by the names "weight_decay" and "dropout".

    Attributes
    ----------
    states : list of ndarray of shape (n_params,)
        Laid out like the parameters.
    factors : None or float64 of shape (n_segments, n_scalars)
        What multiplies the scalars of a step in each segment.
    decay_factors : None or float64 of shape (n_segments,)
        What multiplies the decay of a step in each segment.
    t : int
        Steps done; engines add to it.
    left_out : int
        Batches without weight, which are no steps. The schedule counts them, so that its epochs are the training's.
    """

    #: Whether the schedule is a constant rate that a callback set in place of the schedule that was asked for.
    held = False
    # scalars are tabulated for at least so many steps ahead: short epochs then cost a slice each
    BLOCK = 1024
    # also of optimizers pickled by an earlier version
    left_out = 0
    given_factors = Factors()
    factors: np.ndarray | None = None
    decay_factors: np.ndarray | None = None
    shares: Mapping[str, Schedule] = {}

    def __init__(
        self,
        rule: str,
        network: Network,
        schedule: Schedule,
        hyper: Mapping[str, float] | None = None,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        factors: Factors | None = None,
        shares: Mapping[str, Schedule] | None = None,
    ) -> None:
        self.rule = rule
        self.schedule = schedule
        self.hyper = dict(hyper or {})
        self.weight_decay = float(weight_decay)
        self.max_grad_norm = None if max_grad_norm is None else float(max_grad_norm)
        self.t = 0
        self.states = [np.zeros(network.n_params, dtype=network.dtype) for _ in formulas.OPTIMIZERS[rule].states]
        if factors is not None:
            self.use_factors(factors, network)
        if shares:
            self.shares = dict(shares)
        self._forget()

    def use_factors(self, factors: Factors | None, network: Network) -> None:
        """Take these factors of the network's segments for the steps to come."""
        n_segments = len(network.segments)
        self.given_factors = checked(factors or Factors(), n_segments)
        self.factors = table_of(self.given_factors, formulas.OPTIMIZERS[self.rule].scalars, n_segments)
        self.decay_factors = self.given_factors.decay if self.weight_decay else None

    # --- what engines ask for ----------------------------------------------------------------------------------------

    def scalars(self, n_steps: int) -> np.ndarray:
        """Return the scalars of steps t + 1 .. t + n_steps, float64 (n_steps, n_scalars), in the rule's order."""
        first = self._tabulated(n_steps)
        return self._table[first : first + n_steps]

    def decays(self, n_steps: int) -> np.ndarray | None:
        """Return how much steps t + 1 .. t + n_steps first shrink the parameters, float64 (n_steps,), or None."""
        if self.weight_decay == 0.0:
            return None
        first = self._tabulated(n_steps)
        return self._decays[first : first + n_steps]

    def dropouts(self, n_steps: int) -> np.ndarray | None:
        """Return what multiplies the dropout rates in steps t + 1 .. t + n_steps, float64 (n_steps,), or None for 1."""
        if "dropout" not in self.shares:
            return None
        first = self._tabulated(n_steps)
        return self._dropouts[first : first + n_steps]

    # --- what training tells -----------------------------------------------------------------------------------------

    def after_epoch(self, n_samples_seen: int) -> None:
        """Tell the schedule that an epoch ended."""
        if self.schedule.after_epoch(n_samples_seen):
            self._forget()

    def after_score(self, value: float, higher_is_better: bool = False) -> None:
        """Tell the schedule what the epoch came to, a loss or a score."""
        if self.schedule.after_score(value, higher_is_better):
            self._forget()

    def on_plateau(self) -> tuple[bool, str]:
        """Return (stop training, what to tell the user)."""
        stops, text = self.schedule.on_plateau()
        if not stops:  # the rate has changed
            self._forget()
        return stops, text

    def leave_out(self, n_batches: int) -> None:
        """Note that an epoch left out so many batches."""
        if n_batches:
            self.left_out += n_batches
            self._forget()

    def set_learning_rate(self, value: float) -> None:
        """Set the rate of the steps to come; a ValueError refuses what is not finite and greater than 0.

        Schedules that answer to training go on from it; the others are replaced by this rate.
        """
        schedule = self.schedule.moved_to(schedules.checked_rate(value))
        self.held = self.held or schedule is not self.schedule
        self.schedule = schedule
        self._forget()

    # --- what others ask for -----------------------------------------------------------------------------------------

    @property
    def scheduled_rate(self) -> float:
        """The rate of the latest step, or the one that a hook set since; before any step, the rate of the first."""
        latest = max(self.t - 1, 0)
        rates, row = self._rates, latest - self._table_start
        if not 0 <= row < len(self._table):
            rates, row = self.schedule.rates(np.array([latest + self.left_out], dtype=np.float64)), 0
        return float(rates[row] if isinstance(rates, np.ndarray) else rates)

    @property
    def learning_rate(self) -> float:
        """The same as the rule gets it: scikit-learn's adam has its bias corrections in it."""
        if self.rule == "adam" and self.t:
            return float(_adam(self.scheduled_rate, np.array(float(self.t)), self.hyper)["lr"])
        return self.scheduled_rate

    def get_state(self) -> dict[str, Any]:
        """Return all that training on depends on: copies of the state vectors, and plain numbers."""
        state = {
            "rule": self.rule,
            "t": int(self.t),
            "states": [state.copy() for state in self.states],
            "schedule": self.schedule.get_state(),
            **({"held_rate": self.schedule.initial} if self.held else {}),
        }
        return state | {"left_out": self.left_out} if self.left_out else state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned, bit for bit; the state vectors are copied into their places.

        A ValueError says that it comes from another rule or another network.
        """
        theirs, ours = ([np.shape(vector) for vector in vectors] for vectors in (state["states"], self.states))
        if state["rule"] != self.rule or theirs != ours:
            raise ValueError(
                f"the saved optimizer is {state['rule']!r} with state vectors of shapes {theirs}, this one is "
                f"{self.rule!r} with {ours}"
            )
        if any(
            np.asarray(saved).dtype != vector.dtype for vector, saved in zip(self.states, state["states"], strict=True)
        ):
            raise ValueError(f"the state vectors of the saved optimizer must be of {self.states[0].dtype}")
        for vector, saved in zip(self.states, state["states"], strict=True):
            vector[...] = saved
        self.t, self.left_out = attributes.count(state["t"]), attributes.count(state.get("left_out", 0))
        if "held_rate" in state:
            self.set_learning_rate(attributes.number(state["held_rate"]))
        else:
            self.schedule.set_state(state["schedule"])
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self._TABULATED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    # --- the tables --------------------------------------------------------------------------------------------------

    _TABULATED: ClassVar = ("_table", "_rates", "_decays", "_dropouts")

    def _forget(self) -> None:
        """Tabulate anew before the next step: rates changed."""
        self._table_start = 0  # steps done before the first row
        self._table = np.empty((0, len(formulas.OPTIMIZERS[self.rule].scalars)))
        self._rates: Column = np.empty(0)
        self._decays = self._dropouts = np.empty(0)

    def _tabulated(self, n_steps: int) -> int:
        """Return the row of step t + 1 in tables that hold it and the n_steps - 1 after it."""
        first = self.t - self._table_start
        if 0 <= first <= len(self._table) - n_steps:
            return first
        n = max(n_steps, self.BLOCK) if self.schedule.foreseen else n_steps
        done = np.arange(self.t, self.t + n, dtype=np.float64)
        rate = self.schedule.rates(done + self.left_out)
        columns = {**self.hyper, "lr": rate, **self._corrections(rate, done + 1.0)}
        self._table = np.empty((n, len(formulas.OPTIMIZERS[self.rule].scalars)))
        for k, name in enumerate(formulas.OPTIMIZERS[self.rule].scalars):
            self._table[:, k] = columns[name]
        self._decays = np.full(n, rate * self.weight_decay)
        if self.shares:
            shares = {name: schedule.rates(done + self.left_out) for name, schedule in self.shares.items()}
            self._decays *= shares.get("weight_decay", 1.0)
            self._dropouts = np.full(n, shares.get("dropout", 1.0))
        self._rates, self._table_start = rate, self.t
        return 0

    def _corrections(self, rate: Column, t: np.ndarray) -> dict[str, Column]:
        """Return columns of what changes from step to step besides the rate."""
        return CORRECTIONS[self.rule](rate, t, self.hyper) if self.rule in CORRECTIONS else {}


class NAdam(Optimizer):
    """Adam with Nesterov momentum (Dozat 2016), as PyTorch's: the momentum mu_t warms up; its product is state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("nadam", *args, **kwargs)
        self._product, self._product_t = 1.0, 0  # mu_1 * ... * mu_t after that many steps

    def _mu(self, t: np.ndarray) -> np.ndarray:
        return self.hyper["beta_1"] * (1.0 - 0.5 * 0.96 ** (t * self.hyper["momentum_decay"]))

    def _product_after(self, t: int) -> float:
        """Return mu_1 * ... * mu_t, multiplied one by one, so that it is the same wherever training was interrupted."""
        if t < self._product_t:
            self._product, self._product_t = 1.0, 0
        if t > self._product_t:
            mu = self._mu(np.arange(self._product_t + 1, t + 1, dtype=np.float64))
            mu[0] *= self._product
            self._product, self._product_t = float(np.cumprod(mu)[-1]), t
        return self._product

    def _corrections(self, rate: Column, t: np.ndarray) -> dict[str, Column]:
        mu, following = self._mu(t), self._mu(t + 1.0)
        factors = mu.copy()
        factors[0] *= self._product_after(int(t[0]) - 1)
        product = np.cumprod(factors)
        return {
            "step_g": rate * (1.0 - mu) / (1.0 - product),
            "step_m": rate * following / (1.0 - product * following),
            "root_2": np.sqrt(1.0 - self.hyper["beta_2"] ** t),
        }

    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {"mu_product": self._product_after(self.t)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        self._product, self._product_t = float(attributes.number(state["mu_product"])), self.t


#: Decoupled weight decay of a solver where `weight_decay` is None; 0 for the others.
WEIGHT_DECAY = {"adamw": 0.01}


def make_optimizer(
    solver: Any,
    network: Network,
    params: Mapping[str, Any],
    n_steps_per_epoch: int = 1,
    max_iter: int | None = None,
    factors: Factors | None = None,
) -> Optimizer:
    """Return the optimizer of a stochastic solver, with or without parameters.

    `params` are those of an estimator, validated. Schedules count in epochs of `n_steps_per_epoch` batches; the whole
    training has `max_iter` epochs, ``params["max_iter"]`` if left out. `factors` are those of the network's segments.
    A ValueError says that the solver or a schedule is unknown, or that a parameter of either is unknown or out of its
    range.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.model.network import Network
    >>> from fastmlp.training.optimizers import make_optimizer
    >>> network = Network((4, 3), (), "log_loss", np.dtype("float64"))
    >>> make_optimizer(("sgd", {"momentum": 0.5}), network, MLPClassifier().get_params(), 3).scalars(2)
    array([[0.001, 0.5  ],
           [0.001, 0.5  ]])
    """
    chosen = choices.entry(SOLVERS, solver, "solver", STOCHASTIC_SOLVERS)
    name = choices.name_of(chosen)
    hyper = {
        parameter: params[parameter] if value is None else value
        for parameter, value in choices.parameters_of(SOLVERS, chosen).items()
    }
    rule = name
    if name == "sgd" and hyper["momentum"] != 0:
        rule = "nesterov" if params["nesterovs_momentum"] else "momentum"
    choice = schedules.entry(params["learning_rate"])
    if name == "adam" and choice in IGNORED_BY_ADAM:
        choice = "constant"
    clock = n_steps_per_epoch, params["max_iter"] if max_iter is None else max_iter
    schedule = schedules.make_schedule(choice, params["learning_rate_init"], params["power_t"], *clock)
    decay = params.get("weight_decay")
    decay = WEIGHT_DECAY.get(name, 0.0) if decay is None else decay
    options: dict[str, Any] = {
        "weight_decay": decay,
        "max_grad_norm": params.get("max_grad_norm"),
        "factors": factors,
        "shares": _shares(params, network, decay, clock),
    }
    if rule == "nadam":
        return NAdam(network, schedule, hyper, **options)
    return Optimizer(rule, network, schedule, hyper, **options)


def _shares(params: Mapping[str, Any], network: Network, decay: float, clock: tuple[int, int]) -> dict[str, Schedule]:
    """Return the schedules of what this training has: an optimizer without one has nothing to tabulate."""
    there = {"weight_decay": decay != 0, "dropout": bool(network.input_dropout or any(network.dropout))}
    found = {}
    for argument, name in SCHEDULED.items():
        share = schedules.make_share(params.get(argument, "constant"), argument, *clock)
        if share is not None and there[name]:
            found[name] = share
    return found


# --- optimizers in files ----------------------------------------------------------------------------------------------


def describe(optimizer: Optimizer) -> dict[str, Any]:
    """Return the state of an optimizer, and what it was made of; none of its schedules may be a function."""
    state = optimizer.get_state()
    state.pop("held_rate", None)  # the schedule below is that rate
    described = {
        **state,
        "hyper": optimizer.hyper,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.max_grad_norm,
        "schedule": _described_schedule(optimizer.schedule, "learning rate"),
    }
    factors = {name: array for name, array in optimizer.given_factors._asdict().items() if array is not None}
    if factors:
        described["factors"] = factors
    if optimizer.shares:
        described["shares"] = {
            name: _described_schedule(share, f"schedule of {name}") for name, share in optimizer.shares.items()
        }
    return described


def _described_schedule(schedule: Schedule, what: str) -> dict[str, Any]:
    """Return what a schedule was made of, and its state; a TypeError says that it is a function."""
    name = next((name for name, kind in SCHEDULES.items() if type(schedule) is kind), None)
    if name is None:
        raise TypeError(
            f"optimizer_state=True: the {what} of this optimizer is a function, which a model file cannot hold;"
            " save without it"
        )
    return {
        "name": name,
        "values": schedule.values,
        "initial": schedule.initial,
        "n_steps_per_epoch": schedule.n_steps_per_epoch,
        "n_steps": schedule.n_steps,
        "state": schedule.get_state(),
    }


def rebuild(state: Mapping[str, Any], network: Network) -> Optimizer:
    """Return the optimizer of a network that :func:`describe` was asked about.

    A KeyError names what is missing; a ValueError says what is unknown, out of range or of another network.
    """
    rule = state["rule"]
    if not isinstance(rule, str) or rule not in formulas.OPTIMIZERS:
        raise ValueError(f"rule must be one of {list(formulas.OPTIMIZERS)}, got {rule!r:.100}")
    wanted = len(formulas.OPTIMIZERS[rule].states)
    if len(state["states"]) != wanted:
        raise ValueError(f"{rule!r} has {wanted} state vectors, got {len(state['states'])}")
    for vector in state["states"]:
        attributes.vector(vector, network)
    hyper = {attributes.text(name): attributes.number(value) for name, value in state["hyper"].items()}
    needed = SOLVERS[rule].parameters.keys()
    # files of the first kind hold the parameters of all rules
    if not needed <= hyper.keys() <= _RANGES.keys():
        raise ValueError(f"hyper must hold {sorted(needed)}, got {sorted(hyper)}")
    limit = None if state["max_grad_norm"] is None else attributes.number(state["max_grad_norm"])
    arguments = (
        network,
        _rebuilt_schedule(state["schedule"]),
        hyper,
        attributes.number(state["weight_decay"]),
        limit,
        _rebuilt_factors(state.get("factors", {})),
        _rebuilt_shares(state.get("shares", {})),
    )
    optimizer = NAdam(*arguments) if rule == "nadam" else Optimizer(rule, *arguments)
    kept: dict[str, Any] = {"mu_product": state["mu_product"]} if rule == "nadam" else {}
    kept |= {"left_out": state["left_out"]} if "left_out" in state else {}
    schedule = state["schedule"]["state"]
    optimizer.set_state({"rule": rule, "t": state["t"], "states": state["states"], "schedule": schedule, **kept})
    return optimizer


def _rebuilt_schedule(state: Mapping[str, Any]) -> Schedule:
    """Return the schedule as it was made; its state comes later."""
    choices.entry(SCHEDULES, (state["name"], state["values"]), "schedule")  # refuses what is out of range
    initial = attributes.number(state["initial"])
    if not 0 < initial < math.inf:
        raise ValueError(f"the initial learning rate must be in (0, inf), got {initial!r}")
    steps, total = attributes.count(state["n_steps_per_epoch"]), attributes.count(state["n_steps"])
    if steps == 0 or total == 0:
        raise ValueError("a schedule has at least one step")
    schedule = SCHEDULES[state["name"]](initial, steps, 1, **state["values"])
    schedule.n_steps = total
    if state["state"].keys() != schedule.get_state().keys():
        raise ValueError(f"the state of {state['name']!r} holds {list(schedule.get_state())}")
    if not all(type(value) in (bool, int, float) for value in state["state"].values()):
        raise ValueError("the state of a schedule is made of numbers")
    return schedule


def _rebuilt_factors(state: Mapping[str, Any]) -> Factors | None:
    """Return the factors of the segments; None if there were none."""
    if not state:
        return None
    if not state.keys() <= set(Factors._fields) or not all(isinstance(given, np.ndarray) for given in state.values()):
        raise ValueError(f"factors must hold arrays for some of {list(Factors._fields)}, got {list(state)}")
    return Factors(**state)


def _rebuilt_shares(state: Mapping[str, Any]) -> dict[str, Schedule]:
    """Return the schedules of the weight decay and the dropout rates."""
    if not state.keys() <= set(SCHEDULED.values()):
        raise ValueError(f"shares must be of {list(SCHEDULED.values())}, got {list(state)}")
    for share in state.values():
        choices.entry(schedules.SHARES, (share["name"], share["values"]), "schedule")
        if share["initial"] != 1.0:
            raise ValueError(f"a schedule of shares begins with 1, got {share['initial']!r}")
    return {name: _rebuilt_schedule(share) for name, share in state.items()}
