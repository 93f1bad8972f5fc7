"""Displays of what goes on inside: gradients layer by layer, and what hidden units answer to."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.displays import GradientFlowDisplay, UnitDisplay

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

digits, labels = load_digits(return_X_y=True)
digits = digits / 16
rng = np.random.RandomState(0)
plane = rng.normal(size=(40, 2))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts(display):
    return [text.get_text() for text in display.ax_.texts]


# --- GradientFlowDisplay ----------------------------------------------------------------------------------------------


def deep(activation, **options):
    return MLPClassifier((32,) * 8, activation, alpha=0.0, random_state=0, **options).initialize(digits, labels)


def test_logistic_gradients_vanish_and_those_of_relu_do_not():
    display = GradientFlowDisplay.from_estimator(deep("logistic"), digits, labels)
    assert display.norms[-1] == pytest.approx(1.8e-1, rel=0.05)
    assert display.norms[0] == pytest.approx(9e-8, rel=0.1)
    assert (np.diff(display.norms) > 0).all()
    relu = GradientFlowDisplay.from_estimator(deep("relu"), digits, labels, ax=display.ax_)
    assert relu.norms.min() > 0.2 * relu.norms.max()
    assert display.ax_.get_yscale() == "log" and display.ax_ is relu.ax_
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend[0] == "logistic: 0.18 at the output, 9.3e-08 at the input" and legend[1].startswith("relu: ")
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == [*"12345678", "output"]


def test_large_first_weights_explode():
    clf = deep("relu")
    clf.set_weights([4 * w for w in clf.get_weights()])
    norms = GradientFlowDisplay.from_estimator(clf, digits[:100], labels[:100], name="four times").norms
    assert norms[0] > norms[-1] > 1


def test_norms_are_of_numpys_gradients():
    """Of a net without hidden layers: softmax minus targets, by hand."""
    clf = MLPClassifier((), alpha=0.0, max_iter=3, random_state=0).fit(digits, labels)
    weight = rng.uniform(size=len(digits))
    display = GradientFlowDisplay.from_estimator(clf, digits, labels, sample_weight=weight)
    delta = (clf.predict_proba(digits) - np.eye(10)[labels]) * weight[:, None] / weight.sum()
    np.testing.assert_allclose(display.norms, [np.linalg.norm(digits.T @ delta)])
    scaled = make_pipeline(StandardScaler(), MLPClassifier((3,), max_iter=2)).fit(digits, labels)
    piped = GradientFlowDisplay.from_estimator(scaled, digits, labels)
    alone = GradientFlowDisplay.from_estimator(scaled[-1], scaled[:-1].transform(digits), labels)
    np.testing.assert_array_equal(piped.norms, alone.norms)


def test_gradients_of_zero_are_marked():
    display = GradientFlowDisplay.from_gradients([[0.0, 0.0], [3.0, 4.0]], color="k")
    assert display.norms.tolist() == [0, 5] and display.zeros_.get_xdata().tolist() == [1]
    assert np.isnan(display.line_.get_ydata()[0]) and display.line_.get_color() == "k"
    display.figure_.canvas.draw()
    assert GradientFlowDisplay.from_gradients([[1.0], [2.0]]).zeros_ is None


@pytest.mark.parametrize("gradients", [[], [["a"]], 3])
def test_gradients_are_checked(gradients):
    with pytest.raises(ValueError, match="gradients must hold an array"):
        GradientFlowDisplay.from_gradients(gradients)


# --- UnitDisplay ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    return MLPClassifier((4, 3), "tanh", max_iter=20, random_state=0).fit(plane, plane[:, 0] * plane[:, 1] > 0)


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_maps_are_the_outputs_of_a_layer(small, layer):
    display = UnitDisplay.from_estimator(small, plane, layer=layer, grid_resolution=7)
    x, y = display.axes
    assert x[0] < plane[:, 0].min() and plane[:, 0].max() < x[-1] and len(y) == 7
    a = np.stack(np.meshgrid(x, y), axis=-1)
    for i, (W, b) in enumerate(zip(small.coefs_, small.intercepts_, strict=True)):
        z = a @ W + b
        a = np.tanh(z) if i < 2 else 1 / (1 + np.exp(-z))
        if i == layer % 3:
            break
    np.testing.assert_allclose(display.outputs, a, rtol=1e-10)
    assert texts(display) == [str(unit) for unit in display.units]
    # the first image, whose rows begin with the largest y
    mosaic = np.ma.filled(display.image_.get_array(), np.nan)
    filled = np.argwhere(~np.isnan(mosaic))
    top, left = filled.min(axis=0)
    np.testing.assert_array_equal(mosaic[top : top + 7, left : left + 7], display.outputs[::-1, :, 0])


def test_other_features_are_held_at_their_means():
    X = rng.normal(loc=(0, 5, 0, -3), size=(30, 4))
    reg = MLPRegressor(hidden_layer_sizes=(3,), activation="logistic", random_state=0).initialize(X, X[:, 0])
    display = UnitDisplay.from_estimator(reg, X, features=(2, -4), grid_resolution=5)
    assert display.names == ("feature 2", "feature 0")
    points = np.tile(X.mean(axis=0), (5, 1))
    points[:, 2], points[:, 0] = display.axes[0], display.axes[1][3]
    np.testing.assert_allclose(display.outputs[3], reg.layer_outputs(points, 0))


def test_lines_over_one_feature():
    x = np.linspace(-2, 2, 30)[:, None]
    reg = MLPRegressor(hidden_layer_sizes=(3,), random_state=0).initialize(x, x.ravel())
    display = UnitDisplay.from_estimator(reg, x, units=[2, 0], linewidth=3)
    W, b = reg.coefs_[0], reg.intercepts_[0]
    for unit, line in zip([2, 0], display.lines_, strict=True):
        np.testing.assert_allclose(line.get_ydata(), np.maximum(0, line.get_xdata() * W[0, unit] + b[unit]), atol=1e-12)
        assert line.get_label() == f"unit {unit}" and line.get_linewidth() == 3
    assert display.image_ is None and display.colorbar_ is None


def test_images_are_slopes_by_pixels():
    """Of a hidden layer: the chain rule with NumPy. Of the first one without an activation: the weights."""
    rows = digits[:60]
    clf = MLPClassifier((6, 4), "tanh", max_iter=5, random_state=0).fit(digits, labels)
    display = UnitDisplay.from_estimator(clf, rows, layer=1, image_shape=(8, 8), units=[0, 1, 2, 3])
    (V, W), (c, b) = clf.coefs_[:2], clf.intercepts_[:2]
    a = np.tanh(rows @ V + c)
    jacobian = np.einsum("pk,nk,kj,nj->npj", V, 1 - a**2, W, 1 - np.tanh(a @ W + b) ** 2)
    np.testing.assert_allclose(display.outputs.reshape(64, 4), jacobian.mean(axis=0), rtol=1e-3, atol=1e-5)
    low, high = display.image_.get_clim()
    assert -low == high and display.colorbar_ is not None
    linear = MLPClassifier((5,), "identity", max_iter=2, random_state=0).fit(digits, labels)
    shown = UnitDisplay.from_estimator(linear, digits, image_shape=(8, 8), random_state=0, colorbar=False)
    np.testing.assert_allclose(shown.outputs.reshape(64, 5), linear.coefs_[0], atol=1e-8)


def test_units_that_vary_most_are_shown():
    outputs = np.zeros((5, 5, 3))
    outputs[..., 0] = 100  # large, but flat
    outputs[..., 1] = np.arange(5)
    outputs[..., 2] = 0.1 * np.arange(5)
    assert UnitDisplay.from_outputs(outputs, (np.arange(5), np.arange(5)), units=2).units.tolist() == [1, 2]


def test_features_with_names_behind_a_scaler():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(plane, columns=["wide", "high"])
    model = make_pipeline(StandardScaler(), MLPClassifier((3,), max_iter=2)).fit(frame, plane[:, 0] > 0)
    display = UnitDisplay.from_estimator(model, frame, grid_resolution=4)
    assert display.names == ("wide", "high") and "wide" in display.ax_.get_title()
    points = np.stack(np.meshgrid(*display.axes), axis=-1).reshape(-1, 2)
    expected = model[-1].layer_outputs((points - plane.mean(axis=0)) / plane.std(axis=0), 0)
    np.testing.assert_allclose(display.outputs.reshape(-1, 3), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"X": np.zeros((3, 5))}, r"features must name one of 5 features, or two, as \(0, 1\)"),
        ({"features": 2}, "features must be one or two different numbers from 0 to 1, got 2"),
        ({"features": (0, 0)}, "features must be one or two different numbers"),
        ({"features": "x"}, "features must be"),
        ({"image_shape": (2, 2)}, "with 2 pixels"),
        ({"grid_resolution": 1}, "grid_resolution must be an integer >= 2"),
        ({"units": 0}, "units must be >= 1"),
        ({"units": [9]}, "numbers of neurons from 0 to 3"),
        ({"X": [1.0, 2.0]}, r"X must be a matrix of finite numbers, got shape \(2,\)"),
        ({"n_columns": 0}, "n_columns must be >= 1, got 0"),
    ],
)
def test_units_are_checked(small, options, message):
    with pytest.raises(ValueError, match=message):
        UnitDisplay.from_estimator(small, **{"X": plane} | options)
    with pytest.raises(IndexError, match="layer must be in"):
        UnitDisplay.from_estimator(small, plane, layer=3)


@pytest.mark.parametrize(
    ("outputs", "axes"), [(np.zeros((3, 2)), ([0, 1],)), (np.zeros((2, 2)), ()), ([[[np.nan]]], ())]
)
def test_outputs_are_checked(outputs, axes):
    with pytest.raises(ValueError, match="outputs must be finite numbers of shape"):
        UnitDisplay.from_outputs(outputs, axes)
