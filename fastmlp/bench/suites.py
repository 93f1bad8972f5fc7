"""The table of suites, and one document for a run of some of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from fastmlp.bench.race import Run, Tell
from fastmlp.bench.settings import Settings
from fastmlp.data.files import as_json, write_whole

SUITES: Mapping[str, str] = {
    "quick": "whole fits against scikit-learn's, float64, on the data sets that it ships",
    "train": "time of a training step, all rivals",
    "predict": "class probabilities of one row and of many",
    "cold": "first import and first fit",
    "many": "hundreds of small nets, as searches train them and by jax.vmap; a grid search to its end",
    "scaling": "time and memory from 10^4 to 10^7 rows",
    "options": "what activations, solvers and regularizers cost over the plain network",
    "precision": "what matmul_precision gains in time and costs in exactness, and where fits end",
    "tabular": "errors and times of whole estimators at their defaults, on tables that packages ship; takes hours",
    "cuda": "time of a training step on a GPU, against PyTorch's and JAX's, with the device's peaks",
}
ALL = "all"
ONLY_BY_NAME = ("tabular",)
SCHEMA = 2


def names(suite: str) -> tuple[str, ...]:
    """Return the suites that a name on the command line means."""
    return tuple(name for name in SUITES if name not in ONLY_BY_NAME) if suite == ALL else (suite,)


def module(suite: str) -> ModuleType:
    return importlib.import_module(f"fastmlp.bench.{suite}")


def why_not(suite: str) -> str | None:
    """Return what a suite needs and this machine lacks, or None."""
    reason = getattr(module(suite), "why_not", None)
    return reason() if reason else None


def run(
    suites: tuple[str, ...], options: Mapping[str, Settings], tell: Tell, skipped: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run the suites; return environment, one result per suite and the figures to compare, ready for JSON.

    `skipped` says why suites that were asked for are not among these.
    """
    from fastmlp.engines import environment

    described = environment.describe()
    results: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        return _document(described, results, skipped or {})

    for name in suites:
        suite = module(name)
        rounds = getattr(suite, "ENGINE_ROUNDS", suite.ROUNDS) if options[name].engines else suite.ROUNDS
        settings = options[name].of_suite(rounds)
        run = Run(name, settings, tell, held=settings.held["suites"].get(name) if settings.held else None)

        def keep(result: Mapping[str, Any], run: Run = run) -> None:
            results[run.suite] = {"settings": run.settings.shown(), **result, "problems": run.problems}
            if run.settings.results is not None:
                write_whole(run.settings.results, as_json(document()))

        run.keep = keep
        keep(suite.run(run))
    return document()


def _document(described: Mapping[str, Any], results: Mapping[str, Any], skipped: Mapping[str, str]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "environment": described,
        "same": not any(result["problems"] for result in results.values()),
        "suites": dict(results),
        "skipped": dict(skipped),
        "figures": {f"{name}: {key}": value for name in results for key, value in results[name]["figures"].items()},
    }


def skipped(suite: str, reason: str) -> str:
    """Return the line that says that a suite was skipped."""
    return f"skipped: {suite}: {reason}"


def problems(document: Mapping[str, Any]) -> list[str]:
    """Return one line per result that differs or process that failed."""
    return [line for result in document["suites"].values() for line in result["problems"]]
