"""A table on two ranks beside one process: what learning the columns takes, and how far rounding carries weights apart.

    python bench/shared_tables.py              # 200 000 training rows: about a minute
    python bench/shared_tables.py 20000

Ranks are threads. Prints the seconds and bytes of the coder, then for some learning rates of RealMLP the largest
difference of weights to a fit in one process, of two ranks and of one process that sees one column with other last
bits, and R2 of the three on rows apart.
"""

import sys
import time

import numpy as np
import pandas as pd

from fastmlp import RealMLPRegressor
from fastmlp.data import coded_rows
from fastmlp.data.shared_rows import Layout, SharedRows
from fastmlp.distributed import on_threads
from fastmlp.model import weights
from fastmlp.preprocessing.coder import ColumnCoder

#: 0.2 is the default for values.
RATES = (0.2, 0.02, 0.002)


def table(n):
    """Return 8 columns of numbers, 2 of categories, and a target."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({f"x{i}": rng.normal(size=n) for i in range(8)})
    X["town"] = pd.Categorical(rng.choice([f"town {i}" for i in range(40)], n))
    X["kind"] = rng.choice(["a", "b", "c"], n)
    return X, (X["x0"] * X["x1"] + (X["kind"] == "a")).to_numpy()


def learned(X, scaling):
    """Print what it takes to learn the columns."""
    begin = time.perf_counter()
    ColumnCoder(scaling=scaling).fit(X, random_state=0)
    alone, n = time.perf_counter() - begin, len(X) // 2

    def learn(communicator):
        layout = Layout([{0: n}, {1: len(X) - n}])
        shared = SharedRows(communicator, layout, X.iloc[layout.rows_of(communicator.rank)])
        coded_rows.fitted(ColumnCoder(scaling=scaling), shared, None, 0)
        return communicator.n_bytes

    begin = time.perf_counter()
    sent = sum(on_threads(learn, 2))
    print(f"{scaling}: one process {alone:.2f} s, two ranks {time.perf_counter() - begin:.2f} s, {sent:,} bytes sent")


def differences(X, y, X_apart, y_apart, rate):
    """Print how far weights and scores are from those of one process."""

    def fit(X, y, **together):
        estimator = RealMLPRegressor(
            hidden_layer_sizes=(32,), max_iter=2, random_state=0, dtype="float64", learning_rate_init=rate, n_jobs=1
        )
        return estimator.fit(X, y, **together)

    def of_rank(communicator):
        here = np.array_split(np.arange(len(X)), communicator.size)[communicator.rank]
        return fit(X.iloc[here], y[here], communicator=communicator)

    alone, ranks = fit(X, y), on_threads(of_rank, 2)[0]
    last_bits = fit(X.assign(x7=np.nextafter(X["x7"].to_numpy(), np.inf)), y)
    vectors = [weights.flat_params(one, one.network_) for one in (alone, ranks, last_bits)]
    apart = [np.abs(vector - vectors[0]).max() for vector in vectors[1:]]
    scores = ", ".join(f"{one.score(X_apart, y_apart):.4f}" for one in (alone, ranks, last_bits))
    print(f"learning rate {rate}: two ranks {apart[0]:.1e}, other last bits {apart[1]:.1e}; R2 {scores}", flush=True)


if __name__ == "__main__":
    n_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    table_X, target = table(n_rows + n_rows // 4)
    for scaling in ("robust_smooth_clip", "quantile_normal"):
        learned(table_X[:n_rows], scaling)
    for rate in RATES:
        differences(table_X[:n_rows], target[:n_rows], table_X[n_rows:], target[n_rows:], rate)
