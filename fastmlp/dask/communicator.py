"""Exchanges between the ranks of a fit, over the comms of Dask's workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastmlp.dask.sessions import Session
from fastmlp.distributed.communicator import Communicator

#: Least bytes of the pieces of a slice: while some are on their way, others are added. NumPy, from which Dask takes the
#: memory of what it reads, asks for huge pages from 4 MB on; smaller pieces cost more page faults and calls.
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
        self._totals = np.empty(0)  # what this rank has added up, on its way to the others
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

        Slices go in pieces, from where they lie. A rank that sends the sums of its slice has read all that it was sent
        for them, so they may replace it. The sums of the own slice are sent from memory of their own. The others have
        read them when they send their parts of the next vector.
        """
        own, others = slices[self.rank], [rank for rank in range(self.size) if rank != self.rank]
        if self._totals.shape != own.shape or self._totals.dtype != own.dtype:
            self._totals = np.empty_like(own)
        pieces, totals = [_cut(one) for one in slices], _cut(self._totals)
        header = self._stamp(f"sum of {sum(map(len, slices))} numbers of {own.dtype}")
        for at in range(max(map(len, pieces))):
            self._post(header, {rank: pieces[rank][at] for rank in others if at < len(pieces[rank])})
        arrived: list[list[Any]] = [[None] * self.size for _ in totals]
        coming = {rank: len(totals) + len(pieces[rank]) for rank in others}
        while waiting := {rank for rank, n in coming.items() if n}:
            rank, (theirs, body) = self.session.take(waiting)
            self._compare(rank, theirs, header)
            at = len(totals) + len(pieces[rank]) - coming[rank]
            coming[rank] -= 1
            if at >= len(totals):
                pieces[rank][at - len(totals)][...] = np.frombuffer(body, own.dtype)
                continue
            arrived[at][rank] = body
            if sum(one is not None for one in arrived[at]) == len(others):
                arrived[at][self.rank] = pieces[self.rank][at]
                self._sum(arrived[at], totals[at])
                arrived[at] = []
                self._post(header, dict.fromkeys(others, totals[at]))
                pieces[self.rank][at][...] = totals[at]

    def _post(self, header: bytes, pieces: dict[int, np.ndarray]) -> None:
        """Send ranks a piece each."""
        self.n_messages += len(pieces)
        self.n_bytes += sum(len(header) + piece.nbytes for piece in pieces.values())
        self.session.send([(rank, [header, piece.view(np.uint8).data]) for rank, piece in pieces.items()])

    def close(self) -> None:
        """Leave the fit in order."""
        self.session.end(("done", self.rank, None))

    def name_of(self, rank: int) -> str:
        """Return what errors call a rank."""
        return self.session.name_of(rank)


def _cut(vector: np.ndarray) -> list[np.ndarray]:
    """Return a vector in pieces of about the same length."""
    n = max(1, vector.nbytes // PIECE_BYTES)
    return [vector[len(vector) * i // n : len(vector) * (i + 1) // n] for i in range(n)]
