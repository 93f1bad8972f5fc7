"""MLPClassifier and MLPRegressor as scikit-learn estimators: its checks, its meta-estimators, its ecosystem.

Where scikit-learn's own class can do the same thing, it does so in the same test and the results
are compared; whole fits are compared in test_trajectory.py, misuse in test_bad_input.py.
"""

import inspect
import pickle
import warnings

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, BaggingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.fixes import parse_version
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from fastmlp import MLPClassifier, MLPRegressor

import parity
from parity import (
    CLASSIFIER,
    REGRESSOR,
    SOLVERS,
    assert_twins_agree,
    name_of_a_check,
    observe,
    observe_both,
    problem_for,
    quiet,
)

SMALL = {"hidden_layer_sizes": (6,), "max_iter": 15, "random_state": 3, "learning_rate_init": 0.01}

pytestmark = [
    pytest.mark.usefixtures("one_blas_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


# ------------------------------------------------------------------------------ scikit-learn's checks


def _float32(X):
    if hasattr(X, "dtypes"):  # a data frame
        return X.astype(np.float32) if (X.dtypes == np.float64).all() else X
    if hasattr(X, "__array__"):
        X = np.asarray(X)
        return X.astype(np.float32) if X.dtype == np.float64 else X
    return X  # lists, sparse matrices


def _in_float32(base):
    """base that sees every float64 array as float32: the checks make float64 data only."""

    class InFloat32(base):
        def fit(self, X, y, sample_weight=None):
            return super().fit(_float32(X), y, sample_weight)

        @available_if(lambda self: hasattr(super(), "partial_fit"))
        def partial_fit(self, X, y, sample_weight=None, **classes):
            return super().partial_fit(_float32(X), y, sample_weight, **classes)

        def predict(self, X):
            return super().predict(_float32(X))

    InFloat32.__name__ = InFloat32.__qualname__ = f"{base.__name__}InFloat32"
    return InFloat32


class MLPClassifierInFloat32(_in_float32(MLPClassifier)):
    def predict_proba(self, X):
        return super().predict_proba(_float32(X))


class MLPRegressorInFloat32(_in_float32(MLPRegressor)):
    pass


def factors_of_a_check(params):
    estimator = params["estimator"]
    kind, in_float32 = isinstance(estimator, MLPClassifier), "InFloat32" in type(estimator).__name__
    return {"check": name_of_a_check(params["check"]), "kind": kind, "in32": in_float32, "solver": estimator.solver}


# each check with a classifier and a regressor: the solver matters to few
@pytest.mark.covers("check kind", "kind in32 solver", factors=factors_of_a_check)
@parametrize_with_checks(
    [
        cls(solver=solver, max_iter=100, random_state=0)
        for cls in (MLPClassifier, MLPRegressor, MLPClassifierInFloat32, MLPRegressorInFloat32)
        for solver in SOLVERS
    ],
    expected_failed_checks=lambda estimator: {},
)
def test_scikit_learn_checks(estimator, check):
    if "InFloat32" in type(estimator).__name__ and "sample_weight_equivalence" in str(check):
        pytest.skip("compares two fits at rtol=1e-7 whatever the dtype; scikit-learn's own MLPs fail it in float32")
    # the checks fit random data for few epochs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


# ------------------------------------------------------------------------------ the same interface


def test_constructor_is_theirs_and_more(twins):
    """Their parameters first, at their places; ours by keyword, with defaults that change nothing."""
    expected = inspect.signature(twins.theirs.__init__).parameters
    got = inspect.signature(twins.ours.__init__).parameters
    assert [*expected, "backend", "n_jobs"] == [*got][: len(expected) + 2]
    for name, parameter in expected.items():
        assert got[name].kind == parameter.kind, name
        assert got[name].default == parameter.default, name
    for name in got.keys() - expected.keys():
        assert got[name].kind == inspect.Parameter.KEYWORD_ONLY, name
        names = ("auto", "score", "log_loss", "constant", "member", "highest")
        assert got[name].default in (None, False, 0.0, 1, 4e-3, *names), name


def test_positional_arguments():
    assert MLPRegressor("poisson", (3, 2), "tanh").get_params()["hidden_layer_sizes"] == (3, 2)
    assert MLPClassifier((3, 2), "tanh").get_params()["activation"] == "tanh"


# What only our fit takes.
EXTRAS = [
    "X_val",
    "y_val",
    "sample_weight_val",
    "eval_set",
    "coef_init",
    "intercept_init",
    "resume_from",
    "communicator",
]


def test_methods_have_their_signatures(twins):
    expected = {name for name in dir(twins.theirs) if not name.startswith("_")}
    assert expected <= {name for name in dir(twins.ours) if not name.startswith("_")}
    for name in sorted(expected):
        theirs, ours = getattr(twins.theirs, name), getattr(twins.ours, name)
        if callable(theirs):
            parameters = list(inspect.signature(ours).parameters)
            if name == "fit":
                assert parameters[-len(EXTRAS) :] == EXTRAS
            if name in ("partial_fit", "set_partial_fit_request"):
                assert "communicator" in parameters
            if name in ("fit", "set_fit_request", "partial_fit", "set_partial_fit_request"):
                parameters = [parameter for parameter in parameters if parameter not in EXTRAS]
            assert parameters == list(inspect.signature(theirs).parameters), name
            assert ours.__doc__, f"{name} has no docstring"


def test_tags_are_theirs(twins):
    """But for what they have not: the outputs of the last hidden layer, `transform`."""
    for solver in SOLVERS:
        tags = get_tags(twins.ours(solver=solver))
        preserved = tags.transformer_tags.preserves_dtype
        tags.transformer_tags = None
        assert tags == get_tags(twins.theirs(solver=solver))
        assert preserved == (["float64"] if solver == "lbfgs" else ["float64", "float32"])


def test_classes_are_documented(twins):
    """Every parameter and every fitted attribute of scikit-learn's docstring is in ours."""
    for name in (*twins.ours().get_params(), "coefs_", "loss_curve_", "validation_scores_", "n_iter_"):
        assert f"{name} :" in twins.ours.__doc__, name


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("early_stopping", [False, True])
def test_fitted_attributes_are_theirs(twins, solver, early_stopping):
    X, y = problem_for(twins)
    expected, got = observe_both(
        twins, lambda est: est.fit(X, y), solver=solver, early_stopping=early_stopping, **SMALL
    )
    assert parity.fitted_attributes(got.value) == parity.fitted_attributes(expected.value)
    for name in parity.fitted_attributes(expected.value):
        theirs, ours = getattr(expected.value, name), getattr(got.value, name)
        assert isinstance(ours, type(theirs)) or np.isscalar(theirs), name
        assert isinstance(theirs, list) or np.shape(ours) == np.shape(theirs), name


def test_repr_and_html(twins):
    est = twins.ours(hidden_layer_sizes=(7,), n_jobs=2)
    assert repr(est) == f"{twins.ours.__name__}(hidden_layer_sizes=(7,), n_jobs=2)"
    assert repr(twins.ours()) == repr(twins.theirs())
    html = est._repr_html_()
    assert twins.ours.__name__ in html and "n_jobs" in html
    X, y = problem_for(twins)
    fitted = quiet(est.set_params(max_iter=2).fit, X, y)._repr_html_()
    assert "fitted" in fitted


def test_set_params_and_clone(twins):
    X, y = problem_for(twins)
    est = quiet(twins.ours(**SMALL).fit, X, y)
    twin = clone(est)
    assert twin.get_params() == est.get_params()
    with pytest.raises(NotFittedError):
        check_is_fitted(twin)
    parity.assert_identical_models(est, quiet(twin.fit, X, y))
    twin.set_params(hidden_layer_sizes=[4, 3], activation="tanh", backend="reference", n_jobs=1)
    quiet(twin.fit, X, y)
    assert [W.shape for W in twin.coefs_][:2] == [(6, 4), (4, 3)]


def test_fit_forgets_the_fit_before(twins):
    X, y = problem_for(twins)
    est = quiet(twins.ours(**SMALL).fit, X[:, :4], y)
    quiet(est.fit, X, y)
    parity.assert_identical_models(est, quiet(twins.ours(**SMALL).fit, X, y))


# ------------------------------------------------------------------------------ meta-estimators


def test_grid_search_over_a_pipeline(twins):
    X, y = problem_for(twins)
    grid = {"alpha": [1e-4, 1.0], "activation": ["relu", "tanh"]}

    def search(est):
        pipeline = make_pipeline(StandardScaler(), est)
        step = pipeline.steps[-1][0]
        found = GridSearchCV(pipeline, {f"{step}__{k}": v for k, v in grid.items()}, cv=3, n_jobs=2).fit(X, y)
        return [*found.cv_results_["mean_test_score"], found.best_index_, found.score(X, y)]

    # the workers' warnings stay in the workers
    expected, got = (observe(search, cls(**SMALL)) for cls in twins)
    np.testing.assert_allclose(got.value, expected.value, rtol=1e-6)


def test_cross_val_score(twins):
    X, y = problem_for(twins)
    assert_twins_agree(*observe_both(twins, lambda est: cross_val_score(est, X, y, cv=4), **SMALL))


def test_permutation_importance(twins):
    X, y = problem_for(twins)

    def importances(est):
        return permutation_importance(est.fit(X, y), X, y, n_repeats=3, random_state=0).importances

    assert_twins_agree(*observe_both(twins, importances, **SMALL))


def test_calibration():
    X, y = problem_for(CLASSIFIER)

    def calibrated(est):
        return CalibratedClassifierCV(est, cv=3).fit(X, y).predict_proba(X)

    assert_twins_agree(*observe_both(CLASSIFIER, calibrated, **SMALL))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_bagging(twins, n_jobs):
    X, y = problem_for(twins)
    bagging = BaggingClassifier if twins is CLASSIFIER else BaggingRegressor

    def bagged(est):
        bag = bagging(est, n_estimators=4, random_state=0, n_jobs=n_jobs).fit(X, y)
        return bag.predict_proba(X) if twins is CLASSIFIER else bag.predict(X)

    expected, got = (observe(bagged, cls(**SMALL)) for cls in twins)
    np.testing.assert_allclose(got.value, expected.value, rtol=1e-6)


def _fit_weights(est, X, y):
    """Fit in a worker. At module level, so that a worker process finds it."""
    return parity.weights(quiet(est.fit, X, y))


@pytest.mark.parametrize("joblib_backend", ["loky", "threading"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_workers_get_the_same_bits(twins, joblib_backend, solver):
    X, y = problem_for(twins)
    seeds = range(6)
    estimators = [twins.ours(**SMALL | {"random_state": seed, "solver": solver}) for seed in seeds]
    serial = [_fit_weights(clone(est), X, y) for est in estimators]
    work = (joblib.delayed(_fit_weights)(clone(est), X, y) for est in estimators)
    np.testing.assert_array_equal(joblib.Parallel(n_jobs=2, backend=joblib_backend)(work), serial)


@pytest.mark.parametrize("joblib_backend", ["loky", "threading"])
def test_cross_validation_is_the_same_in_parallel(twins, joblib_backend):
    X, y = problem_for(twins)
    est = twins.ours(**SMALL)
    serial = quiet(cross_val_score, est, X, y, cv=4)
    with joblib.parallel_config(joblib_backend, n_jobs=2):
        np.testing.assert_array_equal(quiet(cross_val_score, est, X, y, cv=4), serial)


def test_metadata_routing(twins):
    X, y = problem_for(twins)
    sample_weight = np.linspace(0.1, 2, len(y))

    def routed(est):
        est.set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        scores = cross_validate(est, X, y, cv=3, params={"sample_weight": sample_weight})
        return scores["test_score"]

    with config_context(enable_metadata_routing=True):
        assert_twins_agree(*observe_both(twins, routed, **SMALL))
        requests = [cls(**SMALL).get_metadata_routing()._serialize() for cls in twins]
        assert [requests[1]["fit"].pop(name) for name in EXTRAS] == [None] * len(EXTRAS)
        assert requests[1]["partial_fit"].pop("communicator") is None
        assert requests[1] == requests[0]
        partial = [cls().set_partial_fit_request(sample_weight=True).get_metadata_routing() for cls in twins]
        theirs, ours = (request.partial_fit.requests for request in partial)
        assert ours == theirs | {"communicator": None}


# ------------------------------------------------------------------------------ kinds of input


def _reversed(X):
    return np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1]


def _read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def _every_other(X):
    wide = np.full((2 * len(X), 3 * X.shape[1]), np.nan, dtype=X.dtype)
    wide[::2, ::3] = X
    return wide[::2, ::3]


LAYOUTS = {
    "F": np.asfortranarray,
    "reversed": _reversed,
    "strided": _every_other,
    "read-only": _read_only,
    "big-endian": lambda X: X.astype(X.dtype.newbyteorder(">")),
    "list": lambda X: X.tolist(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_layout_of_X_makes_no_difference(twins, layout, solver):
    X, y = problem_for(twins)
    plain = quiet(twins.ours(solver=solver, **SMALL).fit, X, y)
    laid_out = LAYOUTS[layout](X)
    est = quiet(twins.ours(solver=solver, **SMALL).fit, laid_out, y)
    parity.assert_identical_models(est, plain)
    np.testing.assert_array_equal(est.predict(laid_out), plain.predict(X))


@pytest.mark.parametrize("container", ["dense", "csr", "csc", "csr_array", "csc_array"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_input_is_not_modified(twins, container, dtype):
    X, y = problem_for(twins, dtype)
    X = parity.as_container(X, container)
    sample_weight = np.linspace(0, 1, len(y))
    before = pickle.dumps((X, y, sample_weight))
    for solver in SOLVERS:
        est = twins.ours(solver=solver, early_stopping=solver == "sgd", **SMALL)
        quiet(est.fit, X, y, sample_weight).predict(X)
    assert pickle.dumps((X, y, sample_weight)) == before


def test_read_only_memory_map(twins, tmp_path):
    X, y = problem_for(twins)
    joblib.dump((X, y), tmp_path / "data")
    X_mapped, y_mapped = joblib.load(tmp_path / "data", mmap_mode="r")
    est = quiet(twins.ours(**SMALL).fit, X_mapped, y_mapped)
    parity.assert_identical_models(est, quiet(twins.ours(**SMALL).fit, X, y))
    np.testing.assert_array_equal(est.predict(X_mapped), est.predict(X))


@pytest.mark.parametrize("container", ["csr", "csc", "csr_array", "csc_array"])
def test_sparse_matrix_in_any_state(twins, container):
    """Unsorted indices, entries given twice, 64-bit indices, explicit zeros."""
    X, y = problem_for(twins)
    rows, cols = np.nonzero(X)
    order = np.random.RandomState(0).permutation(2 * len(rows))
    halves = np.concatenate([X[rows, cols] / 4, 3 * X[rows, cols] / 4])[order]
    where = (np.tile(rows, 2)[order], np.tile(cols, 2)[order])
    messy = sp.coo_matrix((halves, where), shape=X.shape)
    messy = getattr(sp, container if container.endswith("array") else f"{container}_matrix")(messy)
    messy.data[:3] = 0.0
    for attribute in ("indices", "indptr"):
        setattr(messy, attribute, getattr(messy, attribute).astype(np.int64))
    expected, got = observe_both(twins, lambda est: est.fit(messy, y).predict(messy), **SMALL)
    assert type(got.error) is type(expected.error)
    if expected.error is None:
        assert_twins_agree(expected, got)


SPARSE_TARGETS = [sp.csr_matrix, sp.csc_matrix, sp.lil_matrix, sp.csr_array, sp.csc_array, sp.coo_array]


def _partial_fits(est, X, sparse, dense):
    return est.partial_fit(X, sparse, classes=[0, 1, 2, 3]).partial_fit(X, dense).predict(X)


def _dense_after_sparse(est, X, sparse, dense):
    return est.fit(X, sparse).fit(X, dense).predict(X)


#: What is done with a sparse y, and the same y as an array -> predictions.
WAYS_OF_SPARSE_TARGETS = {
    "fit": lambda est, X, sparse, dense: est.fit(X, sparse).predict(X),
    "fit of booleans": lambda est, X, sparse, dense: est.fit(X, sparse.astype(bool)).predict(X),
    "partial_fit": _partial_fits,
    "early stopping": lambda est, X, sparse, dense: est.set_params(early_stopping=True).fit(X, sparse).predict(X),
    "warm start of a dense fit": lambda est, X, sparse, dense: (
        est.set_params(warm_start=True).fit(X, dense).fit(X, sparse).predict(X)
    ),
    "dense after sparse": _dense_after_sparse,
    "cross_val_predict": lambda est, X, sparse, dense: cross_val_predict(est, X, sparse, cv=3),
}


@pytest.mark.parametrize("way", WAYS_OF_SPARSE_TARGETS)
@pytest.mark.parametrize("container", SPARSE_TARGETS, ids=lambda container: container.__name__)
def test_sparse_multilabel_targets(way, container):
    X, y, _ = parity.make_problem("multilabel")
    expected, got = observe_both(
        CLASSIFIER, lambda est: WAYS_OF_SPARSE_TARGETS[way](est, X, container(y), y), **SMALL | {"max_iter": 5}
    )
    assert expected.error is None and got.error is None, got.error
    assert type(got.value) is type(expected.value) and got.value.dtype == expected.value.dtype
    dense = [found.toarray() if sp.issparse(found) else found for found in (got.value, expected.value)]
    np.testing.assert_array_equal(*dense)


def test_weights_of_sparse_multilabel_targets():
    X, y, _ = parity.make_problem("multilabel")
    expected, got = observe_both(CLASSIFIER, lambda est: est.fit(X, sp.csr_matrix(y)).predict_proba(X), **SMALL)
    assert_twins_agree(expected, got)
    clf = MLPClassifier(**SMALL).fit(X, y)
    assert MLPClassifier(**SMALL).fit(X, sp.csc_array(y)).score(X, sp.csc_array(y)) == clf.score(X, y)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"early_stopping": True},
        {"monitor": "f1_macro"},
        {"monitor": "roc_auc"},
        {"monitor": "loss"},
        {"class_weight": "balanced"},
        {"class_weight": [{0: 1, 1: 3}] * 3},
        {"loss": ("log_loss", {"label_smoothing": 0.1})},
        {"loss": "focal"},
    ],
    ids=str,
)
def test_sparse_multilabel_targets_train_as_dense_ones(parameters):
    X, y, _ = parity.make_problem("multilabel")
    parameters = SMALL | {"max_iter": 4} | parameters
    dense = MLPClassifier(**parameters).fit(X, y, X_val=X[:50], y_val=y[:50])
    for ours, theirs in ((sp.csr_array(y), sp.csc_matrix(y[:50])), (sp.csr_matrix(y), y[:50])):
        sparse = MLPClassifier(**parameters).fit(X, ours, X_val=X[:50], y_val=theirs)
        np.testing.assert_array_equal(sparse.coefs_[0], dense.coefs_[0])
        np.testing.assert_array_equal(sparse.validation_scores_, dense.validation_scores_)
        np.testing.assert_array_equal(sparse.predict(X).toarray(), dense.predict(X))
    mixed = MLPClassifier(**parameters).fit(X, y, X_val=X[:50], y_val=sp.csr_array(y[:50]))
    np.testing.assert_array_equal(mixed.validation_scores_, dense.validation_scores_)
    assert type(mixed.predict(X)) is np.ndarray


LABELS = {
    "strings": np.array(["cherry", "apple", "banana"]),
    "objects": np.array(["cherry", "apple", "banana"], dtype=object),
    "negative": np.array([-5, 7, 0]),
    "floats": np.array([0.0, 2.0, 10.0]),
    "int8": np.array([2, 1, 0], dtype=np.int8),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_labels_of_any_kind(labels, n_classes, early_stopping):
    if (
        early_stopping
        and LABELS[labels].dtype.kind in "UO"
        and parse_version(sklearn.__version__) < parse_version("1.9")
    ):
        pytest.skip("scikit-learn before 1.9 cannot score labels that are no numbers")
    X, y = problem_for(CLASSIFIER)
    y = LABELS[labels][y % n_classes]
    expected, got = observe_both(CLASSIFIER, lambda est: est.fit(X, y), early_stopping=early_stopping, **SMALL)
    parity.assert_same_noise(expected, got)
    np.testing.assert_array_equal(got.value.classes_, expected.value.classes_)
    predicted = got.value.predict(X)
    np.testing.assert_array_equal(predicted, expected.value.predict(X))
    assert predicted.dtype == expected.value.predict(X).dtype


def test_single_class():
    X, _ = problem_for(CLASSIFIER)

    def fit(est):
        return est.fit(X, np.full(len(X), "only")).predict_proba(X)

    assert_twins_agree(*observe_both(CLASSIFIER, fit, **SMALL))


@pytest.mark.parametrize("y_kind", ["column", "float32", "int", "list", "wide_1"])
def test_targets_of_any_kind(y_kind):
    X, y = problem_for(REGRESSOR)
    y = {
        "column": y[:, None],
        "float32": y.astype(np.float32),
        "int": (10 * y).astype(int),
        "list": y.tolist(),
        "wide_1": np.asfortranarray(np.column_stack([y, y])[:, :1]),
    }[y_kind]
    assert_twins_agree(*observe_both(REGRESSOR, lambda est: est.fit(X, y).predict(X), **SMALL))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("fit_dtype", [np.float32, np.float64, np.float16, np.int64, np.bool_])
def test_dtypes_are_theirs(twins, solver, fit_dtype):
    """Weights and predictions, fitted in one dtype and asked in another."""
    X, y = problem_for(twins)
    X_fit = (X > 0).astype(fit_dtype) if fit_dtype in (np.int64, np.bool_) else X.astype(fit_dtype)
    expected, got = observe_both(twins, lambda est: est.fit(X_fit, y), solver=solver, **SMALL)
    theirs, ours = expected.value, got.value
    for name in ("coefs_", "intercepts_"):
        assert [w.dtype for w in getattr(ours, name)] == [w.dtype for w in getattr(theirs, name)]
    methods = ["predict", "predict_proba", "predict_log_proba"] if twins is CLASSIFIER else ["predict"]
    for dtype in (np.float32, np.float64, np.float16, np.int32, np.int64, np.bool_):
        for method in methods:
            X_new = X.astype(dtype)
            theirs_out, ours_out = getattr(theirs, method)(X_new), getattr(ours, method)(X_new)
            assert ours_out.dtype == theirs_out.dtype, (method, dtype)
            if method != "predict" or twins is REGRESSOR:
                np.testing.assert_allclose(ours_out, theirs_out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight_kind", ["float32", "int", "list", "column of a table", "scalar"])
def test_sample_weight_of_any_kind(twins, weight_kind):
    X, y = problem_for(twins)
    weight = 1.0 + np.arange(len(y)) % 3
    weight = {
        "float32": weight.astype(np.float32),
        "int": weight.astype(int),
        "list": weight.tolist(),
        "column of a table": np.column_stack([weight, weight])[:, 1],
        "scalar": 2.0,
    }[weight_kind]
    assert_twins_agree(*observe_both(twins, lambda est: parity.weights(est.fit(X, y, weight)), **SMALL))


# ------------------------------------------------------------------------------ data frames


def _frame(X, names="abcdef"):
    pd = pytest.importorskip("pandas")
    return pd.DataFrame(X, columns=list(names))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_data_frames_and_feature_names(twins, early_stopping):
    pd = pytest.importorskip("pandas")
    X, y = problem_for(twins)

    def fit(est):
        return est.fit(_frame(X), pd.Series(y, name="target"), pd.Series(np.ones(len(y))))

    expected, got = observe_both(twins, fit, early_stopping=early_stopping, **SMALL)
    parity.assert_same_noise(expected, got)
    assert list(got.value.feature_names_in_) == list("abcdef")
    for method in ("predict", "score"):
        for X_new in (_frame(X), X, _frame(X, "fedcba"), _frame(X, "abcxyz"), _frame(X)[["a", "b"]]):
            args = (X_new, y) if method == "score" else (X_new,)
            theirs = observe(getattr(expected.value, method), *args)
            ours = observe(getattr(got.value, method), *args)
            assert ours.warnings == theirs.warnings
            assert (type(ours.error), str(ours.error)) == (type(theirs.error), str(theirs.error))
            if theirs.error is None:
                np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-6)


def test_names_after_a_fit_without(twins):
    X, y = problem_for(twins)
    expected, got = observe_both(twins, lambda est: est.fit(X, y).predict(_frame(X)), **SMALL)
    assert_twins_agree(expected, got)
    assert expected.warnings


def test_mixed_frames(twins):
    """Integer, boolean, nullable and categorical columns; of the last there is one warning more than scikit-learn's."""
    pd = pytest.importorskip("pandas")
    X, y = problem_for(twins)
    frame = _frame(X)
    frame["a"] = frame["a"].round().astype(int)
    frame["b"] = frame["b"] > 0
    frame["c"] = frame["c"].astype("Float32")
    frame["d"] = pd.Categorical((frame["d"] > 0).astype(int))
    expected, got = observe_both(twins, lambda est: parity.weights(est.fit(frame, y)), **SMALL)
    (category, text), *got.warnings = got.warnings
    assert category == "UserWarning" and "read as numbers, 2 as twice 1: 'd'." in text
    assert_twins_agree(expected, got)
