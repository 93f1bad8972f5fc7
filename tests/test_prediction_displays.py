"""Displays of predictions: the accuracy of each class, and rows with their errors marked."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, recall_score
from sklearn.preprocessing import StandardScaler

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.displays import ClassAccuracyDisplay, PredictionsDisplay

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import to_rgba  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, codes = load_iris(return_X_y=True)
names = load_iris().target_names[codes]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def iris():
    """Neither perfect nor useless."""
    return MLPClassifier((5,), max_iter=30, learning_rate_init=0.01, random_state=0).fit(X, names)


def texts(display):
    return [text.get_text() for text in display.ax_.texts]


# --- ClassAccuracyDisplay ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_bars_are_scikit_learns_recall(iris, weighted):
    weight = np.random.RandomState(0).uniform(size=len(X)) if weighted else None
    display = ClassAccuracyDisplay.from_estimator(iris, X, names, sample_weight=weight)
    predicted = iris.predict(X)
    expected = recall_score(names, predicted, average=None, sample_weight=weight)
    np.testing.assert_allclose(display.accuracy, expected)
    np.testing.assert_allclose([bar.get_height() for bar in display.bars_], expected)
    assert display.overall == pytest.approx(accuracy_score(names, predicted, sample_weight=weight))
    assert set(display.overall_line_.get_ydata()) == {display.overall} and 0 < display.overall < 1
    assert display.labels.tolist() == ["setosa", "versicolor", "virginica"]
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == display.labels.tolist()
    if not weighted:
        assert display.n_samples.tolist() == [50, 50, 50] and texts(display).count("n=50") == 3


def test_classes_are_chosen_and_renamed(iris):
    display = ClassAccuracyDisplay.from_estimator(
        iris, X, names, labels=["virginica", "setosa"], display_labels=["b", "a"], counts=False, color="k"
    )
    expected = recall_score(names, iris.predict(X), labels=["virginica", "setosa"], average=None)
    np.testing.assert_allclose(display.accuracy, expected)
    assert display.labels.tolist() == ["b", "a"] and display.bars_[0].get_facecolor() == to_rgba("k")
    assert not any(text.startswith("n=") for text in texts(display))


def test_a_class_that_is_only_predicted_has_no_rows():
    display = ClassAccuracyDisplay.from_predictions([0, 0, 1], [0, 2, 1])
    assert np.isnan(display.accuracy[2]) and "no rows" in texts(display)
    np.testing.assert_array_equal(display.accuracy[:2], [0.5, 1])


def test_labels_of_multilabel_targets():
    truth = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    predicted = np.array([[1, 0], [0, 1], [0, 0], [0, 0]])
    display = ClassAccuracyDisplay.from_predictions(truth, predicted)
    assert display.accuracy.tolist() == [0.75, 0.75] and display.overall == 0.5


def test_estimators_of_others():
    assert ClassAccuracyDisplay.from_estimator(LogisticRegression(max_iter=500).fit(X, codes), X, codes).overall > 0.9
    with pytest.raises(TypeError, match="must be a classifier, got Ridge"):
        ClassAccuracyDisplay.from_estimator(Ridge().fit(X, codes), X, codes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y_pred": [0.5, 0.5, 0.1]}, "must hold classes of one kind, got continuous and multiclass"),
        ({"y_pred": [0, 1]}, "inconsistent numbers of samples"),
        ({"labels": [7]}, r"labels must be among \[0, 1, 2\], got \[7\]"),
        ({"labels": []}, "labels must be among"),
        ({"display_labels": ["a"]}, "display_labels must hold 3 names"),
    ],
)
def test_classes_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ClassAccuracyDisplay.from_predictions(**{"y_true": [0, 1, 2], "y_pred": [0, 1, 1]} | options)


# --- PredictionsDisplay -----------------------------------------------------------------------------------------------


def test_wrong_classes_are_marked(iris):
    display = PredictionsDisplay.from_estimator(iris, X, names)
    wrong = iris.predict(X) != names
    assert 0 < wrong.sum() < 75
    np.testing.assert_array_equal(display.errors, wrong)
    np.testing.assert_array_equal(display.error_points_.get_xdata(), np.flatnonzero(wrong))
    np.testing.assert_array_equal(display.points_.get_xdata(), np.flatnonzero(~wrong))
    shown = display.labels[display.error_points_.get_ydata()]
    np.testing.assert_array_equal(shown, iris.predict(X)[wrong])
    np.testing.assert_array_equal(display.labels[display.true_points_.get_ydata()], names)
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["true", "predicted", f"wrong: {wrong.sum()} of 150"]
    assert display.residual_lines_ is None


def test_numbers_far_off_are_marked():
    diabetes, y = load_diabetes(return_X_y=True)
    reg = Ridge().fit(diabetes, y)
    display = PredictionsDisplay.from_estimator(reg, diabetes, y, tolerance=80, subsample=None)
    residuals = reg.predict(diabetes) - y
    np.testing.assert_array_equal(display.errors, np.abs(residuals) > 80)
    segments = np.array(display.residual_lines_.get_segments())
    np.testing.assert_allclose(segments[:, 1, 1] - segments[:, 0, 1], residuals)
    two_deviations = PredictionsDisplay.from_estimator(reg, diabetes, y, subsample=None)
    assert two_deviations.tolerance == pytest.approx(2 * np.sqrt(np.mean(residuals**2)))
    # whole numbers as a regressor's targets are numbers all the same
    whole = MLPRegressor(hidden_layer_sizes=(2,), max_iter=1).fit(X, codes)
    assert PredictionsDisplay.from_estimator(whole, X, codes).labels is None


def test_rows_are_chosen_and_sorted():
    y = np.random.RandomState(0).normal(size=500)
    display = PredictionsDisplay.from_predictions(y, y + 1, subsample=50, sort=True, random_state=0)
    assert len(set(display.rows.tolist())) == 50 and (np.diff(display.y_true) >= 0).all()
    np.testing.assert_array_equal(display.y_true, y[display.rows])
    again = PredictionsDisplay.from_predictions(y, y + 1, subsample=50, random_state=0)
    assert sorted(display.rows) == again.rows.tolist()


def test_one_output_of_several():
    y = np.array([[1.0, 10.0], [2.0, 20.5]])
    assert PredictionsDisplay.from_predictions(y, y + 1, output=1).y_true.tolist() == [10, 20.5]
    labels = np.array([[1, 0], [1, 1]])
    assert PredictionsDisplay.from_predictions(labels, 1 - labels, output=-1).errors.tolist() == [True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y_pred": [[1.0, 2.0], [1.0, 2.0]]}, "must have the same shape"),
        ({"y_pred": [1.0]}, "inconsistent numbers of samples"),
        ({"y_pred": [1.5, np.nan]}, "y_pred must hold finite numbers|contains NaN"),
        ({"tolerance": -1}, "tolerance must be >= 0, got -1"),
        ({"subsample": 0}, "subsample must be an integer >= 1, got 0"),
        ({"tolerance": "a"}, "tolerance must be >= 0, got 'a'"),
        ({"output": 1}, r"output must be in \[-1, 0\], got 1"),
        ({"y_true": ["a", "b"], "classes": False}, "y_true must hold numbers"),
    ],
)
def test_predictions_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        PredictionsDisplay.from_predictions(**{"y_true": [1.5, 2.0], "y_pred": [1.0, 2.5]} | options)


def test_what_predicts_nothing():
    with pytest.raises(TypeError, match="must be a classifier or a regressor"):
        PredictionsDisplay.from_estimator(StandardScaler(), X, codes)
