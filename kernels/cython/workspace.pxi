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
        stop = INTERRUPTS.stop  # no Python code runs here: a signal within it would be lost
        if stop is not None and stop.wanted:
            PyErr_SetNone(KeyboardInterrupt)
            return -1
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
    cdef object table
    cdef fm_layer *layers
    cdef list buffers, formula_arrays
    cdef bint is_double, class_targets, whole_batch, has_dropout
    cdef fm_claim claim
    cdef idx n_outputs, n_params

    def __cinit__(self, network, idx batch_size, n_jobs):
        network.check_memory(n_vectors=1)
        refuse("cython", network)
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
        self.whole_batch = network.needs_whole_batch
        self.lay_out()
        cdef idx largest = max(self.layers[l].fan_in * self.layers[l].ld_out for l in range(self.ws.n_layers))
        self.ws.blas = blas_for(self.is_double, largest)
        cdef idx rows, item = network.dtype.itemsize
        self.ws.max_rows = min(batch_size, CHUNK_ROWS if largest * item <= LARGE_WEIGHT_BYTES else CHUNK_ROWS_LARGE)
        if self.whole_batch:
            self.ws.max_rows = batch_size
        self.n_threads = self.choose_threads(batch_size, n_jobs)
        self.ws.n_threads = 1  # until a team is there

        rows = self.ws.max_rows
        self.ws.params = self.buffer(self.ws.n_padded * item)
        self.ws.input = self.buffer(rows * self.layers[0].ld_in * item)
        self.read_activations()
        self.allocate(training=False)
        self.ws.scratch = self.buffer(self.n_threads * 3 * max(rows, CLASS_ROWS) * self.n_outputs * item)

    def __dealloc__(self):
        cdef fm_team *team = self.ws.team
        if team != NULL:
            with nogil:  # joins the helpers
                fm_team_free(team)

    cdef int lay_out(self) except -1:
        """Make the table of the layers, and the segments of the padded vector, one for each of the flat one."""
        network = self.network
        cdef idx item = network.dtype.itemsize, rows, flat = 0, offset = 0
        cdef int lanes = self.kernels.lanes, k
        cdef list strides = [leading_dimension(width, lanes, item) for width in network.widths], places = []
        cdef fm_segment *p = <fm_segment *>self.buffer(len(network.segments) * sizeof(fm_segment))
        for k, segment in enumerate(network.segments):
            places.append(offset)
            if not 0 <= segment.layer < network.n_layers:
                raise ValueError(f"network.segments must be of its {network.n_layers} layers, got {segment}")
            rows = network.widths[segment.layer] if segment.name == "W" else 1
            width = network.widths[segment.layer + 1]
            if (segment.start, segment.rows, segment.width) != (flat, rows, width):
                raise ValueError(f"network.segments must follow from network.widths, got {segment}")
            p[k].flat, p[k].padded, p[k].rows = flat, offset, rows
            p[k].width, p[k].ld = width, strides[segment.layer + 1]
            flat += rows * p[k].width
            offset += rows * p[k].ld
            if segment.name == "W":
                self.ws.w_padded = offset
        self.ws.n_padded, self.ws.segments, self.ws.n_segments = offset, p, len(network.segments)
        if flat != self.n_params:
            raise ValueError(f"network.n_params must be {flat} for {network}, got {self.n_params}")
        self.table = layer_table.new_table(network, strides, places, -1)
        self.layers = <fm_layer *>cnp.PyArray_DATA(self.table)
        self.ws.layers, self.ws.n_layers = self.layers, len(self.table)
        self.ws.input_threshold, self.ws.input_rate = layer_table.threshold(network.input_dropout), network.input_dropout
        self.has_dropout = self.ws.input_threshold > 0 or self.table["threshold"].any()
        return 0

    cdef int read_activations(self) except -1:
        """Note the activation of each hidden layer in its row."""
        cdef idx item = self.network.dtype.itemsize
        cdef fm_activation *activation = <fm_activation *>self.buffer(self.ws.n_layers * sizeof(fm_activation))
        for row, entry in zip(self.table, self.network.activations):
            row["keeps_z"] = read_activation(entry, activation, self.formula_arrays)
            if row["learned"]:
                activation.slopes = <char *>self.ws.params + <idx>row["slope"] * item
            row["activation"] = <uintptr_t>activation
            activation += 1
        return 0

    cdef int allocate(self, bint training) except -1:
        """Get the buffers of all layers: those that only training needs, or the others."""
        layer_table.allocate(self.table, layer_table.BUFFERS, self.ws.max_rows, self._room, training=training)
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

    def _room(self, n):
        """Return the address of n zeros of the network's dtype that live as long as the workspace."""
        return <uintptr_t>self.buffer(n * self.network.dtype.itemsize)

    cdef int prepare_training(self, int n_states) except -1:
        """Get what only training needs: threads, gradient, deltas, transposed weights, targets, states."""
        cdef idx item = 8 if self.is_double else 4, rows = self.ws.max_rows
        if self.ws.grad == NULL:
            self.prepare_team()
            self.allocate(training=True)
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
        """Share the padded vector among the threads, and cut every share into slices.

        Shares are contiguous, equal within a tile of rows, and cut into slices of SLICE_BYTES, or of LARGE_SLICE_ROWS
        where the deltas are read from beyond L1 for each slice; the BLAS wants layers in one piece.
        """
        cdef idx item = 8 if self.is_double else 4, m, end, row, n_rows, u, tile = 0
        cdef int T = self.ws.n_threads
        cdef fm_layer *layer
        cdef list slices = [], starts = [0]
        for l in range(self.ws.n_layers):
            layer = &self.layers[l]
            row = layer.ld_out
            n_rows = max(2, SLICE_BYTES // (row * item * FM_TILE_ROWS)) * FM_TILE_ROWS
            if self.ws.max_rows * row * item > SMALL_B_BYTES:
                n_rows = LARGE_SLICE_ROWS
            n_rows = layer.fan_in if self.ws.blas != NULL else n_rows
            m = 0
            while m < layer.fan_in:
                # the first row at which the next share begins, if in this layer
                end = layer.fan_in
                if len(starts) < T:
                    end = (self.ws.w_padded * len(starts) // T - layer.w) // (row * FM_TILE_ROWS) * FM_TILE_ROWS
                    if end <= m:
                        starts.append(len(slices))
                        continue
                end = min(end, m + n_rows, layer.fan_in)
                first_tile = tile + m // FM_TILE_ROWS
                slices.append((l, layer_table.ARRAYS.index("W"), m, end - m, layer.w + m * row, first_tile))
                m = end
            tile += (layer.fan_in + FM_TILE_ROWS - 1) // FM_TILE_ROWS
        vectors = [(s.layer, s.name, k) for k, s in enumerate(self.network.segments) if s.trained and s.name != "W"]
        for l, name, k in sorted(vectors, key=itemgetter(0)):  # stable: those of a layer stay in order
            slices.append((l, layer_table.ARRAYS.index(name), 0, 1, self.ws.segments[<idx>k].padded, tile))
            tile += 1
        cdef fm_slice *p = <fm_slice *>self.buffer(len(slices) * sizeof(fm_slice))
        for u, (l, kind, m, n_rows, offset, first_tile) in enumerate(slices):
            p[u].layer, p[u].kind, p[u].m, p[u].n_rows, p[u].offset = l, kind, m, n_rows, offset
            p[u].length, p[u].tile = n_rows * self.layers[<int>l].ld_out, first_tile
        cdef idx *slice_start = <idx *>self.buffer((T + 1) * sizeof(idx))
        for t in range(T + 1):
            slice_start[t] = starts[t] if t < len(starts) else len(slices)
        self.ws.slices, self.ws.n_slices, self.ws.slice_start, self.ws.n_tiles = p, len(slices), slice_start, tile
        self.ws.tile_penalty = <double *>self.buffer(tile * sizeof(double))
        self.ws.tile_norm = <double *>self.buffer(tile * sizeof(double))
        return 0

    cdef void *flat(self, vector, str name, bint writable=False) except? NULL:
        """A flat vector [W0 .. Wn | b0 .. bn] of this network."""
        return pointer(vector, name, REALS[self.is_double], (self.n_params,), writable)

    @property
    def uses_blas(self):
        """Whether products are the BLAS's, which has threads of its own."""
        return self.ws.blas != NULL

    @property
    def nbytes(self):
        return sum(b.nbytes for b in self.buffers)


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
