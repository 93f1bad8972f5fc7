"""Sizes of the CUDA engine, and what tests and bench/gpu_check.py force.

Where it sits: plan.py, training.py and prediction.py read these names when they are called.
"""

from __future__ import annotations

from fastmlp.kernels import codegen

#: Rows of a batch that are worked on together: enough for every multiprocessor to have some.
CHUNK_ROWS = 8192
#: Tiles to choose from; those of the simulator, where a thread is one of Python's: in float32, and for tensor cores,
#: whose instructions are those of a warp.
SMALL, MEDIUM, LARGE = TILES = codegen.CudaTile(16, 64), codegen.CudaTile(32, 32), codegen.CudaTile(64, 16)
SIMULATED, SIMULATED_WARPS = codegen.CudaTile(4, 4, side=2, groups=1, quad=2), codegen.CudaTile(16, 8, groups=1)
#: Bytes of shared memory that a block has without asking.
SHARED_BYTES = 48 * 1024

#: Seconds that a launch should take.  Ctrl-C is seen between launches, and Windows ends launches of two seconds.
LAUNCH_SECONDS = 0.15
#: Operations per second by size of a number, and seconds of a step, that the first launch assumes: a slow device's.
FIRST_RATE, FIRST_STEP = {4: 2e11, 8: 2e10}, 1e-4
#: How many times longer than the launch before a launch may be.
GROWTH = 8
#: Numbers that the steps of one table leave for the host to sum up.
PARTIALS_PER_TABLE = 2**22

#: Cycles that choose tile and schedule (cost.py): of a term of a tile's product by precision and the tile's size, as
#: counted in machine code; at least of a slice, whose numbers come from the L2 cache; of a tile besides; of an update
#: of 256 weights; of a barrier of the grid.  Of a narrow output layer: a term by the tile's size, and a whole tile of
#: what goes back through it; where many blocks share its rows, rows at a time, terms at a time, cycles of these.
NARROW, BACK = {16: 6.0, 32: 8.4, 64: 16.0, 4: 1.0}, {16: 700, 32: 900, 64: 1600, 4: 1.0}
NARROW_ROWS, NARROW_DEPTH, NARROW_CYCLES = 4, 224, 900
CYCLES = {
    "highest": {16: 6.0, 32: 13.0, 64: 42.0, 4: 1.0},
    "high": {16: 7.1, 32: 11.7, 64: 26.9},
    "medium": {16: 4.3, 32: 8.0, 64: 17.4},
}
LATENCY, TILE_CYCLES, UPDATE, BARRIER = 300, 1200, 400, 3400
#: Where a block does all tiles itself, as counted: cycles of bias, activation and slope of 256 results, of the loss of
#: THREADS // LANES rows, of COLUMNS biases; and what a term of a tile's product takes more.
STAGE, LOSS, VECTOR = 90, 1000, 1000
MORE_CYCLES: dict[str, dict[int, float]] = {"highest": {64: 4.2}, "high": {}, "medium": {}}
#: Blocks of kernels that have no barrier of the grid.
BLOCKS_WITHOUT_BARRIER, SIMULATED_BLOCKS = 1024, 2

#: Rows of a block of predictions: at most, and at least (where halving them for want of memory ends).
PREDICT_ROWS, FEWEST_ROWS = 2**17, 256
#: Bytes of X and of predictions in a block.
PREDICT_BYTES = 64 * 2**20
#: From so many rows on, predictions are made in so many blocks or more: copies and kernels overlap.
OVERLAP_ROWS, OVERLAP_BLOCKS = 4096, 4

#: "rows" or "layers" instead of the schedule that promises to be faster.
SCHEDULE: str | None = None
#: Whether nets train together in one launch, instead of what promises to be faster.
MANY: bool | None = None
#: Tensor cores wherever the precision allows them, instead of where they promise to be faster.
TENSOR_CORES = False
#: This number of blocks and a launch for each phase, instead of a cooperative launch for all phases.
BLOCKS_PER_PHASE: int | None = None
