"""Where formulas have corners, zeros and ends: points for every activation and loss, and what to check there.

Used for the engines on CPUs (test_kinks.py) and for the CUDA engine (test_cuda_kinks.py), all judged by the reference.
"""

import numpy as np

from fastmlp.engines import by_name
from fastmlp.engines.backends import Data
from fastmlp.kernels import formulas, reference
from fastmlp.kernels.language import Formula

from helpers import HIDDEN, assert_close, make_network, name_of

#: Activations with their defaults, and with parameters that move or remove a kink.
ACTIVATIONS = [
    *formulas.ACTIVATIONS,
    ("leaky_relu", {"negative_slope": 0.0}),
    ("prelu", {"slope": -0.5}),
    ("prelu", {"slope": 0.0}),
    ("elu", {"alpha": 0.0}),
    ("elu", {"alpha": 0.7}),
    ("celu", {"alpha": 0.5}),
    ("hardtanh", {"min_val": 0.0, "max_val": 2.0}),
    ("hardtanh", {"min_val": -2.0, "max_val": 0.0}),
    ("softplus", {"beta": 3.0}),
]
LOSSES = [
    *formulas.LOSSES,
    ("log_loss", {"label_smoothing": 0.1}),
    ("focal", {"gamma": 0.0}),
    ("focal", {"gamma": 0.5}),
    ("binary_focal", {"gamma": 0.0}),
    ("huber", {"delta": 0.5}),
    ("quantile", {"quantile": 0.9}),
]

OWN_ACTIVATIONS = [
    Formula.from_source(f"def f(z): return {text}")
    for text in (
        "maximum(z, 0)",
        "minimum(maximum(z, -1), 1)",
        "abs(z)",
        "abs(abs(z) - 1)",
        "z if z > 0 else 0.1 * z",
        "z if z >= 0 else exp(z) - 1",
        "1.0 if z > 0 else (-1.0 if z < 0 else z)",  # sign
        "z * sqrt(abs(z))",
        "sqrt(z * z)",
        "z / (1 + z * exp(-z))",
        "maximum(z * z, z)",
        "0.0 if z == 0 else 1.0",
    )
]
OWN_LOSSES = [
    Formula.from_source(f"def f(y, p): return {text}", link=link)
    for text, link in (
        ("abs(y - p)", "identity"),
        ("maximum(y - p, 0)", "identity"),
        ("0.9 * (y - p) if y > p else 0.1 * (p - y)", "identity"),
        ("minimum(abs(y - p), 1)", "identity"),
        ("(y - p) * (1.0 if y > p else (-1.0 if y < p else 0.0))", "identity"),
        ("log1p((y - p) * (y - p) * exp(-y))", "identity"),
        ("maximum(p, y) - minimum(p, y)", "exp"),
        ("abs(y - p)", "logistic"),
    )
]


def points(dtype):
    """Kinks, their neighbours, zeros of both signs, subnormal, huge and infinite numbers, NaN."""
    kinks = np.array([0.5, 1, 2, 3, 6, 1000], dtype)
    kinks = np.concatenate([kinks, np.nextafter(kinks, dtype(0)), np.nextafter(kinks, dtype(np.inf))])
    info = np.finfo(dtype)
    small, large = [info.smallest_subnormal, info.tiny / 2, info.tiny, 1e-20], [20, 40, 100, 750, 1e4, 1e30, info.max]
    positive = np.concatenate([[0.0], small, kinks, large, [np.inf]])
    return np.concatenate([positive, -positive, [np.nan]]).astype(dtype)


def built_in_as_formula(name):
    """An activation of the table as a user's formula, helpers written out, with its slope."""
    from fastmlp.kernels.language import program_of
    from fastmlp.kernels.program import source_of

    row = formulas.ACTIVATIONS[name]
    value = program_of(row.value, ["z"], dict(row.parameters), formulas.HELPERS)
    slope = program_of(row.slope, ["z", "a"], dict(row.parameters), formulas.HELPERS)
    return Formula.from_source(source_of(value, "value", ["z"]), slope=source_of(slope, "slope", ["z", "a"]))


def check_activation(engine, entry, dtype, judged_by=None):
    """Values and slopes at all points; ``judged_by`` is the same function for the reference, if given."""
    judged_by = judged_by or entry
    z = points(dtype)
    a = reference.activate(judged_by, z)
    got = by_name.activate(engine, entry, z)
    assert_close(got, a, scale=np.maximum(np.abs(a), np.minimum(np.abs(z), 1)), what=f"{entry} at {z}")
    assert_close(got[z == 0], a[z == 0], what=f"{entry} at 0")
    if name_of(judged_by) in set(formulas.ACTIVATIONS) - set(HIDDEN):
        return
    expected = reference.slope(judged_by, z, a)
    got = by_name.slope(engine, entry, z)
    assert_close(got, expected, scale=np.maximum(np.abs(expected), 1), what=f"slope of {entry} at {z}")
    assert_close(got[z == 0], expected[z == 0], what=f"slope of {entry} at 0")


def check_rectangles(engine, entry, dtype, widths):
    """Deltas below rows of the finite points, in layers of widths that leave remainders of vectors."""
    z = points(dtype)
    z = z[np.abs(z) <= 10]
    for width in widths:
        rows = np.resize(z, (-(-len(z) // width) + 1, width))
        W, delta = np.ones((width, 1), dtype), np.full((len(rows), 1), 0.5, dtype)
        below = by_name.hidden_backward(engine, entry, rows, W, delta)[2]
        expected = dtype(0.5) * reference.slope(entry, rows, reference.activate(entry, rows))
        assert_close(below, expected, scale=np.maximum(np.abs(expected), 1), what=f"{entry}, width {width}")


def check_learned_slopes(engine, dtype, widths):
    """The gradient of prelu's slopes, which is min(z, 0) * delta, and all else of a small network."""
    z = points(dtype)
    z = z[np.abs(z) <= 1000]
    for width in widths:
        network = make_network((1, width, 1), "squared_error", ("prelu", {"slope": 0.25}), dtype)
        params = np.zeros(network.n_params, dtype)
        W, V = network.coefs(params)
        W[0], V[...] = np.resize(z, width), 0.5
        slopes = next(segment for segment in network.segments if segment.name == "slope")
        params[slopes.where] = np.resize([0.25, -0.5, 0.0], width)
        data = Data(np.array([[1], [-1], [0], [-0.0]], dtype), np.array([[1], [2], [-1], [0.5]], dtype))
        found = []
        for one in (engine, reference):
            grad = np.empty_like(params)
            value = one.loss_and_grad(one.workspace(network, 4, 1), params, data, 0.0, grad)
            found.append((value, grad))
        (value, grad), (expected, expected_grad) = found
        size = np.abs(W).max() ** 2 * width
        assert_close(value, expected, dtype=dtype, terms=width, scale=abs(expected) + size, what="loss")
        assert_close(grad, expected_grad, terms=4 * width, scale=1 + size, what=f"gradient, width {width}")


def targets_of(name, dtype):
    """Targets that a loss by formula allows, at their own ends and zeros."""
    binary, distances = [0.0, -0.0, 1.0], [0.0, -0.0, 1.0, -2.0, 1e4, float(np.finfo(dtype).tiny)]
    own = {"poisson": [0.0, -0.0, 0.5, 3.0, 1e4], "gamma": [float(np.finfo(dtype).tiny), 1e-3, 2.0, 1e4]}
    own |= dict.fromkeys(("binary_log_loss", "binary_focal", "hinge", "squared_hinge"), binary)
    return np.array(own.get(name_of(name), distances), dtype)


def near(y, dtype):
    """Logits at kinks of the distance to a target, and next to them."""
    kinks = np.array([0, 0.5, -0.5, 1, -1], dtype) + y
    return np.concatenate([kinks, np.nextafter(kinks, dtype(np.inf))])


def size_of(entry, y, logits, result):
    """What roundings are measured by: the size of what a loss or its delta adds up."""
    size = np.abs(result) + np.abs(y) * (1 + np.minimum(np.abs(logits), 1e4))
    if name_of(entry) == "gamma":
        size = size + np.abs(y) * np.exp(-logits) * (1 + np.abs(logits))
    if name_of(entry) == "binary_focal":  # exp(-gamma * softplus): a rounding of the exponent grows with it
        size = size * (1 + 2 * np.minimum(np.abs(logits), 1e3))
    return size


def check_loss(engine, entry, dtype):
    """Deltas of each target at all points; values of moderate logits together, where numbers end each in a call."""
    largest = np.finfo(dtype).max
    ends = np.array([750, -750, largest, -largest, np.inf, -np.inf, np.nan], dtype)
    for number, y in enumerate(targets_of(entry, dtype)):
        logits = np.concatenate([points(dtype), near(y, dtype)])[:, None]
        check_delta(entry, y, logits, by_name.loss(engine, entry, logits, np.full_like(logits, y))[1])
        for z in [logits[np.abs(logits) <= 100][:, None], *(ends[:, None, None] if number < 3 else ())]:
            check_value(entry, y, z, by_name.loss(engine, entry, z, np.full_like(z, y))[0])


def check_loss_in_parts(engine, entry, dtype, size=8):
    """The same, a few rows in a call, each row that may spoil the others in a call of its own.

    An engine that makes sparse rows dense multiplies the deltas of all rows by the zeros of each one, and its simulator
    is the faster, the fewer these are.
    """
    for y in targets_of(entry, dtype):
        logits = np.concatenate([points(dtype), near(y, dtype)])[:, None]
        expected = reference.loss(entry, logits, np.full_like(logits, y))[1]
        moderate = (np.isfinite(expected) & (np.abs(logits) <= 100)).ravel()
        together, alone = np.flatnonzero(moderate), np.flatnonzero(~moderate)
        for rows in [*np.split(together, range(size, len(together), size)), *alone[:, None]]:
            z = logits[rows]
            value, delta = by_name.loss(engine, entry, z, np.full_like(z, y))
            check_delta(entry, y, z, delta)
            check_value(entry, y, z, value)


def check_delta(entry, y, logits, delta):
    expected = reference.loss(entry, logits, np.full_like(logits, y))[1]
    what = f"delta of {entry}, y={y}, at {logits.ravel()}"
    assert_close(delta, expected, terms=4, scale=size_of(entry, y, logits, expected), what=what)


def check_value(entry, y, logits, value):
    expected = reference.loss(entry, logits, np.full_like(logits, y))[0]
    scale = size_of(entry, y, logits, expected).mean()
    what = f"{entry}, y={y}, at {logits.ravel()}"
    assert_close(value, expected, dtype=logits.dtype, terms=4, scale=scale, what=what)


def loss_of(engine):
    return lambda *arguments: by_name.loss(engine, *arguments)


#: Rows of logits for losses of softmax: ties, sure ones, both zeros, tiny, huge and infinite numbers, NaN.
ROWS = [
    [0, 0, 0],
    [0, -0.0, 0],
    [1e-40, -1e-40, 0],
    [1, 1, -1],
    [20, 0, -20],
    [120, 0, 0],
    [0, 120, 0],
    [1e4, -1e4, 0],
    [-1e30, 1e30, 1e30],
    [-np.inf, 0, 0],
    [0, -np.inf, -np.inf],
    [-np.inf, 0, 1],
    [np.inf, 0, 1],
    [np.nan, 0, 1],
]


def check_softmax_loss(engine, entry, dtype):
    """Value and delta of each row and target."""
    if formulas.LOSSES[name_of(entry)].class_targets:
        targets = [np.array([k], np.intp) for k in range(3)]
    else:
        rows = [[1, 0, 0], [0, 1, 0], [0, -0.0, 1], [0.5, 0.5, 0], [0.2, 0.3, 0.5], [1e-30, 0, 1]]
        targets = [np.array([row], dtype) for row in rows]
    for row in ROWS:
        logits = np.array([row], dtype)
        for y in targets:
            value, delta = by_name.loss(engine, entry, logits, y)
            expected, expected_delta = reference.loss(entry, logits, y)
            what = f"{entry}, y={y}, logits={row}"
            assert_close(value, expected, dtype=dtype, terms=4, scale=max(abs(expected), 1), what=what)
            scale = np.maximum(np.abs(expected_delta), 1)
            assert_close(delta, expected_delta, terms=4, scale=scale, what=f"delta of {what}")
