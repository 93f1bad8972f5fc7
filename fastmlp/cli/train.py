"""`fastmlp train`: a data file -> a model file, by way of matrices on disk."""

from __future__ import annotations

import secrets
import time
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from fastmlp.cli import output, parameters
from fastmlp.cli.arguments import (
    DataFile,
    Decimal,
    Encoding,
    JsonFile,
    Missing,
    Quiet,
    Separator,
    Thousands,
    dialect,
    regular_file,
)
from fastmlp.data.optional import needed
from fastmlp.engines import environment
from fastmlp.tabular.reading import KINDS, DataError, Dialect, Source, listed, open_source
from fastmlp.tabular.recipe import Recipe
from fastmlp.tabular.staging import Staged, draw_validation, stage, temporary_folder, write_codes
from fastmlp.tabular.target import TASKS, Target, read_target

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Plan:
    """What is to be done, as far as it can be judged before the file is read."""

    data: Path
    target: str | None
    output: Path
    task: str
    parameters: Mapping[str, Any]
    seed: int
    share: float  # of validation rows
    drop: tuple[str, ...]
    kinds: Mapping[str, str]
    max_categories: int
    dtype: str
    scale_target: bool
    dialect: Dialect
    quiet: bool


# options of train alone
Model = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", callback=regular_file, help="The model file (.safetensors).")
]
TargetColumn = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="The column to predict; y for .npz if left out.")
]
Task = Annotated[
    str,
    typer.Option(
        metavar="TASK",
        help="classification, regression, or auto: texts, true and false, and few whole numbers are classes.",
    ),
]
Hidden = Annotated[str, typer.Option(metavar="SIZES", help="Neurons of the hidden layers; none for no layer.")]
Share = Annotated[
    float, typer.Option(metavar="SHARE", help="Share of the rows, in [0, 1), that is drawn for validation.")
]
Dropped = Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Leave a column out; may be repeated.")]
Kinds = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN=KIND", help=f"Kind of a column: {', '.join(KINDS)}; may be repeated."),
]
MostCategories = Annotated[
    int, typer.Option(min=1, metavar="N", help="Most different texts of a column; more are an error.")
]
Dtype = Annotated[str, typer.Option(metavar="NAME", help="float32, or float64 as scikit-learn has it.")]
ScaleTarget = Annotated[
    bool, typer.Option(help="Regression: train on the target with mean 0 and variance 1; predictions are not scaled.")
]
Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", callback=regular_file, help="Draw the loss of each epoch (.png, .svg, .pdf)."),
]


def train(
    data: DataFile,
    model: Model,
    target: TargetColumn = None,
    task: Task = "auto",
    hidden: Hidden = "100",
    valid: Share = 0.2,
    drop: Dropped = None,
    kind: Kinds = None,
    max_categories: MostCategories = 1000,
    dtype: Dtype = "float32",
    scale_target: ScaleTarget = True,
    plot: Plot = None,
    json_file: JsonFile = None,
    quiet: Quiet = False,
    separator: Separator = None,
    encoding: Encoding = None,
    missing: Missing = None,
    decimal: Decimal = None,
    thousands: Thousands = None,
    *,
    parameters: dict,
) -> None:
    """Train a network on a data file of any size.

    Numbers are scaled to mean 0 and variance 1, texts become a feature per category, missing values the median or the
    most frequent value; predict and export do the same. The file is read block by block, and what is trained on lies
    in a temporary folder beside the model: 8 bytes per cell, and 4 or 8 per feature.

    A VALUE is JSON, or else a text.

    Examples:

        fastmlp train wine.csv --target quality -o wine.safetensors

        fastmlp train wine.csv --target quality --task regression --hidden 64,64 --early-stopping -o wine.safetensors

        fastmlp train flights.parquet --target delay --drop id --kind carrier=categorical -o delay.safetensors

        fastmlp train digits.npz --activation '["elu", {"alpha": 0.5}]' --solver adamw --dropout 0.2 -o d.safetensors
    """
    with output.one_line_errors():
        target = target if target is not None or not data.name.lower().endswith(".npz") else "y"
        plan = Plan(
            data, target, model, _one_of("--task", task, TASKS), _parameters(parameters, hidden, task),
            _seed(parameters), _share(valid), tuple(drop or ()), dict(map(_kind, kind or ())), max_categories,
            _one_of("--dtype", dtype, DTYPES), scale_target,
            dialect(separator, encoding, missing, decimal, thousands, Dialect()), quiet or str(json_file) == "-",
        )  # fmt: skip
        report = _trained(plan, plot)
    if not plan.quiet:
        show(report)
    output.write_json(json_file, report)


def _trained(plan: Plan, plot: Path | None) -> dict[str, Any]:
    """Train, save and draw; return the report."""
    from fastmlp.persistence import save

    _check_packages(plot, plan)
    estimator, recipe = run(plan)
    save(estimator, plan.output, metadata=recipe.to_json())
    if plot is not None:
        _draw(estimator, plot)
    return {"schema": 1, "model": str(plan.output), "data": str(plan.data), **recipe.training}


def run(plan: Plan) -> tuple[Any, Recipe]:
    """Read, train and judge.

    Raises a DataError for any error in the file, a FloatingPointError if training diverged, and a KeyboardInterrupt on
    Ctrl-C, also during a fit: nothing is kept.
    """
    begin = time.perf_counter()
    source = open_source(plan.data, plan.dialect)
    with temporary_folder(plan.output) as folder:
        estimator, target, held_out, staged = _prepare(source, plan, folder)
        read = time.perf_counter()
        scaled = plan.scale_target and target.task == "regression" and parameters.has_linear_output(estimator)
        fit(estimator, staged.X, target.y[~held_out], staged.X_val, target.y[held_out], scaled, plan)
        trained = time.perf_counter()
        training = {
            "task": target.task,
            "reason": target.reason,
            "target": target.name,
            "classes": target.classes,
            "rows": {"training": len(staged.X), "validation": int(held_out.sum())},
            "columns": len(staged.columns),
            "features": staged.X.shape[1],
            "left_out": source.left_out,
            # who says the kind of a column has looked at it
            "notes": {name: why for name, why in source.notes.items() if name not in plan.kinds},
            "dtype": plan.dtype,
            "seed": plan.seed,
            "target_scaled": scaled,
            "epochs": int(estimator.n_iter_),
            "loss": float(estimator.loss_),
            "metrics": _metrics(estimator, staged, target, held_out),
            "seconds": {"reading": read - begin, "training": trained - read},
            "versions": environment.versions(),
        }
        columns = staged.columns
        del staged  # a mapped file cannot be removed everywhere
    return estimator, Recipe(columns, target.name, target.task, plan.dialect, training)


def _prepare(source: Source, plan: Plan, folder: Path) -> tuple[Any, Target, np.ndarray, Staged]:
    """Return the file as matrices: an unfitted estimator, its target, the mask of the validation rows, the features."""
    kinds = _columns(source, plan)
    # where standard error is a terminal, a line there says how far reading is
    shown: Any = nullcontext() if plan.quiet else Console(stderr=True).status(f"{plan.data}", spinner="line")
    with shown as status:
        codes = write_codes(
            source,
            kinds,
            folder,
            max_categories=plan.max_categories,
            on_rows=lambda n: status and status.update(f"{plan.data}: {n:,} rows read"),
        )
        target = read_target(codes, plan.task, str(plan.data))
        if not plan.quiet:
            typer.echo(f"{target.task}: {target.reason}", err=True)
        estimator = parameters.made(target.task, {**plan.parameters, "random_state": plan.seed})
        held_out = draw_validation(codes.target, plan.share, plan.seed, stratify=target.task == "classification")
        try:
            return estimator, target, held_out, stage(codes, held_out, plan.dtype, folder)
        except DataError as error:
            raise DataError(f"{plan.data}: {error}") from None


def _metrics(estimator: Any, staged: Staged, target: Target, held_out: np.ndarray) -> dict[str, Any]:
    """Return the metrics on the validation rows, or on the training rows if there are none."""
    if staged.X_val is None:
        return {"of": "training", **judged(estimator, staged.X, target.y)}
    return {"of": "validation", **judged(estimator, staged.X_val, target.y[held_out])}


def fit(
    estimator: Any, X: np.ndarray, y: np.ndarray, X_val: np.ndarray | None, y_val: np.ndarray, scaled: bool, plan: Plan
) -> None:
    """Fit with a progress bar and validation rows; if `scaled`, on a standardised y, which the last layer takes back.

    `scaled` is only for an output layer without an activation.
    """
    from sklearn.preprocessing import StandardScaler

    from fastmlp.model import choices
    from fastmlp.training.callbacks import ProgressBar

    scaler = StandardScaler() if scaled else None
    if scaler is not None:
        y = scaler.fit_transform(y[:, None])[:, 0]
        y_val = scaler.transform(y_val[:, None])[:, 0] if len(y_val) else y_val
    stochastic = choices.name_of(estimator.solver) != "lbfgs"
    validation = {"X_val": X_val, "y_val": y_val} if stochastic and X_val is not None else {}
    if stochastic and not plan.quiet:
        estimator.set_params(callbacks=[ProgressBar()])
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        # fit turns Ctrl-C into a warning and a half-trained model; here Ctrl-C means stop
        warnings.filterwarnings("error", message="Training interrupted by user")
        try:
            estimator.fit(X, y, **validation)
        except UserWarning:
            raise KeyboardInterrupt from None
        except ValueError as error:
            if "finite" in str(error):
                raise FloatingPointError(f"training diverged: {error}") from None
            raise
    estimator.set_params(callbacks=None)
    for message in {} if plan.quiet else {str(entry.message): None for entry in notes}:
        output.note(" ".join(message.split()))
    if scaler is not None:
        # (W a + b) * scale + mean = (W * scale) a + (b * scale + mean)
        estimator.coefs_[-1] *= scaler.scale_[0]
        estimator.intercepts_[-1] *= scaler.scale_[0]
        estimator.intercepts_[-1] += scaler.mean_[0]


def judged(estimator: Any, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return accuracy and log loss, or R2 and the root of the mean squared error."""
    from sklearn.metrics import accuracy_score, log_loss, r2_score, root_mean_squared_error

    if not hasattr(estimator, "classes_"):
        predicted = estimator.predict(X).astype(np.float64)
        scores = {"rmse": root_mean_squared_error(y, predicted)}
        return {"r2": float(r2_score(y, predicted)), **scores} if len(y) > 1 else scores
    if not hasattr(estimator, "predict_proba"):  # hinge losses
        return {"accuracy": float(accuracy_score(y, estimator.predict(X)))}
    probabilities = estimator.predict_proba(X)
    accuracy = accuracy_score(y, estimator.classes_[probabilities.argmax(axis=1)])
    return {"accuracy": float(accuracy), "log_loss": float(log_loss(y, probabilities, labels=estimator.classes_))}


NAMES = {"accuracy": "accuracy", "log_loss": "log loss", "r2": "R2", "rmse": "RMSE"}


def show(report: Mapping[str, Any]) -> None:
    """Print the results as tables."""
    metrics = {name: value for name, value in report["metrics"].items() if name != "of"}
    rows, seconds = report["rows"], report["seconds"]
    console = output.console()
    title = f"{report['metrics']['of']} rows"
    console.print(output.grid(title, ["metric", "value"], [(NAMES[n], f"{v:.4g}") for n, v in metrics.items()]))
    entries = {
        "rows": f"{rows['training']:,} to train on, {rows['validation']:,} to validate on",
        "columns": f"{report['columns']} -> {report['features']} features of {report['dtype']}",
        "left out": "; ".join(f"{name!r}: {why}" for name, why in report["left_out"].items()) or None,
        "look at": "\n".join(f"{name!r} {why}" for name, why in report["notes"].items()) or None,
        "epochs": report["epochs"],
        "seconds": f"{seconds['reading']:.2f} to read, {seconds['training']:.2f} to train",
        "seed": report["seed"],
        "model": report["model"],
    }
    console.print(output.pairs((name, value) for name, value in entries.items() if value is not None))


# --- options ----------------------------------------------------------------------------------------------------------


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{option} must be one of {', '.join(choices)}, got {value!r}")
    return value


def _parameters(given: dict[str, Any], hidden: str, task: str) -> dict[str, Any]:
    try:
        sizes = () if hidden == "none" else tuple(int(size) for size in hidden.split(","))
    except ValueError:
        raise ValueError(f"--hidden must be whole numbers with commas between, or none, got {hidden!r}") from None
    chosen = {"hidden_layer_sizes": sizes, **given}
    parameters.checked(task, chosen)
    return chosen


def _seed(given: Mapping[str, Any]) -> int:
    """Return the seed of all draws; if none is given, draw one and report it."""
    seed = given.get("random_state")
    if seed is not None and not 0 <= seed < 2**32:
        raise ValueError(f"--random-state must be a whole number in [0, 2**32), got {seed}")
    return secrets.randbelow(2**32) if seed is None else int(seed)


def _share(valid: float) -> float:
    if not 0 <= valid < 1:
        raise ValueError(f"--valid must be in [0, 1), got {valid!r}")
    return valid


def _kind(text: str) -> tuple[str, str]:
    name, _, kind = text.rpartition("=")
    if not name or kind not in KINDS:
        raise ValueError(f"--kind must be COLUMN=KIND, the kind one of {', '.join(KINDS)}; got {text!r}")
    return name, kind


def _columns(source: Source, plan: Plan) -> dict[str, str]:
    """Return the columns to use and their kinds, the target last."""
    if plan.target is None:
        raise DataError(f"{plan.data}: --target must name the column to predict; it has {listed(source.kinds)}")
    for name in plan.kinds:
        source.problems.pop(name, None)
    for name in plan.drop:
        if name == plan.target:
            raise DataError(f"{plan.data}: --drop {name} is the target")
        source.problems.pop(name, None)
    source.check((plan.target, *plan.drop, *plan.kinds))
    used = source.used(plan.target, plan.drop, plan.kinds)
    if len(used) == 1:
        index = f" and the index, {listed(source.left_out)}" if source.left_out else ""
        raise DataError(f"{plan.data}: there is no column besides the target {plan.target!r}{index}")
    source.check(used)
    return used


def _check_packages(plot: Path | None, plan: Plan) -> None:
    """Refuse before minutes are spent what would fail at the end."""
    needed("safetensors", "a model file", '"fastmlp[files]"')
    if plot is None:
        return
    needed("matplotlib.figure", "--plot", '"fastmlp[plot]"')
    if plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--plot must end in .png, .svg or .pdf, got {plot}")
    solver = plan.parameters.get("solver")
    if solver == "lbfgs" or solver == ["lbfgs", {}]:
        raise ValueError("--plot: the solver lbfgs has no epochs to draw")


# --- results ----------------------------------------------------------------------------------------------------------


def _draw(estimator: Any, path: Path) -> None:
    from matplotlib.figure import Figure

    from fastmlp.data.files import replacing
    from fastmlp.displays import LossCurveDisplay

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    LossCurveDisplay.from_estimator(estimator, ax=figure.subplots())
    with replacing(path) as stream:
        figure.savefig(stream, format=path.suffix[1:].lower(), dpi=150)
