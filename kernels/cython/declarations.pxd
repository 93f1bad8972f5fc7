# cython: language_level=3
"""What the Python border uses of the C headers beside it, and of Python's own."""

from libc.stdint cimport int32_t, int64_t, uint64_t

from numpy.random cimport bitgen_t


cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept


cdef extern from "tiers.h":
    const int ALIASED_BYTES, BLAS_B_BYTES, SMALL_B_BYTES, LARGE_WEIGHT_BYTES, CHUNK_ROWS, CHUNK_ROWS_LARGE
    const int SLICE_BYTES, LARGE_SLICE_ROWS, CLASS_ROWS
    const int UNITS_ROWS, UNITS_SLICE_ROWS, UNITS_SLICE_ROWS_LARGE, UNITS_LARGE_BYTES
    const int RELAY_NUMBERS, RELAY_SLICE
    const int BLOCK_ROWS, KC, NV_MAX, PANEL_ROWS, PACK_STRIDE_BYTES, PACK_WIDTH_BYTES
    int LONGEST(int)
    const double THREADS_MIN_STEP, THREADS_MIN_PREDICT


cdef extern from "threads.h":
    ctypedef struct fm_team:
        pass
    fm_team *fm_team_new(int n) nogil
    void fm_team_free(fm_team *) nogil
    ctypedef struct fm_claim:
        pass
    bint fm_claim_try(fm_claim *) nogil
    void fm_claim_release(fm_claim *) nogil
    ctypedef struct fm_counter:
        pass


cdef extern from "shuffle.h":
    void fm_shuffle(bitgen_t *, Py_ssize_t n, Py_ssize_t *order) nogil


cdef extern from "lbfgs.h":
    enum: FM_LBFGS_VECTORS
    enum: FM_LBFGS_EVALUATE, FM_LBFGS_GRADIENT, FM_LBFGS_VALUE, FM_LBFGS_ITERATIONS, FM_LBFGS_EVALUATIONS
    enum: FM_LBFGS_ABNORMAL
    ctypedef double (*fm_blas_dot)(const int64_t *, const double *, const int64_t *, const double *,
                                   const int64_t *) noexcept nogil
    ctypedef double (*fm_blas_norm)(const int64_t *, const double *, const int64_t *) noexcept nogil
    ctypedef void (*fm_lapack_cholesky)(const char *, const int64_t *, double *, const int64_t *,
                                        int64_t *) noexcept nogil
    ctypedef void (*fm_lapack_solve)(const char *, const char *, const char *, const int64_t *, const int64_t *,
                                     const double *, const int64_t *, double *, const int64_t *,
                                     int64_t *) noexcept nogil
    ctypedef struct fm_lbfgs_blas:
        fm_blas_dot dot
        fm_blas_norm norm
        fm_lapack_cholesky cholesky
        fm_lapack_solve solve
    ctypedef struct fm_lbfgs:
        Py_ssize_t n
        double *x
        double *g
        double *vectors
        double tol, tol_value
        Py_ssize_t max_iter, max_evaluations, n_iter, n_evaluations
        fm_lbfgs_blas blas
        int has_avx2
    int fm_lbfgs_advance(fm_lbfgs *, double) nogil


cdef extern from "matrix_units.h":
    ctypedef Py_ssize_t idx
    ctypedef struct fm_units:
        const char *name
        int halves
        idx min_rows, min_size
    idx fm_halves_bytes(idx rows, idx columns, int halves)
    idx fm_units_scratch(idx M, idx K, int halves)


cdef extern from "fastmlp.h":
    enum: FM_MAX_STATES, FM_TILE_ROWS, FM_MAX_PARAMETERS, FM_MAX_REGISTERS, FM_MAX_SCALARS, FM_OF_BLOCK
    enum: FM_PLAIN, FM_PERIODIC, FM_PIECEWISE, FM_EMBEDDING, FM_KINDS
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
        int link, every_output
    ctypedef void (*fm_blas_gemm)(char *, char *, int64_t *, int64_t *, int64_t *, void *, void *, int64_t *, void *,
                                  int64_t *, void *, void *, int64_t *) noexcept nogil
    const unsigned FM_LAYER_TABLE  # a checksum of kernels/layer_table.py's header
    ctypedef struct fm_layer:
        idx fan_in, fan_out, ld_in, ld_out, heads, units, panels, deltas, w  # what the border reads; kernels/layer_table.py fills the rest
    ctypedef struct fm_block:
        int kind
        idx n_features, size, frequencies
        const idx *columns
        const idx *counts
        const idx *starts
        idx at
        idx arrays[4]
        idx ld[4]
        void *kept
        void *sums
    ctypedef struct fm_segment:
        idx flat, padded, rows, width, ld
    ctypedef struct fm_slice:
        int layer, kind, segment, array
        idx head, m, n_rows, offset, length, tile
    ctypedef struct fm_relay:
        idx *starts
        idx n_groups
        fm_counter *turns
        void *lanes
    ctypedef struct fm_workspace:
        int n_layers
        const fm_layer *layers
        fm_loss loss
        idx input_threshold
        double input_rate
        const fm_block *blocks
        idx n_blocks, n_columns, ld_columns, members
        int front, averages
        idx n_padded, w_padded, max_rows
        double row_work
        const fm_segment *segments
        idx n_segments
        int n_threads
        fm_team *team
        const fm_slice *slices
        idx n_slices
        const idx *slice_start
        fm_relay *relay
        fm_blas_gemm blas
        const fm_units *units
        int halves
        void *units_scratch
        idx units_room
        int (*poll)() noexcept nogil
        double work
        int interrupted, saw_non_finite
        void *params
        void *grad
        void *states[4]
        double *tile_penalty
        double *tile_norm
        idx n_tiles
        void *columns
        void *features
        void *input
        void *input_delta
        void *features_delta
        void *y
        idx *y_class
        void *weight
        void *member_weight
        double *row_loss
        void *packed_rows
        idx n_packed_rows
        int in_panels
        void *scratch
    ctypedef struct fm_data:
        const void *X
        int X_is_double
        idx row_stride, col_stride
        const void *indices
        const void *indptr
        int index_is_64
        idx n, stored
        const void *y
        const idx *y_class
        const void *sample_weight
    ctypedef struct fm_epoch:
        const idx *order
        idx n_order, batch_size, n_steps
        const idx *starts
        const idx *places
        int (*reduce)(void *) noexcept nogil
        void *context
        double alpha, l1
        uint64_t seed, t
        int rule
        const double *scalars
        const double *decays
        const double *factors
        const double *decay_factors
        const double *dropouts
        double max_norm
        int goes_on
        double loss
        idx done
    ctypedef struct fm_kernels:
        const char *isa
        int lanes
        void (*pack)(const fm_workspace *, const void *, void *) noexcept nogil
        void (*unpack)(const fm_workspace *, const void *, void *) noexcept nogil
        void (*predict)(fm_workspace *, const fm_data *, const idx *, idx, void *) noexcept nogil
        void (*train)(fm_workspace *, const fm_data *, fm_epoch *) noexcept nogil
    ctypedef struct fm_row:
        const char *name
        int needs_z, has_slope, link, class_targets, n_parameters, n_states, n_scalars
    idx fm_functions(fm_row *, idx)
    idx fm_activations(fm_row *, idx)
    idx fm_losses(fm_row *, idx)
    idx fm_optimizers(fm_row *, idx)
    idx fm_isas(const char **, idx)
    int fm_find(const char *, const fm_kernels **, const fm_kernels **, const fm_units **)
    const char *fm_why_no_units()
