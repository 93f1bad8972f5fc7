"""Memory that the processes of one machine share: a rank reads there what another one would have to send.

It has no name and no file, so nothing is left of it when processes die. Each rank makes a room of its own and says
where it is; the others open it in what Linux shows of that process. Elsewhere, and where the system refuses it, there
are no rooms, and ranks send each other what they have.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastmlp.distributed.communicator import Communicator

#: Where Linux says which start of which machine this is. Process numbers also depend on the container.
_MACHINE, _NUMBERS = "/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"


def rooms(communicator: Communicator, n_bytes: int) -> list[np.ndarray] | None:
    """Return a room of n_bytes (uint8) per rank, which all ranks can read and write; all ranks make this call.

    Returns
    -------
    list of ndarray of uint8 of shape (n_bytes,), or None
        None on all ranks if they are not on one machine, or if it has no such memory.
    """
    descriptor, place = _new_room(n_bytes)
    found = None
    try:
        places = communicator.allgather(place, "places of shared memory")
        if None not in places and len({machine for machine, _ in places}) == 1:
            with suppress(OSError, ValueError):
                found = [_opened(path, n_bytes) for _, path in places]
        everywhere = communicator.allgather(found is not None, "whether all have found shared memory")
    finally:
        if descriptor >= 0:
            os.close(descriptor)  # what is mapped stays
    return found if all(everywhere) else None


def _new_room(n_bytes: int) -> tuple[int, tuple[Any, str] | None]:
    """Return the descriptor of a new room, and where processes find it: a machine and a path; -1 and None if none."""
    if not hasattr(os, "memfd_create"):
        return -1, None
    descriptor = -1
    try:
        with open(_MACHINE) as file:
            machine = file.read(), os.readlink(_NUMBERS)
        descriptor = os.memfd_create("fastmlp", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, n_bytes)
    except OSError:
        if descriptor >= 0:
            os.close(descriptor)
        return -1, None
    return descriptor, (machine, f"/proc/{os.getpid()}/fd/{descriptor}")


def _opened(path: str, n_bytes: int) -> np.ndarray:
    """Map the room of a process of this machine."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return np.frombuffer(mmap.mmap(descriptor, n_bytes), np.uint8)
    finally:
        os.close(descriptor)
