"""to_torch and from_torch: PyTorch predicts and trains as the estimators do, and the weights come back bit for bit."""

import copy
import doctest
import io
import pickle
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import MLPClassifier as Original
from sklearn.pipeline import make_pipeline

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.kernels import formulas
from fastmlp.saving.torch_table import ACTIVATIONS

from exported import N_FEATURES, TASKS, fitted, one_unit, outputs, rows
from small_training import swish

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # the fits are short

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}

#: Activations with other parameters than the default ones.
PARAMETERS = [
    ("leaky_relu", {"negative_slope": 0.3}),
    ("rrelu", {"lower": 0.1, "upper": 0.7}),
    ("elu", {"alpha": 0.7}),
    ("celu", {"alpha": 2.3}),
    ("softplus", {"beta": 0.6}),
    ("softplus", {"beta": 3.0}),
    ("hardtanh", {"min_val": -0.3, "max_val": 0.9}),
]

#: Options of layers -> the modules behind the first Linear.
OPTIONS = {
    "none": ({}, ["Tanh"]),
    "before": ({"batch_norm": True}, ["BatchNorm1d", "Tanh"]),
    "after": ({"batch_norm": "after"}, ["Tanh", "BatchNorm1d"]),
    "in the first": ({"batch_norm": ["after", False]}, ["Tanh", "BatchNorm1d"]),
    "dropout": ({"dropout": (0.2, 0.0), "batch_norm": [False, "before"]}, ["Tanh", "Dropout"]),
    "all": (
        {"dropout": 0.1, "input_dropout": 0.3, "batch_norm": ["after", "before"]},
        ["Tanh", "BatchNorm1d", "Dropout"],
    ),
}


@pytest.fixture(autouse=True)
def seed():
    """Let each test have the same first weights, whichever tests ran before."""
    torch.manual_seed(0)


def run(model, X):
    with torch.no_grad():
        return model(torch.tensor(X)).numpy()


def expected(estimator, X):
    """What a model with outputs="predictions" is to return: of two classes only the second's."""
    values = outputs(estimator, X)
    binary = hasattr(estimator, "predict_proba") and estimator.n_outputs_ == 1
    return values[:, 1:] if binary else values


def arrays(estimator):
    names = ("coefs_", "intercepts_", "bn_scales_", "bn_shifts_", "bn_means_", "bn_vars_", "prelu_slopes_")
    return {name: getattr(estimator, name) for name in names if hasattr(estimator, name)}


def assert_same_bits(a, b):
    ours, theirs = arrays(a), arrays(b)
    assert ours.keys() == theirs.keys()
    for name in ours:
        for one, other in zip(ours[name], theirs[name], strict=True):
            assert (one is None) == (other is None), name
            if one is not None:
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)


def given_of(estimator):
    """What from_torch must be told of an estimator."""
    given = {"loss": estimator.loss}
    if estimator.__class__ is MLPClassifier:
        multilabel = estimator._label_binarizer.y_type_.startswith("multilabel")
        given |= {"multilabel": True} if multilabel else {"classes": estimator.classes_}
    return given


# --- to PyTorch -------------------------------------------------------------------------------------------------------


def test_every_activation_of_ours_but_these_has_a_module():
    assert {name for name, row in formulas.ACTIVATIONS.items() if row.hidden} - ACTIVATIONS.keys() == {"step"}


@pytest.mark.parametrize("activation", [*ACTIVATIONS, *PARAMETERS], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations(activation, dtype):
    z = np.array([-80, -30, -6, -3, -1, -0.3, -1e-3, 0, 1e-9, 1e-3, 0.9, 1, 3, 6, 25, 30, 80], dtype=dtype)[:, None]
    estimator = one_unit(activation, dtype)
    if activation == "prelu":
        estimator.prelu_slopes_[0][...] = -0.4
    model = estimator.to_torch()
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(run(model, z)[:, 0], estimator.predict(z), rtol=tolerance, atol=tolerance)
    wide = fitted("multiclass", dtype, activation)
    again = fastmlp.from_torch(wide.to_torch(), classes=wide.classes_)
    assert again.activation == activation
    assert_same_bits(again, wide)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tasks_there_and_back(task, dtype):
    estimator, X, tolerance = fitted(task, dtype), rows(dtype, seed=3), TOLERANCE[dtype]
    logits = fastmlp.to_torch(estimator)
    assert [type(module).__name__ for module in logits] == ["Linear", "Tanh", "Linear", "Tanh", "Linear"]
    assert not logits.training and {p.dtype for p in logits.parameters()} == {getattr(torch, np.dtype(dtype).name)}
    again = fastmlp.from_torch(logits, **given_of(estimator))
    assert type(again) is type(estimator) and again.out_activation_ == estimator.out_activation_
    assert_same_bits(again, estimator)
    assert (outputs(again, X) == outputs(estimator, X)).all()
    assert (again.predict(X) == estimator.predict(X)).all()
    if estimator.out_activation_ == "exp":
        with pytest.raises(ValueError, match=r"'exp' is no module of PyTorch: use outputs='logits' and torch\.exp"):
            estimator.to_torch(outputs="predictions")
        np.testing.assert_allclose(np.exp(run(logits, X)), expected(estimator, X), rtol=tolerance)
        return
    model = estimator.to_torch(outputs="predictions")
    np.testing.assert_allclose(run(model, X), expected(estimator, X), rtol=tolerance, atol=tolerance)
    assert_same_bits(fastmlp.from_torch(model, **given_of(estimator)), estimator)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("activation", ["tanh", "prelu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_options_there_and_back(name, activation, dtype):
    parameters, modules = OPTIONS[name]
    estimator, X = fitted("multiclass", dtype, activation, **parameters), rows(dtype, seed=3)
    model = estimator.to_torch(outputs="predictions")
    kinds = [type(module).__name__ for module in model]
    start = kinds.index("Linear") + 1
    first = kinds[start : kinds.index("Linear", start)]
    assert first == [{"Tanh": "PReLU"}.get(kind, kind) if activation == "prelu" else kind for kind in modules]
    tolerance = max(TOLERANCE[dtype], 1e-11 if parameters else 0)  # folded weights
    np.testing.assert_allclose(run(model, X), expected(estimator, X), rtol=tolerance, atol=tolerance)
    again = fastmlp.from_torch(model, classes=estimator.classes_)
    assert_same_bits(again, estimator)
    assert (outputs(again, X) == outputs(estimator, X)).all()
    asked = {name: getattr(estimator, name) for name in ("dropout", "input_dropout", "batch_norm")}
    normalised = {"before": True, True: True}
    for option, value in asked.items():
        found = getattr(again, option)
        each = [list(v) if isinstance(v, list | tuple) else [v] * 2 for v in (found, value)]
        assert [normalised.get(entry, entry) for entry in each[0]] == [
            normalised.get(entry, entry) for entry in each[1]
        ]


def test_models_are_plain_modules():
    estimator = fitted("binary", batch_norm=True)
    model = estimator.to_torch()
    content = io.BytesIO()
    torch.save(model.state_dict(), content)
    before = arrays(copy.deepcopy(estimator))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.mul_(0)
    for name, now in arrays(estimator).items():  # nothing is shared
        for one, other in zip(now, before[name], strict=True):
            np.testing.assert_array_equal(one, other)
    assert run(pickle.loads(pickle.dumps(model)), rows(np.float64)).shape == (40, 1)


def test_pytorch_trains_on_as_the_estimator_does():
    """A step of SGD of both: the same weights and running statistics."""
    X, y = rows(np.float64, n=20), np.arange(20) % 3
    parameters = {"solver": "sgd", "momentum": 0.0, "alpha": 0.0, "learning_rate_init": 0.1, "shuffle": False}
    estimator = MLPClassifier((6, 4), batch_norm=["before", "after"], max_iter=2, random_state=0, **parameters).fit(
        X, y
    )
    model = estimator.to_torch().train()
    nn.functional.cross_entropy(model(torch.tensor(X)), torch.tensor(y)).backward()
    with torch.no_grad():  # torch.optim takes seconds to import
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    ours = [estimator.partial_fit(X, y), fastmlp.from_torch(model, classes=[0, 1, 2])]
    for name, found in arrays(ours[0]).items():
        for one, other in zip(found, arrays(ours[1])[name], strict=True):
            if one is not None:
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("task", ["binary", "multilabel", "two outputs"])
def test_training_goes_on_from_pytorch(solver, task, tmp_path):
    make, _, targets = TASKS[task]
    X, y = rows(np.float64), targets(np.random.default_rng(0), 40)
    n = 1 if y.ndim == 1 else y.shape[1]
    model = nn.Sequential(nn.Linear(N_FEATURES, 7), nn.SiLU(), nn.Dropout(0.1), nn.Linear(7, n)).double()
    given = {"classes": [-4, 9]} if task == "binary" else {"multilabel": task == "multilabel"}
    if solver == "lbfgs":
        model[2] = nn.Identity()
    estimator = fastmlp.from_torch(model, solver=solver, warm_start=True, max_iter=5, random_state=0, **given)
    assert isinstance(estimator, make) and estimator.n_features_in_ == N_FEATURES
    start = estimator.coefs_[0].copy()
    estimator.save(tmp_path / "model")
    assert (fastmlp.load(tmp_path / "model").predict(X) == estimator.predict(X)).all()
    if solver == "lbfgs":
        estimator.fit(X, y)
    else:
        estimator.partial_fit(X, y).partial_fit(X, y)
        assert len(estimator.loss_curve_) == 2 and estimator.dropout == 0.1
        estimator.fit(X, y)
    assert (estimator.coefs_[0] != start).all() and np.abs(estimator.coefs_[0] - start).max() < 2
    assert str(estimator.summary()) and np.isfinite(estimator.predict(X)).all()


# --- from PyTorch -----------------------------------------------------------------------------------------------------


def seq(*modules):
    torch.manual_seed(0)
    return nn.Sequential(*modules).double().eval()


def linear(*widths, between=nn.Tanh):
    pairs = [module for fan in pairwise(widths) for module in (nn.Linear(*fan), between())]
    return pairs[:-1]


def test_two_outputs_of_two_classes_become_one():
    X = rows(np.float64)
    model = seq(*linear(N_FEATURES, 6, 2))
    p = torch.softmax(torch.tensor(run(model, X)), 1).numpy()
    for end in ([], [nn.Softmax(dim=1)], [nn.LogSoftmax(dim=-1)]):
        estimator = fastmlp.from_torch(nn.Sequential(*model, *end), classes=["no", "yes"])
        np.testing.assert_allclose(estimator.predict_proba(X), p, rtol=1e-12)
        assert estimator.n_outputs_ == 1 and set(estimator.predict(X)) <= {"no", "yes"}
    turned = fastmlp.from_torch(model, classes=["yes", "no"])
    np.testing.assert_allclose(turned.predict_proba(X), p[:, ::-1], rtol=1e-12)


@pytest.mark.parametrize("classes", [["b", "a"], [3, -1], [True, False]])
def test_the_one_output_is_the_second_class(classes):
    X = rows(np.float64)
    model = seq(*linear(N_FEATURES, 6, 1))
    p = torch.sigmoid(torch.tensor(run(model, X))).numpy()[:, 0]
    estimator = fastmlp.from_torch(nn.Sequential(*model, nn.Sigmoid()), classes=classes)
    assert list(estimator.classes_) == sorted(classes)
    np.testing.assert_allclose(estimator.predict_proba(X)[:, sorted(classes).index(classes[1])], p, rtol=1e-12)
    assert (estimator.predict(X) == np.where(p > 0.5, classes[1], classes[0])).all()


def test_classes_are_those_of_the_outputs_in_their_order():
    X = rows(np.float64)
    model, classes = seq(*linear(N_FEATURES, 6, 4), nn.Softmax(dim=1)), np.array(["c", "a", "d", "b"])
    estimator = fastmlp.from_torch(model, classes=classes)
    assert list(estimator.classes_) == ["a", "b", "c", "d"]
    assert (estimator.predict(X) == classes[run(model, X).argmax(axis=1)]).all()
    np.testing.assert_allclose(estimator.predict_proba(X), run(model, X)[:, np.argsort(classes)], rtol=1e-12)


def test_what_is_looked_through():
    X = rows(np.float64)
    inner = nn.Sequential(
        nn.Linear(N_FEATURES, 4), nn.Identity(), nn.BatchNorm1d(4, affine=False), nn.ReLU(inplace=True)
    )
    model = seq(
        nn.Flatten(), nn.Identity(), inner, nn.Identity(), nn.Linear(4, 3, bias=False), nn.PReLU(), nn.Linear(3, 2)
    )
    model.append(nn.Identity())
    with torch.no_grad():
        inner[2].running_mean.add_(0.3)
        inner[2].running_var.mul_(2.0)
    estimator = fastmlp.from_torch(model)
    assert estimator.activation == ["relu", "prelu"] and estimator.batch_norm == ["before", False]
    np.testing.assert_allclose(estimator.predict(X), run(model, X), rtol=1e-11)
    assert (estimator.prelu_slopes_[1] == 0.25).all() and (estimator.intercepts_[1] == 0).all()
    bare = fastmlp.from_torch(seq(nn.Linear(N_FEATURES, 3), nn.Linear(3, 1)))
    assert bare.activation == "identity" and bare.hidden_layer_sizes == (3,)
    assert fastmlp.from_torch(seq(nn.Linear(N_FEATURES, 1))).hidden_layer_sizes == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_small_dtypes_become_float32(dtype):
    model = seq(*linear(N_FEATURES, 4, 1)).to(dtype)
    estimator = fastmlp.from_torch(model)
    assert estimator.coefs_[0].dtype == np.float32
    np.testing.assert_array_equal(estimator.coefs_[0], model[0].weight.detach().float().numpy().T)


def test_regressors_with_other_losses():
    X = rows(np.float64)
    model = seq(*linear(N_FEATURES, 4, 3))
    poisson = fastmlp.from_torch(model, loss="poisson", solver="adamw")
    np.testing.assert_allclose(poisson.predict(X), np.exp(run(model, X)), rtol=1e-12)
    assert poisson.solver == "adamw" and poisson.out_activation_ == "exp"
    shares = fastmlp.from_torch(nn.Sequential(*model, nn.Softmax(dim=1)), loss="kl_divergence")
    np.testing.assert_allclose(shares.predict(X).sum(axis=1), 1)
    hinge = fastmlp.from_torch(model, classes=[0, 1, 2], loss="hinge")
    np.testing.assert_allclose(hinge.decision_function(X), run(model, X), rtol=1e-12)


def test_another_momentum_is_said():
    model = seq(nn.Linear(N_FEATURES, 4), nn.BatchNorm1d(4, momentum=0.01), nn.ReLU(), nn.Linear(4, 1))
    with pytest.warns(UserWarning, match=r"momentum=0\.01, training goes on with 0\.1"):
        fastmlp.from_torch(model)


class Own(nn.Module):
    def forward(self, x):
        return x


WRONG_MODELS = {
    "module 1, GLU(dim=-1), is neither Linear, BatchNorm1d, Dropout nor one of": seq(
        nn.Linear(5, 4), nn.GLU(), nn.Linear(2, 1)
    ),
    "module 1.0, Own(), is neither Linear": seq(nn.Linear(5, 4), seq(Own()), nn.Linear(4, 1)),
    "module 0, LayerNorm": seq(nn.LayerNorm(5), nn.Linear(5, 1)),
    "track_running_stats=True), stands before the first Linear": seq(nn.BatchNorm1d(5), nn.Linear(5, 1)),
    "module 0, Tanh(), stands before the first Linear": seq(nn.Tanh(), nn.Linear(5, 1)),
    "module 2, ReLU(), is the second activation": seq(nn.Linear(5, 4), nn.Tanh(), nn.ReLU(), nn.Linear(4, 1)),
    "is the second normalisation": seq(
        nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 1)
    ),
    "has eps=0.001, batch_norm has 1e-05": seq(nn.Linear(5, 4), nn.BatchNorm1d(4, eps=1e-3), nn.Linear(4, 1)),
    "has no running statistics": seq(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 1)),
    "normalises 3 features, but the layer before it has 4": seq(nn.Linear(5, 4), nn.BatchNorm1d(3), nn.Linear(4, 1)),
    "module 2, Tanh(), stands behind the Dropout of its layer": seq(
        nn.Linear(5, 4), nn.Dropout(), nn.Tanh(), nn.Linear(4, 1)
    ),
    "is the second dropout of its layer": seq(nn.Linear(5, 4), nn.Dropout(), nn.Dropout(), nn.Linear(4, 1)),
    "is the second dropout of the features": seq(nn.Dropout(), nn.Dropout(), nn.Linear(5, 1)),
    "module 1, Tanh(), stands behind the last Linear": seq(nn.Linear(5, 1), nn.Tanh()),
    "module 1, Dropout(p=0.5, inplace=False), stands behind the last": seq(nn.Linear(5, 1), nn.Dropout(0.5)),
    "module 1, Softmax(dim=0), must work on dim=1": seq(nn.Linear(5, 3), nn.Softmax(dim=0)),
    "reads 3 features, but the layer before it has 4": seq(nn.Linear(5, 4), nn.Linear(3, 1)),
    "has 3 slopes, its layer has 4 neurons": seq(nn.Linear(5, 4), nn.PReLU(3), nn.Linear(4, 1)),
    "the model has no torch.nn.Linear": seq(nn.Tanh()),
    "has no weights yet: call the model once": nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4), nn.LazyLinear(2), nn.Linear(2, 1)
    ),
    "has weights of torch.complex64": nn.Sequential(nn.Linear(5, 1, dtype=torch.complex64)),
    "module 0, ParametrizedLinear": seq(nn.utils.parametrizations.weight_norm(nn.Linear(5, 1))),
    "has hooks, which may compute anything": seq(nn.utils.spectral_norm(nn.Linear(5, 1))),
    "has no weights yet: it is on the device 'meta'": nn.Sequential(nn.Linear(5, 1, device="meta")),
    "dropout=1 drops every unit": seq(nn.Linear(5, 4), nn.Dropout(1.0), nn.Linear(4, 1)),
}


@pytest.mark.parametrize("message", WRONG_MODELS)
def test_modules_that_cannot_be_taken_are_named(message):
    with pytest.raises(ValueError) as caught:
        fastmlp.from_torch(WRONG_MODELS[message])
    assert message in str(caught.value)


def test_weights_that_are_not_finite_are_refused():
    model = seq(*linear(5, 4, 1))
    with torch.no_grad():
        model[2].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"module 2, Linear.* has weights that are not finite"):
        fastmlp.from_torch(model)


ONE, THREE = seq(*linear(5, 4, 1)), seq(*linear(5, 4, 3))


@pytest.mark.parametrize(
    "model, given, error, message",
    [
        (nn.Linear(5, 1), {}, TypeError, r"from_torch converts a torch\.nn\.Sequential, got Linear"),
        (Own(), {}, TypeError, "got Own: build a Sequential of its modules"),
        (MLPClassifier(), {}, TypeError, "got MLPClassifier"),
        (ONE, {"classes": [1]}, ValueError, r"classes must be 2 different labels for 1 outputs, got \[1\]"),
        (THREE, {"classes": ["a", "b"]}, ValueError, "classes must be 3 different labels for 3 outputs"),
        (THREE, {"classes": ["a", "b", "a"]}, ValueError, "classes must be 3 different labels"),
        (THREE, {"classes": 3}, ValueError, "classes must be 3 different labels"),
        (THREE, {"classes": ["a", 1, None]}, ValueError, "classes must be whole numbers or texts, got"),
        (THREE, {"classes": [0.5, 1.5, 2.5]}, ValueError, "classes must be whole numbers or texts, got"),
        (ONE, {"multilabel": True}, ValueError, "two or more outputs"),
        (THREE, {"multilabel": True, "classes": ["a", "b", "c"]}, ValueError, "classes must be left out"),
        (nn.Sequential(*THREE, nn.Softmax(dim=1)), {}, ValueError, r"Softmax.* does not fit regression.*give classes"),
        (nn.Sequential(*THREE, nn.Sigmoid()), {"classes": [0, 1, 2]}, ValueError, "Sigmoid.* does not fit multiclass"),
        (nn.Sequential(*THREE, nn.Softmax(dim=1)), {"multilabel": True}, ValueError, "does not fit multilabel"),
        (nn.Sequential(*seq(*linear(5, 2)), nn.Sigmoid()), {"classes": [0, 1]}, ValueError, "give multilabel=True"),
        (nn.Sequential(*ONE, nn.Softmax(dim=1)), {"classes": [0, 1]}, ValueError, "does not fit binary"),
        (ONE, {"hidden_layer_sizes": (4,)}, TypeError, "hidden_layer_sizes is stated by the modules"),
        (ONE, {"batch_norm": True}, TypeError, "batch_norm is stated by the modules"),
        (ONE, {"brand_new": 1}, TypeError, "brand_new"),
        (ONE, {"loss": "log_loss"}, ValueError, "loss"),
        (ONE, {"alpha": -1}, ValueError, "alpha"),
        (THREE, {"classes": [0, 1, 2], "loss": "squared_error"}, ValueError, "loss"),
    ],
)
def test_what_does_not_fit_is_refused(model, given, error, message):
    with pytest.raises(error, match=message):
        fastmlp.from_torch(model, **given)


@pytest.mark.parametrize("estimator", [Original(), make_pipeline(MLPClassifier()), None, MLPClassifier])
def test_other_estimators_are_refused(estimator):
    from fastmlp.saving.to_torch import to_torch

    with pytest.raises(TypeError, match=r"to_torch converts MLPClassifier and MLPRegressor, got \w+"):
        to_torch(estimator)


def test_what_pytorch_lacks_is_refused():
    with pytest.raises(NotFittedError):
        MLPRegressor().to_torch()
    for activation in (["tanh", "step"], ["tanh", swish]):
        with pytest.raises(
            ValueError, match=r"activation=.* of hidden layer 2 is no module of PyTorch, which has \['id"
        ):
            fitted("regression", activation=activation).to_torch()
    with pytest.raises(ValueError, match="outputs must be 'logits' or 'predictions', got 'proba'"):
        fitted("regression").to_torch(outputs="proba")


def test_without_torch(monkeypatch):
    estimator = fitted("binary")
    monkeypatch.setitem(sys.modules, "torch", None)
    for function in (estimator.to_torch, lambda: fastmlp.from_torch(ONE)):
        with pytest.raises(ImportError, match=r'needs torch: pip install "fastmlp\[torch\]"'):
            function()


def test_sessions_of_the_guide():
    guide = Path(__file__).resolve().parents[1] / "docs" / "persistence.md"
    text = "\n".join(re.findall(r"^```pycon\n(.*?)^```$", guide.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(text, {}, guide.name, str(guide), 0)
    assert len(test.examples) > 5
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test)
    assert result.failed == 0
