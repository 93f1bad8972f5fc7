"""Fits on several machines: processes that each have some of the rows, and train one network together.

Reading order: communicator.py (what connects the ranks), shared_memory.py (what they need not send on one machine),
engine.py (the calls of the contract, computed by all ranks), callbacks.py, ranks.py (a fit); threads.py and mpi.py
connect threads of a process, and processes under MPI. What is summed is said in kernels/contract.py: ``Shared``; how
rows become one table in data/shared_rows.py.
"""

from fastmlp.data.shared_rows import Partitions
from fastmlp.distributed.communicator import Alone, CommunicationError, Communicator
from fastmlp.distributed.threads import on_threads, ranks_of_threads

__all__ = ["Alone", "CommunicationError", "Communicator", "Partitions", "on_threads", "ranks_of_threads"]
