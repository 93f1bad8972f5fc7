"""Learning-rate schedules of stochastic solvers: what happens to the rate after an epoch, and on a plateau."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    """The learning rate stays as it was given; a plateau ends training."""

    learning_rate_init: float
    power_t: float = 0.5

    def after_epoch(self, learning_rate: float, n_samples_seen: int) -> float:
        """Learning rate for the next epoch."""
        return learning_rate

    def on_plateau(self, learning_rate: float) -> tuple[float | None, str]:
        """(new learning rate, or None to stop; what to tell the user)."""
        return None, " Stopping."


class InverseScaling(Constant):
    """learning_rate_init / (samples seen + 1) ** power_t, set after each epoch."""

    def after_epoch(self, learning_rate: float, n_samples_seen: int) -> float:
        return float(self.learning_rate_init) / (n_samples_seen + 1) ** self.power_t


class Adaptive(Constant):
    """Divided by five on every plateau, down to 1e-6."""

    def on_plateau(self, learning_rate: float) -> tuple[float | None, str]:
        if learning_rate <= 1e-6:
            return None, " Learning rate too small. Stopping."
        learning_rate /= 5.0
        return learning_rate, f" Setting learning rate to {learning_rate:f}"


SCHEDULES: dict[str, type[Constant]] = {
    "constant": Constant,
    "invscaling": InverseScaling,
    "adaptive": Adaptive,
}
