"""What skips scikit-learn's validation: the same arrays, attributes and errors as with it."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.preprocessing import LabelBinarizer

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.data import inputs
from fastmlp.data.targets import binarizer_of
from fastmlp.estimator import architecture

DTYPES = ("f8", "f4", "f2", "g", ">f8", "i8", ">i4", "u1", "i1", "?", "c16", "O", "U3", "S3", "M8[s]")
LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": lambda array: np.repeat(array, 2, axis=0)[::2],
    "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
    "matrix": lambda array: np.asmatrix(array) if array.ndim == 2 else array,
    "masked": np.ma.masked_array,
    "list": lambda array: array.tolist(),
}
SPECIAL = (np.nan, np.inf, -np.inf, 3e38, 1e308)  # the last two overflow in sums, of float32 and of float64

NAMED = {"n_features_in_": 6, "feature_names_in_": np.array([*"abcdef"])}


@st.composite
def arrays(draw, n_dims):
    """Return an array as users may give it, finite and two-dimensional more often than not."""
    shape = tuple(draw(st.sampled_from([6, 6, 6, 5, 3, 1, 0])) for _ in range(draw(n_dims)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES + DTYPES[:2] * 6)))
    numbers = np.random.RandomState(draw(st.integers(0, 9))).randint(0, 4, shape)
    array = numbers.astype(dtype)
    if array.size and dtype.kind == "f":
        for value in draw(st.lists(st.sampled_from(SPECIAL), max_size=2)):
            with np.errstate(over="ignore"):
                array.flat[draw(st.integers(0, array.size - 1)) :] = value
    layout = draw(st.sampled_from(["C"] * 6 + list(LAYOUTS)))
    return array if dtype.kind == "O" and layout == "read-only" else LAYOUTS[layout](array)


def outcome(judge, estimator, *args):
    """Return what a call returns or raises, its warnings, and the attributes that it leaves."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = judge(estimator, *args)
        except (TypeError, ValueError) as error:
            found = type(error), str(error)
    return found, [str(one.message) for one in caught], vars(estimator)


def same(a, b):
    return a is b or (type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
@given(
    X=arrays(st.sampled_from([2, 2, 2, 2, 1, 3])),
    y=arrays(st.sampled_from([1, 1, 2, 0, 3])),
    fitted=st.sampled_from(
        [{}, {"n_features_in_": 6}, {"n_features_in_": 6, "feature_names_in_": np.array([*"abcdef"])}]
    ),
    reset=st.booleans(),
    assume_finite=st.booleans(),
)
def test_plain_arrays_are_judged_as_by_scikit_learn(cls, X, y, fitted, reset, assume_finite):
    ours, theirs = cls(), cls()
    for estimator in (ours, theirs):
        vars(estimator).update(fitted)
    with config_context(assume_finite=assume_finite):
        (got, *rest), (expected, *their_rest) = (
            outcome(inputs.validated, ours, X, y, reset),
            outcome(by_sklearn, theirs, X, y, reset),
        )
    assert [str(one) for one in rest] == [str(one) for one in their_rest]
    if isinstance(expected[0], type):
        assert got == expected
    else:
        assert all(map(same, got, expected))


def by_sklearn(estimator, X, y, reset):
    X, y = inputs._validated(estimator, X, y, reset)
    return X, inputs.column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def test_what_is_plain_skips_scikit_learn(monkeypatch):
    """Otherwise the test above compares scikit-learn with itself."""
    monkeypatch.setattr(inputs, "validate_data", None)
    X, y = np.ones((6, 2)), np.arange(6)
    for rows in (X, X.astype("f4"), np.asfortranarray(X), X[::2]):
        assert inputs.validated(MLPClassifier(), rows, y[: len(rows)], True)[0] is rows
    estimator = MLPRegressor()
    estimator.n_features_in_ = 2
    assert inputs.validated(estimator, X, np.ones((6, 3)), False)[0] is X
    X[0, 0] = np.nan
    with pytest.raises(TypeError):
        inputs.validated(estimator, X, y, True)


@given(
    labels=st.one_of(
        st.lists(st.integers(-3, 4), max_size=30).map(np.array),
        st.lists(st.sampled_from(["no", "yes", "perhaps", ""]), max_size=30).map(np.array),
        st.lists(st.booleans(), max_size=30).map(np.array),
        st.lists(st.sampled_from([0.0, 1.0, 2.5]), max_size=30).map(np.array),
    ),
    dtype=st.sampled_from([None, "i1", "u8", "q", ">i4", "U9", "O", "f4", "S2"]),
    columns=st.sampled_from([None, 1, 3]),
)
def test_the_binarizer_is_scikit_learns(labels, dtype, columns):
    try:
        labels = labels if dtype is None else labels.astype(dtype)
    except (ValueError, OverflowError):
        return
    if columns:
        labels = np.resize(labels, (len(labels), columns))
    (got, warned, _), (expected, expected_warned, _) = (
        outcome(lambda _: vars(binarizer_of(labels)), MLPClassifier()),
        outcome(lambda _: vars(LabelBinarizer().fit(labels)), MLPClassifier()),
    )
    assert warned == expected_warned
    if isinstance(expected, tuple):
        assert got == expected
        return
    assert same(got.pop("classes_"), expected.pop("classes_"))
    assert got == expected


def test_a_column_of_labels_needs_no_look_by_scikit_learn(monkeypatch):
    monkeypatch.setattr(LabelBinarizer, "fit", None)
    for labels in (np.arange(30) % 3, np.arange(30) % 2 == 0, np.array(["a", "b", "c"] * 10)):
        binarizer_of(labels)


def test_fits_of_the_same_shape_share_a_network_and_nothing_else():
    X, y = np.random.RandomState(0).randn(40, 3), np.arange(40) % 3

    def made(**parameters):
        estimator = MLPClassifier((4,), **parameters)
        estimator._learn_targets(y, False)
        return architecture.network_to_train(estimator, X, estimator._objective(y), True)

    assert made() is made(alpha=1.0)
    for other in ({"activation": "tanh"}, {"dropout": 0.5}, {"batch_norm": True}, {"loss": ("focal", {"gamma": 1.0})}):
        assert made(**other) != made()
