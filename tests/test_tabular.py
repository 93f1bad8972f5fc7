"""Reading tables, coding columns, and the matrices on disk, judged by pandas and scikit-learn in memory."""

import gzip
import json
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fastmlp import MLPClassifier
from fastmlp.tabular import columns, delimited, recipe, staging
from fastmlp.tabular.coding import Coder
from fastmlp.tabular.columns import Boolean, Categorical, Numeric
from fastmlp.tabular.reading import BATCH_ROWS, DataError, Dialect, open_source
from fastmlp.tabular.target import read_target

N = 500


def frame(n=N, seed=0, missing=True):
    """All kinds of columns, with gaps, and a target."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "colour": rng.choice(["red", "green", "deep, blue", 'the "x"'], n).astype(object),
            "size": rng.normal(50, 9, n).round(3),
            "sweet": rng.random(n) < 0.3,
            "count": rng.integers(0, 9, n).astype(float),
            "flat": np.full(n, 2.5),
            "shape": rng.choice(["round", "long"], n).astype(object),
            "y": rng.choice(["no", "yes"], n).astype(object),
        }
    )
    if missing:
        table["sweet"] = table["sweet"].astype(object)
        for name in ("colour", "size", "sweet", "count"):
            table.loc[rng.choice(n, n // 9, replace=False), name] = None
    return table


def csv(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def staged(source, folder, target="y", share=0.2, seed=0, dtype=np.float64):
    """(staged features, mask of the held out rows, target) as the command makes them."""
    kinds = dict(source.kinds)
    kinds[target] = kinds.pop(target)
    codes = staging.write_codes(source, kinds, folder, max_categories=100)
    target = read_target(codes, "auto", "file")
    held_out = staging.draw_validation(codes.target, share, seed, stratify=True)
    return staging.stage(codes, held_out, dtype, folder), held_out, target


def in_memory(table, training):
    """What scikit-learn makes of a whole table, fitted to its training rows."""
    numbers, truths, texts = ["size", "count", "flat"], ["sweet"], ["colour", "shape"]
    table = table.copy()
    table["sweet"] = table["sweet"].map({True: 1.0, False: 0.0})
    table[texts] = table[texts].astype(object).where(table[texts].notna(), np.nan)
    made = ColumnTransformer(
        [
            ("n", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
            ("b", SimpleImputer(strategy="most_frequent"), truths),
            ("c", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(sparse_output=False)), texts),
        ]
    )
    return made.fit(table[training]), made.transform(table)


# --- the road from a file to features ------------------------------------------------------------------------------


@pytest.mark.parametrize("block_bytes", [staging.BLOCK_BYTES, 1000])
def test_features_are_those_of_scikit_learn_in_memory(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(staging, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(staging, "MEDIAN_BYTES", block_bytes)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", max(block_bytes, 5000))
    table = frame()
    table.to_csv(tmp_path / "t.csv", index=False)
    made, held_out, target = staged(open_source(tmp_path / "t.csv"), tmp_path)
    fitted, expected = in_memory(table, ~held_out)
    np.testing.assert_allclose(made.X, expected[~held_out], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(made.X_val, expected[held_out], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(target.y, table["y"])

    numbers = [column for column in made.columns if isinstance(column, Numeric)]
    imputer, scaler = fitted.named_transformers_["n"]
    assert [column.median for column in numbers] == imputer.statistics_.tolist()  # exact, not approximate
    np.testing.assert_allclose([column.mean for column in numbers], scaler.mean_, rtol=1e-13)
    np.testing.assert_allclose([column.scale for column in numbers], scaler.scale_, rtol=1e-13)
    texts = [column for column in made.columns if isinstance(column, Categorical)]
    encoder = fitted.named_transformers_["c"][-1]
    assert [list(column.categories) for column in texts] == [list(found) for found in encoder.categories_]
    assert columns.feature_names(made.columns) == [
        *("size", "count", "flat", "sweet"),
        *(f"{column.name}={category}" for column in texts for category in column.categories),
    ]


def test_the_same_rows_give_the_same_features_again(tmp_path):
    """What predict makes of a file is what training made of it, bit for bit, in both dtypes."""
    frame().to_csv(tmp_path / "t.csv", index=False)
    source = open_source(tmp_path / "t.csv")
    for dtype in (np.float32, np.float64):
        made, held_out, _ = staged(source, tmp_path, dtype=dtype)
        document = json.loads(json.dumps(recipe.Recipe(made.columns, "y", "classification").to_json()))
        again = np.concatenate(list(recipe.from_json(document).blocks(source, dtype)))
        assert again.dtype == made.X.dtype == dtype
        np.testing.assert_array_equal(again[~held_out], made.X)
        np.testing.assert_array_equal(again[held_out], made.X_val)


def test_fit_neither_copies_the_map_nor_ends_elsewhere_than_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 60)).astype(np.float32)
    np.savez(tmp_path / "t.npz", X=X, y=(X[:, 0] > 0).astype(int))
    made, held_out, target = staged(open_source(tmp_path / "t.npz"), tmp_path, dtype=np.float32)
    y, y_val = target.y[~held_out], target.y[held_out]
    assert not made.X.flags.writeable and made.X.flags.c_contiguous

    def fit(X, X_val):
        model = MLPClassifier((8,), max_iter=3, tol=0, random_state=0, early_stopping=True)
        with pytest.warns(UserWarning, match="Maximum iterations"):
            return model.fit(X, y, X_val=X_val, y_val=y_val)

    fit(made.X, made.X_val)  # imports and caches
    tracemalloc.start()
    mapped = fit(made.X, made.X_val)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < made.X.nbytes / 2
    arrays = fit(np.array(made.X), np.array(made.X_val))
    for ours, theirs in zip(mapped.coefs_ + mapped.intercepts_, arrays.coefs_ + arrays.intercepts_, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_nothing_is_left_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), staging.temporary_folder(tmp_path / "model") as folder:
        (folder / "codes").write_bytes(b"x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot make a folder"), staging.temporary_folder(tmp_path / "no" / "model"):
        pass


# --- validation rows --------------------------------------------------------------------------------------------------


def test_validation_rows_keep_the_shares_of_the_classes():
    target = np.repeat([0.0, 1.0, 2.0], [600, 300, 100])
    held_out = staging.draw_validation(target, 0.25, 7, stratify=True)
    assert np.bincount(target[held_out].astype(int)).tolist() == [150, 75, 25]
    np.testing.assert_array_equal(held_out, staging.draw_validation(target, 0.25, 7, stratify=True))
    assert (held_out != staging.draw_validation(target, 0.25, 8, stratify=True)).any()


@given(st.lists(st.integers(0, 4), min_size=4, max_size=60), st.floats(0.05, 0.9), st.integers(0, 99))
def test_every_class_has_training_rows(labels, share, seed):
    target = np.array(labels, dtype=float)
    try:
        held_out = staging.draw_validation(target, share, seed, stratify=True)
    except DataError as error:
        assert "--valid" in str(error)
        return
    assert held_out.any() and set(target[held_out]) <= set(target[~held_out])
    assert held_out.sum() <= np.ceil(share * len(target))


def test_no_share_means_no_validation_rows():
    assert not staging.draw_validation(np.arange(5.0), 0, 0, stratify=False).any()


# --- formats ----------------------------------------------------------------------------------------------------------


def written(table, path):
    """The table in the format of the file's ending."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    if path.name.endswith((".csv", ".csv.gz")):
        table.to_csv(path, index=False)
    elif path.name.endswith((".tsv", ".tsv.gz")):
        table.to_csv(path, index=False, sep="\t")
    elif path.suffix == ".parquet":
        pq.write_table(arrow, path, row_group_size=70)
    elif path.suffix == ".ipc":
        with pa.ipc.new_stream(path, arrow.schema) as stream:
            stream.write_table(arrow, max_chunksize=70)
    else:
        feather.write_feather(arrow, path)
    return path


@pytest.mark.parametrize("ending", [".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".feather", ".ipc"])
def test_every_format_gives_the_same_rows(tmp_path, ending):
    table = frame()
    expected = open_source(written(table, tmp_path / "t.csv"))
    source = open_source(written(table, tmp_path / f"t{ending}"))
    assert source.kinds == expected.kinds == dict(zip(table, KINDS_OF_FRAME, strict=True))
    rows = pa.Table.from_batches(source.batches(source.kinds))
    assert rows.equals(pa.Table.from_batches(expected.batches(expected.kinds)))


KINDS_OF_FRAME = ("categorical", "numeric", "boolean", "numeric", "numeric", "categorical", "categorical")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_in_the_header(tmp_path, separator):
    frame().to_csv(tmp_path / "t.csv", index=False, sep=separator)
    assert tuple(open_source(tmp_path / "t.csv").kinds.values()) == KINDS_OF_FRAME


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_is_read_in_blocks(tmp_path, monkeypatch, save, order):
    monkeypatch.setattr("fastmlp.tabular.archive.BLOCK_BYTES", 1000)
    X = np.asarray(np.random.default_rng(0).normal(size=(321, 7)), order=order)
    X[3, 2] = np.nan
    labels = np.array(["a", "bc"])[(X[:, 0] > 0).astype(int)]
    save(tmp_path / "t.npz", X=X, y=labels)
    source = open_source(tmp_path / "t.npz")
    assert source.kinds == {**{f"x{i}": "numeric" for i in range(7)}, "y": "categorical"}
    batches = list(source.batches({"x2": "numeric", "x6": "numeric", "y": "categorical"}))
    assert len(batches) > 5
    table = pa.Table.from_batches(batches).to_pandas()
    np.testing.assert_array_equal(table[["x2", "x6"]], X[:, [2, 6]])
    assert pa.Table.from_batches(batches).column("x2").null_count == 1
    assert table["y"].tolist() == labels.tolist()


def test_types_of_parquet_columns(tmp_path):
    table = pa.table(
        {
            "int": pa.array([1, None, 2**40], pa.int64()),
            "half": pa.array(np.array([1, 2, 0.5], np.float16)),
            "decimal": pa.array([1, 2, None], pa.decimal128(9, 2)),
            "words": pa.array(["a", "b", "a"]).dictionary_encode(),
            "large": pa.array(["a", None, "b"], pa.large_string()),
            "truth": [True, None, False],
            "date": pa.array([0, 1, 2], pa.date32()),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    assert list(source.problems) == ["date"]
    kinds = {name: kind for name, kind in source.kinds.items() if name != "date"}
    assert list(kinds.values()) == ["numeric"] * 3 + ["categorical"] * 2 + ["boolean"]
    (batch,) = source.batches(kinds)
    assert batch.to_pydict() == {
        "int": [1, None, 2.0**40],
        "half": [1, 2, 0.5],
        "decimal": [1, 2, None],
        "words": ["a", "b", "a"],
        "large": ["a", None, "b"],
        "truth": [True, None, False],
    }
    # a kind that is asked for is what comes
    (batch,) = source.batches({"int": "categorical", "truth": "numeric", "words": "categorical"})
    assert batch.to_pydict()["int"] == ["1", None, str(2**40)] and batch.to_pydict()["truth"] == [1, None, 0]


def test_batches_are_not_larger_than_promised(tmp_path):
    pq.write_table(pa.table({"a": np.arange(BATCH_ROWS + 10.0)}), tmp_path / "t.parquet")
    sizes = [batch.num_rows for batch in open_source(tmp_path / "t.parquet").batches({"a": "numeric"})]
    assert max(sizes) <= BATCH_ROWS and sum(sizes) == BATCH_ROWS + 10


# --- what is wrong in a file --------------------------------------------------------------------------------------

GOOD = "a,b,y\n" + "".join(f"{i % 7},{i % 5},{'ny'[i % 2]}\n" for i in range(40))

BAD_FILES = {
    "empty.csv": ("", "is empty"),
    "blank.csv": ("\n \n", "is empty"),
    "header.csv": ("a,b,y\n", "has no rows"),
    "bare.csv": ("a,b,y", "has no rows"),
    "short.csv": (GOOD + "1,2\n" + GOOD[6:], "row 41 has 2 fields, the header has 3"),
    "long.csv": (GOOD + "1,2,y,4\n", "row 41 has 4 fields, the header has 3"),
    "twice.csv": (GOOD.replace("a,b", "a,a", 1), "more than one column has the name 'a'"),
    "text.csv": (GOOD + "1,abc,y\n", "column 'b' is numeric in most rows, but row 41 has 'abc'"),
    "late.csv": (GOOD + "1,2,y\n" * 300_000 + "\n1,abc,y\n", "row 300041, column 'b': 'abc' is no number"),
    "truth.csv": ("b,y\n" + "true,1\nFALSE,0\n" * 150_000 + "maybe,1\n", "row 300001, column 'b': 'maybe' is neither"),
    "latin.csv": (GOOD.encode() + "1,2,é\n".encode("latin-1"), r"row 41, column 'y': b'\xe9' is no utf-8 text"),
    "name.csv": (GOOD.replace("a", "é").encode("latin-1"), "the header is no utf-8 text"),
    "target.csv": (GOOD + "1,2,\n", "row 41, column 'y': the target is missing"),
    "inf.csv": (GOOD + "inf,2,y\n", "row 41, column 'a': inf is no number"),
    "huge.csv": (GOOD + "1,-1e200,y\n", "row 41, column 'b': -1e+200 is no number"),
    "same.csv": (GOOD.replace("n\n", "y\n"), "the target 'y' is 'y' in every row"),
    "dates.csv": (GOOD.replace(",0,", ",2020-01-01,").replace(",1,", ",2020-01-01,"), "column 'b' is numeric in most"),
    "date.csv": ("b,y\n2020-01-01,1\n2020-01-02,2\n", "column 'b' holds dates or times"),
    "nothing.csv": ("b,y\n,1\nNA,2\n", "column 'b' has no value in its first 2 rows"),
    "unnamed.csv": (",y\n1,1\n1,2\n", "column '' has no name"),
    "ids.csv": (
        "b,y\n" + "".join(f"k{i},{i % 2}\n" for i in range(200)),
        "column 'b' has more than 100 different texts",
    ),
    "zip.csv.gz": ("no gzip", "Not a gzipped file"),
    "cut.csv.gz": (gzip.compress(GOOD.encode())[:-20], "Truncated compressed stream|Compressed file ended"),
    "no.parquet": ("hello", "too small|smaller than"),
    "no.arrow": ("hello", "no.arrow: "),
    "no.npz": ("hello", "is no NumPy archive"),
    "no.sas7bdat": ("hello", "unknown kind of file; a file must end in .csv,"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_in_one_line_that_says_where(tmp_path, name):
    content, message = BAD_FILES[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as error:
        source = open_source(path)
        source.check(source.kinds)
        staged(source, tmp_path)
    assert "\n" not in str(error.value) and str(error.value).startswith(("file: ", f"{path}: "))
    assert any(part in str(error.value) for part in message.split("|")), error.value


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        open_source(tmp_path / "no.csv")
    with pytest.raises(DataError, match="No such file"):
        open_source(tmp_path / "no.zip")
    with pytest.raises(DataError, match="No such file"):
        open_source(tmp_path / "no.jsonl")
    with pytest.raises(DataError, match="No such file"):
        open_source(tmp_path / "no.xlsx")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is a folder without"):
        open_source(tmp_path / "folder.csv")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"Z": np.ones(3)}, "has no array X; it has Z"),
        ({"X": np.ones(3)}, "X must be a matrix of numbers"),
        ({"X": np.array([["a"]])}, "X must be a matrix of numbers"),
        ({"X": np.array([[1, "a"]], dtype=object)}, "holds Python objects"),
        ({"X": np.ones((5, 2)), "y": np.ones(4)}, "y must have shape"),
    ],
)
def test_bad_archives(tmp_path, arrays, message):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / "t.npz")


def test_damaged_archive(tmp_path):
    np.savez(tmp_path / "t.npz", X=np.ones((400, 9)))
    with zipfile.ZipFile(tmp_path / "t.npz") as archive:
        member = archive.read("X.npy")
    with zipfile.ZipFile(tmp_path / "cut.npz", "w") as archive:
        archive.writestr("X.npy", member[:-500])
    source = open_source(tmp_path / "cut.npz")
    with pytest.raises(DataError, match="X cannot be read"):
        list(source.batches({"x0": "numeric"}))


def test_parquet_values_of_another_kind(tmp_path):
    pq.write_table(pa.table({"a": ["1", "2", "x"], "b": [0, 1, 2]}), tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 3, column 'a': 'x' is no number"):
        list(source.batches({"a": "numeric"}))
    with pytest.raises(DataError, match="row 3, column 'b': 2 is neither true nor false"):
        list(source.batches({"b": "boolean"}))


def test_columns_that_are_not_there(tmp_path):
    source = open_source(csv(tmp_path / "t.csv", "quality,colour\n1,red\n2,blue\n"))
    with pytest.raises(DataError, match=r"no column 'qualty' \(did you mean 'quality'\?\); it has 'quality', 'colour'"):
        source.check(["qualty"])
    with pytest.raises(DataError, match="no column 'a', 'b'; it has"):
        source.check(["a", "b"])


def test_dialects(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("größe;y\n1;1\n?;2\n".encode("latin-1"))
    (batch,) = open_source(path, Dialect(encoding="latin-1", missing=("?",))).batches({"größe": "numeric"})
    assert batch.to_pydict() == {"größe": [1, None]}
    csv(path, "\ufeffa\n1\n2\n")  # a byte order mark is no part of a name
    assert open_source(path).kinds == {"a": "numeric"}
    with pytest.raises(DataError, match="no encoding 'klingon'"):
        open_source(path, Dialect(encoding="klingon"))


def test_line_breaks_in_quotes_belong_to_their_field(tmp_path):
    source = open_source(csv(tmp_path / "t.csv", 'a,b\n"x\ny",1\n"p, ""q""",2\n'))
    (batch,) = source.batches(source.kinds)
    assert batch.to_pydict() == {"a": ["x\ny", 'p, "q"'], "b": [1, 2]}


# --- codes ------------------------------------------------------------------------------------------------------------

COLUMNS = [Categorical("c", ("a", "b"), 1), Numeric("x", 3.0, 2.0, 4.0, 2.0), Boolean("t", 1)]


def test_coder_finds_columns_by_name_and_counts_what_is_new(tmp_path):
    source = open_source(csv(tmp_path / "t.csv", "t,extra,c,x\ntrue,9,b,1\n,9,new,\nfalse,9,,2\nfalse,9,new,2\n"))
    coder = Coder(COLUMNS)
    (block,) = coder.blocks(source)
    np.testing.assert_array_equal(block, [[1, 1, 1], [2, np.nan, np.nan], [np.nan, 2, 0], [2, 2, 0]])
    assert coder.unseen == {"c": {"new": 2}}
    features = columns.coder(COLUMNS).coded(columns.coded(COLUMNS, block), np.float64)
    np.testing.assert_array_equal(features, [[-0.5, 1, 0, 1], [0.5, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    with pytest.raises(DataError, match="row 2, column 'c': 'new' is no category that training saw"):
        list(Coder(COLUMNS).blocks(source, unknown="error"))


def test_coder_reads_what_looks_like_another_kind(tmp_path):
    columns_ = [Categorical("zip", ("1", "2"), 0), Boolean("t", 0)]
    source = open_source(csv(tmp_path / "t.csv", "zip,t\n2,1\n1,0\n3,1\n"))
    (block,) = Coder(columns_).blocks(source)
    np.testing.assert_array_equal(block, [[1, 1], [0, 0], [2, 1]])


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task", "y"),
    [
        (["b", "a", "b"], "classification", np.array(["b", "a", "b"], dtype=object)),
        (["true", "false", "true"], "classification", np.array([True, False, True])),
        (["3", "-1", "3"], "classification", np.array([3, -1, 3])),
        (["1.0", "2.0", "1"], "classification", np.array([1, 2, 1])),
        (["1.5", "2.0", "1"], "regression", np.array([1.5, 2, 1])),
        (map(str, range(20)), "classification", np.arange(20)),
        (map(str, range(21)), "regression", np.arange(21.0)),
        (["9007199254740993", "1"], "regression", np.array([9007199254740992.0, 1])),
    ],
)
def test_tasks(tmp_path, values, task, y):
    lines = "".join(f"{i},{value}\n" for i, value in enumerate(values))
    source = open_source(csv(tmp_path / "t.csv", "x,y\n" + lines))
    codes = staging.write_codes(source, source.kinds, tmp_path, max_categories=9)
    target = read_target(codes, "auto", "file")
    assert (target.task, target.y.dtype) == (task, y.dtype)
    np.testing.assert_array_equal(target.y, y)
    assert target.classes == (np.unique(y).tolist() if task == "classification" else [])


def test_tasks_that_are_asked_for(tmp_path):
    def codes(values):
        source = open_source(csv(tmp_path / "t.csv", "x,y\n" + "".join(f"1,{v}\n" for v in values)))
        return staging.write_codes(source, source.kinds, tmp_path, max_categories=9)

    assert read_target(codes([1, 2, 3]), "regression", "file").y.dtype == float
    assert read_target(codes(range(50)), "classification", "file").y.dtype == int
    with pytest.raises(DataError, match="no values for --task regression"):
        read_target(codes("ab"), "regression", "file")
    with pytest.raises(DataError, match="no classes for --task classification"):
        read_target(codes([1.5, 2]), "classification", "file")


# --- JSON -------------------------------------------------------------------------------------------------------------

finite = st.floats(-1e100, 1e100)
column_lists = st.lists(
    st.one_of(
        st.builds(Numeric, st.text(), finite, finite, st.floats(0, 1e100), st.floats(1e-100, 1e100)),
        st.builds(Boolean, st.text(), st.integers(0, 1)),
        st.builds(Categorical, st.text(), st.sets(st.text(), min_size=1).map(sorted).map(tuple), st.just(0)),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda column: column.name,
)


@given(column_lists)
@settings(max_examples=50)
def test_columns_survive_json(given_columns):
    text = json.dumps(columns.to_json(given_columns))
    assert columns.from_json(json.loads(text)) == given_columns


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.text(max_size=2)),
    st.just({}),
)


@given(st.data())
def test_hostile_json_is_refused_or_harmless(data):
    document = columns.to_json(COLUMNS)
    i = data.draw(st.integers(0, 2))
    key = data.draw(st.sampled_from([*document[i], "other"]))
    value = data.draw(junk)
    if data.draw(st.booleans()) and key in document[i]:
        del document[i][key]
    else:
        document[i][key] = value
    try:
        read = columns.from_json(document)
    except DataError as error:
        assert "columns" in str(error)
        return
    rows = np.array([[0, 1.0, 1.0], [np.nan] * 3])
    assert np.isfinite(columns.coder(read).coded(columns.coded(read, rows), np.float64)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": []}, "columns must be a list"),
        ({"columns": columns.to_json(COLUMNS) * 2}, "different names"),
        ({"version": 99}, "has version 99"),
        ({"target": 3}, "target must be a text"),
        ({"task": "x"}, "task must be"),
        ({"training": []}, "training must be an object"),
        ({"missing": [1]}, "missing must be"),
    ],
)
def test_hostile_recipes(change, message):
    document = recipe.Recipe(COLUMNS, "y", "regression").to_json()
    assert recipe.from_json(document).columns == COLUMNS
    document["table"] |= change
    with pytest.raises(DataError, match=message):
        recipe.from_json(document)
    with pytest.raises(DataError, match="says nothing about columns"):
        recipe.from_json({})
