"""Displays: what is drawn is what was fitted, and it can be read from 2-2-1 to 784-512-10."""

import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import neural_network
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.displays import (
    ActivationDisplay,
    ClassAccuracyDisplay,
    GradientFlowDisplay,
    LossCurveDisplay,
    LossShapeDisplay,
    LossSurfaceDisplay,
    NetworkDisplay,
    PredictionsDisplay,
    UnitDisplay,
    WeightsDisplay,
)
from fastmlp.kernels import reference

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, y = load_iris(return_X_y=True)


@fastmlp.activation
def swish(z):
    return z / (1 + exp(-z))  # noqa: F821


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def iris():
    """Validated, with a learning rate that changes."""
    frame = load_iris(as_frame=True)
    clf = MLPClassifier((5, 4), early_stopping=True, learning_rate="cosine", max_iter=30, random_state=0)
    return clf.fit(frame.data, frame.target_names[frame.target])


def random_network(widths, seed=0):
    rng = np.random.RandomState(seed)
    pairs = list(pairwise(widths))
    return [rng.normal(size=pair) for pair in pairs], [rng.normal(size=n) for _, n in pairs]


def texts(display):
    return [text.get_text() for text in display.ax_.texts]


# --- all of them ------------------------------------------------------------------------------------------------------

names = load_iris().target_names[y]

#: Display -> what from_estimator takes besides the estimator, for iris.
ALL = {
    LossCurveDisplay: ((), {}),
    NetworkDisplay: ((), {}),
    ActivationDisplay: ((), {}),
    LossShapeDisplay: ((), {}),
    WeightsDisplay: ((), {"image_shape": (2, 2)}),
    UnitDisplay: ((X,), {"features": (0, 1), "grid_resolution": 3}),
    GradientFlowDisplay: ((X, names), {}),
    LossSurfaceDisplay: ((X, names), {"grid_resolution": 2}),
    ClassAccuracyDisplay: ((X, names), {}),
    PredictionsDisplay: ((X, names), {}),
}
UNFITTED = {LossShapeDisplay}  # which draws them
ANY_ESTIMATOR = {ClassAccuracyDisplay, PredictionsDisplay}  # of any library


def test_all_displays_are_tested():
    assert {display.__name__ for display in ALL} == set(fastmlp.displays.__all__)


@pytest.mark.parametrize("display", ALL)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_conventions(display, iris):
    args, options = ALL[display]
    shown = display.from_estimator(iris, *args, **options)
    assert shown.figure_ is shown.ax_.figure
    _, (mine, other) = plt.subplots(1, 2)
    given = display.from_estimator(iris, *args, ax=mine, **options)
    assert given.ax_ is mine and given.figure_ is mine.figure
    assert given.plot(ax=other) is given and given.ax_ is other
    assert shown.plot().ax_ not in (mine, other)
    # pipelines and searches
    search = GridSearchCV(MLPClassifier((5,), max_iter=2), {"alpha": [0.1]}, cv=2)
    display.from_estimator(make_pipeline(StandardScaler(), search).fit(X, names), *args, **options)


@pytest.mark.parametrize("display", ALL)
def test_what_cannot_be_drawn(display):
    args, options = ALL[display]
    if display not in UNFITTED:
        with pytest.raises(NotFittedError):
            display.from_estimator(MLPClassifier(), *args, **options)
    if display not in ANY_ESTIMATOR:
        with pytest.raises((TypeError, ValueError), match="Ridge"):
            display.from_estimator(Ridge().fit(X, y), *args, **options)


@pytest.mark.parametrize("display", ALL)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_without_matplotlib_the_extra_is_named(display, iris, monkeypatch):
    args, options = ALL[display]
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=rf'{display.__name__}.* needs matplotlib: pip install "fastmlp\[plot\]"'):
        display.from_estimator(iris, *args, **options)


# --- LossCurveDisplay -------------------------------------------------------------------------------------------------


def test_curves_are_the_history(iris):
    display = LossCurveDisplay.from_estimator(iris)
    assert list(display.lines_) == ["loss", "validation_loss", "score", "learning_rate"]
    for name, line in display.lines_.items():
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, iris.n_iter_ + 1))
        np.testing.assert_array_equal(line.get_ydata(), iris.history_[name])
    assert display.lines_["loss"].axes is display.lines_["validation_loss"].axes is display.ax_
    others = [display.lines_["score"].axes, display.lines_["learning_rate"].axes]
    assert others == [display.score_ax_, display.learning_rate_ax_] and display.ax_ not in others
    best = max(range(iris.n_iter_), key=iris.validation_scores_.__getitem__) + 1  # the first of the best
    assert display.best_epoch == best and set(display.best_line_.get_xdata()) == {best}
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["training loss", "validation loss", "validation score", "learning rate", f"best epoch: {best}"]


def test_only_what_was_recorded_is_drawn():
    plain = LossCurveDisplay.from_estimator(MLPClassifier(max_iter=4).fit(X, y))
    assert list(plain.lines_) == ["loss"] and plain.best_epoch is None and plain.best_line_ is None
    assert plain.score_ax_ is None and plain.learning_rate_ax_ is None
    assert list(plain.plot(learning_rate=True).lines_) == ["loss", "learning_rate"]
    assert list(LossCurveDisplay.from_history({"loss": [2, 1], "score": [0, 1]}).plot(score=False).lines_) == ["loss"]
    one = LossCurveDisplay.from_estimator(MLPClassifier(max_iter=1).fit(X, y))
    assert one.lines_["loss"].get_marker() == "o"  # a line of one point would be invisible


def test_best_epoch_is_that_of_what_was_monitored():
    history = {"loss": [3, 2, 1], "validation_loss": [2, np.nan, 3], "score": [0.1, 0.5, 0.5]}
    assert LossCurveDisplay.from_history(history).best_epoch == 2
    assert LossCurveDisplay.from_history(history, best="loss").best_epoch == 1
    clf = MLPClassifier((5,), early_stopping=True, monitor="loss", max_iter=20, random_state=0).fit(X, y)
    assert LossCurveDisplay.from_estimator(clf).best_epoch == 1 + int(np.argmin(clf.validation_loss_curve_))
    with pytest.raises(ValueError, match="best must be 'score' or 'loss', got 'r2'"):
        LossCurveDisplay.from_history(history, best="r2")


def test_histories_of_others():
    pandas = pytest.importorskip("pandas")
    theirs = neural_network.MLPClassifier(early_stopping=True, max_iter=5, random_state=0).fit(X, y)
    display = LossCurveDisplay.from_estimator(theirs)
    np.testing.assert_array_equal(display.lines_["loss"].get_ydata(), theirs.loss_curve_)
    np.testing.assert_array_equal(display.lines_["score"].get_ydata(), theirs.validation_scores_)
    frame = pandas.DataFrame({"loss": [2.0, 1.0], "seconds": [1, 1], "score": [np.nan, np.nan]})
    assert list(LossCurveDisplay.from_history(frame, linewidth=7).lines_) == ["loss"]


def test_keywords_go_to_the_lines():
    display = LossCurveDisplay.from_history({"loss": [2, 1], "score": [0, 1]}, linewidth=7)
    assert {line.get_linewidth() for line in display.lines_.values()} == {7}


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ({"score": [1]}, r"must have a column 'loss' with at least one epoch, got \['score'\]"),
        ({"loss": []}, "at least one epoch"),
        ({"loss": [1, 2], "score": [1]}, r"history\['score'\] must have 2 epochs .*, got 1"),
        ({"loss": ["a"]}, "must map names to numbers"),
        (3, "must map names to numbers"),
    ],
)
def test_histories_are_checked(history, message):
    with pytest.raises(ValueError, match=message):
        LossCurveDisplay.from_history(history)


@pytest.mark.parametrize("cls", [MLPRegressor, neural_network.MLPRegressor])
def test_lbfgs_has_no_curve(cls):
    with pytest.raises(ValueError, match="solver='lbfgs' records none"):
        LossCurveDisplay.from_estimator(cls(solver="lbfgs", max_iter=5).fit(X, y))


# --- NetworkDisplay ---------------------------------------------------------------------------------------------------


def drawn_weights(display, layer):
    """{(row, row): line} of the weights drawn behind a layer; rows count units from the top."""
    heights = [collection.get_offsets()[:, 1] for collection in display.units_]
    lines = display.weights_[layer]
    found = {}
    properties = zip(lines.get_segments(), lines.get_colors(), lines.get_linewidths(), strict=True)
    for ((x0, y0), (x1, y1)), color, width in properties:
        assert (x0, x1) == (layer, layer + 1)
        i, j = int(np.argmin(abs(heights[layer] - y0))), int(np.argmin(abs(heights[layer + 1] - y1)))
        found[i, j] = (color, width)
    return found


def test_lines_are_the_weights():
    coefs, intercepts = random_network((3, 4, 2))
    coefs[0][1, 2] = 0.0
    display = NetworkDisplay.from_weights(coefs, intercepts)
    for layer, W in enumerate(coefs):
        found = drawn_weights(display, layer)
        assert set(found) == set(zip(*np.nonzero(W), strict=True))
        for (i, j), (color, _) in found.items():
            np.testing.assert_allclose(color[:3], to_rgb("tab:blue" if W[i, j] > 0 else "tab:orange"))
        # wider and more opaque the larger
        order = sorted(found, key=lambda place, W=W: abs(W[place]))
        assert np.all(np.diff([found[place][1] for place in order]) > 0)
        assert np.all(np.diff([found[place][0][3] for place in order]) > 0)


def test_fillings_are_the_biases():
    coefs, intercepts = random_network((3, 4, 2))
    intercepts[0][:] = [2.0, -2.0, 0.0, 1.0]
    display = NetworkDisplay.from_weights(coefs, intercepts, positive="red", negative="blue")
    fill = display.units_[1].get_facecolors()[:, :3]
    np.testing.assert_allclose(fill, [[1, 0, 0], [0, 0, 1], [1, 1, 1], [1, 0.5, 0.5]])
    assert (display.units_[0].get_facecolors() == 1).all()  # features have none


@settings(max_examples=20, deadline=None)
@given(
    widths=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    max_units=st.integers(1, 20),
    max_weights=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_the_strongest_are_shown(widths, max_units, max_weights, seed):
    coefs, intercepts = random_network(widths, seed)
    display = NetworkDisplay.from_weights(coefs, intercepts, max_units=max_units, max_weights=max_weights)
    for layer, width in enumerate(widths):
        strength = np.ones(width)
        for j in range(width):
            if layer > 0:
                strength[j] *= np.sqrt(sum(coefs[layer - 1][:, j] ** 2))
            if layer < len(coefs):
                strength[j] *= np.sqrt(sum(coefs[layer][j] ** 2))
        shown = display.shown_[layer]
        assert len(shown) == min(width, max_units) == len(display.units_[layer].get_offsets())
        hidden = np.setdiff1d(np.arange(width), shown)
        assert not len(hidden) or strength[shown].min() >= strength[hidden].max() * (1 - 1e-12)
        assert (np.diff(shown) > 0).all()
    for layer, W in enumerate(coefs):
        W = abs(W[display.shown_[layer]][:, display.shown_[layer + 1]])
        found = drawn_weights(display, layer)
        assert len(found) == min(W.size, max_weights)
        assert min(W[place] for place in found) >= np.sort(W, axis=None)[-len(found)]
    assert texts(display).count("⋮") == sum(width > max_units for width in widths)
    plt.close("all")


def test_words_around_a_network(iris):
    words = texts(NetworkDisplay.from_estimator(iris))
    assert {*load_iris().feature_names, *load_iris().target_names} <= set(words)
    assert words[-11:] == ["features", "4", "hidden 1", "5", "relu", "hidden 2", "4", "relu", "outputs", "3", "softmax"]
    binary = MLPClassifier((2,), max_iter=1).fit(X[:100], np.array(["no", "yes"])[y[:100]])
    assert "yes" in texts(NetworkDisplay.from_estimator(binary))  # the output is its probability
    coefs, intercepts = random_network((784, 512, 10))
    wide = NetworkDisplay.from_weights(coefs, intercepts)
    assert {"16 of 784", "16 of 512", "10"} <= set(texts(wide))
    assert {str(i) for i in wide.shown_[0]} <= set(texts(wide))  # which ones


def assert_readable(display):
    """Circles and texts overlap neither each other nor the border of the figure."""
    figure = display.figure_
    figure.canvas.draw()
    for units in display.units_:
        centres = display.ax_.transData.transform(units.get_offsets())
        diameter = np.sqrt(units.get_sizes().max()) * figure.dpi / 72
        assert diameter > 5
        if len(centres) > 1:
            assert np.abs(np.diff(centres[:, 1])).min() > diameter
    boxes = [text.get_window_extent() for text in display.ax_.texts]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0
        assert box.height > 6
        for j, other in enumerate(boxes[:i]):
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            # boxes of lines of text, one below the other, share a pixel or two
            assert width <= 1 or height <= 3, (display.ax_.texts[i], display.ax_.texts[j])


@pytest.mark.parametrize("widths", [(2, 2, 1), (2, 1), (64, 100, 10), (784, 512, 10), (10, *[20] * 6, 3), (3, 40, 40)])
def test_small_and_large_networks_can_be_read(widths):
    coefs, intercepts = random_network(widths)
    names = [f"quite a long name of feature {i}" for i in range(widths[0])]
    activations = ["leaky_relu"] * (len(coefs) - 1) + ["softmax"]
    display = NetworkDisplay.from_weights(coefs, intercepts, activations=activations, feature_names=names)
    assert_readable(display)
    assert_readable(NetworkDisplay.from_weights(coefs, intercepts, activations=activations))


def test_batch_norm_is_folded():
    reg = MLPRegressor(hidden_layer_sizes=(6, 5), activation="tanh", batch_norm=True, max_iter=5, random_state=0)
    reg.fit(X, y)
    display = NetworkDisplay.from_estimator(reg)
    a = X
    for i, (W, b) in enumerate(zip(display.coefs, display.intercepts, strict=True)):
        a = a @ W + b
        a = np.tanh(a) if i < 2 else a
    np.testing.assert_allclose(a.ravel(), reg.predict(X), rtol=1e-9)
    np.testing.assert_array_equal(WeightsDisplay.from_estimator(reg, image_shape=(2, 2)).images[0].ravel(),
                                  display.coefs[0][:, 0])  # fmt: skip


def test_networks_of_scikit_learn():
    theirs = neural_network.MLPClassifier((3,), "tanh", max_iter=2, random_state=0).fit(X, y)
    display = NetworkDisplay.from_estimator(theirs)
    np.testing.assert_array_equal(display.coefs[0], theirs.coefs_[0])
    assert "tanh" in texts(display)


def test_zeros_are_no_trouble():
    display = NetworkDisplay.from_weights([np.zeros((3, 2)), np.zeros((2, 1))], [np.zeros(2), np.zeros(1)])
    assert [len(lines.get_segments()) for lines in display.weights_] == [0, 0]
    display.figure_.canvas.draw()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coefs": [np.zeros((3, 2)), np.zeros((3, 1))]}, "chain of matrices"),
        ({"intercepts": [np.zeros(2)]}, "must hold 2 vectors, got 1"),
        ({"intercepts": [np.zeros(3), np.zeros(1)]}, r"intercepts\[0\] must have shape \(2,\), got \(3,\)"),
        ({"coefs": [np.full((3, 2), np.nan), np.zeros((2, 1))]}, r"coefs\[0\] and intercepts\[0\] must be finite"),
        ({"activations": ["relu"]}, "activations must hold 2 names, got 1"),
        ({"feature_names": ["a"]}, "feature_names must hold 3 names, got 1"),
        ({"output_names": ["a", "b"]}, "output_names must hold 1 names, got 2"),
        ({"max_units": 0}, "max_units must be >= 1, got 0"),
        ({"max_weights": -1}, "max_weights must be >= 1, got -1"),
    ],
)
def test_networks_are_checked(change, message):
    given = {"coefs": [np.zeros((3, 2)), np.zeros((2, 1))], "intercepts": [np.zeros(2), np.zeros(1)]} | change
    with pytest.raises(ValueError, match=message):
        NetworkDisplay.from_weights(**given)


# --- ActivationDisplay ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(
    ("activation", "name", "f"),
    [
        ("tanh", "tanh", np.tanh),
        (("elu", {"alpha": 0.5}), "elu(alpha=0.5)", lambda z: np.where(z > 0, z, 0.5 * np.expm1(np.minimum(z, 0)))),
        (swish, "swish", lambda z: z / (1 + np.exp(-z))),
    ],
)
def test_curves_are_the_activation(activation, name, f, backend):
    display = ActivationDisplay.from_activation(activation, backend=backend)
    z, a = display.line_.get_data()
    assert display.line_.get_label() == display.name == name and (z[0], z[-1]) == (-5, 5)
    np.testing.assert_allclose(a, f(z), rtol=1e-12, atol=1e-13)
    smooth = np.abs(z) > 0.02  # elu has a kink at 0
    slope = (f(z + 1e-6) - f(z - 1e-6)) / 2e-6
    np.testing.assert_allclose(display.slope_line_.get_ydata()[smooth], slope[smooth], atol=1e-8)
    assert ActivationDisplay.from_activation(activation, slope=False).slope_line_ is None


@pytest.mark.parametrize("name", [n for n, row in reference.ACTIVATIONS.items() if row[1] is not None])
def test_every_activation_can_be_drawn(name):
    display = ActivationDisplay.from_activation(name, z=np.linspace(-3, 3, 7))
    np.testing.assert_allclose(display.a, reference.activate(name, np.linspace(-3, 3, 7)), atol=1e-13)


def test_layers_of_an_estimator():
    clf = MLPClassifier((4, 3, 2), ["relu", "prelu", ("elu", {"alpha": 2.0})], max_iter=30, learning_rate_init=0.05)
    clf.fit(X, y)
    assert ActivationDisplay.from_estimator(clf).name == "relu"
    assert ActivationDisplay.from_estimator(clf, layer=-1).name == "elu(alpha=2)"
    learned = ActivationDisplay.from_estimator(clf, layer=1, z=[-1.0])
    np.testing.assert_allclose(learned.a, -clf.prelu_slopes_[1].mean())
    with pytest.raises(ValueError, match=r"layer must be in \[-3, 2\], the hidden layers, got 3"):
        ActivationDisplay.from_estimator(clf, layer=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "sigmoid"}, "activation='sigmoid' is unknown"),
        ({"activation": ("elu", {"alpha": -1})}, "alpha must be in"),
        ({"z": [[1.0]]}, "z must be a vector of finite numbers"),
        ({"z": [np.inf]}, "z must be a vector of finite numbers"),
        ({"z": "wide"}, "z must be a vector of numbers"),
        ({"z": []}, "z must be a vector"),
        ({"backend": "abacus"}, "backend='abacus' is unknown"),
    ],
)
def test_activations_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ActivationDisplay.from_activation(**{"activation": "relu"} | options)


# --- WeightsDisplay ---------------------------------------------------------------------------------------------------


def tiles(display):
    """The images in the mosaic, found as islands in what is NaN."""
    from scipy.ndimage import find_objects, label

    mosaic = np.ma.filled(display.image_.get_array(), np.nan)
    islands, n = label(~np.isnan(mosaic))
    return [mosaic[where] for where in find_objects(islands)][:n]


@pytest.mark.parametrize(("shape", "n_units", "n_columns"), [((3, 3), 5, None), ((2, 7), 4, 3), ((8, 8), 1, None)])
def test_images_are_the_weights(shape, n_units, n_columns):
    W = np.random.RandomState(0).normal(size=(shape[0] * shape[1], n_units))
    options = {} if shape[0] == shape[1] else {"image_shape": shape}
    display = WeightsDisplay.from_weights(W, n_columns=n_columns, **options)
    found = tiles(display)
    assert len(found) == n_units
    for unit, tile in zip(display.units, found, strict=True):
        np.testing.assert_array_equal(tile, W[:, unit].reshape(shape))
    low, high = display.image_.get_clim()
    assert -low == high == np.abs(W).max()
    assert texts(display) == [str(unit) for unit in display.units]


def test_units_are_chosen():
    W = np.random.RandomState(0).normal(size=(9, 6))
    strongest = sorted(sorted(range(6), key=lambda j: -np.sum(W[:, j] ** 2))[:2])
    assert WeightsDisplay.from_weights(W, units=2).units.tolist() == strongest
    assert WeightsDisplay.from_weights(W, units=[5, 0]).units.tolist() == [5, 0]
    assert len(WeightsDisplay.from_weights(W, units=99).units) == 6


def test_images_of_an_estimator():
    digits, labels = load_digits(return_X_y=True)
    clf = MLPClassifier((30,), max_iter=2).fit(digits, labels)
    display = WeightsDisplay.from_estimator(clf, cmap="gray", colorbar=False)
    assert display.images.shape == (20, 8, 8) and display.colorbar_ is None
    assert display.image_.get_cmap().name == "gray"
    np.testing.assert_array_equal(display.images[3].ravel(), clf.coefs_[0][:, display.units[3]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"image_shape must be given, as \(height, width\): 6 features are no square image"),
        (
            {"image_shape": (2, 2)},
            r"image_shape must be \(height, width\) with 6 pixels, one per feature, got \(2, 2\)",
        ),
        ({"image_shape": (-2, -3)}, "with 6 pixels"),
        ({"image_shape": (1.5, 4)}, "with 6 pixels"),
        ({"image_shape": 6}, "with 6 pixels"),
        ({"image_shape": (2, 3), "units": 0}, "units must be >= 1"),
        ({"image_shape": (2, 3), "units": [4]}, r"numbers of neurons from 0 to 3, got \[4\]"),
        ({"image_shape": (2, 3), "units": [-1]}, "numbers of neurons"),
        ({"image_shape": (2, 3), "units": []}, "numbers of neurons"),
        ({"image_shape": (2, 3), "units": "all"}, "numbers of neurons"),
        ({"image_shape": (2, 3), "n_columns": 0}, "n_columns must be >= 1, got 0"),
        ({"W": [1.0, 2.0]}, r"W must be a matrix of finite numbers, got shape \(2,\)"),
        ({"W": [[np.nan]]}, "W must be a matrix of finite numbers"),
    ],
)
def test_weights_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        WeightsDisplay.from_weights(**{"W": np.ones((6, 4))} | options)
