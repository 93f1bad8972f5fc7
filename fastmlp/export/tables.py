"""What the ONNX export reads from an estimator for tables: its coders, its networks, and the inputs that it needs.

First step of the export of tables; onnx_columns.py writes the coders as nodes, onnx_members.py the networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastmlp.data import targets
from fastmlp.export.model import Fitted, check_range, checked_dtype, described
from fastmlp.model import weights
from fastmlp.model.network import Network
from fastmlp.preprocessing.coder import ColumnCoder
from fastmlp.preprocessing.learned import Categorical


class Input(NamedTuple):
    """An input of the graph: a column of the table, or all of it if it is an array of numbers."""

    name: str
    kind: str  # "number", "text", or "int": categories that are whole numbers
    columns: tuple[int, ...]


@dataclass(frozen=True)
class TableNetwork:
    """A network, and the coder that makes the matrix that it reads."""

    coder: ColumnCoder
    network: Network
    params: np.ndarray  # (n_params,)


@dataclass(frozen=True)
class TableModel(Fitted):
    """A fitted estimator for tables as it predicts."""

    networks: tuple[TableNetwork, ...]  # whose outputs are averaged
    inputs: tuple[Input, ...]
    number_dtype: np.dtype  # of the inputs that are numbers
    target_range: np.ndarray | None  # (2, n_outputs), if predictions stay within it

    @property
    def widths(self) -> tuple[int, ...]:
        """(n_features, *hidden, n_outputs)."""
        first = self.networks[0]
        return (first.coder.n_features_in_, *first.network.widths[1:])

    @property
    def activations(self) -> tuple[Any, ...]:
        """Those of the hidden layers."""
        return self.networks[0].network.activations

    @property
    def n_params(self) -> int:
        """Number of weights of all networks."""
        return sum(each.network.n_params for each in self.networks)


def read(estimator: Any, dtype: Any = None) -> TableModel:
    """Return a fitted estimator for tables as a TableModel, in a dtype by name or in its own.

    A ValueError says that the dtype cannot hold the weights, or that the columns make no inputs of a graph; a TypeError
    refuses labels that are neither numbers nor text.
    """
    check_is_fitted(estimator)
    networks = []
    for member in vars(estimator).get("estimators_", [estimator]):
        network = member._fitted_network()
        networks.append(TableNetwork(member.coder_, network, weights.flat_params(member, network)))
    own = networks[0].network.dtype
    wanted = checked_dtype(dtype, own)
    check_range((each.params for each in networks), wanted, "the weights")
    task = "regression"
    if hasattr(estimator, "_label_binarizer"):  # two classes have two outputs
        task = "multilabel" if targets.task_of(estimator._label_binarizer) == "multilabel" else "multiclass"
    return TableModel(
        networks=tuple(networks),
        inputs=inputs_of([each.coder for each in networks]),
        # coders compute in float64: rounded to float32, a number may lie on the other side of a quantile
        number_dtype=np.dtype(np.float64) if dtype is None else wanted,
        target_range=vars(estimator).get("target_range_"),
        **described(estimator, task, wanted),
    )


def inputs_of(coders: Sequence[ColumnCoder]) -> tuple[Input, ...]:
    """Return the inputs for the tables that these coders read; a ValueError says which column can be none."""
    kinds = [_kind([coder.columns[i] for coder in coders]) for i in range(coders[0].n_features_in_)]
    names = getattr(coders[0], "feature_names_in_", None)
    if names is None and "text" not in kinds:
        return (Input("X", "number", tuple(range(len(kinds)))),)
    names = [f"x{i}" for i in range(len(kinds))] if names is None else names.tolist()
    for i, name in enumerate(names):
        if not name or name in names[:i] or not _is_utf8(name):
            raise ValueError(
                f"column {i} of the table has the name {name!r}, but an input of ONNX needs a name of its own, in UTF-8"
            )
    return tuple(Input(name, kind or "text", (i,)) for i, (name, kind) in enumerate(zip(names, kinds, strict=True)))


def _kind(columns: Sequence[Any]) -> str:
    """Return what a column, as several coders know it, has as its input; "" if it has no category that could tell."""
    if not isinstance(columns[0], Categorical):
        return "number"
    values = [value for column in columns for value in column.categories]
    if any(column.most_frequent is not None for column in columns):
        raise ValueError("categories that replace missing ones cannot be exported: ONNX's texts are never missing")
    for value in values:
        if isinstance(value, str) and not _is_utf8(value):
            raise ValueError(f"the category {value!r} is no text in UTF-8, as ONNX needs it")
    if not values or isinstance(values[0], str):
        return "text" if values else ""
    return "int" if all(isinstance(value, int) and abs(value) < 2**63 for value in values) else "number"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
