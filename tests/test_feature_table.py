"""Feature blocks and members in the flat vector: what a network declares, and what it refuses."""

import numpy as np
import pytest

from fastmlp.kernels.feature_table import ARRAYS, KINDS, SCALES, Block
from fastmlp.model.network import Network

BLOCKS = {
    "plain": Block("plain", (0, 2)),
    "periodic": Block("periodic", (0, 1), 3, (), 16),
    "piecewise": Block("piecewise", (0, 1, 2, 3), 4, (5, 2)),
    "embedding": Block("embedding", (1, 4), 8, (20, 3)),
}


def network(*blocks, width=None, **options):
    """Return a network of two hidden layers that reads these blocks."""
    width = max(1, sum(block.width for block in blocks)) if width is None else width
    return Network((width, 6, 5, 3), ("selu", "selu"), "log_loss", np.dtype("float64"), inputs=blocks, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_a_block_lie_between_biases_and_units(kind):
    net = network(BLOCKS[kind], parametric_activations=True)
    names = [segment.name for segment in net.segments]
    assert names[:6] == ["W"] * 3 + ["b"] * 3
    assert names[6:-2] == [*BLOCKS[kind].arrays]
    assert names[-2:] == ["mix"] * 2
    assert [segment.start for segment in net.segments] == [0, *np.cumsum([s.size for s in net.segments])[:-1]]
    assert {*BLOCKS[kind].arrays} <= {*ARRAYS}


def test_sizes_of_blocks():
    assert BLOCKS["periodic"].width == 6
    assert BLOCKS["piecewise"].arrays == {
        "piecewise_weight": (2, 4),
        "piecewise_bias": (2, 4),
        "piecewise_bins": (7, 4),
    }
    assert BLOCKS["piecewise"].starts.tolist() == [0, 5]
    assert BLOCKS["embedding"].arrays == {"embedding": (23, 8)}
    assert network(*BLOCKS.values()).n_columns == 5


def test_members_have_scales_and_heads_of_their_own():
    net = Network(
        (4, 6, 5, 3),
        ("relu", "relu"),
        "log_loss",
        np.dtype("float64"),
        input_scale=True,
        members=7,
        batch_ensemble=True,
    )
    shapes = {(s.name, s.layer): s.shape for s in net.segments}
    assert shapes["W", 1] == (6, 5)
    assert shapes["W", 2] == (7, 5, 3)
    assert shapes["b", 0] == (7, 6)
    assert shapes["input_scale", 0] == (7, 4)
    assert shapes["member_in", 1] == (7, 6)
    assert ("member_in", 2) not in shapes
    assert shapes["member_out", 1] == (7, 5)
    assert {s.name for s in net.segments} - {"W", "b"} == {*SCALES}


@pytest.mark.parametrize(
    ("blocks", "options", "words"),
    [
        ((Block("cubic", (0,)),), {"width": 1}, "kind must be one of"),
        ((Block("plain", ()),), {}, "columns"),
        ((Block("plain", (-1,)),), {}, "columns"),
        ((Block("plain", (0,), 2),), {}, "size"),
        ((Block("periodic", (0,), 3),), {}, "frequencies"),
        ((Block("piecewise", (0, 1, 2), 3, (4,)),), {}, "columns"),
        ((Block("embedding", (0,), 3, (4, 4)),), {}, "counts must be 1"),
        ((Block("embedding", (0,), 3, (0,)),), {}, "counts"),
        ((BLOCKS["plain"],), {"width": 3}, "must make the 3 columns"),
        ((BLOCKS["plain"],), {"input_dropout": 0.5}, "input_dropout"),
        ((BLOCKS["plain"],), {"members": 0}, "members"),
        ((BLOCKS["plain"],), {"batch_ensemble": True}, "batch_ensemble"),
        ((BLOCKS["plain"],), {"members": 2}, "input_scale"),
        ((BLOCKS["plain"],), {"average": False}, "average=False"),
        ((BLOCKS["plain"],), {"members": 2, "input_scale": True, "batch_norm": True}, "batch_norm"),
    ],
)
def test_what_makes_no_sense_is_refused(blocks, options, words):
    with pytest.raises(ValueError, match=words):
        network(*blocks, **options)
