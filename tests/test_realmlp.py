"""RealMLP's recipe: its network, first values, factors and schedules, by the paper's definitions and by its authors'
package."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import make_friedman1

from fastmlp import RealMLPClassifier, RealMLPRegressor
from fastmlp.model.tabular_initialization import MOST_ROWS

from tabular_fits import small, table, targets_of

FRAME, VALUES = table()
LABELS = targets_of("RealMLPClassifier", VALUES)
EPOCHS, STEPS = 8, 2  # 96 training rows in whole batches of 40


def optimizer_of(estimator, X, y):
    """Fit and return the optimizer."""
    seen = []

    def look(info):
        seen.append(info.estimator._optimizer)

    estimator.set_params(callbacks=[look]).fit(X, y)
    return seen[0]


def first_values(estimator, X, y, monkeypatch):
    """Return (member, {(name, layer): first values}) of a fit."""
    found = {}
    original = type(estimator)._first_params

    def keep(self, network, *args):
        params = original(self, network, *args)
        found["member"] = self
        found.update({(s.name, s.layer): s.view(params.copy()) for s in network.segments})
        return params

    monkeypatch.setattr(type(estimator), "_first_params", keep)
    estimator.fit(X, y)
    return found.pop("member"), found


# --- the network ------------------------------------------------------------------------------------------------------


def test_the_network_of_td():
    network = small("RealMLPClassifier").fit(FRAME, LABELS).network_
    kinds = [block.kind for block in network.inputs]
    assert kinds == ["periodic", "plain", "embedding"]
    periodic, plain, embedding = network.inputs
    assert (periodic.size, periodic.frequencies, periodic.n_features) == (3, 16, 3)
    assert plain.n_features == 3 + 3 + 1  # numbers, colours, whether age is missing
    assert (embedding.size, embedding.counts) == (8, (16,))  # 15 towns and the unknown one
    assert network.input_scale and network.parametric_activations and network.dropout == (0.15, 0.15)
    assert network.activations == ("selu", "selu") and network.loss == ("log_loss", {"label_smoothing": 0.1})
    regressor = small("RealMLPRegressor").fit(FRAME, VALUES).network_
    assert regressor.activations == ("mish", "mish") and regressor.loss == "squared_error"


def test_the_network_of_td_s():
    network = small("RealMLPClassifier", preset="td-s").fit(FRAME, LABELS).network_
    assert network.inputs == () and network.input_scale
    assert network.n_columns == 3 + 3 + 15 + 1
    assert not network.parametric_activations and not network.dropout


@pytest.mark.parametrize("cls", [RealMLPClassifier, RealMLPRegressor])
def test_defaults_are_the_published_ones(cls):
    member, is_classifier = cls()._member(), cls is RealMLPClassifier
    assert member.learning_rate_init == (0.04 if is_classifier else 0.2)
    assert (member.dropout, member.weight_decay, member.beta_2) == (0.15, 0.02, 0.95)
    assert (member.max_iter, member.batch_size, member.learning_rate) == (256, 256, "coslog4")
    assert member.max_one_hot_cat_size == 9 and member.embedding_size == 8
    simple = cls(preset="td-s")._member()
    assert simple.learning_rate_init == (0.04 if is_classifier else 0.07)
    assert (simple.dropout, simple.weight_decay, simple.num_emb_type) == (0, 0, "none")


# --- first values -----------------------------------------------------------------------------------------------------


def test_products_with_the_training_rows_have_deviation_1(monkeypatch):
    """Layer after layer, by NumPy: z = a W over the training rows, a of the layers before with their biases."""
    estimator = RealMLPRegressor(
        hidden_layer_sizes=(40, 30), activation="tanh", use_parametric_act=False, num_emb_type="none", max_iter=1,
        dtype="float64", validation_fraction=0, random_state=0,
    )  # fmt: skip
    member, first = first_values(estimator, FRAME.drop(columns="town"), VALUES, monkeypatch)
    a = member.coder_.transform(FRAME.drop(columns="town"), np.float64)
    for layer in range(3):
        z = a @ first["W", layer]
        np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-9)
        b = first["b", layer]
        assert ((z.min(axis=0) <= -b) & (-b <= z.max(axis=0))).all()  # a convex combination
        assert layer == 2 or 0.2 < b.std() < 1.5
        a = np.tanh(z + b)
    np.testing.assert_array_equal(first["input_scale", 0], 1)


def test_first_values_of_embeddings(monkeypatch):
    estimator = small("RealMLPRegressor", plr_sigma=0.3, plr_hidden_1=64, validation_fraction=0)
    _, first = first_values(estimator, FRAME, VALUES, monkeypatch)
    assert first["periodic_frequency", 0].shape == (3, 64)
    assert 0.2 < first["periodic_frequency", 0].std() < 0.4
    phase, V, b = (first[f"periodic_{name}", 0] for name in ("phase", "weight", "bias"))
    assert np.abs(phase).max() <= np.pi and 1.4 < phase.std() < 2.2  # pi / sqrt(3) = 1.81
    assert np.abs(V).max() <= 1 / 8 and 0.06 < V.std() < 0.085 and np.abs(b).max() <= 1 / 8
    assert 0.8 < first["embedding", 2].std() < 1.2
    np.testing.assert_array_equal(first["mix", 0], 1)


def test_first_values_of_td_s(monkeypatch):
    estimator = small("RealMLPRegressor", preset="td-s", hidden_layer_sizes=(200, 100))
    _, first = first_values(estimator, FRAME, VALUES, monkeypatch)
    for layer in (0, 1):
        V = first["W", layer] * np.sqrt(len(first["W", layer]))
        assert abs(V.mean()) < 0.1 and 0.95 < V.std() < 1.05
        assert 0.8 < first["b", layer].std() < 1.2
    assert not first["W", 2].any() and not first["b", 2].any()


def test_first_values_of_many_rows_look_at_a_part(monkeypatch):
    X, y = make_friedman1(MOST_ROWS + 2000, random_state=0)
    estimator = RealMLPRegressor(hidden_layer_sizes=(8,), max_iter=1, validation_fraction=0, random_state=0)
    _, first = first_values(estimator, X, y, monkeypatch)
    assert np.isfinite(first["W", 0]).all()


# --- training ---------------------------------------------------------------------------------------------------------


def test_factors_are_those_of_the_ntk_parametrisation():
    """A step on V of the rate f lr is one on W = g V of the rate g f lr with epsilon / g; decay has f^2."""
    estimator = small(
        "RealMLPRegressor", scale_lr_factor=5.0, bias_lr_factor=0.2, act_lr_factor=0.3, plr_lr_factor=0.4,
        first_layer_lr_factor=0.5,
    )  # fmt: skip
    optimizer = optimizer_of(estimator, FRAME, VALUES)
    network = estimator.network_
    names = ("step_size", "root_2", "beta_1", "beta_2", "epsilon")
    expected = {"input_scale": 5.0, "mix": 0.3, "embedding": 1.0}
    for segment, row, decay in zip(network.segments, optimizer.factors, optimizer.decay_factors, strict=True):
        gain, factor = 1.0, expected.get(segment.name, 0.4)
        if segment.name == "W":
            gain, factor = len(segment.view(np.empty(network.n_params))) ** -0.5, 0.5 if segment.layer == 0 else 1.0
        if segment.name == "b":
            factor = 0.2 * (0.5 if segment.layer == 0 else 1.0)
        got = dict(zip(names, row, strict=True))
        np.testing.assert_allclose(got["step_size"], factor * gain)
        np.testing.assert_allclose(got["epsilon"], 1 / gain)
        assert got["root_2"] == got["beta_1"] == got["beta_2"] == 1
        np.testing.assert_allclose(decay, 0 if segment.name == "b" else factor**2)


def test_schedules_are_those_of_the_paper():
    estimator = small("RealMLPClassifier", batch_size=40, max_iter=EPOCHS)
    optimizer = optimizer_of(estimator, FRAME, LABELS)
    assert optimizer.t == EPOCHS * STEPS
    optimizer.t = 0
    n = EPOCHS * STEPS
    t = np.arange(n) / n
    rate = 0.04 * 0.5 * (1 - np.cos(2 * np.pi * np.log2(1 + 15 * t)))
    falls = np.where(t < 0.5, 1, 0.5 * (1 + np.cos(np.pi * (2 * t - 1))))
    optimizer._forget()
    np.testing.assert_allclose(optimizer.scalars(n)[:, 0], rate / (1 - 0.9 ** np.arange(1, n + 1)), atol=1e-16)
    np.testing.assert_allclose(optimizer.decays(n), 0.02 * rate * falls, atol=1e-16)
    np.testing.assert_allclose(optimizer.dropouts(n), falls, atol=1e-12)
    assert optimizer.max_grad_norm is None


def test_all_epochs_are_the_plan():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator = small("RealMLPClassifier", batch_size=1000).fit(FRAME, LABELS)
        patient = small("RealMLPClassifier", n_iter_no_change=50).fit(FRAME, LABELS)
    assert estimator.n_iter_ == patient.n_iter_ == EPOCHS


def test_of_equally_good_epochs_the_last_one_is_kept():
    kept = []

    def look(info):
        kept.append([W.copy() for W in info.estimator.coefs_])

    X = np.linspace(-1, 1, 100)[:, None]
    y = (X.ravel() > 0).astype(int)
    estimator = RealMLPClassifier(hidden_layer_sizes=(16,), max_iter=20, callbacks=[look], random_state=0).fit(X, y)
    scores = np.array(estimator.validation_scores_)
    last = int(np.flatnonzero(scores == scores.max())[-1])
    assert last > int(scores.argmax())  # there are ties
    np.testing.assert_array_equal(estimator.coefs_[0], kept[last][0])


def test_stopping_early_is_the_packages_rule():
    """Training stops at the first epoch above 2 best + n_iter_no_change."""
    X, y = make_friedman1(100, random_state=0)
    estimator = RealMLPRegressor(
        hidden_layer_sizes=(16,), max_iter=300, n_iter_no_change=3, learning_rate="constant", random_state=0
    ).fit(X, y)
    best = int(np.argmax(estimator.validation_scores_)) + 1
    assert estimator.n_iter_ == 2 * best + 4


# --- by the authors' package ------------------------------------------------------------------------------------------


def fit_theirs(cls, X, y, **options):
    pytest.importorskip("pytabkit")
    import pytabkit
    from pytabkit.models.training import nn_creator

    created, original = {}, nn_creator.NNCreator.create_model

    def keep(self, *args, **kwargs):
        model = original(self, *args, **kwargs)
        created.update({str(p.context.scope): p.detach().numpy().copy() for p in model.parameters()})
        return model

    nn_creator.NNCreator.create_model = keep
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator = getattr(pytabkit, cls)(random_state=0, n_threads=1, device="cpu", **options)
            estimator.fit(X, y, cat_col_names=[c for c in X if X[c].dtype == object] if hasattr(X, "columns") else None)
    finally:
        nn_creator.NNCreator.create_model = original
    return estimator, created


THEIR_NAMES = {
    "/plr/weight_1": ("periodic_frequency", 0), "/plr/bias_1": ("periodic_phase", 0),
    "/plr/weight_2": ("periodic_weight", 0), "/plr/bias_2": ("periodic_bias", 0),
    "/net/first_layer/layer-0/weight": ("W", 0), "/net/first_layer/layer-0/bias": ("b", 0),
    "/net/middle_layer/layer-1/weight": ("W", 1), "/net/middle_layer/layer-1/bias": ("b", 1),
    "/net/middle_layer/layer-2/weight": ("W", 2), "/net/middle_layer/layer-2/bias": ("b", 2),
}  # fmt: skip  # the last layer is a single column, which is divided by a random number


def test_first_values_have_the_spread_of_the_packages(monkeypatch):
    X, y = make_friedman1(600, 5, random_state=0)
    _, theirs = fit_theirs("RealMLP_TD_Regressor", X, y, n_epochs=1)
    estimator = RealMLPRegressor(max_iter=1, random_state=0)
    _, ours = first_values(estimator, X, y, monkeypatch)
    for scope, key in THEIR_NAMES.items():
        gain = np.sqrt(len(ours[key])) if key[0] == "W" else 1.0
        np.testing.assert_allclose(ours[key].std() * gain, theirs[scope].std(), rtol=0.35, err_msg=scope)


LENGTHS = [
    pytest.param(300, 24, marks=pytest.mark.exhaustive),
    pytest.param(800, 256, marks=pytest.mark.nightly),
]


@pytest.mark.parametrize(("n_rows", "epochs"), LENGTHS)
@pytest.mark.parametrize("task", ["classes", "values"])
def test_errors_are_those_of_the_package(task, n_rows, epochs):
    """Over five splits of a table, the mean difference is within three of its standard errors.

    The schedules are functions of the share of the epochs that is done, so a short plan has all of them.
    """
    pytest.importorskip("pytabkit")
    X, values = make_friedman1(n_rows + 400, 8, noise=1.0, random_state=0)
    y = (values > np.median(values)).astype(int) if task == "classes" else values
    name = {"classes": "Classifier", "values": "Regressor"}[task]
    differences, size = [], []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(y))
        train, test = order[:n_rows], order[n_rows:]
        kind = RealMLPClassifier if task == "classes" else RealMLPRegressor
        ours = kind(max_iter=epochs, random_state=seed).fit(X[train], y[train])
        theirs, _ = fit_theirs(f"RealMLP_TD_{name}", X[train], y[train], n_epochs=epochs)
        errors = [
            np.mean(model.predict(X[test]) != y[test]) if task == "classes" else
            np.sqrt(np.mean((model.predict(X[test]) - y[test]) ** 2))
            for model in (ours, theirs)
        ]  # fmt: skip
        differences.append(errors[0] - errors[1])
        size.append(errors[1])
    assert abs(np.mean(differences)) < 3 * np.std(differences, ddof=1) / np.sqrt(5) + 0.02 * np.mean(size)
