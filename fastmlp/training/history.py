"""``history_``: what each epoch came to, a column for each number and a row for each epoch.

``COLUMNS`` are always there.  Further sets of rows and further metrics have columns of their own, named
``<set>_<metric>``.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Columns of every history; "validation_loss" and "score" are those of the set and the metric that decide.
COLUMNS = ("loss", "validation_loss", "score", "learning_rate", "seconds")


def new_history() -> dict[str, list[float]]:
    """Return a history without a row."""
    return {name: [] for name in COLUMNS}


def extend(history: dict[str, list[float]], columns: Mapping[str, list[float]], n: int) -> None:
    """Append n epochs; what they, or the epochs before, did not measure is NaN."""
    n_before = len(history["loss"])
    for name in columns:
        if name not in history:
            history[name] = [float("nan")] * n_before
    for name, column in history.items():
        column.extend(columns[name][:n] if name in columns else [float("nan")] * n)


def column_of(set_name: str, metric: str, is_first_score: bool, decides: bool) -> str:
    """Return the column of a metric on a set of rows.

    The set that decides is called "validation" there, and the first score "score"; the column of both is "score".
    """
    metric = "score" if is_first_score else metric
    if not decides:
        return f"{set_name}_{metric}"
    return metric if is_first_score else f"validation_{metric}"
