"""The CUDA engine.  Read in this order:

driver.py      the package that compiles, the driver, the device, modules made at run time
settings.py    sizes, and what tests force
interrupts.py  Ctrl-C at a safe moment
memory.py      vectors, mirrors of the host's vectors and rows, on the device
template/      the device code, in parts; codegen makes modules of it
instructions.py, emulation.py  the instructions of tensor cores, on a device and in the simulator
code.py        from a network's choices to its module
cost.py        what a step is expected to take: the tile, the schedule
plan.py        tables of a network: places, tasks, phases
workspace.py   what is kept for a network
pace.py        how much a launch takes on
training.py    epochs and L-BFGS's loss, as launches
many.py        epochs of many nets at once, a block for each
prediction.py  predictions, block by block
engine.py      the backend: the contract's functions, from the files above
"""
