"""frozen_layers and fit_intercept=False: what stays, bit for bit; what is trained, by PyTorch and scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.kernels import formulas
from fastmlp.model.network import Network
from fastmlp.training.factors import LEARNING_RATES, freezing
from fastmlp.training.optimizers import SOLVERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

rng = np.random.RandomState(0)
X = rng.randn(60, 5)
Y = X[:, :3].argmax(axis=1)
VALUES = np.column_stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2] + 1.0])
STEPS = {"weight_decay": 0.1, "max_grad_norm": 0.1, "batch_norm": True, "batch_size": 16, "learning_rate_init": 0.01}


def network(solver="adam", **params):
    steps = {} if solver == "lbfgs" else STEPS
    defaults = {"hidden_layer_sizes": (7, 6), "activation": "prelu", "max_iter": 3, "random_state": 0, "alpha": 0.1}
    return MLPClassifier(solver=solver, **{**defaults, **steps, **params})


def arrays(model, layer):
    """The arrays of a layer that are trained."""
    of_units = [getattr(model, name, None) for name in ("bn_scales_", "bn_shifts_", "prelu_slopes_")]
    found = [model.coefs_[layer], model.intercepts_[layer]]
    return found + [arrays[layer] for arrays in of_units if arrays is not None and layer < len(arrays)]


def start(model):
    return ([W.copy() for W in model.coefs_], [b.copy() for b in model.intercepts_])


def test_the_first_scalar_of_every_rule_is_a_rate():
    """By its factor engines know a frozen segment."""
    assert all(row.scalars[0] in LEARNING_RATES for row in formulas.OPTIMIZERS.values())


@pytest.mark.parametrize("backend", ["cython", "reference"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_no_step_changes_what_is_frozen(solver, backend):
    free = network(solver, backend=backend).fit(X, Y)
    first = network(solver, backend=backend, frozen_layers=[0, 1, 2]).fit(X, Y)  # nothing is trained
    model = network(solver, backend=backend, frozen_layers=[0, -1]).fit(X, Y)
    for layer in (0, 2):
        for array, before, elsewhere in zip(*(arrays(m, layer) for m in (model, first, free)), strict=True):
            np.testing.assert_array_equal(array, before)
            assert (array != elsewhere).any()
    assert all((array != before).any() for array, before in zip(arrays(model, 1), arrays(first, 1), strict=True))


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("solver", ["sgd", "adamw"])
def test_other_layers_are_trained_as_by_pytorch(solver, n_jobs):
    """With momentum, decoupled decay and a norm that is limited: all of them of the other layers alone."""
    torch = pytest.importorskip("torch", reason="PyTorch judges here: pip install fastmlp[judges]")
    free = network(batch_norm=False, activation="tanh", max_iter=1).fit(X, Y)
    coefs, intercepts = start(free)
    layers = [torch.nn.Linear(*W.shape, dtype=torch.float64) for W in coefs]
    for layer, W, b in zip(layers, coefs, intercepts, strict=True):
        layer.weight.data.copy_(torch.tensor(W.T))
        layer.bias.data.copy_(torch.tensor(b))
    layers[1].requires_grad_(False)
    net = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1], torch.nn.Tanh(), layers[2])
    trained = [p for p in net.parameters() if p.requires_grad]
    kinds = {
        "sgd": lambda: torch.optim.SGD(trained, lr=0.05, momentum=0.9),
        "adamw": lambda: torch.optim.AdamW(trained, lr=0.05, weight_decay=0.1),
    }
    optimizer = kinds[solver]()
    for _ in range(10):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(torch.tensor(X)), torch.tensor(Y)).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()

    given = {"learning_rate_init": 0.05, "momentum": 0.9, "nesterovs_momentum": False, "alpha": 0.0, "max_iter": 10}
    decay = 0.1 if solver == "adamw" else 0.0
    model = network(solver, batch_norm=False, activation="tanh", batch_size=60, weight_decay=decay, n_jobs=n_jobs)
    model.set_params(frozen_layers=(1,), **given).fit(X, Y, coef_init=coefs, intercept_init=intercepts)
    np.testing.assert_array_equal(model.coefs_[1], coefs[1])
    for layer, W, b in zip(layers, model.coefs_, model.intercepts_, strict=True):
        np.testing.assert_allclose(W, layer.weight.detach().numpy().T, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(b, layer.bias.detach().numpy(), rtol=1e-9, atol=1e-11)


def test_lbfgs_over_frozen_hidden_layers_is_a_ridge_regression():
    model = MLPRegressor(
        hidden_layer_sizes=(20,), activation="tanh", solver="lbfgs", alpha=0.5, tol=1e-9, max_iter=2000, random_state=0
    )
    model.set_params(frozen_layers=[0]).fit(X, VALUES[:, 0])
    hidden = np.tanh(X @ model.coefs_[0] + model.intercepts_[0])
    ridge = Ridge(alpha=0.5).fit(hidden, VALUES[:, 0])
    np.testing.assert_allclose(model.coefs_[1].ravel(), ridge.coef_, atol=1e-3)
    np.testing.assert_allclose(model.predict(X), ridge.predict(hidden), atol=1e-3)


def test_layers_thaw_between_calls_of_partial_fit(tmp_path):
    model = network(frozen_layers=[0, 1]).fit(X, Y)
    before, last = model.coefs_[0].copy(), model.coefs_[2].copy()
    model.partial_fit(X, Y)
    np.testing.assert_array_equal(model.coefs_[0], before)
    assert (model.coefs_[2] != last).any()
    model.save(tmp_path / "model.safetensors", optimizer_state=True)
    model.set_params(frozen_layers=None).partial_fit(X, Y)
    assert (model.coefs_[0] != before).any()
    # a file goes on with the layers frozen
    loaded = fastmlp.load(tmp_path / "model.safetensors")
    assert loaded.frozen_layers == [0, 1]
    np.testing.assert_array_equal(loaded.partial_fit(X, Y).coefs_[0], before)


def test_pre_trained_layers_serve_another_task():
    first = MLPRegressor(hidden_layer_sizes=(8, 6), solver="lbfgs", random_state=0).fit(X, VALUES)
    coefs, intercepts = start(first)
    start_with = {"coef_init": [*coefs[:-1], None], "intercept_init": [*intercepts[:-1], None]}
    model = MLPClassifier((8, 6), frozen_layers=[0, 1], random_state=0, max_iter=3).fit(X, Y, **start_with)
    for layer in (0, 1):
        np.testing.assert_array_equal(model.coefs_[layer], coefs[layer])
    assert model.coefs_[2].shape == (6, 3)


@pytest.mark.parametrize("given", [[3], [-4], [0.0], ["a"], [True], [[0]], [None]], ids=str)
def test_what_is_no_layer(given):
    with pytest.raises(ValueError, match=r"frozen_layers=.* must hold indices of the network's 3 layers, from -3 to 2"):
        network(frozen_layers=given).fit(X, Y)


def test_a_number_alone_is_refused():
    with pytest.raises(ValueError, match="'frozen_layers' parameter of MLPClassifier must be"):
        network(frozen_layers=0).fit(X, Y)


def test_no_factors_where_nothing_is_frozen():
    net = Network((4, 3, 2), ("relu",), "log_loss", np.dtype(np.float64))
    assert freezing(net, (), False) is None
    assert freezing(net, {1}, True).lr.tolist() == [1, 0, 0, 0]
    assert network(frozen_layers=()).fit(X, Y)._optimizer.factors is None


# --- without biases ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_biases_are_and_stay_zero(solver):
    model = network(solver, fit_intercept=False).fit(X, Y)
    assert not any(b.any() for b in model.intercepts_)
    if solver != "lbfgs":
        assert not any(b.any() for b in model.partial_fit(X, Y).intercepts_)


def test_weights_are_drawn_as_with_biases():
    frozen = [0, 1, 2]
    with_biases, without = (network(frozen_layers=frozen, fit_intercept=fit).fit(X, Y) for fit in (True, False))
    for W, same in zip(with_biases.coefs_, without.coefs_, strict=True):
        np.testing.assert_array_equal(W, same)


def test_linear_models_without_intercept():
    model = MLPRegressor(hidden_layer_sizes=(), solver="lbfgs", alpha=0.0, tol=1e-10, fit_intercept=False).fit(
        X, VALUES
    )
    np.testing.assert_allclose(model.coefs_[0].T, LinearRegression(fit_intercept=False).fit(X, VALUES).coef_, atol=1e-4)
    classifier = MLPClassifier((), solver="lbfgs", alpha=0.5, tol=1e-10, fit_intercept=False, max_iter=1000)
    judge = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-10, max_iter=1000).fit(X, Y)
    np.testing.assert_allclose(classifier.fit(X, Y).predict_proba(X), judge.predict_proba(X), atol=1e-3)


def test_pytorchs_layers_without_bias():
    torch = pytest.importorskip("torch", reason="PyTorch judges here: pip install fastmlp[judges]")
    coefs, _ = start(network(batch_norm=False, max_iter=1).fit(X, Y))
    layers = [torch.nn.Linear(*W.shape, bias=False, dtype=torch.float64) for W in coefs]
    for layer, W in zip(layers, coefs, strict=True):
        layer.weight.data.copy_(torch.tensor(W.T))
    net = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1], torch.nn.Tanh(), layers[2])
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05, weight_decay=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(torch.tensor(X)), torch.tensor(Y)).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.05)
        optimizer.step()
    model = network("adamw", batch_norm=False, activation="tanh", batch_size=60, max_iter=10)
    model.set_params(fit_intercept=False, alpha=0.0, learning_rate_init=0.05, max_grad_norm=0.05)
    model.fit(X, Y, coef_init=coefs)
    for layer, W in zip(layers, model.coefs_, strict=True):
        np.testing.assert_allclose(W, layer.weight.detach().numpy().T, rtol=1e-9, atol=1e-11)


def test_summary_counts_what_is_trained():
    plain = MLPClassifier((5, 5), max_iter=1, random_state=0).fit(X[:, :4], Y)
    assert fastmlp.summary(plain).n_params == fastmlp.summary(plain).n_trained == 73
    model = MLPClassifier((5, 5), max_iter=1, fit_intercept=False, frozen_layers=[1]).fit(X[:, :4], Y)
    found = fastmlp.summary(model)
    assert (found.n_params, found.n_trained) == (60, 35)
    assert [layer.activation for layer in found.layers] == [
        "relu, no biases",
        "relu, no biases, frozen",
        "softmax, no biases",
    ]
    assert "60 parameters: 35 learned and 25 frozen" in str(found)
    assert "3 running statistics" not in str(found)


def test_combinations_that_make_no_sense():
    zeros = [np.zeros(7), np.zeros(6), np.zeros(3)]
    with pytest.raises(ValueError, match="intercept_init makes no sense with fit_intercept=False: all biases are 0"):
        network(fit_intercept=False).fit(X, Y, intercept_init=zeros)
    for params in ({"fit_intercept": False}, {"frozen_layers": [-1]}):
        with pytest.raises(ValueError, match=f"{next(iter(params))}=.* makes no sense with standardize_y=True"):
            MLPRegressor(hidden_layer_sizes=(4,), standardize_y=True, **params).fit(X, VALUES)
    model = network(warm_start=True).fit(X, Y).set_params(fit_intercept=False)
    with pytest.raises(ValueError, match="the fitted network has intercepts_ that are not 0: it needs a new fit"):
        model.fit(X, Y)
    assert not any(b.any() for b in model.set_params(warm_start=False).fit(X, Y).intercepts_)
