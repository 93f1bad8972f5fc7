"""Feature blocks as a textbook states them: rows of X -> a0, what the first layer of the reference engine reads.

Where it sits: reference.py calls it for networks with ``inputs``.  It restates shapes, forward and backward of each
kind of block, and imports nothing from feature_table.py, because it is a part of the judge.

A block reads columns of X and makes d = ``block.size`` numbers for each of its F features.  Names of axes: r row,
f feature, m wave, d number that is made, j bin.

Sources: Gorishniy et al. 2022, arXiv:2203.05556 (periodic and piecewise-linear); Holzmueller et al. 2024,
arXiv:2407.04491; Gorishniy et al. 2024, arXiv:2410.24210.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
Arrays = dict[str, np.ndarray]


# --- plain: e = x ------------------------------------------------------------------------------------------------


def _plain(block: Any, X: Array, arrays: Arrays) -> Array:
    return X[:, block.columns]


# --- periodic ----------------------------------------------------------------------------------------------------
#
#   u_rfm = 2 pi x_rf w_fm + p_fm          w, p: (F, m)
#   e_rfd = sum_m cos(u_rfm) V_fdm + b_fd  V: (F, d, m), b: (F, d)
#
#   dV = sum_r delta cos(u),  db = sum_r delta,  du = -sin(u) sum_d delta V,  dp = sum_r du,  dw = sum_r 2 pi x du


def _periodic_shapes(block: Any) -> dict[str, tuple[int, ...]]:
    n, m, d = len(block.columns), block.frequencies, block.size
    return {
        "periodic_frequency": (n, m),
        "periodic_phase": (n, m),
        "periodic_weight": (n, d * m),
        "periodic_bias": (n, d),
    }


def _waves(block: Any, X: Array, arrays: Arrays) -> tuple[Array, Array, Array]:
    """-> x (n, F, 1), u (n, F, m), V (F, d, m)."""
    x = X[:, block.columns, None]
    u = 2 * np.pi * x * arrays["periodic_frequency"] + arrays["periodic_phase"]
    return x, u, arrays["periodic_weight"].reshape(len(block.columns), block.size, block.frequencies)


def _periodic(block: Any, X: Array, arrays: Arrays) -> Array:
    _, u, V = _waves(block, X, arrays)
    return np.einsum("rfm,fdm->rfd", np.cos(u), V) + arrays["periodic_bias"]


def _periodic_backward(block: Any, X: Array, arrays: Arrays, delta: Array) -> Arrays:
    x, u, V = _waves(block, X, arrays)
    du = -np.sin(u) * np.einsum("rfd,fdm->rfm", delta, V)
    return {
        "periodic_frequency": np.sum(2 * np.pi * x * du, axis=0),
        "periodic_phase": np.sum(du, axis=0),
        "periodic_weight": np.einsum("rfd,rfm->fdm", delta, np.cos(u)),
        "periodic_bias": np.sum(delta, axis=0),
    }


# --- piecewise ---------------------------------------------------------------------------------------------------
#
# t_rf is the place of x_rf among the bins of its feature: the knots are the whole numbers.
#
#   c_rfj = t_rf - j within 0 .. 1; the first bin has no bound below, the last one none above
#   e_rfd = x_rf w_fd + b_fd + sum_j c_rfj V_fjd    w, b: (F, d), V: (bins of f, d), one feature below the other
#
#   dw = sum_r x delta,  db = sum_r delta,  dV = sum_r c delta


def _piecewise_shapes(block: Any) -> dict[str, tuple[int, ...]]:
    n, d = len(block.columns) // 2, block.size
    return {"piecewise_weight": (n, d), "piecewise_bias": (n, d), "piecewise_bins": (sum(block.counts), d)}


def _places(block: Any, X: Array) -> tuple[Array, list[Array]]:
    """-> x (n, F, 1), and c (n, bins) of each feature."""
    n_features = len(block.columns) // 2
    shares = []
    for column, count in zip(block.columns[n_features:], block.counts, strict=True):
        j = np.arange(count, dtype=X.dtype)
        shares.append(
            np.clip(X[:, column, None] - j, np.where(j == 0, -np.inf, 0), np.where(j == count - 1, np.inf, 1))
        )
    return X[:, block.columns[:n_features], None], [c.astype(X.dtype) for c in shares]


def _piecewise(block: Any, X: Array, arrays: Arrays) -> Array:
    x, shares = _places(block, X)
    bins = np.split(arrays["piecewise_bins"], np.cumsum(block.counts)[:-1])
    e = x * arrays["piecewise_weight"] + arrays["piecewise_bias"]
    return e + np.stack([c @ V for c, V in zip(shares, bins, strict=True)], axis=1)


def _piecewise_backward(block: Any, X: Array, arrays: Arrays, delta: Array) -> Arrays:
    x, shares = _places(block, X)
    return {
        "piecewise_weight": np.sum(x * delta, axis=0),
        "piecewise_bias": np.sum(delta, axis=0),
        "piecewise_bins": np.concatenate([c.T @ delta[:, f] for f, c in enumerate(shares)]),
    }


# --- embedding ---------------------------------------------------------------------------------------------------
#
#   e_rf = V_f[code_rf]    V_f: (categories of f, d), one feature below the other
#
#   dV_f[c] = sum of delta_rf over the rows whose code is c


def _embedding_shapes(block: Any) -> dict[str, tuple[int, ...]]:
    return {"embedding": (sum(block.counts), block.size)}


def _rows_of_tables(block: Any, X: Array) -> Array:
    """-> the rows (n, F) of V to which the codes lead."""
    return X[:, block.columns].astype(np.intp) + (np.cumsum(block.counts) - block.counts)


def _embedding(block: Any, X: Array, arrays: Arrays) -> Array:
    return arrays["embedding"][_rows_of_tables(block, X)]


def _embedding_backward(block: Any, X: Array, arrays: Arrays, delta: Array) -> Arrays:
    grad = np.zeros_like(arrays["embedding"])
    np.add.at(grad, _rows_of_tables(block, X), delta)
    return {"embedding": grad}


# --- the table, and all blocks together --------------------------------------------------------------------------


class Kind(NamedTuple):
    """A kind of blocks."""

    shapes: Callable  # block -> {array: shape}, in the order of the flat vector
    forward: Callable  # (block, X, arrays) -> e (n, F, d), or (n, F) where d is 1
    backward: Callable  # (block, X, arrays, delta (n, F, d)) -> {array: sum over the rows of d loss / d array}


KINDS = {
    "plain": Kind(lambda block: {}, _plain, lambda block, X, arrays, delta: {}),
    "periodic": Kind(_periodic_shapes, _periodic, _periodic_backward),
    "piecewise": Kind(_piecewise_shapes, _piecewise, _piecewise_backward),
    "embedding": Kind(_embedding_shapes, _embedding, _embedding_backward),
}


def shapes(block: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a block's arrays, in the order of the flat vector."""
    return KINDS[block.kind].shapes(block)


def n_columns(blocks: Any) -> int:
    """Return the number of columns of X that the blocks need."""
    return 1 + max(column for block in blocks for column in block.columns)


def forward(blocks: Any, X: Array, arrays: list[Arrays]) -> Array:
    """Compute a0 (n, widths[0]): what the blocks make, side by side, each feature by feature.

    ``arrays``: of each block.
    """
    made = [KINDS[block.kind].forward(block, X, own) for block, own in zip(blocks, arrays, strict=True)]
    return np.concatenate([e.reshape(len(X), -1) for e in made], axis=1)


def backward(blocks: Any, X: Array, arrays: list[Arrays], delta: Array) -> list[Arrays]:
    """Compute the sums over the rows of d loss / d array, of each block, from delta = d loss / d a0."""
    found, start = [], 0
    for block, own in zip(blocks, arrays, strict=True):
        n_features = len(block.columns) // (2 if block.kind == "piecewise" else 1)
        width = n_features * block.size
        piece = delta[:, start : start + width].reshape(len(X), n_features, block.size)
        found.append(KINDS[block.kind].backward(block, X, own, piece))
        start += width
    return found
