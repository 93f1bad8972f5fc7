"""The perceptron, losses of the user's own for classifiers, and numbers that textbooks work out by hand."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import Perceptron
from sklearn.metrics import log_loss

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.datasets import make_qwerties
from fastmlp.engines import backends, by_name

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

rng = np.random.RandomState(1)
X = rng.randn(80, 4)
Y = np.array(["a", "b", "c"])[(X[:, :3] + 0.5 * rng.randn(80, 3)).argmax(axis=1)]
BINARY = Y == "a"
LABELS = (X[:, :2] + 0.5 * rng.randn(80, 2) > 0).astype(int)

SGD = {"solver": "sgd", "momentum": 0.0, "alpha": 0.0, "tol": 0.0, "n_iter_no_change": np.inf, "random_state": 0}


@pytest.fixture(params=backends.available())
def engine(request):
    return backends.get(request.param)


# --- the perceptron ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["cython", "reference"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("y", [BINARY, Y], ids=["two classes", "three classes"])
def test_perceptron_is_scikit_learns(backend, bias, y):
    """Weights that begin with 0 and change by rows, one at a time, on the wrong side or on the boundary."""
    judge = Perceptron(max_iter=7, tol=None, shuffle=False, eta0=0.5, fit_intercept=bias).fit(X, y)
    single = {"hidden_layer_sizes": (), "batch_size": 1, "shuffle": False, "learning_rate_init": 0.5, "max_iter": 7}
    ours = MLPClassifier(loss="perceptron", fit_intercept=bias, backend=backend, **SGD | single)
    zeros = np.zeros_like(judge.coef_.T)
    ours.fit(X, y, coef_init=[zeros], intercept_init=[zeros[0]] if bias else None)
    np.testing.assert_allclose(ours.coefs_[0].T, judge.coef_, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.intercepts_[0], judge.intercept_, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(ours.predict(X), judge.predict(X))
    np.testing.assert_allclose(ours.decision_function(X), judge.decision_function(X), rtol=1e-10, atol=1e-12)


def test_perceptron_stops_where_all_rows_are_right():
    """The convergence theorem: on separable rows the loss becomes 0, and then nothing changes."""
    points, labels = make_qwerties(60, noise=0.15, random_state=0)
    model = MLPClassifier((), loss="perceptron", batch_size=1, max_iter=30, learning_rate_init=1.0, **SGD).fit(
        points, labels
    )
    assert model.score(points, labels) == 1.0 and model.loss_curve_[-1] == 0.0
    weights = model.coefs_[0].copy()
    np.testing.assert_array_equal(model.partial_fit(points, labels).coefs_[0], weights)


# --- formulas ---------------------------------------------------------------------------------------------------------


@fastmlp.loss
def logistic_loss(y, z):
    return maximum(z, 0) - y * z + log1p(exp(-abs(z)))  # noqa: F821


@fastmlp.loss(link="logistic")
def cross_entropy(y, p):
    return -y * log(p) - (1 - y) * log(1 - p)  # noqa: F821


@fastmlp.loss
def own_squared_hinge(y, z):
    h = maximum(0, 1 - (2 * y - 1) * z)  # noqa: F821
    return h * h


NET = {**SGD, "hidden_layer_sizes": (6,), "learning_rate_init": 0.1, "batch_size": 16, "max_iter": 5}


@pytest.mark.parametrize("backend", backends.available())
@pytest.mark.parametrize(
    ("own", "built_in", "y"),
    [
        (logistic_loss, "log_loss", BINARY),
        (cross_entropy, "log_loss", BINARY),
        (cross_entropy, "log_loss", LABELS),
        (own_squared_hinge, "squared_hinge", BINARY),
        (own_squared_hinge, "squared_hinge", Y),
    ],
    ids=lambda value: f"{value.ndim}d {value.dtype.kind}" if isinstance(value, np.ndarray) else str(value),
)
def test_the_formula_of_a_built_in_loss_gives_its_network(backend, own, built_in, y):
    ours, theirs = (MLPClassifier(loss=loss, backend=backend, **NET).fit(X, y) for loss in (own, built_in))
    for a, b in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.score(X, y) == theirs.score(X, y)


def test_kinds_of_predictions_follow_from_the_link():
    decides = MLPClassifier(loss=own_squared_hinge, **NET).fit(X, Y)
    assert decides.decision_function(X).shape == (80, 3) and not hasattr(decides, "predict_proba")
    np.testing.assert_array_equal(decides.predict(X), decides.classes_[decides.decision_function(X).argmax(axis=1)])
    knows = MLPClassifier(loss=cross_entropy, **NET).fit(X, BINARY)
    assert not hasattr(knows, "decision_function")
    np.testing.assert_allclose(knows.predict_proba(X).sum(axis=1), 1)
    assert knows.loss_ == pytest.approx(log_loss(BINARY, knows.predict_proba(X)), rel=0.1)


def test_a_formula_is_saved_cloned_and_validated(tmp_path):
    model = MLPClassifier(loss=own_squared_hinge, early_stopping=True, class_weight="balanced", **NET).fit(X, Y)
    assert clone(model).loss == own_squared_hinge
    model.save(tmp_path / "model.safetensors")
    loaded = fastmlp.load(tmp_path / "model.safetensors", trust_formulas=True)
    assert loaded.loss == own_squared_hinge
    np.testing.assert_array_equal(loaded.decision_function(X), model.decision_function(X))
    assert len(model.validation_scores_) == model.n_iter_


# --- numbers of textbooks ---------------------------------------------------------------------------------------------


def test_softmax_by_hand(engine):
    found = by_name.softmax(engine, np.array([[0.9, 0.2, 0.4]]))
    np.testing.assert_allclose(found, [[0.4754850, 0.2361188, 0.2883962]], atol=5e-8)


@pytest.mark.parametrize(("label", "expected"), [(0, 3.34901), (1, 0.349012), (2, 1.34901)])
def test_cross_entropies_of_three_logits(engine, label, expected):
    """For the logits (1, 4, 3) and each class in turn: log(e + e^4 + e^3) minus the logit of the class."""
    value, delta = by_name.loss(engine, "log_loss", np.array([[1.0, 4.0, 3.0]]), np.array([label], dtype=np.intp))
    assert value == pytest.approx(expected, abs=6e-6)
    assert delta.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("probability", "expected"), [(0.3, 1.20397), (0.5, 0.69315)])
def test_cross_entropies_of_a_probability(engine, probability, expected):
    logit = np.log(probability / (1 - probability))
    value, _ = by_name.loss(engine, "binary_log_loss", np.array([[logit]]), np.array([[1.0]]))
    assert value == pytest.approx(expected, abs=6e-6)
    both = np.log([[probability, 1 - probability]])
    value, _ = by_name.loss(engine, "log_loss", both, np.array([0], dtype=np.intp))
    assert value == pytest.approx(expected, abs=6e-6)


@fastmlp.loss
def parabola(y, p):
    return 3 * p * p - 3 * p + 4


@pytest.mark.parametrize("start", [-2.0, 0.0, 3.0])
def test_descent_on_a_parabola_ends_at_its_vertex(start):
    """3 x^2 - 3 x + 4, where x is the one weight of a neuron without bias, whose input is 1."""
    descent = {**SGD, "learning_rate_init": 0.1, "max_iter": 60, "hidden_layer_sizes": (), "fit_intercept": False}
    one = np.ones((1, 1))
    neuron = MLPRegressor(parabola, **descent).fit(one, [0.0], coef_init=[[[start]]])
    assert neuron.coefs_[0].item() == pytest.approx(0.5, abs=1e-12)
    assert neuron.loss_curve_[-1] == pytest.approx(3.25)
    first = MLPRegressor(parabola, **descent | {"max_iter": 1}).fit(one, [0.0], coef_init=[[[start]]])
    assert first.coefs_[0].item() == pytest.approx(start - 0.1 * (6 * start - 3))


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.0), (0.1, 0.475802), (-0.1, -0.475802)])
def test_descent_from_a_maximum_stays_there(engine, start, end):
    """cos(2 pi x) + x^2 has slope 0 at its maximum 0; beside it steps lead to the minimum of that side."""
    x = np.array([start])
    for _ in range(100):
        slope = -2 * np.pi * np.sin(2 * np.pi * x) + 2 * x
        by_name.update(engine, "sgd", x, slope, [], [0.01])
    assert x[0] == pytest.approx(end, abs=1e-5) and (start != 0 or x[0] == 0)
