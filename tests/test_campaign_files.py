"""A campaign of random data files: what is read is what pandas reads, and whatever a file holds, there is no traceback.

``FASTMLP_CAMPAIGN`` says how many cases there are, as for test_campaign.py.
"""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from test_campaign import CASES, PROFILE, no_hang
from typer.testing import CliRunner

from fastmlp.cli.app import app
from fastmlp.tabular.reading import DataError, Dialect, open_source

from campaign_files import BINARY, COMPRESS, MISSING, as_kind, as_pandas_reads, sheets, table_of, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def dialect_of(sheet):
    """Return how a text file is written; the reader finds out a byte order mark by itself."""
    encoding = "utf-8" if sheet.encoding == "utf-16" else sheet.encoding
    return Dialect(separator=sheet.separator, encoding=encoding, decimal=sheet.decimal)


def read(source):
    """Return all columns of a source that can be used: name -> (kind, values)."""
    kinds = {name: kind for name, kind in source.kinds.items() if name not in (*source.problems, *source.left_out)}
    values = {name: [] for name in kinds}
    for batch in source.batches(kinds):
        for name, column in zip(kinds, batch.columns, strict=True):
            values[name] += column.to_pylist()
    return {name: (kind, values[name]) for name, kind in kinds.items()}


def same(ours, theirs):
    if isinstance(ours, float) and isinstance(theirs, float):
        return ours == theirs or (math.isnan(ours) and math.isnan(theirs))
    return ours == theirs


@PROFILE
@given(sheet=sheets())
def test_what_is_read_is_what_pandas_reads(folder, sheet):
    with no_hang():
        # a line that holds nothing but a missing value is a blank line to any reader
        assume(len(sheet.columns) > 1 or sheet.ending in BINARY)
        path = write(sheet, folder)
        try:
            source = open_source(path, dialect_of(sheet))
            found = read(source)
        except DataError as error:
            pytest.fail(f"refused: {error}\n{table_of(sheet)}")
        expected = as_pandas_reads(path, sheet)
        assert {*found, *source.problems, *source.left_out} == {*expected, *source.left_out}
        for name, (kind, values) in found.items():
            theirs = [as_kind(value, kind, sheet.decimal) for value in expected[name]]
            wrong = [i for i, pair in enumerate(zip(values, theirs, strict=True)) if not same(*pair)]
            assert not wrong, f"{name} ({kind}), row {wrong[0] + 1}: {values[wrong[0]]!r}, pandas {theirs[wrong[0]]!r}"


def invoke(*arguments):
    """Run a command; return its result, which is never a traceback."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1, 2), result.output
    return result


@settings(PROFILE, max_examples=max(CASES // 10, 30))
@given(sheet=sheets())
def test_commands_agree_about_a_file(folder, sheet):
    """The model of a file predicts each of its rows, and is evaluated on all rows that have a target."""
    with no_hang():
        assume(len(sheet.columns) > 1 and sheet.rows > 5)
        path, model, out = write(sheet, folder), folder / "model.safetensors", folder / "out.parquet"
        report = folder / "report.json"
        options = ["--separator", sheet.separator, "--encoding", dialect_of(sheet).encoding, "--decimal", sheet.decimal]
        options = [] if sheet.ending in BINARY else options
        target = sheet.columns[-1].name
        quick = ["--hidden", 3, "--max-iter", 2, "--valid", 0, "--random-state", 0]
        trained = invoke("train", path, "--target", target, *quick, *options, "-o", model, "--json", report)
        if trained.exit_code:
            assert "Error" in trained.stderr or trained.exit_code == 1, trained.output
            return
        trained_on = json.loads(report.read_text())["rows"]["training"]
        predicted = invoke("predict", model, path, *options, "-o", out)
        assert predicted.exit_code == 0, predicted.output
        assert pq.read_table(out).num_rows == sheet.rows
        evaluated = invoke("evaluate", model, path, *options, "--json", report)
        assert evaluated.exit_code == 0, evaluated.output
        rows = json.loads(report.read_text())["rows"]
        assert rows == {"evaluated": trained_on, "without_target": sheet.rows - trained_on, "of_unknown_class": 0}


@PROFILE
@given(sheet=sheets(damaged=True))
def test_damaged_files_are_read_or_refused(folder, sheet):
    with no_hang():
        path = write(sheet, folder)
        try:
            read(open_source(path, dialect_of(sheet)))
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000


def test_missing_texts_are_known_to_the_reader(folder):
    path = folder / "missing.csv"
    for text in MISSING[1:]:
        path.write_text(f"a,b\n{text},1\n2,3\n")
        assert read(open_source(path))["a"] == ("numeric", [None, 2.0])


def test_an_archive_with_a_wrong_checksum_is_refused(folder):
    path = folder / "data.csv.zip"
    data = bytearray(COMPRESS[".zip"](b"a,b\n" + b"1,2\n" * 50))
    data[14] ^= 1  # the checksum of the member
    at = data.index(b"PK\1\2") + 16  # and the one in the directory
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"data\.csv\.zip: cannot be read"):
        read(open_source(path))


def test_texts_of_parquet_that_are_no_utf8_are_refused(folder):
    path = folder / "data.parquet"
    pq.write_table(pa.table({"a": ["ros\u00e9", "tea"]}), path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace("ros\u00e9".encode(), b"ros\xff\xff"))
    with pytest.raises(DataError, match=r"data\.parquet: .*UTF-?8"):
        read(open_source(path))
