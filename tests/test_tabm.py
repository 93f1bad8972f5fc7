"""TabM's recipe: its network, first values and what decays, by the paper's definitions and by its authors' package."""

import numpy as np
import pytest
from sklearn.datasets import make_friedman1
from test_realmlp import first_values, optimizer_of

from fastmlp import TabMClassifier, TabMRegressor
from fastmlp.estimator.recipes import tabm_batch_size

from tabular_fits import small, table, targets_of

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer:sklearn.exceptions.ConvergenceWarning")

FRAME, VALUES = table()
LABELS = targets_of("TabMClassifier", VALUES)


def test_the_network():
    network = small("TabMClassifier").fit(FRAME, LABELS).network_
    piecewise, plain = network.inputs
    assert (piecewise.kind, piecewise.size, piecewise.n_features) == ("piecewise", 16, 3)
    assert all(1 <= count <= 48 for count in piecewise.counts)
    assert plain.n_features == 3 + 15 + 1  # colours, towns, whether age is missing
    assert network.members == 3 and network.batch_ensemble and network.input_scale and network.dropout == (0.1, 0.1)
    assert network.loss == "log_loss" and network.activations == ("relu", "relu")
    mini = small("TabMClassifier", arch_type="tabm-mini").fit(FRAME, LABELS).network_
    assert mini.members == 3 and not mini.batch_ensemble
    assert small("TabMRegressor", num_emb_type="none").fit(FRAME, VALUES).network_.inputs == ()


@pytest.mark.parametrize("cls", [TabMClassifier, TabMRegressor])
def test_defaults_are_the_published_ones(cls):
    member = cls()._member()
    assert (member.k, member.arch_type, member.hidden_layer_sizes) == (32, "tabm", (512, 512))
    assert cls(num_emb_type="none")._member().hidden_layer_sizes == (512, 512, 512)
    assert (member.learning_rate_init, member.weight_decay, member.max_grad_norm) == (0.002, 3e-4, 1.0)
    assert (member.dropout, member.n_iter_no_change, member.beta_2) == (0.1, 16, 0.999)
    sizes = {1000: 32, 3000: 64, 5000: 128, 10_000: 256, 50_000: 512, 200_000: 1024}
    assert {n: tabm_batch_size(n) for n in sizes} == sizes


@pytest.mark.parametrize("num_emb_type", ["pwl", "none"])
@pytest.mark.parametrize("arch_type", ["tabm", "tabm-mini"])
def test_first_values(arch_type, num_emb_type, monkeypatch):
    estimator = small("TabMClassifier", k=40, arch_type=arch_type, num_emb_type=num_emb_type)
    member, first = first_values(estimator, FRAME, LABELS, monkeypatch)
    scale = first["input_scale", 0]
    width = 16 if num_emb_type == "pwl" else 1
    assert scale.shape == (40, 3 * width + 19)
    sections = np.split(scale, np.cumsum([width] * 3 + [3, 15]), axis=1)  # a feature each, then the indicator
    for section in sections:
        np.testing.assert_array_equal(section, section[:, :1].repeat(section.shape[1], axis=1))
    values = np.concatenate([section[:, 0] for section in sections])
    if num_emb_type == "none":
        assert {*values} == {-1.0, 1.0}
    else:
        assert len({*values}) == len(values) and 0.85 < values.std() < 1.15
        bound = 1 / 4
        assert np.abs(first["piecewise_weight", 0]).max() <= bound and not first["piecewise_bins", 0].any()
    for (name, layer), array in first.items():
        if name in ("member_in", "member_out"):
            np.testing.assert_array_equal(array, 1)
        if name == "b" and arch_type == "tabm" and layer < 2:
            np.testing.assert_array_equal(array, array[:1].repeat(40, axis=0))
        if name in ("W", "b"):
            fan_in = member.network_.widths[layer]
            assert 0.5 / np.sqrt(fan_in) < np.abs(array).max() <= 1 / np.sqrt(fan_in)
    heads = first["W", 2]
    assert heads.shape[0] == 40 and not np.array_equal(heads[0], heads[1])


def test_biases_and_linear_embeddings_do_not_decay():
    estimator = small("TabMRegressor")
    optimizer = optimizer_of(estimator, FRAME, VALUES)
    decays = {s.name: f for s, f in zip(estimator.network_.segments, optimizer.decay_factors, strict=True)}
    still = {name for name, factor in decays.items() if factor == 0}
    assert still == {"b", "piecewise_weight", "piecewise_bias"} and {*decays.values()} == {0.0, 1.0}
    assert optimizer.factors is None and optimizer.max_grad_norm == 1.0


def test_training_waits_for_the_members_mean():
    X, y = make_friedman1(150, random_state=0)
    estimator = TabMRegressor(
        k=2, hidden_layer_sizes=(16,), n_iter_no_change=2, random_state=0, learning_rate_init=0.02
    )
    estimator.fit(X, y)
    best = int(np.argmax(estimator.validation_scores_)) + 1
    assert estimator.n_iter_ == best + 3  # more than 2 epochs without improvement


def test_an_epoch_as_good_as_the_best_is_no_improvement():
    X = np.linspace(-1, 1, 60)[:, None]
    y = (X.ravel() > 0).astype(int)
    estimator = TabMClassifier(k=2, hidden_layer_sizes=(16,), n_iter_no_change=3, random_state=0).fit(X, y)
    scores = estimator.validation_scores_
    assert estimator.n_iter_ == int(np.argmax(scores)) + 1 + 4


LENGTHS = [
    pytest.param(200, 4, marks=pytest.mark.exhaustive),
    pytest.param(500, 16, marks=pytest.mark.nightly),
]


@pytest.mark.parametrize(("n_rows", "patience"), LENGTHS)
def test_errors_are_those_of_the_package(n_rows, patience):
    """Over five splits of a table, the mean difference is within three of its standard errors."""
    pytabkit = pytest.importorskip("pytabkit")
    X, y = make_friedman1(n_rows + 200, 8, noise=1.0, random_state=0)
    shape = {"arch_type": "tabm-mini", "dropout": 0.1, "num_emb_type": "pwl", "weight_decay": 3e-4}
    theirs_only = {"d_block": 64, "tabm_k": 8, "gradient_clipping_norm": 1.0}
    errors = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(y))
        train, test = order[:n_rows], order[n_rows:]
        same = {"random_state": seed, **shape}
        ours = TabMRegressor(k=8, hidden_layer_sizes=(64, 64), n_iter_no_change=patience, **same)
        ours.fit(X[train], y[train])
        theirs = pytabkit.TabM_D_Regressor(
            n_threads=1, device="cpu", batch_size=32, n_epochs=1000, patience=patience, **same, **theirs_only
        ).fit(X[train], y[train])
        errors.append([np.sqrt(np.mean((model.predict(X[test]) - y[test]) ** 2)) for model in (ours, theirs)])
    ours, theirs = np.transpose(errors)
    differences = ours - theirs
    assert abs(differences.mean()) < 3 * differences.std(ddof=1) / np.sqrt(5) + 0.02 * theirs.mean()
