"""The table of a search's trials, in the form of scikit-learn's `cv_results_`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.ma import MaskedArray
from scipy.stats import rankdata

from fastmlp.search.trials import Trial


def table_of(trials: Sequence[Trial], weights: Sequence[float]) -> dict[str, Any]:
    """Return a dict of columns with an entry per trial: parameters, scores of the splits, seconds, status, weight."""
    n_splits = len(trials[0].seeds)
    scores = np.array([trial.scores if trial.is_finished else [np.nan] * n_splits for trial in trials])
    mean = np.array([trial.score for trial in trials])
    seconds = [np.array(trial.seconds or [np.nan]) for trial in trials]
    return {
        "mean_fit_time": np.array([part.mean() for part in seconds]),
        "std_fit_time": np.array([part.std() for part in seconds]),
        **_parameters(trials),
        "params": [dict(trial.params) for trial in trials],
        **{f"split{number}_test_score": column for number, column in enumerate(scores.T)},
        "mean_test_score": mean,
        "std_test_score": scores.std(axis=1),
        "rank_test_score": rankdata(np.where(np.isnan(mean), np.inf, -mean), method="min").astype(np.int32),
        "status": np.array([trial.status for trial in trials]),
        "ensemble_weight": np.asarray(weights, dtype=float),
    }


def _parameters(trials: Sequence[Trial]) -> dict[str, MaskedArray]:
    """Return a column per parameter; masked where a trial has the estimator's own value."""
    columns: dict[str, MaskedArray] = {}
    for name in sorted({name for trial in trials for name in trial.params}):
        column = MaskedArray(np.empty(len(trials), dtype=object), mask=True)
        for place, trial in enumerate(trials):
            if name in trial.params:
                column[place] = trial.params[name]
        columns[f"param_{name}"] = column
    return columns
