"""Data files as a matrix on disk: the rows and the fits of `fastmlp train`, and whole or not at all."""

import json

import numpy as np
import pandas as pd
import pytest

from fastmlp import MLPClassifier
from fastmlp.persistence import load
from fastmlp.tabular import DataError, matrix_on_disk, on_disk, open_matrix, staging

from data_files import QUICK
from shell import invoke


def frame(n=150):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"size": rng.normal(50, 9, n), "colour": rng.choice(["red", "blue"], n).astype(object)})
    table["w"], table["when"] = rng.integers(0, 3, n) / 2, pd.Timestamp("2026-01-01")
    table["kind"] = np.where(table["size"] > 50, "large", "small").astype(object)
    table.loc[::9, ["size", "colour"]] = None
    return table


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    table = frame()
    table[:70].to_parquet(folder / "a.parquet")
    table[70:].to_parquet(folder / "b.parquet")
    return folder


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("block_bytes", [1000, staging.BLOCK_BYTES])
def test_a_fit_is_that_of_the_command(data, tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(staging, "BLOCK_BYTES", block_bytes)
    options = ("--drop", "when", "--weight", "w", "--valid", "0", "--shuffle", "16")
    invoke("train", data, "--target", "kind", "-o", tmp_path / "m.st", *options, *QUICK)
    theirs = load(tmp_path / "m.st")
    table = matrix_on_disk(data, tmp_path / "matrix", target="kind", weight="w", drop=["when"])
    again = open_matrix(tmp_path / "matrix")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "m.st", "matrix"]
    for rows in (table, again):
        assert rows.X.dtype == np.float32 and not rows.X.flags.writeable
        assert rows.feature_names == ["size", "colour=blue", "colour=red"]
        ours = MLPClassifier((4,), max_iter=3, random_state=0, shuffle=16).fit(rows.X, rows.y, rows.sample_weight)
        assert np.array_equal(ours.coefs_[0], theirs.coefs_[0])
        assert ours.classes_.tolist() == theirs.classes_.tolist()
        np.testing.assert_array_equal(rows.coder.transform(frame()[["size", "colour"]]), rows.X)


@pytest.mark.parametrize(
    ("values", "task", "kind"),
    [
        ([True, False], "classification", "b"),
        (["b", "a"], "classification", "O"),
        ([7, -3], "classification", "i"),
        ([0.5, 1.25], "regression", "f"),
    ],
)
def test_targets_of_all_kinds_come_back(tmp_path, values, task, kind):
    table = pd.DataFrame({"x": np.arange(20.0), "y": values * 10})
    table.to_parquet(tmp_path / "t.parquet")
    rows = matrix_on_disk(tmp_path / "t.parquet", tmp_path / "matrix", target="y", dtype="float64")
    assert (rows.recipe.task, rows.y.dtype.kind, rows.X.dtype) == (task, kind, np.float64)
    assert rows.y.tolist() == values * 10
    assert rows.sample_weight is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "no"}, "no column 'no'"),
        ({"target": None}, "target must be the name of a column, got None"),
        ({"target": "kind", "drop": "when"}, "drop must be a sequence of names, got 'when'"),
        ({"target": "kind"}, "'when' holds dates or times"),
        ({"target": "kind", "drop": ["when", "kind"]}, "column 'kind' is the target, and left out"),
        ({"target": "kind", "drop": ["when", "size", "colour"], "weight": "w"}, "no column besides the target"),
        ({"target": "kind", "drop": ["when"], "kinds": {"colour": "numeric"}}, "a.parquet: row 2, column 'colour'"),
        ({"target": "kind", "drop": ["when"], "kinds": {"colour": "text"}}, "kinds must have values of numeric"),
        ({"target": "kind", "drop": ["when"], "dtype": "float16"}, "dtype must be one of float32, float64"),
        ({"target": "kind", "drop": ["when"], "task": "ranking"}, "task must be one of auto"),
        ({"target": "kind", "drop": ["when"], "task": "regression"}, "no values for --task regression"),
        ({"target": "kind", "drop": ["when"], "max_categories": 1}, "more than 1 different texts"),
        ({"target": "size", "drop": ["when"]}, "a.parquet: row 1, column 'size': the target is missing"),
    ],
)
def test_nothing_is_left_of_what_is_refused(data, tmp_path, options, message):
    with pytest.raises(DataError) as error:
        matrix_on_disk(data, tmp_path / "matrix", **options)
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_is_there_stays_as_it_is(data, tmp_path):
    (tmp_path / "matrix").mkdir()
    with pytest.raises(DataError, match="is there already"):
        matrix_on_disk(data, tmp_path / "matrix", target="kind", drop=["when"])
    with pytest.raises(DataError, match="No such file"):
        matrix_on_disk(tmp_path / "no", tmp_path / "other", target="kind")


@pytest.mark.parametrize("name", ["X.npy", "y.npy", "recipe.json"])
def test_what_is_no_matrix_on_disk(data, tmp_path, name):
    matrix_on_disk(data, tmp_path / "matrix", target="kind", drop=["when"])
    path = tmp_path / "matrix" / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="is no matrix on disk"):
        open_matrix(tmp_path / "matrix")
    path.unlink()
    with pytest.raises(DataError, match=f"is no matrix on disk: No such file.*{name}"):
        open_matrix(tmp_path / "matrix")


def test_files_of_two_matrices(data, tmp_path):
    matrix_on_disk(data, tmp_path / "matrix", target="kind", drop=["when"])
    np.save(tmp_path / "matrix" / "X.npy", np.zeros((3, 3)))
    with pytest.raises(DataError, match="do not belong together"):
        open_matrix(tmp_path / "matrix")
    document = json.loads((tmp_path / "matrix" / "recipe.json").read_text())
    document["table"]["training"]["classes"] = []
    (tmp_path / "matrix" / "recipe.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="is no matrix on disk"):
        open_matrix(tmp_path / "matrix")
    assert on_disk.DTYPES == ("float32", "float64")
