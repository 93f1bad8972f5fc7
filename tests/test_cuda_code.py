"""The CUDA engine's machine code, without a device: what it computes in, and what it asks of a multiprocessor."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastmlp.kernels import formulas
from fastmlp.kernels.numba_cuda import driver

from helpers import LOSSES
from tiers import exhaustive

COMPILES = driver.package() is not None and importlib.util.find_spec("numba") is not None


@pytest.fixture(scope="module")
def tool():
    """bench/cuda_resources.py, which compiles without a device."""
    path = Path(__file__).parents[1] / "bench" / "cuda_resources.py"
    spec = importlib.util.spec_from_file_location("cuda_resources", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


needs_compiler = pytest.mark.skipif(
    not COMPILES or bool(os.environ.get("NUMBA_ENABLE_CUDASIM")), reason="needs numba-cuda, and no simulator"
)


def within_bounds(tool, name, kernel, capability, text):
    """Hold what ptxas makes of a text against the tool's table, where ptxas is."""
    assert not tool.double_instructions(text)
    ptxas = tool.find_ptxas()
    if ptxas:
        used = tool.resources(text, kernel, capability, ptxas)
        assert used["registers"] > 32 and used["shared"] > 1024
        assert list(tool.too_much(name, kernel, capability, used)) == []


@needs_compiler
@pytest.mark.exhaustive  # a minute
def test_float32_code_computes_nothing_in_double_precision(tool):
    """All activations at once; and its spilled registers."""
    name = "every activation, Nadam, float32"
    text = tool.compile_kernel(tool.of_network(name), "train", (9, 0))
    assert "fma.rn.f32" in text
    assert "cudaCGSynchronize" in text
    within_bounds(tool, name, "train", (9, 0), text)


@pytest.fixture(scope="module")
def module(tool):
    """A module for predictions, of the network in the test below."""
    return tool.of_network(PREDICTING)


PREDICTING = "64-128-128-10, Adam, float32"


@needs_compiler
@pytest.mark.nightly  # a minute; .ci/run does the same for training and predictions, for each compute capability
@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (10, 0)], ids=str)
def test_predictions_spill_no_register(tool, module, capability):
    text = tool.compile_kernel(module, "predict", capability)
    assert f".target sm_{capability[0]}{capability[1]}" in text
    within_bounds(tool, PREDICTING, "predict", capability, text)


#: Precision -> instructions that a warp makes of the products of a slice, with the medium tile: it has four blocks of
#: results, and of each one product, or three.
IN_A_SLICE = {"highest": 0, "high": 12, "medium": 4}


@needs_compiler
@pytest.mark.parametrize("precision", IN_A_SLICE)
@pytest.mark.parametrize("kernel", ["product_nt", *exhaustive("product", "product_tn")])
@pytest.mark.parametrize("capability", [(9, 0), *exhaustive((8, 0), (10, 0))], ids=str)
def test_tensor_cores_multiply_where_the_precision_allows_it(tool, precision, kernel, capability):
    """In the text, and in the machine code that ptxas makes of it."""
    text = tool.compile_kernel(tool.generate(double=False, precision=precision), kernel, capability)
    assert text.count("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32") == IN_A_SLICE[precision]
    assert text.count("cvt.rna.tf32.f32") == {"highest": 0, "high": 24, "medium": 12}[precision]
    assert not tool.double_instructions(text)
    ptxas = tool.find_ptxas()
    if ptxas:
        code = tool.machine_code(text, capability, ptxas)
        assert len(code) > 1000 and tool.on_tensor_cores(code) == IN_A_SLICE[precision]


USED = {"registers": 128, "spills": 0, "stack": 0, "shared": 8448}


@pytest.mark.parametrize(
    ("change", "doubles", "message"),
    [
        ({}, 0, None),
        ({"spills": 1}, 0, "1 bytes of spills, at most 0 are allowed"),
        ({"registers": 129}, 0, "129 registers, at most 128"),
        ({"shared": 48 * 1024 + 1}, 0, "49153 bytes of shared memory"),
        ({"asked": 155 * 1024}, 0, None),
        ({"asked": 220 * 1024}, 0, "233728 bytes of shared memory with what is asked for, at most 232448"),
        ({}, 2, "2 instructions in double precision, at most 0"),
    ],
)
def test_a_bound_that_is_exceeded_is_named(tool, change, doubles, message):
    found = list(tool.too_much(PREDICTING, "predict", (9, 0), {**USED, **change}, doubles))
    assert len(found) == (message is not None)
    assert all(line.startswith(f"{PREDICTING}, predict, 9.0: ") and message in line for line in found)


def test_products_on_tensor_cores_are_those_of_the_precision(tool):
    high, where = "1024 x 3, gelu, AdamW, high", ("predict", (9, 0), USED)
    assert list(tool.too_much(PREDICTING, *where, products=4)) == [
        f"{PREDICTING}, predict, 9.0: 4 instructions of tensor cores, at most 0 are allowed"
    ]
    assert list(tool.too_much(high, *where, products=12)) == []
    assert list(tool.too_much(high, *where)) == [f"{high}, predict, 9.0: no instruction of tensor cores"]


@pytest.mark.parametrize("lines", [[], ["too many spills"]])
def test_the_check_fails_where_a_bound_is_exceeded(tool, monkeypatch, capsys, lines):
    asked = []
    monkeypatch.setattr(tool, "measured", lambda name, ptxas: asked.append(name) or [("predict", (9, 0), [], lines)])
    monkeypatch.setattr(sys, "argv", ["cuda_resources.py", "--check", "--ptxas", "ptxas"])
    if lines:
        with pytest.raises(SystemExit, match="too many spills"):
            tool.main()
    else:
        tool.main()
    assert tuple(asked) == tool.CHECKED and capsys.readouterr().out.count("9.0") == len(asked)


def test_all_that_is_bounded_is_a_network(tool):
    assert set(tool.CHECKED) <= set(tool.BOUNDS)
    for name, bounds in tool.BOUNDS.items():
        kernels = tool.KERNELS_OF.get(name, tool.KERNELS)
        assert name in tool.NETWORKS and set(bounds) == {(k, cc) for k in kernels for cc in tool.CAPABILITIES}


@needs_compiler
@pytest.mark.parametrize("loss", [LOSSES[0], *exhaustive(*LOSSES[1:])])
def test_losses_compile_without_double_precision(tool, loss):
    module = tool.generate(double=False, loss=(loss, tuple(formulas.LOSSES[loss].parameters.items())))
    assert not tool.double_instructions(tool.compile_kernel(module, "loss_row", (8, 0)))


@needs_compiler
@pytest.mark.exhaustive  # ten seconds
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_every_kernel_compiles(tool, dtype):
    module = tool.generate(double=dtype == np.float64, activations=[("prelu", ()), ("gelu", ())])
    for kernel in ("predict", "finite_array"):
        text = tool.compile_kernel(module, kernel, (8, 0))
        assert bool(tool.double_instructions(text)) == (dtype == np.float64)


@needs_compiler
def test_importing_the_table_of_engines_touches_no_numba():
    code = "import sys; from fastmlp.engines import backends; backends.available(); sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
