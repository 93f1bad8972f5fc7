"""`fastmlp train`: a data file -> a model file, by way of matrices on disk."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from fastmlp.cli import cluster, output, parameters, searching
from fastmlp.cli.arguments import (
    DataFile,
    Decimal,
    Encoding,
    Format,
    JsonFile,
    Missing,
    Quiet,
    Separator,
    Thousands,
    dialect,
    regular_file,
)
from fastmlp.cli.cluster import Cluster, Scheduler
from fastmlp.cli.files import data_file, guarded
from fastmlp.cli.fitting import NAMES, Result, Rows, check_weights, cross_validated, fit, folds_of, judged, tell
from fastmlp.cli.parameters import MODELS
from fastmlp.cli.predict import tell_of
from fastmlp.data.files import Reservation
from fastmlp.data.optional import needed
from fastmlp.engines import environment
from fastmlp.tabular.errors import DataError, listed
from fastmlp.tabular.reading import KINDS, Dialect, Source, open_source
from fastmlp.tabular.recipe import Recipe
from fastmlp.tabular.staging import Codes, Staged, draw_validation, stage, temporary_folder, write_codes
from fastmlp.tabular.target import TASKS, Target, check_given, read_target

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
    share: float  # of validation rows, 0 with a file of them
    validation: Path | None  # the file of validation rows
    folds: int  # of a cross-validation, 0 for none
    weight: str | None
    ids: tuple[str, ...]
    drop: tuple[str, ...]
    kinds: Mapping[str, str]
    max_categories: int
    dtype: str
    scale_target: bool
    dialect: Dialect
    format: str | None  # of standard input
    quiet: bool
    time_limit: float | None = None  # seconds of a search
    model: str = MODELS[0]
    scheduler: str | None = None  # the address of that of a cluster
    cluster: Cluster | None = None  # what trains, once it is connected to

    def made(self, task: str, codes: Codes) -> Any:
        """Return the estimator of a task, not fitted yet, for the columns of a file."""
        given: dict[str, Any] = {**self.parameters, "random_state": self.seed}
        if codes.read:
            given |= {"dtype": self.dtype, "categorical_features": [kind == "categorical" for kind in codes.kinds[:-1]]}
            if not self.share and self.validation is None:
                given["validation_fraction"] = 0  # no rows are held out that no report knows
        return parameters.made(self.model, task, given)


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
Hidden = Annotated[
    str | None,
    typer.Option(metavar="SIZES", help="Neurons of the hidden layers; none for no layer. [default: 100]"),
]
Network = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME",
        help=f"{', '.join(MODELS)}: scikit-learn's network, or one of those for tables, which code columns "
        "and missing values themselves.",
    ),
]
Valid = Annotated[
    str,
    typer.Option(
        metavar="SHARE|FILE",
        help="Rows to validate on: a share of the rows, in [0, 1), which is drawn; or a data file with the same "
        "columns.",
    ),
]
Folds = Annotated[
    int | None,
    typer.Option(
        "--cv",
        min=2,
        metavar="K",
        help="Before the training, K-fold cross-validation on the training rows: mean and deviation of each metric.",
    ),
]
WeightColumn = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="The weights of the rows, numbers of 0 or more; it is no feature."),
]
IdColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--id",
        metavar="COLUMN",
        help="A column that identifies rows: no feature; `predict` repeats it. May be repeated.",
    ),
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
TimeLimit = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Search for the parameters that are not given, so many seconds long, reading not included; the model is "
        "an ensemble of the best networks.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", callback=regular_file, help="Draw the loss of each epoch (.png, .svg, .pdf)."),
]


def train(
    parameters: dict,  # of the estimators
    data: DataFile,
    model: Model,
    target: TargetColumn = None,
    task: Task = "auto",
    network: Network = MODELS[0],
    hidden: Hidden = None,
    valid: Valid = "0.2",
    cv: Folds = None,
    weight: WeightColumn = None,
    id_column: IdColumns = None,
    drop: Dropped = None,
    kind: Kinds = None,
    max_categories: MostCategories = 1000,
    dtype: Dtype = "float32",
    scale_target: ScaleTarget = True,
    time_limit: TimeLimit = None,
    scheduler: Scheduler = None,
    plot: Plot = None,
    json_file: JsonFile = None,
    quiet: Quiet = False,
    separator: Separator = None,
    encoding: Encoding = None,
    missing: Missing = None,
    decimal: Decimal = None,
    thousands: Thousands = None,
    file_format: Format = None,
) -> None:
    """Train a network on a data file, or a folder of files, of any size.

    Numbers are scaled to mean 0 and variance 1, texts become a feature per category, missing values the median or the
    most frequent value; predict and export do the same. The file is read block by block, and what is trained on lies
    in a temporary folder beside the model: 8 bytes per cell, and 4 or 8 per feature.

    A VALUE is JSON, or else a text.

    Examples:

        fastmlp train wine.csv --target quality -o wine.safetensors

        fastmlp train wine.csv --target quality --task regression --hidden 64,64 --early-stopping -o wine.safetensors

        fastmlp train wine.csv --target quality --time-limit 600 -o wine.safetensors

        fastmlp train flights.parquet --target delay --drop id --kind carrier=categorical -o delay.safetensors

        fastmlp train flights/ --target delay --shuffle 65536 --scheduler tcp://10.0.0.1:8786 -o delay.safetensors

        fastmlp train wine.csv --target quality --valid wine_valid.csv --id bottle --weight bottles -o wine.safetensors

        gunzip < wine.csv.gz | fastmlp train - --target quality --cv 5 -o wine.safetensors

        fastmlp train digits.npz --activation '["elu", {"alpha": 0.5}]' --solver adamw --dropout 0.2 -o d.safetensors
    """
    with output.one_line_errors():
        plan = Plan(
            data, _target(target, data, file_format), model, _one_of("--task", task, TASKS),
            _parameters(parameters, hidden, task, network), _seed(parameters), *_validation(valid), cv or 0, weight,
            tuple(id_column or ()), tuple(drop or ()), dict(map(_kind, kind or ())), max_categories,
            _one_of("--dtype", dtype, DTYPES), scale_target, dialect(separator, encoding, missing, decimal, thousands),
            file_format, quiet or str(json_file) == "-", time_limit, network, scheduler,
        )  # fmt: skip
        report = _trained(plan, plot, json_file)
    _tell(plan, report, json_file)


def _tell(plan: Plan, report: Mapping[str, Any], json_file: Path | None) -> None:
    if not plan.quiet:
        show(report)
    output.write_json(json_file, report)


def _trained(plan: Plan, plot: Path | None, json_file: Path | None) -> dict[str, Any]:
    """Train, save and draw; return the report, which will go to a file."""
    from fastmlp.model.network import check_precision
    from fastmlp.persistence import save

    _check_validation(plan)
    check_precision(plan.parameters.get("matmul_precision", "highest"), plan.dtype)
    if plan.model != "mlp" and not plan.scale_target:
        raise ValueError(
            f"--no-scale-target makes no sense with --model {plan.model}, which scales targets in any case"
        )
    cluster.check(plan.scheduler, plan.parameters, plan.time_limit)
    validates = bool(plan.share) or plan.validation is not None
    searching.check(plan.time_limit, plan.parameters, validates=validates, folds=plan.folds, plots=plot is not None)
    inputs = {"DATA": plan.data, "--valid": plan.validation}
    with guarded(inputs, {"--output": plan.output, "--plot": plot, "--json": json_file}) as held:
        _check_packages(plot, plan)
        with cluster.connected(plan.scheduler, told=not plan.quiet) as there:
            estimator, recipe = run(replace(plan, cluster=there), held["--output"])
        held["--output"].release()
        save(estimator, plan.output, metadata=recipe.to_json())
        if plot is not None:
            _draw(estimator, plot)
    return {"schema": 1, "model": str(plan.output), "data": str(plan.data), **recipe.training}


def run(plan: Plan, room: Reservation) -> tuple[Any, Recipe]:
    """Read, train and judge.

    Raises a DataError for any error in the files, a FloatingPointError if training diverged, and a KeyboardInterrupt on
    Ctrl-C, also during a fit: nothing is kept.
    """
    begin = time.perf_counter()
    with data_file(plan.data, plan.format) as path, temporary_folder(plan.output) as folder:
        codes, target, held_out, remarks = _read(open_source(path, plan.dialect), plan, folder)
        estimator = plan.made(target.task, codes)
        scaled = plan.scale_target and target.task == "regression" and parameters.has_linear_output(estimator)
        crossed = begin_cv = time.perf_counter()
        scores = {}
        if plan.folds:
            scores = _cross_validation(plan, codes, target, held_out, scaled, folder)
            crossed = time.perf_counter()
        training, validation, columns = _staged(plan, codes, target, held_out, folder)
        room.grow(_model_bytes(plan, estimator, target, training.X))
        staged = time.perf_counter()
        estimator, result, found = _fitted(plan, estimator, training, validation, scaled)
        trained = time.perf_counter()
        if not plan.quiet:
            tell(result.notes)
        seconds = {"reading": staged - begin - (crossed - begin_cv), "training": trained - staged}
        seconds |= {"cross_validation": crossed - begin_cv} if plan.folds else {}
        history = _history(plan, target, training, validation, len(columns), result)
        history |= {
            **remarks,
            "target_scaled": scaled,
            "metrics": {"of": "training" if validation is None else "validation"}
            | judged(estimator, validation or training),
            **scores,
            **found,
            "seconds": seconds,
            "versions": environment.versions(),
        }
        del training, validation  # a mapped file cannot be removed everywhere
    return estimator, Recipe(columns, target.name, target.task, plan.dialect, history, plan.ids, codes.read)


def _fitted(
    plan: Plan, estimator: Any, training: Rows, validation: Rows | None, scaled: bool
) -> tuple[Any, Result, dict[str, Any]]:
    """Return the fitted estimator, how its fit ended, and what the report says besides: of a search."""
    if plan.time_limit is None or validation is None:
        result = fit(estimator, training, validation, scaled=scaled, bar=not plan.quiet, cluster=plan.cluster)
        return estimator, result, {}
    wanted = searching.Wanted(plan.time_limit, plan.parameters, plan.seed)
    return searching.searched(estimator, wanted, training, validation, scaled=scaled, told=not plan.quiet)


def _read(source: Source, plan: Plan, folder: Path) -> tuple[Codes, Target, np.ndarray, dict[str, Any]]:
    """Return the codes of the rows, the target, the mask of the validation rows, and remarks for the report."""
    kinds = _columns(source, plan)
    validation = None if plan.validation is None else open_source(plan.validation, plan.dialect)
    if validation is not None:
        validation.problems.clear()  # the kinds are known
        validation.check([*kinds, *([] if plan.weight is None else [plan.weight])])
    # where standard error is a terminal, a line there says how far reading is
    shown: Any = nullcontext() if plan.quiet else Console(stderr=True).status(f"{plan.data}", spinner="line")
    with shown as status:
        codes = write_codes(
            source,
            kinds,
            folder,
            max_categories=plan.max_categories,
            weight=plan.weight,
            validation=validation,
            on_rows=lambda n: status and status.update(f"{plan.data}: {n:,} rows read"),
        )
    codes.read = plan.model != MODELS[0]
    target = read_target(codes, plan.task, str(source.path))
    if not plan.quiet:
        typer.echo(f"{target.task}: {target.reason}", err=True)
    if validation is None:
        held_out = draw_validation(codes.target, plan.share, plan.seed, stratify=target.task == "classification")
    else:
        held_out = np.arange(len(codes.target)) >= len(codes.target) - codes.n_given
        if target.task == "classification":
            check_given(codes, ~held_out, validation)
    # who says the kind of a column has looked at it
    notes = {name: why for name, why in source.notes.items() if name not in plan.kinds}
    remarks = {"left_out": source.left_out, "notes": notes}
    if plan.validation is not None and validation is not None:
        remarks["validation_notes"] = validation.notes
        if not plan.quiet:
            tell_of(plan.validation, validation)
    return codes, target, held_out, remarks


def _cross_validation(
    plan: Plan, codes: Codes, target: Target, held_out: np.ndarray, scaled: bool, folder: Path
) -> dict[str, Any]:
    """Return the scores of K fits, as a part of the report."""
    shown: Any = nullcontext() if plan.quiet else Console(stderr=True).status("cross-validation", spinner="line")
    with shown:
        scores = cross_validated(
            lambda: plan.made(target.task, codes),
            codes,
            target,
            held_out,
            folds=folds_of(codes, held_out, target.task, plan.folds, plan.seed),
            dtype=plan.dtype,
            scaled=scaled,
            folder=folder,
            cluster=plan.cluster,
        )
    return {"cross_validation": scores}


def _staged(
    plan: Plan, codes: Codes, target: Target, held_out: np.ndarray, folder: Path
) -> tuple[Rows, Rows | None, list[Any]]:
    """Return the rows to train on, those to validate on, and the columns that were learned from the former."""
    try:
        staged: Staged = stage(codes, held_out, plan.dtype, folder)
    except DataError as error:
        raise DataError(f"{plan.data}: {error}") from None
    weights = (None, None) if codes.weight is None else (codes.weight[~held_out], codes.weight[held_out])
    training = Rows(staged.X, target.y[~held_out], weights[0])
    check_weights(training, "training rows")
    if staged.X_val is None:
        return training, None, staged.columns
    validation = Rows(staged.X_val, target.y[held_out], weights[1])
    check_weights(validation, "validation rows")
    return training, validation, staged.columns


def _history(
    plan: Plan, target: Target, training: Rows, validation: Rows | None, n_columns: int, result: Result
) -> dict[str, Any]:
    """Return what is known of a training besides its scores."""
    optional = {"validation": None if plan.validation is None else str(plan.validation), "weight": plan.weight}
    return {
        "task": target.task,
        "reason": target.reason,
        "target": target.name,
        "classes": target.classes,
        "rows": {"training": len(training.y), "validation": 0 if validation is None else len(validation.y)},
        **{name: value for name, value in optional.items() if value is not None},
        **({"ids": list(plan.ids)} if plan.ids else {}),
        "network": plan.model,
        "columns": n_columns,
        "features": training.X.shape[1],
        "dtype": plan.dtype,
        "seed": plan.seed,
        **result.report(),
        "unit": result.unit,
    }


def _model_bytes(plan: Plan, estimator: Any, target: Target, X: np.ndarray) -> int:
    """Return about how large the model file will be; of a search, at most."""
    n_outputs = len(target.classes) if len(target.classes) > 2 else 1
    n_networks = estimator.n_ens * estimator.n_cv if plan.time_limit is None else searching.NETWORKS
    hidden = (512, 512, 512) if estimator.hidden_layer_sizes is None else estimator._hidden_sizes()
    sizes = [X.shape[1], *hidden, n_outputs]
    if plan.time_limit is not None and "hidden_layer_sizes" not in plan.parameters:
        sizes = [X.shape[1], *searching.largest(estimator), n_outputs]
    return n_networks * X.dtype.itemsize * sum((a + 1) * b for a, b in pairwise(sizes))


def show(report: Mapping[str, Any]) -> None:
    """Print the results as tables."""
    metrics = {name: value for name, value in report["metrics"].items() if name != "of"}
    crossed = report.get("cross_validation", {"mean": {}})
    header = ["metric", "value", *([f"{crossed['folds']}-fold mean", "deviation"] if crossed["mean"] else [])]
    table = []
    for name, value in metrics.items():
        scores = [f"{crossed[which][name]:.4g}" for which in ("mean", "std")] if name in crossed["mean"] else []
        table.append((NAMES[name], f"{value:.4g}", *scores))
    console = output.console()
    console.print(output.grid(f"{report['metrics']['of']} rows", header, table))
    console.print(output.pairs(_entries(report).items()))


def _entries(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return name -> text of everything but the metrics."""
    rows, seconds = report["rows"], report["seconds"]
    source = f", the rows of {report['validation']}" if "validation" in report else ""
    epochs = str(report["epochs"])
    if report["weights_of_epoch"] != report["epochs"]:
        epochs += f"; the weights are those of epoch {report['weights_of_epoch']}"
    if "networks" in report:
        epochs = f"at most {report['epochs']}, in each of {report['networks']} networks whose predictions are averaged"
    crossed = f", {seconds['cross_validation']:.2f} to cross-validate" if "cross_validation" in seconds else ""
    entries = {
        "rows": f"{rows['training']:,} to train on, {rows['validation']:,} to validate on{source}",
        "columns": f"{report['columns']} -> {report['features']} features of {report['dtype']}",
        "weights": f"column {report['weight']}" if "weight" in report else None,
        "ids": ", ".join(report["ids"]) if "ids" in report else None,
        "left out": "; ".join(f"{name!r}: {why}" for name, why in report["left_out"].items()) or None,
        "look at": "\n".join(f"{name!r} {why}" for name, why in report["notes"].items()) or None,
        report["unit"]: epochs,
        "search": _search(report["search"]) if "search" in report else None,
        "ended by": report["ended"],
        "seconds": f"{seconds['reading']:.2f} to read, {seconds['training']:.2f} to train{crossed}",
        "seed": report["seed"],
        "model": report["model"],
    }
    return {name: value for name, value in entries.items() if value is not None}


def _search(found: Mapping[str, Any]) -> str:
    """Return the line about a search."""
    trials = ", ".join(f"{n:,} {status}" for status, n in found["trials"].items())
    scores = ", ".join(f"{name} {found[f'score_of_{name}']:.4g}" for name in ("defaults", "best", "ensemble"))
    return f"trials: {trials}; scores: {scores}"


# --- options ----------------------------------------------------------------------------------------------------------


def _target(name: str | None, data: Path, file_format: str | None) -> str | None:
    """Return the column of the target; an archive calls it y."""
    ending = f".{file_format}" if file_format is not None else data.name
    return "y" if name is None and ending.lower().endswith(".npz") else name


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{option} must be one of {', '.join(choices)}, got {value!r}")
    return value


def _parameters(given: dict[str, Any], hidden: str | None, task: str, model: str) -> dict[str, Any]:
    _one_of("--model", model, MODELS)
    chosen = dict(given)
    if hidden is not None:
        try:
            sizes = () if hidden == "none" else tuple(int(size) for size in hidden.split(","))
        except ValueError:
            raise ValueError(f"--hidden must be whole numbers with commas between, or none, got {hidden!r}") from None
        chosen["hidden_layer_sizes"] = sizes
    parameters.checked(model, task, chosen)
    return chosen


def _seed(given: Mapping[str, Any]) -> int:
    """Return the seed of all draws; if none is given, draw one and report it."""
    seed = given.get("random_state")
    if seed is not None and not 0 <= seed < 2**32:
        raise ValueError(f"--random-state must be a whole number in [0, 2**32), got {seed}")
    return secrets.randbelow(2**32) if seed is None else int(seed)


def _validation(valid: str) -> tuple[float, Path | None]:
    """Return the share of validation rows, or the file that has them."""
    try:
        share = float(valid)
    except ValueError:
        if valid == "-":
            raise ValueError("--valid must be a share or a file, not standard input") from None
        return 0.0, Path(valid)
    if not 0 <= share < 1:
        raise ValueError(f"--valid must be in [0, 1), or a data file, got {valid}")
    return share, None


def _check_validation(plan: Plan) -> None:
    """Refuse folds beside validation rows, and early stopping without rows to watch."""
    if plan.parameters.get("n_cv", 1) != 1 and (plan.share or plan.validation is not None):
        raise ValueError("--n-cv validates each network on the rows of its fold: say --valid 0")
    if not plan.parameters.get("early_stopping"):
        return
    if plan.parameters.get("solver") in ("lbfgs", ["lbfgs", {}]):
        raise ValueError("--early-stopping makes no sense with --solver lbfgs, which has no epochs")
    if not plan.share and plan.validation is None and plan.parameters.get("n_cv", 1) == 1:
        raise ValueError("--early-stopping needs rows to validate on, --valid 0 leaves none: say --valid SHARE or FILE")


def _kind(text: str) -> tuple[str, str]:
    name, _, kind = text.rpartition("=")
    if not name or kind not in KINDS:
        raise ValueError(f"--kind must be COLUMN=KIND, the kind one of {', '.join(KINDS)}; got {text!r}")
    return name, kind


def _columns(source: Source, plan: Plan) -> dict[str, str]:
    """Return the columns to use and their kinds, the target last."""
    if plan.target is None:
        raise DataError(f"{plan.data}: --target must name the column to predict; it has {listed(source.kinds)}")
    weights = () if plan.weight is None else (plan.weight,)
    apart = {"--drop": plan.drop, "--id": plan.ids, "--weight": weights}
    for option, names in apart.items():
        if plan.target in names:
            raise DataError(f"{plan.data}: {option} {plan.target} is the target")
    if plan.weight in (*plan.drop, *plan.ids):
        raise DataError(f"{plan.data}: --weight {plan.weight} is a column of --drop or --id, too")
    return source.chosen(plan.target, (*plan.drop, *plan.ids, *weights), plan.kinds)


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
