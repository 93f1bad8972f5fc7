"""`fastmlp export`: a model file -> ONNX or C, the scaling of its columns folded into the first layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from fastmlp.cli import output
from fastmlp.cli.arguments import JsonFile, ModelFile, Quiet, regular_file
from fastmlp.cli.files import guarded
from fastmlp.tabular.columns import Boolean, Categorical, Column, Numeric, feature_names, in_order
from fastmlp.tabular.recipe import has_coder, load, networks_of


def export(
    model: ModelFile,
    onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", callback=regular_file, help="Write an ONNX model.")
    ] = None,
    c: Annotated[Path | None, typer.Option(metavar="FILE", callback=regular_file, help="Write a C99 file.")] = None,
    name: Annotated[str, typer.Option(help="C: what all names in the file begin with.")] = "model",
    json_file: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Convert a model file to ONNX, to C, or both.

    A network of --model mlp takes a matrix of numbers, which the command lists in their order: each numeric column as
    it is in the data, since its scaling becomes part of the first layer; 0 or 1 for false or true; and for each text a
    0 or 1 per category. Missing values must be replaced before, by the values that the list shows.

    Those of --model realmlp and tabm, for ONNX alone, take one input per column, by its name: numbers, NaN where they
    are missing, and texts as they are in the data.

    Examples:

        fastmlp export wine.safetensors --onnx wine.onnx

        fastmlp export wine.safetensors --c wine.c --name wine
    """
    outputs = {"--onnx": onnx, "--c": c, "--json": json_file}
    with output.one_line_errors(), guarded({"MODEL": model}, outputs):
        if onnx is None and c is None:
            raise ValueError("nothing to write: say --onnx FILE, --c FILE, or both")
        estimator, recipe = load(model, needed=False)
        columns = [] if recipe is None else recipe.columns
        is_table = has_coder(estimator)
        converted = with_names(estimator, columns) if is_table else unscaled(estimator, columns)
        if onnx is not None:
            from fastmlp.export.onnx import to_onnx

            to_onnx(converted, onnx)
        if c is not None:
            from fastmlp.export.c import to_c

            to_c(converted, c, name=name)
    listed = inputs_of_table(converted) if is_table else inputs(columns)
    if not quiet and str(json_file) != "-":
        rows = [(i, entry["name"], entry["value"], _missing(entry)) for i, entry in enumerate(listed)]
        output.console().print(output.grid("inputs", ["place", "feature", "value", "if missing"], rows))
    output.write_json(json_file, {"schema": 1, "model": str(model), "inputs": listed})


def _missing(entry: Mapping[str, Any]) -> str:
    value = entry["if_missing"]
    return value if isinstance(value, str) else f"{value:g}"


def with_names(estimator: Any, columns: Sequence[Column]) -> Any:
    """Return a copy of an estimator for tables that takes the columns of the data, if it was trained on their codes."""
    if not columns:
        return estimator
    named = deepcopy(estimator)
    coders: dict[int, Any] = {}  # networks of a fold share one
    for network in networks_of(named):
        coder = network.coder_
        if id(coder) not in coders:
            coders[id(coder)] = coder, _with_texts(coder, columns)
        network.coder_ = coders[id(coder)][1]
    named.feature_names_in_ = np.array([column.name for column in columns], object)
    return named


def _with_texts(coder: Any, columns: Sequence[Column]) -> Any:
    """Return a coder of texts in place of one of their codes."""
    learned = [
        replace(of_codes, categories=tuple(column.categories[int(code)] for code in of_codes.categories))
        if isinstance(column, Categorical)
        else of_codes
        for of_codes, column in zip(coder.columns, columns, strict=True)
    ]
    return type(coder).of_columns(learned, [column.name for column in columns], **coder.to_state()["options"])


def inputs_of_table(estimator: Any) -> list[dict[str, Any]]:
    """Return the inputs of an estimator for tables, in their order."""
    from fastmlp.export.tables import inputs_of

    kinds = {
        "number": ("the number; 1 or 0 for true or false", "NaN"),
        "text": ("the text", "any that is no category"),
        "int": ("the whole number", "any that is no category"),
    }
    found = inputs_of([network.coder_ for network in networks_of(estimator)])
    return [dict(zip(("name", "value", "if_missing"), (each.name, *kinds[each.kind]), strict=True)) for each in found]


def unscaled(estimator: Any, columns: Sequence[Column]) -> Any:
    """Return a copy that takes numeric columns as they are in the data: the first layer does their scaling."""
    folded = deepcopy(estimator)
    classes = getattr(folded, "classes_", None)
    networks = {id(network): network for network in networks_of(folded)}.values()  # one may be there several times
    if classes is not None and classes.dtype == bool:  # labels of exported models are whole numbers or texts
        for network in (folded, *networks):
            network.classes_ = classes.astype(np.int64)
    numeric = [column for column in in_order(columns) if isinstance(column, Numeric)]
    if not numeric:
        return folded
    # numbers come first; x W + b with x = (raw - mean) / scale is raw (W / scale) + (b - (mean / scale) W)
    mean = np.array([column.mean for column in numeric])
    scale = np.array([column.scale for column in numeric])
    for network in networks:
        W = network.coefs_[0][: len(numeric)].astype(np.float64) / scale[:, None]
        network.intercepts_[0][...] = network.intercepts_[0].astype(np.float64) - mean @ W
        network.coefs_[0][: len(numeric)] = W
    return folded


def inputs(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return the inputs of the converted network, in their order."""
    listed: list[dict[str, Any]] = []
    for column in in_order(columns):
        if isinstance(column, Numeric):
            listed.append({"name": column.name, "value": "the number", "if_missing": column.median})
        elif isinstance(column, Boolean):
            listed.append({"name": column.name, "value": "1 if true, else 0", "if_missing": column.most_frequent})
        elif isinstance(column, Categorical):
            for i, feature in enumerate(feature_names([column])):
                value = f"1 if {column.categories[i]!r}, else 0"
                listed.append({"name": feature, "value": value, "if_missing": int(i == column.most_frequent)})
    return listed
