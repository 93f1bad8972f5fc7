"""Folders of Parquet and Arrow files as one table, judged by pyarrow.dataset and by one file with the same rows."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from fastmlp.persistence import load
from fastmlp.tabular.reading import DataError, Dialect, open_source

from data_files import QUICK, assert_same, values
from shell import invoke, refused


def frame(n=90, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "size": rng.normal(50, 9, n).round(3),
            "colour": rng.choice(["red", "green", "blue"], n).astype(object),
            "sweet": rng.random(n) < 0.3,
            "y": rng.choice(["no", "yes"], n).astype(object),
        }
    )
    table.loc[rng.choice(n, n // 9, replace=False), ["size", "colour"]] = None
    return table


def write(folder, **parts):
    """Write tables, or their columns, to Parquet files by name."""
    for name, table in parts.items():
        path = folder / (name.replace("__", "/") + ".parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        table = table if isinstance(table, pd.DataFrame | pa.Table) else pa.table(table)
        table.to_parquet(path, index=False) if isinstance(table, pd.DataFrame) else pq.write_table(table, path)
    return folder


def cut(table, folder, *starts):
    """Write a table in pieces; one of them is no Parquet file, and there is more beside them."""
    pieces = [table.iloc[a:b] for a, b in zip([0, *starts], [*starts, None], strict=True)]
    for i, piece in enumerate(pieces):
        path = folder / ("b" if i % 2 else "a") / f"part-{i}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        piece.to_parquet(path, index=False)
    feather.write_feather(table.iloc[:5], folder / "c.arrow")
    for name in ("_SUCCESS", ".part-0.crc", "_metadata"):
        (folder / name).write_text("no table")
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / "x.parquet").write_text("half a table")
    order = [*range(0, len(pieces), 2), *range(1, len(pieces), 2)]
    return pd.concat([*(pieces[i] for i in order), table.iloc[:5]], ignore_index=True)


def test_a_folder_is_the_file_of_all_its_rows(tmp_path):
    """Same model to the last bit, same predictions, same metrics as from one file with the same rows in this order."""
    whole = cut(frame(), tmp_path / "rows", 20, 20, 45)
    whole.to_parquet(tmp_path / "whole.parquet", index=False)
    reports = {}
    for data, model in (("rows", "a"), ("whole.parquet", "b")):
        data, model = tmp_path / data, tmp_path / f"{model}.safetensors"
        trained = invoke("train", data, "--target", "y", "-o", model, *QUICK, "--json", "-")
        predicted = invoke("predict", model, data, "--proba", "--id", "size").stdout
        evaluated = invoke("evaluate", model, data, "--json", "-")
        reports[data.name] = json.loads(trained.stdout)["metrics"], predicted, json.loads(evaluated.stdout)["metrics"]
    assert reports["rows"] == reports["whole.parquet"]
    ours, theirs = (load(tmp_path / f"{name}.safetensors") for name in "ab")
    assert all(np.array_equal(a, b) for a, b in zip(ours.coefs_, theirs.coefs_, strict=True))


def test_partitions_of_hive_are_columns_as_pyarrow_reads_them(tmp_path):
    table = frame().assign(
        year=lambda t: np.arange(len(t)) % 3 + 2020, town=lambda t: np.array(["a b", "c/d"])[t.sweet * 1]
    )
    table.loc[:4, "town"] = None
    folder = tmp_path / "rows"
    table.to_parquet(folder, partition_cols=["year", "town"], index=False)
    theirs = pa.dataset.dataset(folder, partitioning="hive").to_table()
    source = open_source(folder)
    kinds = {"size": "numeric", "colour": "categorical", "sweet": "boolean", "y": "categorical"}
    assert source.kinds == {**kinds, "year": "numeric", "town": "categorical"}
    assert_same(values(source), theirs.to_pandas())
    as_it_is = pa.Table.from_batches(source.batches(dict.fromkeys(["year", "town"], "as it is")))
    assert as_it_is.schema.types == [theirs.schema.field(name).type for name in ("year", "town")]
    assert values(source, {"year": "categorical"})["year"].isin(["2020", "2021", "2022"]).all()


@pytest.mark.parametrize("values", [("01", "-7"), ("2147483647", "1"), ("2147483648", "1"), ("1.5", "2"), ("1", "x")])
def test_kinds_of_partitions_are_pyarrows(tmp_path, values):
    write(tmp_path, **{f"k={value}__a": {"x": [1]} for value in values})
    theirs = pa.dataset.dataset(tmp_path, partitioning="hive").to_table()
    source = open_source(tmp_path)
    as_it_is = pa.Table.from_batches(source.batches({"k": "as it is"}))
    assert as_it_is["k"].to_pylist() == theirs["k"].to_pylist()
    assert source.kinds["k"] == ("numeric" if theirs["k"].type == "int32" else "categorical")


def test_where_an_error_is(tmp_path):
    folder = write(tmp_path, a={"x": ["1", "2"], "y": [1.0, 2.0]}, b={"x": ["3", "no"], "y": [1.0, None]})
    source = open_source(folder)
    with pytest.raises(DataError, match=r"b\.parquet: row 2, column 'x': 'no' is no number"):
        values(source, {"x": "numeric"})
    line = refused("train", folder, "--target", "y", "-o", tmp_path.parent / "m.safetensors", *QUICK)
    assert line.startswith(f"{folder / 'b.parquet'}: row 2, column 'y': the target is missing")


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ({"a": {"x": [1], "y": [1]}, "b": {"y": [2]}}, (), "b.parquet: no column 'x', which other files"),
        ({"a": {"y": [1]}, "b": {"x": [1], "y": [2]}}, (), "a.parquet: no column 'x', which other files"),
        (
            {"a": {"x": [1], "y": [1]}, "b": {"x": ["t"], "y": [2]}},
            (),
            "column 'x' is numeric in a.parquet, categorical",
        ),
        ({"a": {"x": [1], "y": [1]}, "k=1__b": {"x": [1], "y": [2]}}, (), "a.parquet: is in no folder k=..."),
        ({"x=1__a": {"x": [1], "y": [1]}}, (), "column 'x' is there twice"),
        ({"a": {"x": [1], "y": [1]}, "b": {"x": [1], "y": [2]}}, ("--id", "z"), "no column 'z'"),
    ],
)
def test_files_that_differ_are_refused_by_name(tmp_path, parts, options, message):
    folder = write(tmp_path / "rows", **parts)
    model = tmp_path / "m.safetensors"
    assert message in refused("train", folder, "--target", "y", "-o", model, *options, *QUICK)
    assert not model.exists()


def test_what_differs_may_be_left_out_or_given_a_kind(tmp_path):
    n = list(range(30))
    folder = write(
        tmp_path / "rows",
        a={"x": n, "z": n, "y": n, "gap": pa.nulls(30)},
        b={"x": list(map(str, n)), "y": n, "gap": [float(i) for i in n]},
    )
    model = tmp_path / "m.safetensors"
    assert "say --kind x=KIND" in refused("train", folder, "--target", "y", "-o", model, "--drop", "z", *QUICK)
    invoke("train", folder, "--target", "y", "-o", model, "--drop", "z", "--kind", "x=numeric", *QUICK)
    assert open_source(folder).kinds["gap"] == "numeric"  # a file without values says nothing
    invoke("predict", model, folder)


def test_numbers_in_texts_are_judged_by_the_first_file_with_rows(tmp_path):
    texts = pa.array([], pa.string())
    folder = write(tmp_path, a={"x": texts}, b={"x": ["1,5"]}, c={"x": ["2,5"]})
    source = open_source(folder, Dialect(decimal=","))
    assert values(source)["x"].tolist() == [1.5, 2.5]
    assert "such as '1,5'" in open_source(folder).problems["x"]


def test_the_index_of_a_frame_is_left_out(tmp_path):
    table = frame()
    table.index.name = "n"
    for i, piece in enumerate(np.array_split(np.arange(len(table)), 3)):
        table.iloc[piece].to_parquet(tmp_path / f"{i}.parquet", index=True)
    assert list(open_source(tmp_path).left_out) == ["n"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("readme.txt", "it holds"), ("x.csv", "it holds"), ("_x.parquet", "is a folder without a file in .parquet")],
)
def test_folders_of_something_else(tmp_path, name, message):
    (tmp_path / name).write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=message):
        open_source(tmp_path)


def test_a_broken_file_is_named(tmp_path):
    write(tmp_path, a={"x": [1]})
    (tmp_path / "b.parquet").write_text("no table")
    with pytest.raises(DataError, match=r"b\.parquet: "):
        open_source(tmp_path)


def test_nothing_is_written_into_the_folder_that_is_read(tmp_path):
    folder = tmp_path / "rows"
    cut(frame(), folder, 30)
    model = tmp_path / "m.safetensors"
    line = refused("train", folder, "--target", "y", "-o", folder / "m.safetensors", *QUICK)
    assert "lies in the folder of DATA" in line
    invoke("train", folder, "--target", "y", "-o", model, *QUICK)
    assert "lies in the folder of DATA" in refused("predict", model, folder, "-o", folder / "a" / "part-0.parquet")


def test_a_folder_to_validate_on(tmp_path):
    write(tmp_path / "rows", a=frame(), b=frame(seed=1))
    write(tmp_path / "valid", a=frame(30, seed=2), b=frame(30, seed=3).assign(y=["no"] * 29 + ["maybe"]))
    options = ("--target", "y", "-o", tmp_path / "m.safetensors", "--valid", tmp_path / "valid", *QUICK)
    assert "valid/b.parquet: row 30, column 'y': 'maybe' is no class" in refused("train", tmp_path / "rows", *options)
