"""Data files for the tests of their reading: written as people write them, read as frames, compared with pandas'."""

import io
import zipfile

import numpy as np
import pyarrow as pa
from pyarrow import feather

#: Options of a training that is over at once.
QUICK = ("--hidden", "4", "--max-iter", "3", "--random-state", "0")


def values(source, kinds=None):
    """All rows of a source as a frame."""
    kinds = source.kinds if kinds is None else kinds
    source.check(kinds)
    return pa.Table.from_batches(
        source.batches(kinds), pa.schema([(n, TYPES[k]) for n, k in kinds.items()])
    ).to_pandas()


TYPES = {"numeric": pa.float64(), "boolean": pa.bool_(), "categorical": pa.string()}


def assert_same(ours, theirs):
    """Compare frames, with any missing value equal to any other, and numbers by value."""
    assert list(ours) == [str(name) for name in theirs]
    for name, expected in zip(ours, theirs, strict=True):
        left, right = ours[name], theirs[expected]
        np.testing.assert_array_equal(left.isna(), right.isna())
        known = left.notna()
        left, right = left[known].to_numpy(), right[known].to_numpy()
        if left.dtype == float:  # pandas may round a number the other way
            np.testing.assert_allclose(left, right.astype(float), rtol=1e-15)
        else:
            assert left.tolist() == right.tolist()


def zipped(**members):
    """The bytes of a zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return stream.getvalue()


def saved(table, path, sep=","):
    """The table in the format of the file's ending."""
    kind = path.name.partition(".")[2]
    if kind.startswith("csv"):
        table.to_csv(path, index=False, sep=sep)
    elif kind.startswith("json"):
        table.to_json(path, orient="records", lines=kind.startswith("jsonl"))
    elif kind == "xlsx":
        table.to_excel(path, index=False)
    elif kind == "parquet":
        table.to_parquet(path, index=False)
    else:
        feather.write_feather(table, path)
    return path
