# Memory and threads of one network.

cdef int W_KIND = layer_table.ARRAYS.index("W")


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


# Arrays of feature blocks whose rows are padded one by one; those of an embedding are one after the other, because they
# may be short and many.
cdef tuple FLAT_ARRAYS = ("embedding",)


cdef tuple shape_of(network, segment):
    """(rows, width) that a segment must have, by the sizes of the network."""
    widths, members, last, name = network.widths, network.members, network.n_layers - 1, segment.name
    if segment.of_inputs and name not in layer_table.ARRAYS:
        if not 0 <= segment.layer < len(network.inputs):
            raise ValueError(f"network.segments must be of its {len(network.inputs)} feature blocks, got {segment}")
        return network.inputs[segment.layer].arrays.get(name, (0, 0))
    if not 0 <= segment.layer <= last:
        raise ValueError(f"network.segments must be of its {network.n_layers} layers, got {segment}")
    fan_in, fan_out = widths[segment.layer], widths[segment.layer + 1]
    if name == "W":
        return (members if segment.layer == last else 1) * fan_in, fan_out
    if name in ("input_scale", "member_in"):
        return members, fan_in
    of_members = name == "member_out" or (name == "b" and (segment.layer == last or network.batch_ensemble))
    return members if of_members else 1, fan_out


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
    cdef const fm_units *units  # that calls with enough rows may use; or NULL
    cdef object table
    cdef object sums, own_sums  # the gradient as an array, and two numbers more; in memory of the workspace
    cdef fm_layer *layers
    cdef fm_block *blocks
    cdef list buffers, formula_arrays
    cdef bint is_double, class_targets, whole_batch, has_dropout
    cdef fm_claim claim
    cdef idx n_outputs, n_params

    def __cinit__(self, network, idx batch_size, n_jobs):
        network.check_memory(n_vectors=1)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.network = network
        self.is_double = network.dtype == np.float64
        self.kernels = KERNELS[self.is_double]
        self.isa = isa()
        self.ws.halves = 2 if network.matmul_precision == "high" else 1
        if not self.is_double and network.matmul_precision != "highest" and UNITS != NULL and self.ws.halves <= UNITS.halves:
            self.units = UNITS
        self.n_outputs = network.widths[-1]
        self.n_params = network.n_params
        self.buffers = []
        self.formula_arrays = []
        self.ws.poll = poll
        self.class_targets = read_loss(network.loss, &self.ws.loss, self.formula_arrays)
        self.whole_batch = network.needs_whole_batch
        self.ws.members, self.ws.averages = network.members, network.average
        self.lay_out()
        self.read_blocks()
        cdef idx largest = max(self.layers[l].fan_in * self.layers[l].ld_out for l in range(self.ws.n_layers))
        self.ws.blas = blas_for(self.is_double, largest) if self.units == NULL else NULL
        cdef idx rows, item = network.dtype.itemsize
        rows = CHUNK_ROWS if largest * item <= LARGE_WEIGHT_BYTES else CHUNK_ROWS_LARGE
        self.ws.row_work = self.work_of_a_row()
        self.ws.max_rows = min(batch_size, max(1, rows // self.ws.members))
        if self.whole_batch:
            self.ws.max_rows = batch_size
        self.n_threads = self.choose_threads(batch_size, n_jobs)
        self.ws.n_threads = 1  # until a team is there

        rows = self.ws.max_rows * self.ws.members
        self.ws.params = self.buffer(self.ws.n_padded * item)
        self.make_room_in_front()
        self.read_activations()
        self.choose_units()
        self.choose_panels()
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
        cdef idx item = network.dtype.itemsize, rows, width, ld, flat = 0, offset = 0
        cdef int lanes = self.kernels.lanes, k
        cdef list strides = [leading_dimension(width, lanes, item) for width in network.widths], places = []
        cdef fm_segment *p = <fm_segment *>self.buffer(len(network.segments) * sizeof(fm_segment))
        for k, segment in enumerate(network.segments):
            places.append(offset)
            rows, width = shape_of(network, segment)
            if (segment.start, segment.rows, segment.width) != (flat, rows, width):
                raise ValueError(f"network.segments must follow from network.widths and its inputs, got {segment}")
            if segment.name not in layer_table.ARRAYS:
                if segment.name in FLAT_ARRAYS:
                    rows, width = 1, rows * width
                ld = padded(width, lanes)
            else:
                ld = strides[segment.layer + (segment.name not in ("input_scale", "member_in"))]
            p[k].flat, p[k].padded, p[k].rows, p[k].width, p[k].ld = flat, offset, rows, width, ld
            flat += rows * width
            offset += rows * ld
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

    cdef const idx *numbers(self, values) except? NULL:
        """A copy of some integers, of which there is at least one place."""
        cdef idx i
        cdef idx *p = <idx *>self.buffer(max(1, len(values)) * sizeof(idx))
        for i in range(len(values)):
            p[i] = values[i]
        return p

    cdef int read_blocks(self) except -1:
        """Make the table of the feature blocks."""
        network, kinds = self.network, [*feature_table.KINDS]
        cdef fm_block *block = <fm_block *>self.buffer(max(1, len(network.inputs)) * sizeof(fm_block))
        cdef idx at = 0
        cdef int k, i
        self.ws.blocks, self.ws.n_blocks, self.blocks = block, len(network.inputs), block
        self.ws.n_columns = network.n_columns
        self.ws.ld_columns = padded(network.n_columns, self.kernels.lanes)
        self.ws.front = bool(network.inputs or network.input_scale)
        numbered = {(segment.name, segment.layer): k for k, segment in enumerate(network.segments)}
        for i, given in enumerate(network.inputs):
            block.kind, block.at = kinds.index(given.kind), at
            block.n_features, block.size, block.frequencies = given.n_features, given.size, given.frequencies
            block.columns, block.counts = self.numbers(given.columns), self.numbers(given.counts)
            block.starts = self.numbers(given.starts)
            for k, name in enumerate(given.arrays):
                segment = numbered[name, i]
                block.arrays[k] = self.ws.segments[<idx>segment].padded
                block.ld[k] = given.size if name in FLAT_ARRAYS else self.ws.segments[<idx>segment].ld
            if block.kind == FM_PIECEWISE:
                block.sums = self.buffer(sum(given.counts) * block.ld[2] * network.dtype.itemsize)
            at += given.width
            block += 1
        return 0

    cdef int make_room_in_front(self) except -1:
        """Get the buffers of what the first layer reads, and of what that is made of."""
        cdef idx item = self.network.dtype.itemsize, rows = self.ws.max_rows, ld = self.layers[0].ld_in
        self.ws.input = self.buffer(rows * self.ws.members * ld * item)
        if self.ws.n_blocks:
            self.ws.columns = self.buffer(rows * self.ws.ld_columns * item)
            self.ws.features = self.ws.input
        if self.network.input_scale:
            self.ws.features = self.buffer(rows * ld * item)
        return 0

    cdef int make_room_behind(self) except -1:
        """Get the buffers of the deltas in front of the first layer, and of what the blocks keep for them."""
        cdef idx item = self.network.dtype.itemsize, rows = self.ws.max_rows, ld = self.layers[0].ld_in
        cdef int i
        cdef fm_block *b
        if not layer_table.learns_in_front(self.network):
            return 0
        self.ws.input_delta = self.buffer(rows * self.ws.members * ld * item)
        if any(block.arrays for block in self.network.inputs):
            self.ws.features_delta = self.ws.input_delta
            if self.network.input_scale:
                self.ws.features_delta = self.buffer(rows * ld * item)
        for i in range(self.ws.n_blocks):
            b = &self.blocks[i]
            if b.kind == FM_PERIODIC:
                n = b.n_features * (2 * b.frequencies + 1 + b.size)
                b.kept = self.buffer(n * padded(rows, self.kernels.lanes) * item)
            elif b.kind == FM_PIECEWISE:
                b.kept = self.buffer(sum(self.network.inputs[i].counts) * b.ld[2] * item)
        return 0

    cdef int choose_panels(self) except -1:
        """Say which weights and deltas lie in panels (tiers.h); get room for the rows that are packed beside weights."""
        cdef idx item = self.network.dtype.itemsize, rows = self.ws.max_rows * self.ws.members, packed = 0
        cdef fm_layer *layer
        cdef int l
        if rows < PANEL_ROWS or self.ws.blas != NULL:
            return 0
        for l in range(self.ws.n_layers):
            layer = &self.layers[l]
            if layer.heads > 1 or layer.units:
                continue
            layer.panels = layer.fan_in * layer.ld_out * item > SMALL_B_BYTES
            layer.deltas = rows * layer.ld_out * item > LARGE_WEIGHT_BYTES
            for depth, width in ((layer.fan_in, layer.ld_out), (layer.fan_out, layer.ld_in)):
                if layer.panels and width * item >= PACK_WIDTH_BYTES:
                    longest = padded(min(rows, LONGEST(BLOCK_ROWS)), FM_TILE_ROWS)
                    packed = max(packed, longest * min(depth, LONGEST(KC)))
        if packed:
            self.make_room_for_packed_rows(packed)
        return 0

    cdef int make_room_for_packed_rows(self, idx n) except -1:
        """Get room for n numbers of its left-hand matrix for each thread, if there is less."""
        if self.ws.n_packed_rows < n and self.ws.blas == NULL:
            self.ws.n_packed_rows = n
            self.ws.packed_rows = self.buffer(self.n_threads * n * self.network.dtype.itemsize)
        return 0

    cdef double work_of_a_row(self):
        """Multiplications of a row's forward pass."""
        cdef double work = 0
        cdef const fm_block *b
        for l in range(self.ws.n_layers):
            work += self.layers[<int>l].fan_in * self.layers[<int>l].ld_out * self.ws.members
        for i in range(self.ws.n_blocks):
            b = &self.ws.blocks[<int>i]
            work += b.n_features * (b.frequencies * (16 + b.size) + 4 * b.size)  # 16: sine and cosine
        return work

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

    cdef idx delta_bytes(self, fm_layer *layer) noexcept:
        """Bytes of the halves of a chunk's deltas."""
        return fm_halves_bytes(self.ws.max_rows * self.ws.members, layer.fan_out, self.ws.halves)

    cdef idx slice_rows(self, fm_layer *layer) noexcept:
        """Rows of the slices whose gradients matrix units compute."""
        return UNITS_SLICE_ROWS_LARGE if self.delta_bytes(layer) > UNITS_LARGE_BYTES else UNITS_SLICE_ROWS

    cdef int choose_units(self) except -1:
        """Give layers to the matrix units where they pay (tiers.h), and get the scratch of each thread."""
        cdef idx rows = self.ws.max_rows * self.ws.members, room = 0, n
        cdef fm_layer *layer
        cdef int l
        if self.units == NULL or rows < self.units.min_rows:
            self.units = NULL
            return 0
        for l in range(self.ws.n_layers):
            layer = &self.layers[l]
            pays = layer.fan_in * layer.fan_out >= self.units.min_size * (layer.fan_in + layer.fan_out)
            if layer.heads > 1 or not pays:
                continue
            layer.units = self.ws.halves
            n = self.slice_rows(layer)
            room = max(room, fm_units_scratch(rows, max(layer.fan_in, layer.fan_out), self.ws.halves),
                       fm_units_scratch(n, rows, self.ws.halves) + n * layer.ld_out * <idx>sizeof(float))
        if room == 0:
            self.units = NULL
        self.ws.units_room = padded(room, 64)
        self.ws.units_scratch = self.buffer(self.n_threads * self.ws.units_room)
        return 0

    cdef int use_units(self, idx rows) except -1:
        """Let a call that works on so many rows together use the matrix units, if they pay."""
        enough = self.units != NULL and rows * self.ws.members >= self.units.min_rows
        self.ws.units = self.units if enough else NULL
        return 0

    cdef int allocate(self, bint training) except -1:
        """Get the buffers of all layers: those that only training needs, or the others."""
        rows = self.ws.max_rows * self.ws.members
        layer_table.allocate(self.table, layer_table.BUFFERS, rows, self._room, training=training)
        return 0

    cdef int choose_threads(self, idx batch_size, n_jobs) except -1:
        """n_jobs if given; else as many as are allowed, if a step has the work for them (tiers.h)."""
        cdef double work = 6.0 * self.ws.row_work * batch_size
        if self.ws.blas != NULL or (n_jobs is None and work < THREADS_MIN_STEP):
            return 1  # the BLAS brings its own threads
        from fastmlp.kernels.threads import allowed
        # as the kernels share rows: whole register tiles, which one row of many members fills
        cdef idx unit = 8 if self.ws.members < 8 else 1 + self.ws.members % 2
        return max(1, min(allowed(n_jobs), (self.ws.max_rows + unit - 1) // unit))

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
        cdef idx item = 8 if self.is_double else 4, rows = self.ws.max_rows * self.ws.members
        if self.ws.grad == NULL:
            self.prepare_team()
            self.allocate(training=True)
            self.make_room_behind()
            self.ws.y = self.buffer(rows * self.n_outputs * item)
            self.ws.y_class = <idx *>self.buffer(rows * sizeof(idx))
            self.ws.weight = self.buffer(self.ws.max_rows * item)
            if self.ws.members > 1:
                self.ws.member_weight = self.buffer(rows * item)
            self.ws.row_loss = <double *>self.buffer(rows * sizeof(double))
            self.divide()
            self.own_sums = zeros((self.ws.n_padded + 2) * item).view(self.network.dtype)
            self.buffers.append(self.own_sums)
            self.place_sums(None)
        for k in range(n_states):
            if self.ws.states[k] == NULL:
                self.ws.states[k] = self.buffer(self.ws.n_padded * item)
        return 0

    cdef int place_sums(self, memory) except -1:
        """Let the gradient, and the two numbers more, lie in memory of others, or of the workspace: None."""
        if memory is None:
            memory = self.own_sums
        if memory is self.sums:
            return 0
        cdef int typenum = cnp.NPY_FLOAT64 if self.is_double else cnp.NPY_FLOAT32
        cdef void *address = pointer(memory, "shared.memory", typenum, (self.ws.n_padded + 2,), True)
        if <uintptr_t>address % 64 != 0:
            raise ValueError("shared.memory must return memory that is 64-byte aligned")
        self.sums, self.ws.grad = memory, address
        return 0

    cdef int divide(self) except -1:
        """Share the padded vector among the threads, and cut every share into slices.

        Shares of the weights are contiguous, equal within a tile of rows, and cut into slices of SLICE_BYTES, or of more
        rows where the deltas are read from beyond L1 for each slice (tiers.h); the BLAS wants layers in one piece.
        The last thread takes the other arrays of the layers, because it has the least of the weights; arrays of
        feature blocks go where there is the least of them.
        """
        cdef int T = self.ws.n_threads, t
        cdef idx n_tiles, u, i = 0
        cdef bint relays = self.relays()
        slices, starts, n_tiles = self.slices_of_weights(relays)
        shares = [slices[start:end] for start, end in zip(starts, [*starts[1:], len(slices)])]
        shares += [[] for _ in range(T - len(shares))]
        for slice_ in self.slices_of_vectors():
            shares[T - 1].append((*slice_, n_tiles))
            n_tiles += 1
        loads = [0] * T
        for task in self.slices_of_blocks():
            t = loads.index(min(loads))
            for slice_ in task:
                loads[t] += slice_[7]
                shares[t].append((*slice_, n_tiles))
                n_tiles += 1
        cdef fm_slice *p = <fm_slice *>self.buffer(max(1, sum(map(len, shares))) * sizeof(fm_slice))
        cdef idx *slice_start = <idx *>self.buffer((T + 1) * sizeof(idx))
        for t in range(T):
            for layer, kind, segment, array, head, m, n_rows, length, offset, tile in shares[t]:
                p[i].layer, p[i].kind, p[i].segment, p[i].array, p[i].head = layer, kind, segment, array, head
                p[i].m, p[i].n_rows, p[i].offset, p[i].length, p[i].tile = m, n_rows, offset, length, tile
                i += 1
            slice_start[t + 1] = i
        self.ws.slices, self.ws.n_slices, self.ws.slice_start, self.ws.n_tiles = p, i, slice_start, n_tiles
        self.ws.tile_penalty = <double *>self.buffer(n_tiles * sizeof(double))
        self.ws.tile_norm = <double *>self.buffer(n_tiles * sizeof(double))
        if relays:
            self.make_relay()
        return 0

    cdef bint relays(self) except -1:
        """Return whether gradients go from thread to thread: less moves between them than with rows (tiers.h)."""
        cdef idx numbers = self.layers[0].ld_in
        cdef int l
        if self.ws.n_threads == 1 or self.ws.members > 1 or self.ws.front or self.whole_batch or self.network.batch_ensemble:
            return False
        if self.units != NULL or self.ws.blas != NULL:
            return False
        for l in range(self.ws.n_layers):
            if self.layers[l].deltas:
                return False
            numbers += 2 * self.layers[l].ld_out
        return self.ws.n_padded * self.ws.n_threads * RELAY_NUMBERS <= self.ws.max_rows * numbers

    cdef int make_relay(self) except -1:
        """Get what goes from thread to thread with gradients."""
        cdef idx item = 8 if self.is_double else 4
        cdef fm_relay *relay = <fm_relay *>self.buffer(sizeof(fm_relay))
        cdef idx *starts = <idx *>self.buffer((self.ws.n_slices + 1) * sizeof(idx))
        cdef idx u, length = 0
        for u in range(self.ws.n_slices):
            length += self.ws.slices[u].length
            if length >= RELAY_SLICE:
                relay.n_groups, length = relay.n_groups + 1, 0
                starts[relay.n_groups] = u + 1
        if length > 0:
            relay.n_groups += 1
            starts[relay.n_groups] = self.ws.n_slices
        relay.starts = starts
        relay.turns = <fm_counter *>self.buffer((1 + relay.n_groups) * sizeof(fm_counter))
        relay.lanes = self.buffer(4 * (self.ws.n_padded - self.ws.w_padded) * item)
        self.ws.relay = relay
        return 0

    cdef tuple slices_of_weights(self, bint relays):
        """(slices, the number of each thread's first one, tiles) of the weights.

        A slice: layer, kind, segment, array, head, m, n_rows, length, offset, tile; see fm_slice.
        """
        cdef idx item = 8 if self.is_double else 4, m, end, row, n_rows, tile = 0, head, w, work = 0, whole = 0, times
        cdef idx deltas, pieces, packed_rows = 0
        cdef int T = self.ws.n_threads, l
        cdef fm_layer *layer
        cdef list slices = [], starts = [0]
        for l in range(self.ws.n_layers):
            layer = &self.layers[l]
            whole += layer.fan_in * layer.ld_out * self.ws.members  # each head sees the rows of one member
        for l in range(self.ws.n_layers):
            layer = &self.layers[l]
            row, times = layer.ld_out, self.ws.members // layer.heads
            n_rows = max(2, SLICE_BYTES // (row * item * FM_TILE_ROWS)) * FM_TILE_ROWS
            deltas = self.ws.max_rows * times * row * item
            if deltas > SMALL_B_BYTES:
                n_rows = LARGE_SLICE_ROWS
            if deltas > LARGE_WEIGHT_BYTES:
                n_rows = BLOCK_ROWS
            if relays:
                n_rows = padded((RELAY_SLICE + row - 1) // row, FM_TILE_ROWS)
            n_rows = layer.fan_in if self.ws.blas != NULL else self.slice_rows(layer) if layer.units else n_rows
            if layer.ld_in * self.ws.members // times * item >= PACK_STRIDE_BYTES and row >= NV_MAX * self.kernels.lanes:
                packed_rows = max(packed_rows, padded(min(n_rows, layer.fan_in), FM_TILE_ROWS))
            for head in range(layer.heads):
                m, w = 0, layer.w + head * layer.fan_in * row
                while m < layer.fan_in:
                    # the first row at which the next share begins, if in this matrix
                    end = layer.fan_in
                    if len(starts) < T:
                        end = (whole * len(starts) // T - work) // (times * row * FM_TILE_ROWS) * FM_TILE_ROWS
                        if end <= m:
                            starts.append(len(slices))
                            continue
                    end = min(end, layer.fan_in)
                    if layer.units:
                        end = min(end, m + n_rows)  # whole tiles
                    elif end - m > n_rows:  # pieces of about the same size
                        pieces = (end - m + n_rows - 1) // n_rows
                        end = m + padded((end - m + pieces - 1) // pieces, FM_TILE_ROWS)
                    slices.append((l, W_KIND, l, 0, head, m, end - m, (end - m) * row, w + m * row,
                                   tile + m // FM_TILE_ROWS))
                    m = end
                tile += (layer.fan_in + FM_TILE_ROWS - 1) // FM_TILE_ROWS
                work += layer.fan_in * row * times
        if packed_rows:
            self.make_room_for_packed_rows(packed_rows * min(LONGEST(KC), self.ws.max_rows * self.ws.members))
        return slices, starts, tile

    cdef list slices_of_vectors(self):
        """The slices, without tile, of what the layers learn besides weights, layer by layer."""
        cdef list found = []
        cdef const fm_segment *s
        for k, segment in sorted(enumerate(self.network.segments), key=lambda item: item[1].layer):
            if not segment.trained or segment.name == "W" or segment.name not in layer_table.ARRAYS:
                continue
            s = &self.ws.segments[<idx>k]
            kind = layer_table.ARRAYS.index(segment.name)
            found.append((segment.layer, kind, k, 0, 0, 0, s.rows, s.rows * s.ld, s.padded))
        return found

    cdef list slices_of_blocks(self):
        """The slices, without tile, of the feature blocks' arrays, in tasks that one thread does."""
        cdef idx item = 8 if self.is_double else 4, lanes = self.kernels.lanes, m, n, rows, length
        cdef int i, k
        cdef fm_block *b
        cdef list tasks = []
        for i, (given, named) in enumerate(zip(self.network.inputs, self.network.input_segments)):
            b = &self.blocks[i]
            numbers = [self.network.segments.index(named[name]) for name in given.arrays]
            if given.kind == "periodic":
                n = max(1, SLICE_BYTES // (sum(b.ld[k] for k in range(4)) * item))
                for m in range(0, b.n_features, n):
                    rows = min(n, b.n_features - m)
                    tasks.append([
                        (i, FM_OF_BLOCK, numbers[k], k, 0, m, rows, rows * b.ld[k], b.arrays[k] + m * b.ld[k])
                        for k in range(4)
                    ])  # fmt: skip
            elif given.kind == "piecewise":
                m = 0
                while m < b.n_features:
                    rows, length = m, 0  # features m .. rows, with `length` bins
                    while rows < b.n_features and (rows == m or (length + b.counts[rows]) * b.ld[2] * item <= SLICE_BYTES):
                        length += b.counts[rows]
                        rows += 1
                    n = rows - m
                    first = b.starts[m]
                    tasks.append([
                        (i, FM_OF_BLOCK, numbers[0], 0, 0, m, n, n * b.ld[0], b.arrays[0] + m * b.ld[0]),
                        (i, FM_OF_BLOCK, numbers[1], 1, 0, m, n, n * b.ld[1], b.arrays[1] + m * b.ld[1]),
                        (i, FM_OF_BLOCK, numbers[2], 2, 0, m, n, length * b.ld[2], b.arrays[2] + first * b.ld[2]),
                    ])  # fmt: skip
                    m = rows
            elif given.kind == "embedding":
                # whole vectors: rows in multiples of the lanes
                n = max(1, SLICE_BYTES // (b.size * lanes * item)) * lanes
                for m in range(0, sum(given.counts), n):
                    rows = min(n, sum(given.counts) - m)
                    length = padded(rows * b.size, lanes)
                    tasks.append([(i, FM_OF_BLOCK, numbers[0], 0, 0, m, rows, length, b.arrays[0] + m * b.size)])
        return tasks

    cdef void *flat(self, vector, str name, bint writable=False) except? NULL:
        """A flat vector [W0 .. Wn | b0 .. bn] of this network."""
        return pointer(vector, name, REALS[self.is_double], (self.n_params,), writable)

    @property
    def uses_blas(self):
        """Whether products are the BLAS's, which has threads of its own."""
        return self.ws.blas != NULL

    @property
    def relays(self):
        """Whether gradients go from thread to thread in training; known after the first call that trains."""
        return self.ws.relay != NULL

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
