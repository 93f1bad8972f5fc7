# Memory and threads of one network.


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
    cdef bint is_double, class_targets, has_batch_norm, has_dropout
    cdef fm_claim claim
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
        self.class_targets = read_loss(network.loss, &self.ws.loss, self.formula_arrays)
        self.has_batch_norm = bool(network.batch_norm)
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
        """Fill the layers, and the segments of the padded vector; return whether each layer must keep z."""
        cdef int lanes = self.kernels.lanes, L = self.network.n_layers
        cdef idx item = 8 if self.is_double else 4
        cdef fm_layer *layer
        cdef list needs_z = [False] * L
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
                layer.batch_norm = PLACEMENTS[self.network.batch_norm[l] if self.has_batch_norm else ""]
                needs_z[l] = read_activation(self.network.activations[l], &layer.activation, self.formula_arrays)
                read_dropout(dropout[l], &layer.dropout, "dropout")
                self.has_dropout |= layer.dropout.threshold > 0
        self.place_segments()
        return needs_z

    cdef int place_segments(self) except -1:
        """Fill the segments of the padded vector, one for each of the flat one, and the layers' offsets in it."""
        cdef idx flat = 0, offset = 0, rows
        cdef fm_layer *layer
        cdef fm_segment *p = <fm_segment *>self.buffer(len(self.network.segments) * sizeof(fm_segment))
        for k, segment in enumerate(self.network.segments):
            if not 0 <= segment.layer < self.ws.n_layers:
                raise ValueError(f"network.segments must be of its {self.ws.n_layers} layers, got {segment}")
            layer = &self.layers[<int>segment.layer]
            is_weight = segment.name == "W"
            rows = layer.fan_in if is_weight else 1
            if (segment.start, segment.rows, segment.width) != (flat, rows, layer.fan_out):
                raise ValueError(f"network.segments must follow from network.widths, got {segment}")
            p[k].flat, p[k].padded = flat, offset
            p[k].rows, p[k].width, p[k].ld = rows, layer.fan_out, layer.ld_out
            place(layer, segment.name, offset)
            flat += rows * layer.fan_out
            offset += rows * layer.ld_out
            if is_weight:
                self.ws.w_padded = offset
        self.ws.n_padded, self.ws.segments, self.ws.n_segments = offset, p, len(self.network.segments)
        if flat != self.n_params:
            raise ValueError(f"network.n_params must be {flat} for {self.network}, got {self.n_params}")
        return 0

    cdef int choose_threads(self, idx batch_size, n_jobs) except -1:
        """n_jobs if given; else as many as are allowed, if a step has the work for them (tiers.h)."""
        cdef double work = 6.0 * self.ws.w_padded * batch_size
        if self.ws.blas != NULL or (n_jobs is None and work < THREADS_MIN_STEP):
            return 1  # the BLAS brings its own threads
        from fastmlp.kernels.threads import allowed
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
        """Claim the buffers and threads for this call; `end` gives them back."""
        if not fm_claim_try(&self.claim):
            raise RuntimeError("this workspace is at work for another caller: give each thread one of its own")
        return 0

    cdef int end(self) except -1:
        fm_claim_release(&self.claim)
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
                if layer.dropout.threshold > 0 or layer.batch_norm == FM_NORM_AFTER:
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
        vectors = [(s.layer, s.name, k) for k, s in enumerate(self.network.segments) if s.trained and s.name != "W"]
        for l, name, k in sorted(vectors, key=itemgetter(0)):  # stable: those of a layer stay in order
            units.append((l, KIND_OF_VECTOR[name], 0, 1, self.ws.segments[<idx>k].padded, tile))
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


cdef dict PLACEMENTS = {"": FM_NO_NORM, "before": FM_NORM_BEFORE, "after": FM_NORM_AFTER}
cdef dict KIND_OF_VECTOR = {"b": FM_BIAS, "scale": FM_SCALE, "shift": FM_SHIFT, "slope": FM_SLOPE}


cdef int place(fm_layer *layer, str name, idx offset) except -1:
    """Note the offset of a segment of this name in its layer."""
    if name == "W":
        layer.w = offset
    elif name == "b":
        layer.b = offset
    elif name == "scale":
        layer.scale = offset
    elif name == "shift":
        layer.shift = offset
    elif name == "slope":
        layer.slope = offset
    elif name == "mean":
        layer.mean = offset
    elif name == "var":
        layer.var = offset
    else:
        raise ValueError(f"network.segments must have names that this engine knows, got {name!r}")
    return 0


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
