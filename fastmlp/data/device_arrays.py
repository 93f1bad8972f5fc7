"""Arrays that lie on a GPU already (CuPy's, PyTorch's, JAX's, Numba's) as input of the estimators with backend="cuda".

Where it sits: base.py calls :func:`is_device_array` for X that is not a plain NumPy array.  :func:`validated` replaces
scikit-learn's validation and copies nothing: the engine reads X where it lies.  Targets and sample weights are small
and are downloaded (:func:`on_host`).  Predictions are NumPy arrays, or with scikit-learn's ``array_api_dispatch``
arrays of X's own library, which the engine writes to (:class:`Answer`).  Numba is imported only for such an array.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.utils.validation import validate_data

from fastmlp.data.shared_rows import SharedRows
from fastmlp.engines import backends
from fastmlp.kernels.numba_cuda import driver, memory
from fastmlp.sklearn_compat import get_namespace

DLPACK_GPU = (2, 13)  # kDLCUDA and kDLCUDAManaged of DLPack's DLDeviceType
INTERPRETERS = ("cupy", "torch")  # whose from_dlpack gives an array that has __cuda_array_interface__
IMMUTABLE = ("jax",)  # libraries whose arrays nobody may write to
DOWNLOAD_ROWS = 2**16  # rows that are downloaded together where some of them are wanted


# --- which arrays -----------------------------------------------------------------------------------------------------


def is_device_array(array: Any) -> bool:
    """Return whether an array lies on a GPU: by __cuda_array_interface__, Numba's own mark, or its DLPack device."""
    if isinstance(array, np.ndarray) or array is None:
        return False
    return memory.on_device(array) or _dlpack_device(array) in DLPACK_GPU


def _dlpack_device(array: Any) -> int | None:
    try:
        return int(array.__dlpack_device__()[0])
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
        return None


def view(array: Any, name: str = "X") -> Any:
    """Return the same memory as an array of Numba's, once its library has written it.

    A TypeError says that only DLPack leads to it and no library is at hand that goes that way; a ValueError that it is
    on another GPU than this thread works on.
    """
    if not memory.on_device(array):
        array = _through_dlpack(array, name)
    driver.check_device(name, array)
    driver.wait_for(array)
    return array if hasattr(array, "__cuda_ndarray__") else driver.api().as_cuda_array(array)


def _through_dlpack(array: Any, name: str) -> Any:
    """Return the same memory as an array of an imported library that has the interface."""
    reasons = []
    for module in filter(None, map(sys.modules.get, INTERPRETERS)):
        try:
            return module.from_dlpack(array)
        except Exception as error:  # each library raises its own
            reasons.append(f"; {module.__name__}.from_dlpack: {error}")
    raise TypeError(
        f"{name} is on a GPU, but {type(array).__name__} has no __cuda_array_interface__, by which it could be read"
        f" there: convert it with cupy.from_dlpack or torch.from_dlpack, or import one of them{''.join(reasons)}"
    )


# --- validation -------------------------------------------------------------------------------------------------------


def check_backend(estimator: Any, name: str) -> None:
    """Refuse an array on a GPU, by a TypeError, where another engine than the GPU's is asked for."""
    if estimator.backend != "cuda":
        raise TypeError(
            f"{name} is on a GPU, which only backend='cuda' can read, got backend={estimator.backend!r}: set it, or"
            f" bring {name} to the host"
        )


def validated(estimator: Any, X: Any, reset: bool) -> Any:
    """Return X on the device for the engines, without a copy; :func:`check_finite` checks its numbers.

    A TypeError says that the backend is another or the array cannot be reached. A ValueError refuses an array that is
    not two-dimensional, empty, neither float32 nor float64, not C-contiguous, or has other features than the estimator.
    """
    check_backend(estimator, "X")
    X = view(X)
    if len(X.shape) != 2:
        raise ValueError(f"Expected 2D array, got {len(X.shape)}D array instead: X has shape {tuple(X.shape)}")
    for n, what in zip(X.shape, ("sample", "feature"), strict=True):
        if n == 0:
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={tuple(X.shape)}) while a minimum of 1 is required by"
                f" {type(estimator).__name__}."
            )
    if X.dtype not in (np.float32, np.float64):
        raise ValueError(f"X is on a GPU and must be float32 or float64, got {X.dtype}: convert it to float32 there")
    if not X.is_c_contiguous():
        raise ValueError(
            f"X is on a GPU and must be C-contiguous, got strides {tuple(X.strides)}: copy it there, with"
            " cupy.ascontiguousarray(X) or X.contiguous()"
        )
    return validate_data(estimator, X, reset=reset, skip_check_array=True)


def check_finite(X: Any, finite: bool | None = None) -> None:
    """Refuse rows that are not finite, by a ValueError; one pass over X finds them unless it is known."""
    if not (backends.get("cuda").all_finite(X) if finite is None else finite):
        raise ValueError(f"Input X contains NaN, infinity or a value too large for {X.dtype!r}.")


def check_dtype(X: Any, dtype: np.dtype, why: str) -> None:
    """Refuse X on the device, by a ValueError, of another dtype than a network's; on the host it would be converted."""
    if is_device_array(X) and X.dtype != dtype:
        raise ValueError(
            f"X is on a GPU in {X.dtype}, and {why} {dtype}: convert it there, with X.astype({dtype.name!r}) or"
            f" X.to(torch.{dtype.name})"
        )


# --- to the host ------------------------------------------------------------------------------------------------------


def on_host(estimator: Any, array: Any, name: str) -> Any:
    """Return targets or weights, downloaded if they are on a GPU."""
    if not is_device_array(array):
        return array
    check_backend(estimator, name)
    return view(array, name).copy_to_host()


def host_rows(X: Any, rows: np.ndarray | None = None) -> Any:
    """Return X, or ``X[rows]``, on the host; only these rows of a device array are downloaded."""
    if isinstance(X, SharedRows):
        return X.gathered(rows)
    if not is_device_array(X):
        return X if rows is None else X[rows]
    if rows is None:
        return X.copy_to_host()
    out = np.empty((len(rows), X.shape[1]), X.dtype)
    for first in range(0, X.shape[0], DOWNLOAD_ROWS):
        here = (rows >= first) & (rows < first + DOWNLOAD_ROWS)
        if here.any():
            out[here] = X[first : first + DOWNLOAD_ROWS].copy_to_host()[rows[here] - first]
    return out


# --- answers in kind --------------------------------------------------------------------------------------------------


def in_kind() -> bool:
    """Return whether scikit-learn is set to answer in the library of the input."""
    return bool(get_config()["array_api_dispatch"])


def namespace(array: Any) -> Any:
    """Return the array API namespace of an array's library; a TypeError if it has none, as Numba's."""
    # look at the type: the arrays of Numba's simulator claim to have all attributes of NumPy's
    if hasattr(array, "__cuda_ndarray__") and not hasattr(type(array), "__array_namespace__"):
        raise TypeError(
            f"{type(array).__name__} has no array API namespace, in which array_api_dispatch=True could be answered:"
            " turn it off for NumPy arrays, or give X as an array of CuPy or PyTorch"
        )
    return get_namespace(array)[0]


class Answer:
    """Predictions to be: written on the host, or straight into an array of X's own library.

    ``target`` is what the engine writes to.
    """

    def __init__(self, X: Any, shape: tuple[int, int], dtype: np.dtype, like_X: bool) -> None:
        self._X, self._xp = X, namespace(X) if like_X else None
        self._array: Any = None
        if self._xp is None or self._xp.__name__.split(".")[0] in IMMUTABLE:
            self.target = np.empty(shape, dtype)
        else:
            # the network's dtype is that of X, or X would have been refused
            self._array = self._xp.empty(shape, dtype=X.dtype, device=X.device)
            self.target = view(self._array, "the prediction")

    def array(self) -> Any:
        """Return the written array in the form that the caller wants."""
        if self._xp is None:
            return self.target
        return self._xp.asarray(self.target, device=self._X.device) if self._array is None else self._array


def both_classes(proba: Any) -> Any:
    """Return (n, 2) from the probabilities (n, 1) of the second class, in their own library."""
    return namespace(proba).concat([1 - proba, proba], axis=1)
