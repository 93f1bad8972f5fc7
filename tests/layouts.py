"""Layouts: from an array to one with the same numbers that lies otherwise in memory."""

import tempfile

import numpy as np


def at_odd_address(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def field(a):
    """The rows as one field of a packed structured array: addresses and strides in odd bytes."""
    table = np.zeros(len(a), np.dtype([("flag", "u1"), ("rows", a.dtype, a.shape[1:])]))
    table["rows"] = a
    return table["rows"]


def aligned_field(a):
    """A field whose stride is no whole number of items, beside another one."""
    table = np.zeros(len(a), np.dtype([("rows", a.dtype, a.shape[1:]), ("more", "u4")]))
    table["rows"] = a
    return table["rows"]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def memory_map(a, offset=0, mode="r"):
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x" * offset + a.tobytes())
        file.flush()
        return np.memmap(file.name, a.dtype, mode, offset, a.shape)


ANY = {
    "at an odd address": at_odd_address,
    "field": field,
    "aligned field": aligned_field,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "little-endian": lambda a: a.astype(a.dtype.newbyteorder("<")),
    "read-only": read_only,
    "memory map": memory_map,
    "memory map at an odd offset": lambda a: memory_map(a, 13),
    "reversed": lambda a: a[::-1].copy()[::-1],
    "every second": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every third, unaligned": lambda a: at_odd_address(np.repeat(a, 3, axis=0))[::3],
}
MATRIX = ANY | {
    "Fortran": np.asfortranarray,
    "Fortran at an odd address": lambda a: at_odd_address(np.ascontiguousarray(a.T)).T,
    "columns reversed": lambda a: a[:, ::-1].copy()[:, ::-1],
    "both reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "every second column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "part of a wider one": lambda a: np.hstack([a, a])[:, : a.shape[1]],
}
