"""RealMLP and TabM on a cluster of Dask: frames with texts, categories and gaps; the weights of one machine."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import fastmlp
from fastmlp.callbacks import Checkpoint
from fastmlp.model import weights

from tabular_fits import KINDS, REGRESSORS, table, targets_of

pytest.importorskip("distributed")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")

from dask_clusters import cluster_of, leftovers  # noqa: E402

import fastmlp.dask  # noqa: E402
from fastmlp.dask import fitting, work  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")

#: Numbers of rows of the partitions of the table of 120 rows.
CUTS = (3, 0, 70, 1, 46)


@pytest.fixture(scope="module")
def client():
    with cluster_of(2, processes=False) as made:  # of processes: test_cli_cluster.py
        yield made


def spread(values, cuts=CUTS):
    """Return rows as a Dask collection; a column of categories has in each partition those of its rows."""
    if isinstance(values, np.ndarray):
        return da.from_array(values, chunks=(cuts, *values.shape[1:]))
    ends = np.cumsum(cuts)
    blocks = [values.iloc[end - n : end] for n, end in zip(cuts, ends, strict=True)]
    if isinstance(values, pd.DataFrame):
        blocks = [block.assign(town=block["town"].cat.remove_unused_categories()) for block in blocks]
        meta = values[:0].assign(town=values["town"][:0].cat.remove_unused_categories())
        return dd.from_map(lambda block: block, blocks, meta=meta)
    return dd.from_map(lambda block: block, blocks)


def on_dask(name, **options):
    return getattr(fastmlp.dask, f"Dask{name}")(**KINDS[name], **options)


def rows_of(name, kind, n=120, seed=0):
    """Return X and y in memory."""
    X, values = table(n, seed)
    y = targets_of(name, values)
    if kind == "frame":
        return X, pd.Series(y, X.index)
    return (X[["size", "age", "open"]].to_numpy(float) if kind == "numbers" else X.astype(object).to_numpy()), y


@pytest.mark.parametrize(
    "name, kind, options",
    [
        ("RealMLPClassifier", "frame", {"weighted": True}),
        ("RealMLPRegressor", "objects", {}),
        ("TabMClassifier", "frame", {"validation": True}),
        ("TabMRegressor", "numbers", {"n_iter_no_change": 1}),
    ],
)
def test_weights_are_those_of_one_machine(client, name, kind, options):
    """And predictions are lazy, and in kind."""
    options, given = {"dtype": "float64", "max_iter": 4, **options}, {}
    weighted, validation = options.pop("weighted", False), options.pop("validation", False)
    X, y = rows_of(name, kind)
    w = np.random.default_rng(3).uniform(0.5, 2, 120) if weighted else None
    w = pd.Series(w, X.index) if weighted and kind == "frame" else w
    if validation:
        given = dict(zip(("X_val", "y_val"), rows_of(name, kind, 30, 1), strict=True))
    local = getattr(fastmlp, name)(**{**KINDS[name], **options}).fit(X, y, w, **given)
    X_there, y_there, w_there = (None if one is None else spread(one) for one in (X, y, w))
    given = {what: spread(one, (0, 13, 17)) for what, one in given.items()}
    ours = on_dask(name, client=client).set_params(**options).fit(X_there, y_there, w_there, **given)

    assert ours.coder_.to_state() == local.coder_.to_state()
    flat = [weights.flat_params(one, one.network_) for one in (ours, local)]
    np.testing.assert_allclose(*flat, rtol=1e-12, atol=1e-12)
    assert ours.n_iter_ == local.n_iter_
    np.testing.assert_allclose(ours.history_["validation_loss"], local.history_["validation_loss"], rtol=1e-10)
    assert ours.score(X_there, y_there) == pytest.approx(local.score(X, y), rel=1e-9)
    method = "predict" if name in REGRESSORS else "predict_proba"
    lazy, expected = getattr(ours, method)(X_there), getattr(local, method)(X)
    found = lazy.compute(scheduler="sync")
    if kind == "frame":
        assert isinstance(found, pd.DataFrame if expected.ndim == 2 else pd.Series)
        assert found.index.equals(X.index)
        assert list(found.columns) == list(local.classes_)
        assert list(ours.feature_names_in_) == list(X.columns)
    assert lazy.dtype == found.dtype if kind != "frame" else list(lazy.dtypes) == list(found.dtypes)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-9, atol=1e-12)
    plain = ours.to_local()
    assert type(plain) is getattr(fastmlp, name)
    assert np.array_equal(getattr(pickle.loads(pickle.dumps(plain)), method)(X), getattr(ours, method)(X))
    assert leftovers(client) == {}


def test_rows_in_memory_train_here():
    """Ensembles, too, and their networks are local ones."""
    X, y = rows_of("RealMLPClassifier", "frame")
    ours = on_dask("RealMLPClassifier", n_ens=2)
    expected = fastmlp.RealMLPClassifier(**KINDS["RealMLPClassifier"], n_ens=2).fit(X, y)
    assert np.array_equal(ours.fit(X, y).predict_proba(X), expected.predict_proba(X))
    assert {type(one) for one in ours.estimators_} == {fastmlp.RealMLPClassifier}


def test_parameters_and_clones(client):
    ours = on_dask("TabMRegressor", client=client, timeout=7)
    assert {"client", "timeout", "k"} < set(ours.get_params())
    assert clone(ours).client is client
    assert pickle.loads(pickle.dumps(ours)).client is None
    with pytest.raises(ValueError, match="'k' parameter"):
        ours.set_params(k=0).fit(da.zeros((4, 2)), da.zeros(4))


def with_infinity():
    X, y = rows_of("TabMRegressor", "numbers")
    X[75, 1] = np.inf
    return spread(X), spread(y)


def with_dates():
    X, y = rows_of("TabMRegressor", "frame")
    return spread(X.assign(when=pd.Timestamp("2020-01-01"))), spread(y)


def with_many_targets():
    X, y = rows_of("TabMRegressor", "frame")
    return spread(X), spread(y, (4, 0, 69, 1, 46))


@pytest.mark.parametrize(
    "make, options, message",
    [
        (with_infinity, {}, r"partition 4 of X \(on inproc.*infinity in column 1"),
        (with_dates, {}, r"partition 0 of X \(on inproc.*column 'when' of X has the dtype datetime64"),
        (with_many_targets, {}, "partition 0 of X .*has 3 rows, that of y has 4"),
        (with_dates, {"n_ens": 2}, "n_ens=2 makes no sense with Dask collections"),
        (with_dates, {"n_cv": 3}, "n_cv=3 makes no sense with Dask collections"),
    ],
)
def test_wrong_input(client, make, options, message):
    with pytest.raises(ValueError, match=message):
        on_dask("TabMRegressor", client=client, **options).fit(*make())
    assert leftovers(client) == {}


def test_other_columns_are_refused_before_anything_is_computed():
    ours = on_dask("TabMRegressor").fit(*rows_of("TabMRegressor", "frame"))
    X = spread(rows_of("TabMRegressor", "frame")[0])
    for other in (X.drop(columns="age"), X.rename(columns={"age": "years"})):
        with pytest.raises(ValueError, match=r"X has the columns .*, those of fit were \[.*'age'.*\], in this order"):
            ours.predict(other)
    with pytest.raises(ValueError, match="X has 4 features, but TabMRegressor is expecting 5 features"):
        ours.predict(X.to_dask_array(lengths=True)[:, 1:])


def test_categories_of_numbers_stay_categories_in_joined_blocks():
    """Whatever categories a block knows: a block of gaps knows none."""
    rows = [1, 2], [None, None], [7, 7, 1]
    blocks = [pd.DataFrame({"code": pd.Categorical(values), "n": range(len(values))}) for values in rows]
    joined = work._joined_tables(tuple(blocks))
    pd.testing.assert_series_equal(
        joined["code"].astype(float), pd.Series([1, 2, np.nan, np.nan, 7, 7, 1], name="code")
    )
    assert list(joined["code"].cat.categories) == [1, 2, 7]
    assert joined["n"].tolist() == [0, 1, 0, 1, 0, 1, 2]
    assert [list(block["code"].cat.categories) for block in blocks] == [[1, 2], [], [1, 7]]


def test_a_fit_of_tables_does_not_go_on_from_a_checkpoint(tmp_path):
    """There is no `resume_from`; a lost worker ends the fit."""
    callbacks = [Checkpoint(tmp_path / "fit.npz")]
    for cls, possible in ((fastmlp.MLPClassifier, True), (fastmlp.TabMClassifier, False)):
        job = fitting.Job(cls(callbacks=callbacks), "fit", (None, None, None))
        assert fitting._Resume(job).possible is possible
