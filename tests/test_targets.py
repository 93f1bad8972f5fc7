"""Which loss serves which task, and targets there and back."""

import numpy as np
import pytest
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.class_weight import compute_sample_weight

from fastmlp.data import targets
from fastmlp.data.targets import Objective, resolve_loss
from fastmlp.kernels import formulas

F64, F32 = np.dtype(np.float64), np.dtype(np.float32)
Y = {
    "binary": np.array(["no", "yes", "yes", "no", "yes"]),
    "multiclass": np.array([7, 3, 5, 3, 3]),
    "multilabel": np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
    "one class": np.array([4, 4, 4]),
}
TASKS = {"binary": ("binary", 1), "multiclass": ("multiclass", 3), "multilabel": ("multilabel", 3)}


def binarizer(kind):
    return LabelBinarizer().fit(Y[kind])


# --- which loss -------------------------------------------------------------------------------------------------------


def test_every_row_serves_someone():
    rows = {row for rows in targets.CLASSIFIER_LOSSES.values() for row in rows}
    assert rows | set(targets.REGRESSOR_LOSSES) == set(formulas.LOSSES)
    assert not rows & set(targets.REGRESSOR_LOSSES)


@pytest.mark.parametrize(
    "task, loss, expected",
    [
        ("binary", "log_loss", Objective("binary_log_loss", "logistic", 1)),
        ("multiclass", "log_loss", Objective("log_loss", "softmax", 3)),
        ("multilabel", "log_loss", Objective("binary_log_loss", "logistic", 3)),
        ("binary", "focal", Objective("binary_focal", "logistic", 1)),
        ("multiclass", ("focal", {"gamma": 1}), Objective(("focal", {"gamma": 1.0}), "softmax", 3)),
        ("multilabel", ("focal", {"gamma": 1}), Objective(("binary_focal", {"gamma": 1.0}), "logistic", 3)),
        ("binary", "hinge", Objective("hinge", "identity", 1)),
        ("multiclass", "squared_hinge", Objective("squared_hinge", "identity", 3)),
    ],
)
def test_classifier(task, loss, expected):
    assert resolve_loss(task, loss, TASKS[task][1]) == expected


@pytest.mark.parametrize("name", targets.REGRESSOR_LOSSES)
def test_regressor(name):
    assert resolve_loss("regression", name, 3) == Objective(name, formulas.LOSSES[name].link, 3)


def test_regressor_with_parameters():
    assert resolve_loss("regression", ("huber", {"delta": 2}), 1).loss == ("huber", {"delta": 2.0})
    with pytest.raises(ValueError, match="delta must be in"):
        resolve_loss("regression", ("huber", {"delta": 0}), 1)


def test_regressor_with_a_formula():
    from fastmlp.kernels.language import Formula

    growth = Formula.from_source("def growth(y, p): return p - y * log(p)", link="exp")
    assert resolve_loss("regression", growth, 2) == Objective(growth, "exp", 2)
    assert targets.link_of(growth) == "exp"
    with pytest.raises(ValueError, match=r"^loss=.*growth.* has link='exp', whose predictions are no probabilities"):
        resolve_loss("binary", growth, 1)


def test_classifier_with_a_formula():
    from fastmlp.kernels.language import Formula

    of_values = Formula.from_source("def margin(y, z): return maximum(0, -z)")
    of_probabilities = Formula.from_source("def brier(y, p): return (y - p) * (y - p)", link="logistic")
    assert resolve_loss("binary", of_values, 1) == Objective(of_values, "identity", 1)
    assert resolve_loss("multiclass", of_values, 4) == Objective(of_values, "identity", 4)
    assert resolve_loss("binary", of_probabilities, 1) == Objective(of_probabilities, "logistic", 1)
    assert resolve_loss("multilabel", of_probabilities, 3) == Objective(of_probabilities, "logistic", 3)
    with pytest.raises(
        ValueError, match="for 3 classes take link='identity', of which the largest decision value wins"
    ):
        resolve_loss("multiclass", of_probabilities, 3)
    with pytest.raises(ValueError, match="several labels may be true at once: take link='logistic'"):
        resolve_loss("multilabel", of_values, 3)
    with pytest.raises(ValueError, match="is no loss"):
        resolve_loss("binary", Formula.from_source("def f(z): return z"), 1)


@pytest.mark.parametrize("kind, task", [(kind, kind) for kind in TASKS] + [("one class", "binary")])
def test_task(kind, task):
    assert targets.task_of(binarizer(kind)) == task


@pytest.mark.parametrize(
    "task, loss, n_outputs, words",
    [
        (
            "binary",
            "poisson",
            1,
            r"loss='poisson' is unknown; valid are \['focal', 'hinge', 'log_loss', 'perceptron', 'squared_h",
        ),
        ("binary", "binary_focal", 1, "loss='binary_focal' is unknown"),
        ("regression", "log_loss", 1, "loss='log_loss' is unknown; valid are .*'quantile'.*'squared_error'"),
        ("multilabel", "hinge", 3, "loss='hinge' makes no sense with multilabel targets: it tells"),
        ("multilabel", "squared_hinge", 3, "loss='squared_hinge' makes no sense with multilabel"),
        ("multiclass", ("focal", {"label_smoothing": 0.1}), 3, r"'focal' has no parameter 'label_smoothing'.*'gamma'"),
        ("binary", ("hinge", {"label_smoothing": 0.1}), 1, "'hinge' has no parameter 'label_smoothing'; it takes none"),
        ("binary", ("log_loss", {"label_smoothing": 1.0}), 1, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ("multilabel", ("log_loss", {"label_smoothing": np.nan}), 3, r"label_smoothing must be in \[0, 1\), got nan"),
        ("regression", "kl_divergence", 1, "loss='kl_divergence' needs y of shape .*two or more categories"),
    ],
)
def test_what_makes_no_sense(task, loss, n_outputs, words):
    with pytest.raises(ValueError, match=words):
        resolve_loss(task, loss, n_outputs)


# --- label smoothing --------------------------------------------------------------------------------------------------


def test_smoothing_is_the_losss_or_the_targets():
    loss = ("log_loss", {"label_smoothing": 0.1})
    multiclass = resolve_loss("multiclass", loss, 3)
    assert multiclass == Objective(("log_loss", {"label_smoothing": 0.1}), "softmax", 3, 0.0)
    for task in ("binary", "multilabel"):
        objective = resolve_loss(task, loss, TASKS[task][1])
        assert objective == Objective("binary_log_loss", "logistic", TASKS[task][1], 0.1)
        encoded = targets.encode_classes(binarizer(task), Y[task], F32, objective)
        assert encoded.dtype == F32 and encoded.flags.c_contiguous
        plain = targets.encode_classes(binarizer(task), Y[task], F32)
        np.testing.assert_allclose(encoded, 0.9 * plain + 0.05, rtol=1e-6)
    indices = targets.encode_classes(binarizer("multiclass"), Y["multiclass"], F64, multiclass)
    np.testing.assert_array_equal(indices, [2, 0, 1, 0, 0])


def test_no_smoothing_leaves_zeros_and_ones():
    objective = resolve_loss("binary", ("log_loss", {"label_smoothing": 0.0}), 1)
    encoded = targets.encode_classes(binarizer("binary"), Y["binary"], F64, objective)
    np.testing.assert_array_equal(encoded, [[0], [1], [1], [0], [1]])


# --- classes there and back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, loss",
    [
        (kind, loss)
        for kind in (*TASKS, "one class")
        for loss in targets.CLASSIFIER_LOSSES
        if not (kind == "multilabel" and loss in targets.DECISION_LOSSES)
    ],
)
def test_round_trip(kind, loss):
    task = targets.task_of(binarizer(kind))
    objective = resolve_loss(task, loss, TASKS[task][1])
    encoded = targets.encode_classes(binarizer(kind), Y[kind], F64, objective)
    if formulas.LOSSES[objective.loss].class_targets:
        assert encoded.dtype == np.intp and encoded.shape == (len(Y[kind]),)
        encoded = np.eye(3)[encoded]
    assert encoded.shape == (len(Y[kind]), objective.n_outputs)
    outputs = 2 * encoded - 1.1 if objective.link == "identity" else 0.1 + 0.8 * encoded
    np.testing.assert_array_equal(targets.decode_classes(binarizer(kind), outputs, objective.link), Y[kind])


def test_the_border_of_decision_values_is_zero():
    values = np.array([[-0.1], [0.0], [0.1], [0.4], [0.6]])
    np.testing.assert_array_equal(
        targets.decode_classes(binarizer("binary"), values, "identity"), ["no", "no", "yes", "yes", "yes"]
    )
    np.testing.assert_array_equal(targets.decode_classes(binarizer("binary"), values), ["no", "no", "no", "no", "yes"])


# --- class weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*TASKS, "one class"])
def test_balanced(kind):
    classes = binarizer(kind).classes_
    expected = compute_sample_weight("balanced", Y[kind])
    np.testing.assert_array_equal(targets.weigh_classes("balanced", classes, Y[kind]), expected)
    given = np.arange(len(Y[kind]), dtype=np.float32)
    np.testing.assert_allclose(targets.weigh_classes("balanced", classes, Y[kind], given), expected * given)


@pytest.mark.parametrize("weights", [{3: 2, 5: 0.5, 7: 0}, {3: 2.0}, {np.int64(7): 3}, {3: 1, 5: 1, 7: 1, 9: 4}, {}])
def test_a_dict(weights):
    classes, y = binarizer("multiclass").classes_, Y["multiclass"]
    expected = [weights.get(label, 1) for label in y.tolist()]
    np.testing.assert_array_equal(targets.weigh_classes(weights, classes, y), expected)
    # a part of the rows, as partial_fit has them, need not have all classes
    np.testing.assert_array_equal(targets.weigh_classes(weights, classes, y[:1]), expected[:1])


def test_a_list_for_labels():
    weights = [{0: 1, 1: 2}, {0: 1, 1: 3}, {0: 5, 1: 1}]
    expected = compute_sample_weight(weights, Y["multilabel"])
    np.testing.assert_array_equal(targets.weigh_classes(weights, np.arange(3), Y["multilabel"]), expected)


def test_text_labels():
    got = targets.weigh_classes({"yes": 3}, binarizer("binary").classes_, Y["binary"])
    np.testing.assert_array_equal(got, [1, 3, 3, 1, 3])


def test_no_class_weight_leaves_weights_alone():
    given = np.ones(5)
    assert targets.weigh_classes(None, np.arange(2), Y["binary"], given) is given
    assert targets.weigh_classes(None, np.arange(2), Y["binary"]) is None


@pytest.mark.parametrize(
    "weights, words",
    [
        ({3: 2, 4: 1}, r"class_weight names \[4\], which y does not have; its classes are \[3, 5, 7\]"),
        ({3: -1}, r"class_weight\[3\] must be in \[0, inf\), got -1"),
        ({3: "2"}, r"class_weight\[3\] must be in \[0, inf\), got '2'"),
        ({3: np.nan}, r"class_weight\[3\] must be in \[0, inf\), got nan"),
        ({3: np.inf}, r"class_weight\[3\] must be in \[0, inf\), got inf"),
        ("even", "class_weight must be None, 'balanced' or a dict of label to weight, got 'even'"),
        (2.0, "class_weight must be None, 'balanced' or a dict"),
    ],
)
def test_wrong_class_weights(weights, words):
    with pytest.raises(ValueError, match=words):
        targets.weigh_classes(weights, binarizer("multiclass").classes_, Y["multiclass"])


# --- values -----------------------------------------------------------------------------------------------------------


def test_gamma_needs_positive_targets():
    np.testing.assert_array_equal(targets.encode_values([1, 2.5], F64, "gamma"), [[1], [2.5]])
    for bad in (0.0, -2.0):
        with pytest.raises(ValueError, match=f"loss='gamma' needs targets above 0, got {bad:g}"):
            targets.encode_values([1, bad], F64, "gamma")
    with pytest.raises(ValueError, match="above 0, got 0"):
        targets.encode_values([1, 1e-200], F32, "gamma")


@pytest.mark.parametrize("dtype", [F32, F64])
def test_kl_divergence_needs_distributions(dtype):
    p = np.random.default_rng(0).dirichlet(np.ones(7), 100)
    np.testing.assert_array_equal(targets.encode_values(p, dtype, "kl_divergence"), p.astype(dtype))
    targets.encode_values(p.round(5), dtype, "kl_divergence")
    targets.encode_values(np.eye(3), dtype, "kl_divergence")
    with pytest.raises(ValueError, match=r"add up to 1; row 0 adds up to 7"):
        targets.encode_values(7 * p, dtype, "kl_divergence")
    p[5, :2] = 1.5, -0.5
    with pytest.raises(ValueError, match=r"rows of y that are distributions, got the probability -0.5"):
        targets.encode_values(p, dtype, "kl_divergence")


@pytest.mark.parametrize("loss", ["squared_error", "poisson", ("huber", {"delta": 2.0})])
def test_other_losses_take_any_numbers(loss):
    np.testing.assert_array_equal(targets.encode_values([-1, 0, 2], F64, loss), [[-1], [0], [2]])
