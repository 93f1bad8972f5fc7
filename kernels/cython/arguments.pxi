# Checks of arguments: formulas by name, arrays, rows and targets.  Every array is checked before its pointer is used.


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


cdef bint read_activation(entry, fm_activation *f, list keep) except -1:
    """Fill `f`; returns whether the slope reads z."""
    memset(f, 0, sizeof(fm_activation))
    if isinstance(entry, language.ActivationFormula):
        read_program(entry.program("value"), &f.value, keep)
        read_program(entry.program("slope"), &f.slope, keep)
        return True
    number, row = choice(ACTIVATION_ROWS, formulas.ACTIVATIONS, entry, "activation", f.parameters)
    f.row = number
    if not row["has_slope"]:
        raise ValueError(f"activation={entry!r} has no slope: it is a link of the output layer")
    return row["needs_z"]


cdef bint read_loss(entry, fm_loss *f, list keep) except -1:
    """Fill `f`; returns whether targets are class indices."""
    memset(f, 0, sizeof(fm_loss))
    if isinstance(entry, language.LossFormula):
        read_program(entry.program("value"), &f.value, keep)
        read_program(entry.program("delta"), &f.delta, keep)
        f.link = row_of(ACTIVATION_ROWS, entry.link, "link")[0]
        return False
    number, row = choice(LOSS_ROWS, formulas.LOSSES, entry, "loss", f.parameters)
    f.row, f.link = number, row["link"]
    if f.link < 0:
        values = [f.parameters[k] for k in range(row["n_parameters"])]
        f.every_output = formulas.LOSSES[row["name"].decode()].needs_every_output(values)
    return row["class_targets"]


# --- argument checks: every array is checked before its pointer is used ----------------------------------------------

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


cdef const idx *orders_of(order, losses, idx bound, idx *n_epochs, idx *n, idx *stride) except? NULL:
    """The data of the order of one epoch, (n,), or with losses (n_epochs,) of several, (n_epochs, n)."""
    cdef const idx *one
    if losses is None:
        one = indices(order, "order", bound)
        n_epochs[0], n[0], stride[0] = 1, len(order), 0
        return one
    n_epochs[0] = len(losses)
    if not isinstance(order, np.ndarray) or order.ndim != 2 or len(order) != len(losses):
        shape = getattr(order, "shape", type(order).__name__)
        raise ValueError(f"order must have a row for each of the {len(losses)} epochs that losses has, got {shape}")
    for row in order if order.strides[0] else order[:1]:
        indices(row, "order", bound)
    n[0], stride[0] = order.shape[1], order.strides[0] // <idx>sizeof(idx)
    return <const idx *>cnp.PyArray_DATA(order)


cdef int refuse_overlap(tuple arrays, tuple names) except -1:
    """ValueError if two of these arrays share memory."""
    for i in range(len(arrays)):
        for j in range(i):
            if np.may_share_memory(arrays[i], arrays[j]):
                raise ValueError(f"{names[i]} must not overlap {names[j]} in memory")
    return 0


cdef object dense_rows(X, fm_data *data, idx n_features):
    data.X_is_double = is_double_of(X, "X")
    cdef cnp.ndarray a = X
    cdef idx item = a.itemsize
    if a.ndim != 2 or a.shape[1] != n_features:
        raise ValueError(f"X must have shape (n, {n_features}), got {X.shape}")
    # of a single row or column the stride leads nowhere
    if not cnp.PyArray_ISALIGNED(a) or a.shape[0] > 1 and a.strides[0] % item or a.shape[1] > 1 and a.strides[1] % item:
        raise ValueError(f"X must be aligned, with strides in whole items, got strides {X.strides}")
    data.X = cnp.PyArray_DATA(a)
    data.row_stride = a.strides[0] // item
    data.col_stride = a.strides[1] // item
    data.n = a.shape[0]
    return X


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


cdef object sparse_rows(X, fm_data *data, idx n_features):
    shape = X.shape
    if shape[1] != n_features:
        raise ValueError(f"X must have shape (n, {n_features}), got {shape}")
    values, columns, indptr = X.data, X.indices, X.indptr
    data.X_is_double = is_double_of(values, "X.data")
    if not isinstance(columns, np.ndarray) or not isinstance(indptr, np.ndarray):
        raise ValueError("X.indices and X.indptr must be NumPy arrays")
    data.index_is_64 = cnp.PyArray_TYPE(columns) == cnp.NPY_INT64 or columns.dtype == np.int64
    cdef int typenum = cnp.NPY_INT64 if data.index_is_64 else cnp.NPY_INT32
    cdef idx n = shape[0], stored = min(len(values), len(columns))
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
    data.n, data.stored = n, stored
    return values, columns, indptr


cdef object rows_of(X, fm_data *data, idx n_features):
    """Fill `data` from a dense array or CSR matrix; every later access stays within it.

    Return what the caller must keep: the arrays of a matrix, whose place others may take while an engine reads them.
    """
    memset(data, 0, sizeof(fm_data))
    if isinstance(X, np.ndarray):
        return dense_rows(X, data, n_features)
    if getattr(X, "format", None) == "csr":
        return sparse_rows(X, data, n_features)
    raise ValueError(f"X must be a NumPy array or a CSR matrix, got {type(X).__name__}")


cdef double column_entry(const fm_data *data, idx row, idx column, bint is_double) noexcept nogil:
    """X[row, column] in the network's dtype."""
    cdef idx at = row * data.row_stride + column * data.col_stride
    cdef double value = (<const double *>data.X)[at] if data.X_is_double else (<const float *>data.X)[at]
    return value if is_double else <double><float>value


cdef idx first_wrong_code(const fm_data *data, const idx *rows, idx n, idx column, idx count, bint is_double) noexcept nogil:
    """The first row whose entry is no code, a whole number in [0, count); -1 if there is none."""
    cdef idx i, row
    cdef double code
    for i in range(n):
        row = rows[i] if rows != NULL else i
        code = column_entry(data, row, column, is_double)
        if not (code >= 0 and code < count and code == <double><idx>code):
            return row
    return -1


cdef object rows_for(X, fm_data *data, Workspace workspace):
    """As rows_of; only networks that read X itself read a sparse one."""
    kept = rows_of(X, data, workspace.ws.n_columns)
    if data.indptr != NULL and workspace.ws.front:
        raise ValueError("X must be dense for a network with inputs, input_scale or members, got a CSR matrix")
    return kept


cdef int check_codes(const fm_data *data, const idx *rows, idx n, Workspace workspace) except -1:
    """Check the columns of embeddings in rows[0 .. n) of X; rows NULL: in the first n rows."""
    cdef idx wrong, f
    cdef int i
    cdef const fm_block *b
    for i in range(workspace.ws.n_blocks):
        b = &workspace.ws.blocks[i]
        for f in range(b.n_features if b.kind == FM_EMBEDDING else 0):
            with nogil:
                wrong = first_wrong_code(data, rows, n, b.columns[f], b.counts[f], workspace.is_double)
            if wrong >= 0:
                raise ValueError(
                    f"X[:, {b.columns[f]}] must hold whole numbers in [0, {b.counts[f]}), codes of an embedding, "
                    f"got {column_entry(data, wrong, b.columns[f], workspace.is_double)}"
                )
    return 0


cdef int targets_of(samples, fm_data *data, Workspace workspace) except -1:
    """Add y and sample weights of backends.Data to `data`."""
    cdef idx n = data.n
    cdef int real = REALS[workspace.is_double]
    if workspace.class_targets:
        pointer(samples.y, "y", cnp.NPY_INTP, (n,))
        data.y_class = indices(samples.y, "y", workspace.n_outputs)
    else:
        data.y = pointer(samples.y, "y", real, (n, workspace.n_outputs))
    if samples.sample_weight is not None:
        data.sample_weight = pointer(samples.sample_weight, "sample_weight", real, (n,))
    return 0
