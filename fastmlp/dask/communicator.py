"""Exchanges between the ranks of a fit, over the comms of Dask's workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distributed.protocol import to_serialize

from fastmlp.dask.sessions import Session
from fastmlp.distributed.communicator import Communicator

#: Bytes up to which a part is put into its message; larger ones are frames of their own, which Dask does not copy.
INLINE = 64 * 1024


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
        session.start(key)
        self.barrier()
        session.has_begun = True

    def exchange(self, parts: Sequence[bytes | None]) -> list[Any]:
        """Send ``parts[i]`` to rank i, and return what each rank has sent to this one, in their order."""
        given = {rank: part for rank, part in enumerate(parts) if part is not None}
        packed: dict[int, Any] = {}
        for part in given.values():
            if id(part) not in packed:
                packed[id(part)] = part if len(part) <= INLINE else to_serialize(part)
        self.session.send({rank: packed[id(part)] for rank, part in given.items()})
        found = self.session.receive(given)
        return [found.get(rank) for rank in range(self.size)]

    def close(self) -> None:
        """Leave the fit in order."""
        self.session.end(("done", self.rank, None))

    def name_of(self, rank: int) -> str:
        """Return what errors call a rank."""
        return self.session.name_of(rank)
