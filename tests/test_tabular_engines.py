"""Every engine that has feature blocks, members and plans of the optimizer against the reference, on random networks.

The networks are those of tabular_networks.py; the reference itself is judged in test_inputs.py.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from fastmlp.engines import backends
from fastmlp.kernels import contract, reference

from helpers import DTYPES, RULES, assert_close, relative_error, seeds
from tabular_networks import ENGINES, cases, large_case, make_plans

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # some networks overflow

dtypes = st.sampled_from(DTYPES)
jobs = st.sampled_from([1, 2])
rows = st.integers(1, 40)


def test_engines_that_have_everything():
    """The error of the others names them."""
    assert {*ENGINES} == {*contract.COMPLETE} & {*backends.available()}
    assert {*contract.COMPLETE} <= {*backends.BACKENDS}


@pytest.fixture(scope="module", params=[name for name in ENGINES if name != "reference"] or ["reference"])
def engine(request):
    """Each engine; the reference before itself where there is no other one."""
    return backends.get(request.param)


def lengths(network, n):
    """Terms of all the sums that lie between the parameters and their gradient."""
    waves = sum(block.frequencies + sum(block.counts) for block in network.inputs)
    return sum(network.widths) + waves + n * network.members


def drawn(data, drops):
    """Return a case of either dtype, and random numbers for it."""
    case = data.draw(cases(data.draw(dtypes), drops=drops))
    return case, np.random.default_rng(data.draw(seeds))


@given(n=rows, n_jobs=jobs, data=st.data())
def test_predict(engine, n, n_jobs, data):
    """Predictions of all rows and of some, of the mean and of each member."""
    case, rng = drawn(data, False)
    network, params, X = case.network, case.params(rng), case.data(rng, n).X
    some = data.draw(st.none() | st.integers(0, 60).map(lambda m: rng.integers(0, n, m)))
    each = [network, replace(network, average=False)] if network.members > 1 else [network]
    for wanted in each:
        width = network.widths[-1] * (1 if wanted.average else network.members)
        out = np.empty((n if some is None else len(some), width), network.dtype)
        expected = out.copy()
        assert engine.predict(engine.workspace(wanted, 8, n_jobs), params, X, out, some) is True
        reference.predict(reference.workspace(wanted, 8), params, X, expected, some)
        scale = max(1, np.abs(expected).max(initial=0))
        assert_close(out, expected, terms=lengths(network, 0), scale=scale, what="prediction")


@given(n=rows, n_jobs=jobs, weighted=st.booleans(), alpha=st.sampled_from([0.0, 0.3]), data=st.data())
def test_loss_and_grad(engine, n, n_jobs, weighted, alpha, data):
    """Loss and gradient, segment by segment."""
    case, rng = drawn(data, False)
    network, params, rows = case.network, case.params(rng), case.data(rng, n, weighted=weighted)
    l1 = data.draw(st.sampled_from([0.0, 0.2]))
    grad, wanted = np.empty_like(params), np.empty_like(params)
    value = engine.loss_and_grad(engine.workspace(network, n, n_jobs), params, rows, alpha, grad, l1)
    expected = reference.loss_and_grad(reference.workspace(network, n), params, rows, alpha, wanted, l1)
    terms, scale = lengths(network, n), np.abs(wanted).max()
    assert_close(value, expected, dtype=network.dtype, terms=terms, scale=max(1, abs(expected)), what="loss")
    for segment in network.segments:
        assert_close(grad[segment.where], wanted[segment.where], terms=terms, scale=scale, what=segment.name)


def check_train_epoch(engine, case, rng, rows, order, batch_size, optimizer, n_jobs, alpha=0.1, l1=0.05):
    """Parameters, states, loss and step count after an epoch."""
    network, params = case.network, case.params(rng)
    results = []
    for backend in (engine, reference):
        own, steps = params.copy(), optimizer.copy()
        workspace = backend.workspace(network, batch_size, n_jobs)
        value = backend.train_epoch(workspace, own, rows, order, batch_size, alpha, steps, l1, 2**40 + 3)
        results.append((value, own, steps))
    (value, got, mine), (expected, wanted, theirs) = results
    scale = np.abs(wanted).max()
    if not (scale < 10 and expected < 100):
        reject()  # it diverges: each step multiplies the rounding errors of all before
    steps = -(-len(order) // batch_size)
    terms = lengths(network, min(batch_size, len(order))) * steps
    assert mine.t == theirs.t == optimizer.t + steps
    assert_close(value, expected, dtype=network.dtype, terms=terms, scale=max(1, abs(expected)), what="loss")
    for segment in network.segments:
        what = f"{segment.name} of {segment.layer}"
        assert_close(got[segment.where], wanted[segment.where], terms=terms, scale=scale, what=what)
    for a, b in zip(mine.states, theirs.states, strict=True):
        assert_close(a, b, terms=terms, scale=np.abs(b).max(), what="state")
    assert np.abs(wanted - params).max() > 10 * relative_error(network.dtype, terms) * scale, "nothing moved"


@pytest.mark.parametrize("rule", RULES)
@given(n=st.integers(1, 24), n_jobs=jobs, weighted=st.booleans(), planned=st.booleans(), data=st.data())
def test_train_epoch(engine, rule, n, n_jobs, weighted, planned, data):
    """Rows in any order, some twice and some never; a ragged last batch, or one batch for all."""
    case, rng = drawn(data, True)
    order = rng.integers(0, n, data.draw(st.integers(2, 30)))
    if any(case.network.batch_norm):
        reject()  # few rows, or rows that are alike, have no variance but that of rounding: see below
    norm, decay = data.draw(st.sampled_from([(None, None), (0.5, None), (None, 0.1), (2.0, 0.3)]))
    optimizer = make_plans(rng, rule, case.network, planned=planned, max_grad_norm=norm, weight_decay=decay)
    batch_size = data.draw(st.integers(2, 40))
    check_train_epoch(engine, case, rng, case.data(rng, n, weighted=weighted), order, batch_size, optimizer, n_jobs)


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("batch_norm", ["before", "after", ("", "before"), ("after", "")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm(engine, dtype, batch_norm, n_jobs):
    """Normalisation beside all kinds of blocks, of many rows."""
    case = large_case(dtype, 1)
    case = case._replace(network=replace(case.network, batch_norm=batch_norm))
    rng = np.random.default_rng(0)
    rows = case.data(rng, 500, weighted=True)
    optimizer = make_plans(rng, "adamw", case.network, max_grad_norm=1.0, weight_decay=0.1)
    check_train_epoch(engine, case, rng, rows, rng.permutation(500), 250, optimizer, n_jobs)


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_of_many_chunks(engine, dtype, members, n_jobs):
    """A batch that no cache holds: engines work on parts of it."""
    case = large_case(dtype, members)
    rng = np.random.default_rng(0)
    rows = case.data(rng, 1500, weighted=True)
    optimizer = make_plans(rng, "adamw", case.network, max_grad_norm=1.0, weight_decay=0.1)
    for batch_size in (1500, 700):
        check_train_epoch(engine, case, rng, rows, rng.permutation(1500), batch_size, optimizer, n_jobs)
