"""Trainers that take turns in one process: each is timed between two fits of its base.

For the suites `options` and `precision`. A machine whose speed drifts slows a fit and its neighbours alike, so the
ratio of their times stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastmlp.bench.timing import clock, epochs_within
from fastmlp.bench.workloads import Workload

# What estimators, engines and rivals raise for what they do not know or cannot do.
REFUSALS = (AttributeError, ImportError, LookupError, NotImplementedError, TypeError, ValueError)

Answers = dict[str, dict[str, Any]]


def take(
    makers: Mapping[str, Callable[[], Any]], bases: Mapping[str, str], workload: Workload, request: Mapping[str, Any]
) -> Answers:
    """Return by name the losses of the checked epochs, and seconds per step beside those of the base.

    `makers` make the trainers; the first is the base of all bases, and its time sets the number of epochs of a fit.
    """
    checked = workload.checked_epochs
    first = {name: _first(make, checked) for name, make in makers.items()}
    answers = {name: answer for name, (answer, _) in first.items()}
    trainers = {name: trainer for name, (_, trainer) in first.items() if trainer is not None}
    root = next(iter(makers))
    if root in trainers:
        elapsed = clock(trainers[root].fit, checked)
        epochs = request.get("epochs") or epochs_within(request["seconds"], checked, elapsed)
        for trainer in trainers.values():
            trainer.prepare(epochs)

        def seconds(name: str) -> float:
            return clock(trainers[name].fit, epochs) / (epochs * workload.steps)

        pairs = [(name, base) for name, base in bases.items() if {name, base} <= trainers.keys()]
        for k in range(request["rounds"]):
            _round(pairs[:: -1 if k % 2 else 1], seconds, answers)
    return answers


def _first(make: Callable[[], Any], checked: int) -> tuple[dict[str, Any], Any]:
    """Return (losses of the checked epochs or an error, the trainer if it can go on)."""
    trainer = None
    try:
        trainer = make()
        trainer.prepare(checked)
        return {"losses": trainer.fit(checked), "seconds": [], "base_seconds": []}, trainer
    except Exception as error:
        # weights that diverge are a ValueError too, but one that comes after steps were made
        started = getattr(getattr(trainer, "estimator", None), "t_", 0) > 0
        status = "absent" if isinstance(error, REFUSALS) and not started else "failed"
        return {status: f"{type(error).__name__}: {error}".splitlines()[0]}, None


def _round(pairs: Sequence[tuple[str, str]], seconds: Callable[[str], float], answers: Answers) -> None:
    """Time every one once: base, trainer, base, trainer, ..., base."""
    last, before = "", 0.0
    for name, base in pairs:
        if base != last:
            before = seconds(base)
        answers[name]["seconds"].append(seconds(name))
        after = seconds(base)
        answers[name]["base_seconds"].append((before + after) / 2)
        last, before = base, after
