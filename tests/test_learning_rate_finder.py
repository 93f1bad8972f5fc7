"""LearningRateFinder: what it suggests, when its range test stops, what it refuses."""

import math
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.training.learning_rate_finder import LearningRateFinder

from tiers import each_value_once

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


@each_value_once
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("task", ["classes", "labels", "values"])
def test_range_test_of_estimators(solver, task):
    X, digits = (array[:600] for array in load_digits(return_X_y=True))
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
