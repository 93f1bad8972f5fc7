"""Feature blocks and members before the packages of their authors, ``rtdl_num_embeddings`` and ``tabm``.

One forward pass each, with the packages' own weights.
"""

from dataclasses import replace

import numpy as np
import pytest

from fastmlp.engines import backends
from fastmlp.kernels.feature_table import Block
from fastmlp.model.network import Network

from tabular_networks import ENGINES

torch = pytest.importorskip("torch")
embeddings = pytest.importorskip("rtdl_num_embeddings")
tabm = pytest.importorskip("tabm")

# a feature with one bin is one of the cases
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*just two bin edges"),
    pytest.mark.parametrize("engine", ENGINES),
    pytest.mark.usefixtures("one_torch_thread"),
]

# the package divides by the widths in float32: powers of 2 lose nothing
EDGES = [np.array([-1.5, -0.5, 0.0, 0.25, 2.25]), np.array([-1.0, 1.0]), np.array([-1.0, 0.0, 2.0])]
BINS = tuple(len(edges) - 1 for edges in EDGES)


def redraw(module):
    """Give all weights values that differ from one another: many are 0 or 1 at first."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5
    return module.double().eval()


def array(tensor):
    return tensor.detach().numpy()


def predicted(engine, network, arrays, X):
    """Return the engine's predictions; ``arrays``: {(name, layer): values}."""
    engine, params = backends.get(engine), np.full(network.n_params, np.nan)
    for segment in network.segments:
        segment.view(params)[...] = arrays[segment.name, segment.layer]
    out = np.empty((len(X), network.widths[-1] * (1 if network.average else network.members)))
    engine.predict(engine.workspace(network, len(X)), params, np.ascontiguousarray(X), out)
    return out


def network(widths, activation, **options):
    return Network(widths, (activation,) * (len(widths) - 2), "squared_error", np.dtype("float64"), **options)


def identity(width):
    """Return the arrays of a layer that changes nothing."""
    return {("W", 0): np.eye(width), ("b", 0): 0.0}


def place(x, edges):
    """Return where numbers lie among the bins: the first and the last bin go on beyond their edges."""
    k = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    return k + (x - edges[k]) / (edges[k + 1] - edges[k])


def piecewise_columns(x):
    """Return numbers beside their places."""
    return np.concatenate([x, np.stack([place(x[:, j], edges) for j, edges in enumerate(EDGES)], axis=1)], axis=1)


def piecewise_arrays(module):
    """Return the arrays of a block; the package keeps the last bin of each feature in the last row."""
    table = array(module.linear.weight)  # (features, most bins, size)
    rows = [table[f, [*range(count - 1), -1]] for f, count in enumerate(BINS)]
    return {
        ("piecewise_weight", 0): array(module.linear0.weight),
        ("piecewise_bias", 0): array(module.linear0.bias),
        ("piecewise_bins", 0): np.concatenate(rows),
    }


def piecewise_module(size):
    edges = [torch.tensor(e) for e in EDGES]
    return embeddings.PiecewiseLinearEmbeddings(edges, size, activation=False, version="B")


PIECEWISE = Block("piecewise", tuple(range(6)), 4, BINS)
X = np.random.default_rng(0).normal(0, 1.5, (40, 3))


def test_piecewise_embeddings(engine):
    module = redraw(piecewise_module(4))
    net = network((12, 12), "relu", inputs=(PIECEWISE,))
    got = predicted(engine, net, identity(12) | piecewise_arrays(module), piecewise_columns(X))
    np.testing.assert_allclose(got, array(module(torch.tensor(X))).reshape(40, 12), rtol=1e-12, atol=1e-14)


def test_periodic_embeddings(engine):
    """Theirs are cosines and sines; a sine is a cosine of another phase."""
    module = redraw(embeddings.PeriodicEmbeddings(3, 5, n_frequencies=4, activation=False, lite=False))
    frequency = array(module.periodic.weight)
    arrays = {
        ("periodic_frequency", 0): np.concatenate([frequency, frequency], axis=1),
        ("periodic_phase", 0): np.repeat([0, -np.pi / 2], 4),
        ("periodic_weight", 0): array(module.linear.weight).swapaxes(1, 2).reshape(3, 5 * 8),  # theirs: (F, 2 m, d)
        ("periodic_bias", 0): array(module.linear.bias),
    }
    net = network((15, 15), "relu", inputs=(Block("periodic", (0, 1, 2), 5, (), 8),))
    expected = array(module(torch.tensor(X))).reshape(40, 15)
    np.testing.assert_allclose(predicted(engine, net, identity(15) | arrays, X), expected, rtol=1e-11, atol=1e-12)


CODES = np.random.default_rng(1).integers(0, 3, 40)
MEMBERS = 5


def check_tabm(engine, model, net, arrays, columns):
    """Predictions of each member, and their mean."""
    expected = array(model(torch.tensor(X), torch.tensor(CODES[:, None])))  # (n, members, outputs)
    backbone = model.backbone.blocks
    for i, (linear, *_) in enumerate(backbone):
        arrays |= {("W", i): array(linear.weight).T, ("b", i): array(linear.bias)}
    arrays |= {("W", len(backbone)): array(model.output.weight), ("b", len(backbone)): array(model.output.bias)}
    columns = np.concatenate([columns, np.eye(3)[CODES]], axis=1)
    np.testing.assert_allclose(predicted(engine, net, arrays, columns), expected.mean(axis=1), rtol=1e-11, atol=1e-12)
    each = predicted(engine, replace(net, average=False), arrays, columns)
    np.testing.assert_allclose(each.reshape(expected.shape), expected, rtol=1e-11, atol=1e-12)


def make_tabm(arch_type, **options):
    return redraw(
        tabm.TabM.make(
            n_num_features=3, cat_cardinalities=[3], d_out=2, n_blocks=2, d_block=9, k=MEMBERS, dropout=0.1,
            arch_type=arch_type, **options,
        )
    )  # fmt: skip


def test_tabm_mini_with_piecewise_embeddings(engine):
    model = make_tabm("tabm-mini", num_embeddings=piecewise_module(4))
    plain = Block("plain", (6, 7, 8))
    net = network((15, 9, 9, 2), "relu", inputs=(PIECEWISE, plain), input_scale=True, members=MEMBERS)
    arrays = piecewise_arrays(model.num_module) | {("input_scale", 0): array(model.backbone.affine.weight)}
    check_tabm(engine, model, net, arrays, piecewise_columns(X))


def test_tabm(engine):
    model = make_tabm("tabm")
    net = network((6, 9, 9, 2), "relu", input_scale=True, members=MEMBERS, batch_ensemble=True)
    first, second = (block[0] for block in model.backbone.blocks)
    arrays = {
        ("input_scale", 0): array(first.r),
        ("member_in", 1): array(second.r),
        ("member_out", 0): array(first.s),
        ("member_out", 1): array(second.s),
    }
    check_tabm(engine, model, net, arrays, X)
