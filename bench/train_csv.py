"""Train from a CSV file with `fastmlp train` in a fresh process: rows per second, peak memory, and the same weights.

    python bench/train_csv.py [--rows 1000000] [--columns 30] [--dtype float32] [--epochs 2]

The file is made first, by a generator with a seed. Afterwards the same rows are put into an array in memory, with the
transformer that the model file holds, and an estimator is fitted to them: its weights must be the same, bit for bit.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# what the parent needs afterwards does not count: the child is measured by the system
TRAIN = "import sys; from fastmlp.cli.app import app; sys.argv[0] = 'fastmlp'; app()"


def write_csv(path, n_rows, n_columns, seed=0):
    """Numbers of different scales, and a class that depends on them."""
    import pyarrow as pa
    from pyarrow import csv

    rng = np.random.default_rng(seed)
    names = [f"x{i}" for i in range(n_columns)]
    W = rng.normal(size=n_columns)
    schema = pa.schema([(name, pa.float64()) for name in names] + [("label", pa.string())])
    with csv.CSVWriter(path, schema) as writer:
        for start in range(0, n_rows, 50_000):
            X = rng.normal(size=(min(50_000, n_rows - start), n_columns))
            label = np.where(X @ W + np.sin(3 * X[:, 0]) > 0, "yes", "no")
            X = (X * np.logspace(-2, 3, n_columns) + 5).round(5)
            writer.write_table(pa.table([*(pa.array(x) for x in X.T), pa.array(label)], schema=schema))


def train(path, model, dtype, epochs):
    """(seconds, peak bytes) of `fastmlp train`, start of Python included."""
    options = ["--target", "label", "-o", str(model), "--dtype", dtype, "--max-iter", str(epochs), "--hidden", "64"]
    command = [sys.executable, "-c", TRAIN, "train", str(path), *options, "--random-state", "0"]
    begin = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"fastmlp train ended with {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_memory(path, model):
    """The fit of the model file once more, on arrays in memory."""
    import warnings

    import pyarrow as pa
    from sklearn.base import clone

    from fastmlp.tabular import reading, recipe, staging

    estimator, made = recipe.load(model)
    source = reading.open_source(path)
    X = np.concatenate(list(made.blocks(source, estimator.coefs_[0].dtype)))
    y = pa.concat_arrays([b.column(0) for b in source.batches({"label": "categorical"})]).to_numpy(zero_copy_only=False)
    labels = np.where(y == y[0], 0.0, 1.0)  # codes in the order of appearance, as the split had them
    held_out = staging.draw_validation(labels, 0.2, 0, stratify=True)
    again = clone(estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again.fit(X[~held_out], y[~held_out], X_val=X[held_out], y_val=y[held_out])
    return estimator, again


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=30)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, model = Path(folder) / "data.csv", Path(folder) / "model.safetensors"
        write_csv(path, given.rows, given.columns)
        seconds, peak = train(path, model, given.dtype, given.epochs)
        from fastmlp.persistence import read_metadata

        training = read_metadata(model)["table"]["training"]
        left = sorted(entry.name for entry in Path(folder).iterdir())
        streamed, array = in_memory(path, model)
        same = all(
            np.array_equal(a, b)
            for a, b in zip((*streamed.coefs_, *streamed.intercepts_), (*array.coefs_, *array.intercepts_), strict=True)
        )
        size = path.stat().st_size
    in_arrays = given.rows * given.columns * np.dtype(given.dtype).itemsize
    reading = training["seconds"]["reading"]
    report = {
        "rows": given.rows,
        "columns": given.columns,
        "dtype": given.dtype,
        "file_mb": round(size / 1e6),
        "array_mb": round(in_arrays / 1e6),
        "peak_mb": round(peak / 1e6),
        "allowed_mb": round(in_arrays / 1e6 + 300),
        "seconds_in_all": round(seconds, 2),
        "seconds_reading": round(reading, 2),
        "rows_per_second_reading": round(given.rows / reading),
        "seconds_training": round(training["seconds"]["training"], 2),
        "same_weights_as_in_memory": same,
        "files_left": left,
        "parent_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
    }
    print(json.dumps(report, indent=2))
    if not same or peak > in_arrays + 300e6 or left != ["data.csv", "model.safetensors"]:
        raise SystemExit("not as promised")


if __name__ == "__main__":
    main()
