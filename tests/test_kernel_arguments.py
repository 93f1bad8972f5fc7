"""What a caller may do wrong: every call of every engine refuses bad arguments with a ValueError.

Each test makes a correct call with one argument spoiled; the error must name an argument, and no
output may have been written.  A check that is missing in a compiled engine shows here as a wrong
number, or as a crash of the interpreter.
"""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp.engines.backends import Data
from fastmlp.kernels import reference

from helpers import (
    assert_close,
    make_data,
    make_network,
    make_optimizer,
    make_params,
)
from layouts import at_odd_address, read_only

# Every call below is correct; each test spoils one argument of it.  An array is "in" or "out".
ARRAYS = {
    "shuffle": {"order": "out"},
    "predict": {"params": "in", "X": "any strides", "out": "out", "rows": "in"},
    "loss_and_grad": {
        "params": "in",
        "data.X": "any strides",
        "data.y": "in",
        "data.sample_weight": "in",
        "grad": "out",
    },
    "train_epoch": {
        "params": "out",
        "data.X": "any strides",
        "data.y": "in",
        "data.sample_weight": "in",
        "order": "in",
        "optimizer.states.0": "out",
        "optimizer.states.1": "out",
    },
}


def good_call(engine, name, dtype, loss="squared_error"):
    """Keyword arguments of a correct call; every array is fresh."""
    rng = np.random.default_rng(0)
    network = make_network((4, 6, 3), loss, "tanh", dtype)
    params = make_params(rng, network)
    data = make_data(rng, network, 10, weighted=True)
    data.sample_weight[:] += dtype(0.1)

    def some(*shape):
        return rng.uniform(0.1, 0.9, shape).astype(dtype)

    net = {"workspace": engine.workspace(network, 8), "params": params}
    calls = {
        "shuffle": lambda: {"order": np.arange(9, dtype=np.intp), "random_state": np.random.RandomState(0)},
        "predict": lambda: {**net, "X": data.X, "out": some(4, 3), "rows": np.array([9, 0, 0, 5], dtype=np.intp)},
        "loss_and_grad": lambda: {**net, "data": data, "alpha": 0.1, "grad": params.copy()},
        "train_epoch": lambda: {
            **net,
            "data": data,
            "order": rng.permutation(10),
            "batch_size": 4,
            "alpha": 0.1,
            "optimizer": make_optimizer(rng, "adam", len(params), dtype),
        },
    }
    return calls[name]()


def look_up(kwargs, path):
    """The argument at "X", "data.y" or "optimizer.states.1"."""
    value = kwargs
    for step in path.split("."):
        if isinstance(value, (dict, list)):
            value = value[int(step) if step.isdigit() else step]
        else:
            value = getattr(value, step)
    return value


def put(kwargs, path, value):
    *steps, last = path.split(".")
    owner = look_up(kwargs, ".".join(steps)) if steps else kwargs
    if isinstance(owner, dict):
        owner[last] = value
    elif isinstance(owner, Data):
        kwargs[steps[0]] = owner._replace(**{last: value})
    elif isinstance(owner, list):
        owner[int(last)] = value
    else:
        setattr(owner, last, value)


def other_dtype(a):
    """The same kind of number, half or twice as wide."""
    return np.dtype(f"{a.dtype.kind}{12 - a.dtype.itemsize}")


def every_second(a):
    wide = np.repeat(a, 2, axis=-1)
    return wide[..., ::2]


SPOIL = {
    "other dtype": lambda a: a.astype(other_dtype(a)),
    "half": lambda a: a.astype(np.float16),
    "integer": lambda a: a.astype(np.int16),
    "complex": lambda a: a.astype(np.complex64),
    "object": lambda a: a.astype(object),
    "byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "longer": lambda a: np.concatenate([a, a]),
    "shorter": lambda a: a[:-1].copy(),
    "wider": lambda a: np.repeat(a, 2, axis=-1),
    "no rows": lambda a: a[:0].copy(),
    "one more dimension": lambda a: a[None].copy(),
    "one dimension less": lambda a: a.ravel()[0].reshape(()) if a.ndim == 1 else a.ravel(),
    "strided": every_second,
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "Fortran order": lambda a: np.asfortranarray(a),
    "read-only": read_only,
    "a list": lambda a: a.tolist(),
    "a string": lambda a: "abc",
    "a number": lambda a: 1.0,
}
STRIDES = {"strided", "reversed", "Fortran order"}
SHAPES = {"longer", "shorter", "wider", "no rows", "one more dimension", "one dimension less"}


def is_good(name, path, kind, spoil):
    """Whether the contract allows this after all."""
    if spoil == "read-only":
        return kind != "out"
    if kind == "any strides" and spoil in STRIDES | {"other dtype"}:
        return True
    # these say themselves how many rows there are
    if path == "order":
        more = ("no rows", "one more dimension") if name == "shuffle" else ()  # orders of several epochs
        return spoil in ("longer", "shorter", "wider", *more)
    return (name, path, spoil) == ("predict", "X", "longer")


def bad_calls():
    for name, arrays in ARRAYS.items():
        for path, kind in arrays.items():
            for spoil in SPOIL:
                if not is_good(name, path, kind, spoil):
                    yield pytest.param(name, path, spoil, id=f"{name}-{path}-{spoil}")


def snapshot(kwargs, name):
    return {path: np.array(look_up(kwargs, path)) for path in ARRAYS[name]}


def assert_rejected(engine, name, kwargs, errors=(ValueError,), match=None):
    """The call raises, naming an argument, and has written nothing."""
    before = snapshot(kwargs, name)
    with pytest.raises(errors, match=match):
        getattr(engine, name)(**kwargs)
    for path, array in snapshot(kwargs, name).items():
        np.testing.assert_array_equal(array, before[path], err_msg=f"{path} was written to")


@pytest.mark.parametrize("name", ARRAYS)
def test_good_call_is_accepted(engine, dtype, name):
    """Or the tests of bad calls would show nothing."""
    getattr(engine, name)(**good_call(engine, name, dtype))


@pytest.mark.parametrize(("name", "path", "spoil"), [*bad_calls()])
def test_bad_array_is_rejected(engine, dtype, name, path, spoil):
    kwargs = good_call(engine, name, dtype)
    array = look_up(kwargs, path)
    spoiled = SPOIL[spoil](array)
    if spoil == "Fortran order" and array.ndim == 1:
        return  # the same array
    put(kwargs, path, spoiled)
    words = {path.split(".")[-1]}
    if spoil in SHAPES | {"other dtype"}:  # of two arrays that do not fit, either may be blamed
        words = {p.split(".")[-1] for p in ARRAYS[name]}
    if name == "train_epoch":
        words |= {"states", "m", "v"}
    words = "|".join(sorted(word for word in words if not word.isdigit()))
    assert_rejected(engine, name, kwargs, match=rf"\b({words})\b")


@pytest.mark.parametrize("name", ARRAYS)
def test_unaligned_arrays_are_rejected(engine, dtype, name):
    """Memory that no vector load may touch as if it were aligned."""
    for path in ARRAYS[name]:
        kwargs = good_call(engine, name, dtype)
        put(kwargs, path, at_odd_address(look_up(kwargs, path)))
        assert_rejected(engine, name, kwargs, match="aligned")


@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
@pytest.mark.parametrize("spoil", [at_odd_address, every_second, lambda a: a.astype(a.dtype.newbyteorder())])
def test_odd_arrays_of_a_sparse_matrix_are_rejected(engine, dtype, part, spoil):
    kwargs = good_call(engine, "predict", dtype)
    kwargs["X"] = sp.csr_matrix(kwargs["X"])
    setattr(kwargs["X"], part, spoil(getattr(kwargs["X"], part)))
    out = kwargs["out"].copy()
    with pytest.raises(ValueError, match=rf"X\.{part}|X\.ind"):
        engine.predict(**kwargs)
    np.testing.assert_array_equal(kwargs["out"], out)


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("train_epoch", "batch_size", 0),
        ("train_epoch", "batch_size", -1),
    ],
)
def test_bad_argument_is_rejected(engine, dtype, name, argument, value):
    kwargs = good_call(engine, name, dtype)
    kwargs[argument] = value
    before = {p: np.array(look_up(kwargs, p)) for p in ARRAYS[name] if not p.startswith("states")}
    with pytest.raises(ValueError, match=argument):
        getattr(engine, name)(**kwargs)
    for path, array in before.items():
        np.testing.assert_array_equal(look_up(kwargs, path), array)


JUNK = {
    "None": None,
    "object": object(),
    "text": "x",
    "number": -1,
    "huge": 2**70,
    "nan": float("nan"),
    "list": [],
    "no array": np.empty((0, 0)),
    "scalar": np.float64(1),
    "type": np.ndarray,
    "triple": (None, None, None),
}


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("name", ARRAYS)
def test_junk_never_crashes(engine, dtype, name, junk):
    """Anything at all in the place of each argument: an exception, or None where it is optional."""
    for argument in good_call(engine, name, dtype):
        kwargs = good_call(engine, name, dtype)
        kwargs[argument] = JUNK[junk]
        try:
            getattr(engine, name)(**kwargs)
        except Exception as error:
            assert str(error), f"{argument}={junk}: {error!r} says nothing"
        else:
            assert argument in OPTIONAL or not is_array(name, argument), f"{argument}={junk}"


OPTIONAL = {"sample_weight", "rows"}


def is_array(name, argument):
    return argument in ARRAYS[name] or argument in ("data", "workspace", "optimizer")


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("argument", ["network", "batch_size", "n_jobs"])
def test_junk_never_crashes_workspace(engine, argument, junk):
    kwargs = {"network": make_network((3, 2)), "batch_size": 4, "n_jobs": None}
    kwargs[argument] = JUNK[junk]
    try:
        engine.workspace(**kwargs)
    except Exception as error:
        assert str(error), f"{error!r} says nothing"
    else:
        assert argument == "n_jobs"


@pytest.mark.parametrize(
    ("widths", "activations"),
    [
        ((), ()),
        ((3,), ()),
        ((3, 0, 2), ("tanh",)),
        ((3, -1, 2), ("tanh",)),
        ((1, -10, -50, 1), ("tanh", "tanh")),  # adds up to a positive number of parameters
        ((3, 4, 2), ()),
        ((3, 4, 2), ("tanh", "tanh")),
        ((3, 4, 2), ("no such",)),
        ((3, 4, 2), ("exp",)),  # a link, no slope
    ],
)
def test_impossible_network_is_rejected(engine, dtype, widths, activations):
    with pytest.raises(ValueError):
        engine.workspace(make_network(widths, "squared_error", activations, dtype), 4)


@pytest.mark.parametrize("width", [2**31, 2**40, 2**62])
def test_network_beyond_any_memory(engine, dtype, width):
    """Products of sizes that no integer of the machine can hold must not wrap around."""
    with pytest.raises((MemoryError, ValueError, OverflowError)):
        engine.workspace(make_network((width, width, width), "squared_error", "tanh", dtype), 4)


@pytest.mark.parametrize("loss", ["log_loss", "squared_error"])
def test_mean_over_no_rows_is_rejected(engine, dtype, loss):
    name = "loss_and_grad"
    kwargs = good_call(engine, name, dtype, loss)
    for path in ARRAYS[name]:
        if path not in ("params", "grad"):
            put(kwargs, path, look_up(kwargs, path)[:0].copy())
    assert_rejected(engine, name, kwargs, match="row")


@pytest.mark.parametrize("batch_size", [0, -1])
def test_workspace_of_no_rows_is_rejected(engine, dtype, batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        engine.workspace(make_network((3, 2), dtype=dtype), batch_size)


@pytest.mark.parametrize("name", ["predict", "loss_and_grad", "train_epoch"])
@pytest.mark.parametrize("workspace", [None, object(), "workspace"], ids=["None", "object", "str"])
def test_what_is_no_workspace_is_rejected(engine, dtype, name, workspace):
    kwargs = good_call(engine, name, dtype)
    kwargs["workspace"] = workspace
    assert_rejected(engine, name, kwargs, (ValueError, TypeError))


@pytest.mark.parametrize("name", ["predict", "loss_and_grad", "train_epoch"])
def test_workspace_of_another_network_is_rejected(engine, dtype, name):
    other = np.float32 if dtype == np.float64 else np.float64
    for network in (
        make_network((4, 7, 3), "squared_error", "tanh", dtype),
        make_network((4, 6, 3), "squared_error", "tanh", other),
    ):
        kwargs = good_call(engine, name, dtype)
        kwargs["workspace"] = engine.workspace(network, 8)
        assert_rejected(engine, name, kwargs)


@pytest.mark.parametrize("index", [-1, 10, 2**40, -(2**62)])
@pytest.mark.parametrize(("name", "argument"), [("predict", "rows"), ("train_epoch", "order")])
def test_row_index_out_of_range_is_rejected(engine, dtype, name, argument, index):
    for position in (0, 3):
        kwargs = good_call(engine, name, dtype)
        kwargs[argument][position] = index
        assert_rejected(engine, name, kwargs, match=argument)


def test_no_rows_to_train_on_are_rejected(engine, dtype):
    kwargs = good_call(engine, "train_epoch", dtype)
    kwargs["order"] = np.empty(0, dtype=np.intp)
    assert_rejected(engine, "train_epoch", kwargs, match="order")


@pytest.mark.parametrize("label", [-1, 3, 2**40])
@pytest.mark.parametrize("name", ["loss_and_grad", "train_epoch"])
def test_class_index_out_of_range_is_rejected(engine, dtype, name, label):
    kwargs = good_call(engine, name, dtype, "log_loss")
    kwargs["data"].y[-1] = label
    assert_rejected(engine, name, kwargs, match=r"\by\b")


ALIASES = [
    ("optimizer.states.0", "optimizer.states.1"),
    ("optimizer.states.1", "params"),
]


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(("path", "other"), ALIASES)
def test_states_that_share_memory_are_rejected(engine, dtype, path, other, shift):
    """The same array, or one that begins a number later."""
    kwargs = good_call(engine, "train_epoch", dtype)
    n = len(look_up(kwargs, other))
    memory = np.full(n + shift, 0.5, dtype)
    put(kwargs, other, memory[:n])
    put(kwargs, path, memory[shift:])
    assert_rejected(engine, "train_epoch", kwargs, match="memory|overlap|alias|share")


def test_neighbours_in_one_buffer_are_accepted(engine, dtype):
    """States side by side in one allocation do not share memory."""
    kwargs = good_call(engine, "train_epoch", dtype)
    kwargs["params"], *kwargs["optimizer"].states = np.full((3, len(kwargs["params"])), 0.5, dtype)
    engine.train_epoch(**kwargs)


@pytest.mark.parametrize(
    "scalars",
    [
        np.ones((2, 4)),
        np.ones((3, 3)),
        np.ones((3, 4), np.float32),
        np.ones(12),
        np.ones((4, 3)).T,
        np.ones((3, 8))[:, ::2],
        [[0.1] * 4] * 2,
        None,
    ],
    ids=["steps", "columns", "dtype", "flat", "transposed", "strided", "list", "None"],
)
def test_bad_scalars_of_an_optimizer_are_rejected(engine, dtype, scalars):
    """Three batches with four scalars each are asked for."""
    kwargs = good_call(engine, "train_epoch", dtype)
    kwargs["optimizer"].scalars = lambda n_steps: scalars
    assert_rejected(engine, "train_epoch", kwargs, (ValueError, TypeError))


def test_bad_optimizer_is_rejected(engine, dtype):
    for change in ({"rule": "no such"}, {"states": []}, {"states": None}, {"rule": None}):
        kwargs = good_call(engine, "train_epoch", dtype)
        before = kwargs["params"].copy()
        kwargs["optimizer"].scalars = lambda n_steps: np.ones((n_steps, 4))
        for attribute, value in change.items():
            setattr(kwargs["optimizer"], attribute, value)
        with pytest.raises((ValueError, TypeError)):
            engine.train_epoch(**kwargs)
        np.testing.assert_array_equal(kwargs["params"], before)


def change(attribute, at, value):
    """A fault: numbers of data, indices or indptr replaced; ``value`` may be a function of the matrix."""

    def fault(X):
        getattr(X, attribute)[at] = value(X) if callable(value) else value
        return X

    return fault


def replace(attribute, function):
    """A fault: another array in the place of data, indices or indptr."""

    def fault(X):
        setattr(X, attribute, function(getattr(X, attribute)))
        return X

    return fault


#: name -> function of a CSR matrix without duplicates, as SciPy lets one be made after construction.
CSR_FAULTS = {
    "index too large": change("indices", -1, lambda X: X.shape[1]),
    "index far too large": change("indices", 5, 2**31 - 1),
    "index negative": change("indices", 0, -1),
    "indptr decreases": change("indptr", 3, lambda X: X.indptr[4] + 1),
    "indptr negative": change("indptr", 1, -4),
    "indptr begins late": change("indptr", 0, 1),
    "indptr ends late": change("indptr", -1, lambda X: X.indptr[-1] + 1),
    "indptr far too large": change("indptr", slice(2, None), 2**31 - 1),
    "indptr too short": replace("indptr", lambda a: a[:-1].copy()),
    "data too short": replace("data", lambda a: a[:-1].copy()),
    "indices too short": replace("indices", lambda a: a[:-1].copy()),
    "data of integers": replace("data", lambda a: a.astype(np.int64)),
    "indices of floats": replace("indices", lambda a: a.astype(np.float64)),
    "indptr of int16": replace("indptr", lambda a: a.astype(np.int16)),
    "data two-dimensional": replace("data", lambda a: a[:, None]),
    "csc": sp.csc_array,
    "bsr": sp.bsr_array,
    "too few columns": lambda X: sp.csr_array(X[:, :3]),
}


@pytest.mark.parametrize("fault", CSR_FAULTS)
@pytest.mark.parametrize("name", ["predict", "loss_and_grad", "train_epoch"])
def test_bad_csr_is_rejected(engine, dtype, name, fault):
    kwargs = good_call(engine, name, dtype)
    path = "X" if name == "predict" else "data.X"
    X = look_up(kwargs, path)
    arrays = {p: np.array(look_up(kwargs, p)) for p in ARRAYS[name] if p != path}
    X = sp.csr_array(X)
    X.sum_duplicates()
    put(kwargs, path, CSR_FAULTS[fault](X))
    with pytest.raises(ValueError, match="X"):
        getattr(engine, name)(**kwargs)
    for p, before in arrays.items():
        np.testing.assert_array_equal(look_up(kwargs, p), before)


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), fault=st.sampled_from(["indices", "indptr"]))
def test_scrambled_csr_is_rejected_or_read_right(engine, dtype, seed, fault):
    """Random damage: whatever is accepted is what the reference accepts."""
    rng = np.random.default_rng(seed)
    network = make_network((6, 2), "squared_error", dtype=dtype)
    params, X = make_params(rng, network), make_data(rng, network, 8, kind="csr int32").X
    array = getattr(X, fault)
    if array.size == 0:
        return
    array[rng.integers(array.size)] += rng.integers(-7, 8)
    results = []
    for backend in (engine, reference):
        out = np.zeros((8, 2), dtype)
        try:
            backend.predict(backend.workspace(network, 8), params, X, out)
            results.append(out)
        except ValueError:
            results.append(None)
    assert (results[0] is None) == (results[1] is None)
    if results[0] is not None:
        assert_close(*results, terms=6, scale=10)
