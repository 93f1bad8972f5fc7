# cython: language_level=3, cdivision=True, freethreading_compatible=True
"""The Cython engine: the Python border of the C kernels.

Every function of the engine contract (see kernels/contract.py) lives here.  The border owns memory, checks every
array (dtype, shape, strides, bounds of every index) before a pointer is taken, releases the GIL and calls the
kernels of the chosen instruction set.  No arithmetic happens here.

The parts below are one module; each uses those above it.
"""

import os
import sys

import numpy as np

cimport numpy as cnp
from cpython.exc cimport PyErr_Occurred, PyErr_SetNone
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.string cimport memcpy, memset

from numpy.random cimport bitgen_t

from declarations cimport *

from fastmlp.kernels import feature_table, formulas, interrupts, language, layer_table, program as programs

cnp.import_array()

cdef object INTERRUPTS = interrupts.THREAD

if layer_table.ROW.itemsize != sizeof(fm_layer) or not layer_table.c_header().endswith(f" {FM_LAYER_TABLE}u\n"):
    raise ImportError("the engine was built with another kernels/layer_table.py: build it again")
if [*feature_table.KINDS] != ["plain", "periodic", "piecewise", "embedding"] or FM_KINDS != 4:
    raise ImportError("the engine was built for other feature blocks than kernels/feature_table.py's")


# --- instruction sets --------------------------------------------------------------------------------------------------
cdef const fm_kernels *KERNELS[2]  # float32, float64
cdef const fm_units *UNITS  # matrix units beside them, of float32; or NULL


def isas():
    """Return the names of the instruction sets that this build offers on this processor, slowest first."""
    cdef const char *names[16]
    cdef idx n = fm_isas(names, 16)
    return tuple(names[i].decode() for i in range(n))


def isa():
    """Return the name of the instruction set in use."""
    return KERNELS[0].isa.decode() if UNITS == NULL else UNITS.name.decode()


def matrix_units():
    """Return the name of the matrix units in use, for which precisions, and why there are none.

    Returns
    -------
    name : str or None
        "amx", "avx512bf16", or an emulation that a test has chosen.
    precisions : tuple of str
        The values of ``matmul_precision`` whose products may go there; the others compute "highest".
    reason : str or None
        None where there are units.
    """
    if UNITS != NULL:
        return UNITS.name.decode(), (("high", "medium") if UNITS.halves == 2 else ("medium",)), None
    cdef const char *why = fm_why_no_units()
    return None, (), f"the instruction set in use, {isa()}, has none" if why == NULL else why.decode()


def panels():
    """Return from how many rows of a chunk, and from how many bytes, a W lies in panels, too (tiers.h)."""
    return PANEL_ROWS, SMALL_B_BYTES


def use_isa(name):
    """Use another instruction set for workspaces from now on.

    Parameters
    ----------
    name : str
        One of :func:`isas`. Or, for tests, the fastest of them with matrix units emulated in C: "amx-emulated" or
        "avx512bf16-emulated", where the real ones would be used, or either with "-always" appended, everywhere.

    Raises
    ------
    ValueError
        If the build or the processor lacks it.
    """
    if not isinstance(name, str) or fm_find(name.encode(), &KERNELS[0], &KERNELS[1], &UNITS) != 0:
        raise ValueError(f"instruction set {name!r} is not available here; available: {list(isas())}")


use_isa(os.environ.get("FASTMLP_ISA") or isas()[-1])


# --- BLAS through scipy.linalg.cython_blas --------------------------------------------------------------------------

cdef void *function_of(module, str name) except NULL:
    """Return a function of scipy.linalg.cython_blas or cython_lapack."""
    capsule = module.__pyx_capi__[name]
    return PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))


cdef fm_blas_gemm BLAS[2]


cdef fm_blas_gemm blas_gemm(bint is_double) except? NULL:
    """Return gemm of SciPy's BLAS for the dtype; it is imported at first use."""
    if BLAS[is_double] == NULL:
        from scipy.linalg import cython_blas
        BLAS[is_double] = <fm_blas_gemm>function_of(cython_blas, "dgemm" if is_double else "sgemm")
    return BLAS[is_double]


cdef fm_blas_gemm blas_for(bint is_double, idx largest_matrix) except? NULL:
    """Return the BLAS where the instruction set is the baseline and a product large enough (tiers.h), else NULL.

    Big-endian machines do without: the integers are handed over as int64, see fastmlp.h.
    """
    if KERNELS[0].isa != b"baseline" or sys.byteorder != "little" or largest_matrix * (8 if is_double else 4) <= BLAS_B_BYTES:
        return NULL
    return blas_gemm(is_double)


# --- the parts --------------------------------------------------------------------------------------------------------

include "arguments.pxi"
include "workspace.pxi"
include "training.pxi"
include "prediction.pxi"
include "lbfgs.pxi"
