"""Fits of RealMLP and TabM that several ranks take part in: the coder of one process to the last bit, and its weights.

Ranks are threads, as in test_distributed.py.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp.data import coded_rows
from fastmlp.data.shared_rows import Layout, SharedRows
from fastmlp.distributed import Alone, Partitions, on_threads
from fastmlp.model import tabular_initialization, weights
from fastmlp.preprocessing.coder import SCALINGS, ColumnCoder

from tabular_fits import REGRESSORS, small, table, targets_of

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

#: Lengths of the partitions of each rank by their number in the table of 120 rows.
PARTITIONS = {
    "even": [{0: 60}, {1: 60}],
    "uneven": [{0: 7}, {1: 100}, {2: 13}],
    "several": [{4: 31, 0: 40}, {3: 1, 1: 0}, {2: 48}],
    "nobody": [{0: 120}, {}],
}


def rows_of(layout, rank):
    """The numbers in the table of the rows of one rank."""
    return Layout(layout).rows_of(rank)


def taken(X, rows):
    """Some rows of a frame or an array."""
    return X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows]


class Case(NamedTuple):
    """One fit, and how its rows are shared out."""

    name: str
    partitions: str
    kind: str = "frame"
    weighted: bool = False
    validation: bool = False
    options: dict = {}  # noqa: RUF012 # read only


CASES = [
    Case("RealMLPClassifier", "uneven"),
    Case("RealMLPClassifier", "several", weighted=True, options={"preset": "td-s", "class_weight": "balanced"}),
    Case("RealMLPClassifier", "nobody", "multilabel", options={"max_one_hot_cat_size": None}),
    Case("RealMLPRegressor", "even", "numbers", weighted=True),
    Case("RealMLPRegressor", "several", "objects", options={"validation_fraction": 0}),
    Case("RealMLPRegressor", "uneven", "outputs", validation=True, options={"monitor": ["loss", "score"]}),
    Case("TabMClassifier", "uneven", weighted=True, options={"batch_size": 17}),
    Case("TabMClassifier", "several", "objects", options={"arch_type": "tabm-mini", "num_emb_type": "none"}),
    Case("TabMClassifier", "even", validation=True, options={"train_score": True, "monitor": ["f1_macro", "loss"]}),
    Case("TabMRegressor", "nobody", "numbers", options={"n_iter_no_change": 1, "max_iter": 20, "clamp_output": True}),
    Case("TabMRegressor", "several", "outputs", weighted=True, options={"categorical_features": ["open", "town"]}),
]


def data_of(case, n=120, seed=0):
    """Return X and y of a case."""
    X, values = table(n, seed)
    y = targets_of(case.name, values)
    if case.kind == "numbers":
        X = X[["size", "age", "open"]].to_numpy(float)
    elif case.kind == "objects":
        X = X.astype(object).to_numpy()
    elif case.kind == "outputs":
        y = np.stack([y, X["size"]], axis=1)
    elif case.kind == "multilabel":
        y = np.stack([values > 0, X["open"]], axis=1).astype(int)
    if case.kind == "outputs" and case.options.get("categorical_features"):
        X = X.drop(columns="colour")
    return X, y


def params_of(estimator):
    return weights.flat_params(estimator, estimator.network_)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.partitions}-{case.kind}")
def test_the_weights_of_one_process(case):
    X, y = data_of(case)
    X_val, y_val = data_of(case, 30, seed=1)
    weight = np.random.default_rng(5).uniform(0.1, 2, len(y)) if case.weighted else None
    layout = PARTITIONS[case.partitions]
    halves = np.concatenate([np.arange(30)[rank :: len(layout)] for rank in range(len(layout))])

    def fit(communicator=None):
        estimator = small(case.name, dtype="float64", **{"max_iter": 5, **case.options})
        if communicator is None:
            own, X_here = slice(None), X
            of_validation = halves
        else:
            own = rows_of(layout, communicator.rank)
            X_here = Partitions(taken(X, own), layout[communicator.rank])
            of_validation = np.arange(30)[communicator.rank :: communicator.size]
        sets = {"X_val": taken(X_val, of_validation), "y_val": y_val[of_validation]} if case.validation else {}
        its_weight = None if weight is None else weight[own]
        return estimator.fit(X_here, y[own], its_weight, communicator=communicator, **sets)

    expected, found = fit(), on_threads(fit, len(layout), timeout=20)
    for estimator in found:
        assert estimator.coder_.to_state() == expected.coder_.to_state()
        np.testing.assert_allclose(params_of(estimator), params_of(expected), rtol=1e-12, atol=1e-12)
        assert np.array_equal(params_of(estimator), params_of(found[0]))
        assert estimator.history_.keys() == expected.history_.keys()
        for name, values in expected.history_.items():
            if name != "seconds":
                np.testing.assert_allclose(estimator.history_[name], values, rtol=1e-11, atol=1e-12, err_msg=name)
        assert (estimator.n_iter_, estimator.batch_size) == (expected.n_iter_, expected.batch_size)
        assert np.array_equal(estimator.predict(X), found[0].predict(X))
    assert np.array_equal(vars(found[0]).get("target_range_", 0), vars(expected).get("target_range_", 0))
    again = on_threads(fit, len(layout), timeout=20)
    assert np.array_equal(params_of(again[0]), params_of(found[0]))
    if case.name in REGRESSORS:
        np.testing.assert_allclose(found[0].predict(X), expected.predict(X), rtol=1e-10, atol=1e-10)
    else:
        np.testing.assert_allclose(found[0].predict_proba(X), expected.predict_proba(X), rtol=1e-10, atol=1e-10)


def test_first_weights_look_at_a_part_of_many_rows(monkeypatch):
    """The same rows as in one process, fetched from the ranks that have them."""
    monkeypatch.setattr(tabular_initialization, "MOST_ROWS", 30)
    X, values = table()
    layout = PARTITIONS["several"]

    def fit(communicator=None):
        own = slice(None) if communicator is None else rows_of(layout, communicator.rank)
        X_here = X if communicator is None else Partitions(taken(X, own), layout[communicator.rank])
        estimator = small("RealMLPRegressor", dtype="float64", learning_rate_init=1e-300, weight_decay=0.0)
        return estimator.fit(X_here, values[own], communicator=communicator)

    expected = params_of(fit())
    for estimator in on_threads(fit, 3, timeout=20):
        for name in ("W", "periodic_frequency"):  # biases of the last layer are in units of the targets
            segments = [s for s in estimator.network_.segments if s.name == name and s.layer < 2]
            assert segments
            assert all(np.array_equal(params_of(estimator)[s.where], expected[s.where]) for s in segments)


def test_random_state_and_callbacks_are_those_of_rank_0():
    X, values = table()
    layout, seen = PARTITIONS["uneven"], []

    def stop(info):
        seen.append(info.epoch)
        return info.epoch == 3

    def fit(communicator=None):
        rank = 0 if communicator is None else communicator.rank
        own = slice(None) if communicator is None else rows_of(layout, rank)
        drawn = np.random.RandomState(rank)
        estimator = small("TabMRegressor", dtype="float64", random_state=drawn, callbacks=[stop] if rank == 0 else None)
        return estimator.fit(X.iloc[own], values[own], communicator=communicator), drawn.randint(1 << 30)

    expected, drawn = fit()
    found = on_threads(fit, 3, timeout=20)
    assert seen == [1, 2, 3] * 2
    assert found[0][1] == drawn
    for estimator, _ in found:
        assert estimator.n_iter_ == 3
        np.testing.assert_allclose(params_of(estimator), params_of(expected), rtol=1e-12, atol=1e-12)


# --- the coder --------------------------------------------------------------------------------------------------------


def column_of(rng, kind, n):
    """Return a column of a frame."""
    gaps = rng.random(n) < rng.choice([0, 0.3, 1], p=[0.5, 0.4, 0.1])
    if kind == "numbers":
        return np.where(gaps, np.nan, rng.normal(size=n) * 10.0 ** rng.integers(-3, 4))
    if kind == "float32":
        return rng.normal(size=n).astype(np.float32).round(rng.integers(3))
    if kind == "integers":
        return rng.integers(0, rng.integers(1, 9), n)
    if kind == "booleans":
        return rng.random(n) < 0.3
    if kind == "texts":
        return pd.Series(np.where(gaps, None, rng.choice(["a", "b", "c", "d", "e"], n)), dtype=object)
    if kind == "codes":
        return pd.Categorical(np.where(gaps, np.nan, rng.integers(0, 12, n)))
    return pd.Series(np.where(gaps, None, rng.integers(0, 3, n)), dtype=object)  # objects that are numbers


KINDS = ("numbers", "float32", "integers", "booleans", "texts", "codes", "objects")


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
    n=st.integers(1, 60),
    n_ranks=st.integers(1, 4),
    scaling=st.sampled_from(SCALINGS),
    embedding=st.sampled_from(["piecewise", "periodic", None]),
    limit=st.sampled_from([None, 4]),
    chooses=st.booleans(),
)
def test_a_coder_of_ranks_is_that_of_one_process(seed, kinds, n, n_ranks, scaling, embedding, limit, chooses):
    """To the last bit, as is the matrix, and the random state that comes after: whichever rank has which rows."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({f"{kind} {i}": column_of(rng, kind, n) for i, kind in enumerate(kinds)})
    rows = rng.permutation(n)[: rng.integers(1, n + 1)] if rng.random() < 0.7 else None
    ends = np.sort(rng.integers(0, n + 1, 2 * n_ranks - 1))
    lengths, owners = np.diff([0, *ends, n]), rng.permutation(np.arange(2 * n_ranks) % n_ranks)
    layout = [{i: int(lengths[i]) for i in np.flatnonzero(owners == rank)} for rank in range(n_ranks)]
    options = {"scaling": scaling, "numeric_embedding": embedding, "one_hot_limit": limit, "n_bins": 5}
    if chooses:
        options["categorical_features"] = rng.random(len(kinds)) < 0.5
        options["categorical_features"] |= np.isin(kinds, ["texts", "codes"])
    state = np.random.RandomState(1)
    expected = ColumnCoder(**options).fit(X, rows, state)
    matrix = expected.transform(X, np.float64)

    def fit(communicator):
        own, its_state = rows_of(layout, communicator.rank), np.random.RandomState(1)
        shared = SharedRows(communicator, Layout(layout), X.iloc[own] if len(own) else np.empty((0, X.shape[1])))
        coder = coded_rows.fitted(ColumnCoder(**options), shared, rows, its_state)
        assert coder.to_state() == expected.to_state()
        assert np.array_equal(coded_rows.coded(coder, shared, np.float64).local, matrix[own])
        return its_state.randint(1 << 30)

    assert on_threads(fit, n_ranks, timeout=20) == [state.randint(1 << 30)] * n_ranks


def test_a_rank_that_knows_only_gaps_of_a_column_of_texts():
    X = np.array([[None, 1.0], [None, 2.0], ["red", 3.0], ["blue", None]], dtype=object)
    expected, layout = ColumnCoder().fit(X), [{0: 2}, {1: 2}]

    def fit(communicator):
        own = rows_of(layout, communicator.rank)
        shared = SharedRows(communicator, Layout(layout), X[own])
        coder = coded_rows.fitted(ColumnCoder(), shared, None, 0)
        return coder.to_state() == expected.to_state() and np.array_equal(
            coded_rows.coded(coder, shared, np.dtype("float32")).local, expected.transform(X)[own]
        )

    assert on_threads(fit, 2, timeout=20) == [True, True]


def test_each_value_is_sent_once():
    """To the rank that learns its column; of categories only how often each occurs."""
    rng, n, n_ranks = np.random.default_rng(0), 3000, 3
    X = pd.DataFrame({f"{i}": rng.normal(size=n) for i in range(7)} | {"town": rng.choice(["Oslo", "Rome"], n)})
    layout = [{rank: n // n_ranks} for rank in range(n_ranks)]

    def fit(communicator):
        shared = SharedRows(communicator, Layout(layout), X.iloc[rows_of(layout, communicator.rank)])
        coded_rows.fitted(ColumnCoder(scaling="quantile_normal"), shared, None, 0)
        return communicator.n_bytes

    values = 7 * n * 8 * (n_ranks - 1) / n_ranks  # those of a rank's own rows in the columns that it learns stay there
    assert values < sum(on_threads(fit, n_ranks, timeout=20)) < 1.1 * values + 50_000


def test_values_for_each_rank():
    def talk(communicator):
        return communicator.alltoall([(communicator.rank, other) for other in range(communicator.size)])

    assert on_threads(talk, 3, timeout=20) == [[(other, rank) for other in range(3)] for rank in range(3)]
    assert Alone().alltoall(["here"]) == ["here"]


# --- what is wrong on one rank is an error on all ---------------------------------------------------------------------


def faulty(what):
    """Return the tables of three ranks, of which that of rank 1 is wrong."""
    X, values = table(90)
    X["when"] = 1.0
    tables = [X.iloc[30 * rank : 30 * rank + 30].copy() for rank in range(3)]
    if what == "infinity":
        tables[1].loc[35, "age"] = np.inf
    elif what == "texts":
        tables[1]["colour"], tables[0]["colour"], tables[2]["colour"] = "red", 1, 2
        for one in tables:
            one["colour"] = one["colour"].astype("category")
    elif what == "dates":
        tables[1]["when"] = pd.Timestamp("2020-01-01")
    elif what == "names":
        tables[1] = tables[1].rename(columns={"age": "years"})
    elif what == "columns":
        tables[1] = tables[1].drop(columns="age")
    elif what == "text among numbers":
        tables[1]["town"] = "much"
    return tables, np.split(values, 3)


@pytest.mark.parametrize(
    "what, options, error, message",
    [
        ("infinity", {}, ValueError, "rank 1: Input X contains infinity or a value too large: inf in column 'age'"),
        ("texts", {}, ValueError, "rank 1 has in column 'colour' of X categories that are texts, rank 0 has numbers"),
        ("dates", {}, TypeError, "rank 1: column 'when' of X has the dtype datetime64"),
        ("names", {}, ValueError, r"rank 1 has features \['size', 'years'"),
        ("columns", {}, ValueError, r"rank 1 has features \['size', 'open'"),
        ("text among numbers", {"categorical_features": ["colour"]}, ValueError, "could not convert string to float"),
        ("", {"categorical_features": ["height"]}, ValueError, "rank 0: categorical_features has an item value"),
        ("", {"n_ens": 2}, ValueError, "communicator makes no sense with n_ens=2"),
        ("", {"n_cv": 3}, ValueError, "communicator makes no sense with n_cv=3"),
        ("", {"backend": "numba"}, ValueError, "backend='numba'"),
    ],
)
def test_what_is_wrong_on_one_rank(what, options, error, message):
    tables, values = faulty(what)
    errors = {}

    def fit(communicator):
        rank = communicator.rank
        try:
            small("RealMLPRegressor", **options).fit(tables[rank], values[rank], communicator=communicator)
        except (TypeError, ValueError) as raised:
            errors[rank] = raised

    on_threads(fit, 3, timeout=10)
    assert sorted(errors) == [0, 1, 2]
    for raised in errors.values():
        assert isinstance(raised, error)
        with pytest.raises(error, match=message):
            raise raised


def test_infinity_in_validation_rows():
    X, values = table(40)
    X_val = X.assign(age=np.inf)
    with pytest.raises(ValueError, match="validation data: rank 0: Input X contains infinity"):
        small("TabMRegressor").fit(X, values, X_val=X_val, y_val=values, communicator=Alone())
