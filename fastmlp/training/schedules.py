"""Learning-rate schedules of stochastic solvers: the rate of every step to come, and what epochs and plateaus change.

A schedule is asked for the ``rates`` of steps counted from 0, the first of all training; an optimizer tabulates them
ahead. "Epoch" in a formula is step / steps per epoch, and training is max_iter epochs long: the optimizer that builds a
schedule says how many steps that makes. Later steps, in further calls of partial_fit, keep the last rate.

scikit-learn's three and "plateau" get the results of training and hold one rate at a time. The others are functions of
the step alone, with PyTorch's formulas if PyTorch has them:

==================  ====================================================================================  ==========
name                rate, for initial rate r, epoch e, and progress p in [0, 1]                           changes
==================  ====================================================================================  ==========
constant            r                                                                                     never
invscaling          r / (rows seen + 1) ** power_t                                                        each epoch
adaptive            r / 5 ** plateaus                                                                     plateaus
plateau             r * factor ** (plateaus of more than `patience` epochs), no less than min_lr          plateaus
step                r * gamma ** floor(e / step_size)                                                     each epoch
exponential         r * gamma ** floor(e)                                                                 each epoch
cosine              eta_min + (r - eta_min) (1 + cos(pi p)) / 2                                           each step
cosine_restarts     the same with p = e / T_0, begun anew after T_0, then T_0 T_mult, ... epochs          each step
one_cycle           cosine from max_lr / div_factor up to max_lr, then down to it / final_div_factor      each step
warmup_cosine       a line up to r in the share `warmup` of the steps, then cosine                        each step
flat_cos            r in the share `flat` of the steps, then cosine                                       each step
coslog4             r (1 - cos(2 pi log2(1 + 15 p))) / 2: four waves, each as long as those before it     each step
a callable f        r f(p)                                                                                each step
==================  ====================================================================================  ==========

``dropout_schedule`` and ``weight_decay_schedule`` take those of ``SHARES`` with r = 1: functions of the step alone that
stay within [0, 1]. They multiply the dropout rates and the weight decay of a step.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastmlp.model import choices


class Schedule:
    """The learning rate stays as it was given; a plateau ends training.

    Training has `max_iter` epochs of `n_steps_per_epoch` steps, counted from 0.
    """

    parameters: ClassVar[Mapping[str, float | None]] = {}
    ranges: ClassVar[Mapping[str, str]] = {}
    foreseen: ClassVar[bool] = True  # whether the rates of later steps are known, unless a hook says that they changed

    def __init__(
        self, learning_rate_init: float, n_steps_per_epoch: int = 1, max_iter: int = 1, **parameters: Any
    ) -> None:
        self.initial = float(learning_rate_init)
        self.n_steps_per_epoch = n_steps_per_epoch
        self.n_steps = n_steps_per_epoch * max_iter
        self.values = {**self.parameters, **parameters}

    def rates(self, steps: np.ndarray) -> np.ndarray | float:
        """Return the rates of these steps, float64 (n,), or a number if they are equal."""
        return self.initial

    def after_epoch(self, n_samples_seen: int) -> bool:
        """Note the end of an epoch; returns whether rates of later steps changed."""
        return False

    def after_score(self, value: float, higher_is_better: bool = False) -> bool:
        """Note what the epoch came to, a loss or a score; returns whether rates of later steps changed."""
        return False

    def on_plateau(self) -> tuple[bool, str]:
        """Return (whether to stop training, what to tell the user)."""
        return True, " Stopping."

    def moved_to(self, rate: float) -> Schedule:
        """Return the schedule of the steps to come if a callback sets their rate: here, the rate alone."""
        held = Schedule(rate, self.n_steps_per_epoch)
        held.n_steps = self.n_steps
        return held

    def get_state(self) -> dict[str, Any]:
        """Return the state that further training needs, in plain numbers."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state."""

    def _progress(self, steps: np.ndarray) -> np.ndarray:
        """Return the share of training done before each step, at most 1."""
        return np.minimum(steps / self.n_steps, 1.0)

    def _epochs(self, steps: np.ndarray) -> np.ndarray:
        """Return the number of whole epochs done before each step."""
        return np.floor_divide(steps, self.n_steps_per_epoch)


# --- one rate at a time -----------------------------------------------------------------------------------------------


class Stateful(Schedule):
    """A rate that hooks change."""

    kept: ClassVar[tuple[str, ...]] = ("rate",)  # attributes that make the state

    def __init__(self, *args: Any, **parameters: Any) -> None:
        super().__init__(*args, **parameters)
        self.rate = self.initial

    def rates(self, steps: np.ndarray) -> float:
        return self.rate

    def get_state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.kept}

    def set_state(self, state: Mapping[str, Any]) -> None:
        for name in self.kept:
            setattr(self, name, type(getattr(self, name))(state[name]))


class Reducing(Stateful):
    """A rate that is reduced when training makes no progress, also from what a callback set."""

    def moved_to(self, rate: float) -> Schedule:
        self.rate = rate
        return self


class InverseScaling(Stateful):
    """learning_rate_init / (samples seen + 1) ** power_t, set after each epoch."""

    parameters: ClassVar = {"power_t": 0.5}
    ranges: ClassVar = {"power_t": "[0, inf)"}
    foreseen = False

    def after_epoch(self, n_samples_seen: int) -> bool:
        self.rate = float(self.initial / (n_samples_seen + 1) ** self.values["power_t"])
        return True


class Adaptive(Reducing):
    """Divided by five on every plateau, down to 1e-6."""

    def on_plateau(self) -> tuple[bool, str]:
        if self.rate <= 1e-6:
            return True, " Learning rate too small. Stopping."
        self.rate /= 5.0
        return False, f" Setting learning rate to {self.rate:f}"


class Plateau(Reducing):
    """PyTorch's ReduceLROnPlateau: times `factor` after more than `patience` epochs without a better loss or score.

    Better is a change by the share `threshold`. Training, which has its own patience (n_iter_no_change, tol), goes on
    as long as the rate was reduced since it last wanted to stop.
    """

    parameters: ClassVar = {"factor": 0.1, "patience": 10.0, "threshold": 1e-4, "min_lr": 0.0}
    ranges: ClassVar = {"factor": "(0, 1)", "patience": "[0, inf)", "threshold": "[0, 1)", "min_lr": "[0, inf)"}
    kept = ("rate", "best", "n_bad", "reduced")

    # what PyTorch finds too little to bother
    LEAST_CHANGE = 1e-8

    def __init__(self, *args: Any, **parameters: Any) -> None:
        super().__init__(*args, **parameters)
        self.best = np.inf  # of the loss, or of minus the score
        self.n_bad = 0
        self.reduced = False

    def after_score(self, value: float, higher_is_better: bool = False) -> bool:
        value = -float(value) if higher_is_better else float(value)
        share = self.values["threshold"]
        # a share of a negative number is on its other side
        if value < (self.best * (1.0 - share) if self.best >= 0 else self.best * (1.0 + share)):
            self.best, self.n_bad = value, 0
            return False
        self.n_bad += 1  # NaN is never better
        if self.n_bad <= self.values["patience"]:
            return False
        self.n_bad = 0
        rate = max(self.rate * self.values["factor"], self.values["min_lr"])
        if self.rate - rate <= self.LEAST_CHANGE:
            return False
        self.rate, self.reduced = rate, True
        return True

    def on_plateau(self) -> tuple[bool, str]:
        if not self.reduced:
            return super().on_plateau()
        self.reduced = False
        return False, f" Learning rate has been set to {self.rate:g}"


# --- functions of the step --------------------------------------------------------------------------------------------


class Step(Schedule):
    """Times gamma every step_size epochs (PyTorch's StepLR)."""

    parameters: ClassVar = {"step_size": 10.0, "gamma": 0.1}
    ranges: ClassVar = {"step_size": "(0, inf)", "gamma": "(0, 1]"}

    def rates(self, steps: np.ndarray) -> np.ndarray:
        return self.initial * self.values["gamma"] ** np.floor_divide(self._epochs(steps), self.values["step_size"])


class Exponential(Schedule):
    """Times gamma every epoch (PyTorch's ExponentialLR)."""

    parameters: ClassVar = {"gamma": 0.95}
    ranges: ClassVar = {"gamma": "(0, 1]"}

    def rates(self, steps: np.ndarray) -> np.ndarray:
        return self.initial * self.values["gamma"] ** self._epochs(steps)


class Cosine(Schedule):
    """Half a cosine from learning_rate_init to eta_min (Loshchilov and Hutter 2016; PyTorch's CosineAnnealingLR)."""

    parameters: ClassVar = {"eta_min": 0.0}
    ranges: ClassVar = {"eta_min": "[0, inf)"}

    def rates(self, steps: np.ndarray) -> np.ndarray:
        return _cosine(self.initial, self.values["eta_min"], self._progress(steps))


class CosineRestarts(Schedule):
    """Cosines of T_0, T_0 T_mult, T_0 T_mult^2, ... epochs one after the other (SGDR, Loshchilov and Hutter 2016;
    PyTorch's CosineAnnealingWarmRestarts at fractional epochs)."""

    parameters: ClassVar = {"T_0": 10.0, "T_mult": 1.0, "eta_min": 0.0}
    ranges: ClassVar = {"T_0": "(0, inf)", "T_mult": "[1, inf)", "eta_min": "[0, inf)"}

    def rates(self, steps: np.ndarray) -> np.ndarray:
        first, growth = self.values["T_0"] * self.n_steps_per_epoch, self.values["T_mult"]
        if growth == 1.0:
            progress = np.fmod(steps, first) / first
        else:
            starts, length = [0.0], first
            while starts[-1] + length <= steps[-1]:
                starts.append(starts[-1] + length)
                length *= growth
            start = np.array(starts)
            cycle = np.searchsorted(start, steps, side="right") - 1
            progress = (steps - start[cycle]) / (first * growth**cycle)
        return _cosine(self.initial, self.values["eta_min"], progress)


class OneCycle(Schedule):
    """Smith's 1cycle policy (2018, arXiv:1803.09820; PyTorch's OneCycleLR without its momentum): the share pct_start of
    the steps goes up from max_lr / div_factor to max_lr, the rest down to that start / final_div_factor.

    max_lr is ten times learning_rate_init if left out.
    """

    parameters: ClassVar = {"max_lr": None, "pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4}
    ranges: ClassVar = {
        "max_lr": "(0, inf)",
        "pct_start": "[0, 1]",
        "div_factor": "[1, inf)",
        "final_div_factor": "[1, inf)",
    }

    def rates(self, steps: np.ndarray) -> np.ndarray:
        highest = 10.0 * self.initial if self.values["max_lr"] is None else self.values["max_lr"]
        start = highest / self.values["div_factor"]
        last = self.n_steps - 1
        turn = self.values["pct_start"] * self.n_steps - 1  # the step of the highest rate
        # a rise that is over at its first step has nothing to interpolate
        rising = steps / turn if turn > 0 else np.ones_like(steps)
        falling = (steps - turn) / (last - turn) if last > turn else np.ones_like(steps)
        return np.where(
            steps <= turn,
            _cosine(start, highest, rising),
            _cosine(highest, start / self.values["final_div_factor"], np.minimum(falling, 1.0)),
        )


class WarmupCosine(Schedule):
    """A line up to learning_rate_init in the share `warmup` of all steps, rounded to whole ones, then a cosine.

    Of w such steps the first has the rate learning_rate_init / (w + 1); the one after them has learning_rate_init.
    """

    parameters: ClassVar = {"warmup": 0.05, "eta_min": 0.0}
    ranges: ClassVar = {"warmup": "[0, 1]", "eta_min": "[0, inf)"}

    def rates(self, steps: np.ndarray) -> np.ndarray:
        rise = round(self.values["warmup"] * self.n_steps)
        progress = np.clip((steps - rise) / max(self.n_steps - rise, 1), 0.0, 1.0)
        falling = _cosine(self.initial, self.values["eta_min"], progress)
        return np.where(steps < rise, self.initial * (steps + 1) / (rise + 1), falling)


class FlatCos(Schedule):
    """learning_rate_init in the share `flat` of training, then half a cosine down to eta_min."""

    parameters: ClassVar = {"flat": 0.5, "eta_min": 0.0}
    ranges: ClassVar = {"flat": "[0, 1)", "eta_min": "[0, inf)"}

    def rates(self, steps: np.ndarray) -> np.ndarray:
        flat = self.values["flat"]
        falling = np.maximum(self._progress(steps) - flat, 0.0) / (1.0 - flat)
        return _cosine(self.initial, self.values["eta_min"], falling)


class CosLog4(Schedule):
    """Four waves between 0 and learning_rate_init, each as long as all before it and one more unit: the schedule of
    RealMLP (Holzmueller, Grinsztajn and Steinwart 2024, arXiv:2407.04491), after Smith. The first step has the rate 0.
    """

    def rates(self, steps: np.ndarray) -> np.ndarray:
        waves = np.log2(1.0 + 15.0 * self._progress(steps))
        return self.initial * (0.5 * (1.0 - np.cos(2.0 * np.pi * waves)))


class Factor(Schedule):
    """learning_rate_init times a function of the user's, f(progress in [0, 1]) -> factor; called once per step.

    Errors call the function `argument`, and refuse factors above `highest`.
    """

    def __init__(
        self,
        function: Callable[[float], float],
        *args: Any,
        argument: str = "learning_rate",
        highest: float = math.inf,
    ) -> None:
        super().__init__(*args)
        self.function, self.argument, self.highest = function, argument, highest

    def rates(self, steps: np.ndarray) -> np.ndarray:
        progress = self._progress(steps)
        returned = [self.function(p) for p in progress.tolist()]
        try:
            factors = np.array(returned, dtype=np.float64)
        except (TypeError, ValueError):
            factors = np.array(())
        if factors.shape != progress.shape:
            raise ValueError(f"{self.argument}={self.function!r} must return one number, got {returned[0]!r}")
        wrong = ~(np.isfinite(factors) & (factors >= 0) & (factors <= self.highest))
        if wrong.any():
            at = int(np.argmax(wrong))
            allowed = (
                "finite factors of at least 0" if self.highest == math.inf else f"factors in [0, {self.highest:g}]"
            )
            raise ValueError(
                f"{self.argument}={self.function!r} must return {allowed}, got {factors[at]} for "
                f"progress {progress[at]:g}"
            )
        return self.initial * factors


def checked_rate(value: Any) -> float:
    """Return a learning rate that a callback set; raise ValueError for what is not finite and greater than 0."""
    try:
        rate = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        rate = math.inf
    if not 0 < rate < math.inf:
        raise ValueError(f"the learning rate must be a finite number greater than 0, got {value!r:.100}")
    return rate


def _cosine(start: float, end: float, progress: np.ndarray) -> np.ndarray:
    """Go from start to end along half a cosine, as progress goes from 0 to 1."""
    return end + (start - end) * (1.0 + np.cos(np.pi * progress)) / 2.0


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Schedule,
    "invscaling": InverseScaling,
    "adaptive": Adaptive,
    "step": Step,
    "exponential": Exponential,
    "cosine": Cosine,
    "cosine_restarts": CosineRestarts,
    "one_cycle": OneCycle,
    "plateau": Plateau,
    "warmup_cosine": WarmupCosine,
    "flat_cos": FlatCos,
    "coslog4": CosLog4,
}


class Share(NamedTuple):
    """A schedule of shares in [0, 1]: its parameters and their ranges."""

    parameters: Mapping[str, float | None]
    ranges: Mapping[str, str]


def _share(row: type[Schedule]) -> Share:
    return Share(row.parameters, {**row.ranges, **({"eta_min": "[0, 1]"} if "eta_min" in row.parameters else {})})


#: What multiplies the dropout rates or the weight decay: functions of the step that never rise above where they start.
SHARES: dict[str, Share] = {
    name: _share(row) for name, row in SCHEDULES.items() if not issubclass(row, Stateful | OneCycle)
}


def entry(value: Any) -> Any:
    """Check a user's `learning_rate`: a name, (name, {parameter: value}), or a callable.

    The ValueError lists the names, or names the parameter and its range.
    """
    return value if callable(value) else choices.entry(SCHEDULES, value, "learning_rate")


def make_schedule(
    choice: Any, learning_rate_init: float, power_t: float = 0.5, n_steps_per_epoch: int = 1, max_iter: int = 1
) -> Schedule:
    """Return the schedule of a `learning_rate` as users write it; "invscaling" may bring its own `power_t`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.training.schedules import make_schedule
    >>> make_schedule(("step", {"step_size": 2, "gamma": 0.5}), 0.1, n_steps_per_epoch=2).rates(np.arange(6.0))
    array([0.1 , 0.1 , 0.1 , 0.1 , 0.05, 0.05])
    """
    checked = entry(choice)
    if not isinstance(checked, str | tuple):
        return Factor(checked, learning_rate_init, n_steps_per_epoch, max_iter)
    name, parameters = choices.name_of(checked), choices.given_parameters(checked)
    if name == "invscaling":
        parameters = {"power_t": power_t} | parameters
    return SCHEDULES[name](learning_rate_init, n_steps_per_epoch, max_iter, **parameters)


def make_share(choice: Any, argument: str, n_steps_per_epoch: int = 1, max_iter: int = 1) -> Schedule | None:
    """Return the schedule of a `dropout_schedule` or `weight_decay_schedule`; None for "constant".

    `argument` is what the user calls it. The ValueError lists the names, or names the parameter and its range.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.training.schedules import make_share
    >>> make_share("flat_cos", "dropout_schedule", max_iter=4).rates(np.arange(4.0))
    array([1. , 1. , 1. , 0.5])
    """
    if callable(choice):
        return Factor(choice, 1.0, n_steps_per_epoch, max_iter, argument=argument, highest=1.0)
    checked = choices.entry(SHARES, choice, argument)
    name = choices.name_of(checked)
    if name == "constant":
        return None
    return SCHEDULES[name](1.0, n_steps_per_epoch, max_iter, **choices.given_parameters(checked))
