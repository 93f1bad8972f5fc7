"""Data files as people have them, judged by pandas' reading of the same file, and how broken ones are refused."""

import ast
import bz2
import datetime
import gzip
import io
import re
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp.tabular import coding, marks, recipe, rows, staging, streams
from fastmlp.tabular.columns import Categorical
from fastmlp.tabular.reading import MISSING, DataError, Dialect, open_source

from data_files import QUICK, TYPES, assert_same, saved, values, zipped
from shell import invoke

# --- texts ------------------------------------------------------------------------------------------------------------

PLAIN = "size;colour\n1.5;red\n-2;blue\n;\n"

#: Name -> (bytes, our dialect, what pandas.read_csv needs to read the same).
TEXT_FILES = {
    "plain.csv": (PLAIN.encode(), {}, {"sep": ";"}),
    "lines.csv": (PLAIN.replace("\n", "\r\n").encode(), {}, {"sep": ";"}),
    "mac.csv": (PLAIN.replace("\n", "\r").encode(), {}, {"sep": ";"}),
    "mark.csv": (PLAIN.encode("utf-8-sig"), {}, {"sep": ";"}),
    "little.csv": (PLAIN.encode("utf-16"), {}, {"sep": ";", "encoding": "utf-16"}),
    "big.csv": (b"\xfe\xff" + PLAIN.encode("utf-16-be"), {}, {"sep": ";", "encoding": "utf-16"}),
    "wide.csv": (PLAIN.encode("utf-32"), {}, {"sep": ";", "encoding": "utf-32"}),
    "named.csv": (PLAIN.encode("utf-16-le"), {"encoding": "utf-16-le"}, {"sep": ";", "encoding": "utf-16-le"}),
    "excel.csv": (b"sep=;\r\n" + PLAIN.encode(), {}, {"sep": ";", "skiprows": 1}),
    "quoted.csv": (b'"sep=;"\r\n' + PLAIN.encode(), {}, {"sep": ";", "skiprows": 1}),
    "bom.csv": (b"\xef\xbb\xbfsep=;\n" + PLAIN.encode(), {}, {"sep": ";", "skiprows": 1, "encoding": "utf-8-sig"}),
    "tabs.csv": (
        ("sep=\t\n" + PLAIN.replace(";", "\t")).encode("utf-16"),
        {},
        {"sep": "\t", "skiprows": 1, "encoding": "utf-16"},
    ),
    "odd.csv": (b"sep=^\n" + PLAIN.replace(";", "^").encode(), {}, {"sep": "^", "skiprows": 1}),
    "blank.csv": (b"\n\n" + PLAIN.encode(), {}, {"sep": ";"}),
    "packed.csv.gz": (gzip.compress(PLAIN.encode()), {}, {"sep": ";"}),
    "packed.csv.bz2": (bz2.compress(PLAIN.encode()), {}, {"sep": ";"}),
    "packed.csv.zip": (zipped(d_csv=PLAIN), {}, {"sep": ";"}),
    "packed.zip": (zipped(a__b_csv=PLAIN.encode("utf-16")), {}, {"sep": ";", "encoding": "utf-16"}),
    "packed.tsv.bz2": (bz2.compress(PLAIN.replace(";", "\t").encode()), {}, {"sep": "\t"}),
    "comma.csv": (b"a;b\n0,411;x\n-1,5e3;y\n,5;z\n7;w\n", {"decimal": ","}, {"sep": ";", "decimal": ","}),
    "german.csv": (
        b"a;b\n1.234.567,25;1\n0,5;2\n-12;3\n",
        {"decimal": ",", "thousands": "."},
        {"sep": ";", "decimal": ",", "thousands": "."},
    ),
    "english.csv": (b'a,b\n"1,234",x\n"-1,234,567.5",y\n12,z\n', {"thousands": ","}, {"thousands": ","}),
    "swiss.csv": (b"a,b\n1'234,x\n12.5,y\n", {"thousands": "'"}, {"thousands": "'"}),
    "french.csv": (
        b"a;b\n1 234,5;x\n12;y\n",
        {"decimal": ",", "thousands": " "},
        {"sep": ";", "decimal": ",", "thousands": " "},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT_FILES)
def test_texts_are_read_as_pandas_reads_them(tmp_path, name):
    content, dialect, theirs = TEXT_FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    source = open_source(path, Dialect(**dialect))
    ours = values(source)
    assert_same(ours, pd.read_csv(path, **theirs))
    assert next(iter(source.kinds.values())) == "numeric"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("price, EUR;weight, kg\n1;2\n", ["price, EUR", "weight, kg"]),  # most commas, but no row has one
        ("a;b,c,d\n1,5;2\n", ["a", "b,c,d"]),
        ("a,b\tc\n1,2\n", ["a", "b\tc"]),
        ('"a;b",c\n1,2\n', ["a;b", "c"]),
        ("a,b;c\n", ["a", "b;c"]),
        ("a,b\n1\n", ["a", "b"]),
    ],
)
def test_the_separator_is_that_of_the_first_row_too(tmp_path, text, names):
    (tmp_path / "t.csv").write_text(text)
    if text == "a,b\n1\n":
        with pytest.raises(DataError, match="row 1 has 1 field, the header has 2"):
            open_source(tmp_path / "t.csv")
        return
    assert list(open_source(tmp_path / "t.csv").kinds) == names


def test_two_separators_that_fit_are_an_error(tmp_path):
    (tmp_path / "t.csv").write_text("price, EUR;weight\n1,5;2\n")
    with pytest.raises(DataError, match="',' or ';' may separate the fields of the header: say which --separator"):
        open_source(tmp_path / "t.csv")
    source = open_source(tmp_path / "t.csv", Dialect(separator=";", decimal=","))
    assert source.kinds == {"price, EUR": "numeric", "weight": "numeric"}
    assert open_source(tmp_path / "t.csv", Dialect(decimal=",")).kinds == source.kinds
    (tmp_path / "t.tsv").write_text("a, b\tc\n1,5\t2\n")
    assert list(open_source(tmp_path / "t.tsv").kinds) == ["a, b", "c"]


def test_blanks_and_all_usual_texts_are_missing(tmp_path):
    texts = [*MISSING[1:], " ", "   ", " " * 64]
    body = "".join(f"{i},{text},{text}\n" for i, text in enumerate(texts))
    (tmp_path / "t.csv").write_text("i,number,word\n-1,1.5,red\n" + body)
    table = values(open_source(tmp_path / "t.csv"))
    assert table["number"].isna().tolist() == table["word"].isna().tolist() == [False] + [True] * len(texts)
    theirs = pd.read_csv(tmp_path / "t.csv")
    ours_only = {text for text, theirs_too in zip(texts, theirs["word"].isna()[1:], strict=True) if not theirs_too}
    assert {text for text in ours_only if text.strip()} == {"NaT"}


def test_old_line_ends_and_utf_16_in_files_of_several_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("fastmlp.tabular.delimited.BLOCK_BYTES", 1000)
    table = pd.DataFrame({"a": np.arange(4000) / 8, "b": ["x", "ü"] * 2000})
    text = table.to_csv(index=False)
    for name, content in {
        "m.csv": text.replace("\n", "\r").encode(),
        "u.csv": text.encode("utf-16"),
        "z.zip": zipped(t_csv=text),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert_same(values(open_source(tmp_path / name)), table)


def test_a_header_of_any_width(tmp_path):
    names = [f"{'gene' * 20}{i:05d}" for i in range(1700)]  # more than 131 072 characters
    for separator in ",;\t":
        text = separator.join(names) + "\n" + separator.join(["1.5"] * len(names)) + "\n"
        assert len(text) > 140_000
        (tmp_path / "t.csv").write_text(text)
        source = open_source(tmp_path / "t.csv")
        assert list(source.kinds) == names and set(source.kinds.values()) == {"numeric"}
        assert values(source).to_numpy().sum() == 1.5 * len(names)


class Watched(io.StringIO):
    """A text whose reader may not ask for more than 1000 characters at a time."""

    def readline(self, size=-1):
        assert 0 < size <= 1000
        return super().readline(size)


@pytest.mark.parametrize("content", ["x" * 5000, "a,b\n1,2\n" + "x" * 5000, '{"a": 1}\n[' + "[" * 5000])
@pytest.mark.parametrize("ending", [".csv.gz", ".jsonl.gz"])
def test_a_file_without_line_ends_is_not_read_whole(tmp_path, monkeypatch, content, ending):
    monkeypatch.setattr(streams, "LINE_CHARS", 1000)
    monkeypatch.setattr("fastmlp.tabular.delimited.BLOCK_BYTES", 1000)
    monkeypatch.setattr(streams, "text", lambda path, *more, **options: Watched(content, newline=""))
    (tmp_path / f"t{ending}").write_bytes(gzip.compress(content.encode()))
    with pytest.raises(DataError, match=r"has more than 1000 characters|row 1 cannot be read"):
        source = open_source(tmp_path / f"t{ending}")
        list(source.batches(source.kinds))


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz", ".csv.zip", ".parquet", ".feather"])
def test_a_header_without_rows_can_be_opened(tmp_path, ending):
    empty = pd.DataFrame({"a": pd.Series(dtype=float), "b": pd.Series(dtype=object)})
    path = tmp_path / f"t{ending}"
    if ending in (".parquet", ".feather"):
        empty.to_parquet(path) if ending == ".parquet" else empty.to_feather(path)
    else:
        empty.to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")
    source = open_source(path)
    assert list(source.kinds) == ["a", "b"] and source.problems == {}
    assert list(coding.Coder([Categorical("b", ("x",), 0)]).blocks(source)) == []
    with pytest.raises(DataError, match="has no rows"):
        staging.write_codes(source, {"a": "numeric", "b": "categorical"}, tmp_path, max_categories=9)


def test_an_archive_without_rows_can_be_opened(tmp_path):
    np.savez(tmp_path / "t.npz", X=np.zeros((0, 2)), y=np.zeros(0))
    source = open_source(tmp_path / "t.npz")
    assert list(source.kinds) == ["x0", "x1", "y"] and list(source.batches(source.kinds)) == []


# --- numbers that look like texts -------------------------------------------------------------------------------------

#: Texts of a column of a semicolon file -> what the error names.
MARKED = {
    "--decimal , reads": ("0,411", "12,5", "-3,25"),
    "--thousands , reads such numbers, or --decimal ,": ("1,234", "12", "56,789"),
    "--thousands , reads such numbers;": ("1,234.5", "12", "56,789"),
    "--decimal , --thousands . reads": ("1.234,5", "12", "-1.234.567"),
    "--thousands space reads": ("1 234", "12", "1\u00a0234\u202f567"),
    '--thousands "\'" reads': ("1'234", "1’234"),
    "--thousands _ reads": ("1_234", "12"),
    "write the numbers without '%'": ("5%", "12.5 %"),
    "write the numbers without '$'": ("$5", "-$1,234.5", "$ 7"),
    "write the numbers without '€'": ("5 €", "1.234,50€"),
    "write the numbers without '()'": ("(5)", "12"),
    "write the numbers without '\u2212'": ("\u22125", "12", "13"),
}


@pytest.mark.parametrize(
    "kind", ["csv", "parquet", *(pytest.param(k, marks=pytest.mark.exhaustive) for k in ("feather", "xlsx", "jsonl"))]
)
@pytest.mark.parametrize("message", MARKED)
def test_numbers_with_marks_are_an_error_that_says_how_to_read_them(tmp_path, message, kind):
    texts = [text for text in MARKED[message] for _ in range(4)]
    table = pd.DataFrame({"a": texts, "y": [0, 1] * (len(texts) // 2)}).astype({"a": object})
    source = open_source(saved(table, tmp_path / f"t.{kind}", sep=";"))
    with pytest.raises(DataError) as error:
        source.check(source.kinds)
    found = re.search(
        r"column 'a' has numbers that are written as texts, such as (.+) in row (\d+): ", str(error.value)
    )
    assert found and int(found[2]) - 1 == texts.index(ast.literal_eval(found[1]))
    assert message in str(error.value) and "--kind NAME=categorical" in str(error.value)
    # what it names reads them
    options = Dialect(
        decimal="," if "--decimal ," in message and "or --decimal" not in message else ".",
        thousands=next((mark for mark in ",._'" if f"--thousands {mark}" in message), None)
        or (" " if "space" in message else "'" if '"' in message else None),
    )
    if "--" in message:
        again = open_source(tmp_path / f"t.{kind}", options)
        assert again.kinds["a"] == "numeric" and not again.problems
        expected = [plainly(text, options) for text in texts]
        np.testing.assert_array_equal(values(again)["a"], expected)


def plainly(text, dialect):
    """The number of a text, by removing what is no digit."""
    for mark in {" ": " \u00a0\u202f", "'": "'’", None: ""}.get(dialect.thousands, dialect.thousands):
        text = text.replace(mark, "")
    return float(text.replace(dialect.decimal, "."))


@pytest.mark.parametrize(
    "texts", [("red", "green"), ("12-34", "12-35"), ("1,2,3", "4,5"), ("1.2.3", "1.2.4"), ("A5", "B7"), ("$", "%")]
)
def test_other_texts_are_no_numbers(tmp_path, texts):
    (tmp_path / "t.csv").write_text("a;b\n" + "".join(f"{text};1\n" for text in texts * 5))
    source = open_source(tmp_path / "t.csv")
    assert source.problems == {} and source.kinds["a"] == "categorical"


def test_a_mark_that_comes_late_is_named_with_its_row(tmp_path, monkeypatch):
    monkeypatch.setattr("fastmlp.tabular.delimited.BLOCK_BYTES", 1000)
    (tmp_path / "t.csv").write_text("a;b\n" + "1;2\n" * 2700 + "1,5;2\n")
    source = open_source(tmp_path / "t.csv")
    with pytest.raises(DataError, match="row 2701, column 'a': '1,5' is no number: --decimal , reads such numbers"):
        values(source)


def test_groups_have_three_digits(tmp_path):
    """pandas reads 12,5 as 125 with thousands=','."""
    (tmp_path / "t.csv").write_text('a;b\n"1,234";1\n"12,5";2\n')
    source = open_source(tmp_path / "t.csv", Dialect(thousands=","))
    with pytest.raises(DataError, match="row 2, column 'a': '12,5' is no number"):
        list(source.batches({"a": "numeric"}))


def test_the_decimal_mark_cannot_separate_the_fields(tmp_path):
    (tmp_path / "t.csv").write_text("a\n0,5\n")
    assert open_source(tmp_path / "t.csv", Dialect(decimal=",")).kinds == {"a": "numeric"}
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="',' separates the fields, so it cannot be the decimal mark"):
        open_source(tmp_path / "t.csv", Dialect(decimal=","))
    model = tmp_path / "m.safetensors"
    for options, message in [
        (("--decimal", ",", "--separator", ","), "--decimal and --separator are both ','"),
        (("--decimal", ",", "--thousands", ","), "--decimal and --thousands are both ','"),
        (("--decimal", "x"), "--decimal must be '.' or ',', got 'x'"),
        (("--thousands", "x"), "--thousands must be one of"),
    ]:
        assert message in invoke("train", tmp_path / "t.csv", "--target", "b", *options, "-o", model, code=2).stderr


finite = st.floats(-1e12, 1e12).map(lambda number: round(number, 3))


@given(
    st.lists(st.one_of(finite, st.none(), st.integers(-(10**15), 10**15)), min_size=1, max_size=9),
    st.sampled_from(marks.READINGS),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
@settings(max_examples=30, deadline=None)
def test_numbers_survive_every_way_of_writing(tmp_path_factory, numbers, reading, encoding, line_end):
    decimal, thousands = reading

    def text(number):
        if number is None:
            return ""
        plain = f"{number:,}".replace(",", "\0").replace(".", decimal)
        return plain.replace("\0", thousands or "")

    path = tmp_path_factory.mktemp("t") / "t.csv"
    lines = ["a|b", *(f"{text(number)}|x" for number in numbers), "1|x"]
    path.write_bytes((line_end.join(lines) + line_end).encode(encoding))
    table = values(open_source(path, Dialect(decimal=decimal, thousands=thousands)), {"a": "numeric"})
    np.testing.assert_array_equal(table["a"], [np.nan if n is None else float(n) for n in numbers] + [1.0])


def test_the_marks_of_training_are_kept_for_predicting(tmp_path):
    text = "x;y\n" + "".join(f"{i % 9},{i % 7};{'ab'[i % 2]}\n" for i in range(60))
    (tmp_path / "t.csv").write_text(text)
    model = tmp_path / "m.safetensors"
    line = invoke("train", tmp_path / "t.csv", "--target", "y", *QUICK, "-o", model, code=2).stderr
    assert "column 'x' has numbers that are written as texts, such as '0,0' in row 1: --decimal , reads" in line
    invoke("train", tmp_path / "t.csv", "--target", "y", "--decimal", ",", "--thousands", ".", *QUICK, "-o", model)
    expected = invoke("predict", model, tmp_path / "t.csv").stdout
    (tmp_path / "p.csv").write_text(text.replace(",", "."))
    assert "'0.0' is no number" in invoke("predict", model, tmp_path / "p.csv", code=2).stderr
    plain = invoke("predict", model, tmp_path / "p.csv", "--decimal", ".", "--thousands", "none").stdout
    assert plain == expected
    document = recipe.load(model)[1].to_json()
    assert (document["table"]["decimal"], document["table"]["thousands"]) == (",", ".")
    for change in ({"decimal": "x"}, {"thousands": 3}, {"decimal": ".", "thousands": "."}):
        with pytest.raises(DataError, match="decimal and thousands must be"):
            recipe.from_json({"table": document["table"] | change})
    del document["table"]["decimal"], document["table"]["thousands"]  # as earlier versions wrote it
    assert recipe.from_json(document).dialect == Dialect()


# --- JSON and workbooks -----------------------------------------------------------------------------------------------


def mixed(n=50):
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "size": np.where(rng.random(n) < 0.2, np.nan, (8 * rng.normal(size=n)).round() / 8),
            "count": rng.integers(0, 9, n),
            "sweet": rng.random(n) < 0.5,
            "colour": pd.Series(rng.choice(["red", "grün", None], n), dtype=object),
        }
    )


JSON_FORMS = {
    "t.json": {"orient": "records"},
    "lines.json": {"orient": "records", "lines": True},
    "t.jsonl": {"orient": "records", "lines": True},
    "t.ndjson": {"orient": "records", "lines": True},
    "t.jsonl.gz": {"orient": "records", "lines": True},
    "t.jsonl.bz2": {"orient": "records", "lines": True},
    "t.jsonl.zip": {"orient": "records", "lines": True},
    "columns.json": {"orient": "columns"},
    "split.json": {"orient": "split"},
    "table.json": {"orient": "table"},
    "t.json.gz": {"orient": "records"},
}


@pytest.mark.parametrize("block_rows", [7, 1000])
@pytest.mark.parametrize("name", JSON_FORMS)
def test_json_is_read_as_pandas_reads_it(tmp_path, monkeypatch, name, block_rows):
    monkeypatch.setattr(rows, "BLOCK_ROWS", block_rows)
    table, form = mixed(), JSON_FORMS[name]
    table.to_json(tmp_path / name, **form)
    source = open_source(tmp_path / name)
    expected = pd.read_json(tmp_path / name, **form)
    ours = values(source, {n: kind for n, kind in source.kinds.items() if n != "index"})
    assert_same(ours, expected)
    assert_same(ours, table)
    assert set(source.left_out) == ({"index"} if form["orient"] == "table" else set())


@pytest.mark.parametrize("block_rows", [7, 1000])
def test_workbooks_are_read_as_pandas_reads_them(tmp_path, monkeypatch, block_rows):
    monkeypatch.setattr(rows, "BLOCK_ROWS", block_rows)
    table = mixed()
    table["colour"] = table["colour"].replace({None: "NA"})
    table.to_excel(tmp_path / "t.xlsx", index=False)
    source = open_source(tmp_path / "t.xlsx")
    assert list(source.kinds.values()) == ["numeric", "numeric", "boolean", "categorical"]
    assert_same(values(source), pd.read_excel(tmp_path / "t.xlsx"))


def test_empty_rows_of_a_workbook_are_rows_but_for_the_last(tmp_path):
    content = workbook(B2="a", C2="b", B3=1.5, C4="x", B7=2, C7="  ", A9="", C11="")
    (tmp_path / "t.xlsx").write_bytes(content)
    (batch,) = open_source(tmp_path / "t.xlsx").batches({"a": "numeric", "b": "categorical"})
    assert batch.to_pydict() == {"a": [1.5, None, None, None, 2], "b": [None, "x", None, None, None]}
    assert_same(batch.to_pandas(), pd.read_excel(tmp_path / "t.xlsx", skiprows=1).iloc[:5, 1:].replace("  ", None))


def test_json_of_rows_with_different_keys(tmp_path, monkeypatch):
    monkeypatch.setattr("fastmlp.tabular.json_files.BATCH_ROWS", 2)
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n\n{"a": 2, "b": "x"}\n{"b": "y"}\n{"c": 3}\n')
    source = open_source(tmp_path / "t.jsonl")
    (batch,) = source.batches(source.kinds)
    assert batch.to_pydict() == {"a": [1, 2, None, None], "b": [None, "x", "y", None]}
    assert source.notes == {"c": "appears in row 4 for the first time, and was not read"}


def test_missing_texts_of_files_with_types(tmp_path):
    """Texts are missing where the user says so; in a workbook the usual ones are missing anyway."""
    table = pd.DataFrame({"a": ["1", "?", "NA", "3"], "b": ["x", "?", "y", None]}).astype(object)
    for kind in ("parquet", "feather", "jsonl", "xlsx"):
        source = open_source(saved(table, tmp_path / f"t.{kind}"), Dialect(missing=("?", "NA")))
        (batch,) = source.batches({"a": "numeric", "b": "categorical"})
        assert batch.to_pydict() == {"a": [1, None, None, 3], "b": ["x", None, "y", None]}


def test_other_sheets_are_named(tmp_path):
    with pd.ExcelWriter(tmp_path / "t.xlsx") as book:
        for name, table in {"first": mixed(5), "empty": pd.DataFrame(), "more": mixed(3)}.items():
            table.to_excel(book, sheet_name=name, index=False)
    source = open_source(tmp_path / "t.xlsx")
    assert len(values(source)) == 5
    assert source.notes == {"more": "is another sheet of the workbook, which was not read"}


def workbook(**cells):
    """A workbook's bytes, of one sheet with these cells."""
    import openpyxl

    book = openpyxl.Workbook()
    for place, value in cells.items():
        book.active[place] = value
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def bomb(name):
    """A zip archive of a megabyte of blanks, in a kilobyte."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b" " * (1 << 20))
    return stream.getvalue()


ENCRYPTED = bytearray(zipped(d_csv=PLAIN))
for place in (6, ENCRYPTED.index(b"PK\x01\x02") + 8):
    ENCRYPTED[place] |= 1

BROKEN = {
    "two.zip": (zipped(a_csv=PLAIN, b_csv=PLAIN), "a zip archive must hold one data file, it has 'a.csv', 'b.csv'"),
    "none.zip": (zipped(), "a zip archive must hold one data file, it has none"),
    "other.zip": (zipped(a_parquet=b"PAR1"), "holds 'a.parquet', which is not read from a zip archive"),
    "text.zip": (b"hello", "is no zip archive"),
    "locked.zip": (bytes(ENCRYPTED), "cannot be read: File 'd.csv' is encrypted"),
    "cut.csv.bz2": (bz2.compress(PLAIN.encode() * 99)[:-20], "cannot be read|ended before"),
    "no.csv.bz2": (b"hello", "Invalid data stream"),
    "half.json": (b'[{"a": 1}', "cannot be read"),
    "empty.json": (b"", "cannot be read"),
    "empty.jsonl": (b"\n", "is empty"),
    "list.jsonl": (b"[1]\n", "row 1 is no JSON object"),
    "late.jsonl": (b'{"a": 1}\n{"a": 2}\n{"a": \n', "row 3 cannot be read"),
    "scalar.json": (b"3", "must be a list of objects"),
    "ragged.json": (b'{"a": [1], "b": [1, 2]}', "columns have different lengths"),
    "deep.json": (b"[" * 100_000, "cannot be read"),
    "deep.jsonl": (b"[" * 100_000, "cannot be read"),
    "huge.jsonl": (b'{"a": 1' + b"0" * 400 + b"}", "row 1, column 'a': the number is too large"),
    "digits.jsonl": (b'{"a": 1' + b"0" * 5000 + b"}", "cannot be read"),
    "alone.jsonl": (rb'{"a": "\ud800"}', "no Unicode"),
    "latin.jsonl": ('{"a": "é"}'.encode("latin-1"), "cannot be read"),
    "nested.jsonl": (b'{"a": {"b": 1}}', "column 'a' holds lists or objects"),
    "none.jsonl": (b'{"a": null}', "column 'a' has no value in its first 1 rows"),
    "split.json": (b'{"columns": ["a"], "data": [[1, 2]]}', "a value per column"),
    "text.xlsx": (b"hello", "cannot be read as a workbook"),
    "zip.xlsx": (zipped(a_csv=PLAIN), "cannot be read as a workbook"),
    "empty.xlsx": (workbook(), "first sheet is empty"),
    "long.xlsx": (workbook(A1="a", A2=1, B2=2), "row 1 has a value in column 2, the header has 1"),
    "dates.xlsx": (workbook(A1="a", A2=datetime.date(2020, 1, 1)), "column 'a' holds dates or times"),
    "odd.xlsx": (workbook(A1="a", A2=1, A3=2, A4="abc"), "is numeric in most rows, but row 3 has 'abc'"),
    "twice.xlsx": (workbook(A1="a", B1="a", A2=1), "more than one column has the name 'a'"),
    "utf16.csv": (PLAIN.encode("utf-16-le"), "utf-16-le for instance"),
    "half.csv": (b"\xff\xfea", "is no utf-16 text|truncated"),
    "lines.csv": (b"sep=;\n", "is empty"),
    "bomb.xlsx": (bomb("xl/sharedStrings.xml"), "save it as .csv"),
    "bomb.zip": (bomb("a.csv"), "more than 150000 characters"),
    "bomb.json.zip": (bomb("a.json"), "too long to be read whole"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_in_one_line(tmp_path, monkeypatch, name):
    for limit in ("streams.LINE_CHARS", "json_files.WHOLE_CHARS", "workbook.WHOLE_BYTES"):
        monkeypatch.setattr(f"fastmlp.tabular.{limit}", 150_000)
    content, message = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        source = open_source(path)
        source.check(source.kinds)
        for _ in source.batches(source.kinds):
            pass
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert any(part in str(error.value) for part in message.split("|")), error.value


FRAGMENTS = [
    b"a,b\n", b"a;b\n", b'"', b",", b";", b"\n", b"\r", b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"1", b"-2,5", b"1.234",
    b"x", b" ", b"sep=;\n", b"{", b'{"a": 1}\n', b"[", b"]", b"NaN", b"\x1f\x8b\x08", b"PK\x03\x04", b"5%", b"$3",
    b"true", b"2020-01-01", "é".encode(), b"\xe9", b"a,a\n", b"1e400", b"\t", b"|", b"1_0", b"PAR1", b"ARROW1\0\0",
]  # fmt: skip


ENDINGS = [".csv", ".tsv", ".csv.gz", ".csv.bz2", ".zip", ".json", ".jsonl", ".xlsx", ".parquet", ".arrow", ".npz"]


@pytest.mark.parametrize("ending", ENDINGS)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12), st.sampled_from(marks.READINGS), st.booleans())
@settings(max_examples=30, deadline=None)
def test_whatever_the_bytes_there_are_rows_or_a_data_error(tmp_path_factory, ending, parts, reading, packed):
    content = b"".join(parts)
    if packed:
        content = {".csv.gz": gzip.compress, ".csv.bz2": bz2.compress, ".zip": lambda c: zipped(d_csv=c)}.get(
            ending, lambda c: c
        )(content)
    path = tmp_path_factory.mktemp("t") / f"t{ending}"
    path.write_bytes(content)
    try:
        source = open_source(path, Dialect(decimal=reading[0], thousands=reading[1]))
        source.check(source.kinds)
        for batch in source.batches(source.kinds):
            assert batch.schema.types == [TYPES[kind] for kind in source.kinds.values()]
    except DataError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
