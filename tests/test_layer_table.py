"""The one declaration of the layers' rows: what is made of it agrees with the network and with the templates."""

import ast
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastmlp.kernels import feature_table, layer_table
from fastmlp.model.network import Network
from fastmlp.model.stages import OPTIONS, UNITS, Stages

KERNELS = Path(layer_table.__file__).parent
NETWORK = Network((4, 5, 6, 3), ("relu", "prelu"), "log_loss", np.dtype("f8"), batch_norm=["after", False], dropout=0.5)


def assigned(path):
    """Return the names that the module of a file assigns."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            names |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


@pytest.mark.parametrize("path", sorted(KERNELS.glob("*/template/*.py")), ids=lambda path: "/".join(path.parts[-3:]))
def test_no_template_gives_a_column_another_number(path):
    assert not assigned(path) & layer_table.constants().keys()


def test_names_are_those_of_the_network():
    assert {"W", "b", *feature_table.SCALES, *(unit.name for unit in UNITS)} == set(layer_table.ARRAYS)
    assert OPTIONS.keys() == Stages.__dataclass_fields__.keys()


def test_header_has_a_field_for_each_column():
    fields = [line.split()[-1].strip("*;") for line in layer_table.c_header().splitlines() if line.startswith("    ")]
    assert fields == list(layer_table.COLUMNS)


def test_table_of_a_network():
    table = layer_table.new_table(NETWORK, (8, 16, 24, 32), range(len(NETWORK.segments)), -1)
    assert [*table["ld_in"]] == [8, 16, 24] and [*table["ld_out"]] == [16, 24, 32]
    assert [*table["hidden"]] == [1, 1, 0] and [*table["whole_batch"]] == [1, 0, 0]
    assert [*table["rate"]] == [0.5, 0.5, 0] and [*table["threshold"]] == [2**23, 2**23, 0]
    for name in layer_table.ARRAYS:
        has = {segment.layer: k for k, segment in enumerate(NETWORK.segments) if segment.name == name}
        assert [*table[name.lower()]] == [has.get(layer, -1) for layer in range(3)], name


def test_buffers_of_training_share_a_place_until_then():
    table = layer_table.new_table(NETWORK, NETWORK.widths, range(len(NETWORK.segments)), -1)
    sizes = []
    options = {"rows": 10, "room": lambda n: sizes.append(n) or len(sizes)}
    layer_table.allocate(table, layer_table.BUFFERS, **options, training=False)
    assert [*table["a"]] == [*table["z"]] == [*table["out"]] == [1, 2, 3] and sizes == [50, 60, 30]
    layer_table.allocate(table, layer_table.BUFFERS, **options, training=True)
    assert table["out"][0] > 3 and table["z"][1] > 3 and table["z"][0] == table["a"][0] and not table["wt"][0]
    assert [*(table["moments"] > 0)] == [True, False, False] and [*(table["product"] > 0)] == [False, True, False]


def with_segments(segments):
    """Return what a table reads of NETWORK, with other segments."""
    asked = (*vars(NETWORK), "n_layers", "whole_batch", "unit_segments")
    return SimpleNamespace(**{name: getattr(NETWORK, name) for name in asked} | {"segments": segments})


@pytest.mark.parametrize("change", [{"name": "strange"}, {"layer": 3}, {"layer": -1}])
def test_unknown_segments_are_refused(change):
    segments = (*NETWORK.segments[:-1], replace(NETWORK.segments[-1], **change))
    network = with_segments(segments)
    with pytest.raises(ValueError, match=r"network\.segments must be"):
        layer_table.new_table(network, NETWORK.widths, range(len(segments)), 0)


@pytest.mark.parametrize("rate", [-0.1, 1.0, np.nan])
def test_a_rate_of_dropout_is_below_1(rate):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        layer_table.threshold(rate)


@pytest.mark.parametrize("lacking", ["b", "shift", "slope"])
def test_a_layer_without_an_array_that_it_needs_is_refused(lacking):
    segments = [segment for segment in NETWORK.segments if segment.name != lacking]
    network = with_segments(segments)
    with pytest.raises(ValueError, match=rf"network.segments must have \['{lacking}'\] in layer"):
        layer_table.new_table(network, NETWORK.widths, range(len(segments)), -1)


def test_header_of_another_table_differs_in_its_checksum(monkeypatch):
    before = layer_table.c_header()
    assert before.splitlines()[-1].startswith("#define FM_LAYER_TABLE ")
    monkeypatch.setattr(layer_table, "COLUMNS", layer_table.COLUMNS[::-1])
    assert before.splitlines()[-1] != layer_table.c_header().splitlines()[-1]
