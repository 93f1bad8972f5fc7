"""What the page gets: a header in JSON and arrays, in one binary frame.

A frame is the length of the header (uint32), the header, and the arrays one after the other; header and arrays are
padded with zeros to multiples of 8 bytes.  All numbers are little-endian.  The header lists the arrays under "arrays".
static/connection.js reads frames.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def packed(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a frame; the arrays are uint8 or float32, of any shape.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.playground.frames import packed, unpacked
    >>> header, arrays = unpacked(packed({"epoch": 3}, {"map": np.zeros((2, 3), np.uint8)}))
    >>> header["epoch"], arrays["map"].shape
    (3, (2, 3))
    """
    described = [{"name": name, "dtype": str(a.dtype), "shape": a.shape} for name, a in arrays.items()]
    text = json.dumps({**header, "arrays": described}, allow_nan=False).encode()
    parts = [np.uint32(len(text)).astype("<u4").tobytes() + text]
    parts += [np.ascontiguousarray(a, a.dtype.newbyteorder("<")).tobytes() for a in arrays.values()]
    return b"".join(part + bytes(-len(part) % 8) for part in parts)


def unpacked(frame: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header and the arrays of a frame."""
    end = 4 + int(np.frombuffer(frame, "<u4", 1)[0])
    header = json.loads(frame[4:end])
    arrays = {}
    for described in header.pop("arrays"):
        start, dtype = end + -end % 8, np.dtype(described["dtype"]).newbyteorder("<")
        n = int(np.prod(described["shape"]))
        arrays[described["name"]] = np.frombuffer(frame, dtype, n, start).reshape(described["shape"])
        end = start + n * dtype.itemsize
    return header, arrays
