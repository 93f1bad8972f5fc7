"""Recorder: its numbers against NumPy by hand, and trainings that it watches against the same ones unwatched."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone

from fastmlp import MLPClassifier, MLPRegressor, RealMLPRegressor
from fastmlp.callbacks import Checkpoint, Recorder
from fastmlp.distributed import on_threads
from fastmlp.engines import backends
from fastmlp.model.network import Network
from fastmlp.training.recorder import _near_limits

from parity import assert_identical_models, make_problem, quiet

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CPU = [name for name in backends.available() if name != "cuda"]
SMALL = {"hidden_layer_sizes": (7, 5), "max_iter": 4, "random_state": 3, "batch_size": 20, "learning_rate_init": 0.05}
X, y, SAMPLE_WEIGHT = make_problem("multiclass")
TARGET = make_problem("regression").y
PER_LAYER = ("gradient_norm", "weight_norm", "update_ratio", "dead", "saturation")


def recorded(recorder, est, *args, **given):
    quiet(est.set_params(callbacks=[recorder]).fit, *args, **given)
    return recorder.records


def assert_same_records(got, expected):
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


# --- the numbers ------------------------------------------------------------------------------------------------------


def by_hand(weights, alpha):
    """Loss, norms of the gradients, and outputs of the hidden layers of a relu net for all rows, in NumPy."""
    (W0, b0, W1, b1, W2, b2), n = weights, len(X)
    a0 = np.maximum(X @ W0 + b0, 0)
    a1 = np.maximum(a0 @ W1 + b1, 0)
    z = a1 @ W2 + b2
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    loss = -np.mean(np.log(p[np.arange(n), y])) + alpha / 2 * sum((W**2).sum() for W in (W0, W1, W2)) / n
    d2 = p - np.eye(3)[y]
    d1 = (d2 @ W2.T) * (a1 > 0)
    d0 = (d1 @ W1.T) * (a0 > 0)
    grads = [(a.T @ d + alpha * W) / n for a, d, W in ((X, d0, W0), (a0, d1, W1), (a1, d2, W2))]
    return loss, [np.linalg.norm(grad) for grad in grads], [a0, a1]


def test_the_numbers_are_those_of_numpy():
    kept = []
    recorder = Recorder(X=X, y=y)
    est = MLPClassifier(**SMALL | {"alpha": 0.1, "learning_rate_init": 0.3})  # so fast that units die
    kept.append(MLPClassifier(**SMALL).initialize(X, y).get_weights())
    est.set_params(callbacks=[recorder, lambda info: kept.append(info.estimator.get_weights())])
    quiet(est.fit, X, y)
    assert len(recorder.records) == len(kept) == 5
    for i, (record, weights) in enumerate(zip(recorder.records, kept, strict=True)):
        loss, gradients, outputs = by_hand(weights, 0.1)
        np.testing.assert_allclose(record["rows_loss"], loss, rtol=1e-12)
        np.testing.assert_allclose(record["gradient_norm"], gradients, rtol=1e-10)
        np.testing.assert_allclose(record["weight_norm"], [np.linalg.norm(W) for W in weights[::2]], rtol=1e-13)
        if i:
            pairs = list(zip(weights[::2], kept[i - 1][::2], strict=True))
            ratios = [np.linalg.norm(W - V) / np.linalg.norm(V) for W, V in pairs]
            np.testing.assert_allclose(record["update_ratio"], ratios, rtol=1e-12)
        else:
            assert np.isnan(record["update_ratio"]).all()
        np.testing.assert_array_equal(record["dead"], [np.mean((a == 0).all(axis=0)) for a in outputs])
        np.testing.assert_array_equal(record["saturation"], [np.mean(a == 0) for a in outputs])
    assert max(recorder.records[-1]["dead"]) > 0


def test_what_training_knows():
    records = recorded(Recorder(), est := MLPClassifier(**SMALL), X, y, X_val=X[:9], y_val=y[:9])
    assert [record["epoch"] for record in records] == [0, 1, 2, 3, 4]
    assert [record["step"] for record in records] == [0, 4, 8, 12, 16]
    for name in ("loss", "validation_loss", "score", "learning_rate"):
        assert np.isnan(records[0][name])
        assert [record[name] for record in records[1:]] == est.history_[name]


def test_rows_are_spread_over_the_training_rows():
    """Also if only some rows are trained on, whatever the order of the epochs."""
    recorder = Recorder(max_rows=10)
    est = MLPRegressor(**SMALL | {"max_iter": 1}, early_stopping=True, validation_fraction=0.25)
    records = recorded(recorder, est, X, TARGET, SAMPLE_WEIGHT)
    held_out = {tuple(row) for row in est_rows_held_out(est)}
    rows = [i for i, row in enumerate(X) if tuple(row) not in held_out]
    rows = np.array(rows)[np.linspace(0, len(rows) - 1, 10).astype(int)]
    same = MLPRegressor(**SMALL).initialize(X, TARGET)
    expected = same.loss_and_gradients(X[rows], TARGET[rows], SAMPLE_WEIGHT[rows])
    assert len(rows) == 10
    np.testing.assert_allclose(records[0]["rows_loss"], expected.loss, rtol=1e-14)
    np.testing.assert_allclose(records[0]["gradient_norm"], [np.linalg.norm(W) for W in expected.coefs], rtol=1e-12)


def est_rows_held_out(est):
    """The rows that a fit held out: what scikit-learn's split draws after the weights."""
    from sklearn.model_selection import train_test_split

    twin = clone(est).set_params(callbacks=None)
    rng = np.random.RandomState(est.random_state)
    quiet(twin.set_params(random_state=rng).initialize, X, TARGET)
    return train_test_split(X, random_state=rng, test_size=est.validation_fraction)[1]


LIMITS = {
    "tanh": ([-0.95, -0.9, -0.89, 0.0, 0.91], 3 / 5),
    "logistic": ([0.04, 0.06, 0.5, 0.951], 2 / 4),
    "relu": ([0.0, 0.0, 1e-9, 100.0], 2 / 4),
    "identity": ([-1e9, 0.0, 1.0], 0.0),
    ("elu",): ([-0.96, -0.94, 0.0, 50.0], 1 / 4),
    "leaky_relu": ([-1.0, 0.0], 0.0),
    "gaussian": ([0.0, 0.049, 0.06, 1.0], 2 / 4),
}


@pytest.mark.parametrize("activation", [name for name in LIMITS if name != "gaussian"], ids=str)
def test_what_is_saturated(activation):
    name = activation if isinstance(activation, str) else activation[0]
    values, share = LIMITS[activation]
    network = Network((1, 1, 1), (name,), "squared_error", np.dtype(np.float64))
    near = _near_limits(backends.get("reference"), name, network)
    assert near(np.array(values)) == share


def test_what_is_saturated_of_a_formula():
    import fastmlp

    @fastmlp.activation
    def gaussian(z):
        return exp(-z * z)  # noqa: F821

    network = Network((1, 1, 1), (gaussian,), "squared_error", np.dtype(np.float64))
    values, share = LIMITS["gaussian"]
    assert _near_limits(backends.get("auto"), gaussian, network)(np.array(values)) == share


def test_batch_norm_after_the_activation():
    """Limits are those of the activation, not of what is made of its outputs."""
    est = MLPRegressor(**SMALL | {"hidden_layer_sizes": (6,)}, activation="tanh", batch_norm="after")
    record = recorded(Recorder(X=X, y=TARGET), est, X, TARGET)[-1]
    a = np.tanh(X @ est.coefs_[0] + est.intercepts_[0])
    assert record["saturation"] == [np.mean(np.abs(a) >= 0.9)]
    found = est.loss_and_gradients(X, TARGET)
    np.testing.assert_allclose(record["gradient_norm"], [np.linalg.norm(W) for W in found.coefs], rtol=1e-12)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("weighted", [[5], [5, 17, 40]])
def test_rows_without_weight_are_not_looked_at(weighted, batch_norm):
    weight = np.zeros(len(X))
    weight[weighted] = 2.0
    given = SMALL | {"alpha": 0.0, "batch_norm": batch_norm, "shuffle": False, "batch_size": len(X)}
    recorder = Recorder(max_rows=2)
    watched = MLPClassifier(**given)
    recorded(recorder, watched, X, y, sample_weight=weight)
    assert len(recorder.records) == given["max_iter"] + 1
    if not batch_norm:
        rows = [weighted[0], weighted[-1]]
        assert recorder.records[-1]["rows_loss"] == pytest.approx(watched.loss_and_gradients(X[rows], y[rows]).loss)
    assert_identical_models(watched, quiet(MLPClassifier(**given).fit, X, y, sample_weight=weight))


# --- the training stays what it is ------------------------------------------------------------------------------------

OPTIONS = [
    {},
    {"batch_norm": True, "dropout": 0.3, "batch_size": 79},  # a row left over joins the last batch
    {"solver": "sgd", "learning_rate": "cosine", "drop_last": True, "batch_size": 32},
    {"early_stopping": True, "validation_fraction": 0.2},
]


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("unit, every", [("epoch", 1), ("epoch", 3), ("step", 1), ("step", 3)])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_bits(options, unit, every, backend):
    expected = quiet(MLPRegressor(**SMALL | options, backend=backend).fit, X, TARGET)
    est = MLPRegressor(**SMALL | options, backend=backend)
    records = recorded(Recorder(every, unit), est, X, TARGET)
    for ours, theirs in zip(est.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(est.loss_curve_, expected.loss_curve_, rtol=1e-14 if unit == "step" else 0)
    total = est._training.optimizer.t
    steps = [record["step"] for record in records]
    if unit == "step":
        wanted = [*range(0, total + 1, every)]
        assert steps == wanted + [total] * (wanted[-1] < total)
    else:
        assert [record["epoch"] for record in records] == ([0, 1, 2, 3, 4] if every == 1 else [0, 3, 4])


@pytest.mark.parametrize("weight", [None, SAMPLE_WEIGHT])
def test_losses_of_steps(weight):
    """Each is that of the batch before its step; the scores of an epoch are known at its last step."""
    recorder = Recorder(unit="step")
    est = MLPClassifier(**SMALL | {"max_iter": 2, "shuffle": False})
    records = recorded(recorder, est, X, y, weight, X_val=X, y_val=y)
    same = MLPClassifier(**SMALL).initialize(X, y)
    parts = [
        (X[i : i + 20], y[i : i + 20], *([] if weight is None else [weight[i : i + 20]])) for i in range(0, 80, 20)
    ]
    losses = [same.train_on_batch(*part) for part in 2 * parts]
    np.testing.assert_allclose([record["loss"] for record in records[1:]], losses, rtol=1e-13)
    known = [record["step"] for record in records if not np.isnan(record["score"])]
    assert known == [4, 8]
    assert [record["epoch"] for record in records] == [0, 0, 0, 0, 1, 1, 1, 1, 2]


def test_a_formula_that_fails_is_still_found():
    import fastmlp

    @fastmlp.activation
    def root(z):
        return sqrt(z)  # noqa: F821

    with pytest.raises(ValueError, match="hidden layer 1"):
        MLPRegressor(hidden_layer_sizes=(4,), activation=root, callbacks=[Recorder(unit="step")]).fit(X, TARGET)


# --- trainings that go on, and several --------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_resume(unit, tmp_path):
    path = str(tmp_path / "{epoch}.npz")
    whole, first = Recorder(unit=unit), Recorder(unit=unit)
    recorded(whole, MLPClassifier(**SMALL), X, y)
    est = MLPClassifier(**SMALL | {"max_iter": 4}, callbacks=[first, Checkpoint(path)])
    quiet(est.fit, X, y)
    new, same = Recorder(unit=unit), pickle.loads(pickle.dumps(first))
    for recorder in (new, same):
        recorded(recorder, MLPClassifier(**SMALL), X, y, resume_from=path.format(epoch=2))
    tail = [record for record in whole.records if record["step"] > 8]
    assert_same_records([record for record in new.records if record["step"] > 8], tail)
    assert_same_records([r for r in same.records if r["step"] > 8][1:], tail[1:])  # the first update is not known
    assert [record["step"] for record in same.records] == [record["step"] for record in whole.records]


def test_a_warm_start_goes_on_and_a_new_fit_begins_anew():
    recorder = Recorder()
    est = MLPClassifier(**SMALL, warm_start=True, callbacks=[recorder])
    quiet(est.fit, X, y)
    quiet(est.fit, X, y)
    assert [record["epoch"] for record in recorder.records] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]
    quiet(est.set_params(warm_start=False).fit, X, y)
    assert [record["epoch"] for record in recorder.records] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("unit", ["epoch", "step"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_each_network_of_an_ensemble(unit, n_jobs):
    recorder = Recorder(unit=unit)
    ens = MLPClassifier(**SMALL, n_ens=3, n_jobs=n_jobs)
    records = recorded(recorder, ens, X, y)
    for i, member in enumerate(ens.estimators_):
        expected = recorded(Recorder(unit=unit), clone(member), X, y)
        ours = [{**record, "network": 0} for record in records if record["network"] == i]
        assert_same_records(ours, expected)
    assert list(recorder.to_frame()["network"].unique()) == [0, 1, 2]


def test_by_hand():
    """After partial_fit the same numbers as those of a fit's epochs."""
    recorder, watched = Recorder(), Recorder(X=X, y=TARGET)
    est = MLPRegressor(**SMALL, shuffle=False).initialize(X, TARGET)
    recorder.record(est, X, TARGET)
    for _ in range(4):
        recorder.record(est.partial_fit(X, TARGET), X, TARGET)
    recorded(watched, MLPRegressor(**SMALL, shuffle=False), X, TARGET)
    for ours, theirs in zip(recorder.records, watched.records, strict=True):
        for name in ("epoch", "step", "loss", "learning_rate", "rows_loss", *PER_LAYER):
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda recorder: pickle.loads(pickle.dumps(recorder))])
def test_copies(copied):
    recorder = Recorder(every=2, X=X, y=y)
    recorded(recorder, MLPClassifier(**SMALL), X, y)
    other = copied(recorder)
    assert_same_records(other.records, recorder.records)
    assert_same_records(recorded(other, MLPClassifier(**SMALL), X, y), recorder.records)
    assert repr(other) == repr(recorder) == "Recorder(every=2, unit='epoch', max_rows=64)"


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_other_networks(unit):
    """Feature blocks, members and targets in units of their own."""
    est = MLPRegressor(**SMALL, standardize_y=True)
    given = Recorder(unit=unit, X=X, y=1e6 + 100 * TARGET, max_rows=99)
    records = recorded(given, est, X, 1e6 + 100 * TARGET)
    rows = recorded(Recorder(unit=unit, max_rows=80), clone(est), X, 1e6 + 100 * TARGET)
    assert_same_records(records, rows)
    assert records[-1]["rows_loss"] < 10
    table = RealMLPRegressor(hidden_layer_sizes=(6, 4), max_iter=2, random_state=0)
    records = recorded(Recorder(unit=unit), table, X, TARGET)
    assert np.isfinite([records[-1][name] for name in ("gradient_norm", "weight_norm", "update_ratio")]).all()
    with pytest.raises(ValueError, match="X and y are for MLPClassifier"):
        recorded(Recorder(X=X, y=TARGET), clone(table), X, TARGET)


# --- frames and errors ------------------------------------------------------------------------------------------------


def test_frame():
    recorder = Recorder(every=2)
    records = recorded(recorder, MLPClassifier(**SMALL), X, y)
    frame = recorder.to_frame()
    assert list(frame.columns[:8]) == ["epoch", "step", "layer", *PER_LAYER]
    assert list(frame["layer"]) == 3 * ["hidden 1", "hidden 2", "output"]
    last = frame[frame["epoch"] == 4].set_index("layer")
    for i, layer in enumerate(last.index):
        for name in ("gradient_norm", "weight_norm", "update_ratio"):
            assert last.loc[layer, name] == records[-1][name][i]
        assert last.loc[layer, "loss"] == records[-1]["loss"]
    assert list(last["dead"][:2]) == records[-1]["dead"] and np.isnan(last["dead"].iloc[-1])
    assert Recorder().to_frame().empty


def test_without_pandas(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match="needs pandas"):
        Recorder().to_frame()


@pytest.mark.parametrize(
    "given, text",
    [
        ({"every": 0}, "every must be an int of at least 1"),
        ({"unit": "batch"}, 'unit must be "epoch" or "step"'),
        ({"X": X}, "X and y must be given together"),
        ({"max_rows": 1}, "max_rows must be an int of at least 2"),
        ({"max_rows": 10.5}, "max_rows must be an int"),
        ({"unit": "step", "every": 1.5}, "every must be an int"),
    ],
    ids=str,
)
def test_what_is_refused(given, text):
    with pytest.raises(ValueError, match=text):
        Recorder(**given)


def test_rows_that_do_not_fit_are_refused_before_training():
    for rows, text in ((Recorder(X=X[:, 1:], y=y), "features"), (Recorder(X=X, y=y + 5), "classes")):
        est = MLPClassifier(**SMALL, callbacks=[rows])
        with pytest.raises(ValueError, match=text):
            est.fit(X, y)


def test_estimators_that_are_refused():
    with pytest.raises(TypeError, match="record takes an MLPClassifier"):
        Recorder().record(RealMLPRegressor(), X, TARGET)
    with pytest.raises(AttributeError, match=r"estimators_\[i\]"):
        Recorder().record(quiet(MLPRegressor(**SMALL, n_ens=2).fit, X, TARGET), X, TARGET)


def test_several_processes_refuse_it():
    def fit(communicator):
        est = MLPRegressor(**SMALL, callbacks=[Recorder()] if communicator.rank == 0 else None)
        est.fit(X, TARGET, communicator=communicator)

    with pytest.raises(Exception, match=r"Recorder\(.*\) looks into a training of one process"):
        on_threads(fit, 2, timeout=20)


def test_weights_are_not_touched():
    est = quiet(MLPClassifier(**SMALL).fit, X, y)
    before = copy.deepcopy(est)
    Recorder().record(est, X, y)
    assert_identical_models(est, before)
