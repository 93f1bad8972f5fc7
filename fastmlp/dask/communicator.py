"""Exchanges between the ranks of a fit, over the comms of Dask's workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastmlp.dask.sessions import Session
from fastmlp.distributed.communicator import Communicator

#: Least bytes of the pieces of a slice: while some are on their way, others are added.
PIECE_BYTES = 5 * 2**20


class DaskCommunicator(Communicator):
    """The communicator of one rank; it is made in the task that trains, which tells the others of errors.

    Parameters
    ----------
    session : Session
    key : str
        Key of the task.

    Raises
    ------
    WorkerLost
        If a rank does not begin within the timeout; it names the worker.
    """

    def __init__(self, session: Session, key: Any) -> None:
        super().__init__(session.rank, len(session.addresses), session.timeout)
        self.session = session
        self._theirs = np.empty((self.size, 0))  # what others have sent of the slice that this one adds up; its sum
        session.start(key)
        self.barrier()
        session.has_begun = True

    def exchange(self, parts: Sequence[bytes | None]) -> list[Any]:
        """Send ``parts[i]`` to rank i, and return what each rank has sent to this one, in their order."""
        given = {rank: part for rank, part in enumerate(parts) if part is not None}
        self.session.send([(rank, [part]) for rank, part in given.items()])
        found = self.session.receive(given)
        return [found[rank][0] if rank in found else None for rank in range(self.size)]

    def sum_slices(self, slices: Sequence[np.ndarray]) -> None:
        """Replace each of the slices of a vector by the sum of those of all ranks; rank i adds up slice i for all.

        Slices go in pieces, from where they lie to where they belong. A rank that sends the sums of its slice has read
        all that it was sent for them, so they may replace it. The sums of the own slice are sent from memory of their
        own. The others have read them when they send their parts of the next vector.
        """
        own, others = slices[self.rank], [rank for rank in range(self.size) if rank != self.rank]
        if self._theirs.shape[1] != len(own) or self._theirs.dtype != own.dtype:
            self._theirs = np.empty((self.size, len(own)), own.dtype)
        pieces, theirs = [_cut(one) for one in slices], [_cut(one) for one in self._theirs]
        totals = theirs[self.rank]
        header = self._stamp(f"sum of {sum(map(len, slices))} numbers of {own.dtype}")
        for rank in others:
            self.session.expect(rank, [_bytes_of(place) for place in theirs[rank] + pieces[rank]])
        for at in range(max(map(len, pieces))):
            self._post(header, {rank: pieces[rank][at] for rank in others if at < len(pieces[rank])})
        n_here = [0] * len(totals)  # how many ranks' parts of each piece have come
        coming = {rank: 2 * (len(totals) + len(pieces[rank])) for rank in others}
        while waiting := {rank for rank, n in coming.items() if n}:
            rank, (mark,) = self.session.take(waiting)
            self._compare(rank, mark, header)
            at, is_there = divmod(2 * (len(totals) + len(pieces[rank])) - coming[rank], 2)
            coming[rank] -= 1
            if not is_there or at >= len(totals):
                continue
            n_here[at] += 1
            if n_here[at] == len(others):
                parts = [theirs[i][at] if i != self.rank else pieces[i][at] for i in range(self.size)]
                self._sum(parts, totals[at])
                self._post(header, dict.fromkeys(others, totals[at]))
                pieces[self.rank][at][...] = totals[at]

    def _post(self, header: bytes, pieces: dict[int, np.ndarray]) -> None:
        """Send ranks a piece each."""
        self.n_messages += len(pieces)
        self.n_bytes += sum(len(header) + piece.nbytes for piece in pieces.values())
        self.session.send_pieces(header, [(rank, _bytes_of(piece)) for rank, piece in pieces.items()])

    def close(self) -> None:
        """Leave the fit in order."""
        super().close()
        self.session.end(("done", self.rank, None))

    def name_of(self, rank: int) -> str:
        """Return what errors call a rank."""
        return self.session.name_of(rank)


def _bytes_of(piece: np.ndarray) -> memoryview:
    return piece.view(np.uint8).data


def _cut(vector: np.ndarray) -> list[np.ndarray]:
    """Return a vector in pieces of about the same length."""
    n = max(1, vector.nbytes // PIECE_BYTES)
    return [vector[len(vector) * i // n : len(vector) * (i + 1) // n] for i in range(n)]
