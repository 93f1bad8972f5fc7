# cython: language_level=3, cdivision=True
"""The Cython engine: the Python border of the C kernels.

Every function of the engine contract (see fastmlp/backends.py) lives here.  This file owns memory, checks every
array (dtype, shape, strides, bounds of every index) before a pointer is taken, releases the GIL and calls the
kernels of the chosen instruction set.  No arithmetic happens here.
"""

import math
import os
import sys

import numpy as np

cimport numpy as cnp
from cpython.exc cimport PyErr_Occurred
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset

from numpy.random cimport bitgen_t

from fastmlp.kernels import formulas, language, program as programs

cnp.import_array()


cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept


cdef extern from "tiers.h":
    const int ALIASED_BYTES, BLAS_B_BYTES, SMALL_B_BYTES, LARGE_WEIGHT_BYTES, CHUNK_ROWS, CHUNK_ROWS_LARGE
    const int UNIT_BYTES, LARGE_UNIT_ROWS, CLASS_ROWS
    const double THREADS_MIN_STEP, THREADS_MIN_PREDICT


cdef extern from "threads.h":
    ctypedef struct fm_team:
        pass
    fm_team *fm_team_new(int n) nogil
    void fm_team_free(fm_team *) nogil


cdef extern from "shuffle.h":
    void fm_shuffle(bitgen_t *, Py_ssize_t n, Py_ssize_t *order) nogil


cdef extern from "fastmlp.h":
    ctypedef Py_ssize_t idx
    enum: FM_MAX_STATES, FM_TILE_ROWS, FM_MAX_PARAMETERS, FM_MAX_REGISTERS
    enum: FM_WEIGHT, FM_BIAS, FM_SCALE, FM_SHIFT, FM_SLOPE
    ctypedef struct fm_instruction:
        int32_t op, dst, a, b, c, d
    ctypedef struct fm_program:
        const fm_instruction *instructions
        idx n_instructions
        const double *constants
        int output
    ctypedef struct fm_activation:
        int row
        double parameters[4]
        fm_program value, slope
        const void *slopes
    ctypedef struct fm_loss:
        int row
        double parameters[4]
        fm_program value, delta
        int link
    ctypedef struct fm_dropout:
        uint32_t threshold
        double scale
    ctypedef void (*fm_blas_gemm)(char *, char *, int64_t *, int64_t *, int64_t *, void *, void *, int64_t *, void *,
                                  int64_t *, void *, void *, int64_t *) noexcept nogil
    ctypedef struct fm_layer:
        idx fan_in, fan_out, ld_in, ld_out, w, b
        int is_hidden
        fm_activation activation
        int batch_norm
        idx scale, shift, mean, var, slope
        fm_dropout dropout
    ctypedef struct fm_segment:
        idx flat, padded, rows, width, ld
    ctypedef struct fm_unit:
        int layer, kind
        idx m, n_rows, offset, length, tile
    ctypedef struct fm_workspace:
        int n_layers
        const fm_layer *layers
        fm_loss loss
        fm_dropout input_dropout
        idx n_padded, w_padded, max_rows
        const fm_segment *segments
        idx n_segments
        int n_threads
        fm_team *team
        const fm_unit *units
        idx n_units
        const idx *unit_start
        fm_blas_gemm blas
        int (*poll)() noexcept nogil
        double work
        int interrupted, saw_non_finite
        void *params
        void *grad
        void *states[4]
        double *tile_penalty
        double *tile_norm
        idx n_tiles
        void **wt
        void **a
        void **z
        void **out
        void **zhat
        void **moments
        void **product
        void **delta
        void *y
        idx *y_class
        void *weight
        double *row_loss
        void *scratch
    ctypedef struct fm_data:
        const void *X
        int X_is_double
        idx row_stride, col_stride
        const void *indices
        const void *indptr
        int index_is_64
        const void *y
        const idx *y_class
        const void *sample_weight
    ctypedef struct fm_epoch:
        const idx *order
        idx n_order, batch_size, n_steps
        double alpha, l1
        uint64_t seed, t
        int rule
        const double *scalars
        const double *decays
        double max_norm
        double loss
        idx done
    ctypedef struct fm_kernels:
        const char *isa
        int lanes
        void (*pack)(const fm_workspace *, const void *, void *) noexcept nogil
        void (*unpack)(const fm_workspace *, const void *, void *) noexcept nogil
        void (*predict)(fm_workspace *, const fm_data *, const idx *, idx, void *) noexcept nogil
        void (*train)(fm_workspace *, const fm_data *, fm_epoch *) noexcept nogil
        void (*evaluate)(int, idx, const void *, void *) noexcept nogil
        void (*activate)(const fm_activation *, idx, const void *, void *) noexcept nogil
        void (*slope)(const fm_activation *, idx, const void *, const void *, void *) noexcept nogil
        void (*linear_forward)(idx, idx, idx, idx, const void *, const void *, const void *, const fm_activation *,
                               void *, void *, fm_blas_gemm) noexcept nogil
        void (*linear_backward)(idx, idx, idx, idx, idx, const void *, const void *, const void *, void *, void *,
                                fm_blas_gemm, const fm_activation *, const void *, void *) noexcept nogil
        void (*softmax)(idx, idx, idx, const void *, idx, void *, void *) noexcept nogil
        void (*loss)(const fm_loss *, idx, idx, idx, const void *, const void *, const idx *, const void *, void *, double *,
                     void *) noexcept nogil
        void (*update)(int, idx, void *, const void *, void **, const double *, double, double) noexcept nogil
    ctypedef struct fm_row:
        const char *name
        int needs_z, has_slope, link, class_targets, n_parameters, n_states, n_scalars
    idx fm_functions(fm_row *, idx)
    idx fm_activations(fm_row *, idx)
    idx fm_losses(fm_row *, idx)
    idx fm_optimizers(fm_row *, idx)
    idx fm_isas(const char **, idx)
    int fm_find(const char *, const fm_kernels **, const fm_kernels **)


# --- tables -----------------------------------------------------------------------------------

cdef dict _table(idx (*fill)(fm_row *, idx) noexcept):
    cdef fm_row rows[256]
    cdef idx n = fill(rows, 256)
    return {rows[i].name.decode(): (i, rows[i]) for i in range(n)}


# name -> (row number, what the binary knows of it)
cdef dict FUNCTION_ROWS = _table(<idx (*)(fm_row *, idx) noexcept>fm_functions)
cdef dict ACTIVATION_ROWS = _table(<idx (*)(fm_row *, idx) noexcept>fm_activations)
cdef dict LOSS_ROWS = _table(<idx (*)(fm_row *, idx) noexcept>fm_losses)
cdef dict OPTIMIZER_ROWS = _table(<idx (*)(fm_row *, idx) noexcept>fm_optimizers)

cdef const fm_kernels *KERNELS[2]

if tuple(FUNCTION_ROWS) != programs.FUNCTIONS:
    raise ImportError("the formula language has changed since this engine was built; rebuild it")
# operation of a program -> number of its operands
cdef dict OPERANDS = {
    number: 4 if name in programs.SELECTS else 1 if name == "neg" or name in programs.FUNCTIONS else 2
    for name, number in programs.OPS.items()
}


cdef row_of(dict table, name, str argument):
    try:
        return table[name]
    except (KeyError, TypeError):
        raise ValueError(f"{argument}={name!r} is not compiled into this engine; it has {list(table)}") from None


# --- formulas: a name, (name, {parameter: value}), or a user's formula -------------------------------------------------

cdef int read_program(program, fm_program *p, list keep) except -1:
    """Check a program of kernels/program.py instruction by instruction, and point to its arrays; `keep` owns them."""
    cdef idx n, k, j, n_constants
    instructions = np.array(program.instructions, dtype=np.int32, order="C").reshape(-1, 6)
    constants = np.array(program.constants, dtype=np.float64, order="C").ravel()
    n, n_constants = len(instructions), len(constants)
    for op, dst, *operands in instructions.tolist():
        sound = op in OPERANDS and 2 <= dst < FM_MAX_REGISTERS
        sound = sound and all(-n_constants <= operands[j] < FM_MAX_REGISTERS for j in range(OPERANDS[op]))
        if not sound:
            raise ValueError(f"program holds an instruction that this engine does not know: {[op, dst, *operands]}")
    if not -n_constants <= program.output < FM_MAX_REGISTERS:
        raise ValueError(f"program.output must be a register or a constant, got {program.output}")
    instructions = np.concatenate([instructions, np.zeros((1, 6), np.int32)])  # never without data
    constants = np.concatenate([constants, np.zeros(1)])
    keep += [instructions, constants]
    p.instructions = <const fm_instruction *>cnp.PyArray_DATA(instructions)
    p.n_instructions, p.output = n, program.output
    p.constants = <const double *>cnp.PyArray_DATA(constants)
    return 0


cdef tuple choice(dict rows, table, entry, str argument, double *parameters):
    """(row number, what the binary knows) of a name or (name, {parameter: value}); parameters filled in order."""
    given = {}
    name = entry
    if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], dict):
        name, given = entry
    found = row_of(rows, name, argument)
    defaults = table[name].parameters if name in table else {}
    if len(defaults) != found[1]["n_parameters"]:
        raise ValueError(f"{argument}={name!r}: the formulas have changed since this engine was built; rebuild it")
    unknown = set(given) - set(defaults)
    if unknown:
        raise ValueError(f"{argument}={name!r} has no parameter {sorted(unknown)}; it has {list(defaults)}")
    for k, (key, default) in enumerate(defaults.items()):
        value = given.get(key, default)
        try:
            parameters[k] = value
        except TypeError:
            raise ValueError(f"{argument}={name!r}: {key} must be a number, got {value!r}") from None
    return found


cdef bint read_activation(entry, fm_activation *f, list keep, bint hidden=True) except -1:
    """Fill `f`; returns whether the slope reads z.  hidden: it must have a slope."""
    memset(f, 0, sizeof(fm_activation))
    if isinstance(entry, language.ActivationFormula):
        read_program(entry.program("value"), &f.value, keep)
        read_program(entry.program("slope"), &f.slope, keep)
        return True
    number, row = choice(ACTIVATION_ROWS, formulas.ACTIVATIONS, entry, "activation", f.parameters)
    f.row = number
    if hidden and not row["has_slope"]:
        raise ValueError(f"activation={entry!r} has no slope: it is a link of the output layer")
    return row["needs_z"]


cdef bint read_loss(entry, fm_loss *f, list keep, str argument) except -1:
    """Fill `f`; returns whether targets are class indices."""
    memset(f, 0, sizeof(fm_loss))
    if isinstance(entry, language.LossFormula):
        read_program(entry.program("value"), &f.value, keep)
        read_program(entry.program("delta"), &f.delta, keep)
        f.link = row_of(ACTIVATION_ROWS, entry.link, "link")[0]
        return False
    number, row = choice(LOSS_ROWS, formulas.LOSSES, entry, argument, f.parameters)
    f.row, f.link = number, row["link"]
    return row["class_targets"]


cdef int read_dropout(rate, fm_dropout *d, str argument) except -1:
    cdef double p = rate
    if not 0 <= p < 1:
        raise ValueError(f"{argument} must lie in [0, 1), got {rate}")
    d.threshold = <uint32_t>round(p * 2**24)
    d.scale = 1 / (1 - p)
    return 0


# --- instruction sets ---------------------------------------------------------------------------------------------------

def isas():
    """Names of the instruction sets that this build offers on this processor, slowest first."""
    cdef const char *names[16]
    cdef idx n = fm_isas(names, 16)
    return tuple(names[i].decode() for i in range(n))


def isa():
    """Name of the instruction set in use."""
    return KERNELS[0].isa.decode()


def use_isa(name):
    """Use another instruction set for workspaces and kernel calls from now on.

    Parameters
    ----------
    name : str
        One of :func:`isas`.

    Raises
    ------
    ValueError
        If the build or the processor lacks it.
    """
    if not isinstance(name, str) or fm_find(name.encode(), &KERNELS[0], &KERNELS[1]) != 0:
        raise ValueError(f"instruction set {name!r} is not available here; available: {list(isas())}")


use_isa(os.environ.get("FASTMLP_ISA") or isas()[-1])


# --- BLAS through scipy.linalg.cython_blas --------------------------------------------------------------------------

cdef fm_blas_gemm BLAS[2]


cdef fm_blas_gemm blas_gemm(bint is_double) except? NULL:
    """gemm of SciPy's BLAS for the dtype; imported at first use."""
    if BLAS[is_double] == NULL:
        from scipy.linalg import cython_blas
        capsule = cython_blas.__pyx_capi__["dgemm" if is_double else "sgemm"]
        BLAS[is_double] = <fm_blas_gemm>PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))
    return BLAS[is_double]


cdef fm_blas_gemm blas_for(bint is_double, idx largest_matrix) except? NULL:
    """The BLAS where the instruction set is the baseline and a product large enough (tiers.h), else NULL.

    Big-endian machines do without: the integers are handed over as int64, see fastmlp.h.
    """
    if isa() != "baseline" or sys.byteorder != "little" or largest_matrix * (8 if is_double else 4) <= BLAS_B_BYTES:
        return NULL
    return blas_gemm(is_double)


# --- the border: every array is checked before its pointer is used --------------------------------------------------

cdef int REALS[2]
REALS[0], REALS[1] = cnp.NPY_FLOAT32, cnp.NPY_FLOAT64
cdef tuple DTYPE_NAMES = ("float32", "float64")


cdef int is_double_of(array, str name) except -1:
    """1 for a float64 array, 0 for float32; ValueError for anything else."""
    if isinstance(array, np.ndarray) and cnp.PyArray_ISNOTSWAPPED(array):
        if cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT64:
            return 1
        if cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT32:
            return 0
    kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
    raise ValueError(f"{name} must be a float32 or float64 array, got {kind}")


cdef void *pointer(array, str name, int typenum, tuple shape, bint writable=False) except? NULL:
    """The data of a C-contiguous, aligned array of exactly this type and shape (None: any length there)."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be a NumPy array, got {type(array).__name__}")
    cdef cnp.ndarray a = array
    if cnp.PyArray_TYPE(a) != typenum or not cnp.PyArray_ISNOTSWAPPED(a):
        expected = np.dtype(cnp.PyArray_DescrFromType(typenum))
        raise ValueError(f"{name} must have dtype {expected}, got {a.dtype}")
    cdef bint fits = a.ndim == len(shape)
    cdef int d
    if fits:
        for d in range(a.ndim):
            if shape[d] is not None and a.shape[d] != <idx>shape[d]:
                fits = False
    if not fits:
        raise ValueError(f"{name} must have shape {shape}, got {(<object>a).shape}".replace("None", "n"))
    if not cnp.PyArray_IS_C_CONTIGUOUS(a) or not cnp.PyArray_ISALIGNED(a):
        raise ValueError(f"{name} must be C-contiguous and aligned, got strides {(<object>a).strides}")
    if writable and not cnp.PyArray_ISWRITEABLE(a):
        raise ValueError(f"{name} must be writeable, got a read-only array")
    return cnp.PyArray_DATA(a)


cdef const idx *indices(array, str name, idx bound) except? NULL:
    """The data of an intp vector whose entries all lie in [0, bound)."""
    cdef const idx *p = <const idx *>pointer(array, name, cnp.NPY_INTP, (None,))
    cdef idx i, n = cnp.PyArray_DIM(array, 0), low = 0, high = -1
    with nogil:
        for i in range(n):
            low = p[i] if p[i] < low else low
            high = p[i] if p[i] > high else high
    if low < 0 or high >= bound:
        raise ValueError(f"{name} must hold indices in [0, {bound}), got {low if low < 0 else high}")
    return p


cdef int refuse_overlap(tuple arrays, tuple names) except -1:
    """ValueError if two of these arrays share memory."""
    for i in range(len(arrays)):
        for j in range(i):
            if np.may_share_memory(arrays[i], arrays[j]):
                raise ValueError(f"{names[i]} must not overlap {names[j]} in memory")
    return 0


cdef int dense_rows(X, fm_data *data, idx n_features) except -1:
    data.X_is_double = is_double_of(X, "X")
    cdef cnp.ndarray a = X
    cdef idx item = a.itemsize
    if a.ndim != 2 or a.shape[1] != n_features:
        raise ValueError(f"X must have shape (n, {n_features}), got {X.shape}")
    if not cnp.PyArray_ISALIGNED(a) or a.strides[0] % item or a.strides[1] % item:
        raise ValueError(f"X must be aligned, with strides in whole items, got strides {X.strides}")
    data.X = cnp.PyArray_DATA(a)
    data.row_stride = a.strides[0] // item
    data.col_stride = a.strides[1] // item
    return 0


ctypedef fused csr_index:
    int32_t
    int64_t


cdef bint csr_is_sound(const csr_index *indptr, const csr_index *columns, idx n, idx stored, idx n_features) noexcept nogil:
    cdef idx i
    if indptr[0] != 0 or indptr[n] > stored:
        return False
    for i in range(n):
        if indptr[i] > indptr[i + 1]:
            return False
    for i in range(indptr[0], indptr[n]):
        if columns[i] < 0 or columns[i] >= n_features:
            return False
    return True


cdef int sparse_rows(X, fm_data *data, idx n_features) except -1:
    if X.shape[1] != n_features:
        raise ValueError(f"X must have shape (n, {n_features}), got {X.shape}")
    values, columns, indptr = X.data, X.indices, X.indptr
    data.X_is_double = is_double_of(values, "X.data")
    if not isinstance(columns, np.ndarray) or not isinstance(indptr, np.ndarray):
        raise ValueError("X.indices and X.indptr must be NumPy arrays")
    data.index_is_64 = cnp.PyArray_TYPE(columns) == cnp.NPY_INT64 or columns.dtype == np.int64
    cdef int typenum = cnp.NPY_INT64 if data.index_is_64 else cnp.NPY_INT32
    cdef idx n = X.shape[0], stored = min(len(values), len(columns))
    data.X = pointer(values, "X.data", REALS[data.X_is_double], (None,))
    data.indices = pointer(columns, "X.indices", typenum, (None,))
    data.indptr = pointer(indptr, "X.indptr", typenum, (n + 1,))
    cdef bint sound
    if data.index_is_64:
        sound = csr_is_sound(<const int64_t *>data.indptr, <const int64_t *>data.indices, n, stored, n_features)
    else:
        sound = csr_is_sound(<const int32_t *>data.indptr, <const int32_t *>data.indices, n, stored, n_features)
    if not sound:
        raise ValueError(
            f"X is not a sound CSR matrix: indptr must not decrease, and indices must lie in [0, {n_features})"
        )
    return 0


cdef int rows_of(X, fm_data *data, idx n_features) except -1:
    """Fill `data` from a dense array or CSR matrix; every later access stays within it."""
    memset(data, 0, sizeof(fm_data))
    if isinstance(X, np.ndarray):
        return dense_rows(X, data, n_features)
    if getattr(X, "format", None) == "csr":
        return sparse_rows(X, data, n_features)
    raise ValueError(f"X must be a NumPy array or a CSR matrix, got {type(X).__name__}")


cdef int targets_of(samples, fm_data *data, Workspace workspace) except -1:
    """Add y and sample weights of backends.Data to `data`."""
    cdef idx n = samples.X.shape[0]
    cdef int real = REALS[workspace.is_double]
    if workspace.class_targets:
        pointer(samples.y, "y", cnp.NPY_INTP, (n,))
        data.y_class = indices(samples.y, "y", workspace.n_outputs)
    else:
        data.y = pointer(samples.y, "y", real, (n, workspace.n_outputs))
    if samples.sample_weight is not None:
        data.sample_weight = pointer(samples.sample_weight, "sample_weight", real, (n,))
    return 0


# --- memory -----------------------------------------------------------------------------------------------------------

cdef object zeros(idx n_bytes):
    """A zeroed byte buffer whose data starts on a cache line."""
    buffer = np.zeros(n_bytes + 64, dtype=np.uint8)
    cdef idx start = -(<uintptr_t>cnp.PyArray_DATA(buffer)) % 64
    return buffer[start:start + n_bytes]


cdef idx padded(idx width, int lanes):
    return (width + lanes - 1) // lanes * lanes


cdef idx leading_dimension(idx width, int lanes, idx item):
    """Padded width; where rows would meet in the same few sets of the cache, one vector wider (tiers.h)."""
    cdef idx ld = padded(width, lanes)
    return ld + lanes if ld * item % ALIASED_BYTES == 0 else ld


cdef int poll() noexcept nogil:
    with gil:
        return PyErr_CheckSignals()


cdef int raise_pending() except -1:
    """Turn the exception that poll() left behind (KeyboardInterrupt) into a raised one, before anything else runs."""
    return -1 if PyErr_Occurred() else 0


cdef class Workspace:
    """Buffers and threads of one network for batches of up to `batch_size` rows; for one caller at a time.

    Attributes
    ----------
    network : Network
    n_threads : int
        Threads that training will use.
    nbytes : int
        Memory held.
    isa : str
        Instruction set of the kernels that will work on it.
    """

    cdef readonly object network
    cdef readonly str isa
    cdef readonly int n_threads
    cdef fm_workspace ws
    cdef const fm_kernels *kernels
    cdef fm_layer *layers
    cdef list buffers, formula_arrays
    cdef bint is_double, class_targets, busy, has_batch_norm, has_dropout
    cdef idx n_outputs, n_params

    def __cinit__(self, network, idx batch_size, n_jobs):
        network.check_memory(n_vectors=1)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.network = network
        self.is_double = network.dtype == np.float64
        self.kernels = KERNELS[self.is_double]
        self.isa = self.kernels.isa.decode()
        self.n_outputs = network.widths[-1]
        self.n_params = network.n_params
        self.buffers = []
        self.formula_arrays = []
        self.ws.poll = poll
        self.class_targets = read_loss(network.loss, &self.ws.loss, self.formula_arrays, "loss")
        self.has_batch_norm = network.batch_norm
        cdef list needs_z = self.lay_out()
        cdef idx largest = max(self.layers[l].fan_in * self.layers[l].ld_out for l in range(self.ws.n_layers))
        self.ws.blas = blas_for(self.is_double, largest)
        cdef idx rows, item = network.dtype.itemsize
        self.ws.max_rows = min(batch_size, CHUNK_ROWS if largest * item <= LARGE_WEIGHT_BYTES else CHUNK_ROWS_LARGE)
        if self.has_batch_norm:  # a batch's moments need all of it at once
            self.ws.max_rows = batch_size
        self.n_threads = self.choose_threads(batch_size, n_jobs)
        self.ws.n_threads = 1  # until a team is there

        rows = self.ws.max_rows
        cdef int L = self.ws.n_layers
        cdef fm_layer *layer
        self.ws.params = self.buffer(self.ws.n_padded * item)
        self.ws.wt = <void **>self.buffer(L * sizeof(void *))
        self.ws.a = <void **>self.buffer((L + 1) * sizeof(void *))
        self.ws.z = <void **>self.buffer(L * sizeof(void *))
        self.ws.out = <void **>self.buffer(L * sizeof(void *))
        self.ws.zhat = <void **>self.buffer(L * sizeof(void *))
        self.ws.moments = <void **>self.buffer(L * sizeof(void *))
        self.ws.product = <void **>self.buffer(L * sizeof(void *))
        self.ws.delta = <void **>self.buffer(L * sizeof(void *))
        self.ws.a[0] = self.buffer(rows * self.layers[0].ld_in * item)
        for l in range(L):
            layer = &self.layers[l]
            self.ws.a[l + 1] = self.ws.out[l] = self.buffer(rows * layer.ld_out * item)
            if needs_z[l]:
                self.ws.z[l] = self.buffer(rows * layer.ld_out * item)
            if layer.slope >= 0:
                layer.activation.slopes = <char *>self.ws.params + layer.slope * item
        self.ws.scratch = self.buffer(self.n_threads * 3 * max(rows, CLASS_ROWS) * self.n_outputs * item)

    def __dealloc__(self):
        cdef fm_team *team = self.ws.team
        if team != NULL:
            with nogil:  # joins the helpers
                fm_team_free(team)

    cdef list lay_out(self):
        """Fill the layers, and the segments of the padded vector; returns whether each layer must keep z."""
        cdef int lanes = self.kernels.lanes, L = self.network.n_layers
        cdef idx item = 8 if self.is_double else 4
        cdef fm_layer *layer
        cdef list needs_z = [False] * L, segments = []
        dropout = self.network.dropout or (0.0,) * (L - 1)
        read_dropout(self.network.input_dropout, &self.ws.input_dropout, "input_dropout")
        self.has_dropout = self.ws.input_dropout.threshold > 0
        self.layers = <fm_layer *>self.buffer(L * sizeof(fm_layer))
        self.ws.layers, self.ws.n_layers = self.layers, L
        for l, (fan_in, fan_out) in enumerate(self.network.shapes):
            layer = &self.layers[l]
            layer.fan_in, layer.fan_out = fan_in, fan_out
            layer.ld_in = leading_dimension(fan_in, lanes, item)
            layer.ld_out = leading_dimension(fan_out, lanes, item)
            layer.is_hidden, layer.slope = l < L - 1, -1
            if layer.is_hidden:
                layer.batch_norm = self.has_batch_norm
                needs_z[l] = read_activation(self.network.activations[l], &layer.activation, self.formula_arrays)
                read_dropout(dropout[l], &layer.dropout, "dropout")
                self.has_dropout |= layer.dropout.threshold > 0
        for l in range(L):
            self.layers[l].w = self.segment(segments, self.layers[l].fan_in, l)
        self.ws.w_padded = self.ws.n_padded
        for l in range(L):
            self.layers[l].b = self.segment(segments, 1, l)
        for l in range(L - 1):
            layer = &self.layers[l]
            if layer.batch_norm:
                layer.scale = self.segment(segments, 1, l)
                layer.shift = self.segment(segments, 1, l)
            if is_learned(self.network.activations[l]):
                layer.slope = self.segment(segments, 1, l)
        for l in range(L - 1):
            layer = &self.layers[l]
            if layer.batch_norm:
                layer.mean = self.segment(segments, 1, l)
                layer.var = self.segment(segments, 1, l)
        cdef fm_segment *p = <fm_segment *>self.buffer(len(segments) * sizeof(fm_segment))
        for k, (flat, offset, rows, width, ld) in enumerate(segments):
            p[k].flat, p[k].padded, p[k].rows, p[k].width, p[k].ld = flat, offset, rows, width, ld
        self.ws.segments, self.ws.n_segments = p, len(segments)
        flat, _, rows, width, _ = segments[-1]
        if flat + rows * width != self.n_params:
            raise ValueError(f"network.n_params must be {flat + rows * width} for {self.network}, got {self.n_params}")
        return needs_z

    cdef idx segment(self, list segments, idx rows, int l):
        """Append `rows` rows of layer l's output width to both layouts; returns the padded offset."""
        cdef idx flat = 0, offset = self.ws.n_padded, width = self.layers[l].fan_out, ld = self.layers[l].ld_out
        if segments:
            flat = segments[-1][0] + segments[-1][2] * segments[-1][3]
        segments.append((flat, offset, rows, width, ld))
        self.ws.n_padded += rows * ld
        return offset

    cdef int choose_threads(self, idx batch_size, n_jobs) except -1:
        """n_jobs if given; else as many as are allowed, if a step has the work for them (tiers.h)."""
        cdef double work = 6.0 * self.ws.w_padded * batch_size
        if self.ws.blas != NULL or (n_jobs is None and work < THREADS_MIN_STEP):
            return 1  # the BLAS brings its own threads
        from fastmlp.threads import allowed
        cdef idx tiles = (self.ws.max_rows + 7) // 8
        return max(1, min(allowed(n_jobs), tiles))

    cdef int prepare_team(self) except -1:
        cdef int n = self.n_threads
        if n > 1 and self.ws.team == NULL:
            with nogil:
                self.ws.team = fm_team_new(n)
            # without a team one thread does it all: same result, later
            self.ws.n_threads = n if self.ws.team != NULL else 1
        return 0

    cdef int begin(self) except -1:
        """Claim the buffers and threads, under the GIL; `busy` is cleared when the call is over."""
        if self.busy:
            raise RuntimeError("this workspace is at work for another caller: give each thread one of its own")
        self.busy = True
        return 0

    cdef void *buffer(self, idx n_bytes) except? NULL:
        memory = zeros(n_bytes)
        self.buffers.append(memory)
        return cnp.PyArray_DATA(memory)

    cdef int prepare_training(self, int n_states) except -1:
        """Get what only training needs: threads, gradient, deltas, transposed weights, targets, states."""
        cdef idx item = 8 if self.is_double else 4, rows = self.ws.max_rows
        cdef fm_layer *layer
        if self.ws.grad == NULL:
            self.prepare_team()
            for l in range(self.ws.n_layers):
                layer = &self.layers[l]
                self.ws.delta[l] = self.buffer(rows * layer.ld_out * item)
                if layer.dropout.threshold > 0:
                    self.ws.out[l] = self.buffer(rows * layer.ld_out * item)
                if layer.batch_norm:
                    self.ws.zhat[l] = self.buffer(rows * layer.ld_out * item)
                    self.ws.moments[l] = self.buffer(2 * layer.ld_out * item)
                if layer.slope >= 0:
                    self.ws.product[l] = self.buffer(rows * layer.ld_out * item)
                if l > 0:
                    self.ws.wt[l] = self.buffer(layer.fan_out * layer.ld_in * item)
            self.ws.y = self.buffer(rows * self.n_outputs * item)
            self.ws.y_class = <idx *>self.buffer(rows * sizeof(idx))
            self.ws.weight = self.buffer(rows * item)
            self.ws.row_loss = <double *>self.buffer(rows * sizeof(double))
            self.divide()
            self.ws.grad = self.buffer(self.ws.n_padded * item)
        for k in range(n_states):
            if self.ws.states[k] == NULL:
                self.ws.states[k] = self.buffer(self.ws.n_padded * item)
        return 0

    cdef int divide(self) except -1:
        """Share the padded vector among the threads, and cut every share into units.

        Shares are contiguous, equal within a tile of rows, and cut into units of UNIT_BYTES, or of LARGE_UNIT_ROWS
        where the deltas are read from beyond L1 for each unit; the BLAS wants layers in one piece.
        """
        cdef idx item = 8 if self.is_double else 4, m, end, row, n_rows, u, tile = 0
        cdef int T = self.ws.n_threads
        cdef fm_layer *layer
        cdef list units = [], starts = [0]
        for l in range(self.ws.n_layers):
            layer = &self.layers[l]
            row = layer.ld_out
            n_rows = max(2, UNIT_BYTES // (row * item * FM_TILE_ROWS)) * FM_TILE_ROWS
            if self.ws.max_rows * row * item > SMALL_B_BYTES:
                n_rows = LARGE_UNIT_ROWS
            n_rows = layer.fan_in if self.ws.blas != NULL else n_rows
            m = 0
            while m < layer.fan_in:
                # the first row at which the next share begins, if in this layer
                end = layer.fan_in
                if len(starts) < T:
                    end = (self.ws.w_padded * len(starts) // T - layer.w) // (row * FM_TILE_ROWS) * FM_TILE_ROWS
                    if end <= m:
                        starts.append(len(units))
                        continue
                end = min(end, m + n_rows, layer.fan_in)
                units.append((l, FM_WEIGHT, m, end - m, layer.w + m * row, tile + m // FM_TILE_ROWS))
                m = end
            tile += (layer.fan_in + FM_TILE_ROWS - 1) // FM_TILE_ROWS
        for l in range(self.ws.n_layers):
            layer = &self.layers[l]
            vectors = [(FM_BIAS, layer.b)]
            if layer.batch_norm:
                vectors += [(FM_SCALE, layer.scale), (FM_SHIFT, layer.shift)]
            if layer.slope >= 0:
                vectors.append((FM_SLOPE, layer.slope))
            for kind, offset in vectors:
                units.append((l, kind, 0, 1, offset, tile))
                tile += 1
        cdef fm_unit *p = <fm_unit *>self.buffer(len(units) * sizeof(fm_unit))
        for u, (l, kind, m, n_rows, offset, first_tile) in enumerate(units):
            p[u].layer, p[u].kind, p[u].m, p[u].n_rows, p[u].offset = l, kind, m, n_rows, offset
            p[u].length, p[u].tile = n_rows * self.layers[<int>l].ld_out, first_tile
        cdef idx *unit_start = <idx *>self.buffer((T + 1) * sizeof(idx))
        for t in range(T + 1):
            unit_start[t] = starts[t] if t < len(starts) else len(units)
        self.ws.units, self.ws.n_units, self.ws.unit_start, self.ws.n_tiles = p, len(units), unit_start, tile
        self.ws.tile_penalty = <double *>self.buffer(tile * sizeof(double))
        self.ws.tile_norm = <double *>self.buffer(tile * sizeof(double))
        return 0

    cdef void *flat(self, vector, str name, bint writable=False) except? NULL:
        """A flat vector [W0 .. Wn | b0 .. bn] of this network."""
        return pointer(vector, name, REALS[self.is_double], (self.n_params,), writable)

    @property
    def nbytes(self):
        return sum(b.nbytes for b in self.buffers)


cdef bint is_learned(entry):
    """Whether a hidden activation has a parameter that every unit learns."""
    name = entry[0] if isinstance(entry, tuple) else entry
    return isinstance(name, str) and bool(formulas.ACTIVATIONS[name].learned)


# --- the coarse calls -------------------------------------------------------------------------------------------------

def workspace(network, batch_size, n_jobs=None):
    """Allocate the buffers that training and prediction of `network` need.

    Parameters
    ----------
    network : Network
    batch_size : int
        Rows that will be worked on together; more rows than that are taken in chunks.
    n_jobs : int or None
        Threads to use; None: as many as are allowed, where a step is large enough.

    Returns
    -------
    Workspace
    """
    return Workspace(network, batch_size, n_jobs)


def predict(Workspace workspace not None, params, X, out, rows=None):
    """out = link(logits) for all rows of X, or for ``X[rows]``.

    Parameters
    ----------
    workspace : Workspace
    params : ndarray of shape (n_params,)
    X : ndarray (any strides) or CSR matrix of shape (n, n_features), float32 or float64
    out : ndarray of shape (n or len(rows), n_outputs)
        Overwritten.
    rows : ndarray of intp, optional

    Returns
    -------
    bool
        Whether the rows of X held neither NaN nor infinities.
    """
    cdef fm_data data
    cdef const idx *p_rows = NULL
    cdef idx n
    if workspace.has_batch_norm:
        raise ValueError("predict takes networks without batch_norm: fold it into the weights first (Network.folded)")
    rows_of(X, &data, workspace.layers[0].fan_in)
    n = X.shape[0]
    if rows is not None:
        p_rows = indices(rows, "rows", n)
        n = len(rows)
    cdef void *p_params = workspace.flat(params, "params")
    cdef void *p_out = pointer(out, "out", REALS[workspace.is_double], (n, workspace.n_outputs), True)
    cdef const fm_kernels *k = workspace.kernels
    cdef fm_workspace ws
    workspace.begin()
    try:
        if 2.0 * n * workspace.ws.w_padded > THREADS_MIN_PREDICT:
            workspace.prepare_team()
        ws = workspace.ws  # the buffers are shared, the choice of threads is not
        if 2.0 * n * ws.w_padded <= THREADS_MIN_PREDICT:
            ws.n_threads, ws.team = 1, NULL
        ws.interrupted = ws.saw_non_finite = 0
        with nogil:
            k.pack(&ws, p_params, ws.params)
            k.predict(&ws, &data, p_rows, n, p_out)
        if ws.interrupted:
            raise_pending()
    finally:
        workspace.busy = False
    return ws.saw_non_finite == 0


def shuffle(order, random_state):
    """``random_state.shuffle(order)``: the same draws, the same swaps, with memory asked for ahead of each swap.

    Parameters
    ----------
    order : ndarray of intp of shape (n,)
        Shuffled in place.
    random_state : numpy.random.RandomState
    """
    cdef idx *p = <idx *>pointer(order, "order", cnp.NPY_INTP, (None,), True)
    cdef idx n = cnp.PyArray_DIM(order, 0)
    if not isinstance(random_state, np.random.RandomState):
        raise ValueError(f"random_state must be a RandomState, got {type(random_state).__name__}")
    generator = random_state._bit_generator
    capsule = generator.capsule
    cdef bitgen_t *bits = <bitgen_t *>PyCapsule_GetPointer(capsule, "BitGenerator")
    with generator.lock, nogil:
        fm_shuffle(bits, n, p)


def loss_and_grad(Workspace workspace not None, params, data, alpha, grad, l1=0.0):
    """Mean loss with penalty and its gradient over all rows, in chunks.

    loss = (sum_i w_i l_i + alpha/2 ||W||^2 + l1 ||W||_1) / sum_i w_i;
    grad_W = (A^T delta + alpha W + l1 sign W) / sum_i w_i.

    Parameters
    ----------
    workspace : Workspace
    params : ndarray of shape (n_params,)
    data : Data
        X, y, sample_weight.
    alpha : float
        Strength of the L2 penalty.
    grad : ndarray of shape (n_params,)
        Overwritten.
    l1 : float
        Strength of the L1 penalty.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For a network with batch_norm or dropout, whose loss depends on the batch or on chance.
    ZeroDivisionError
        If the sample weights sum to zero.
    """
    cdef fm_data samples
    if workspace.has_batch_norm or workspace.has_dropout:
        raise ValueError("loss_and_grad takes networks without batch_norm and dropout")
    rows_of(data.X, &samples, workspace.layers[0].fan_in)
    targets_of(data, &samples, workspace)
    cdef void *p_params = workspace.flat(params, "params")
    cdef void *p_grad = workspace.flat(grad, "grad", True)
    if data.X.shape[0] == 0:
        raise ValueError("X must have at least one row, got none")
    cdef fm_epoch epoch
    memset(&epoch, 0, sizeof(fm_epoch))
    epoch.n_order, epoch.batch_size, epoch.n_steps = data.X.shape[0], data.X.shape[0], 1
    epoch.alpha, epoch.l1, epoch.rule = alpha, l1, -1
    cdef const fm_kernels *k = workspace.kernels
    workspace.begin()
    try:
        workspace.prepare_training(0)
        workspace.ws.interrupted = 0
        with nogil:
            k.pack(&workspace.ws, p_params, workspace.ws.params)
            k.train(&workspace.ws, &samples, &epoch)
            k.unpack(&workspace.ws, workspace.ws.grad, p_grad)
        if workspace.ws.interrupted:
            raise_pending()
    finally:
        workspace.busy = False
    if epoch.done == 0:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    return epoch.loss / epoch.n_order


def train_epoch(Workspace workspace not None, params, data, order, batch_size, alpha, optimizer, l1=0.0, seed=0):
    """One pass of mini-batch steps over the rows in `order`; params and optimizer.states are updated in place.

    Parameters
    ----------
    workspace : Workspace
    params : ndarray of shape (n_params,)
    data : Data
        X, y, sample_weight.
    order : ndarray of intp
        Row indices; consecutive runs of `batch_size` form the batches.
    batch_size : int
    alpha : float
        Strength of the L2 penalty.
    optimizer : object
        ``rule``, ``states``, ``scalars(n_steps)`` and the step count ``t``, which grows by the steps done; and, where
        it has them, ``decays(n_steps)``, the shares of the parameters that decay before each step (or None), and
        ``max_grad_norm``, the largest norm of the gradient (or None).
    l1 : float
        Strength of the L1 penalty.
    seed : int in [0, 2**64)
        Key of the dropout masks, together with ``optimizer.t``.

    Returns
    -------
    float
        Mean over rows of the batches' losses, each taken before its update.

    Raises
    ------
    ZeroDivisionError
        If the sample weights of a batch sum to zero; the steps before it have been done.
    KeyboardInterrupt
        Between two steps; the steps done are kept.
    """
    cdef fm_data samples
    cdef fm_epoch epoch
    memset(&epoch, 0, sizeof(fm_epoch))
    cdef idx n_steps, size = batch_size
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    rows_of(data.X, &samples, workspace.layers[0].fan_in)
    targets_of(data, &samples, workspace)
    epoch.order = indices(order, "order", data.X.shape[0])
    epoch.n_order, epoch.batch_size, epoch.alpha, epoch.l1 = len(order), size, alpha, l1
    if workspace.has_batch_norm and size > workspace.ws.max_rows:
        raise ValueError(f"batch_size must be at most the workspace's {workspace.ws.max_rows}, got {batch_size}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must lie in [0, 2**64), got {seed}")
    epoch.seed, epoch.t = seed, optimizer.t
    epoch.rule, row = row_of(OPTIMIZER_ROWS, optimizer.rule, "optimizer.rule")
    cdef int n_states = row["n_states"]
    n_steps = epoch.n_steps = (epoch.n_order + size - 1) // size
    scalars = optimizer.scalars(n_steps)
    epoch.scalars = <const double *>pointer(scalars, "optimizer.scalars", cnp.NPY_FLOAT64, (n_steps, row["n_scalars"]))
    decays = optimizer.decays(n_steps) if hasattr(optimizer, "decays") else None
    if decays is not None:
        epoch.decays = <const double *>pointer(decays, "optimizer.decays", cnp.NPY_FLOAT64, (n_steps,))
    max_norm = getattr(optimizer, "max_grad_norm", None)
    if max_norm is not None:
        epoch.max_norm = max_norm
        if not epoch.max_norm > 0:
            raise ValueError(f"optimizer.max_grad_norm must be above 0 or None, got {max_norm}")
    cdef void *p_params = workspace.flat(params, "params", True)
    cdef void *p_states[FM_MAX_STATES]
    states = optimizer.states
    if len(states) != n_states:
        raise ValueError(f"optimizer.states must hold {n_states} vectors, got {len(states)}")
    for i in range(n_states):
        p_states[i] = workspace.flat(states[i], "optimizer.states", True)
    refuse_overlap((params, *states), ("params",) + ("optimizer.states",) * n_states)
    if len(order) == 0:
        raise ValueError("order must hold at least one row index, got none")
    cdef const fm_kernels *k = workspace.kernels
    cdef int s
    epoch.done = 0
    workspace.begin()
    try:
        workspace.prepare_training(n_states)
        workspace.ws.interrupted = 0
        with nogil:
            k.pack(&workspace.ws, p_params, workspace.ws.params)
            for s in range(n_states):
                k.pack(&workspace.ws, p_states[s], workspace.ws.states[s])
            k.train(&workspace.ws, &samples, &epoch)
            k.unpack(&workspace.ws, workspace.ws.params, p_params)
            for s in range(n_states):
                k.unpack(&workspace.ws, workspace.ws.states[s], p_states[s])
        if workspace.ws.interrupted:
            raise_pending()
    finally:
        workspace.busy = False
        optimizer.t += epoch.done
    if epoch.done < n_steps:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    return epoch.loss / epoch.n_order


def update(rule, params, grad, states, scalars):
    """One optimizer step in place.

    Parameters
    ----------
    rule : str
        A key of OPTIMIZERS.
    params, grad : ndarray of shape (n,)
    states : sequence of ndarray of shape (n,)
        In the order of the rule's row.
    scalars : sequence of float
        In the order of the rule's row.
    """
    apply_rule(rule, params, grad, tuple(states), scalars, ("states",) * len(states))


cdef int apply_rule(rule, params, grad, tuple states, scalars, tuple names) except -1:
    number, row = row_of(OPTIMIZER_ROWS, rule, "rule")
    cdef bint is_double = is_double_of(params, "params")
    cdef int real = REALS[is_double], r = number, n_states = row["n_states"]
    cdef void *p = pointer(params, "params", real, (None,), True)
    cdef idx n = len(params)
    cdef const void *g = pointer(grad, "grad", real, (n,))
    cdef void *p_states[FM_MAX_STATES]
    if len(states) != n_states:
        raise ValueError(f"states must hold {n_states} vectors for rule {rule!r}, got {len(states)}")
    for i in range(n_states):
        p_states[i] = pointer(states[i], names[i], real, (n,), True)
    refuse_overlap((params, grad, *states), ("params", "grad", *names))
    values = np.ascontiguousarray(scalars, dtype=np.float64)
    if values.shape != (row["n_scalars"],):
        raise ValueError(f"scalars must hold {row['n_scalars']} numbers for rule {rule!r}, got {scalars}")
    cdef const double *p_scalars = <const double *>cnp.PyArray_DATA(values)
    with nogil:
        KERNELS[is_double].update(r, n, p, g, p_states, p_scalars, 0.0, 1.0)
    return 0


# --- kernels by name: for cross-checks, benches and teaching; whole networks do not pass through here ----------------

cdef object widened(array, idx ld):
    """A cache-line aligned copy (rows, ld) of a matrix, widened with zeros."""
    matrix = zeros(array.shape[0] * ld * array.itemsize).view(array.dtype).reshape(array.shape[0], ld)
    matrix[:, :array.shape[1]] = array
    return matrix


def evaluate(function, x, out):
    """out = function(x), elementwise, for a function of the formula language (exp, log, ...); to measure its error."""
    cdef int row = row_of(FUNCTION_ROWS, function, "function")[0]
    cdef bint is_double = is_double_of(x, "x")
    cdef const void *p_x = pointer(x, "x", REALS[is_double], x.shape)
    cdef void *p_out = pointer(out, "out", REALS[is_double], x.shape, True)
    cdef idx n = x.size
    if np.may_share_memory(x, out):
        raise ValueError("out must not overlap x in memory")
    with nogil:
        KERNELS[is_double].evaluate(row, n, p_x, p_out)


def activate(activation, z, out):
    """out = f(z), elementwise; out may be z."""
    cdef fm_activation f
    keep = []
    read_activation(activation, &f, keep, False)
    cdef bint is_double = is_double_of(z, "z")
    cdef const void *p_z = pointer(z, "z", REALS[is_double], z.shape)
    cdef void *p_out = pointer(out, "out", REALS[is_double], z.shape, True)
    cdef idx n = z.size
    if p_out != p_z and np.may_share_memory(z, out):
        raise ValueError("out must be z or not overlap it in memory")
    with nogil:
        KERNELS[is_double].activate(&f, n, p_z, p_out)


def slope(activation, z, a, out):
    """out = da/dz, elementwise, for a = f(z)."""
    cdef fm_activation f
    keep = []
    read_activation(activation, &f, keep)
    cdef bint is_double = is_double_of(z, "z")
    cdef const void *p_z = pointer(z, "z", REALS[is_double], z.shape)
    cdef const void *p_a = pointer(a, "a", REALS[is_double], z.shape)
    cdef void *p_out = pointer(out, "out", REALS[is_double], z.shape, True)
    cdef idx n = z.size
    if np.may_share_memory(out, z) or np.may_share_memory(out, a):
        raise ValueError("out must not overlap z or a in memory")
    out[...] = 1
    with nogil:
        KERNELS[is_double].slope(&f, n, p_z, p_a, p_out)


def linear_forward(X, W, b, activation, out, z=None):
    """out = f(X W + b), and z = X W + b where a buffer for it is given.

    Parameters
    ----------
    X : ndarray of shape (n, fan_in)
    W : ndarray of shape (fan_in, fan_out)
    b : ndarray of shape (fan_out,)
    activation : str
    out : ndarray of shape (n, fan_out)
    z : ndarray of shape (n, fan_out), optional
    """
    cdef fm_activation f
    keep = []
    read_activation(activation, &f, keep, False)
    cdef bint is_double = is_double_of(X, "X")
    cdef int real = REALS[is_double]
    cdef const fm_kernels *k = KERNELS[is_double]
    pointer(X, "X", real, (None, None))
    cdef idx n = X.shape[0], fan_in = X.shape[1]
    pointer(W, "W", real, (fan_in, None))
    cdef idx fan_out = W.shape[1], ld_in = padded(fan_in, k.lanes), ld_out = padded(fan_out, k.lanes)
    pointer(b, "b", real, (fan_out,))
    pointer(out, "out", real, (n, fan_out), True)
    if z is not None:
        pointer(z, "z", real, (n, fan_out), True)
    wide_X, wide_W, wide_b = widened(X, ld_in), widened(W, ld_out), widened(b[None], ld_out)
    wide_z, wide_out = zeros(n * ld_out * X.itemsize), zeros(n * ld_out * X.itemsize)
    cdef const void *p_X = cnp.PyArray_DATA(wide_X)
    cdef const void *p_W = cnp.PyArray_DATA(wide_W)
    cdef const void *p_b = cnp.PyArray_DATA(wide_b)
    cdef void *p_z = cnp.PyArray_DATA(wide_z)
    cdef void *p_out = cnp.PyArray_DATA(wide_out)
    cdef fm_blas_gemm blas = blas_for(is_double, fan_in * ld_out)
    with nogil:
        k.linear_forward(n, fan_in, ld_in, ld_out, p_X, p_W, p_b, &f, p_z, p_out, blas)
    out[...] = wide_out.view(X.dtype).reshape(n, ld_out)[:, :fan_out]
    if z is not None:
        z[...] = wide_z.view(X.dtype).reshape(n, ld_out)[:, :fan_out]


def linear_backward(X, W, delta, activation, grad_W, grad_b, delta_below=None, z=None):
    """Gradients of one linear layer, and the delta of the layer below.

    grad_W = X^T delta;  grad_b = column sums of delta;  delta_below = (delta W^T) * f'(z, X).

    Parameters
    ----------
    X : ndarray of shape (n, fan_in)
        Output of the layer below, X = f(z).
    W : ndarray of shape (fan_in, fan_out)
    delta : ndarray of shape (n, fan_out)
    activation : str
        f, the activation of the layer below.
    grad_W : ndarray of shape (fan_in, fan_out)
    grad_b : ndarray of shape (fan_out,)
    delta_below : ndarray of shape (n, fan_in), optional
        Left out: not computed.
    z : ndarray of shape (n, fan_in), optional
        Needed only by activations whose slope reads it.
    """
    cdef fm_activation f
    keep = []
    cdef bint needs_z = read_activation(activation, &f, keep)
    cdef bint is_double = is_double_of(X, "X")
    cdef int real = REALS[is_double]
    cdef const fm_kernels *k = KERNELS[is_double]
    pointer(X, "X", real, (None, None))
    cdef idx n = X.shape[0], fan_in = X.shape[1]
    pointer(W, "W", real, (fan_in, None))
    cdef idx fan_out = W.shape[1], ld_in = padded(fan_in, k.lanes), ld_out = padded(fan_out, k.lanes)
    pointer(delta, "delta", real, (n, fan_out))
    pointer(grad_W, "grad_W", real, (fan_in, fan_out), True)
    pointer(grad_b, "grad_b", real, (fan_out,), True)
    if delta_below is not None:
        pointer(delta_below, "delta_below", real, (n, fan_in), True)
    if z is not None:
        pointer(z, "z", real, (n, fan_in))
    elif delta_below is not None and needs_z:
        raise ValueError(f"z must be given: the slope of activation={activation!r} reads it")
    wide_X, wide_W, wide_delta = widened(X, ld_in), widened(W.T, ld_in), widened(delta, ld_out)
    wide_z = widened(X if z is None else z, ld_in)
    wide_grad_W, wide_grad_b = zeros(fan_in * ld_out * X.itemsize), zeros(ld_out * X.itemsize)
    wide_below = zeros(n * ld_in * X.itemsize)
    cdef const void *p_X = cnp.PyArray_DATA(wide_X)
    cdef const void *p_W = cnp.PyArray_DATA(wide_W)
    cdef const void *p_delta = cnp.PyArray_DATA(wide_delta)
    cdef const void *p_z = cnp.PyArray_DATA(wide_z)
    cdef void *p_grad_W = cnp.PyArray_DATA(wide_grad_W)
    cdef void *p_grad_b = cnp.PyArray_DATA(wide_grad_b)
    cdef void *p_below = NULL if delta_below is None else cnp.PyArray_DATA(wide_below)
    cdef fm_blas_gemm blas = blas_for(is_double, max(n * ld_out, fan_out * ld_in))
    with nogil:
        k.linear_backward(n, fan_in, fan_out, ld_in, ld_out, p_X, p_W, p_delta, p_grad_W, p_grad_b, blas, &f, p_z,
                          p_below)
    grad_W[...] = wide_grad_W.view(X.dtype).reshape(fan_in, ld_out)[:, :fan_out]
    grad_b[...] = wide_grad_b.view(X.dtype)[:fan_out]
    if delta_below is not None:
        delta_below[...] = wide_below.view(X.dtype).reshape(n, ld_in)[:, :fan_in]


cdef int check_logits(logits, out, str name) except -1:
    cdef int is_double = is_double_of(logits, "logits")
    pointer(logits, "logits", REALS[is_double], (None, None))
    pointer(out, name, REALS[is_double], logits.shape, True)
    if logits.shape[1] == 0:
        raise ValueError(f"logits must have at least one column, got shape {logits.shape}")
    if logits is not out and np.may_share_memory(logits, out):
        raise ValueError(f"{name} must not overlap logits in memory")
    return is_double


def softmax(logits, out):
    """out = exp(z - max z) / sum_j exp(z_j - max z), row by row; out may be logits.

    Parameters
    ----------
    logits, out : ndarray of shape (n, k)
    """
    cdef bint is_double = check_logits(logits, out, "out")
    cdef idx n = logits.shape[0], width = logits.shape[1]
    cdef const void *p = cnp.PyArray_DATA(logits)
    cdef void *p_out = cnp.PyArray_DATA(out)
    scratch = zeros(CLASS_ROWS * width * logits.itemsize)
    cdef void *p_scratch = cnp.PyArray_DATA(scratch)
    with nogil:
        KERNELS[is_double].softmax(n, width, width, p, width, p_out, p_scratch)


def loss(name, logits, y, sample_weight, delta):
    """Weighted mean loss from logits, and delta = (link(logits) - y) * sample_weight.

    Parameters
    ----------
    name : str
        A key of LOSSES.
    logits : ndarray of shape (n, k)
    y : ndarray
        intp class indices (n,) for log_loss, else targets (n, k) of the logits' dtype.
    sample_weight : ndarray of shape (n,) or None
    delta : ndarray of shape (n, k)
        Overwritten; not divided by n.

    Returns
    -------
    float
        sum_i w_i l_i / sum_i w_i.
    """
    cdef fm_loss f
    keep = []
    cdef bint class_targets = read_loss(name, &f, keep, "name")
    if delta is logits:
        raise ValueError("delta must not be logits")
    cdef bint is_double = check_logits(logits, delta, "delta")
    cdef int real = REALS[is_double]
    cdef idx n = logits.shape[0], width = logits.shape[1]
    cdef const idx *classes = NULL
    cdef const void *p_y = NULL
    cdef const void *p_weight = NULL
    if class_targets:
        pointer(y, "y", cnp.NPY_INTP, (n,))
        classes = indices(y, "y", width)
    else:
        p_y = pointer(y, "y", real, (n, width))
    if n == 0:
        raise ValueError(f"logits must have at least one row, got shape {logits.shape}")
    total_weight = float(n)
    if sample_weight is not None:
        p_weight = pointer(sample_weight, "sample_weight", real, (n,))
        total_weight = math.fsum(sample_weight)
    if total_weight == 0:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    scratch = zeros(3 * max(n, CLASS_ROWS) * width * logits.itemsize)
    cdef const void *p = cnp.PyArray_DATA(logits)
    cdef void *p_delta = cnp.PyArray_DATA(delta)
    cdef void *p_scratch = cnp.PyArray_DATA(scratch)
    row_loss = np.empty(n)
    cdef double *p_row_loss = <double *>cnp.PyArray_DATA(row_loss)
    with nogil:
        KERNELS[is_double].loss(&f, n, width, width, p, p_y, classes, p_weight, p_delta, p_row_loss, p_scratch)
    return float(row_loss.sum() / total_weight)


def softmax_cross_entropy(logits, y, sample_weight, delta):
    """The loss ``log_loss``: softmax and cross-entropy in one pass, safe for any finite logits; see :func:`loss`."""
    return loss("log_loss", logits, y, sample_weight, delta)


def sgd_update(params, grad, lr):
    """p -= lr * g, in place."""
    apply_rule("sgd", params, grad, (), (lr,), ())


def momentum_update(params, grad, velocity, lr, momentum, nesterov=False):
    """v = momentum * v - lr * g;  p += v, or with Nesterov p += momentum * v - lr * g; in place."""
    rule = "nesterov" if nesterov else "momentum"
    apply_rule(rule, params, grad, (velocity,), (lr, momentum), ("velocity",))


def adam_update(params, grad, m, v, lr, beta_1, beta_2, epsilon):
    """Adam (Kingma and Ba 2014), in place; lr already holds the bias correction of its step."""
    apply_rule("adam", params, grad, (m, v), (lr, beta_1, beta_2, epsilon), ("m", "v"))
