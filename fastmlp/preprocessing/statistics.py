"""From the training rows of a column to scales, quantiles and bins, and the formulas that use them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: Quartiles and the median, as shares.
QUARTILES = (0.25, 0.5, 0.75)

#: From so many scales away from the center on, the smooth clip is 3 to the last bit.
FAR = 1e9

#: Numbers so close to the first or the last quantile are mapped to it; a share of the range if that is less than 1.
EDGE = 1e-7

#: The smallest and the largest value of a column that was mapped to a normal distribution: scikit-learn's.
LOWEST, HIGHEST = -5.199337582605575, 5.19933758270342


class Scale(NamedTuple):
    """What maps a number x to (x - center) / scale."""

    center: float
    scale: float  # 0: the column is constant, and is mapped to 0


def robust(quartiles: np.ndarray, low: float, high: float) -> Scale:
    """Return the scale of a column by its quartiles (3,); half its range where they are equal."""
    width = quartiles[2] - quartiles[0] or (high - low) / 2
    return Scale(float(quartiles[1]), float(width + 1e-30) if width else 0.0)


def standard(values: np.ndarray) -> Scale:
    """Return the mean of a column, and the standard deviation of all its rows."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(values[:, None])
    return Scale(float(scaler.mean_[0]), float(scaler.scale_[0]))


def robust_of_counts(counts: np.ndarray, n_rows: int) -> list[Scale]:
    """Return the robust scales of columns of 0 and 1, of which each has `counts` (n_columns,) times 1.

    The k-th of the sorted numbers is 0 for k < n_rows - count; a quantile lies between two of them.
    """
    places = np.array(QUARTILES)[:, None] * (n_rows - 1)
    quartiles = np.clip(places - (n_rows - counts - 1), 0.0, 1.0)
    return [
        robust(quartiles[:, i], float(count == n_rows), float(count > 0)) for i, count in enumerate(counts.tolist())
    ]


def robust_of_signs(counts: np.ndarray, n_rows: int) -> Scale:
    """Return the robust scale of a column that is +1 in counts[0] rows, -1 in counts[1] and 0 in the others."""
    values = np.repeat([-1.0, 0.0, 1.0], [counts[1], n_rows - counts.sum(), counts[0]])
    return robust(np.quantile(values, QUARTILES), values[0], values[-1])


def smooth_clip(z: np.ndarray, out: np.ndarray) -> None:
    """Write z / sqrt(1 + (z / 3)^2), which lies between -3 and 3, to `out`, which may be z."""
    root = z * z
    root *= 1 / 9
    root += 1.0
    np.sqrt(root, out=root)
    np.divide(z, root, out=out)


def scaled(values: np.ndarray, scale: Scale, clip: bool) -> np.ndarray:
    """Return a few numbers of one column, scaled."""
    if scale.scale == 0:
        return np.zeros(len(values))
    z = (np.asarray(values, float) - scale.center) / scale.scale
    if clip:
        smooth_clip(z, z)
    return z


def normal_quantiles(values: np.ndarray, n_rows: int) -> np.ndarray:
    """Return the quantiles of a column (at most 1000) from which :func:`normal` interpolates.

    There is one quantile for 30 of the `n_rows` training rows; ``values`` are those that are not missing, with noise.
    """
    n = max(1, min(max(min(n_rows // 30, 1000), 10), n_rows))
    return np.maximum.accumulate(np.quantile(values, np.linspace(0, 1, n)))


def normal(x: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Map numbers (n,) to a normal distribution by the quantiles of their column, as scikit-learn does.

    Between two quantiles the share is linear. A number that equals several quantiles gets the middle of their shares.
    """
    from scipy.special import ndtri

    shares = np.linspace(0, 1, len(quantiles))
    share = np.interp(x, quantiles, shares)
    if (quantiles[1:] == quantiles[:-1]).any():
        share -= np.interp(-x, -quantiles[::-1], -shares[::-1])
        share *= 0.5
    edge = EDGE * min(1.0, quantiles[-1] - quantiles[0])
    share[x + edge > quantiles[-1]] = 1.0
    share[x - edge < quantiles[0]] = 0.0
    return np.clip(ndtri(share), LOWEST, HIGHEST)


def piecewise_bins(x: np.ndarray, n_bins: int) -> np.ndarray:
    """Return the knots (2 or more, increasing) of at most `n_bins` bins with equally many of the numbers (n,).

    They are numbers of float32, so knots that are equal in float32 are one.
    """
    found = np.quantile(x, np.linspace(0, 1, max(1, min(n_bins, len(x) - 1)) + 1))
    return np.unique(found.astype(np.float32)).astype(float)


def places(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return where numbers (n,) lie among the knots: k + fraction in bin k.

    Below the first knot the first bin's line goes on, so that the place is negative; above the last knot the last
    bin's line does.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.preprocessing.statistics import places
    >>> places(np.array([-1.0, 0.0, 1.0, 4.0, 6.0]), np.array([0.0, 2.0, 4.0]))
    array([-0.5,  0. ,  0.5,  2. ,  3. ])
    """
    t = np.interp(x, knots, np.arange(float(len(knots))))
    for outside, a, b in ((x < knots[0], 0, 1), (x > knots[-1], len(knots) - 2, len(knots) - 1)):
        if outside.any():
            t[outside] = a + (x[outside] - knots[a]) / (knots[b] - knots[a])
    return t
