"""Greedy ensemble selection: which trials to average, and with which weights.

Caruana, Niculescu-Mizil, Crew and Ksikes (2004), Ensemble selection from libraries of models: begin with the best
candidate, add the one whose mean with those chosen so far scores best, and allow each to be added again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

#: What one candidate predicts: an array per validation set, (n_rows,) or (n_rows, n_outputs).
Outputs = Sequence[np.ndarray]


def weighted_mean(outputs: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Return the mean of arrays of one shape in float64, added in their order; `weights` sum to 1.

    Examples
    --------
    >>> weighted_mean([np.array([1.0, 2.0]), np.array([3.0, 6.0])], [0.5, 0.5])
    array([2., 4.])
    """
    total = np.zeros(outputs[0].shape)
    for array, weight in zip(outputs, weights, strict=True):
        total += weight * array
    return total


def means(candidates: Sequence[Outputs], weights: Sequence[float]) -> list[np.ndarray]:
    """Return the weighted mean of the candidates for each validation set."""
    return [weighted_mean(arrays, weights) for arrays in zip(*candidates, strict=True)]


def select(
    candidates: Sequence[Outputs],
    score: Callable[[Outputs], Any],
    size: int,
    goes_on: Callable[[], bool] = lambda: True,
) -> np.ndarray:
    """Return the weights of the greedy ensemble, which scores no worse than the best candidate.

    Parameters
    ----------
    candidates : sequence of sequence of ndarray
        What each candidate predicts for each validation set.
    score : callable
        Maps predictions for the validation sets to a number, or to a tuple of which the later decide among equals;
        greater is better.
    size : int
        Number of rounds.  Each adds a candidate; of equal ones the first.
    goes_on : callable
        Asked before each round but the first; False ends the selection.

    Returns
    -------
    ndarray of shape (n_candidates,)
        Of all rounds' ensembles the best, of equal ones the smallest: how often each candidate was added, divided by
        the number of rounds.

    Examples
    --------
    The mean of the first and the last candidate is exact:

    >>> truth = np.array([1.0, 2.0])
    >>> candidates = [[truth + [1, 0]], [truth + [2, 2]], [truth - [1, 0]]]
    >>> select(candidates, lambda outputs: -abs(outputs[0] - truth).max(), size=4)
    array([0.5, 0. , 0.5])
    """
    best, best_score = np.zeros(len(candidates)), None
    for counts in _rounds(candidates, score, size):
        weights = counts / counts.sum()
        found = score(means(candidates, weights))  # exactly what a prediction with these weights comes to
        if best_score is None or found > best_score:
            best, best_score = weights, found
        if not goes_on():
            break
    return best


def copies(weights: Sequence[float], size: int) -> list[int]:
    """Return how often each candidate was added, from the weights that :func:`select` came to in at most `size` rounds.

    Examples
    --------
    >>> copies([0.75, 0.25], 9)
    [3, 1]
    """
    shares = np.asarray(weights)
    n_rounds = next(n for n in range(1, size + 1) if np.allclose(shares * n, np.rint(shares * n), atol=1e-6))
    return np.rint(shares * n_rounds).astype(int).tolist()


def _rounds(candidates: Sequence[Outputs], score: Callable[[Outputs], Any], size: int) -> Iterator[np.ndarray]:
    """Yield how often each candidate was added, after each round."""
    counts, sums = np.zeros(len(candidates), dtype=int), [np.zeros(part.shape) for part in candidates[0]]
    for n in range(1, size + 1):
        scores = [
            score([(total + part) / n for total, part in zip(sums, outputs, strict=True)]) for outputs in candidates
        ]
        added = scores.index(max(scores))
        counts[added] += 1
        for total, part in zip(sums, candidates[added], strict=True):
            total += part
        yield counts.copy()
