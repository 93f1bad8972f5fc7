"""Communicator: what the ranks of a fit need of whatever connects them, and the sums that are made of it.

A way to connect processes is one method, :meth:`Communicator.exchange`. Everything else is made of it here: sums,
values for all, the check that all ranks are at the same point of the same fit.
"""

from __future__ import annotations

import pickle
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from zlib import crc32

import numpy as np

from fastmlp.distributed import shared_memory

#: Why a rank ends when Ctrl-C has stopped it.
INTERRUPTED = "it was interrupted"

#: Vectors up to so many bytes are sent whole to every rank: one exchange, where larger ones take two, with less to send
#: and to add. Of two ranks each has as much to send both ways, so they send larger vectors whole.
DIRECT_BYTES, PAIR_BYTES = 32768, 2**18

#: Bytes of vectors that are added at a time: their sum stays in cache until it is where it belongs.
BLOCK_BYTES = 2**16

_HEADER = struct.Struct("<QQ")  # the number of the exchange, a checksum of what it is for


class CommunicationError(RuntimeError):
    """A rank did not answer in time, has failed, or is at another point of the fit.

    Attributes
    ----------
    rank : int
        The rank that it is about.
    told : bool
        Whether that rank has told all others, too.
    """

    def __init__(self, message: str, rank: int = -1, told: bool = False) -> None:
        super().__init__(message)
        self.rank, self.told = rank, told

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.rank, self.told)


class Communicator(ABC):
    """One rank among several that train together.

    Subclasses have one method, :meth:`exchange`, and may have :meth:`sum_slices`, :meth:`tell` and :meth:`close`.

    Parameters
    ----------
    rank : int
        Number of this rank, from 0.
    size : int
        How many ranks there are.
    timeout : float, default=60.0
        Seconds that a rank waits for another one. It must be longer than anything that a rank does between two
        exchanges: a step, or callbacks after an epoch.

    Attributes
    ----------
    n_messages, n_bytes : int
        What this rank has sent to others so far, or let them read and written for them in shared memory.
    """

    def __init__(self, rank: int, size: int, timeout: float = 60.0) -> None:
        if not 0 <= rank < size:
            raise ValueError(f"rank must lie in [0, {size}), got {rank}")
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, got {timeout}")
        self.rank, self.size, self.timeout = rank, size, timeout
        self.n_messages = self.n_bytes = 0
        self.over: str | None = None  # why nothing can be exchanged any more
        self._number = 0
        self._rooms: list[np.ndarray] | None = None  # vectors in shared memory; None: not looked for; empty: none

    # --- what a subclass has ------------------------------------------------------------------------------------------

    @abstractmethod
    def exchange(self, parts: Sequence[bytes | None]) -> list[Any]:
        """Send ``parts[i]`` to rank i, and return what each rank has sent to this one, in their order.

        ``parts[self.rank]`` is None, and what stands there in the result is not read. Messages between two ranks arrive
        in the order in which they were sent. The call waits for all ranks, but for none longer than ``timeout``.

        Raises
        ------
        CommunicationError
            If a rank does not come in time, or has told that it failed; it names the rank by :meth:`name_of`.
        """

    def tell(self, reason: str) -> None:  # noqa: B027 # there is nothing to do if ranks find out by waiting
        """Tell the other ranks that this one has failed, so that they need not wait for the timeout."""

    def close(self) -> None:
        """Give back what the communicator holds, after a fit that made it."""
        self._rooms = []

    def name_of(self, rank: int) -> str:
        """Return what errors call a rank."""
        return f"rank {rank}"

    # --- what is made of it -------------------------------------------------------------------------------------------

    def allreduce(self, vector: np.ndarray) -> None:
        """Replace a vector (n,) by the sum of those of all ranks, in the order of ranks: the same bits on each."""
        if self.size == 1:
            return
        if self._is_sent_whole(vector.nbytes):
            self._sum(self._swap([vector] * self.size, "sum"), vector)
        elif self._rooms and vector is self._rooms[self.rank]:
            self._sum_in_rooms(self._rooms)
        else:
            self.sum_slices(self._slices(vector))

    def vector(self, n: int, dtype: np.dtype) -> np.ndarray | None:
        """Return memory in which a vector is best kept that :meth:`allreduce` often sums; all ranks make this call.

        Ranks on one machine share it: they read and write there what they would have to send.

        Returns
        -------
        ndarray of shape (n,), or None
            Zeros, and the same array each time, until the length or dtype is another one. None on all ranks if messages
            are quicker, or all there is.
        """
        n_bytes = n * dtype.itemsize
        if self.size == 1 or self._is_sent_whole(n_bytes) or self.over is not None:
            return None
        if self._rooms is None or (self._rooms and (len(self._rooms[0]), self._rooms[0].dtype) != (n, dtype)):
            self._rooms = [room.view(dtype) for room in shared_memory.rooms(self, n_bytes) or ()]
        return self._rooms[self.rank] if self._rooms else None

    def sum_slices(self, slices: Sequence[np.ndarray]) -> None:
        """Replace each of the slices of a vector by the sum of those of all ranks; rank i adds up slice i for all."""
        own = slices[self.rank]
        self._sum(self._swap(slices, "sum"), own)
        for rank, total in enumerate(self._swap([own] * self.size, "sum")):
            if rank != self.rank:
                slices[rank][...] = np.frombuffer(total, own.dtype)

    def allgather(self, value: Any, what: str = "values") -> list[Any]:
        """Return the values of all ranks, in their order; anything that can be pickled.

        Ranks that ask for something else, by another `what`, get an error.
        """
        if self.size == 1:
            return [value]
        text = _pickled(value)
        found = self._swap([text] * self.size, what)
        return [value if rank == self.rank else pickle.loads(one) for rank, one in enumerate(found)]

    def alltoall(self, values: Sequence[Any], what: str = "values") -> list[Any]:
        """Send ``values[i]`` to rank i, and return what each rank has sent to this one, in their order.

        Values are anything that can be pickled. Ranks that ask for something else, by another `what`, get an error.
        """
        if self.size == 1:
            return list(values)
        others = [b"" if rank == self.rank else _pickled(value) for rank, value in enumerate(values)]
        found = self._swap(others, what)
        return [values[rank] if rank == self.rank else pickle.loads(one) for rank, one in enumerate(found)]

    def broadcast(self, value: Any, what: str = "value of rank 0") -> Any:
        """Return the value of rank 0."""
        if self.size == 1:
            return value
        text = _pickled(value) if self.rank == 0 else b""
        found = self._swap([text] * self.size, what)
        return value if self.rank == 0 else pickle.loads(found[0])

    def barrier(self) -> None:
        """Wait until all ranks have come here."""
        self._swap([b""] * self.size, "barrier")

    def abort(self, reason: str, tell: bool = True) -> None:
        """End this communicator, because this rank has failed; the others raise a CommunicationError that names it."""
        if self.over is None:
            self.over = f"{self.name_of(self.rank)} has ended it: {reason}"
            self._rooms = []
            if tell:
                self.tell(reason)

    def failed(self, rank: int, reason: str) -> CommunicationError:
        """Return the error of an exchange for which a rank has told its failure."""
        return CommunicationError(f"{self.name_of(rank)} has failed: {reason}", rank, told=True)

    def missing(self, rank: int) -> CommunicationError:
        """Return the error of an exchange to which a rank did not come."""
        return CommunicationError(f"{self.name_of(rank)} did not answer within {self.timeout:g} seconds", rank)

    def _is_sent_whole(self, n_bytes: int) -> bool:
        return n_bytes <= (PAIR_BYTES if self.size == 2 else DIRECT_BYTES)

    def _slices(self, vector: np.ndarray) -> list[np.ndarray]:
        """Return a vector in a slice per rank."""
        bounds = [len(vector) * rank // self.size for rank in range(self.size + 1)]
        return [vector[start:end] for start, end in pairwise(bounds)]

    def _sum_in_rooms(self, vectors: Sequence[np.ndarray]) -> None:
        """Replace the vectors of all ranks by their sum, where they lie: each rank its slice of all of them.

        Nobody touches another rank's between the second exchange of a sum and the first of the next one.
        """
        parts = [self._slices(vector) for vector in vectors]
        own, purpose = [part[self.rank] for part in parts], f"sum of {len(vectors[0])} numbers in shared memory"
        self._swap([b""] * self.size, purpose)
        self._sum(own, *own)
        self._swap([b""] * self.size, purpose)
        self.n_bytes += vectors[0].nbytes + (self.size - 2) * own[0].nbytes  # read by others, and written for them

    def _sum(self, parts: Sequence[Any], out: np.ndarray, *copies: np.ndarray) -> None:
        """Write the sum of the vectors of all ranks, in their order; a CommunicationError refuses other lengths.

        `out` and copies of it may be some of them.
        """
        arrays = [np.frombuffer(part, out.dtype) for part in parts]
        for rank, array in enumerate(arrays):
            if len(array) != len(out):
                raise CommunicationError(
                    f"{self.name_of(rank)} has a vector of {len(array)} numbers, this rank one of {len(out)}", rank
                )
        n = BLOCK_BYTES // out.itemsize
        for start in range(0, len(out), n):
            place = out[start : start + n]
            first, *others, last = [array[start : start + n] for array in arrays]
            for other in others:
                first = first + other  # not in place: it is a part
            np.add(first, last, out=place)
            for copy in copies:
                copy[start : start + n] = place

    def _swap(self, parts: Sequence[Any], purpose: str) -> list[Any]:
        """Exchange parts of one purpose; a CommunicationError says that a rank is at another point of the fit."""
        header = self._stamp(purpose)
        made = {id(part): b"".join((header, part)) for part in parts}  # one message for ranks that get the same
        sent: list[bytes | None] = [made[id(part)] for part in parts]
        own, sent[self.rank] = sent[self.rank], None
        self.n_messages += self.size - 1
        self.n_bytes += sum(len(part) for part in sent if part is not None)
        found: list[Any] = self.exchange(sent) if self.size > 1 else [None]
        found[self.rank] = own
        for rank, message in enumerate(found):
            self._compare(rank, message[: _HEADER.size], header)
        return [memoryview(message)[_HEADER.size :] for message in found]

    def _stamp(self, purpose: str) -> bytes:
        """Return what marks the messages of the next exchange; a CommunicationError refuses more of them."""
        if self.over is not None:
            raise CommunicationError(f"this communicator is over: {self.over}", self.rank)
        header = _HEADER.pack(self._number, crc32(purpose.encode()))
        self._number += 1
        return header

    def _compare(self, rank: int, header: Any, own: bytes) -> None:
        """Raise a CommunicationError if the mark of a rank's message is not that of this rank's."""
        if bytes(header) != own:
            raise CommunicationError(f"{self.name_of(rank)} is at another point of its fit than this rank", rank)


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


class Alone(Communicator):
    """The only rank: a fit in one process, by the way of a fit in several.

    Examples
    --------
    >>> Alone().allgather("here")
    ['here']
    """

    def __init__(self) -> None:
        super().__init__(0, 1)

    def exchange(self, parts: Sequence[bytes | None]) -> list[Any]:
        """Return nothing: there is nobody to send anything to."""
        return [None]
