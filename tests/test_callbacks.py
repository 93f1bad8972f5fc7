"""Callbacks: how training runs them, the ready-made ones, the range test, and scikit-learn's protocol."""

import copy
import io
import logging
import math
import multiprocessing
import pickle
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.training import callbacks, checkpoint, progress
from fastmlp.training.callbacks import Checkpoint, EpochInfo, Logging, ProgressBar, TimeLimit, watching

from helpers import SklearnRecorder


class Stub:
    """What callbacks see of an estimator."""

    def __init__(self):
        self.history_ = {"loss": [], "validation_loss": [], "score": []}


def train(watchers, losses, scores=None, validation_losses=None, estimator=None, first=1):
    """A training as callbacks see it; returns the epochs done."""
    estimator = estimator or Stub()
    scores, validation_losses = (values or [None] * len(losses) for values in (scores, validation_losses))
    epoch = first - 1
    with watching(watchers, estimator) as after_epoch:
        for loss, score, validation_loss in zip(losses, scores, validation_losses, strict=True):
            epoch += 1
            row = {"loss": loss, "validation_loss": validation_loss, "score": score}
            for name, value in row.items():
                estimator.history_[name].append(value)
            snapshot = {"epoch": epoch}
            info = EpochInfo(
                epoch=epoch,
                max_iter=first - 1 + len(losses),
                **row,
                learning_rate=0.1,
                seconds=0.01,
                estimator=estimator,
                snapshot=lambda snapshot=snapshot: snapshot,
            )
            if after_epoch(info):
                break
    return epoch


# ------------------------------------------------------------------------------- how training runs them


class Recorder:
    def __init__(self, stop_at=None, fail_at=None):
        self.calls, self.stop_at, self.fail_at = [], stop_at, fail_at

    def on_fit_begin(self, estimator):
        self.calls.append("begin")
        if self.fail_at == "begin":
            raise RuntimeError("as told")

    def __call__(self, info):
        self.calls.append(info.epoch)
        if self.fail_at == info.epoch:
            raise RuntimeError("as told")
        return info.epoch == self.stop_at

    def on_fit_end(self, estimator):
        self.calls.append("end")


def test_all_are_called_after_each_epoch():
    recorders = [Recorder(), Recorder()]
    assert train(recorders, [3, 2, 1]) == 3
    assert [recorder.calls for recorder in recorders] == [["begin", 1, 2, 3, "end"]] * 2


def test_any_of_them_stops_after_all_were_called():
    recorders = [Recorder(stop_at=2), Recorder()]
    assert train(recorders, [3, 2, 1]) == 2
    assert [recorder.calls for recorder in recorders] == [["begin", 1, 2, "end"]] * 2


def test_a_plain_function_will_do():
    seen = []
    assert train([lambda info: seen.append(info.loss)], [3, 2]) == 2
    assert train([lambda info: info.loss < 2.5], [3, 2, 1]) == 2
    assert seen == [3, 2]


def test_no_callbacks():
    assert train([], [3, 2]) == 2


def test_errors_end_those_that_were_begun():
    recorders = [Recorder(), Recorder(fail_at=2), Recorder()]
    with pytest.raises(RuntimeError, match="as told"):
        train(recorders, [3, 2, 1])
    assert [r.calls for r in recorders] == [["begin", 1, 2, "end"], ["begin", 1, 2, "end"], ["begin", 1, "end"]]
    recorders = [Recorder(), Recorder(fail_at="begin"), Recorder()]
    with pytest.raises(RuntimeError, match="as told"):
        train(recorders, [1])
    assert [r.calls for r in recorders] == [["begin", "end"], ["begin", "end"], []]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (3, "got 3"),
        ("checkpoint", "got 'checkpoint'"),
        (ProgressBar, r"ProgressBar is a class: write ProgressBar\(\.\.\.\)"),
        (SklearnRecorder(), "scikit-learn's go into set_callbacks"),
    ],
)
def test_what_is_no_callback_is_refused(wrong, message):
    with pytest.raises(TypeError, match=message):
        train([wrong], [1])


# ------------------------------------------------------------------------------- TimeLimit


def test_time_limit(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])

    def tick(info):
        now[0] += 1

    limit = TimeLimit(2.5)
    assert train([tick, limit], [1] * 10) == 3
    assert train([tick, limit], [1] * 10) == 3  # each fit has its own
    assert repr(limit) == "TimeLimit(seconds=2.5)"


@pytest.mark.parametrize("seconds", [0, -1, math.nan, "5", None])
def test_time_limit_must_be_positive(seconds):
    with pytest.raises(ValueError, match="seconds must be a number > 0"):
        TimeLimit(seconds)


# ------------------------------------------------------------------------------- Checkpoint


def test_checkpoint_keeps_the_latest(tmp_path):
    path = tmp_path / "fit.npz"
    train([Checkpoint(path)], [3, 2, 1])
    assert checkpoint.load(path) == {"epoch": 3}


def test_checkpoint_every_so_many_and_the_last(tmp_path):
    train([Checkpoint(tmp_path / "{epoch:03d}.npz", every=3)], [1] * 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["003.npz", "006.npz", "008.npz"]
    assert checkpoint.load(tmp_path / "006.npz") == {"epoch": 6}


@pytest.mark.parametrize(
    ("losses", "scores", "validation_losses", "best"),
    [
        ([3, 1, 2, 1], None, None, 2),
        ([3, 2, 1], None, [1, 3, 2], 1),
        ([3, 2, 1], [0.1, 0.3, 0.2], [3, 2, 1], 2),
        ([3, math.nan, 2, math.nan], None, None, 3),
    ],
)
def test_checkpoint_keeps_the_best(tmp_path, losses, scores, validation_losses, best):
    path = tmp_path / "best.npz"
    keeper = Checkpoint(str(path), keep_best=True)
    estimator = Stub()
    train([keeper], losses, scores, validation_losses, estimator)
    assert checkpoint.load(path) == {"epoch": best}
    # a resumed fit knows what came before it
    n = len(losses)
    worse = (scores and [0.0], validation_losses and [10])
    train([Checkpoint(path, keep_best=True)], [10], *worse, copy.deepcopy(estimator), first=n + 1)
    assert checkpoint.load(path) == {"epoch": best}
    better = (scores and [1.0], validation_losses and [0])
    train([Checkpoint(path, keep_best=True)], [0], *better, estimator, first=n + 1)
    assert checkpoint.load(path) == {"epoch": n + 1}
    # a new fit begins anew
    train([keeper], [20, 30], [0.0, 0.0] if scores else None, [30, 20] if validation_losses else None)
    assert checkpoint.load(path) == {"epoch": 2 if validation_losses and not scores else 1}


def test_checkpoint_takes_the_best_by_what_the_estimator_monitors(tmp_path):
    path, estimator = tmp_path / "best.npz", Stub()
    estimator.monitor = "loss"
    train([Checkpoint(path, keep_best=True)], [3, 2, 1], [0.1, 0.2, 0.3], [1, 0, 2], estimator)
    assert checkpoint.load(path) == {"epoch": 2}


def test_checkpoint_fails_where_it_cannot_write(tmp_path):
    with pytest.raises(FileNotFoundError):
        train([Checkpoint(tmp_path / "missing" / "fit.npz")], [1])


@pytest.mark.parametrize("path", ["{", "{}", "{0}", "{step}", "{epoch.x}", "{epoch:q}"])
def test_checkpoint_says_which_braces_it_knows(path):
    with pytest.raises(ValueError, match=r"may be \{epoch\}"):
        Checkpoint(path)


def test_checkpoint_refuses_no_epochs():
    with pytest.raises(ValueError, match="every must be >= 1"):
        Checkpoint("fit.npz", every=0)


# ------------------------------------------------------------------------------- ProgressBar


def test_progress_bar_of_an_earlier_version_draws():
    bar = object.__new__(ProgressBar)  # as unpickled: its state had other names
    vars(bar).update({"_bar": None, "_rows_before": 0, "_seconds": 0.0})
    MLPClassifier((3,), max_iter=2, callbacks=[bar]).fit([[0.0], [1.0]] * 5, [0, 1] * 5)


@pytest.fixture
def terminal(monkeypatch):
    """rich's console becomes a terminal that is a text."""
    import rich
    from rich.console import Console

    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    monkeypatch.setattr(rich, "get_console", lambda: console)
    return text


def test_progress_bar_draws_on_a_terminal(terminal):
    assert train([ProgressBar()], [3, 2.5, 0.125], [0.5, 0.5, 0.75]) == 3
    drawn = terminal.getvalue()
    assert "Stub" in drawn and "3/3" in drawn and "loss 0.125, score 0.75" in drawn


def test_progress_bar_ends_when_training_fails(terminal):
    bar = ProgressBar()
    with pytest.raises(RuntimeError, match="as told"):
        train([bar, Recorder(fail_at=2)], [3, 2])
    assert train([bar], [1, 1]) == 2


def test_two_progress_bars_at_once(terminal):
    outer, inner = ProgressBar(), ProgressBar()
    train([outer, lambda info: train([inner], [1, 1]) is None], [3, 2])
    assert "2/2" in terminal.getvalue()


def plain(drawn):
    """What was drawn without colours, and carriage returns as new lines."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn).replace("\r", "\n")


def assert_nothing_is_drawn():
    """The display is closed, and its thread has ended."""
    assert progress.DISPLAY.progress is None and progress.DISPLAY._n_bars == 0
    for thread in threading.enumerate():
        if type(thread).__name__ == "_RefreshThread":
            thread.join(5)
            assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_progress_bar_of_an_estimator(terminal):
    X, y = load_iris(return_X_y=True)
    clf = MLPClassifier(max_iter=3, early_stopping=True, callbacks=[ProgressBar()]).fit(X, y)
    last = plain(terminal.getvalue()).strip().splitlines()[-1]
    assert last.startswith("MLPClassifier") and "3/3" in last
    assert f"loss {clf.loss_:.4g}, score {clf.validation_scores_[-1]:.4g}, " in last
    rate = clf.t_ / sum(clf.history_["seconds"])
    size = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
    number, unit = re.search(r"([0-9.e+]+)([kMG]?) rows/s", last).groups()
    assert float(number) * size[unit] == pytest.approx(rate, rel=0.01)
    assert_nothing_is_drawn()


def test_progress_bar_of_a_resumed_fit_goes_on(terminal):
    estimator = Stub()
    estimator.n_iter_, estimator.max_iter = 5, 7
    bar = ProgressBar()
    bar.on_fit_begin(estimator)
    assert progress.DISPLAY.progress.tasks[0].completed == 5
    bar.on_fit_end(estimator)
    train([ProgressBar()], [3, 2], first=6)
    assert "6/7" in terminal.getvalue() or "7/7" in terminal.getvalue()
    assert_nothing_is_drawn()


def test_progress_bars_of_inner_fits_vanish(terminal):
    inner = []

    def fit_within(info):
        train([ProgressBar(), lambda info: inner.append(len(progress.DISPLAY.progress.tasks)) or False], [1, 1])
        return False

    train([ProgressBar(), fit_within], [3, 2])
    assert inner == [2] * 4
    rows = plain(terminal.getvalue()).rstrip().splitlines()
    assert "loss 2" in rows[-1]
    assert_nothing_is_drawn()


def test_progress_bars_in_threads(terminal):
    threads = [threading.Thread(target=train, args=([ProgressBar()], [1.0] * 30)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "30/30" in terminal.getvalue()
    assert_nothing_is_drawn()


def test_progress_bar_survives_interrupts(terminal):
    X, y = load_iris(return_X_y=True)

    def press(info):
        if info.epoch == 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted by user"):
        clf = MLPClassifier(callbacks=[ProgressBar(), press]).fit(X, y)
    assert clf.n_iter_ == 2
    assert_nothing_is_drawn()
    bar = ProgressBar()
    bar.on_fit_begin(Stub())
    bar.on_fit_begin(Stub())  # one that was never told of its end
    bar.on_fit_end(Stub())
    bar.on_fit_end(Stub())
    assert_nothing_is_drawn()


def test_progress_bar_beside_a_display_that_refuses(terminal, monkeypatch):
    from rich.errors import LiveError
    from rich.progress import Progress

    def refuse(self):
        raise LiveError("only one live display may be active at once")

    monkeypatch.setattr(Progress, "start", refuse)  # as rich did before 14.1
    assert train([ProgressBar()], [3, 2]) == 2
    assert_nothing_is_drawn()


class Output:
    """IPython's handle of what a cell shows."""

    def __init__(self):
        self.shown = []

    def update(self, renderable):
        self.shown.append(renderable._repr_mimebundle_((), ())["text/plain"])


def test_progress_bar_in_a_notebook(terminal, monkeypatch):
    import rich
    from rich.console import Console

    output = Output()
    displayed = SimpleNamespace(display=lambda shown, display_id: output)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=displayed))
    monkeypatch.setitem(sys.modules, "IPython.display", displayed)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # not needed
    console = Console(file=io.StringIO(), force_jupyter=True)
    monkeypatch.setattr(rich, "get_console", lambda: console)
    monkeypatch.setattr("rich.jupyter.get_console", lambda: console)
    train([ProgressBar()], [3, 2, 0.125])
    assert 2 <= len(output.shown) <= 4  # the first epoch, the end, and what lies a pause apart
    assert "3/3" in output.shown[-1] and "loss 0.125" in output.shown[-1]
    assert_nothing_is_drawn()


def test_progress_bar_is_silent_in_worker_processes(terminal, monkeypatch):
    in_worker = joblib.Parallel(n_jobs=2)(joblib.delayed(multiprocessing.parent_process)() for _ in range(1))
    assert in_worker[0] is not None  # what tells them
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: in_worker[0])
    train([ProgressBar()], [3, 2])
    assert terminal.getvalue() == ""


def test_progress_bar_is_silent_elsewhere(capsys):
    assert train([ProgressBar()], [3, 2]) == 2
    assert capsys.readouterr() == ("", "")


def test_rich_is_imported_only_to_draw():
    code = """
import sys
import fastmlp.training.callbacks
new = {"rich", "matplotlib", "sklearn"} & set(sys.modules)
assert not new, new
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------- Logging


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_logging_has_a_record_per_epoch(caplog):
    X, y = load_iris(return_X_y=True)
    clf = MLPClassifier(max_iter=3, early_stopping=True, learning_rate="cosine", callbacks=[Logging()])
    with caplog.at_level(logging.INFO, logger="fastmlp"):
        clf.fit(X, y)
    records = caplog.records
    assert [record.epoch for record in records] == [1, 2, 3]
    assert {(record.name, record.levelno, record.max_iter, record.estimator) for record in records} == {
        ("fastmlp", logging.INFO, 3, "MLPClassifier")
    }
    for name, column in clf.history_.items():
        assert [getattr(record, name) for record in records] == column
    assert records[1].getMessage().startswith(f"MLPClassifier, epoch 2 of at most 3: loss {clf.loss_curve_[1]:.6g}, ")
    assert f"score {clf.validation_scores_[1]:.6g}" in records[1].getMessage()


def test_logging_without_validation_rows(caplog):
    with caplog.at_level(logging.INFO, logger="fastmlp"):
        train([Logging()], [3])
    (record,) = caplog.records
    assert record.score is None and record.validation_loss is None
    assert record.getMessage() == "Stub, epoch 1 of at most 1: loss 3, learning rate 0.1, seconds 0.01"


def test_logging_now_and_then_and_elsewhere(caplog):
    with caplog.at_level(logging.DEBUG, logger="mine"):
        train([Logging("mine", level=logging.DEBUG, every=3)], [1] * 8)
    assert [(record.epoch, record.levelno) for record in caplog.records] == [(3, 10), (6, 10), (8, 10)]
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="fastmlp"):
        train([Logging()], [1])
    assert not caplog.records
    with pytest.raises(ValueError, match="every must be >= 1, got 0"):
        Logging(every=0)


# ------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("make", [ProgressBar, Logging, lambda: TimeLimit(9), lambda: Checkpoint("fit.npz")])
def test_ready_made_ones_can_be_copied_at_any_time(make, terminal):
    original = make()
    copies = [clone([original], safe=False)[0], pickle.loads(pickle.dumps(original))]

    def while_in_use(info):
        copies.append(copy.deepcopy(original))
        copies.append(pickle.loads(pickle.dumps(original)))

    watched = original if not isinstance(original, Checkpoint) else Recorder()
    train([watched, while_in_use], [1])
    assert {repr(one) for one in copies} == {repr(original)} and len(copies) == 4


# ------------------------------------------------------------------------------- in real estimators


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
def test_estimators_call_them(estimator):
    X, y = load_iris(return_X_y=True)
    infos = []
    recorder = Recorder(stop_at=4)
    model = estimator(hidden_layer_sizes=(4,), max_iter=9, random_state=0, callbacks=[infos.append, recorder]).fit(X, y)
    assert recorder.calls == ["begin", 1, 2, 3, 4, "end"] and model.n_iter_ == 4
    assert [info.epoch for info in infos] == [1, 2, 3, 4] and {info.max_iter for info in infos} == {9}
    assert [info.loss for info in infos] == model.loss_curve_ == model.history_["loss"]
    assert all(info.estimator is model and info.score is None and info.seconds >= 0 for info in infos)
    assert [info.learning_rate for info in infos] == model.history_["learning_rate"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_callbacks_leave_the_weights_alone(tmp_path):
    X, y = load_iris(return_X_y=True)
    watchers = [lambda info: None, ProgressBar(), TimeLimit(1000), Checkpoint(tmp_path / "fit.npz")]
    plain, watched = (MLPClassifier((4,), max_iter=9, random_state=0, callbacks=c).fit(X, y) for c in (None, watchers))
    for a, b in zip(plain.coefs_, watched.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
