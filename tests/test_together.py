"""Trainings whose epochs go into one call of the engine: who waits for whom, with an engine of the test's own."""

import threading
import time
from types import SimpleNamespace

import pytest

from fastmlp.kernels import interrupts
from fastmlp.training import many, together
from fastmlp.training.in_step import Group


class Engine:
    """An engine whose calls return their first argument; it notes which of them come together."""

    def __init__(self):
        self.seen = []

    def train_many(self, calls):
        self.seen.append(sorted(call.workspace for call in calls))
        return [self.train_epoch(*call) for call in calls]

    def train_epoch(self, workspace, *rest):
        return ValueError("of the call") if workspace < 0 else float(workspace)


class Training:
    """So many epochs, of which each returns the number of the training; then whatever `last` does."""

    group = None

    def __init__(self, engine, number, epochs, last=lambda: None):
        self.engine, self.number, self.epochs, self.last = engine, number, epochs, last
        self.found = []

    def train(self):
        train = together.train_epoch_of(self.engine)
        for _ in range(self.epochs):
            self.found.append(train(self.number, None, None, None, 1, 0.0, None))
        self.last()


def test_each_call_holds_the_epochs_of_all_that_train():
    """Those that end leave, and others begin in their place."""
    engine = Engine()
    trainings = [Training(engine, number, epochs) for number, epochs in enumerate((3, 1, 2, 4))]
    many.fit_many(trainings, 1, n_at_once=3)
    assert engine.seen == [[0, 1, 2], [0, 2, 3], [0, 3], [3], [3]]
    assert [training.found for training in trainings] == [[float(i)] * t.epochs for i, t in enumerate(trainings)]


def test_without_such_a_call_nothing_waits():
    engine = SimpleNamespace(train_epoch=lambda *args: args[0])
    assert together.train_epoch_of(engine) is engine.train_epoch
    assert together.train_epoch_of(Engine()).__name__ == "train_epoch"
    trainings = [Training(engine, number, 2) for number in range(3)]
    many.fit_many(trainings, 1, n_at_once=3)
    assert [training.found for training in trainings] == [[0, 0], [1, 1], [2, 2]]


def test_an_error_of_one_call_is_its_trainings():
    """And the first one stops the others, as on threads."""
    engine = Engine()
    trainings = [Training(engine, number, 10**9) for number in (1, -1, 2)]
    with pytest.raises(ValueError, match="of the call"):
        many.fit_many(trainings, 1, n_at_once=3)
    assert engine.seen[0] == [-1, 1, 2] and trainings[1].found == []


def test_an_error_of_the_engine_is_everyones():
    engine = Engine()
    engine.train_many = lambda calls: (_ for _ in ()).throw(OSError("device lost"))
    with pytest.raises(OSError, match="device lost"):
        many.fit_many([Training(engine, number, 1) for number in range(3)], 1, n_at_once=3)


def test_a_training_that_waits_is_stopped(monkeypatch):
    """It waits for another one that never comes."""
    monkeypatch.setattr(together, "LOOK", 60.0)
    turns, stop, training, ended = together.Together(2), interrupts.Stop(), Training(Engine(), 0, 1), []
    turns.announce(2)

    def train():
        with interrupts.stoppable(stop), turns.taken():
            try:
                training.train()
            except KeyboardInterrupt:
                ended.append(time.monotonic())

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    while not turns._calls:
        time.sleep(0.001)
    begun, stop.wanted = time.monotonic(), True
    turns.wake()
    thread.join(30)
    assert ended[0] - begun < 30 and training.found == [] and not turns._calls


def test_those_that_wait_for_one_another_are_not_waited_for():
    """Two groups of two in step and one alone: a group's networks meet after each epoch."""
    engine, met = Engine(), []

    class InStep(Training):
        def train(self):
            train = together.train_epoch_of(self.engine)
            for _ in range(self.epochs):
                train(self.number, None, None, None, 1, 0.0, None)
                met.append(self.group.meet(self.evaluation, self.number, sorted))

    trainings = []
    for numbers, epochs in (((0, 1), 2), ((2, 3), 3)):
        evaluations = [type("Evaluation", (), {})() for _ in numbers]
        group = Group(evaluations)
        for number, evaluation in zip(numbers, evaluations, strict=True):
            training = InStep(engine, number, epochs)
            training.group, training.evaluation = group, evaluation
            trainings.append(training)
    many.fit_many(trainings, 1, n_at_once=4)
    assert engine.seen == [[0, 1, 2, 3], [0, 1, 2, 3], [2, 3]]
    assert sorted(met) == sorted([[0, 1]] * 4 + [[2, 3]] * 6)
