"""Tables -> matrices: judged by scikit-learn's transformers, by formulas of the recipes, and between libraries."""

import copy
import datetime
import json
import pickle
import re
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, RobustScaler, StandardScaler

from fastmlp.kernels.feature_table import checked
from fastmlp.preprocessing.coder import SCALINGS, ColumnCoder
from fastmlp.preprocessing.frames import LARGEST, table_of
from fastmlp.preprocessing.statistics import places

RNG = np.random.default_rng(0)
N = 101

#: Options of the published recipes, and of `fastmlp train`.
RECIPES = {
    "td-s": {},
    "td": {"numeric_embedding": "periodic", "one_hot_limit": 9},
    "tabm": {"scaling": "quantile_normal", "numeric_embedding": "piecewise"},
    "tabm without embedding": {"scaling": "quantile_normal"},
    "standard": {"scaling": "standard"},
    "plain": {"scaling": None},
    "robust bins": {"numeric_embedding": "piecewise", "one_hot_limit": 3, "n_bins": 5},
}


def numbers(n=N):
    """Columns that the formulas treat differently: skewed, discrete, mostly 0, of two values, tiny, huge."""
    columns = [
        RNG.normal(size=n) * 100 + 7,
        RNG.exponential(size=n) ** 3,
        RNG.integers(0, 5, n),
        (RNG.random(n) < 0.1) * 3.0,
        RNG.integers(0, 2, n),
        RNG.normal(size=n) * 1e-3,
        RNG.normal(size=n) * 1e12,
    ]
    return np.column_stack(columns).astype(float)


def frame(n=N):
    """A frame with a column of every kind."""
    words = pd.Series(RNG.choice(["no", "yes", None], n), dtype=object)
    letters = np.array([*"abcdefghijklmnop", *RNG.choice(list("abcdefghijklmnop"), n)])[:n]  # each of them
    return pd.DataFrame(
        {
            "x": RNG.normal(size=n),
            "word": words,
            "gaps": np.where(RNG.random(n) < 0.2, np.nan, RNG.exponential(size=n)),
            "level": pd.Categorical(RNG.choice(["low", "mid", "high", None], n)),
            "flag": RNG.random(n) < 0.3,
            "count": pd.array(np.where(RNG.random(n) < 0.1, None, RNG.integers(0, 9, n)), dtype="Int64"),
            "letter": letters,
            "always": 2.5,
            "never": np.full(n, np.nan),
            "one": ["a"] * n,
        }
    )


def clipped(z):
    return z / np.sqrt(1 + (z / 3) ** 2)


def robust(x):
    """The recipe's formula for a column without missing numbers."""
    q75, q25 = np.quantile(x, [0.75, 0.25])
    q = q75 - q25 if q75 != q25 else (x.max() - x.min()) / 2
    return clipped((x - np.median(x)) * (1 / (q + 1e-30) if q else 0.0))


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_robust_scaling_is_the_recipes():
    X = numbers()
    got = ColumnCoder().fit(X).transform(X, np.float64)
    np.testing.assert_allclose(got, np.column_stack([robust(x) for x in X.T]), rtol=1e-12, atol=1e-14)


def test_robust_scaling_is_scikit_learns_where_quartiles_differ():
    X, more = numbers()[:, :3], numbers()[:, :3] * 5
    X[::7] = np.nan
    X[::7] = RobustScaler().fit(X).center_  # what a missing number becomes, so the judge needs no gaps
    judge, holes = RobustScaler().fit(X), X.copy()
    coder = ColumnCoder().fit(holes)
    np.testing.assert_allclose(coder.transform(more, np.float64), clipped(judge.transform(more)), rtol=1e-12)


def test_statistics_ignore_missing_numbers():
    X = numbers()[:, :3]
    X[::7] = np.nan
    judge = RobustScaler().fit(X)
    coder = ColumnCoder().fit(X)
    assert coder.feature_names == ["0", "1", "2", "0 is missing", "1 is missing", "2 is missing"]
    filled = clipped(np.nan_to_num(judge.transform(X)))  # the median is 0
    indicator = robust(np.isnan(X[:, 0]).astype(float))
    np.testing.assert_allclose(coder.transform(X, np.float64), np.c_[filled, indicator, indicator, indicator], 1e-12)


@pytest.mark.parametrize("n", [1, 2, 29, 400])
def test_quantiles_are_scikit_learns(n):
    X, more = numbers(n), numbers(50) * 1.3
    noise = np.random.RandomState(3)
    noisy = X.copy()
    varies = [k for k in range(X.shape[1]) if X[:, k].min() < X[:, k].max()]
    for k in varies:
        noisy[:, k] += noise.standard_normal(n) * (1e-5 * X[:, k].std())
    coder = ColumnCoder(scaling="quantile_normal").fit(X, random_state=3)
    assert coder.feature_names == ([str(k) for k in varies] or ["nothing"])
    quantiles = max(min(n // 30, 1000), 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more quantiles than rows
        judge = QuantileTransformer(n_quantiles=quantiles, output_distribution="normal", subsample=10**9).fit(noisy)
    wide = [k for k in varies if k != 5]  # of column 5, scikit-learn's threshold takes more than its edges
    for rows in (X, more):
        got = coder.transform(rows, np.float64)
        want = judge.transform(rows)[:, wide]
        np.testing.assert_allclose(got[:, [varies.index(k) for k in wide]], want, rtol=1e-9, atol=1e-9)
        assert np.abs(got).max() <= 5.2


def test_quantiles_do_not_depend_on_the_unit():
    X = numbers()[:, :2]
    options = {"scaling": "quantile_normal", "numeric_embedding": "piecewise"}
    usual = ColumnCoder(**options).fit(X, random_state=0).transform(X, np.float64)
    for unit in (1e-9, 1e9):
        other = ColumnCoder(**options).fit(X * unit, random_state=0).transform(X * unit, np.float64)
        np.testing.assert_allclose(other[1:-1], usual[1:-1], rtol=1e-3, atol=1e-3)


def test_equal_numbers_get_the_middle_of_their_shares():
    X = np.repeat([1e17, 2e17, 3e17], [10, 80, 10])[:, None]  # noise of 1e-5 scales is lost in most of these
    z = ColumnCoder(scaling="quantile_normal").fit(X, random_state=0).transform(X, np.float64)
    assert abs(np.median(z)) < 0.1


def test_bins_and_places():
    X = numbers(300)
    coder = ColumnCoder(**RECIPES["tabm"]).fit(X, random_state=0)
    M = coder.transform(X, np.float64)
    n = X.shape[1]
    block = checked(coder.blocks)[0]
    assert block.columns == tuple(range(2 * n))
    assert block.size == 16
    for k in range(n):
        x, t = M[:, k], M[:, n + k]
        edges = np.unique(np.quantile(x, np.linspace(0, 1, 49)).astype(np.float32)).astype(float)
        assert block.counts[k] == len(edges) - 1
        np.testing.assert_allclose(components(t, block.counts[k]), encoding(x, edges), rtol=1e-9, atol=1e-9)


def components(t, n_bins):
    """What a place says of each bin: 1 below it, its fraction, 0 above it; lines go on outside."""
    parts = np.clip(t[:, None] - np.arange(n_bins), 0, 1)
    parts[:, 0] = np.where(t < 0, t, parts[:, 0])
    parts[:, -1] = np.where(t > n_bins, t - n_bins + 1, parts[:, -1])
    return parts


def encoding(x, edges):
    """Equation 1 of Gorishniy et al. (2022): the first part is not clamped below, the last not above."""
    parts = (x[:, None] - edges[:-1]) / np.diff(edges)
    low, high = np.zeros(len(edges) - 1), np.ones(len(edges) - 1)
    low[0], high[-1] = -np.inf, np.inf
    return np.clip(parts, low, high)


@given(
    edges=st.lists(st.integers(-50, 50), min_size=2, max_size=9, unique=True).map(sorted),
    x=st.lists(st.floats(-100, 100), min_size=1, max_size=20),
)
@settings(deadline=None)
def test_places_are_the_piecewise_linear_encoding(edges, x):
    edges, x = np.array(edges, float), np.array(x)
    np.testing.assert_allclose(components(places(x, edges), len(edges) - 1), encoding(x, edges), atol=1e-12)


def test_numbers_outside_the_bins_go_on_in_lines():
    X = np.linspace(0, 10, 21)[:, None]
    coder = ColumnCoder(scaling=None, numeric_embedding="piecewise", n_bins=2).fit(X)
    got = coder.transform([[-5.0], [0.0], [7.5], [10.0], [15.0]], np.float64)
    np.testing.assert_allclose(got[:, 1], [-1.0, 0.0, 1.5, 2.0, 3.0])


def test_standard_scaling_is_scikit_learns():
    X = numbers()
    X[::9, 1] = np.nan
    judge = make_pipeline(SimpleImputer(strategy="median"), StandardScaler()).fit(X)
    got = ColumnCoder(scaling="standard").fit(X).transform(X, np.float64)
    np.testing.assert_allclose(got[:, :-1], judge.transform(X), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(got[:, -1], np.isnan(X[:, 1]))


def test_huge_numbers_are_clipped_and_not_lost():
    X = numbers()[:, :1]
    got = ColumnCoder().fit(X).transform([[LARGEST * 0.99], [-LARGEST * 0.99], [1e20]], np.float64)
    np.testing.assert_array_equal(got, [[3.0], [-3.0], [3.0]])
    huge = np.array([[1.0], [2.0], [4.0]]) * 1e149
    np.testing.assert_allclose(ColumnCoder().fit(huge).transform(huge, np.float64)[:, 0], robust(huge[:, 0] / 1e149))


# --- the recipes' own programs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["td-s", "td"])
def test_pytabkit_agrees(recipe):
    """Order, thresholds and values of RealMLP's preprocessing, in float32."""
    pytest.importorskip("pytabkit")
    import torch
    from pytabkit.models.data.conversion import ToDictDatasetConverter
    from pytabkit.models.data.data import DictDataset, TensorInfo
    from pytabkit.models.nn_models import base, categorical, models

    X = frame().drop(columns=["gaps", "count", "flag", "never"])
    X["eight"], X["nine"] = RNG.choice(list("abcdefgh"), N), RNG.choice(list("abcdefghi"), N)
    X = X.astype(dict.fromkeys(("letter", "one", "eight", "nine"), object))
    X["word"] = X["word"].where(X["word"].notna(), np.nan)  # the judge takes None for a category
    steps = ["one_hot", "median_center", "robust_scale", "smooth_clip", "embedding"]
    config = {"tfms": steps, "max_one_hot_cat_size": 9} if recipe == "td" else {"tfms": steps[:-1]}
    found = ToDictDatasetConverter().fit_transform(X)
    zeros, info = torch.zeros(N, 1, dtype=torch.long), TensorInfo(cat_sizes=[2])
    rows = DictDataset({**found.tensors, "y": zeros}, {**found.tensor_infos, "y": info})
    one_hot = categorical.EncodingFactory(categorical.SingleOneHotFactory(**config), enc_output_name="x_one_hot")
    judge = base.SequentialFactory([one_hot, models.PreprocessingFactory(**{**config, "embedding_size": 8})])
    want = judge.create(rows.tensor_infos).fit_transform(rows)[1].tensors["x_cont"].detach().numpy()
    got = ColumnCoder(one_hot_limit=config.get("max_one_hot_cat_size")).fit(X).transform(X)
    n_codes = 2 if recipe == "td" else 0  # "letter" and "nine", of which the judge has made 8 numbers each
    assert got.shape[1] - n_codes == want.shape[1] - 8 * n_codes
    np.testing.assert_allclose(got[:, : got.shape[1] - n_codes], want[:, : got.shape[1] - n_codes], atol=2e-6)


def test_rtdl_num_embeddings_agrees():
    """Bins, and the encoding that the places stand for."""
    package = pytest.importorskip("pytabkit.models.nn_models.rtdl_num_embeddings")
    import torch

    X = numbers(300)
    coder = ColumnCoder(**RECIPES["tabm"]).fit(X, random_state=0)
    M = coder.transform(X, np.float64)
    n = X.shape[1]
    x = torch.tensor(M[:, :n], dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a column of one bin
        bins = package.compute_bins(x, n_bins=48)
    parts = package._PiecewiseLinearEncodingImpl(bins)(x).numpy()
    for k, count in enumerate(coder.blocks[0].counts):
        np.testing.assert_allclose(coder.columns[k].bins, bins[k].numpy(), atol=2e-5)  # float32 interpolates
        there = [*range(count - 1), parts.shape[2] - 1]  # the judge has the last bin in the last place
        np.testing.assert_allclose(components(M[:, n + k], count), parts[:, k, there], atol=1e-3)


# --- categories -------------------------------------------------------------------------------------------------------


def test_one_hot_is_scikit_learns():
    X = frame()[["level", "letter", "word"]]
    new = X.assign(level=["low", "?", None] + ["mid"] * (N - 3))
    judge = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(X)
    known = [c == c and c is not None for part in judge.categories_ for c in part]  # the judge has a column for None
    coder = ColumnCoder(scaling=None).fit(X)
    for rows in (X, new):
        np.testing.assert_array_equal(coder.transform(rows, np.float64), judge.transform(rows)[:, known])


def test_scaled_categories_are_the_recipes():
    X = frame()[["word", "level", "one"]]
    got = ColumnCoder().fit(X).transform(X, np.float64)
    sign = X["word"].map({"no": 1.0, "yes": -1.0}).fillna(0.0).to_numpy(float)
    columns = [sign, *((X["level"] == level).to_numpy(float) for level in ("high", "low", "mid")), np.ones(N)]
    np.testing.assert_allclose(got, np.column_stack([robust(x) for x in columns]), rtol=1e-12, atol=1e-14)


def test_many_categories_become_codes():
    X = frame()[["x", "letter", "level"]]
    coder = ColumnCoder(one_hot_limit=9).fit(X)
    assert coder.feature_names == ["x", "level=high", "level=low", "level=mid", "letter"]
    plain, embedding = checked(coder.blocks)
    assert (plain.kind, plain.columns) == ("plain", (0, 1, 2, 3))
    assert (embedding.columns, embedding.size, embedding.counts) == ((4,), 8, (17,))
    codes = coder.transform(X.assign(letter=["?", None, "a", "p"] + ["b"] * (N - 4)))[:, 4]
    np.testing.assert_array_equal(codes, [0, 0, 1, 16] + [2] * (N - 4))


@pytest.mark.parametrize(("n", "one_hot"), [(8, True), (9, False)])
def test_the_limit_counts_missing_as_a_category(n, one_hot):
    X = np.array([[f"c{i}"] for i in range(n)], dtype=object)
    assert (ColumnCoder(one_hot_limit=9).fit(X).blocks == ()) == one_hot


def test_only_training_rows_count():
    X = frame()
    rows = np.arange(0, 60, 2)
    for options in RECIPES.values():
        some = ColumnCoder(**options).fit(X, rows, random_state=0)
        alone = ColumnCoder(**options).fit(X.iloc[rows].reset_index(drop=True), random_state=0)
        assert some.to_state() == alone.to_state()
        part = some.transform(X, rows=rows[::3])
        np.testing.assert_array_equal(part, some.transform(X)[rows[::3]])
    mask = np.isin(np.arange(N), rows)
    assert ColumnCoder().fit(X, mask).to_state() == ColumnCoder().fit(X, rows).to_state()


def test_categories_that_are_numbers():
    X = np.array([[1.0, 10], [2, 20], [np.nan, 30], [7, 10]])
    coder = ColumnCoder(categorical_features=[0], scaling=None).fit(X)
    assert coder.feature_names == ["1", "0=1.0", "0=2.0", "0=7.0"]
    np.testing.assert_array_equal(coder.transform(X)[:, 1:], [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(coder.transform([[2, 0], [3, 0]])[:, 1:], [[0, 1, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="column 0 of X: its categories are texts, they were numbers during fit"):
        coder.transform([["2", 0]])


# --- the same from every library --------------------------------------------------------------------------------------


def libraries(X):
    """Return a frame of pandas as each library has it."""
    made = {"pandas": X, "pyarrow": pa.Table.from_pandas(X, preserve_index=False)}
    made["batch"] = made["pyarrow"].to_batches()[0]
    made["pandas of pyarrow"] = made["pyarrow"].to_pandas(types_mapper=pd.ArrowDtype)
    made["chunks"] = pa.concat_tables([made["pyarrow"].slice(0, 3), made["pyarrow"].slice(3)])
    made["polars"] = pl.from_pandas(X)
    return made


@pytest.mark.parametrize("recipe", RECIPES)
def test_libraries_agree(recipe):
    X = frame()
    want = ColumnCoder(**RECIPES[recipe]).fit(X, random_state=0)
    M = want.transform(X, np.float64)
    for name, table in libraries(X).items():
        coder = ColumnCoder(**RECIPES[recipe]).fit(table, random_state=0)
        assert coder.to_state() == want.to_state(), name
        np.testing.assert_array_equal(want.transform(table, np.float64), M, name)
    values = X.astype(object).to_numpy()
    unnamed = ColumnCoder(**RECIPES[recipe]).fit(values, random_state=0)
    np.testing.assert_array_equal(unnamed.transform(values, np.float64), M)
    np.testing.assert_array_equal(unnamed.transform(values.tolist(), np.float64), M)
    assert want.blocks == unnamed.blocks
    assert not want.blocks or max(max(b.columns) for b in checked(want.blocks)) == want.n_columns - 1
    assert M.flags.c_contiguous
    assert M.shape == (N, want.n_columns)
    np.testing.assert_allclose(want.transform(X), M, rtol=1e-6, atol=1e-6)
    assert want.transform(X).dtype == np.float32


CELLS = {
    "float": st.one_of(st.none(), st.floats(-1e6, 1e6)),
    "int": st.integers(-1000, 1000),
    "text": st.one_of(st.none(), st.sampled_from(["a", "b", "ä", ""])),
    "bool": st.booleans(),
}


@st.composite
def tables(draw):
    kinds = draw(st.lists(st.sampled_from(list(CELLS)), min_size=1, max_size=4))
    n = draw(st.integers(1, 12))
    return {f"{k}{i}": draw(st.lists(CELLS[k], min_size=n, max_size=n)) for i, k in enumerate(kinds)}


@given(columns=tables(), recipe=st.sampled_from(list(RECIPES)), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_any_table(columns, recipe, seed):
    """Numbers are finite; the state round-trips through JSON and pickle; the order of named columns is free."""
    X = pa.table(columns)
    coder = ColumnCoder(**RECIPES[recipe]).fit(X, random_state=seed)
    M = coder.transform(X, np.float64)
    assert np.isfinite(M).all()
    assert M.shape[1] == coder.n_columns == len(coder.feature_names)
    checked(coder.blocks)
    for again in (ColumnCoder.from_state(json.loads(json.dumps(coder.to_state()))), pickle.loads(pickle.dumps(coder))):
        np.testing.assert_array_equal(again.transform(X, np.float64), M)
        assert (again.blocks, again.feature_names) == (coder.blocks, coder.feature_names)
        assert again.to_state() == coder.to_state()
    np.testing.assert_array_equal(coder.transform(X.select(X.column_names[::-1]), np.float64), M)
    objects = np.column_stack([np.array(column, dtype=object) for column in columns.values()])
    np.testing.assert_array_equal(coder.transform(objects, np.float64), M)
    gaps = coder.transform(np.full((2, len(columns)), None), np.float64)
    assert np.isfinite(gaps).all()


def test_frames_find_columns_by_name():
    X = frame()
    coder = ColumnCoder().fit(X)
    np.testing.assert_array_equal(coder.transform(X[X.columns[::-1]]), coder.transform(X))
    plain = pd.DataFrame(numbers(), columns=list("abcdefg"))
    coder = ColumnCoder().fit(plain)
    np.testing.assert_array_equal(coder.transform(plain[list("gfedcba")]), coder.transform(plain))
    assert list(coder.feature_names_in_) == list("abcdefg")
    assert coder.n_features_in_ == 7
    assert not hasattr(ColumnCoder().fit(plain.to_numpy()), "feature_names_in_")


@pytest.mark.parametrize("change", ["missing", "extra", "renamed", "many"])
def test_other_columns_are_scikit_learns_errors(change):
    X = pd.DataFrame(numbers(), columns=list("abcdefg"))
    other = {
        "missing": X.drop(columns=["b"]),
        "extra": X.assign(z=1.0),
        "renamed": X.rename(columns={"a": "z"}),
        "many": X.rename(columns=str.upper),
    }[change]
    with pytest.raises(ValueError) as judge:
        StandardScaler().fit(X).transform(other)
    with pytest.raises(ValueError) as error:
        ColumnCoder().fit(X).transform(other)
    assert str(error.value) == str(judge.value)


def test_the_number_of_columns_is_checked():
    coder = ColumnCoder().fit(numbers())
    with pytest.raises(ValueError, match="X has 3 features, but ColumnCoder is expecting 7 features as input"):
        coder.transform(numbers()[:, :3])


#: Values of a column, and whether it is categorical by its dtype.
KINDS = {
    "ints": (pd.Series([1, 2, 3]), False),
    "bools": (pd.Series([True, False, True]), False),
    "nullable bools": (pd.array([True, None, False], dtype="boolean"), False),
    "nullable floats": (pd.array([1.5, None, 2.5], dtype="Float64"), False),
    "small": (pd.Series([1, 2, 3], dtype="uint8"), False),
    "half": (pd.Series([1, 2, 3], dtype="float16"), False),
    "sparse": (pd.arrays.SparseArray([0.0, 1.0, 0.0]), False),
    "objects that are numbers": (pd.Series([1, 2.5, None], dtype=object), False),
    "objects that are bools": (pd.Series([True, None, False], dtype=object), False),
    "decimals": (pd.Series(pa.array([1, 2, 3], pa.decimal128(5, 2)), dtype=pd.ArrowDtype(pa.decimal128(5, 2))), False),
    "nothing": (pd.Series([None, None, None], dtype=object), False),
    "texts": (pd.Series(["a", "b", None], dtype=object), True),
    "strings": (pd.Series(["a", "b", pd.NA], dtype="string"), True),
    "strings of pyarrow": (pd.Series(["a", "b", None], dtype=pd.ArrowDtype(pa.string())), True),
    "categories": (pd.Categorical(["a", "b", None]), True),
    "categories that are numbers": (pd.Categorical([1, 2, None]), True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_columns(kind):
    values, categorical = KINDS[kind]
    X = pd.DataFrame({"a": values, "b": [1.0, 2.0, 3.0]})
    coder = ColumnCoder(scaling=None).fit(X)
    assert coder.columns[0].kind == ("categorical" if categorical else "numeric")
    assert np.isfinite(coder.transform(X)).all()
    if not categorical:
        want = pd.to_numeric(pd.Series(values).astype(object)).to_numpy(float, na_value=np.nan)
        got = table_of(X)[0].numbers().astype(float)
        np.testing.assert_array_equal(got, want)


REFUSED = {
    "dates": pd.Series(pd.date_range("2020", periods=3)),
    "zones": pd.Series(pd.date_range("2020", periods=3, tz="UTC")),
    "durations": pd.Series(pd.to_timedelta([1, 2, 3], "D")),
    "periods": pd.Series(pd.period_range("2020", periods=3)),
    "complex": pd.Series([1j, 2, 3]),
    "dates of pyarrow": pd.Series(pd.date_range("2020", periods=3)).astype(pd.ArrowDtype(pa.timestamp("ns"))),
    "date objects": pd.Series([datetime.date(2020, 1, 1)] * 3, dtype=object),
    "lists": pd.Series([[1], [2], [3]], dtype=object),
    "mixed": pd.Series([1, "a", 2], dtype=object),
    "bytes": pd.Series([b"a", b"b", b"c"], dtype=object),
    "dates as categories": pd.Categorical(pd.date_range("2020", periods=3)),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_kinds_are_refused_by_name(kind):
    X = pd.DataFrame({"fine": [1.0, 2.0, 3.0], "wrong": REFUSED[kind]})
    for table in (X, pa.Table.from_pandas(X)) if kind in ("dates", "durations") else (X,):
        with pytest.raises(TypeError, match="column 'wrong' of X"):
            ColumnCoder().fit(table)


def test_other_kinds_of_polars_are_refused_by_name():
    wrong = {"dates": [datetime.date(2020, 1, 1)], "lists": [[1]], "times": [datetime.timedelta(1)], "bytes": [b"a"]}
    for values in wrong.values():
        with pytest.raises(TypeError, match="column 'wrong' of X"):
            ColumnCoder().fit(pl.DataFrame({"wrong": values}))
    with pytest.raises(TypeError, match=r"collect\(\)"):
        ColumnCoder().fit(pl.DataFrame({"a": [1]}).lazy())
    enum = pl.DataFrame({"e": pl.Series(["b", "a", None], dtype=pl.Enum(["c", "b", "a"]))})
    assert ColumnCoder(scaling=None).fit(enum).feature_names == ["e=a", "e=b"]


@pytest.mark.parametrize(
    "wanted",
    [[9], [-1], [True, False], ["word", "z"], [1.5], [None, "a"], "letter", [["a"]], [["x", "word"]]],
    ids=str,
)
@pytest.mark.parametrize("names", [True, False])
def test_categorical_features_have_scikit_learns_errors(wanted, names):
    X = frame()[["x", "gaps", "flag"]].astype(float)
    X = X if names else X.to_numpy()
    with pytest.raises((ValueError, IndexError)) as judge:
        HistGradientBoostingRegressor(categorical_features=wanted).fit(X, np.arange(N))
    with pytest.raises(ValueError) as error:
        ColumnCoder(categorical_features=wanted).fit(X)
    if np.ndim(wanted) == 1:
        assert str(error.value) == str(judge.value)


@pytest.mark.parametrize("wanted", [["word", "flag"], [1, 2], [False, True, True]], ids=str)
def test_categorical_features(wanted):
    X = frame()[["x", "word", "flag"]]
    coder = ColumnCoder(categorical_features=wanted, scaling=None).fit(X)
    assert coder.feature_names == ["x", "word=no", "word=yes", "flag=False", "flag=True"]
    assert ColumnCoder.from_state(json.loads(json.dumps(coder.to_state()))).to_state() == coder.to_state()
    with pytest.raises(ValueError, match=r"could not convert string to float: .* in column 'word'"):
        ColumnCoder(categorical_features=None).fit(X)


# --- missing, constant, infinite --------------------------------------------------------------------------------------


def test_missing_numbers_that_training_did_not_see_are_imputed():
    X = numbers()
    coder = ColumnCoder(scaling=None).fit(X)
    got = coder.transform(np.full((1, 7), np.nan), np.float64)
    np.testing.assert_array_equal(got, np.median(X, axis=0)[None])


@pytest.mark.parametrize("recipe", RECIPES)
def test_constant_and_missing_columns_contribute_zeros(recipe):
    X = frame()[["always", "never"]]
    coder = ColumnCoder(**RECIPES[recipe]).fit(X)
    rows = X.assign(always=7.0, never=[1.0] + [np.nan] * (N - 1))
    got = coder.transform(rows, np.float64)
    if recipe == "plain":  # numbers as they are
        np.testing.assert_array_equal(got, rows.fillna(0.0))
    else:
        np.testing.assert_array_equal(got, 0)
    assert got.shape == (N, coder.n_columns)
    with_gaps = ColumnCoder(**RECIPES[recipe]).fit(X.assign(always=[np.nan] + [2.5] * (N - 1)))
    assert "always is missing" in with_gaps.feature_names
    only_nothing = ColumnCoder(**RECIPES[recipe]).fit(pd.DataFrame({"a": pd.Categorical([None, None])}))
    np.testing.assert_array_equal(only_nothing.transform(pd.DataFrame({"a": ["b"]})), [[0.0]])


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e200, -1e200])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_infinity_is_refused_by_name(value, scaling):
    X = pd.DataFrame(numbers(), columns=list("abcdefg"))
    coder = ColumnCoder(scaling=scaling).fit(X, random_state=0)
    wrong = X.copy()
    wrong.loc[17, "e"] = value
    wrong.loc[3, "a"] = np.nan
    for call in (coder.transform, ColumnCoder(scaling=scaling).fit):
        with pytest.raises(ValueError, match=r"Input X contains infinity or a value too large: .* in column 'e'"):
            call(wrong)
        with pytest.raises(ValueError, match="in column 4"):
            (ColumnCoder().fit(X.to_numpy()).transform if call == coder.transform else call)(wrong.to_numpy())


@pytest.mark.parametrize("scaling", ["standard", None])
def test_what_float32_cannot_hold_is_refused(scaling):
    coder = ColumnCoder(scaling=scaling).fit([[1.0, 2.0], [2.0, 3.0], [4.0, 9.0]])
    with pytest.raises(ValueError, match=r"too large for dtype\('float32'\), in column 1"):
        coder.transform([[1.0, 1e60]])
    assert np.isfinite(coder.transform([[1.0, 1e60]], np.float64)).all()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros(3), "Expected 2D array, got 1D array instead"),
        (np.zeros((2, 2, 2)), "Expected 2D array, got 3D array instead"),
        (1.0, "Expected 2D array, got scalar array instead"),
        (np.zeros((0, 3)), r"Found array with 0 sample\(s\) \(shape=\(0, 3\)\)"),
        (np.zeros((3, 0)), r"Found array with 0 feature\(s\) \(shape=\(3, 0\)\)"),
        (pd.DataFrame({"a": []}), r"Found array with 0 sample\(s\)"),
        (pa.table({}), r"Found array with 0 "),
        (np.zeros((2, 2), complex), "Complex data not supported"),
        (sparse.eye(3).tocsr(), "Sparse data was passed"),
        (np.array([["2020-01-01"]], "M8[D]"), "convert its values to numbers or texts"),
        ([[1, "a"], [{"a": 1}, "b"]], "column 0 of X: argument must be .* string.* number.*, got dict, int"),
        (np.array([[10**400], [1]], object), "infinity or a value too large: an int in column 0"),
        (np.array([[b"\xff"]]), "column 0 of X has bytes that are no text in UTF-8"),
        (pd.DataFrame({"a": [1], 5: [2]}), "all input features have string names"),
    ],
    ids=str,
)
def test_what_is_no_table(X, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ColumnCoder().fit(X)


@pytest.mark.parametrize(
    "options",
    [
        {"scaling": "robust"},
        {"scaling": 1},
        {"scaling": ["standard"]},
        {"numeric_embedding": "linear"},
        {"one_hot_limit": 0},
        {"embedding_size": 0},
        {"embedding_size": 2.5},
        {"numeric_size": -1},
        {"frequencies": True},
        {"n_bins": "many"},
    ],
    ids=str,
)
def test_options_are_checked(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} must be"):
        ColumnCoder(**options)


@pytest.mark.parametrize("rows", [[], [500], [-1], [0.5], [[1]], "a"], ids=str)
def test_rows_are_checked(rows):
    with pytest.raises(ValueError, match="rows must be"):
        ColumnCoder().fit(numbers(), rows)


def test_an_array_of_texts_is_categorical():
    X = np.array([["a", "x"], ["b", "y"], ["c", "x"]])
    want = ["0=a", "0=b", "0=c", "1=x", "1=y"]
    for same in (X, X.astype(object), X.astype("S")):
        assert ColumnCoder(scaling=None).fit(same).feature_names == want


def test_texts_without_pandas(monkeypatch):
    X = frame()[["word", "letter"]].to_numpy(object)
    with_pandas = ColumnCoder().fit(X)
    monkeypatch.delitem(__import__("sys").modules, "pandas")
    without = ColumnCoder().fit(X)
    assert without.to_state() == with_pandas.to_state()
    with pytest.raises(TypeError, match="column 0 of X"):
        ColumnCoder().fit(np.array([[(1,)], [None]], dtype=object))


# --- states -----------------------------------------------------------------------------------------------------------


def paths(state, at=()):
    """Yield the way to each part of a state."""
    yield at
    for key in state if isinstance(state, dict) else range(len(state)) if isinstance(state, list) else ():
        yield from paths(state[key], (*at, key))


RUBBISH = (None, "", "x", -1, 0, 1e300, float("nan"), float("inf"), True, [], [None], {}, {"kind": "numeric"}, 10**400)


@pytest.mark.parametrize("recipe", ["td", "tabm", "standard"])
def test_forged_states_are_refused_or_work(recipe):
    """Whatever a state has in place of a part: a ValueError, or a coder whose numbers are finite."""
    X = frame(30)[["x", "word", "gaps", "letter", "always"]]
    state = json.loads(json.dumps(ColumnCoder(**RECIPES[recipe]).fit(X, random_state=0).to_state()))
    refused = 0
    for way in paths(state):
        if len(way) > 4 and way[-1] > 2:
            continue  # the parts of a long list are alike
        for value in RUBBISH:
            forged = copy.deepcopy(state)
            if not way:
                forged = value
            else:
                place = forged
                for key in way[:-1]:
                    place = place[key]
                place[way[-1]] = value
            try:
                coder = ColumnCoder.from_state(forged)
            except ValueError as error:
                assert str(error)
                refused += 1
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    assert np.isfinite(coder.transform(X, np.float64)).all()
                except ValueError as error:  # other names, or other kinds of categories
                    assert re.search(r"X has|feature names|column .* of X", str(error))
    assert refused > 200
    for key in state:
        with pytest.raises(ValueError, match="must have the entries"):
            ColumnCoder.from_state({name: value for name, value in state.items() if name != key})


def test_pickles_are_small():
    X = np.repeat(numbers(), 20, axis=0)
    coder = ColumnCoder().fit(X)
    size = len(pickle.dumps(coder))
    coder.transform(X)
    assert len(pickle.dumps(coder)) == size < 1500


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got int32"):
        ColumnCoder().fit(numbers()).transform(numbers(), np.int32)


def test_a_coder_that_is_not_fitted_says_so():
    with pytest.raises(AttributeError, match="not fitted"):
        ColumnCoder().transform([[1.0]])


def test_equal_seeds_give_equal_coders():
    X = numbers()
    coders = [ColumnCoder(scaling="quantile_normal").fit(X, random_state=seed).to_state() for seed in (0, 0, 1)]
    assert coders[0] == coders[1] != coders[2]


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [np.asarray, pd.DataFrame], ids=["array", "frame"])
@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_no_second_copy_of_a_large_table(make, dtype):
    values = (RNG.random((20_000, 50)) * 1000).astype(dtype)
    X = make(values)
    if make is pd.DataFrame:
        X.columns = [f"c{i}" for i in range(50)]
    coder = ColumnCoder().fit(X, rows=np.arange(100))
    tracemalloc.start()
    try:
        out = coder.transform(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < out.nbytes + (2 << 20)  # a second table would take 8 or 4 MB


def test_frames_of_several_dtypes():
    X = pd.DataFrame({"a": [1, 2, 3], "b": [1.5, 2.5, np.nan], "c": np.array([1, 2, 3], np.float32)})
    want = ColumnCoder().fit(X.astype(float))
    for dtype in ({"a": "int8"}, {"a": "uint64"}, {"b": "float32"}, {"c": "float64"}):
        assert ColumnCoder().fit(X.astype(dtype)).to_state() == want.to_state()
