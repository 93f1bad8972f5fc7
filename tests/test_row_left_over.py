"""batch_norm where the rows of an epoch leave a single one over: it joins the last batch.

Judges: the reference engine, which is given batch by batch what an epoch is to be; and PyTorch.
"""

from dataclasses import replace

import numpy as np
import pytest

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.callbacks import Checkpoint, LearningRateFinder
from fastmlp.kernels import reference
from fastmlp.kernels.contract import Data
from fastmlp.model.initialization import initial_params
from fastmlp.training.optimizers import make_optimizer

from small_training import BACKENDS, WEIGHT, Y_VALUES, X, Y

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

GIVEN = {"hidden_layer_sizes": (6, 5), "max_iter": 4, "random_state": 0, "learning_rate_init": 0.01, "batch_size": 16}

#: (rows, batch_size) -> the sizes of an epoch's batches.
SIZES = {
    (33, 16): [16, 17],
    (17, 16): [17],
    (65, 16): [16, 16, 16, 17],
    (5, 2): [2, 3],
    (3, 2): [3],
    (34, 16): [16, 16, 2],
    (32, 16): [16, 16],
    (80, 80): [80],
}

CASES = {
    "before": {"batch_norm": True},
    "after": {"batch_norm": ["after", False], "activation": "tanh"},
    "dropout": {"batch_norm": "after", "dropout": 0.3, "input_dropout": 0.2},
    "one_cycle": {"batch_norm": True, "solver": "adamw", "learning_rate": "one_cycle"},
    "step": {"batch_norm": True, "solver": "sgd", "learning_rate": ("step", {"step_size": 1, "gamma": 0.5})},
    "clipped": {"batch_norm": True, "solver": "nadam", "max_grad_norm": 0.01, "alpha": 0.1, "l1_ratio": 0.5},
    "float32": {"batch_norm": True},
}


def by_batches(est, X, y, sizes, weight=None):
    """Return (params, losses of epochs) of a new training whose epochs have batches of these sizes."""
    network = replace(est._fitted_network(), dropout=est.dropout, input_dropout=est.input_dropout)
    rng = np.random.RandomState(est.random_state)
    params = initial_params(network, "auto", rng, 6.0)
    data = Data(X, y.reshape(-1, 1).astype(X.dtype), None if weight is None else weight.astype(X.dtype))
    optimizer = make_optimizer(est.solver, network, est.get_params(deep=False), len(sizes), est.max_iter)
    seed = int.from_bytes(rng.bytes(8), "little") if est.dropout else 0
    order, losses = np.arange(len(X)), []
    for epoch in range(est.max_iter):
        reference.shuffle(order, rng)
        total = 0.0
        for rows in np.split(order, np.cumsum(sizes)[:-1]):
            workspace = reference.workspace(network, len(rows))
            l1, l2 = est.alpha * est.l1_ratio, est.alpha * (1 - est.l1_ratio)
            total += len(rows) * reference.train_epoch(
                workspace, params, data, rows, len(rows), l2, optimizer, l1=l1, seed=seed
            )
        losses.append(total / len(X))
        optimizer.after_epoch((epoch + 1) * len(X))
    return params, losses


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_row_joins_the_last_batch(shape, case, backend):
    n, batch_size = shape
    dtype, tolerance = (np.float32, 2e-4) if case == "float32" else (np.float64, 1e-9)
    rows, y = X[:n].astype(dtype), Y_VALUES[:n]
    est = MLPRegressor(**GIVEN | {"backend": backend, "batch_size": batch_size} | CASES[case])
    est.fit(rows, y, sample_weight=WEIGHT[:n] + 0.1)
    params, losses = by_batches(est, rows, y, SIZES[shape], WEIGHT[:n] + 0.1)
    np.testing.assert_allclose(est.coefs_[0].base, params, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(est.loss_curve_, losses, rtol=tolerance)
    assert est.t_ == n * est.max_iter and est._optimizer.t == len(SIZES[shape]) * est.max_iter


@pytest.mark.parametrize("batch_norm", ["before", "after"])
def test_the_steps_are_those_of_pytorch(batch_norm):
    torch = pytest.importorskip("torch")
    start = MLPRegressor(hidden_layer_sizes=(6,), activation="tanh", max_iter=1, random_state=1).fit(X, Y_VALUES)
    first = {"coef_init": [W.copy() for W in start.coefs_], "intercept_init": [b.copy() for b in start.intercepts_]}
    est = MLPRegressor(
        hidden_layer_sizes=(6,),
        activation="tanh",
        solver="sgd",
        momentum=0,
        alpha=0,
        learning_rate_init=0.1,
        max_iter=5,
    )
    est.set_params(batch_size=16, shuffle=False, batch_norm=batch_norm).fit(X[:49], Y_VALUES[:49], **first)
    hidden = [torch.nn.BatchNorm1d(6), torch.nn.Tanh()]
    linear = [torch.nn.Linear(6, 6), torch.nn.Linear(6, 1)]
    model = torch.nn.Sequential(linear[0], *(hidden if batch_norm == "before" else hidden[::-1]), linear[1]).double()
    with torch.no_grad():
        for layer, W, b in zip(linear, *first.values(), strict=True):
            layer.weight.copy_(torch.tensor(W.T))
            layer.bias.copy_(torch.tensor(b))
    inputs, targets = torch.tensor(X[:49]), torch.tensor(Y_VALUES[:49, None])
    for _ in range(5):
        for x, y in zip(torch.split(inputs, [16, 16, 17]), torch.split(targets, [16, 16, 17]), strict=True):
            model.zero_grad()
            (0.5 * (model(x) - y) ** 2).mean().backward()
            with torch.no_grad():  # torch.optim takes seconds to import
                for parameter in model.parameters():
                    parameter -= 0.1 * parameter.grad
    for layer, W, b in zip(linear, est.coefs_, est.intercepts_, strict=True):
        np.testing.assert_allclose(W.T, layer.weight.detach(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(b, layer.bias.detach(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(est.bn_means_[0], hidden[0].running_mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(est.bn_vars_[0], hidden[0].running_var, rtol=1e-9)
    with torch.no_grad():
        np.testing.assert_allclose(est.predict(X), model.eval()(torch.tensor(X))[:, 0], rtol=1e-9, atol=1e-12)


def test_drop_last_drops_it():
    both = [
        MLPRegressor(**GIVEN, batch_norm=True, drop_last=True, shuffle=False).fit(X[:n], Y_VALUES[:n]) for n in (33, 32)
    ]
    np.testing.assert_array_equal(both[0].coefs_[0].base, both[1].coefs_[0].base)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_resumed_trainings_come_to_the_same_bits(tmp_path, n_jobs):
    given = GIVEN | {"batch_norm": "after", "dropout": 0.2, "learning_rate": "cosine", "n_jobs": n_jobs}
    path = str(tmp_path / "epoch {epoch}.npz")
    whole = MLPClassifier(**given, callbacks=[Checkpoint(path)]).fit(X[:33], Y[:33])
    resumed = MLPClassifier(**given).fit(X[:33], Y[:33], resume_from=path.format(epoch=2))
    np.testing.assert_array_equal(resumed.coefs_[0].base, whole.coefs_[0].base)
    assert resumed.loss_curve_ == whole.loss_curve_
    other = MLPClassifier(**given | {"n_jobs": 3 - n_jobs}).fit(X[:33], Y[:33])
    np.testing.assert_array_equal(other.coefs_[0].base, whole.coefs_[0].base)


def test_partial_fit_joins_it_too():
    est = MLPRegressor(**GIVEN | {"max_iter": 1}, batch_norm=True, shuffle=False)
    fitted = MLPRegressor(**est.get_params(deep=False)).fit(X[:33], Y_VALUES[:33])
    est.partial_fit(X[:33], Y_VALUES[:33])
    np.testing.assert_array_equal(est.coefs_[0].base, fitted.coefs_[0].base)
    est.partial_fit(X[:17], Y_VALUES[:17]).partial_fit(X[:33], Y_VALUES[:33])
    assert est._optimizer.t == 2 + 1 + 2 and np.isfinite(est.predict(X)).all()


def test_what_a_split_leaves():
    est = MLPClassifier(**GIVEN, batch_norm=True, early_stopping=True, validation_fraction=0.1875).fit(X, Y)
    assert est.t_ == 65 * est.n_iter_ and est._optimizer.t == 4 * est.n_iter_
    assert np.isfinite(est.validation_loss_curve_).all()
    assert (
        MLPClassifier(**GIVEN | {"batch_size": "auto"}, batch_norm=True)
        .fit(np.repeat(X, 3, axis=0)[:201], np.repeat(Y, 3)[:201])
        ._optimizer.t
        == GIVEN["max_iter"]
    )


def test_a_formula_that_fails_in_the_joined_batch_is_found():
    activation = fastmlp.activation("def kept(z): return z if z < 50 else log(0 * z)")
    rows = X[:33].copy()
    rows[32] = 1e6
    est = MLPRegressor(**GIVEN | {"hidden_layer_sizes": (4,)}, batch_norm="after", activation=activation, shuffle=False)
    with pytest.raises(
        ValueError, match="activation 'kept' of hidden layer 1 gave values that are not finite in epoch"
    ):
        est.fit(rows, Y_VALUES[:33])


def test_the_finder_of_rates_takes_any_number_of_rows():
    finder = LearningRateFinder(MLPRegressor(**GIVEN, batch_norm=True), n_steps=20).fit(X[:33], Y_VALUES[:33])
    assert np.isfinite(finder.losses).all()


@pytest.mark.parametrize(
    "parameters, n", [({"batch_size": 1}, 33), ({"batch_size": 16}, 1), ({"batch_size": "auto"}, 1)]
)
def test_batches_of_one_row_stay_an_error(parameters, n):
    est = MLPRegressor(**GIVEN | parameters, batch_norm=True)
    with pytest.raises(
        ValueError, match="batch_norm=True makes no sense with batches of one row, which has no variance"
    ):
        est.fit(X[:n], Y_VALUES[:n])
    with pytest.raises(ValueError, match="makes no sense with batches of one row"):
        est.partial_fit(X[:n], Y_VALUES[:n])
