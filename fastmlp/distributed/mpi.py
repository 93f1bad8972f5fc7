"""Ranks that are processes under MPI, by mpi4py: ``mpirun -n 8 python train.py``, on one machine or under SLURM.

mpi4py is imported by the user's program, which hands over ``MPI.COMM_WORLD`` or another communicator of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from fastmlp.distributed.communicator import CommunicationError, Communicator
from fastmlp.kernels import interrupts

#: Tags of the messages of exchanges, of those that tell of a failure, and of slices.
_PART, _FAILURE, _SLICE = 1, 2, 3
#: Seconds of waiting after which a rank lets others have the processor for a while, and how long.
_PATIENCE, _NAP = 2e-3, 5e-5


class MPICommunicator(Communicator):
    """A rank that is a process under MPI.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        As ``MPI.COMM_WORLD``. It is duplicated, so messages of the user's own do not meet those of a fit; all ranks
        must come here together.
    timeout : float, default=60.0
        Seconds that a rank waits for another one.

    Raises
    ------
    CommunicationError
        If not all ranks come within the timeout.
    """

    def __init__(self, comm: Any, timeout: float = 60.0) -> None:
        super().__init__(comm.Get_rank(), comm.Get_size(), timeout)
        self._mpi = sys.modules["mpi4py.MPI"]
        self._told: list[Any] = []  # messages of a failure on their way
        self._theirs = np.empty((self.size, 0))  # what the other ranks have sent of the slice that this one adds up
        with suppress(self._mpi.Exception):
            _UNFINISHED[:] = [request for request in _UNFINISHED if not request[1].Test()]
        self._comm, request = comm.Idup()
        wait = _Wait(timeout)
        while not request.Test():
            if wait.is_over():
                raise CommunicationError(f"not all of {self.size} ranks have begun a fit within {timeout:g} seconds")

    def exchange(self, parts: Sequence[bytes | None]) -> list[Any]:
        """Send a message to each other rank, and wait for theirs."""
        comm, byte, found = self._comm, self._mpi.BYTE, list[Any]([None] * self.size)
        sending = {
            rank: comm.Isend([part, byte], rank, _PART)
            for rank, part in enumerate(parts)
            if rank != self.rank and part is not None
        }
        coming, arriving = set(sending), dict[int, Any]()
        wait = _Wait(self.timeout)
        while coming or arriving or sending:
            for rank in sorted(coming):
                status = self._mpi.Status()
                message = comm.Improbe(rank, _PART, status)
                if message is not None:
                    buffer = np.empty(status.Get_count(byte), np.uint8)  # not filled with zeros first
                    arriving[rank], found[rank] = message.Irecv([buffer, byte]), buffer
                    coming.remove(rank)
                    wait.begin()
            for requests in (arriving, sending):
                for rank in [rank for rank, request in requests.items() if request.Test()]:
                    del requests[rank]
            if coming or arriving:
                self._look_for_failure()
            if wait.is_over():
                raise self.missing(min(coming or arriving or sending))
        return found

    def sum_slices(self, slices: Sequence[np.ndarray]) -> None:
        """Replace each of the slices of a vector by the sum of those of all ranks; rank i adds up slice i for all.

        Slices are sent from where they lie, and sums arrive where they belong.
        """
        own, others = slices[self.rank], [rank for rank in range(self.size) if rank != self.rank]
        self._swap([b""] * self.size, f"sum of {sum(map(len, slices))} numbers of {own.dtype}")  # all have as many
        if self._theirs.shape[1] != len(own) or self._theirs.dtype != own.dtype:
            self._theirs = np.empty((self.size, len(own)), own.dtype)
        self._transfer({rank: slices[rank] for rank in others}, {rank: self._theirs[rank] for rank in others})
        self._sum([own if rank == self.rank else self._theirs[rank] for rank in range(self.size)], own)
        self._transfer(dict.fromkeys(others, own), {rank: slices[rank] for rank in others})

    def _transfer(self, given: Mapping[int, np.ndarray], wanted: Mapping[int, np.ndarray]) -> None:
        """Send ranks an array each, and fill one from each; the lengths are known."""
        comm, byte = self._comm, self._mpi.BYTE
        requests = [(rank, comm.Irecv([array, byte], rank, _SLICE)) for rank, array in wanted.items()]
        requests += [(rank, comm.Isend([array, byte], rank, _SLICE)) for rank, array in given.items()]
        self.n_messages += len(given)
        self.n_bytes += sum(array.nbytes for array in given.values())
        wait = _Wait(self.timeout)
        try:
            while requests:
                left = [(rank, request) for rank, request in requests if not request.Test()]
                if len(left) < len(requests):
                    wait.begin()
                requests = left
                if requests:
                    self._look_for_failure()
                    if wait.is_over():
                        raise self.missing(requests[0][0])
        except BaseException:
            _UNFINISHED.extend(requests)
            raise

    def _look_for_failure(self) -> None:
        status = self._mpi.Status()
        if self._comm.Iprobe(self._mpi.ANY_SOURCE, _FAILURE, status):
            rank, text = status.Get_source(), bytearray(status.Get_count(self._mpi.BYTE))
            self._comm.Recv([text, self._mpi.BYTE], rank, _FAILURE)
            raise self.failed(rank, text.decode(errors="replace"))

    def tell(self, reason: str) -> None:
        """Tell the other ranks that this one has failed; whether they still listen does not matter."""
        text = reason.encode()[:2000]
        for rank in range(self.size):
            if rank != self.rank:
                self._told.append(self._comm.Isend([text, self._mpi.BYTE], rank, _FAILURE))
        end = time.monotonic() + 1.0
        while time.monotonic() < end and not self._mpi.Request.Testall(self._told):
            time.sleep(_NAP)

    def close(self) -> None:
        """Free the duplicate; after a failure, which other ranks may not know of yet, it is left to the end of MPI."""
        super().close()
        if self.over is None:
            self._comm.Free()


#: Requests of failed fits. MPI may still write to their arrays, which they keep alive.
_UNFINISHED: list[Any] = []


class _Wait:
    """A wait for others, which leaves them the processor if it is long."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self.begin()

    def begin(self) -> None:
        """Begin anew: somebody has come."""
        self._since = time.monotonic()

    def is_over(self) -> bool:
        """Return whether nobody has come for too long; a short pause if the wait goes on."""
        waited = time.monotonic() - self._since
        interrupts.check()
        time.sleep(_NAP if waited > _PATIENCE else 0)
        return waited > self._timeout
