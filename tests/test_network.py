"""The layout of the flat vector, and batch normalisation folded into weights."""

import pickle

import numpy as np
import pytest

from fastmlp.kernels import formulas
from fastmlp.model.network import Network
from fastmlp.model.stages import BATCH_NORM_EPS, UNIT_ATTRIBUTES

F64 = np.dtype(np.float64)
PLAIN = Network((4, 5, 6, 3), ("relu", "tanh"), "log_loss", F64)
PRELU = Network((4, 5, 6, 3), ("prelu", "tanh"), "log_loss", F64)
AFTER = Network((4, 5, 6, 3), ("relu", "prelu"), "log_loss", F64, batch_norm="after")
MIXED = Network((4, 5, 6, 3), ("prelu", "relu"), "log_loss", F64, batch_norm=["after", True])
ONE = Network((4, 5, 6, 3), ("relu", "prelu"), "log_loss", F64, batch_norm=(False, "after"))
NORM = Network((4, 5, 6, 3), ("relu", "prelu"), "log_loss", F64, batch_norm=True)
LINEAR = 4 * 5 + 5 * 6 + 6 * 3 + 5 + 6 + 3


@pytest.mark.parametrize(
    "network, n_trained, n_params",
    [
        (PLAIN, LINEAR, LINEAR),
        (PRELU, LINEAR + 5, LINEAR + 5),
        (NORM, LINEAR + 2 * 5 + 3 * 6, LINEAR + 2 * 5 + 3 * 6 + 2 * (5 + 6)),
        (Network((4, 3), (), "log_loss", F64, batch_norm=True), 15, 15),
    ],
    ids=["plain", "prelu", "batch_norm and prelu", "no hidden layer"],
)
def test_lengths(network, n_trained, n_params):
    assert network.n_trained == n_trained
    assert network.n_params == n_params
    assert network.n_linear == network.n_weights + sum(network.widths[1:])


def test_layout():
    """[W | b | per layer scale, shift, slope | per layer mean, var], without a gap or an overlap."""
    params = np.arange(NORM.n_params, dtype=float)
    views = [view.ravel() for view in (*NORM.coefs(params), *NORM.intercepts(params))]
    units, running = NORM.unit_parameters(params), NORM.running_statistics(params)
    assert [list(layer) for layer in units] == [["scale", "shift"], ["scale", "shift", "slope"]]
    assert [list(layer) for layer in running] == [["mean", "var"], ["mean", "var"]]
    views += [view for layers in (units, running) for layer in layers for view in layer.values()]
    np.testing.assert_array_equal(np.concatenate(views), params)
    assert all(np.shares_memory(view, params) for view in views)
    assert units[1]["slope"].shape == running[1]["var"].shape == (6,)


@pytest.mark.parametrize("network", [PLAIN, PRELU, NORM], ids=["plain", "prelu", "batch_norm"])
def test_segments_cover_the_vector(network):
    """Without a gap or an overlap: weights first, then biases; what is not trained comes last."""
    assert [segment.start for segment in network.segments[1:]] == [s.start + s.size for s in network.segments[:-1]]
    assert network.segments[0].start == 0 and network.segments[-1].where.stop == network.n_params
    assert [s.name for s in network.segments[:6]] == ["W"] * 3 + ["b"] * 3
    trained = [segment.trained for segment in network.segments]
    assert trained == sorted(trained, reverse=True)
    assert [(s.rows, s.width) for s in network.segments[:3]] == network.shapes
    for segment in network.segments:
        if segment.name != "W":
            assert (segment.rows, segment.width) == (1, network.widths[segment.layer + 1])


@pytest.mark.parametrize("network", [PLAIN, PRELU, NORM], ids=["plain", "prelu", "batch_norm"])
def test_only_units_have_first_values(network):
    assert [segment.first is not None for segment in network.segments] == [s.of_units for s in network.segments]
    attributes = {"W": "coefs_", "b": "intercepts_", **UNIT_ATTRIBUTES}
    assert all(segment.attribute == attributes[segment.name] for segment in network.segments)


def test_a_plain_network_has_neither():
    params = np.zeros(PLAIN.n_params)
    assert PLAIN.unit_parameters(params) == PLAIN.running_statistics(params) == [{}, {}]


def test_initial_values():
    params = NORM.initial_params(np.random.RandomState(0), gain=6.0)
    for layer in (*NORM.unit_parameters(params), *NORM.running_statistics(params)):
        for name, view in layer.items():
            assert (view == {"scale": 1, "shift": 0, "slope": 0.25, "mean": 0, "var": 1}[name]).all(), name


def test_initial_weights_do_not_depend_on_units():
    params = [network.initial_params(np.random.RandomState(3), gain=2.0) for network in (PLAIN, NORM)]
    np.testing.assert_array_equal(params[0], params[1][: PLAIN.n_params])


def test_a_slope_may_start_elsewhere():
    network = Network((2, 3, 1), (("prelu", {"slope": 0.1}),), "squared_error", F64)
    params = network.initial_params(np.random.RandomState(0), gain=6.0)
    np.testing.assert_array_equal(network.unit_parameters(params)[0]["slope"], 0.1)


# --- arrays back to the flat vector -----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [PLAIN, PRELU, NORM], ids=["plain", "prelu", "batch_norm"])
def test_views_lead_back_to_their_vector(network):
    params = np.random.default_rng(0).normal(size=network.n_params)
    coefs, intercepts = network.coefs(params), network.intercepts(params)
    assert network.shared_base(coefs, intercepts) is params
    assert network.flatten(coefs, intercepts) is params


@pytest.mark.parametrize("network", [PLAIN, NORM], ids=["plain", "batch_norm"])
def test_other_arrays_make_a_new_vector(network):
    params = np.random.default_rng(0).normal(size=network.n_params)
    copies = [[view.copy() for view in views] for views in (network.coefs(params), network.intercepts(params))]
    assert network.shared_base(*copies) is None
    new = network.flatten(*copies)
    np.testing.assert_array_equal(new[: network.n_linear], params[: network.n_linear])
    expected = np.empty(network.n_params)
    network.reset_units(expected)
    np.testing.assert_array_equal(new[network.n_linear :], expected[network.n_linear :])


def test_a_vector_of_another_dtype_keeps_its_units():
    params = np.random.default_rng(0).normal(size=NORM.n_params).astype(np.float32)
    new = NORM.flatten(NORM.coefs(params), NORM.intercepts(params))
    assert new.dtype == np.float64
    np.testing.assert_array_equal(new, params)


def test_a_vector_of_another_length_is_not_shared():
    params = np.zeros(NORM.n_params)
    assert PLAIN.shared_base(NORM.coefs(params), NORM.intercepts(params)) is None


def test_a_wrong_shape_is_named():
    params = np.zeros(PLAIN.n_params)
    coefs = PLAIN.coefs(params)
    coefs[1] = np.zeros((5, 7))
    with pytest.raises(ValueError, match=r"coefs_\[1\] must have shape \(5, 6\), got \(5, 7\)"):
        PLAIN.flatten(coefs, PLAIN.intercepts(params))


# --- prediction -------------------------------------------------------------------------------------------------------


def forward(network, params, X):
    """Logits as the definition of batch normalisation has them, and pre-activations as units see them."""
    activations = {"relu": lambda z, slope: np.maximum(z, 0), "prelu": lambda z, slope: np.where(z > 0, z, slope * z)}
    layers = zip(network.coefs(params), network.intercepts(params), strict=True)
    units, running = network.unit_parameters(params), network.running_statistics(params)
    a = X
    for i, (W, b) in enumerate(layers):
        z = a @ W + b
        if i < len(network.activations):
            where = network.batch_norm[i] if network.batch_norm else ""
            z = normalised(z, units[i], running[i]) if where == "before" else z
            a = activations[network.activations[i]](z, units[i].get("slope"))
            a = normalised(a, units[i], running[i]) if where == "after" else a
    return z


def normalised(x, units, running):
    return units["scale"] * (x - running["mean"]) / np.sqrt(running["var"] + BATCH_NORM_EPS) + units["shift"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("network", [NORM, AFTER, MIXED, ONE], ids=["before", "after", "mixed", "one layer"])
def test_folded_predicts_the_same(network, dtype):
    rng = np.random.default_rng(1)
    network = network.with_dtype(dtype)
    params = rng.normal(size=network.n_params).astype(dtype)
    for layer in filter(None, network.running_statistics(params)):
        layer["var"][...] = rng.uniform(0.01, 9, layer["var"].shape)
    before, X = params.copy(), rng.normal(size=(50, 4))
    plain, folded = network.folded(params)
    assert plain == network.plain and not plain.batch_norm
    assert folded.dtype == dtype and folded.shape == (plain.n_params,)
    np.testing.assert_array_equal(params, before)
    expected = forward(network, params.astype(np.float64), X)
    tolerance = 100 * np.finfo(dtype).eps
    got = forward(plain.with_dtype(np.float64), folded.astype(np.float64), X)
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


PLACEMENTS = [
    (False, ()),
    (True, ("before", "before")),
    ("before", ("before", "before")),
    ("after", ("after", "after")),
    ([False, False], ()),
    ([True, "after"], ("before", "after")),
    ((False, "after"), ("", "after")),
    (("", "before"), ("", "before")),
]


@pytest.mark.parametrize(("given", "expected"), PLACEMENTS, ids=str)
def test_placements_of_batch_norm(given, expected):
    network = Network((4, 5, 6, 3), ("relu", "prelu"), "log_loss", F64, batch_norm=given)
    assert network.batch_norm == expected
    assert network == Network((4, 5, 6, 3), ("relu", "prelu"), "log_loss", F64, batch_norm=expected)
    names = [set(layer) - {"slope"} for layer in network.unit_segments]
    assert names == [{"scale", "shift", "mean", "var"} if where else set() for where in expected or ("", "")]


@pytest.mark.parametrize("given", ["behind", ["after"], ["after", None], ["after", 1], 1, None], ids=str)
def test_a_bad_placement_is_named(given):
    with pytest.raises(ValueError, match='batch_norm must be False, True, "before" or "after"'):
        Network((4, 5, 6, 3), ("relu", "prelu"), "log_loss", F64, batch_norm=given)


def test_nothing_to_fold_is_the_same_vector():
    params = np.zeros(PRELU.n_params)
    assert PRELU.folded(params) == (PRELU, params) or PRELU.folded(params)[1] is params
    assert PRELU.plain is PRELU


def test_dropout_is_off_in_prediction():
    network = Network((4, 5, 3), ("relu",), "log_loss", F64, dropout=(0.5,), input_dropout=0.1)
    params = np.zeros(network.n_params)
    plain, same = network.folded(params)
    assert same is params
    assert plain == Network((4, 5, 3), ("relu",), "log_loss", F64)


# --- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"widths": (4,)}, "widths must be at least two positive numbers"),
        ({"widths": (4, 0, 6, 3)}, "widths must be at least two positive numbers"),
        ({"activations": ("relu",)}, "activations must name one per hidden layer, 2"),
        ({"dtype": np.dtype(np.int64)}, "dtype must be float32 or float64, got int64"),
        ({"dropout": (0.5,)}, r"dropout must be one rate, or one per hidden layer, 2, got 1: \(0.5,\)"),
        ({"dropout": (0.5, 1.0)}, r"^dropout=1 drops every unit.*\[0, 1\)"),
        ({"dropout": (float("nan"), 0.0)}, r"^dropout must be in \[0, 1\), got nan"),
        ({"input_dropout": -0.1}, r"input_dropout must be in \[0, 1\), got -0.1"),
    ],
)
def test_wrong_fields(fields, words):
    right = {"widths": (4, 5, 6, 3), "activations": ("relu", "relu"), "loss": "log_loss", "dtype": F64}
    with pytest.raises(ValueError, match=words):
        Network(**right | fields)


def test_pickle():
    network = Network(
        (4, 5, 3), (("elu", {"alpha": 0.5}),), ("focal", {"gamma": 1.0}), F64, dropout=(0.25,), batch_norm=True
    )
    network.folded(network.initial_params(np.random.RandomState(0), gain=6.0))
    again = pickle.loads(pickle.dumps(network))
    assert again == network
    assert again.n_params == network.n_params


def test_learned_parameters_are_unit_parameters():
    """Whatever row of the table says that units learn a parameter gets it."""
    for name, row in formulas.ACTIVATIONS.items():
        network = Network((2, 3, 1), (name,), "squared_error", F64)
        assert tuple(network.unit_segments[0]) == tuple(row.learned)
