"""Sizes of the CUDA engine, and what tests and bench/gpu_check.py force.

Where it sits: plan.py, training.py and prediction.py read these names when they are called.
"""

from __future__ import annotations

from fastmlp.kernels import codegen

#: Rows of a batch that are worked on together: enough for every multiprocessor to have some.
CHUNK_ROWS = 8192
#: Tiles of narrow networks, of wide ones, and of the simulator, where a thread is one of Python's.
SMALL, LARGE = codegen.CudaTile(32, 16, 32), codegen.CudaTile(64, 16, 16)
SIMULATED = codegen.CudaTile(4, 2, 4)
#: The widest layer and the batch from which the large tile leaves no multiprocessor idle.
LARGE_WIDTH, LARGE_BATCH = 256, 128

#: Seconds that a launch should take.  Ctrl-C is seen between launches, and Windows ends launches of two seconds.
LAUNCH_SECONDS = 0.15
#: Operations per second by size of a number, and seconds of a step, that the first launch assumes: a slow device's.
FIRST_RATE, FIRST_STEP = {4: 2e11, 8: 2e10}, 1e-4
#: How many times longer than the launch before a launch may be.
GROWTH = 8
#: Numbers that the steps of one table leave for the host to sum up.
PARTIALS_PER_TABLE = 2**22

#: Microseconds of a barrier of the grid, and of a tile's product per term; they choose a schedule.
BARRIER, TERM = 2.0, 1 / 32
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
#: This number of blocks and a launch for each phase, instead of a cooperative launch for all phases.
BLOCKS_PER_PHASE: int | None = None
