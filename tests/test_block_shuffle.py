"""Orders of rows for tables on a disk: all rows, of a few blocks at a time, the same for the same random state."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.callbacks import Checkpoint
from fastmlp.distributed import on_threads
from fastmlp.training.order import MIXED, shuffle_blocks

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 400), block=st.integers(2, 60), held_out=st.floats(0, 0.9))
def test_an_order_of_blocks(seed, n, block, held_out):
    rng = np.random.RandomState(seed)
    rows = np.flatnonzero(rng.uniform(size=n) >= held_out).astype(np.intp)
    order, again = rng.permutation(rows), rows.copy()
    shuffle_blocks(order, np.random.RandomState(seed), block)
    shuffle_blocks(again, np.random.RandomState(seed), block)
    assert np.array_equal(order, again)  # whatever the order before
    assert np.array_equal(np.sort(order), rows)
    first_seen = list(dict.fromkeys((order // block).tolist()))
    for i in range(0, len(first_seen), MIXED):  # no row of a later group comes before the last of this one
        group = set(first_seen[i : i + MIXED])
        places = np.flatnonzero([number in group for number in order // block])
        assert len(places) == 0 or places[-1] - places[0] + 1 == len(places)


def test_rows_and_blocks_are_mixed():
    order = np.arange(64_000)
    shuffle_blocks(order, np.random.RandomState(0), 100)
    assert np.mean(np.abs(np.diff(order)) > 100) > 0.8
    assert abs(np.corrcoef(np.arange(64_000), order)[0, 1]) < 0.2


def test_a_fit_visits_the_rows_in_that_order():
    """One epoch of SGD in batches is that on the table sorted so, without a shuffle."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 3)), rng.normal(size=200)
    common = {"hidden_layer_sizes": (4,), "max_iter": 1, "batch_size": 20}
    est = MLPRegressor(**common, random_state=np.random.RandomState(1), shuffle=10)
    state = np.random.RandomState(1)
    plain = MLPRegressor(**common, random_state=state, shuffle=False)
    est.fit(X, y)
    order = np.arange(200)
    plain.fit(X, y)  # draws the first weights
    shuffle_blocks(order, state, 10)
    expected = MLPRegressor(**common, random_state=np.random.RandomState(1), shuffle=False).fit(X[order], y[order])
    assert np.array_equal(est.coefs_[0], expected.coefs_[0])


def test_ranks_and_resumed_fits_have_the_order_too(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(120, 3)), rng.integers(0, 3, 120)

    def estimator(max_iter=6, **options):
        return MLPClassifier((4,), random_state=0, shuffle=8, early_stopping=True, max_iter=max_iter, **options)

    expected = estimator().fit(X, y)
    found = on_threads(lambda c: estimator().fit(X[c.rank :: 2], y[c.rank :: 2], communicator=c), 2, timeout=20)
    order = np.concatenate([np.arange(0, 120, 2), np.arange(1, 120, 2)])
    of_ranks = estimator().fit(X[order], y[order])
    np.testing.assert_allclose(found[0].coefs_[0], of_ranks.coefs_[0], rtol=1e-12, atol=1e-12)
    estimator(3, callbacks=[Checkpoint(tmp_path / "fit.npz")]).fit(X, y)
    resumed = estimator().fit(X, y, resume_from=tmp_path / "fit.npz")
    assert np.array_equal(resumed.coefs_[0], expected.coefs_[0])


def test_scikit_learn_has_no_blocks():
    est = MLPClassifier((2,), shuffle=4, max_iter=2).fit([[0.0], [1.0]] * 4, [0, 1] * 4)
    with pytest.warns(UserWarning, match="shuffle"):
        assert est.to_sklearn().shuffle is True


@pytest.mark.parametrize("wrong", [1, 0, -5, 2.5, "blocks"])
def test_what_is_no_number_of_rows(wrong):
    with pytest.raises(ValueError, match="The 'shuffle' parameter of MLPClassifier must be"):
        MLPClassifier(shuffle=wrong).fit([[0.0], [1.0]], [0, 1])
