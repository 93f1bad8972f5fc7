"""Displays of losses: shapes over the prediction, surfaces over weights, paths of descent on both."""

import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import expit, huber
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.data.targets import CLASSIFIER_LOSSES, REGRESSOR_LOSSES
from fastmlp.displays import LossShapeDisplay, LossSurfaceDisplay
from fastmlp.kernels import reference

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@fastmlp.loss
def cauchy(y, p):
    return log1p((y - p) * (y - p))  # noqa: F821


@fastmlp.loss(link="exp")
def inverse_gaussian(y, p):
    return (y - p) * (y - p) / (y * p * p)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# --- LossShapeDisplay -------------------------------------------------------------------------------------------------

P = np.array([0.2, 0.4, 0.9])
SHAPES = {
    "log loss": ("log_loss", 1, lambda p: -np.log(p)),
    "log loss of class 0": ("log_loss", 0, lambda p: -np.log(1 - p)),
    "smoothed": (("log_loss", {"label_smoothing": 0.2}), 1, lambda p: -0.9 * np.log(p) - 0.1 * np.log(1 - p)),
    "focal": (("focal", {"gamma": 1.0}), 1, lambda p: -(1 - p) * np.log(p)),
    "hinge": ("hinge", 0, lambda p: np.maximum(0, 1 + p)),
    "squared_hinge": ("squared_hinge", 1, lambda p: np.maximum(0, 1 - p) ** 2),
    "squared_error": ("squared_error", 3, lambda p: (p - 3) ** 2 / 2),
    "absolute_error": ("absolute_error", 3, lambda p: np.abs(p - 3)),
    "huber": (("huber", {"delta": 0.3}), 0.5, lambda p: huber(0.3, p - 0.5)),
    "log_cosh": ("log_cosh", 0, lambda p: np.log(np.cosh(p))),
    "quantile": (("quantile", {"quantile": 0.9}), 0, lambda p: 0.1 * p),
    "poisson": ("poisson", 2, lambda p: 2 * np.log(2 / p) - 2 + p),
    "gamma": ("gamma", 2, lambda p: np.log(p / 2) + 2 / p - 1),
    "kl_divergence": ("kl_divergence", 0.3, lambda p: 0.3 * np.log(0.3 / p) + 0.7 * np.log(0.7 / (1 - p))),
    "own": (cauchy, 1, lambda p: np.log1p((1 - p) ** 2)),
    "own with a link": (inverse_gaussian, 2, lambda p: (2 - p) ** 2 / (2 * p * p)),
}  # fmt: skip


@pytest.mark.parametrize("loss", [*CLASSIFIER_LOSSES, *REGRESSOR_LOSSES])
def test_every_loss_has_a_shape(loss):
    """The reference computes the same, and the slopes are those of the curve."""
    display = LossShapeDisplay.from_loss(loss, prediction=np.linspace(0.41, 0.43, 9))
    judge = LossShapeDisplay.from_loss(loss, prediction=display.x, backend="reference")
    np.testing.assert_allclose(display.loss, judge.loss, rtol=1e-12)
    np.testing.assert_allclose(np.gradient(display.loss[0], display.x)[1:-1], display.slope[0][1:-1], rtol=1e-3)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("case", SHAPES)
def test_shapes_are_the_losses(case, backend):
    loss, y, f = SHAPES[case]
    display = LossShapeDisplay.from_loss(loss, y, prediction=P, backend=backend)
    np.testing.assert_allclose(display.loss[0], f(P), rtol=1e-10)
    differences = [approx_fprime([p], lambda x: float(f(x[0])), 1e-7)[0] for p in P]
    np.testing.assert_allclose(display.slope[0], differences, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(display.lines_[0].get_xydata(), np.column_stack([P, display.loss[0]]))
    np.testing.assert_array_equal(display.slope_lines_[0].get_ydata(), display.slope[0])
    # the default range can be drawn
    assert np.isfinite(LossShapeDisplay.from_loss(loss).loss).all()


def test_known_cross_entropies():
    """Of the true class's probabilities 0.3 and 0.5."""
    display = LossShapeDisplay.from_loss("log_loss", prediction=[0.3, 0.5])
    np.testing.assert_allclose(display.loss[0], [1.20397, 0.69315], atol=5e-6)


def test_slopes_over_logits_begin_backpropagation():
    display = LossShapeDisplay.from_loss("log_loss", [0, 1], over="logit")
    np.testing.assert_allclose(display.slope, [expit(display.x), expit(display.x) - 1], atol=1e-12)
    assert display.ax_.get_xlabel() == "logit" and [*display.y] == [0, 1]
    poisson = LossShapeDisplay.from_loss("poisson", 3.0, over="logit")
    np.testing.assert_allclose(poisson.slope[0], np.exp(poisson.x) - 3, atol=1e-10)


def test_a_pole_leaves_the_loss_visible():
    low, high = LossShapeDisplay.from_loss("log_loss").ax_.get_ylim()
    assert low > -10 and high < 10  # the slope falls to -100


def test_shapes_of_estimators():
    reg = MLPRegressor(loss=("huber", {"delta": 0.5}))  # not fitted
    display = LossShapeDisplay.from_estimator(make_pipeline(StandardScaler(), reg), slope=False, linewidth=3)
    assert display.name == "huber" and display.slope_lines_ == [] and display.lines_[0].get_linewidth() == 3
    np.testing.assert_allclose(display.loss, LossShapeDisplay.from_loss(reg.loss).loss)
    assert LossShapeDisplay.from_estimator(MLPClassifier(loss="hinge"), y=[0, 1]).loss.shape == (2, 401)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "logloss"}, "loss='logloss' is unknown"),
        ({"loss": ("huber", {"delta": -1})}, "delta must be in"),
        ({"over": "z"}, "over must be 'prediction' or 'logit', got 'z'"),
        ({"loss": "log_loss", "y": 0.5}, r"y must be 0 or 1, the class, got \[0.5\]"),
        ({"loss": "kl_divergence", "y": 2}, r"y must be in \[0, 1\], the probability of the first category"),
        ({"loss": "gamma", "y": 0}, "y must be > 0 with loss='gamma'"),
        ({"y": "one"}, "y must be a vector of numbers"),
        ({"y": []}, "y must be a vector of finite numbers"),
        ({"loss": "log_loss", "prediction": [0.0, 1.0]}, r"prediction must be in \(0, 1\)"),
        ({"loss": "poisson", "prediction": [0.0]}, "prediction must be > 0"),
        ({"prediction": [np.nan]}, "prediction must be a vector of finite numbers"),
        ({"backend": "abacus"}, "backend='abacus' is unknown"),
    ],
)
def test_shapes_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        LossShapeDisplay.from_loss(**{"loss": "squared_error"} | options)


# --- LossSurfaceDisplay: functions ------------------------------------------------------------------------------------


def parabola(x):
    return 3 * x**2 - 3 * x + 4


def waves(x):
    return math.cos(2 * math.pi * x) + x**2


def bowl(x, y):
    return x**2 + 5 * y**2


def test_descent_on_functions_of_one_variable():
    display = LossSurfaceDisplay.from_function(parabola, (-2, 3)).descend(-1.5, learning_rate=0.1)
    np.testing.assert_allclose(display.loss, parabola(display.axes[0]))
    path = display.paths["rate 0.1"]
    assert path[0] == -1.5 and path[-1] == pytest.approx(0.5, abs=1e-6)
    # x - 1/2 shrinks by 1 - 6 rate in each step
    np.testing.assert_allclose(path[:, 0] - 0.5, -2 * 0.4 ** np.arange(51), atol=1e-6)
    np.testing.assert_allclose(display.path_losses["rate 0.1"], parabola(path[:, 0]))
    np.testing.assert_array_equal(display.path_lines_["rate 0.1"].get_xdata(), path[:, 0])


def test_unfortunate_starts():
    display = LossSurfaceDisplay.from_function(waves, (-2, 2))
    display.descend(0, learning_rate=0.02).descend(0.1, learning_rate=0.02).descend(
        1.8, learning_rate=0.02, label="far"
    )
    ends = [path[-1, 0] for path in display.paths.values()]
    assert ends[0] == 0  # a maximum, whose slope is 0
    assert math.isnan(display.ratios["rate 0.02"])
    assert ends[1] == pytest.approx(0.4757, abs=1e-3) and ends[2] == pytest.approx(1.425, abs=1e-3)
    assert [*display.paths] == ["rate 0.02", "rate 0.02, from 0.1", "far"]


def test_rates_and_momentum():
    display = LossSurfaceDisplay.from_function(bowl, (-2, 2), (-1, 3), grid_resolution=5)
    assert display.loss.shape == (5, 5) and display.loss[4, 0] == bowl(-2, 3)
    display.descend((1, 1), learning_rate=lambda step: 0.1 / (1 + step), n_steps=3)
    factors = np.cumprod([1, *(1 - 0.2 / (1 + np.arange(3)))])
    np.testing.assert_allclose(display.paths["changing rate"][:, 0], factors, rtol=1e-7)
    display.descend((1, 1), learning_rate=0.05, momentum=0.5, n_steps=2)
    # v1 = -0.1, v2 = -0.05 - 0.09
    np.testing.assert_allclose(display.paths["rate 0.05, momentum 0.5"][:, 0], [1, 0.9, 0.76], rtol=1e-7)


def test_a_gradient_of_ones_own_is_used():
    display = LossSurfaceDisplay.from_function(
        bowl, (-2, 2), (-2, 2), gradient=lambda x, y: (1.0, 0.0), grid_resolution=3
    )
    path = display.descend((1, 1), learning_rate=0.5, n_steps=2, label="own").paths["own"]
    np.testing.assert_array_equal(path, [[1, 1], [0.5, 1], [0, 1]])
    assert display.ratios["own"] == 1
    wrong = LossSurfaceDisplay.from_function(bowl, (-2, 2), (-2, 2), gradient=lambda x, y: x, grid_resolution=3)
    with pytest.raises(ValueError, match=r"gradient must return 2 numbers, got shape \(1,\)"):
        wrong.descend((1, 1))


def test_a_rate_too_large_ends_where_numbers_do():
    display = LossSurfaceDisplay.from_function(lambda x: x**4, (-2, 2)).descend(1.5, learning_rate=1.0)
    (path,) = display.paths.values()
    assert np.isfinite(path).all() and len(path) < 51
    assert display.ax_.get_xlim() == (-2, 2)  # the picture stays where the function is shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": (2, 1)}, r"x must be a range \(low, high\) with low < high, got \(2, 1\)"),
        ({"x": 3}, "x must be a range"),
        ({"y": (0, np.inf)}, "y must be a range"),
        ({"grid_resolution": 1}, "grid_resolution must be an integer >= 2, got 1"),
        ({"function": lambda: 1}, "must map 1 numbers to a number"),
        ({"function": lambda x: [1, 2]}, "function must"),
        ({"function": lambda x: math.nan}, "nowhere finite"),
        ({"levels": 1, "y": (0, 1), "function": bowl}, "levels must be an integer >= 2"),
    ],
)
def test_functions_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        LossSurfaceDisplay.from_function(**{"function": parabola, "x": (0, 1)} | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": (1, 2)}, "start must hold 1 finite numbers"),
        ({"start": np.nan}, "start must hold 1 finite numbers"),
        ({"learning_rate": 0}, "learning_rate must be a number > 0 or a function"),
        ({"learning_rate": "fast"}, "learning_rate must be"),
        ({"learning_rate": lambda step: "a"}, "learning_rate must return a number"),
        ({"momentum": "a"}, r"momentum must be in"),
        ({"n_steps": 0}, "n_steps must be an integer >= 1, got 0"),
        ({"momentum": 1}, r"momentum must be in \[0, 1\), got 1"),
    ],
)
def test_descents_are_checked(options, message):
    display = LossSurfaceDisplay.from_function(parabola, (0, 1))
    with pytest.raises(ValueError, match=message):
        display.descend(**{"start": 1} | options)
    assert display.paths == {}


# --- LossSurfaceDisplay: networks -------------------------------------------------------------------------------------

RATES = (0.05, 0.3, 0.5)  # of 1, 16 and 200 rows

rng = np.random.RandomState(0)
X = rng.normal(size=(200, 1))
X = (X - X.mean()) / X.std()
y = 2 * X.ravel() + 1 + rng.normal(scale=0.5, size=200)


def line(**options):
    """A line: one weight and a bias, whose loss is a round bowl, because X is standardised."""
    fixed = {"hidden_layer_sizes": (), "solver": "sgd", "momentum": 0.0, "alpha": 0.0, "random_state": 0}
    return MLPRegressor(**fixed | options)


def test_the_surface_of_a_line_is_its_squared_error():
    weights = ("coefs_[0][0, 0]", "intercepts_[0][0]")
    model = line().initialize(X, y)
    before = [w.copy() for w in model.get_weights()]
    display = LossSurfaceDisplay.from_estimator(model, X, y, weights=weights, grid_resolution=4, span=0.5)
    a, b = display.axes
    errors = a[None, :, None] * X.ravel() + b[:, None, None] - y
    np.testing.assert_allclose(display.loss, (errors**2).mean(axis=-1) / 2, rtol=1e-10)
    assert (a[0], a[-1]) == pytest.approx((before[0][0, 0] - 0.5, before[0][0, 0] + 0.5))
    assert display.names == weights
    for now, then in zip(model.get_weights(), before, strict=True):  # it is left as it was
        np.testing.assert_array_equal(now, then)
    alone = LossSurfaceDisplay.from_estimator(model, X, y, weights=weights[1], grid_resolution=3)
    errors = before[0] * X.ravel() + alone.axes[0][:, None] - y
    np.testing.assert_allclose(alone.loss, (errors**2).mean(axis=-1) / 2, rtol=1e-10)


def test_random_directions_are_filter_normalised():
    """The centre is the network's loss; at -1 along d the weights are W - D, with neurons of the same norm."""
    clf = MLPClassifier((3, 2), "tanh", max_iter=5, random_state=0).fit(X, y > 0)
    display = LossSurfaceDisplay.from_estimator(clf, X, y > 0, grid_resolution=3, random_state=0)
    assert display.loss[1, 1] == pytest.approx(clf.loss_and_gradients(X, y > 0).loss)
    draws, moved = np.random.RandomState(0), []
    for W in clf.get_weights():
        D = draws.normal(size=W.shape)
        moved.append(W - (D * np.linalg.norm(W, axis=0) / np.linalg.norm(D, axis=0) if W.ndim == 2 else 0))
    clf.set_weights(moved)
    assert display.loss[1, 0] == pytest.approx(clf.loss_and_gradients(X, y > 0).loss)
    curve = LossSurfaceDisplay.from_estimator(
        clf, X, y > 0, directions=1, normalize=False, grid_resolution=7, random_state=0
    )
    assert curve.loss.shape == (7,) and curve.contours_ is None and curve.line_ is not None


def test_paths_of_batches():
    """Length over distance of two epochs on 200 rows of a line, at a rate that suits each size of batches.

    The steps of smaller batches are noisier, and there are more of them.  All rows at once go straight on a round bowl.
    """
    sizes = (1, 16, None)
    display = LossSurfaceDisplay.from_training(
        line(), X, y, batch_sizes=sizes, n_epochs=2, learning_rates=RATES, grid_resolution=5, random_state=0
    )
    ratios = [*display.ratios.values()]
    assert [*display.paths] == ["single samples", "batches of 16", "all rows"]
    assert [len(path) - 1 for path in display.paths.values()] == [400, 26, 2]
    np.testing.assert_allclose(ratios, [6.6, 1.4, 1.0], rtol=0.1)
    assert display.names == ("coefs_[0][0, 0]", "intercepts_[0][0]")
    starts = np.array([path[0] for path in display.paths.values()])
    np.testing.assert_array_equal(starts, starts[[0, 0, 0]])
    # all rows: w <- w - rate gradient, by hand
    w = starts[0].copy()
    for point in display.paths["all rows"][1:]:
        errors = w[0] * X.ravel() + w[1] - y
        w -= RATES[2] * np.array([(errors * X.ravel()).mean(), errors.mean()])
        np.testing.assert_allclose(point, w, rtol=1e-10)


def test_components_of_paths_hold_them():
    """A path within a plane is drawn at its true distances from the centre."""
    model = MLPRegressor(hidden_layer_sizes=(3,), random_state=0, max_iter=3).fit(X, y)
    centre, draws = model.get_weights(), np.random.RandomState(1)
    u, v = ([draws.normal(size=w.shape) for w in centre] for _ in range(2))
    steps = [(0.0, 0.0), (1.0, 0.0), (1.0, 2.0), (-1.0, 0.5)]
    path = [[w + s * a + t * b for w, a, b in zip(centre, u, v, strict=True)] for s, t in steps]
    display = LossSurfaceDisplay.from_estimator(
        model, X, y, directions="paths", paths={"mine": path}, grid_resolution=3
    )
    flat = np.array([np.concatenate([w.ravel() for w in point]) for point in path])
    drawn = display.paths["mine"]
    np.testing.assert_allclose(np.linalg.norm(drawn - drawn[0], axis=1), np.linalg.norm(flat - flat[0], axis=1))
    for axis, column in zip(display.axes, drawn.T, strict=True):
        assert axis[0] < column.min() and column.max() < axis[-1]
    model.set_weights(path[2])
    assert display.path_losses["mine"][2] == pytest.approx(model.loss_and_gradients(X, y).loss)


def test_surfaces_behind_a_scaler():
    pipeline = make_pipeline(StandardScaler(), line(max_iter=3)).fit(5 * X, y)
    display = LossSurfaceDisplay.from_estimator(pipeline, 5 * X, y, weights="intercepts_[0][0]", grid_resolution=3)
    assert display.loss[1] == pytest.approx(pipeline[-1].loss_and_gradients(X, y).loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "coefs_[0][3, 0]"}, r"weights must be written as .*got 'coefs_\[0\]\[3, 0\]'"),
        ({"weights": "coefs_[1][0, 0]"}, "weights must be written"),
        ({"weights": "coefs_[0][0]"}, "weights must be written"),
        ({"weights": [0, 1]}, "weights must be written"),
        ({"weights": ["coefs_[0][0, 0]"] * 2}, "weights must name two weights"),
        ({"weights": []}, "weights must name one weight or two"),
        ({"directions": 3}, r"directions must be 1, 2 or 'paths', got 3"),
        ({"directions": "paths"}, 'directions="paths" needs paths'),
        ({"span": 0}, "span must be a number > 0, got 0"),
        ({"grid_resolution": 1.5}, "grid_resolution must be an integer >= 2"),
        ({"paths": {"mine": [[np.zeros(2)]]}}, "path must have the shapes"),
        ({"paths": {"mine": []}}, "a path must hold weights"),
        ({"paths": [1]}, "paths must be a dict"),
        ({"paths": {"mine": [1, 2]}}, "path must have the shapes"),
        ({"weights": 5}, "weights must name one weight or two"),
    ],
)  # fmt: skip
def test_surfaces_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        LossSurfaceDisplay.from_estimator(line().initialize(X, y), X, y, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_sizes": [0]}, r"batch_sizes must be integers in \[1, 200\], got 0"),
        ({"batch_sizes": [201]}, r"batch_sizes must be integers in \[1, 200\], got 201"),
        ({"batch_sizes": []}, "batch_sizes must hold"),
        ({"n_epochs": 0}, "n_epochs must be an integer >= 1"),
        ({"learning_rates": [0.1]}, "learning_rates must hold one for each of the 3 batch_sizes"),
    ],
)
def test_trainings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        LossSurfaceDisplay.from_training(line(), X, y, **options)


def test_a_surface_of_a_network_has_no_function():
    display = LossSurfaceDisplay.from_estimator(line().initialize(X, y), X, y, grid_resolution=2)
    with pytest.raises(ValueError, match="descend needs a display made by from_function"):
        display.descend((0, 0))


def test_losses_of_rows_are_the_references():
    from fastmlp.engines import backends, by_name

    logits = np.random.RandomState(0).normal(size=(4, 3))
    labels = np.array([0, 2, 1, 1])
    values, deltas = by_name.losses(backends.get("auto"), "log_loss", logits, labels)
    mean, delta = reference.loss("log_loss", logits, labels)
    assert values.mean() == pytest.approx(mean)
    np.testing.assert_allclose(deltas, delta, rtol=1e-12)


def test_what_cannot_be_trained_in_copies():
    for estimator in (make_pipeline(StandardScaler(), line()), StandardScaler()):
        with pytest.raises(TypeError, match="MLPClassifier or MLPRegressor"):
            LossSurfaceDisplay.from_training(estimator, X, y)
