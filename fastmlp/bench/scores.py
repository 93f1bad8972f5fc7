"""Errors of many rivals on many tables -> ranks, normalised errors, ratios, and a test of two rivals.

An error is 1 - accuracy, or the root mean squared error over the standard deviation of the table's targets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.05  # below this p a difference on one table counts


def mean_ranks(errors: np.ndarray) -> np.ndarray:
    """Return each rival's rank, its mean over tables: 1 has the lowest error; ties share the mean of their ranks.

    Parameters
    ----------
    errors : ndarray (n_tables, n_rivals)
        Means over splits.
    """
    return stats.rankdata(errors, axis=1).mean(axis=0)


def normalised(errors: np.ndarray) -> np.ndarray:
    """Return each rival's normalised error, its mean over tables: (e - lowest) / (median - lowest), at most 1.

    Parameters
    ----------
    errors : ndarray (n_tables, n_rivals)
        Means over splits. The lowest and the median are those of a table's rivals.
    """
    lowest = errors.min(axis=1, keepdims=True)
    above = errors - lowest
    room = np.median(errors, axis=1, keepdims=True) - lowest
    # where half of the rivals are the best, all others are beyond the median
    shares = np.divide(above, room, out=np.where(above > 0, 1.0, 0.0), where=room > 0)
    return np.minimum(shares, 1.0).mean(axis=0)


def ratios(errors: np.ndarray, reference: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """Return the geometric mean over tables of each rival's error over the reference's.

    Parameters
    ----------
    errors : ndarray (n_tables, n_rivals)
    reference : ndarray (n_tables,)
    floors : ndarray (n_tables,)
        Errors below count as this: one without any mistake has no ratio.
    """
    lowest = floors[:, None]
    return np.exp(np.mean(np.log(np.maximum(errors, lowest) / np.maximum(reference[:, None], lowest)), axis=0))


def corrected_t_test(differences: np.ndarray, test_share: float) -> float:
    """Return the p of Nadeau and Bengio's corrected resampled t-test (2003), two-sided.

    The splits of one table share rows, so the variance of the mean is s^2 (1/k + n_test / n_train), not s^2 / k.

    Parameters
    ----------
    differences : ndarray (n_splits,)
        Of two rivals' errors on the splits of one table.
    test_share : float
        Test rows over all rows.

    Returns
    -------
    float
        NaN for less than two splits; 1 if no difference is other than 0, and 0 if all are the same.
    """
    k = len(differences)
    if k < 2:
        return float("nan")
    variance = float(np.var(differences, ddof=1)) * (1 / k + test_share / (1 - test_share))
    mean = float(np.mean(differences))
    if variance == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / np.sqrt(variance), k - 1))


def paired(a: np.ndarray, b: np.ndarray, floors: np.ndarray, test_share: float) -> dict[str, Any]:
    """Compare two rivals on the same splits of the same tables.

    Parameters
    ----------
    a, b : ndarray (n_tables, n_splits)
        Errors.
    floors : ndarray (n_tables,)
        As for `ratios`.
    test_share : float
        As for `corrected_t_test`.

    Returns
    -------
    dict
        `tables`; `lower` and `higher`: tables on which a's mean error is the lower or the higher one, and
        `clearly lower`, `clearly higher`: those of them whose corrected resampled t-test has a p below LEVEL; `ratio`:
        geometric mean of a's mean errors over b's; `p`: that of Wilcoxon's signed-rank test, two-sided, of the
        logarithms of these ratios, one a table.
    """
    mean_a, mean_b = a.mean(axis=1), b.mean(axis=1)
    logs = np.log(np.maximum(mean_a, floors) / np.maximum(mean_b, floors))
    clear = np.array([corrected_t_test(row, test_share) for row in a - b]) < LEVEL
    return {
        "tables": len(a),
        "lower": int(np.sum(mean_a < mean_b)),
        "higher": int(np.sum(mean_a > mean_b)),
        "clearly lower": int(np.sum(clear & (mean_a < mean_b))),
        "clearly higher": int(np.sum(clear & (mean_a > mean_b))),
        "ratio": float(np.exp(logs.mean())),
        "p": float(stats.wilcoxon(logs).pvalue) if np.any(logs) else 1.0,
    }
