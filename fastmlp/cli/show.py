"""`fastmlp show`: what is in a model file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import typer

from fastmlp.cli import output
from fastmlp.cli.arguments import JsonFile, ModelFile
from fastmlp.cli.files import guarded
from fastmlp.cli.fitting import NAMES
from fastmlp.tabular.columns import Categorical, Column, Numeric, to_json
from fastmlp.tabular.recipe import Recipe, load, networks_of


def show(model: ModelFile, json_file: JsonFile = None) -> None:
    """Print the network, the columns, the parameters and the training of a model file.

    Examples:

        fastmlp show wine.safetensors

        fastmlp show wine.safetensors --json -
    """
    with output.one_line_errors(), guarded({"MODEL": model}, {"--json": json_file}):
        estimator, recipe = load(model, needed=False)
        document = described(estimator, recipe)
    if str(json_file) != "-":
        _print(estimator, recipe, document)
    output.write_json(json_file, document)


def described(estimator: Any, recipe: Recipe | None) -> dict[str, Any]:
    """Return everything about a model file, for JSON."""
    networks = [_network(member) for member in networks_of(estimator)]
    document: dict[str, Any] = {
        "schema": 1,
        "estimator": type(estimator).__name__,
        **({"network": networks[0]} if len(networks) == 1 else {"networks": networks}),
        "parameters": {name: _plain(value) for name, value in changed(estimator).items()},
    }
    if recipe is not None:
        document |= {
            "columns": to_json(recipe.columns),
            "features": recipe.features,
            "target": recipe.target,
            "training": dict(recipe.training),
        }
    return document


def _network(estimator: Any) -> dict[str, Any]:
    from fastmlp import summary

    described = summary(estimator)
    return {"n_params": described.n_params, "layers": [asdict(layer) for layer in described.layers]}


def changed(estimator: Any) -> dict[str, Any]:
    """Return the parameters whose values differ from their defaults."""
    defaults = type(estimator)().get_params(deep=False)
    given = estimator.get_params(deep=False)
    return {name: value for name, value in given.items() if repr(value) != repr(defaults[name])}


def _print(estimator: Any, recipe: Recipe | None, document: Mapping[str, Any]) -> None:
    from fastmlp import summary

    console = output.console()
    if "network" in document:
        typer.echo(f"{summary(networks_of(estimator)[0])}\n")
    else:
        networks = [(str(i), *_row(member)) for i, member in enumerate(networks_of(estimator))]
        typer.echo(f"{document['estimator']}: the mean over {len(networks)} networks\n")
        console.print(output.grid("", ["network", "neurons", "parameters", "epochs"], networks), "")
    if document["parameters"]:
        console.print(output.pairs(document["parameters"].items()), "")
    if recipe is None:
        return
    rows = [(column.name, column.kind, _details(column)) for column in recipe.columns]
    title = f"{len(rows)} columns -> {len(recipe.features)} features; target: {recipe.target}"
    console.print(output.grid(title, ["column", "kind", "training rows"], rows))
    console.print(output.pairs(_history(recipe.training).items()))


def _row(network: Any) -> tuple[str, str, str]:
    """Return neurons, number of parameters, and epochs of a network in an ensemble."""
    found = _network(network)
    neurons = " ".join(str(W.shape[-1]) for W in network.coefs_)
    return neurons, f"{found['n_params']:,}", str(network.n_iter_)


def _details(column: Column) -> str:
    if isinstance(column, Numeric):
        return f"mean {column.mean:.6g}, deviation {column.scale:.6g}, median {column.median:.6g}"
    if isinstance(column, Categorical):
        return ", ".join(column.categories[:8]) + (
            f" and {len(column.categories) - 8} more" * (len(column.categories) > 8)
        )
    return f"mostly {'true' if column.most_frequent else 'false'}"


def _history(training: Mapping[str, Any]) -> dict[str, str]:
    """Return one line for each thing that the file says about its training; it may say anything."""
    lines: dict[str, str] = {}
    for name, value in training.items():
        text = _short(value)
        if text:
            lines[str(name)] = text
    return lines


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = (
            (name, f"({_short(entry)})" if isinstance(entry, Mapping) else _short(entry))
            for name, entry in value.items()
        )
        return ", ".join(f"{NAMES.get(str(name), name)} {text}" for name, text in inner)
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """Return a parameter as JSON, or as text if JSON has no form for it."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    plain = value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and abs(value) < 1e300)
    return value if plain else str(value)
