"""The console script `fastmlp`: parse options, call benchmark.py or environment.py, print tables.

The outermost layer and the only file that imports typer and rich. Nothing is computed here.

Exit codes: 0 all well, 1 the results of a benchmark differ, 2 wrong usage or an output file that
cannot be written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastmlp import benchmark

DIFFERENT = 1
WRONG_USAGE = 2

WIDTH = 100  # of the widest table

app = typer.Typer(
    name="fastmlp",
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


# --- options --------------------------------------------------------------------------------------


def _version(wanted: bool) -> None:
    if wanted:
        from fastmlp import __version__

        typer.echo(f"fastmlp {__version__}")
        raise typer.Exit


def _one_of(choices: Collection[str]) -> Callable[[list[str] | None], list[str]]:
    """A callback that lets only the given names through."""

    def check(values: list[str] | None) -> list[str]:
        for value in values or []:
            if value not in choices:
                raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}.")
        return list(values or [])

    return check


def _output_file(path: Path | None) -> Path | None:
    """Refuse a path that cannot be written before minutes are spent on what should go there."""
    if path is None or str(path) == "-":
        return path
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder.")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {folder}.")
    if not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"the folder {folder} is not writable.")
    return path


def _known_backend(name: str) -> str:
    from fastmlp import backends

    try:
        backends.get(name)
    except (ValueError, ImportError) as error:
        raise typer.BadParameter(str(error)) from None
    return name


JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        callback=_output_file,
        help="Write the results to FILE as JSON too; - for standard output, without the table.",
    ),
]


@app.callback()
def fastmlp(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Multi-layer perceptrons for scikit-learn users, compiled.

    Try `fastmlp bench`, or `fastmlp bench --help` for examples.
    """


# --- fastmlp bench --------------------------------------------------------------------------------


@app.command()
def bench(
    data: Annotated[
        list[str] | None,
        typer.Option(
            callback=_one_of(benchmark.DATA),
            metavar="NAME",
            help=f"Only this data set, may be repeated: {', '.join(benchmark.DATA)}.",
        ),
    ] = None,
    solver: Annotated[
        list[str] | None,
        typer.Option(
            callback=_one_of(benchmark.SOLVERS),
            metavar="NAME",
            help=f"Only this solver, may be repeated: {', '.join(benchmark.SOLVERS)}.",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed fits of each, after one that is only compared.")] = 5,
    threads: Annotated[
        int,
        typer.Option(min=1, help="Threads of each, BLAS included; nets of this size are fastest with one."),
    ] = 1,
    backend: Annotated[str, typer.Option(callback=_known_backend, metavar="NAME", help="Engine of fastmlp.")] = "auto",
    json_file: JsonFile = None,
) -> None:
    """Train scikit-learn's MLPs and ours on the same data and compare results, then times.

    Same data, same parameters, same random_state, float64. A row shows times only if both ended
    with the same weights after the same number of epochs; otherwise the command exits with 1.

    Examples:

        fastmlp bench
        fastmlp bench --data iris --data digits --solver adam
        fastmlp bench --repeats 9 --json results.json
    """
    cases = benchmark.select(data or (), solver or ())
    if not cases:
        _fail("no case has both this data set and this solver.", WRONG_USAGE)
    settings = {"repeats": repeats, "backend": backend, "threads": threads}
    rows = _run_all(cases, settings)

    from fastmlp import environment

    document = benchmark.document(rows, settings=settings, environment=environment.describe())
    if str(json_file) != "-":
        console = _console()
        console.print(_bench_table(rows))
        console.print(*_bench_notes(document), "", sep="\n", markup=False)
        console.print(_environment_table(document["environment"]))
    _write_json(json_file, document)
    for row in rows:
        for problem in row.comparison.problems:
            case = row.case
            typer.echo(f"{case.data}, {case.solver}: results differ: {problem}", err=True)
    if not document["same"]:
        raise typer.Exit(DIFFERENT)


def _run_all(cases: Sequence[benchmark.Case], settings: Mapping[str, Any]) -> list[benchmark.Row]:
    """Run the cases; where standard error is a terminal, a line there says which one is running."""
    rows = []
    with Console(stderr=True).status("", spinner="line") as status:
        for i, case in enumerate(cases, start=1):
            status.update(f"{i} of {len(cases)}: {case.data}, {case.solver}")
            rows.append(benchmark.run(case, **settings))
    return rows


def _bench_table(rows: Sequence[benchmark.Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("data", no_wrap=True)
    table.add_column("n x d", justify="right", no_wrap=True)
    table.add_column("layers", no_wrap=True)
    table.add_column("solver", no_wrap=True)
    for name in ("scikit-learn s", "fastmlp s", "ratio", "score", "score", "weight diff"):
        table.add_column(name.replace(" ", "\n"), justify="right")
    for row in rows:
        times = [_number(row.median(rival), ".4f") for rival in benchmark.RIVALS]
        scores = [_number(row.score[rival], ".3f") for rival in benchmark.RIVALS]
        difference = _number(row.comparison.weight_diff, ".1e")
        table.add_row(
            row.case.data,
            f"{row.n_samples} x {row.layers[0]}",
            "-".join(map(str, row.layers)),
            row.case.solver,
            *times,
            _number(row.ratio, ".1f", "x"),
            *scores,
            difference if row.comparison.same else f"[bold red]{difference}[/]",
        )
    return table


def _number(value: float | None, spec: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{spec}}{unit}"


def _bench_notes(document: Mapping[str, Any]) -> list[str]:
    """The lines under the table: what its columns mean and what it was measured on."""
    changes = "; ".join(
        f"{solver} {', '.join(f'{k}={v}' for k, v in params.items())}"
        for solver, params in benchmark.SOLVERS.items()
        if params
    )
    settings = document["settings"]
    mean = _number(document["mean_ratio"], ".1f", "x")
    return [
        f"ratio: times faster than scikit-learn; geometric mean {mean}.",
        f"s: median seconds of a whole fit. Interleaved rounds: {settings['repeats']}. "
        f"Threads of each: {settings['threads']}.",
        "score: accuracy or R2 on the training data.",
        "weight diff: largest difference relative to the largest weight. More than "
        f"{benchmark.TOLERANCE:.0e} is an error,",
        "and so are other predictions or another number of epochs.",
        "parameters: float64, the defaults, but for layers and random_state=0,",
        f"and {changes}.",
    ]


# --- fastmlp info ---------------------------------------------------------------------------------


@app.command()
def info(json_file: JsonFile = None) -> None:
    """Print version, engines, instruction set, threads and BLAS: what to put in a bug report.

    Examples:

        fastmlp info
        fastmlp info --json -
    """
    from fastmlp import environment

    described = environment.describe()
    if str(json_file) != "-":
        _console().print(_environment_table(described))
    _write_json(json_file, described)


def _environment_table(described: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _environment_lines(described):
        table.add_row(name, Text(value))
    return table


def _environment_lines(described: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of each line about an environment.describe()."""
    versions, machine, isa = (described[key] for key in ("versions", "machine", "isa"))
    variables = [f"{name}={value}" for name, value in described["variables"].items()]
    lines = [
        ("fastmlp", versions["fastmlp"]),
        ("versions", ", ".join(f"{k} {v}" for k, v in versions.items() if k != "fastmlp")),
        ("machine", f"{machine['processor']}, {machine['system']}"),
        ("threads", ", ".join([f"{described['cpus']} usable cores", *variables])),
    ]
    for name, engine in described["engines"].items():
        usable = "available" if engine["available"] else f"not available: {engine['reason']}"
        lines.append((f"engine {name}", usable))
    usable = ", ".join(isa["usable"])
    lines.append(("instruction set", f"{isa['chosen']} (of {usable})" if usable else "none"))
    for pool in described["blas"]:
        words = [
            pool["internal_api"],
            pool.get("version"),
            pool.get("architecture"),
            f"{pool['num_threads']} threads",
        ]
        label = "BLAS" if pool["user_api"] == "blas" else pool["user_api"]
        lines.append((label, " ".join(str(word) for word in words if word)))
    return lines


# --- output ---------------------------------------------------------------------------------------


def _console() -> Console:
    """Standard output, never so narrow that a table would lose its digits."""
    console = Console(highlight=False)
    narrow = console.width < WIDTH or not console.is_terminal
    return Console(highlight=False, width=WIDTH) if narrow else console


def _write_json(path: Path | None, document: Mapping[str, Any]) -> None:
    if path is None:
        return
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    from fastmlp.files import write_whole

    try:
        write_whole(path, text)
    except OSError as error:
        _fail(f"cannot write {path}: {error.strerror or error}.", WRONG_USAGE)


def _fail(message: str, code: int) -> None:
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
