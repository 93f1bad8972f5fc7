"""What the CUDA engine keeps on the device: the rows of a fit, and vectors that the host sees too.

Where it sits: training.py and prediction.py hand in arrays of the host, or arrays that are on the device
already, and get vectors on the device.  Rows are uploaded once: an array that comes again is known by its identity, and
is referred to so that no other takes its place.  Parameters and states are uploaded when the host has changed them: a
copy of what both had last tells.  They may stay ahead of the host for a while: then a mirror owes them to an array.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from fastmlp.kernels import arguments
from fastmlp.kernels.arguments import check_array, check_weights
from fastmlp.kernels.numba_cuda.driver import allocate, api, check_device

STAGING_BYTES = 64 * 2**20  # rows of another dtype or layout are converted so many bytes at a time


# --- arrays that are on the device already ----------------------------------------------------------------------------


def on_device(array: Any) -> bool:
    """Whether an array is a GPU's: of Numba, CuPy, PyTorch, JAX or any library with their interface."""
    if isinstance(array, np.ndarray) or sparse.issparse(array):
        return False
    if hasattr(array, "__cuda_ndarray__"):
        return True
    try:  # PyTorch raises for tensors on the host
        return hasattr(array, "__cuda_array_interface__")
    except (RuntimeError, TypeError, ValueError):
        return False


def device_view(name: str, array: Any, dtype: np.dtype, shape: tuple, *, out: bool = False) -> Any:
    """Return a vector of the same memory; nothing is copied.

    Raises
    ------
    ValueError
        If the array is on another GPU, not C-contiguous, or of another dtype or shape.
    """
    cuda = api()
    check_device(name, array)
    if not hasattr(array, "__cuda_ndarray__"):
        if out and (array.__cuda_array_interface__["data"][1]):
            raise ValueError(f"{name} must be writable")
        array = cuda.as_cuda_array(array)
    if array.dtype != dtype:
        raise ValueError(f"{name} is on the device and must have the network's dtype {dtype}, got {array.dtype}")
    found = tuple(array.shape)
    if len(found) != len(shape) or any(n not in (None, m) for n, m in zip(shape, found, strict=True)):
        raise ValueError(f"{name} must have shape {shape}, got {found}")
    if not array.is_c_contiguous():
        raise ValueError(f"{name} is on the device and must be C-contiguous")
    return array.reshape(int(np.prod(found)))


def on_host(array: Any) -> Any:
    """An array on the host, downloaded if need be."""
    if not on_device(array):
        return array
    return (array if hasattr(array, "__cuda_ndarray__") else api().as_cuda_array(array)).copy_to_host()


# --- vectors ----------------------------------------------------------------------------------------------------------


def vector(array: np.ndarray, dtype: Any, purpose: str) -> Any:
    """A copy of an array on the device, flat and of this dtype, made in blocks where it must be converted."""
    to = allocate(array.size, dtype, purpose)
    if array.size == 0:
        return to
    if array.flags.c_contiguous and array.dtype == dtype:
        to.copy_to_device(array.reshape(-1))
        return to
    width = array.size // len(array)
    step = max(1, STAGING_BYTES // (width * np.dtype(dtype).itemsize))
    for first in range(0, len(array), step):
        block = np.ascontiguousarray(array[first : first + step], dtype=dtype).reshape(-1)
        to[first * width : first * width + block.size].copy_to_device(block)
    return to


class Mirror:
    """A vector of the host's and its copy on the device.

    Attributes
    ----------
    device : device vector
    written : ndarray or None
        What the host's vector was when both were last the same.
    same : bool
        Whether the device still has these numbers.
    owed : ndarray or None
        The host's vector, if the device has newer numbers for it.
    """

    def __init__(self, device: Any) -> None:
        self.device, self.same = device, False
        self.written: np.ndarray | None = None
        self.owed: np.ndarray | None = None

    def upload(self, array: np.ndarray) -> None:
        """Copy the host's numbers to the device, unless it has them already, or newer ones."""
        if self.owed is array:
            return
        if self.same and self.written is not None and np.array_equal(self.written.view(np.uint8), array.view(np.uint8)):
            return
        self.stale()
        self.device.copy_to_device(array)
        if self.written is None:
            self.written = array.copy()
        else:
            self.written[...] = array
        self.same = True

    def stale(self) -> None:
        """Say that the device's numbers may change: the next upload copies, unless a download comes first."""
        self.same = False

    def fetch(self) -> None:
        """Copy the device's numbers into ``written``; the host's vector stays as it is until :meth:`give`."""
        if self.written is None:
            self.written = self.device.copy_to_host()
        else:
            self.device.copy_to_host(self.written)

    def give(self, array: np.ndarray) -> None:
        """Write what was fetched into the host's vector."""
        array[...] = self.written
        self.same, self.owed = True, None


# --- rows -------------------------------------------------------------------------------------------------------------


class Samples(NamedTuple):
    """X on the device."""

    X: Any  # (n * n_features,), or the entries of a CSR matrix
    indptr: Any  # (n + 1,) int64
    indices: Any  # int32
    n: int
    sparse: bool


def check_samples(X: Any, n_features: int, dtype: np.dtype) -> None:
    """Check X, dense or CSR, on the host or on the device; nothing is copied."""
    if on_device(X):
        device_view("X", X, dtype, (None, n_features))
        return
    arguments.check_samples(X, n_features)


def upload_samples(X: Any, dtype: np.dtype) -> Samples:
    """X, checked before, on the device."""
    if on_device(X):
        n, n_features = X.shape
        return Samples(device_view("X", X, dtype, (n, n_features)), *_no_indices(), n, False)
    if not sparse.issparse(X):
        return Samples(vector(X, dtype, "X"), *_no_indices(), X.shape[0], False)
    own = canonical(X, dtype)
    data, indptr, indices = (
        vector(own.data, dtype, "X"),
        vector(own.indptr, np.int64, "X"),
        vector(own.indices, np.int32, "X"),
    )
    return Samples(data, indptr, indices, X.shape[0], True)


def canonical(X: Any, dtype: np.dtype) -> Any:
    """A CSR matrix in which no entry comes twice: several threads scatter the entries of a row."""
    used = X.indptr[-1]
    parts = X.data[:used].astype(dtype), X.indices[:used].copy(), X.indptr.copy()
    own = sparse.csr_matrix(parts, shape=X.shape)
    arguments.check_csr(own)  # again: another thread may have written to X since
    own.sum_duplicates()
    return own


def _no_indices() -> tuple[Any, Any]:
    return allocate(1, np.int64, "X"), allocate(1, np.int32, "X")


class Rows:
    """The rows of a fit: X, targets and sample weights, uploaded when they are first seen."""

    def __init__(self, data: Any, n_outputs: int, by_class: bool, dtype: np.dtype) -> None:
        self.given, self.key = tuple(data), self.key_of(data, n_outputs, by_class, dtype)
        self.n = int(data.X.shape[0])
        if self.n == 0:
            raise ValueError("X must have at least one row")
        y, weight = on_host(data.y), on_host(data.sample_weight)
        check_targets(y, by_class, (self.n, n_outputs), dtype)
        self.weight_on_host = check_weights(weight, self.n, dtype)
        self.samples = upload_samples(data.X, dtype)
        self.y = allocate(1, dtype, "y") if by_class else vector(y, dtype, "y")
        self.classes = vector(y, np.int32, "y") if by_class else allocate(1, np.int32, "y")
        self.weight = allocate(1, dtype, "sample_weight") if weight is None else vector(weight, dtype, "sample_weight")

    @staticmethod
    def key_of(data: Any, n_outputs: int, by_class: bool, dtype: np.dtype) -> tuple:
        """Return what tells rows from others, as long as both are there."""
        return (*map(id, data), n_outputs, by_class, dtype)

    def vectors(self) -> dict[str, Any]:
        """Return the device vectors by name."""
        samples = {"X": self.samples.X, "indptr": self.samples.indptr, "indices": self.samples.indices}
        return samples | {"y": self.y, "classes": self.classes, "weight": self.weight}

    def move(self, vectors: dict[str, Any]) -> None:
        """Be in these vectors from now on, which hold the same numbers."""
        own = dict(vectors)
        self.samples = self.samples._replace(**{name: own.pop(name) for name in ("X", "indptr", "indices")})
        vars(self).update(own)

    def are(self, data: Any) -> bool:
        return all(ours is theirs for ours, theirs in zip(self.given, data, strict=True))


def check_targets(y: Any, by_class: bool, shape: tuple[int, int], dtype: np.dtype) -> None:
    if not by_class:
        check_array("y", y, dtype, shape)
        return
    check_array("y", y, np.dtype(np.intp), shape[:1])
    if y.size and not (y.min() >= 0 and y.max() < shape[1]):
        raise ValueError(f"y must lie in [0, {shape[1]}), got {y.min()} .. {y.max()}")
