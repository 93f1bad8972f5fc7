"""What the CUDA engine's code asks of a GPU, without one: registers, spills and shared memory of generated kernels.

    python bench/cuda_resources.py [--check] [--network NAME] [--ptxas PATH]
    python bench/cuda_resources.py --steps

Needs numba-cuda or numba-cuda-mlir, and ``ptxas`` for the registers (pip install nvidia-cuda-nvcc); without it only the
text is looked at.
Spilled registers, double-precision instructions in float32 code and few blocks per multiprocessor are what to look for.
With --check, the networks of CHECKED are compiled, or those named, and it is an error (exit code 1) to exceed a bound.
With --steps nothing is compiled: it prints what the engine expects of a step, from which it chooses its tiles.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from fastmlp.kernels import codegen, formulas
from fastmlp.kernels.numba_cuda import code, cost, driver, settings

#: Multiprocessors of an H100 and their cycles per second; layers and batches of the suite `cuda`, and a wider net.
DEVICE = 132, 1.755e9
STEPS = ((64, 128, 128, 10), 256), ((784, 100, 10), 200), ((1024, 1024, 1024, 10), 128), ((4096,) * 3 + (10,), 1024)
MANY = ((64, 128, 128, 10), 256), ((64, 100, 10), 200), ((13, 64, 64, 1), 128), ((4, 16, 3), 30)
CAPABILITIES = (8, 0), (9, 0), (10, 0)
KERNELS, PRODUCTS = ("train", "predict"), ("product", "product_nt", "product_tn")
REGISTERS, THREADS = 65536, 2048  # of a multiprocessor
SHARED_BYTES = {8: 164 * 1024, 9: 228 * 1024, 10: 228 * 1024}  # of a multiprocessor, by major number
SHARED_OF_A_BLOCK = 48 * 1024  # more has to be asked for at the launch
MOST_SHARED_OF_A_BLOCK = {8: 163 * 1024, 9: 227 * 1024, 10: 227 * 1024}
HMMA, EXECUTABLE = 0x23C, 4  # the opcode of mma.sync in machine code; a flag of sections
LOG_LOSS = "log_loss", (("label_smoothing", 0.0),)
#: name -> (activations, loss, rule, double, its tile in the engine's settings, precision of its products)
NETWORKS = {
    "64-128-128-10, Adam, float32": ([("relu", ())], LOG_LOSS, "adam", False, "SMALL", "highest"),
    "64-128-128-10, Adam, float64": ([("relu", ())], LOG_LOSS, "adam", True, "SMALL", "highest"),
    "1024 x 3, gelu, AdamW, float32": ([("gelu", ())], LOG_LOSS, "adamw", False, "MEDIUM", "highest"),
    "1024 x 3, gelu, AdamW, float64": ([("gelu", ())], LOG_LOSS, "adamw", True, "MEDIUM", "highest"),
    "1024 x 3, gelu, AdamW, high": ([("gelu", ())], LOG_LOSS, "adamw", False, "MEDIUM", "high"),
    "1024 x 3, gelu, AdamW, medium": ([("gelu", ())], LOG_LOSS, "adamw", False, "MEDIUM", "medium"),
    "every activation, Nadam, float32": (
        [(name, tuple(row.parameters.items())) for name, row in formulas.ACTIVATIONS.items()],
        ("focal", (("gamma", 2.0),)), "nadam", False, "SMALL", "highest",
    ),
    "784-100-10, SGD, float32": ([("relu", ())], LOG_LOSS, "nesterov", False, "SMALL", "highest"),
    "many of 64-128-128-10, Adam, float32": ([("relu", ())], LOG_LOSS, "adam", False, "LARGE", "highest"),
    "many of 64-128-128-10, Adam, high": ([("relu", ())], LOG_LOSS, "adam", False, "LARGE", "high"),
    "many of 64-100-10, Adam, float32": ([("relu", ())], LOG_LOSS, "adam", False, "MEDIUM", "highest"),
}  # fmt: skip
#: Network -> kernels to look at; KERNELS where it is not named.
KERNELS_OF = dict.fromkeys((name for name in NETWORKS if name.startswith("many")), ("train_many",))
#: Network -> bytes of shared memory that each block asks for at the launch: all weights of a net, of its states none.
ASKED = {
    "many of 64-128-128-10, Adam, float32": 4 * 26122, "many of 64-128-128-10, Adam, high": 4 * 26122,
    "many of 64-100-10, Adam, float32": 3 * 4 * 7510,
}  # fmt: skip


def _spills(*rows: tuple[int, int, int], kernels: Sequence[str] = KERNELS) -> dict[tuple[str, tuple[int, int]], int]:
    found = zip(kernels, rows, strict=True)
    return {(kernel, cc): n for kernel, row in found for cc, n in zip(CAPABILITIES, row, strict=True)}


#: Network -> bytes of spilled registers, stores and loads, of each of its kernels for each of CAPABILITIES,
#: with at most the registers of codegen.CUDA_REGISTERS: what ptxas 12.9 makes of numba-cuda 0.30's text.
BOUNDS = {
    "64-128-128-10, Adam, float32": _spills((184, 104, 0), (0, 0, 0)),
    "1024 x 3, gelu, AdamW, float32": _spills((400, 256, 0), (16, 24, 0)),
    "1024 x 3, gelu, AdamW, high": _spills((700, 224, 0), (140, 0, 0)),
    "1024 x 3, gelu, AdamW, float64": _spills((920, 568, 0), (368, 56, 0)),
    "every activation, Nadam, float32": _spills((344, 176, 0), (0, 0, 0)),
    "many of 64-128-128-10, Adam, float32": _spills((976, 296, 0), kernels=("train_many",)),
    "many of 64-128-128-10, Adam, high": _spills((1660, 820, 120), kernels=("train_many",)),
    "many of 64-100-10, Adam, float32": _spills((328, 8, 0), kernels=("train_many",)),
}
#: One for each tile, and one on tensor cores: some minutes of one core.
CHECKED = (
    "64-128-128-10, Adam, float32", "1024 x 3, gelu, AdamW, float32", "1024 x 3, gelu, AdamW, high",
    "many of 64-128-128-10, Adam, float32",
)  # fmt: skip
SLACK = 1.1  # other versions of both allocate registers a little differently; 0 stays 0


def generate(
    *, double: bool, activations: Any = (), loss: Any = None, rule: Any = None, tile: str = "MEDIUM",
    precision: str = "highest",
) -> Any:  # fmt: skip
    """The module of a combination of formulas."""
    choice, size = {"activations": activations, "loss": loss, "rule": rule}, getattr(settings, tile).at(precision)
    return driver.load(
        lambda: codegen.cuda_module(formulas, code.template(), size, double=double, simulated=False, **choice)
    )


def of_network(name: str) -> ModuleType:
    """The module of a row of NETWORKS."""
    activations, loss, rule, double, tile, precision = NETWORKS[name]
    return generate(double=double, activations=activations, loss=loss, rule=rule, tile=tile, precision=precision)


def signatures(module: ModuleType) -> dict[str, list[Any]]:
    """Return the types of the arguments of each kernel."""
    types = _types()
    real = types.float64 if module.REAL.__name__ == "float64" else types.float32
    long, size, key, index, numbers = types.int64[::1], types.int64, types.uint64[::1], types.int32[::1], real[::1]
    rows = [numbers, long, index]
    product = [numbers, numbers, size, size, index, size, size, numbers] + [size] * 7
    return {
        "train": [long] * 4 + rows + [numbers, index, numbers, index] + [numbers] * 6 + [key, numbers]
        + [size] * 9 + [real] * 3,
        "train_many": [long, numbers] + [long] * 4 + rows + [numbers, index, numbers, index] + [numbers] * 6
        + [key, numbers] + [size] * 3,
        "predict": [long] * 2 + rows + [index, numbers, numbers, key, numbers, index] + [size] * 3,
        "finite_array": [numbers, index, size],
        "loss_row": [numbers, size, numbers, size, size, real, numbers, size, size, numbers, types.boolean],
        **dict.fromkeys(PRODUCTS, product),
    }  # fmt: skip


def _types() -> ModuleType:
    return importlib.import_module("numba.cuda.types" if driver.package() == "numba_cuda" else "numba_cuda_mlir.types")


@contextmanager
def _compiling_for(capability: tuple[int, int]) -> Iterator[None]:
    """Let device functions be compiled for a capability: numba-cuda and numba-cuda-mlir ask the device for it."""
    answers = {
        "get_current_device": lambda: SimpleNamespace(compute_capability=capability),
        "get_gpu_compute_capability": lambda kind=str: capability if kind is tuple else "sm_{}{}".format(*capability),
    }
    loaded = [module for name, module in sys.modules.items() if name.startswith(("numba.cuda", "numba_cuda_mlir"))]
    before = [(module, name, vars(module)[name]) for module in loaded for name in answers if name in vars(module)]
    for module, name, _ in before:
        setattr(module, name, answers[name])
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def compile_kernel(module: ModuleType, kernel: str, capability: tuple[int, int]) -> str:
    """Return the PTX text of a kernel, or of a device function: loss_row, a product."""
    arguments, device = signatures(module)[kernel], kernel in ("loss_row", *PRODUCTS)
    signature = arguments[5](*arguments) if kernel == "loss_row" else _types().void(*arguments)
    with _compiling_for(capability):
        text, _ = driver.import_cuda().compile(
            getattr(module, kernel).py_func,
            signature,
            device=device,
            cc=capability,
            output="ptx",
            abi="numba",
            opt=True,
        )
    return text


def double_instructions(text: str) -> list[str]:
    """Lines that compute in double precision."""
    return re.findall(r"^\s*(?:@\S+\s+)?[a-z]\S*\.f64\b.*$", text, re.MULTILINE)


def on_tensor_cores(code: bytes) -> int:
    """How many instructions of machine code multiply matrices of TF32; an instruction has 16 bytes."""
    return sum(int.from_bytes(code[i : i + 2], "little") & 0xFFF == HMMA for i in range(0, len(code), 16))


def machine_code(text: str, capability: tuple[int, int], ptxas: str) -> bytes:
    """The instructions that ptxas makes of a text: the executable sections of its ELF file."""
    with tempfile.TemporaryDirectory() as folder:
        path, made = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        path.write_text(text)
        command = [ptxas, "-c", f"-arch=sm_{capability[0]}{capability[1]}", str(path), "-o", str(made)]
        subprocess.run(command, capture_output=True, check=True)
        elf = made.read_bytes()
    (start,), (size, number) = struct.unpack_from("<Q", elf, 0x28), struct.unpack_from("<HH", elf, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", elf, start + k * size) for k in range(number)]
    return b"".join(elf[at : at + length] for _, _, flags, _, at, length in sections if flags & EXECUTABLE)


def find_ptxas() -> str | None:
    found = shutil.which("ptxas")
    spec = importlib.util.find_spec("nvidia")
    for root in [] if spec is None else list(spec.submodule_search_locations or ()):
        found = found or next((str(path) for path in Path(root).rglob("bin/ptxas*")), None)
    return found


def resources(text: str, kernel: str, capability: tuple[int, int], ptxas: str) -> dict[str, int]:
    """registers, spilled bytes (stores and loads), stack and shared memory, as ptxas reports them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(text)
        limits = [f"-arch=sm_{capability[0]}{capability[1]}", f"-maxrregcount={codegen.CUDA_REGISTERS[kernel]}"]
        command = [ptxas, "-v", "-c", "-O3", *limits, str(path), "-o", os.devnull]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = done.stdout + done.stderr

    def number(pattern: str) -> int:
        return max((int(n) for n in re.findall(pattern, report)), default=0)

    return {
        "registers": number(r"Used (\d+) registers"),
        "stack": number(r"(\d+) bytes stack frame"),
        "spills": number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        "shared": sum(int(n) for n in re.findall(r"\.shared .*\[(\d+)\];", text, re.MULTILINE)),
    }


def blocks_per_multiprocessor(used: dict[str, int], threads: int, capability: tuple[int, int]) -> int:
    """How many blocks of a kernel a multiprocessor holds at once."""
    registers = -(-used["registers"] // 8) * 8 * threads
    shared = max(used["shared"] + used.get("asked", 0), 1)
    return min(REGISTERS // max(registers, 1), SHARED_BYTES[capability[0]] // shared, THREADS // threads)


def too_much(
    name: str, kernel: str, capability: tuple[int, int], used: dict[str, int], doubles: int = 0, products: int = 0
) -> Iterator[str]:
    """Yield a line for each bound that a kernel exceeds.

    Parameters
    ----------
    name, kernel : str
        Keys of `BOUNDS`.
    used : dict
        What `resources` gave.
    doubles, products : int
        Instructions in double precision, and of tensor cores.
    """
    spills = int(SLACK * BOUNDS[name][kernel, capability])
    found = {
        "registers": (used["registers"], codegen.CUDA_REGISTERS[kernel]),
        "bytes of spills": (used["spills"], spills),
        "bytes of shared memory": (used["shared"], SHARED_OF_A_BLOCK),
        "bytes of shared memory with what is asked for": (
            used["shared"] + used.get("asked", 0),
            MOST_SHARED_OF_A_BLOCK[capability[0]],
        ),
        "instructions in double precision": (0 if NETWORKS[name][3] else doubles, 0),
        "instructions of tensor cores": (products if NETWORKS[name][5] == "highest" else 0, 0),
    }
    for what, (value, bound) in found.items():
        if value > bound:
            yield f"{name}, {kernel}, {capability[0]}.{capability[1]}: {value} {what}, at most {bound} are allowed"
    if NETWORKS[name][5] != "highest" and products == 0:
        yield f"{name}, {kernel}, {capability[0]}.{capability[1]}: no instruction of tensor cores"


def measured(name: str, ptxas: str | None) -> Iterator[tuple[str, tuple[int, int], list[Any], list[str]]]:
    """Yield kernel, capability, the cells of its row and the bounds that it exceeds, for each kernel of a network."""
    module = of_network(name)
    for kernel, capability in itertools.product(KERNELS_OF.get(name, KERNELS), CAPABILITIES):
        start = time.perf_counter()
        text = compile_kernel(module, kernel, capability)
        seconds, doubles, exceeded = time.perf_counter() - start, len(double_instructions(text)), []
        products = text.count("mma.sync")
        if ptxas:
            used = resources(text, kernel, capability, ptxas) | {"asked": ASKED.get(name, 0)}
            cells = [used["registers"], used["spills"], used["stack"], used["shared"], used["asked"]]
            cells.append(blocks_per_multiprocessor(used, module.THREADS, capability))
            if name in BOUNDS:
                exceeded = list(too_much(name, kernel, capability, used, doubles, products))
        else:
            cells = ["-"] * 6
        yield kernel, capability, [*cells, doubles, products, text.count("\n"), f"{seconds:.1f}"], exceeded


def expected_steps() -> None:
    """Print microseconds of a step on DEVICE by cost.py, for each precision with each tile, the fastest first."""
    multiprocessors, frequency = DEVICE
    heads = ["precision", "tile", "forth/back", "slices", "step"]
    print(f"{'layers':22} {'batch':>6}", *(f"{head:>10}" for head in heads))
    for (widths, rows), precision in itertools.product(STEPS, settings.CYCLES):
        tiles = [tile.at(precision) for tile in settings.TILES]
        ways = {tile: cost.of_step(widths, rows, tile, multiprocessors) for tile in tiles}
        for tile, cycles in sorted(ways.items(), key=lambda item: item[1]):
            slices = cost.of_slices(widths, rows, tile, multiprocessors)
            cells = [
                precision,
                tile.size,
                *(f"{1e6 * part / frequency:.1f}" for part in (cycles - slices, slices, cycles)),
            ]
            print(f"{'-'.join(map(str, widths)):22} {rows:6}", *(f"{cell:>10}" for cell in cells))


def expected_rates() -> None:
    """Print steps of nets a second on DEVICE by cost.py: of many nets with a block each, and of one at a time."""
    multiprocessors, frequency = DEVICE
    print(
        f"\n{'layers':22} {'batch':>6} {'precision':>10}",
        *(f"{head:>11}" for head in ["tile", "us a step", "nets x steps/s", "alone", "ratio"]),
    )
    for (widths, rows), precision in itertools.product(MANY, settings.CYCLES):
        own = {tile: cost.of_net(widths, rows, tile) for tile in (tile.at(precision) for tile in settings.TILES)}
        alone = frequency / min(cost.of_step(widths, rows, tile, multiprocessors) for tile in own)
        for tile, cycles in sorted(own.items(), key=lambda item: item[1]):
            rate = multiprocessors * frequency / cycles
            cells = [1e6 * cycles / frequency, rate, alone, rate / alone]
            head = f"{'-'.join(map(str, widths)):22} {rows:6} {precision:>10} {tile.size:11}"
            print(head, *(f"{cell:11.4g}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bound is exceeded")
    parser.add_argument("--network", choices=NETWORKS, action="append", help="only this one, may be repeated")
    parser.add_argument("--ptxas", default=find_ptxas())
    parser.add_argument("--steps", action="store_true", help="print the expected microseconds of steps")
    given = parser.parse_args()
    if given.steps:
        expected_steps()
        expected_rates()
        return
    if given.check and not given.ptxas:
        parser.error("--check needs ptxas: pip install nvidia-cuda-nvcc-cu12")
    heads, exceeded = (
        ["cc", "regs", "spill", "stack", "shared", "asked", "blocks", "f64", "mma", "lines", "seconds"],
        [],
    )
    print(f"{'network':32} {'kernel':8}", *(f"{head:>8}" for head in heads))
    for name in given.network or (CHECKED if given.check else NETWORKS):
        for kernel, (major, minor), cells, lines in measured(name, given.ptxas):
            print(f"{name:32} {kernel:8}", *(f"{cell:>8}" for cell in [f"{major}.{minor}", *cells]), flush=True)
            exceeded += lines
    if given.check and exceeded:
        sys.exit("\n".join(exceeded))


if __name__ == "__main__":
    main()
