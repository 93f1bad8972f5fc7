"""Memory that the processes of one machine share: a rank reads there what another one would have to send.

It has no name and no file, so nothing is left of it when processes die. Each rank makes a room of its own and says
where it is; the others open it in what Linux shows of that process. Elsewhere, and where the system refuses it, there
are no rooms, and ranks send each other what they have.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from fastmlp.distributed.communicator import Communicator

#: Where Linux says which start of which machine this is. Process numbers also depend on the container.
_MACHINE, _NUMBERS = "/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"
_MARK_BYTES = 16


def rooms(communicator: Communicator, n_bytes: int) -> list[np.ndarray] | None:
    """Return a room of n_bytes zeros (uint8) per rank, which all ranks can read and write; all ranks make this call.

    Returns
    -------
    list of ndarray of uint8 of shape (n_bytes,), or None
        None on all ranks if they are not on one machine, or if it has no such memory.
    """
    descriptor, place = _new_room(max(n_bytes, _MARK_BYTES))
    found = None
    try:
        places = communicator.allgather(place, "places of shared memory")
        if None not in places and len({one.machine for one in places}) == 1:
            with suppress(OSError, ValueError):
                found = [_opened(one, n_bytes) for one in places]
        everywhere = communicator.allgather(found is not None, "whether all have found shared memory")
        if found is not None:
            found[communicator.rank][:_MARK_BYTES] = 0  # all have seen it
    finally:
        if descriptor >= 0:
            os.close(descriptor)  # what is mapped stays
    return found if all(everywhere) else None


class Place(NamedTuple):
    """Where processes find a room."""

    machine: tuple[str, str]
    path: str
    mark: bytes  # what stands there at first: on the clone of a machine the path may lead to another room


def _new_room(n_bytes: int) -> tuple[int, Place | None]:
    """Return the descriptor of a new room, and where it is; -1 and None if there is no such memory."""
    if not hasattr(os, "memfd_create"):
        return -1, None
    descriptor = -1
    try:
        with open(_MACHINE) as file:
            machine = file.read(), os.readlink(_NUMBERS)
        descriptor = os.memfd_create("fastmlp", os.MFD_CLOEXEC)
        os.posix_fallocate(descriptor, 0, n_bytes)  # else a write could find no memory, which ends the process
        mark = os.urandom(_MARK_BYTES)
        os.pwrite(descriptor, mark, 0)
    except OSError:
        if descriptor >= 0:
            os.close(descriptor)
        return -1, None
    return descriptor, Place(machine, f"/proc/{os.getpid()}/fd/{descriptor}", mark)


def _opened(place: Place, n_bytes: int) -> np.ndarray:
    """Map the room of a process of this machine; an OSError or ValueError says that it is not there."""
    descriptor = os.open(place.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.pread(descriptor, _MARK_BYTES, 0) != place.mark:
            raise ValueError(f"{place.path} is not the room of that process")
        return np.frombuffer(mmap.mmap(descriptor, n_bytes), np.uint8)  # which keeps a descriptor of its own
    finally:
        os.close(descriptor)
