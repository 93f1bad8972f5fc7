"""Inside a network: outputs of layers, gradients, weights, single steps, and an estimator before any training.

Judges: the graph that onnx's reference evaluator runs, PyTorch's autograd, differences of the loss, NumPy by hand, and
``fit`` and ``partial_fit`` of the same estimator.
"""

import itertools
import pickle

import numpy as np
import onnx
import pytest
import scipy.sparse as sp
from onnx.reference import ReferenceEvaluator
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.engines import backends
from fastmlp.model import weights

from parity import TASKS, assert_identical_models, make_problem, quiet

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # the fits are short

ENGINES = backends.available()
CPU = [name for name in ENGINES if name != "cuda"]
SMALL = {"hidden_layer_sizes": (7, 5), "activation": "tanh", "max_iter": 3, "random_state": 3, "batch_size": 20}
LOSS = {"poisson": {"loss": "poisson"}}


def estimator_of(task, **params):
    cls = MLPClassifier if task in ("multiclass", "binary", "multilabel") else MLPRegressor
    return cls(**SMALL | LOSS.get(task, {}) | params)


def trained(task, dtype=np.float64, **params):
    X, y, _ = make_problem(task)
    return quiet(estimator_of(task, **params).fit, X.astype(dtype), y)


# --- before any training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_first_weights_are_those_of_fit(task, solver):
    """A fit of one epoch with a rate of nearly zero ends where it began; lbfgs is stopped at its first point."""
    X, y, _ = make_problem(task)
    still = {"max_iter": 1, "learning_rate_init": 1e-300, "max_fun": 1, "tol": 1e30}
    est = estimator_of(task, solver=solver).initialize(X, y)
    same = quiet(estimator_of(task, solver=solver, **still).fit, X, y)
    for ours, theirs in zip(est.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert est.n_iter_ == est.t_ == 0
    assert est.n_outputs_ == same.n_outputs_ and est.out_activation_ == same.out_activation_
    assert est.predict(X).shape == same.predict(X).shape
    assert est.summary().n_params == same.summary().n_params


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3, "batch_norm": True}, {"init": "he_normal"}])
def test_training_goes_on_from_the_first_weights(options):
    X, y, _ = make_problem("multiclass")
    expected, est = (MLPClassifier(**SMALL, **options) for _ in range(2))
    est.initialize(X, y)
    for _ in range(2):
        expected.partial_fit(X, y, classes=np.unique(y))
        est.partial_fit(X, y)
        assert_identical_models(est, expected)


def test_a_warm_start_goes_on_from_the_first_weights():
    X, y, _ = make_problem("regression")
    params = SMALL | {"early_stopping": True, "validation_fraction": 0.25}
    expected = quiet(MLPRegressor(**params).fit, X, y)
    est = MLPRegressor(**params, warm_start=True).initialize(X, y)
    assert_identical_models(quiet(est.fit, X, y), expected)
    first = est.initialize(X, y).get_weights()
    np.testing.assert_array_equal(first[0], MLPRegressor(**params).initialize(X, y).coefs_[0])  # drawn anew
    est.set_params(warm_start=False)
    assert_identical_models(quiet(est.fit, X, y), expected)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_standardized_targets_before_training(solver):
    """Outputs of an untrained network are around the mean of y, in its units."""
    X, y, _ = make_problem("regression")
    y = 1e5 + 100 * y
    est = MLPRegressor(**SMALL, standardize_y=True, solver=solver).initialize(X, y)
    assert abs(est.predict(X).mean() - y.mean()) < 3 * y.std()
    if solver == "adam":
        expected = MLPRegressor(**SMALL, standardize_y=True).partial_fit(X, y)
        assert_identical_models(est.partial_fit(X, y), expected)
    else:
        expected = quiet(MLPRegressor(**SMALL, standardize_y=True, solver=solver).fit, X, y)
        assert_identical_models(quiet(est.fit, X, y), expected)


def test_initialize_refuses_what_fit_refuses():
    X, y, _ = make_problem("multiclass")
    with pytest.raises(ValueError, match="hidden_layer_sizes must be > 0"):
        MLPClassifier((0,)).initialize(X, y)
    with pytest.raises(ValueError, match="NaN"):
        MLPClassifier().initialize(np.full_like(X, np.nan), y)
    with pytest.raises(AttributeError, match="n_ens=2"):
        MLPClassifier(n_ens=2).initialize(X, y)


def test_known_numbers():
    """A 4-5-5-3 net has 73 parameters straight after its definition; a softmax to seven digits."""
    net = MLPClassifier((5, 5))
    assert fastmlp.summary(net, n_features=4, n_outputs=3).n_params == 73
    assert net.summary(4, 3).layers[-1].activation == "softmax"
    net = MLPClassifier(hidden_layer_sizes=()).initialize(np.ones((3, 1)), [0, 1, 2])
    net.set_weights([[[0.9, 0.2, 0.4]], [0, 0, 0]])
    np.testing.assert_allclose(net.predict_proba([[1.0]])[0], [0.4754850, 0.2361188, 0.2883962], atol=5e-8)


def test_steps_by_hand():
    """One weight, squared error: w = w - lr (w x - y) x."""
    net = MLPRegressor(hidden_layer_sizes=(), solver="sgd", momentum=0, alpha=0, learning_rate_init=0.1)
    net.initialize([[1.0]], [0.0]).set_weights([[[0.0]], [0.0]])
    assert net.train_on_batch([[2.0]], [3.0]) == 4.5
    W, b = net.get_weights()
    np.testing.assert_allclose([W[0, 0], b[0]], [0.6, 0.3], rtol=1e-15)


# --- outputs of layers ------------------------------------------------------------------------------------------------


def graph_outputs(estimator, X):
    """What each layer of the exported graph makes: the inputs of its products, and its last output."""
    model = estimator.to_onnx()
    products = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    names = [node.input[0] for node in products[1:]]
    kind = model.graph.output[-1].type.tensor_type.elem_type
    last = model.graph.output[-1].name
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, kind, None) for name in names)
    return ReferenceEvaluator(model).run([*names, last], {"X": X})


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("options", [{}, {"batch_norm": True}, {"activation": "prelu"}, {"dropout": 0.4}], ids=str)
def test_outputs_are_those_of_the_exported_graph(options, dtype, backend):
    X, *_ = make_problem("multiclass")
    est = trained("multiclass", dtype, backend=backend, **options)
    X = X.astype(dtype)
    expected, tolerance = graph_outputs(est, X), 1e-12 if dtype == np.float64 else 1e-5
    got = est.layer_outputs(X)
    assert [a.shape[1] for a in got] == [7, 5, 3]
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(est.transform(sp.csr_matrix(X)), expected[-2], rtol=tolerance, atol=tolerance)


def test_outputs_with_batch_norm_after_the_activation():
    """The normalised output, by NumPy: what the next layer reads before it is folded away."""
    X, *_ = make_problem("regression")
    est = trained("regression", batch_norm=["after", "before"])
    a = np.tanh(X @ est.coefs_[0] + est.intercepts_[0])
    a = (a - est.bn_means_[0]) / np.sqrt(est.bn_vars_[0] + 1e-5) * est.bn_scales_[0] + est.bn_shifts_[0]
    np.testing.assert_allclose(est.layer_outputs(X, 0), a, rtol=1e-12)
    z = (a @ est.coefs_[1] + est.intercepts_[1] - est.bn_means_[1]) / np.sqrt(est.bn_vars_[1] + 1e-5)
    b = np.tanh(z * est.bn_scales_[1] + est.bn_shifts_[1])
    np.testing.assert_allclose(est.layer_outputs(X, -2), b, rtol=1e-12)
    np.testing.assert_array_equal(est.layer_outputs(X, -1).ravel(), est.predict(X))


def test_one_layer_is_one_of_all():
    X, *_ = make_problem("binary")
    est = trained("binary")
    every = est.layer_outputs(X)
    for layer in range(-3, 3):
        np.testing.assert_array_equal(est.layer_outputs(X, layer), every[layer])
    np.testing.assert_array_equal(every[-1].ravel(), est.predict_proba(X)[:, 1])
    np.testing.assert_array_equal(est.layer_outputs(X.tolist(), np.int64(1)), every[1])
    for wrong, error in ((3, IndexError), (-4, IndexError), (1.0, TypeError), ("0", TypeError), (True, TypeError)):
        with pytest.raises(error, match="layer must be"):
            est.layer_outputs(X, wrong)
    with pytest.raises(ValueError, match="features"):
        est.layer_outputs(X[:, 1:])


def test_edited_weights_are_seen():
    X, *_ = make_problem("regression")
    est = trained("regression")
    est.coefs_[0][...] = 0
    est.intercepts_[0] = np.arange(7.0)
    np.testing.assert_allclose(est.layer_outputs(X, 0), np.tile(np.tanh(np.arange(7)), (len(X), 1)), rtol=1e-15)


# --- as a transformer -------------------------------------------------------------------------------------------------


def test_features_for_a_pipeline():
    X, y, _ = make_problem("multiclass")
    net = MLPClassifier(**SMALL)
    both = quiet(make_pipeline(StandardScaler(), clone(net), LogisticRegression()).fit, X, y)
    scaled = StandardScaler().fit_transform(X)
    features = quiet(clone(net).fit_transform, scaled, y)
    np.testing.assert_array_equal(features, quiet(clone(net).fit, scaled, y).transform(scaled))
    alone = LogisticRegression().fit(features, y)
    np.testing.assert_array_equal(both.predict_proba(X), alone.predict_proba(features))


def test_names_and_frames():
    X, y, _ = make_problem("multiclass")
    union = make_union(MLPClassifier(**SMALL), StandardScaler()).set_output(transform="pandas")
    frame = quiet(union.fit_transform, X, y)
    assert list(frame.columns[:6]) == [f"mlpclassifier__mlpclassifier{i}" for i in range(5)] + ["standardscaler__x0"]
    est = trained("multiclass")
    with pytest.raises(ValueError, match="input_features"):
        est.get_feature_names_out(["a", "b"])


def test_features_of_an_ensemble():
    X, y, _ = make_problem("multiclass")
    est = quiet(MLPClassifier(**SMALL, n_ens=2).fit, X, y)
    expected = np.hstack([member.transform(X) for member in est.estimators_])
    np.testing.assert_array_equal(est.transform(X), expected)
    assert len(est.get_feature_names_out()) == 10
    calls = {"layer_outputs": (X,), "loss_and_gradients": (X, y), "get_weights": (), "set_weights": ([],)}
    for method, args in (calls | {"train_on_batch": (X, y)}).items():
        with pytest.raises(AttributeError, match=rf"estimators_\[i\].{method}"):
            getattr(est, method)(*args)


def test_no_hidden_layer_has_no_features():
    X, y, _ = make_problem("multiclass")
    est = MLPClassifier(hidden_layer_sizes=()).initialize(X, y)
    with pytest.raises(ValueError, match="has none"):
        est.transform(X)
    assert [a.shape for a in est.layer_outputs(X)] == [(len(X), 3)]


# --- gradients --------------------------------------------------------------------------------------------------------

OPTIONS = [{}, {"batch_norm": True}, {"batch_norm": "after"}, {"l1_ratio": 0.4}]
CASES = [*itertools.product(TASKS, OPTIONS), ("regression", {"activation": "prelu"})]  # where no kink is near


@pytest.mark.parametrize("task, options", CASES, ids=str)
def test_gradients_are_differences_of_the_loss(task, options):
    X, y, sample_weight = make_problem(task)
    X, y, sample_weight = X[:9], y[:9], sample_weight[:9]
    est = trained(task, alpha=0.1, **options)
    loss, coefs, intercepts = found = est.loss_and_gradients(X, y, sample_weight)
    further = vars(found)
    learned = set(weights.FURTHER_ATTRIBUTES) - {"bn_means_", "bn_vars_"}
    assert further.keys() == {name for name in learned if hasattr(est, name)}
    # as in scikit-learn: the loss is a mean over the outputs, the gradient that of their sum
    factor = est.n_outputs_ if est.out_activation_ == "identity" else 1

    def penalty():
        flat = np.concatenate([W.ravel() for W in est.coefs_])
        share = est.l1_ratio
        return 0.1 * ((1 - share) / 2 * flat @ flat + share * np.abs(flat).sum()) / sample_weight.sum()

    def value():
        total = penalty()
        return factor * (est.loss_and_gradients(X, y, sample_weight).loss - total) + total

    for name, grads in {"coefs_": coefs, "intercepts_": intercepts, **further}.items():
        for array, grad in zip(getattr(est, name), grads, strict=True):
            if array is None:
                assert grad is None
                continue
            assert array.shape == grad.shape
            for i in range(0, array.size, 5):
                kept, values = array.flat[i], []
                for step in (-2e-4, -1e-4, 1e-4, 2e-4):
                    array.flat[i] = kept + step
                    values.append(value())
                array.flat[i] = kept
                difference = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / 12e-4
                np.testing.assert_allclose(grad.flat[i], difference, rtol=1e-9, atol=1e-9)
    assert loss == est.loss_and_gradients(X, y, sample_weight).loss


OF_PYTORCH = {
    "multiclass": {},
    "binary": {"batch_norm": True},
    "multilabel": {"activation": "prelu"},
    "multioutput": {},
    "poisson": {"batch_norm": True},
}


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("task", OF_PYTORCH)
def test_gradients_are_those_of_pytorch(task, backend):
    torch = pytest.importorskip("torch")
    X, y, _ = make_problem(task)
    est = trained(task, alpha=0.0, **OF_PYTORCH[task])
    est.set_params(backend=backend)
    module = est.to_torch().train()
    outputs, targets = module(torch.tensor(X)), torch.tensor(y, dtype=torch.float64)
    functional = torch.nn.functional
    loss = {
        "multiclass": lambda: functional.cross_entropy(outputs, torch.tensor(y)),
        "binary": lambda: functional.binary_cross_entropy_with_logits(outputs[:, 0], targets),
        "multilabel": lambda: functional.binary_cross_entropy_with_logits(outputs, targets, reduction="sum") / len(X),
        "multioutput": lambda: ((outputs - targets) ** 2).sum() / 2 / len(X),
        "poisson": lambda: functional.poisson_nll_loss(outputs[:, 0], targets),
    }[task]()
    loss.backward()
    found = est.loss_and_gradients(X, y)
    linear = [layer for layer in module if isinstance(layer, torch.nn.Linear)]
    for layer, W, b in zip(linear, found.coefs, found.intercepts, strict=True):
        np.testing.assert_allclose(W, layer.weight.grad.T, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(b, layer.bias.grad, rtol=1e-9, atol=1e-9)
    norms = [layer for layer in module if isinstance(layer, torch.nn.BatchNorm1d)]
    scales, shifts = getattr(found, "bn_scales_", []), getattr(found, "bn_shifts_", [])
    for layer, scale, shift in zip(norms, scales, shifts, strict=True):
        np.testing.assert_allclose(scale, layer.weight.grad, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(shift, layer.bias.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_gradients_of_every_engine(backend, dtype, batch_norm):
    """Against the reference; dense, CSR, and without what is dropped in training."""
    X, y, sample_weight = make_problem("multiclass")
    X = X.astype(dtype)
    est = trained("multiclass", dtype, batch_norm=batch_norm)
    expected = est.set_params(backend="reference").loss_and_gradients(X, y, sample_weight)
    est.set_params(backend=backend, dropout=0.5, input_dropout=0.2)
    tolerance = 1e-12 if dtype == np.float64 else 2e-5
    for given in (X, sp.csr_matrix(X)):
        found = est.loss_and_gradients(given, y, sample_weight)
        np.testing.assert_allclose(found.loss, expected.loss, rtol=tolerance)
        pairs = zip([*found.coefs, *found.intercepts], [*expected.coefs, *expected.intercepts], strict=True)
        for ours, theirs in pairs:
            assert ours.dtype == dtype
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_the_loss_is_that_of_a_step():
    X, y, sample_weight = make_problem("multiclass")
    est = trained("multiclass", alpha=0.3, l1_ratio=0.2, class_weight={0: 2.0, 1: 1.0, 2: 0.5})
    loss = est.loss_and_gradients(X, y, sample_weight).loss
    assert loss == pytest.approx(est.train_on_batch(X, y, sample_weight), rel=1e-14)
    assert est.loss_and_gradients(X, y, sample_weight).loss < loss


def test_gradients_of_lbfgs_vanish_at_the_solution():
    X, y, _ = make_problem("regression")
    X = X.astype(np.float32)
    est = MLPRegressor(hidden_layer_sizes=(), solver="lbfgs", tol=1e-9, max_iter=1000).fit(X, y)
    loss, coefs, intercepts = est.loss_and_gradients(X, y)
    assert loss == pytest.approx(est.loss_, rel=1e-12)
    assert max(np.abs(coefs[0]).max(), np.abs(intercepts[0]).max()) < 1e-4
    assert np.abs(est.initialize(X, y).loss_and_gradients(X, y).coefs[0]).max() > 0.1


def test_gradients_with_standardized_targets_are_in_the_units_of_y():
    X, y, _ = make_problem("regression")
    est = trained("regression", standardize_y=True)
    same = trained("regression")
    same.set_weights(est.get_weights())
    loss, coefs, _ = est.loss_and_gradients(X, 10 * y)
    expected, theirs, _ = same.loss_and_gradients(X, 10 * y)
    assert loss == expected
    np.testing.assert_array_equal(coefs[0], theirs[0])


def test_gradients_refuse():
    X, y, _ = make_problem("multiclass")
    est = trained("multiclass")
    with pytest.raises(ValueError, match="classes"):
        est.loss_and_gradients(X, y + 1)
    with pytest.raises(ValueError, match="sums to zero"):
        est.loss_and_gradients(X, y, np.where(np.arange(len(y)) % 2, 1.0, -1.0))
    with pytest.raises(ValueError, match="no variance"):
        trained("multiclass", batch_norm=True).loss_and_gradients(X[:1], y[:1])
    with pytest.raises(NotFittedError):
        MLPClassifier().loss_and_gradients(X, y)


def test_results_can_be_pickled():
    X, y, _ = make_problem("binary")
    found = trained("binary", batch_norm=True).loss_and_gradients(X, y)
    copied = pickle.loads(pickle.dumps(found))
    assert copied.loss == found.loss
    np.testing.assert_array_equal(copied.bn_scales_[0], found.bn_scales_[0])


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"batch_norm": [False, True]}, {"activation": ["prelu", "tanh"]}], ids=str)
def test_weights_there_and_back(options):
    X, y, _ = make_problem("multiclass")
    one = trained("multiclass", **options)
    other = MLPClassifier(**SMALL | options | {"random_state": 1}).initialize(X, y)
    given = one.get_weights()
    assert [w.shape for w in given[:6]] == [(6, 7), (7,), (7, 5), (5,), (5, 3), (3,)]
    W = other.coefs_[0]
    other.set_weights(given)
    assert other.coefs_[0] is not None and np.shares_memory(W, other.coefs_[0])
    np.testing.assert_array_equal(other.predict_proba(X), one.predict_proba(X))
    given[0][...] = 0  # copies
    assert one.coefs_[0].any() and other.coefs_[0].any()


def test_weights_that_are_refused():
    X, y, _ = make_problem("multiclass")
    est = MLPClassifier(**SMALL).initialize(X, y)
    before, given = est.get_weights(), est.get_weights()
    wrong = [
        (given[:-1], "list of 6 arrays"),
        (None, "got None"),
        ([w + 1j for w in given], r"weights\[0\].*array of numbers"),
        ([[[1, 2], [3]], *given[1:]], r"weights\[0\].*array of numbers"),
        ([*given[:-1], np.zeros(4)], r"weights\[5\] \(intercepts_\[2\]\) must have shape \(3,\), got \(4,\)"),
        ([*given[:-1], ["a", "b", "c"]], r"weights\[5\].*array of numbers"),
    ]
    for weights_, text in wrong:
        given[0][...] = 7
        with pytest.raises(ValueError, match=text):
            est.set_weights(weights_)
    for ours, theirs in zip(est.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    given[0][0, 0] = np.nan
    est.set_weights(given)
    assert np.isnan(est.coefs_[0][0, 0])
    with pytest.raises(NotFittedError):
        MLPClassifier().set_weights(given)


def test_read_only_weights_are_replaced():
    X, y, _ = make_problem("regression")
    est = trained("regression")
    frozen = np.concatenate([w.ravel() for w in (*est.coefs_, *est.intercepts_)])
    frozen.flags.writeable = False
    est._expose(est._fitted_network(), frozen)
    given = [w + 1 for w in est.get_weights()]
    est.set_weights(given)
    np.testing.assert_array_equal(est.coefs_[0], given[0])
    est.partial_fit(X, y)


# --- a step at a time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_norm": True, "dropout": 0.3}, {"solver": "sgd", "learning_rate": "cosine"}, {"standardize_y": True}],
    ids=str,
)
def test_steps_make_an_epoch(backend, options):
    """Steps on the batches of an unshuffled epoch are the epoch, bit for bit."""
    X, y, _ = make_problem("regression")
    whole, steps = (MLPRegressor(**SMALL, shuffle=False, backend=backend, **options).initialize(X, y) for _ in range(2))
    for _ in range(2):
        whole.partial_fit(X, y)
        losses = [steps.train_on_batch(X[i : i + 20], y[i : i + 20]) for i in range(0, len(X), 20)]
        for ours, theirs in zip(steps.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert np.mean(losses) == pytest.approx(whole.loss_, rel=1e-14)
    assert steps.t_ == whole.t_ == 2 * len(X)
    assert steps.n_iter_ == 0 and steps.loss_curve_ == [] and steps.loss_ == losses[-1]


def test_steps_go_on_from_a_fit():
    X, y, _ = make_problem("multiclass")
    est = trained("multiclass")
    n_steps, curve = est._training.optimizer.t, list(est.loss_curve_)
    est.train_on_batch(X[:1], y[:1])  # one class alone
    assert est._training.optimizer.t == n_steps + 1
    assert est.n_iter_ == 3 and est.loss_curve_ == curve
    before = est.get_weights()
    assert np.isnan(est.train_on_batch(X, y, np.zeros(len(y))))
    for ours, theirs in zip(est.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_steps_whatever_the_batch_size():
    X, y, _ = make_problem("regression")
    params = SMALL | {"batch_norm": True, "drop_last": True}
    large, one, dropped = (MLPRegressor(**params | {"batch_size": size}).initialize(X, y) for size in (80, 20, 64))
    large.set_params(batch_size=1000)
    for est in (large, one, dropped):
        est.train_on_batch(X, y)
        np.testing.assert_array_equal(est.coefs_[0], large.coefs_[0])
    assert one.set_params(batch_size=1).train_on_batch(X, y) == large.train_on_batch(X, y)


def test_steps_refuse():
    X, y, _ = make_problem("multiclass")
    est = MLPClassifier(**SMALL, warm_start=True)
    with pytest.raises(NotFittedError, match="initialize"):
        est.train_on_batch(X, y)
    est.initialize(X, y)
    est.train_on_batch(X[y == 0], y[y == 0])  # a batch need not have every class
    with pytest.raises(ValueError, match="classes"):
        est.train_on_batch(X, y + 1)
    with pytest.raises(AttributeError, match="lbfgs"):
        MLPClassifier(solver="lbfgs").initialize(X, y).train_on_batch(X, y)
    with pytest.raises(ValueError, match="train_on_batch does not support early_stopping=True"):
        MLPClassifier(early_stopping=True).initialize(X, y).train_on_batch(X, y)
    with pytest.raises(ValueError, match="no variance"):
        MLPClassifier(batch_norm=True).initialize(X, y).train_on_batch(X[:1], y[:1])
    with pytest.raises(ValueError, match="cancel"):
        est.train_on_batch(X, y, np.where(np.arange(len(y)) % 2, 1.0, -1.0))
