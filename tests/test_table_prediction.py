"""Tables on the shortest way to a prediction: the same bits, errors and warnings as on the general one."""

import dataclasses
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.validation import validate_data

from fastmlp.estimator import tables
from fastmlp.preprocessing import coder as coder_module
from fastmlp.preprocessing.coder import ColumnCoder
from fastmlp.preprocessing.frames import table_of

from tabular_fits import small

#: Options of the published recipes.
RECIPES = {
    "td-s": {},
    "td": {"numeric_embedding": "periodic", "one_hot_limit": 9},
    "tabm": {"scaling": "quantile_normal", "numeric_embedding": "piecewise"},
    "plain": {"scaling": None},
}


class Name(str):
    """A text of a type of its own."""


def by_scikit_learn(estimator, X):
    return validate_data(estimator, X, reset=False, skip_check_array=True)


def outcome(function, *arguments):
    """Return the type and text of an error, the warnings, and whether X came back as it is."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            same = function(*arguments) is arguments[1]
        except (ValueError, TypeError) as error:
            return type(error), str(error)
    return same, [(w.category, str(w.message)) for w in caught]


FRAME = pd.DataFrame({name: np.arange(12.0) for name in "abc"})
FRAMES = {
    "itself": FRAME,
    "one row": FRAME[:1],
    "another dtype": FRAME.astype("float32"),
    "another order": FRAME[["c", "a", "b"]],
    "one less": FRAME[["a", "b"]],
    "one more": FRAME.assign(d=0.0),
    "others": FRAME.rename(columns={"a": "x", "b": "y"}),
    "numbers": FRAME.set_axis([0, 1, 2], axis=1),
    "texts and numbers": FRAME.set_axis(["a", "b", 2], axis=1),
    "texts of a type": FRAME.set_axis([Name("a"), "b", "c"], axis=1),
    "objects": FRAME.set_axis(pd.Index(list("abc"), dtype=object), axis=1),
    "twice": FRAME.set_axis(["a", "b", "b"], axis=1),
    "levels": FRAME.set_axis(pd.MultiIndex.from_tuples([("a", 1), ("b", 1), ("c", 1)]), axis=1),
    "polars": pl.DataFrame({name: [1.0] for name in "abc"}),
    "polars, others": pl.DataFrame({name: [1.0] for name in "abx"}),
}


@pytest.fixture(scope="module")
def fitted():
    return {
        "names": small("RealMLPRegressor", max_iter=1).fit(FRAME, np.arange(12.0)),
        "no names": small("RealMLPRegressor", max_iter=1).fit(FRAME.to_numpy(), np.arange(12.0)),
    }


@pytest.mark.parametrize("fit", ["names", "no names"])
@pytest.mark.parametrize("frame", FRAMES)
def test_frames_are_validated_as_by_scikit_learn(fitted, fit, frame):
    X = FRAMES[frame]
    assert outcome(tables.validated, fitted[fit], X, False) == outcome(by_scikit_learn, fitted[fit], X)


def test_frames_without_rows_are_refused(fitted):
    with pytest.raises(ValueError, match=re.escape("Found array with 0 sample(s) (shape=(0, 3))")):
        tables.validated(fitted["names"], FRAME[:0], False)


def test_names_of_the_fit_take_no_validation(fitted, monkeypatch):
    monkeypatch.setattr(tables, "validate_data", None)
    assert tables.validated(fitted["names"], FRAME, False) is FRAME


def test_a_refit_tells_the_names_anew():
    estimator = small("RealMLPRegressor", max_iter=1).fit(FRAME, np.arange(12.0))
    other = FRAME.rename(columns={"a": "x"})
    estimator.fit(other, np.arange(12.0))
    assert estimator.predict(other).shape == (12,)
    with pytest.raises(ValueError, match="Feature names unseen at fit time:\n- a"):
        estimator.predict(FRAME)


def one_hot_by_definition(column, codes, off, on):
    """What a column of categories writes, category by category."""
    n, out = len(column.categories), []
    for code in codes:
        code = column.most_frequent if code == -1 and column.most_frequent is not None else code
        if column.coding == "embedding":
            out.append([0.0 if code in (-1, n) else code + 1.0])
        elif column.coding == "sign":
            out.append([on[code] if code >= 0 else off[0]])
        else:
            out.append([on[k] if k == code else off[k] for k in range(n)])
    return np.array(out).reshape(len(codes), -1)


@pytest.mark.parametrize("n_categories", [0, 1, 2, 3, coder_module.MOST_SHOWN, coder_module.MOST_SHOWN + 1])
@pytest.mark.parametrize("most_frequent", [None, 0])
@pytest.mark.parametrize("options", [{}, {"one_hot_limit": 1}, {"scaling": None}], ids=str)
def test_every_code_is_written_by_its_definition(n_categories, most_frequent, options):
    values = [f"c{k:03}" for k in range(n_categories)]
    seen = pd.DataFrame({"c": pd.Series([*values, None], dtype=object), "x": 0.0})
    coder = ColumnCoder(categorical_features=["c"], **options).fit(seen)
    learned = coder.columns[0]
    if most_frequent is not None and n_categories:
        learned = dataclasses.replace(learned, most_frequent=most_frequent)
        coder.take([learned, coder.columns[1]], ["c", "x"])
    shown = pd.DataFrame({"c": pd.Series([*values, None, "another"], dtype=object), "x": 0.0})
    codes = [*(learned.codes[value] for value in values), -1, n_categories]
    off, on = coder_module.shown(learned, coder.scaling == "robust_smooth_clip")
    expected = one_hot_by_definition(learned, codes, off, on)
    at = coder.layout.categories.get(0)
    got = coder.transform(shown, np.float64)
    if at is not None:
        np.testing.assert_array_equal(got[:, at : at + expected.shape[1]], expected)


CELLS = st.one_of(st.floats(-1e6, 1e6, width=32), st.just(np.nan))


@given(st.data())
def test_frames_of_one_dtype_have_the_bits_of_columns(data):
    """A frame read as one matrix, and column by column, in any order of columns."""
    n, k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 5))
    values = np.array(data.draw(st.lists(st.lists(CELLS, min_size=k, max_size=k), min_size=n, max_size=n)))
    dtypes = data.draw(st.lists(st.sampled_from(["f4", "f8"]), min_size=k, max_size=k))
    numeric = pd.DataFrame({f"x{i}": values[:, i].astype(dtypes[i]) for i in range(k)})
    words = pd.Series(data.draw(st.lists(st.sampled_from(["a", "b", None]), min_size=n, max_size=n)), dtype=object)
    mixed = numeric.assign(word=words)
    options = RECIPES[data.draw(st.sampled_from(list(RECIPES)))]
    alone = ColumnCoder(**options).fit(numeric, random_state=0)
    both = ColumnCoder(**options).fit(mixed, random_state=0)
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    order = data.draw(st.permutations(list(numeric.columns)))
    assert table_of(numeric).matrix is not None and table_of(mixed).matrix is None
    names = [name for name in alone.feature_names if not name.startswith("nothing")]
    matrix = alone.transform(numeric[order], dtype)
    columns = both.transform(mixed[[*order, "word"]], dtype)
    for name in names:
        expected = columns[:, both.feature_names.index(name)]
        np.testing.assert_array_equal(matrix[:, alone.feature_names.index(name)], expected)
