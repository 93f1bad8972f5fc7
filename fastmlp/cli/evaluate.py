"""`fastmlp evaluate`: a model file and a data file with targets -> metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import typer

from fastmlp.cli import output, scores
from fastmlp.cli.arguments import (
    DataFile,
    Decimal,
    Encoding,
    Format,
    JsonFile,
    Missing,
    ModelFile,
    Quiet,
    Separator,
    Thousands,
    dialect,
)
from fastmlp.cli.files import data_file, guarded
from fastmlp.cli.predict import label_of, tell_of, unseen_text
from fastmlp.tabular.coding import Coder, check_finite, numbers
from fastmlp.tabular.columns import with_spellings
from fastmlp.tabular.errors import DataError, shortened
from fastmlp.tabular.reading import Source, open_source
from fastmlp.tabular.recipe import Recipe, dtype_of, load
from fastmlp.tabular.staging import checked_weights

#: Most classes whose confusion matrix fits into a terminal.
MOST_CLASSES = 12


def evaluate(
    model: ModelFile,
    data: DataFile,
    weight: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The weights of the rows, numbers of 0 or more.")
    ] = None,
    json_file: JsonFile = None,
    quiet: Quiet = False,
    separator: Separator = None,
    encoding: Encoding = None,
    missing: Missing = None,
    decimal: Decimal = None,
    thousands: Thousands = None,
    file_format: Format = None,
) -> None:
    """Compare the predictions for a data file with the targets in it.

    **Classification** accuracy, log loss, Brier score, ROC AUC and average precision (of the second of two classes, or
    the mean of each class against the others), F1, Matthews correlation; precision and recall of each class, the
    confusion matrix, and how often predictions of some probability are right.

    **Regression** R2, explained variance, errors, bias, and quantiles of the residuals.

    Rows without a target, and rows of a class that training did not see, are counted and left out of everything else.
    A metric that has no value for the data is shown as undefined, with the reason, and is null in JSON.

    Examples:

        fastmlp evaluate wine.safetensors test.csv

        fastmlp evaluate wine.safetensors test.csv --weight bottles --json metrics.json
    """
    with output.one_line_errors(), guarded({"MODEL": model, "DATA": data}, {"--json": json_file}):
        estimator, recipe = load(model)
        assert recipe is not None  # it was needed
        written = dialect(separator, encoding, missing, decimal, thousands, recipe.dialect)
        with data_file(data, file_format) as path:
            source = open_source(path, written)
            evaluated = Evaluated(Coder(recipe.columns))
            _read(evaluated, estimator, recipe, source, weight)
            report = {"schema": 1, "model": str(model), "data": str(data), **described(evaluated, estimator, recipe)}
        used = {*(column.name for column in recipe.columns), *recipe.ids, recipe.target, weight}
        report["left_out"] = {name: why for name, why in source.left_out.items() if name not in used}
        report["notes"] = source.notes
        if weight is not None:
            report["weight"] = weight
    if not quiet:
        tell_of(data, source)
        for note in _notes(evaluated, recipe):
            output.note(note)
        if str(json_file) != "-":
            show(report)
    output.write_json(json_file, report)


@dataclass
class Evaluated:
    """What is known of the rows that count."""

    coder: Coder  # counts the texts that training did not see
    targets: list[np.ndarray] = field(default_factory=list)  # (n,), places of classes, or values
    outputs: list[np.ndarray] = field(default_factory=list)  # (n, n_classes), or (n,)
    weights: list[np.ndarray] = field(default_factory=list)  # (n,)
    n_missing: int = 0  # rows without a target
    unknown: Counter = field(default_factory=Counter)  # classes that training did not see -> rows


def _read(evaluated: Evaluated, estimator: Any, recipe: Recipe, source: Source, weight: str | None) -> None:
    """Read a file to its end and predict its rows, block by block."""
    beside = {recipe.target: _kind(estimator), **({} if weight is None else {weight: "numeric"})}
    if weight == recipe.target:
        raise DataError(f"{source.path}: --weight {weight} is the target")
    if any(column.name == weight and column.kind == "categorical" for column in recipe.columns):
        raise DataError(f"{source.path}: --weight {weight} is a column of texts")
    row = 0
    for X, batch in recipe.blocks_beside(source, dtype_of(estimator), beside, evaluated.coder):
        target = _targets(evaluated, estimator, source, batch, recipe.target, row)
        counts = ~np.isnan(target)
        if weight is not None:
            weights = checked_weights(source, weight, numbers(batch.column(weight)), row)
            evaluated.weights.append(weights[counts])
        row += len(X)
        if counts.any():
            evaluated.targets.append(target[counts])
            evaluated.outputs.append(_outputs(estimator, X[counts]))
    if not row:
        raise DataError(f"{source.path}: has no rows")
    if not evaluated.targets:
        raise DataError(f"{source.path}: no row has a target that can be compared")
    if weight is not None and not any(part.any() for part in evaluated.weights):
        raise DataError(f"{source.path}: column {weight!r}: the weights are 0 in every row that counts")


def _kind(estimator: Any) -> str:
    """Return the kind of the column of the target."""
    letter = estimator.classes_.dtype.kind if hasattr(estimator, "classes_") else "f"
    return {"b": "boolean", "i": "numeric", "u": "numeric", "f": "numeric"}.get(letter, "categorical")


def _targets(evaluated: Evaluated, estimator: Any, source: Source, batch: Any, name: str, row: int) -> np.ndarray:
    """Return the targets (n,) of rows that follow `row` others, NaN for those that do not count."""
    column = batch.column(name)
    if not hasattr(estimator, "classes_"):
        values = numbers(column)
        check_finite(source, values[:, None], [name], row)
        evaluated.n_missing += int(np.isnan(values).sum())
        return values
    places = {label: place for place, label in enumerate(estimator.classes_.tolist())}
    if _kind(estimator) == "categorical":
        places = with_spellings(places)
    found = column.to_pylist()
    evaluated.n_missing += sum(value is None for value in found)
    evaluated.unknown.update(value for value in found if value is not None and value not in places)
    return np.array([places.get(value, np.nan) for value in found], dtype=float)


def _outputs(estimator: Any, X: np.ndarray) -> np.ndarray:
    """Return probabilities or scores (n, n_classes), or values (n,)."""
    if not hasattr(estimator, "classes_"):
        return estimator.predict(X).astype(np.float64)
    if hasattr(estimator, "predict_proba"):
        return estimator.predict_proba(X)
    found = estimator.decision_function(X)
    return np.column_stack([-found, found]) if found.ndim == 1 else found


def described(evaluated: Evaluated, estimator: Any, recipe: Recipe) -> dict[str, Any]:
    """Return everything about the predictions, for JSON."""
    y, outputs = np.concatenate(evaluated.targets), np.concatenate(evaluated.outputs)
    weight = np.concatenate(evaluated.weights) if evaluated.weights else None
    report: dict[str, Any] = {
        "task": recipe.task,
        "target": recipe.target,
        "rows": {
            "evaluated": len(y),
            "without_target": evaluated.n_missing,
            "of_unknown_class": sum(evaluated.unknown.values()),
        },
        "unseen": {name: sum(counts.values()) for name, counts in evaluated.coder.unseen.items()},
    }
    if recipe.task == "regression":
        return report | scores.regression(y, outputs, weight)
    classes = [label_of(label) for label in estimator.classes_.tolist()]
    has_probabilities = hasattr(estimator, "predict_proba")
    return report | {
        "classes": estimator.classes_.tolist(),
        **scores.classification(y.astype(np.intp), outputs, classes, weight, has_probabilities),
    }


def _notes(evaluated: Evaluated, recipe: Recipe) -> list[str]:
    """Return what the user should know about the rows."""
    notes = [unseen_text(name, counts) for name, counts in evaluated.coder.unseen.items()]
    if evaluated.n_missing:
        notes.append(f"{_rows(evaluated.n_missing)} without a value of {recipe.target!r}: left out")
    if evaluated.unknown:
        shown = ", ".join(shortened(label) for label, _ in evaluated.unknown.most_common(3))
        more = ", ..." if len(evaluated.unknown) > 3 else ""
        n = sum(evaluated.unknown.values())
        notes.append(f"{_rows(n)} of a class that training did not see ({shown}{more}): left out")
    return notes


def _rows(n: int) -> str:
    return "1 row" if n == 1 else f"{n:,} rows"


# --- tables -----------------------------------------------------------------------------------------------------------


def show(report: Mapping[str, Any]) -> None:
    """Print the report as tables."""
    console = output.console()
    n = report["rows"]["evaluated"]
    weighted = f", weighted by {report['weight']}" if "weight" in report else ""
    table = [
        (scores.NAMES[name], "undefined: " + report["undefined"][name] if value is None else _number(value))
        for name, value in report["metrics"].items()
    ]
    console.print(output.grid(f"{report['target']}: {_rows(n)}{weighted}", ["metric", "value"], table, left=[]))
    if report["task"] == "regression":
        quantiles = [(f"{float(q):.0%}", _number(value)) for q, value in report["residuals"].items()]
        console.print(output.grid("residuals", ["quantile", "target - prediction"], quantiles, left=[]))
        return
    console.print(*_class_tables(report, [label_of(label) for label in report["classes"]]))


def _class_tables(report: Mapping[str, Any], classes: Sequence[str]) -> list[Any]:
    """Return the tables of a classification besides its metrics."""
    keys = list(report["per_class"][0])
    rows = [
        (name, *(_number(entry[key]) for key in keys)) for name, entry in zip(classes, report["per_class"], strict=True)
    ]
    tables: list[Any] = [output.grid("classes", ["class", *keys], rows, left=["class"])]
    if len(classes) <= MOST_CLASSES:
        counts = zip(classes, report["confusion_matrix"], strict=True)
        confusion = [(name, *map(_number, row)) for name, row in counts]
        tables.append(output.grid("confusion", ["true / predicted", *classes], confusion, left=["true / predicted"]))
    else:
        tables.append(f"The confusion matrix of {len(classes)} classes is in --json.\n")
    if report["calibration"] is not None:
        tables += _calibration(report["calibration"], classes)
    return tables


def _calibration(calibration: Mapping[str, Any], classes: Sequence[str]) -> tuple[Any, str]:
    """Return the table of the calibration and a line below it."""
    of = f"class {classes[1]}" if len(classes) == 2 else "the predicted class"
    rows = [
        (f"{b['from']:g} to {b['to']:g}", f"{b['rows']:,}", _number(b["mean_probability"]), _number(b["share"]))
        for b in calibration["bins"]
    ]
    columns = ["probability", "rows", "mean probability", "share of rows"]
    table = output.grid(f"calibration of {of}", columns, rows, left=["probability"])
    return table, f"expected calibration error: {_number(calibration['expected_calibration_error'])}"


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"
