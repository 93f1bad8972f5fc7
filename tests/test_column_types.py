"""What a column of a file is: an index, categories, numbers, no feature at all; and the same of frames in memory."""

import json
import re
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather
from scipy import sparse
from sklearn.base import clone

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.data import inputs
from fastmlp.tabular import coding, recipe, staging
from fastmlp.tabular.reading import AS_IT_IS, DataError, open_source
from fastmlp.tabular.target import read_target

from data_files import QUICK, saved, values
from shell import invoke

# --- indexes ----------------------------------------------------------------------------------------------------------


def noise(n=200):
    """A frame whose target only its index knows: sorted by the target, then shuffled."""
    rng = np.random.default_rng(0)
    return pd.DataFrame({"x": rng.normal(size=n), "y": np.repeat(["no", "yes"], n // 2)})


SHUFFLED = noise().sample(frac=1, random_state=0)

#: Frames, and the columns of their indexes.
INDEXES = {
    "range": (noise(), set()),
    "named range": (noise().rename_axis("row"), set()),
    "shuffled": (SHUFFLED, {"__index_level_0__"}),
    "named": (SHUFFLED.rename_axis("row"), {"row"}),
    "texts": (noise().set_index(pd.Index([f"k{i}" for i in range(200)], name="key")), {"key"}),
    "levels": (SHUFFLED.set_index(["x"], append=True).assign(z=1.0).iloc[:, ::-1], {"__index_level_0__", "x"}),
    "dates": (noise().set_index(pd.date_range("2020", periods=200)), {"__index_level_0__"}),
}


@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather", "ipc"])
@pytest.mark.parametrize("name", INDEXES)
def test_an_index_of_pandas_is_no_feature(tmp_path, name, ending):
    table, index = INDEXES[name]
    source = open_source(with_index(table, tmp_path / f"t.{ending}"))
    assert set(source.left_out) == index
    assert list(source.used("y")) == [column for column in table if column != "y"] + ["y"]
    if index:  # it is used if it is asked for by name
        (asked, *_) = index
        kinds = open_source(tmp_path / f"t.{ending}").used("y", asked={asked: "categorical"})
        assert kinds[asked] == "categorical"
        again = open_source(tmp_path / f"t.{ending}")
        assert list(again.used(asked))[-1] == asked and asked not in again.left_out
        dropped = open_source(tmp_path / f"t.{ending}")
        assert asked not in dropped.used("y", drop=[asked]) and asked not in dropped.left_out


def with_index(table, path):
    arrow = pa.Table.from_pandas(table)
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".ipc":
        with pa.ipc.new_stream(path, arrow.schema) as stream:
            stream.write_table(arrow)
    else:
        feather.write_feather(arrow, path)
    return path


@pytest.mark.parametrize("form", ["parquet", "csv", "csv twice", "xlsx", "table.json"])
def test_training_on_noise_stays_noise_and_says_what_was_left_out(tmp_path, form):
    name = {"csv twice": "t.csv"}.get(form, f"t.{form}")
    path, model = tmp_path / name, tmp_path / "m.safetensors"
    if form == "parquet":
        SHUFFLED.to_parquet(path)
    elif form == "xlsx":
        SHUFFLED.to_excel(path)
    elif form == "table.json":
        SHUFFLED.to_json(path, orient="table")
    else:
        SHUFFLED.to_csv(path)
        if form == "csv twice":
            pd.read_csv(path).to_csv(path, index=False)
    options = ("--hidden", "16", "--solver", "lbfgs", "--max-iter", "60", "--valid", "0.3", "--random-state", "0")
    result = invoke("train", path, "--target", "y", *options, "-o", model, "--json", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    (left,) = report["left_out"]
    assert left == {"parquet": "__index_level_0__", "csv twice": "Unnamed: 0", "table.json": "index"}.get(form, "")
    assert re.search(rf"left out +{left!r}: the index of", result.stdout)
    assert report["columns"] == 1 and report["metrics"]["accuracy"] < 0.75
    predicted = invoke("predict", model, path).stdout.splitlines()
    assert len(predicted) == 201
    _, made = recipe.load(model)
    assert [column.name for column in made.columns] == ["x"]


def test_an_index_can_be_the_target(tmp_path):
    SHUFFLED.set_index("y").to_parquet(tmp_path / "t.parquet")
    invoke("train", tmp_path / "t.parquet", "--target", "y", *QUICK, "-o", tmp_path / "m.safetensors")
    assert invoke("predict", tmp_path / "m.safetensors", tmp_path / "t.parquet").stdout.startswith('"y"\n')


@pytest.mark.parametrize(
    "metadata",
    [
        b"{", b"null", b"[]", b'{"index_columns": 3, "columns": 3}', b"\xff", b"[" * 100_000,
        b'{"index_columns": [["x"], {"kind": "range"}, null, 7], "columns": [null, {"pandas_type": "categorical"}]}',
    ],
)  # fmt: skip
def test_damaged_metadata_says_nothing(tmp_path, metadata):
    table = pa.table({"x": [1.0, 2.0], "y": ["a", "b"]}).replace_schema_metadata({b"pandas": metadata})
    pq.write_table(table, tmp_path / "t.parquet")
    feather.write_feather(table, tmp_path / "t.feather")
    for name in ("t.parquet", "t.feather"):
        source = open_source(tmp_path / name)
        assert (source.kinds, source.left_out) == ({"x": "numeric", "y": "categorical"}, {})


# --- types ------------------------------------------------------------------------------------------------------------

N = 6

#: Columns -> the kind each must have, and its values.
COLUMNS = {
    "int category": (pd.Categorical([3, 1, 2] * 2), "categorical", ["3", "1", "2"] * 2),
    "int category with gaps": (pd.Categorical([3, None, 2] * 2), "categorical", ["3", None, "2"] * 2),
    "float category": (pd.Categorical([0.5, 1.0, 2.0] * 2), "categorical", ["0.5", "1", "2"] * 2),
    "text category": (pd.Categorical(["a", "b", None] * 2), "categorical", ["a", "b", None] * 2),
    "ordered": (pd.Categorical([3, 1, 2] * 2, ordered=True), "categorical", ["3", "1", "2"] * 2),
    "unused": (pd.Categorical([3] * 6, categories=[1, 2, 3]), "categorical", ["3"] * 6),
    "bool category": (pd.Categorical([True, False, True] * 2), "boolean", [True, False, True] * 2),
    "nullable int": (pd.array([1, None, 3] * 2, "Int64"), "numeric", [1.0, None, 3.0] * 2),
    "nullable bool": (pd.array([True, None, False] * 2, "boolean"), "boolean", [True, None, False] * 2),
    "uint64": (np.array([0, 2**64 - 1, 5] * 2, np.uint64), "numeric", [0.0, 2.0**64, 5.0] * 2),
    "int8": (np.array([-3, 0, 5] * 2, np.int8), "numeric", [-3.0, 0.0, 5.0] * 2),
    "half": (np.array([0.5, 1, np.nan] * 2, np.float16), "numeric", [0.5, 1.0, None] * 2),
    "decimal": ([Decimal("1.50"), None, Decimal("-2.25")] * 2, "numeric", [1.5, None, -2.25] * 2),
    "python strings": (pd.array(["a", None, "b"] * 2, "string"), "categorical", ["a", None, "b"] * 2),
    "arrow ints": (pd.array([1, None, 3] * 2, "int32[pyarrow]"), "numeric", [1.0, None, 3.0] * 2),
}

#: Types of Arrow that are no features.
OTHERS = {
    "dates": pa.array([0, 1] * 3, pa.date32()),
    "times": pa.array([0, 1] * 3, pa.timestamp("ns", "UTC")),
    "clock": pa.array([0, 1] * 3, pa.time32("s")),
    "spans": pa.array([0, 1] * 3, pa.duration("s")),
    "lists": pa.array([[1], [2, 3]] * 3),
    "records": pa.array([{"a": 1}] * 6),
    "maps": pa.array([[("a", 1)]] * 6, pa.map_(pa.string(), pa.int64())),
    "bytes": pa.array([b"a"] * 6),
    "date categories": pa.array([0, 1] * 3, pa.date32()).dictionary_encode(),
}


@pytest.mark.parametrize("ending", ["parquet", "feather"])
@pytest.mark.parametrize("name", COLUMNS)
def test_types_of_columns_are_respected(tmp_path, name, ending):
    column, kind, expected = COLUMNS[name]
    arrow = pa.Table.from_pandas(pd.DataFrame({"a": column, "y": [0, 1] * 3}))
    for metadata in (arrow.schema.metadata, None):  # written by pandas, or by others
        table = arrow.replace_schema_metadata(metadata)
        path = tmp_path / f"t.{ending}"
        pq.write_table(table, path) if ending == "parquet" else feather.write_feather(table, path)
        source = open_source(path)
        assert (source.kinds["a"], source.problems) == (kind, {})
        (batch,) = source.batches({"a": kind})
        assert batch.column(0).to_pylist() == expected


@pytest.mark.parametrize("ending", ["parquet", "feather"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_types_are_refused_by_name(tmp_path, name, ending):
    table = pa.table({"a": OTHERS[name], "y": [0, 1] * 3})
    path = tmp_path / f"t.{ending}"
    if ending == "feather" or name not in ("spans", "date categories"):
        pq.write_table(table, path) if ending == "parquet" else feather.write_feather(table, path)
        with pytest.raises(DataError, match=r"column 'a' (holds dates or times|has values of type).*--drop"):
            source = open_source(path)
            source.check(source.kinds)


@pytest.mark.parametrize("text_type", ["string", "large_string", "string_view"])
@pytest.mark.parametrize("encoded", [False, True])
def test_every_type_of_text(tmp_path, text_type, encoded):
    texts = pa.array(["a", None, "b"]).cast(pa.type_for_alias(text_type))
    array = pa.DictionaryArray.from_arrays(pa.array([0, None, 2]), texts) if encoded else texts
    with pa.ipc.new_file(tmp_path / "t.arrow", pa.schema([("a", array.type)])) as stream:
        stream.write_table(pa.table({"a": array}))
    source = open_source(tmp_path / "t.arrow")
    assert values(source)["a"].tolist()[::2] == ["a", "b"] and source.kinds == {"a": "categorical"}


PREDICTED = {
    "category": lambda a: pd.Categorical(a),
    "ints": lambda a: a,
    "gap": lambda a: pd.array([None, *a[1:]], "Int64").astype("float64"),
    "float category": lambda a: pd.Categorical(np.array(a, float)),
    "texts": lambda a: np.array(a, str).astype(object),
}


@pytest.mark.parametrize("trained", PREDICTED)
@pytest.mark.parametrize(
    "ending", ["parquet", *(pytest.param(e, marks=pytest.mark.exhaustive) for e in ("csv", "jsonl", "feather"))]
)
def test_kinds_are_those_of_training_whatever_the_file_says(tmp_path, trained, ending):
    """A column of categories stays one if another file has plain numbers, and the reverse."""
    a = np.array([7, 1, 2, 1] * 5)
    path = tmp_path / f"t.{ending}"
    saved(pd.DataFrame({"a": PREDICTED[trained](a), "y": [0.5, 1, 2, 3] * 5}), path)
    source = open_source(path)
    kinds = source.used("y")
    codes = staging.write_codes(source, kinds, tmp_path, max_categories=9)
    columns, _ = staging.learn_columns(codes, np.ones(20, bool))
    expected = np.concatenate(list(coding.Coder(columns).blocks(source)))
    for name, made in PREDICTED.items():
        for other in ("parquet", "csv", "jsonl", "feather", "xlsx"):
            table = pd.DataFrame({"a": made(a)})
            coder = coding.Coder(columns)
            block = np.concatenate(list(coder.blocks(open_source(saved(table, tmp_path / f"p.{other}")))))
            first = 1 if "gap" in (name, trained) else 0
            np.testing.assert_array_equal(block[first:], expected[first:], err_msg=f"{name} in {other}")
            assert coder.unseen == ({} if trained != "gap" or first == 0 else coder.unseen)


@pytest.mark.parametrize("ending", ["csv", "parquet", "feather", "jsonl", "xlsx"])
def test_a_column_can_be_handed_on_as_it_is(tmp_path, ending):
    table = pd.DataFrame({"code": ["007", "x1", "12"], "n": [1, 2, 3], "c": pd.Categorical([3, 1, 2])})
    source = open_source(saved(table, tmp_path / f"t.{ending}"))
    (batch,) = source.batches(dict.fromkeys(table, AS_IT_IS))
    whole = [value if ending in ("parquet", "feather") else str(value) for value in (1, 2, 3)]
    assert batch.to_pydict() == {"code": ["007", "x1", "12"], "n": whole, "c": [whole[2], *whole[:2]]}


def test_categories_of_whole_numbers_are_classes_with_these_labels(tmp_path):
    labels = list(range(30)) * 4
    table = pd.DataFrame({"x": np.arange(120.0), "y": pd.Categorical(labels)})
    source = open_source(saved(table, tmp_path / "t.parquet"))
    codes = staging.write_codes(source, source.used("y"), tmp_path, max_categories=9)
    target = read_target(codes, "auto", "file")
    assert (target.task, target.classes) == ("classification", list(range(30)))
    assert target.y.tolist() == labels and "30 different categories" in target.reason
    assert read_target(codes, "regression", "file").task == "regression"


# --- what people should look at ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_rows", [7, 1000])
def test_columns_that_are_likely_no_features_are_named(tmp_path, monkeypatch, block_rows):
    monkeypatch.setattr("fastmlp.tabular.reading.BATCH_ROWS", block_rows)
    n = 60
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "rownames": np.arange(1, n + 1),
            "from7": np.arange(7, 7 + n),
            "shuffled": rng.permutation(n),
            "name": [f"person {i % 55}" for i in range(n)],
            "written": [str(i % 7) for i in range(n)],
            "colour": rng.choice(["red", "blue"], n),
            "twice": np.arange(n) // 2,
            "steps": np.arange(n) * 2,
            "gap": [None, *range(1, n)],
            "float": np.arange(n) + 0.5,
            "down": np.arange(n)[::-1],
            "nearly": [*range(n - 2), 0, 2 * n - 3 - 0],
            "y": rng.normal(size=n),
        }
    )
    source = open_source(saved(table, tmp_path / "t.parquet"))
    staging.write_codes(source, source.used("y"), tmp_path, max_categories=100)
    assert list(source.notes) == ["name", "written", "rownames", "from7", "shuffled", "down"]
    assert source.notes["rownames"] == "numbers the rows, in order; --drop rownames leaves it out"
    assert "in another order" in source.notes["shuffled"] and "in another order" in source.notes["down"]
    assert source.notes["name"].startswith("has 55 different texts in 60 rows")
    assert "--kind written=numeric" in source.notes["written"]


def test_the_report_names_them(tmp_path):
    table = pd.DataFrame({"id": range(1, 41), "x": np.arange(40.0) % 7 / 2, "y": ["a", "b"] * 20})
    table.to_csv(tmp_path / "t.csv", index=False)
    run = ("train", tmp_path / "t.csv", "--target", "y", *QUICK, "-o", tmp_path / "m", "--json", tmp_path / "r.json")
    result = invoke(*run)
    assert "'id' numbers the rows, in order; --drop id leaves it out" in result.stdout
    assert list(json.loads((tmp_path / "r.json").read_text())["notes"]) == ["id"]
    invoke(*run, "--kind", "id=numeric")
    assert json.loads((tmp_path / "r.json").read_text())["notes"] == {}
    result = invoke(*run, "--drop", "id")
    assert "numbers the rows" not in result.stdout and json.loads((tmp_path / "r.json").read_text())["notes"] == {}


# --- frames in memory -------------------------------------------------------------------------------------------------


def categories(table):
    """Frames with a column "code" of categories that are numbers, of each library."""
    return {"pandas": table, "pyarrow": pa.Table.from_pandas(table)}


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
def test_categories_that_are_numbers_are_warned_of(estimator, library):
    """scikit-learn reads them as numbers; the result is the same, and a warning names the columns."""
    table = pd.DataFrame({"code": pd.Categorical([3, 1, 2, 1] * 5), "x": np.arange(20.0)})
    y, model = np.arange(20) % 2, estimator(hidden_layer_sizes=(3,), max_iter=2, random_state=0)
    X = categories(table)[library]
    with warnings.catch_warnings(record=True) as expected:
        warnings.simplefilter("always")
        weights = clone(model).fit(table.astype(float), y).coefs_
    for call in (
        lambda: model.fit(X, y),
        lambda: model.predict(X),
        lambda: model.score(X, y),
        lambda: clone(model).partial_fit(X, y, **({"classes": [0, 1]} if estimator is MLPClassifier else {})),
        lambda: clone(model).set_params(early_stopping=True).fit(table.astype(float), y, X_val=X, y_val=y),
    ):
        with pytest.warns(
            UserWarning, match=r"columns of categories are read as numbers, 2 as twice 1: 'code'\. Encode"
        ):
            call()
    for ours, theirs in zip(model.coefs_, weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not any("categories" in str(entry.message) for entry in expected)


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((3, 2)), [[0.0]], pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": pd.array([1, None], "Int64")}),
        pd.DataFrame({"a": pd.Categorical(["1", "2"])}), pd.DataFrame({"a": pd.Categorical([True, False])}),
        pd.Series([1, 2], dtype="category"), pa.table({"a": [1, 2], "b": [[1], [2]]}), sparse.csr_array([[1.0]]), None,
    ],
    ids=lambda X: type(X).__name__,
)  # fmt: skip
def test_nothing_else_is_warned_of(X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs.warn_of_categories(X)
