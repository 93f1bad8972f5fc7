"""Writes runs of `fastmlp bench train --json FILE` into performance.md, and draws images/speed.png from it.

``python docs/speed_page.py FILE [FILE ...]`` from the root of a checkout. The first run is that of "Figures" and of the
picture; "By processor" has a row for each. ``"NAME=FILE"`` names the processor, where the system hides its family.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import speed_chart
from filling import filled, markdown

from fastmlp.bench.compare import read
from fastmlp.bench.race import best, shown
from fastmlp.bench.rivals import RIVALS
from fastmlp.bench.tables import Table, number, percent, times
from fastmlp.bench.train import numbers

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "performance.md"
PICTURE = DOCS / "images" / "speed.png"
WIDTH = 120  # of a line
LABELS = {"pytorch": "PyTorch", "jax": "JAX"}  # of rivals whose name here is not how they write it


def runs(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Return documents of the bench that have the suite `train` against rivals, from FILE or NAME=FILE.

    Raises
    ------
    ValueError
        If a file is something else, or its run has results that differ, or the first lacks what the picture shows.
    """
    found = []
    for argument in arguments:
        name, _, path = argument.rpartition("=")
        document = read(Path(path))
        if not document["suites"].get("train", {}).get("mean_ratio"):
            raise ValueError(f"{path} has no run of `fastmlp bench train` against rivals")
        if not document["same"]:
            raise ValueError(f"{path} has results that differ: {document['suites']['train']['problems']}")
        if name:
            document["environment"]["machine"]["processor"] = name
        found.append(document)
    shown = [rival for rival in RIVALS if LABELS.get(rival, rival) in speed_chart.RIVALS]
    for entry in found[0]["suites"]["train"]["workloads"]:
        for rival in shown:
            if not entry["ratio"].get(rival):
                raise ValueError(f"the first run has no time of {rival} on {entry['name']}, which the picture shows")
    return found


def machine(document: Mapping[str, Any]) -> str:
    """Return processor, cores, instruction set, and the numbers that were computed with."""
    described = document["environment"]
    settings = document["suites"]["train"]["settings"]
    cores = f"{described['cpus']} core{'s' if described['cpus'] > 1 else ''}"
    return f"{described['machine']['processor']}, {cores}, {described['isa']['chosen']}, {numbers(settings)}"


def figures(document: Mapping[str, Any]) -> str:
    """Return what the page says of one run: machine, versions, the table of all workloads, peaks."""
    result, versions = document["suites"]["train"], document["environment"]["versions"]
    found = {name: versions[name] for name in ("python", "numpy", "scikit-learn")}
    found |= {RIVALS[name].packages[0]: version for name, version in result["versions"].items() if name in RIVALS}
    settings = result["settings"]
    lead = (
        f"**{machine(document)}.** Rounds: {settings['rounds']}; each at its best of "
        f"{' and '.join(map(str, settings['threads']))} threads. "
        f"{', '.join(f'{name} {version}' for name, version in found.items() if version)}. The number after a ratio is "
        "the rival's microseconds per step. Losses and weights of all rivals agreed."
    )
    rows = [_row(entry, result["mean_ratio"]) for entry in result["workloads"]]
    means = {LABELS.get(rival, rival): times(mean) for rival, mean in result["mean_ratio"].items()}
    rows.append({"workload": "geometric mean", **means})
    peaks = "; ".join(
        f"{', '.join(f'{number(value)} with {n}' for n, value in by_threads.items())} ({kernels} kernels of the BLAS)"
        for kernels, by_threads in result["peak_gflops"].items()
    )
    below = f"Peak of the same run, GFLOP/s of a large product by threads: {peaks}."
    return "\n\n".join([fill(lead, WIDTH), markdown(Table.of("", rows)), fill(below, WIDTH)])


def _row(entry: Mapping[str, Any], rivals: Sequence[str]) -> dict[str, str]:
    """Return the cells of a workload."""
    records, ours = entry["rivals"], best(entry["rivals"]["fastmlp"])
    ratios = {
        LABELS.get(rival, rival): f"{times(entry['ratio'][rival])} ({shown(records[rival])})"
        if entry["ratio"][rival]
        else records[rival]["status"]
        for rival in rivals
    }
    kind = [word for word, default in ((entry["activation"], "relu"), (entry["solver"], "adam")) if word != default]
    name = f"{entry['name']} ({', '.join(kind)})" if kind else entry["name"]
    shares = {"GFLOP/s": number(ours.get("gflops")), "of peak": percent(ours.get("peak_fraction"))}
    return {"workload": name, "fastmlp, us a step": shown(records["fastmlp"]), **ratios, **shares}


def by_processor(documents: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row per run: processor, cores, our ratio to each rival and to the best one, the least workload."""
    results = [document["suites"]["train"] for document in documents]
    rivals = [rival for rival in RIVALS if any(result["mean_ratio"].get(rival) for result in results)]
    rows = []
    for document, result in zip(documents, results, strict=True):
        described = document["environment"]
        known = [entry for entry in result["workloads"] if entry["ratio_to_best"]]
        least = min(known, key=lambda entry: entry["ratio_to_best"])
        rows.append(
            {
                "processor": described["machine"]["processor"],
                "cores": str(described["cpus"]),
                "instruction set": described["isa"]["chosen"],
                "numbers": numbers(result["settings"]),
                **{LABELS.get(rival, rival): times(result["mean_ratio"].get(rival)) for rival in rivals},
                "best rival": times(result["mean_ratio_to_best"]),
                "least workload": f"{least['name']} {times(least['ratio_to_best'])}",
            }
        )
    return Table.of("", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", metavar="FILE", nargs="+")
    try:
        documents = runs(parser.parse_args().files)
    except ValueError as error:
        parser.error(str(error))
    page = filled(PAGE.read_text(encoding="utf-8"), "figures", figures(documents[0]))
    page = filled(page, "processors", markdown(by_processor(documents)))
    PAGE.write_text(page, encoding="utf-8")
    speed_chart.draw(PICTURE, page)


if __name__ == "__main__":
    main()
