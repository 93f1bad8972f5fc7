"""The parts of gpu_check.py, in the order in which to read them.

children.py      processes with a time limit; files that are written whole
surroundings.py  where fastmlp is found, in this process and in all children
hooks.py         choices of the CUDA engine that the checks force
nets.py          networks that are trained and compared with the reference
many.py          many networks in one call, compared with one at a time
named.py         every kernel by name, compared with the reference
checks.py        the checks that a child runs, one row each
steps.py         the steps of a run: which children, what their answers mean
"""
