"""How many threads a fit may use."""

from __future__ import annotations

from joblib import effective_n_jobs
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads


def allowed(n_jobs: int | None) -> int:
    """Most threads for one fit.

    Parameters
    ----------
    n_jobs : int or None
        joblib's meaning: -1 all processors, -2 all but one.  None: what scikit-learn's own parallel estimators would
        use, so OMP_NUM_THREADS, threadpoolctl's limits, container quotas and joblib's inner limits hold.
    """
    if n_jobs is None:
        return max(1, int(_openmp_effective_n_threads()))
    return max(1, int(effective_n_jobs(n_jobs)))
