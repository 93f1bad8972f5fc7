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
from typing import ClassVar

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context, clone
from sklearn.datasets import load_digits, load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastmlp import MLPClassifier, MLPRegressor, callbacks, checkpoint, progress, sklearn_callbacks
from fastmlp.callbacks import Checkpoint, EpochInfo, LearningRateFinder, Logging, ProgressBar, TimeLimit, watching


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


class SklearnRecorder:
    """scikit-learn's FitCallback protocol."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at, self.models = [], stop_at, []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        empty = X is None
        self.calls.append(("end", "empty" if empty else context.task_name))
        if not empty:
            self.models.append((fitted_estimator, X, y, metadata))
        return context.parent is not None and context.task_id + 1 == self.stop_at


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
    assert repr(limit) == "TimeLimit(2.5)"


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_time_limit_must_be_positive(seconds):
    with pytest.raises(ValueError, match=r"seconds must be > 0"):
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
    assert progress._DISPLAY.progress is None and progress._DISPLAY._n_bars == 0
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
    assert progress._DISPLAY.progress.tasks[0].completed == 5
    bar.on_fit_end(estimator)
    train([ProgressBar()], [3, 2], first=6)
    assert "6/7" in terminal.getvalue() or "7/7" in terminal.getvalue()
    assert_nothing_is_drawn()


def test_progress_bars_of_inner_fits_vanish(terminal):
    inner = []

    def fit_within(info):
        train([ProgressBar(), lambda info: inner.append(len(progress._DISPLAY.progress.tasks)) or False], [1, 1])
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
import fastmlp.callbacks
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


# ------------------------------------------------------------------------------- LearningRateFinder


def _finder(losses, **parameters):
    """A range test that has seen these losses."""
    finder = LearningRateFinder(None, n_steps=max(10, len(losses)), **parameters)
    finder._steps = lambda X, y, sample_weight: iter(losses)
    return finder.fit(None, None)


def test_suggestion_is_where_the_loss_falls_fastest():
    decades = np.linspace(-6, 1, 141)
    losses = 1 - 0.9 / (1 + np.exp(-4 * (decades + 2.5))) + 10.0 ** (3 * (decades - 0.1))  # steepest at 10^-2.5
    finder = _finder(losses)
    assert finder.rates[0] == pytest.approx(1e-6) and finder.rates[20] == pytest.approx(1e-5)
    assert np.log10(finder.suggestion) == pytest.approx(-2.5, abs=0.1)
    noisy = _finder(losses + np.random.RandomState(0).normal(scale=0.02, size=len(losses)))
    assert np.log10(noisy.suggestion) == pytest.approx(-2.5, abs=0.5)


def test_range_test_stops_on_divergence():
    finder = _finder([*np.linspace(1, 0.5, 30), *([50.0] * 30)])
    assert 30 < len(finder.losses) < 35
    assert len(finder.rates) == len(finder.smoothed) == len(finder.losses)
    finder = _finder([*np.linspace(1, 0.5, 30), math.nan, 1.0])
    assert len(finder.losses) == 30 and np.isfinite(finder.smoothed).all()
    falling_below_zero = _finder(np.linspace(1, -3, 50))
    assert len(falling_below_zero.losses) == 50


def test_no_suggestion_without_descent():
    with pytest.raises(ValueError, match=r"did not fall between the rates 1e-06 and"):
        _ = _finder(np.linspace(1, 2, 20)).suggestion
    with pytest.raises(ValueError, match="did not fall"):
        _ = _finder([1.0]).suggestion
    with pytest.raises(ValueError, match="not finite before the first step"):
        _finder([math.inf])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"min_rate": 0}, "min_rate < max_rate"),
        ({"min_rate": 1, "max_rate": 0.1}, "min_rate < max_rate"),
        ({"max_rate": math.inf}, "min_rate < max_rate"),
        ({"n_steps": 3}, "n_steps must be >= 10"),
        ({"smoothing": 0}, "smoothing must be > 0"),
    ],
)
def test_range_test_checks_its_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        LearningRateFinder(None, **parameters)


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def test_plot(pyplot):
    finder = _finder(np.linspace(2, 1, 30))
    ax = finder.plot()
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "learning rate"
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), finder.smoothed)
    assert "steepest" in ax.get_legend().get_texts()[-1].get_text()
    _, mine = pyplot.subplots()
    assert _finder(np.linspace(1, 2, 30)).plot(mine) is mine  # nothing to suggest
    assert len(mine.lines) == 2


def test_plot_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "fastmlp\[plot\]"'):
        _finder(np.linspace(2, 1, 30)).plot()


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("task", ["classes", "labels", "values"])
def test_range_test_of_estimators(solver, task):
    X, digits = load_digits(return_X_y=True)
    X = X / 16
    parameters = {"hidden_layer_sizes": (20,), "solver": solver, "random_state": 0}
    if task == "values":
        estimator, y = MLPRegressor(**parameters), digits / 10
    else:
        estimator = MLPClassifier(**parameters, class_weight=None if task == "labels" else "balanced")
        y = np.stack([digits % 2, digits > 4], axis=1).astype(int) if task == "labels" else digits.astype(str)
    before = repr(estimator.get_params())
    finder = LearningRateFinder(estimator).fit(X, y, sample_weight=np.ones(len(X)))
    again = LearningRateFinder(estimator).fit(X, y, sample_weight=np.ones(len(X)))
    np.testing.assert_array_equal(finder.losses, again.losses)
    assert 1e-4 <= finder.suggestion <= 3 and len(finder.losses) > 50
    assert repr(estimator.get_params()) == before and not hasattr(estimator, "coefs_")


def test_range_test_uses_the_rates_that_it_reports():
    X, y = load_iris(return_X_y=True)
    used = []

    class Telling(MLPClassifier):
        def partial_fit(self, *args, **kwargs):
            super().partial_fit(*args, **kwargs)
            used.append(self.history_["learning_rate"][-1])

    finder = LearningRateFinder(Telling((4,), solver="sgd", random_state=0), n_steps=20).fit(X, y)
    n = len(finder.rates)
    assert n > 10
    np.testing.assert_allclose(finder.rates, np.geomspace(1e-6, 10, 20)[:n])
    np.testing.assert_allclose(used[:n], finder.rates)


def test_range_test_refuses_what_has_no_rate():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="solver='lbfgs' has no learning rate"):
        LearningRateFinder(MLPClassifier(solver="lbfgs")).fit(X, y)
    with pytest.raises(ValueError, match="inconsistent"):
        LearningRateFinder(MLPClassifier()).fit(X, y[:-1])
    X[70] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        LearningRateFinder(MLPClassifier(random_state=0)).fit(X, y)


# ------------------------------------------------------------------------------- scikit-learn's protocol

has_protocol = pytest.mark.skipif(
    not hasattr(sklearn_callbacks.CallbackSupportMixin, "set_callbacks"), reason="scikit-learn < 1.9"
)


class Toy(sklearn_callbacks.CallbackSupportMixin, ClassifierMixin, BaseEstimator):
    """Trains as the real estimators do; learns nothing but how many epochs it did."""

    _parameter_constraints: ClassVar[dict] = {}

    def __init__(self, max_iter=5, converges_at=None, fails_at=None):
        self.max_iter, self.converges_at, self.fails_at = max_iter, converges_at, fails_at

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        with (
            sklearn_callbacks.fit_task(self, X, y, sample_weight) as more,
            watching(more, self) as after_epoch,
        ):
            for epoch in range(1, self.max_iter + 1):
                if epoch == self.fails_at:
                    raise RuntimeError("as told")
                self.n_iter_ = epoch
                info = EpochInfo(epoch, self.max_iter, 1.0, None, None, 0.1, 0.0, self, dict)
                if after_epoch(info) or epoch == self.converges_at:
                    break
        return self

    def predict(self, X):
        return np.where(np.arange(len(X)) < self.n_iter_, self.classes_[-1], self.classes_[0])


X5, Y5 = np.arange(5.0).reshape(5, 1), np.array([0, 1, 1, 1, 1])
EPOCH = [("begin", "epoch"), ("end", "epoch")]
FIT = ["setup", ("begin", "fit")], [("end", "fit"), "teardown"]


@has_protocol
def test_epochs_are_subtasks_of_the_fit():
    recorder = SklearnRecorder()
    toy = Toy(max_iter=3).set_callbacks(recorder)
    toy.fit(X5, Y5, np.ones(5))
    assert recorder.calls == [*FIT[0], *EPOCH * 3, *FIT[1]]
    models, Xs, ys, metadata = zip(*recorder.models, strict=True)
    assert [model.n_iter_ for model in models] == [1, 2, 3, 3] and toy not in models
    assert all(X is X5 for X in Xs) and all(y is Y5 for y in ys)
    assert all(list(data) == ["sample_weight"] for data in metadata)
    assert not {"_callback_fit_ctx", "_skl_callbacks_to_teardown"} & set(vars(toy))


@has_protocol
def test_a_scikit_learn_callback_stops_training():
    recorder = SklearnRecorder(stop_at=2)
    assert Toy().set_callbacks(recorder).fit(X5, Y5).n_iter_ == 2
    assert recorder.calls == [*FIT[0], *EPOCH * 2, *FIT[1]]


@has_protocol
def test_an_epoch_that_was_begun_and_never_ran_ends_empty():
    recorder = SklearnRecorder()
    Toy(converges_at=2).set_callbacks(recorder).fit(X5, Y5)
    assert recorder.calls == [*FIT[0], *EPOCH * 2, ("begin", "epoch"), ("end", "empty"), *FIT[1]]


@has_protocol
def test_a_failed_fit_is_torn_down():
    recorder = SklearnRecorder()
    with pytest.raises(RuntimeError, match="as told"):
        Toy(fails_at=2).set_callbacks(recorder).fit(X5, Y5)
    assert recorder.calls == [*FIT[0], *EPOCH, ("begin", "epoch"), "teardown"]


def test_without_callbacks_nothing_is_done():
    class Bare(BaseEstimator):
        """Not even a mixin: whatever fit_task touched would fail."""

    with sklearn_callbacks.fit_task(Bare(), X5, Y5) as more:
        assert more == ()
    toy = Toy().fit(X5, Y5)
    assert set(vars(toy)) == {"max_iter", "converges_at", "fails_at", "classes_", "n_iter_"}


CLASSIFIERS = [
    pytest.param(Toy(), id="toy"),
    pytest.param(MLPClassifier((4,), max_iter=5, random_state=0), id="MLPClassifier"),
]


@has_protocol
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", CLASSIFIERS)
def test_scikit_learns_scoring_monitor(estimator):
    from sklearn.callback import ScoringMonitor

    X, y = load_iris(return_X_y=True)
    monitor = ScoringMonitor(scoring="accuracy")
    fitted = clone(estimator).set_callbacks(monitor).fit(X, y)
    rows = monitor.get_logs().data
    scores = [row["accuracy"] for row in rows if len(row["task_id_path"]) == 2]
    assert len(scores) == 5 and rows[-1]["accuracy"] == scores[-1] == fitted.score(X, y)


@has_protocol
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", CLASSIFIERS)
@pytest.mark.parametrize("in_pipeline", [False, True])
def test_scikit_learns_progress_bar(estimator, in_pipeline, capsys):
    from sklearn.callback import ProgressBar

    X, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), clone(estimator)) if in_pipeline else clone(estimator)
    model.set_callbacks(ProgressBar()).fit(X, y)
    drawn = capsys.readouterr().out
    assert f"{type(estimator).__name__} - fit" in drawn and "100%" in drawn


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
