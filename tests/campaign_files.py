"""Data files of the campaign: a grammar of tables as people write them, and pandas' reading of the same file.

A :class:`Sheet` says what is in a table and how it is written. ``write`` makes the file, ``as_pandas_reads`` is the
judge. Some sheets are damaged afterwards: then nobody knows what is right, but nobody may crash.
"""

import bz2
import csv
import gzip
import io
import zipfile
from dataclasses import dataclass

import numpy as np
import pandas as pd
from hypothesis import strategies as st

#: Texts that a CSV file may have for a missing value and that pandas and fastmlp both know.
MISSING = ("", "NA", "NaN", "null", "N/A", "None", "<NA>")

TEXTS = (
    "red",
    "green",
    "rosé",
    "a b",
    "x;y",
    "p,q",
    'say "so"',
    "two\nlines",
    "Ünïcode",
    "日本",
    "tab\there",
    "#1",
    "-",
)

NAMES = ("x", "weight", "a b", "größe", "x,y", 'the "best"', "1", "x;y", "two\nlines", "Nr.")


@dataclass(frozen=True)
class Column:
    """A column: its kind, and the seed of its values."""

    name: str
    kind: str  # key of VALUES
    missing: float = 0.0  # share of the rows


@dataclass(frozen=True)
class Sheet:
    """A table and the way it is written."""

    columns: tuple[Column, ...]
    rows: int
    seed: int
    ending: str = ".csv"
    separator: str = ","
    newline: str = "\n"
    encoding: str = "utf-8"
    quoting: int = csv.QUOTE_MINIMAL
    missing_text: str = ""
    decimal: str = "."
    blank_lines: bool = False
    last_newline: bool = True
    index: str = "none"  # of Parquet: none, range, shuffled, named
    damage: tuple[tuple[str, int, int], ...] = ()  # (what, place, byte), of the finished bytes


def _choices(values):
    return lambda rng, n: np.array(values, object)[rng.integers(0, len(values), n)]


#: Values of a column by kind, as functions of (generator, number of rows).
VALUES = {
    "integers": lambda rng, n: rng.integers(-1000, 1000, n),
    "floats": lambda rng, n: rng.normal(0, 100, n).round(3),
    "exact": lambda rng, n: rng.normal(0, 1, n),
    "wide": lambda rng, n: rng.normal(0, 1, n) * 10.0 ** rng.integers(-300, 300, n),
    "booleans": lambda rng, n: rng.random(n) < 0.5,
    "texts": _choices(TEXTS),
    "few texts": _choices(("yes", "no")),
    "one text": _choices(("same",)),
    "zeros": lambda rng, n: np.zeros(n),
    "big integers": lambda rng, n: rng.integers(2**54, 2**62, n),
}


def table_of(sheet):
    """Return the values of a sheet as a DataFrame of objects, None for missing ones."""
    rng = np.random.default_rng(sheet.seed)
    columns = {}
    for column in sheet.columns:
        values = VALUES[column.kind](rng, sheet.rows).astype(object)
        values[rng.random(sheet.rows) < column.missing] = None
        columns[column.name] = values
    return pd.DataFrame(columns, columns=[column.name for column in sheet.columns], dtype=object)


def _text(value, sheet):
    if value is None:
        return sheet.missing_text
    if isinstance(value, float):
        return repr(value).replace(".", sheet.decimal)
    return str(value)


def content(sheet):
    """Return the bytes of a text file."""
    table = table_of(sheet)
    out = io.StringIO()
    # beside lines that end in "\r" Python before 3.13 does not quote "\n"
    quoting = csv.QUOTE_ALL if sheet.newline == "\r" else sheet.quoting
    writer = csv.writer(out, delimiter=sheet.separator, quoting=quoting, lineterminator=sheet.newline)
    writer.writerow(table.columns)
    for row in table.itertuples(index=False):
        if sheet.blank_lines:
            out.write(sheet.newline)
        writer.writerow([_text(value, sheet) for value in row])
    text = out.getvalue()
    if not sheet.last_newline:
        text = text.removesuffix(sheet.newline)
    return text.encode(sheet.encoding, "replace")


def _zip(data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.csv", data)
    return out.getvalue()


#: Endings of compressed files, as functions of their content; the others are written as they are.
COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".zip": _zip}


def write(sheet, folder):
    """Write the file of a sheet into a folder; return its path."""
    path = folder / f"data{sheet.ending}"
    if sheet.ending in BINARY:
        BINARY[sheet.ending](_indexed(sheet), path)
    else:
        path.write_bytes(COMPRESS.get(path.suffix, bytes)(content(sheet)))
    if sheet.damage:
        path.write_bytes(_damaged(path.read_bytes(), sheet.damage))
    return path


def _damaged(data, damage):
    data = bytearray(data)
    for what, place, byte in damage:
        at = place % (len(data) + 1)
        if what == "insert":
            data.insert(at, byte)
        elif what == "delete":
            del data[at : at + 1 + byte % 8]
        elif data:
            data[at % len(data)] = byte
    return bytes(data)


#: Formats with types of their own, as functions of (frame, path).
BINARY = {
    ".parquet": lambda frame, path: frame.to_parquet(path),
    ".feather": lambda frame, path: frame.reset_index(drop=True).to_feather(path),
}


def _indexed(sheet):
    """Return the table with the types and the index that its file has."""
    table = table_of(sheet).infer_objects()
    for column in sheet.columns:
        if column.kind in ("texts", "few texts") and sheet.seed % 3 == 0:
            table[column.name] = table[column.name].astype("category")
        if column.kind == "integers" and column.missing:
            table[column.name] = table[column.name].astype("Int64")
    if sheet.index == "shuffled":
        return table.sample(frac=1, random_state=sheet.seed)
    if sheet.index == "named":
        return table.set_index(pd.Index(np.arange(len(table)) * 7, name="row"))
    return table


# --- the judge -------------------------------------------------------------------------------------------------------


def as_pandas_reads(path, sheet):
    """Return the columns as pandas reads them, without an index: objects, None for missing."""
    if sheet.ending in BINARY:
        frame = (pd.read_parquet if sheet.ending == ".parquet" else pd.read_feather)(path)
        return {name: [None if pd.isna(v) else v for v in frame[name].astype(object)] for name in frame.columns}
    frame = pd.read_csv(
        path,
        sep=sheet.separator,
        encoding="utf-8-sig" if sheet.encoding == "utf-8" else sheet.encoding,
        dtype=str,
        keep_default_na=False,
        na_values=list(MISSING),
        skip_blank_lines=True,
    )
    columns = {}
    for column, name in zip(sheet.columns, frame.columns, strict=True):
        texts = [None if pd.isna(text) else text for text in frame[name]]
        columns[column.name] = texts
    return columns


def as_kind(value, kind, decimal="."):
    """Return a value of pandas' reading as a column of this kind has it."""
    if value is None:
        return None
    if kind == "numeric":
        return float(value.replace(decimal, ".")) if isinstance(value, str) else float(value)
    if kind == "boolean":
        return value if isinstance(value, bool | np.bool_) else {"True": True, "False": False}[value]
    return str(value)


# --- drawing ---------------------------------------------------------------------------------------------------------


@st.composite
def sheets(draw, damaged=False):
    """Draw a sheet; a damaged one has some bytes changed."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    kinds = st.sampled_from(sorted(VALUES))
    share = st.sampled_from([0.0, 0.0, 0.2])
    columns = tuple(Column(name, draw(kinds), draw(share)) for name in names)
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "latin-1", "utf-16"]))
    separator = draw(st.sampled_from([",", ";", "\t", "|"]))
    changes = st.tuples(st.sampled_from(["insert", "delete", "replace"]), st.integers(0, 10**6), st.integers(0, 255))
    return Sheet(
        columns,
        rows=draw(st.integers(1, 40)),
        seed=draw(st.integers(0, 10**6)),
        ending=draw(st.sampled_from([".csv", ".csv", ".csv", ".csv.gz", ".csv.bz2", ".csv.zip", *BINARY])),
        separator=separator,
        newline=draw(st.sampled_from(["\n", "\r\n", "\r"])),
        encoding=encoding,
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
        missing_text=draw(st.sampled_from(MISSING)),
        decimal="," if separator == ";" and draw(st.booleans()) else ".",
        blank_lines=draw(st.integers(0, 4)) == 0,
        last_newline=draw(st.booleans()),
        index=draw(st.sampled_from(["none", "shuffled", "named"])),
        damage=tuple(draw(st.lists(changes, min_size=1, max_size=4))) if damaged else (),
    )
