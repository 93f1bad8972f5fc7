"""Device code of the CUDA engine, in parts that are joined into one text: nothing here is imported.

Where it sits: code.py joins the parts; codegen.cuda_module puts the text behind the settings and the formulas of one
combination of activations, loss and rule; driver.py imports the result.  In reading order: tables, sums, stages,
losses, updates, network, many.  Names that no part defines come from that head: REAL and the other constants,
``device``, ``kernel``, ``record``, exp_, log_ ..., ``product`` and the formulas.

An epoch is one cooperative launch.  A step is a list of phases, made on the host, with a barrier of the whole grid
after each: either one in which every block takes its rows through all layers and back, or one per layer and
direction, whose tiles are spread over all blocks; then SLICES, in which every block takes tiles of W through gradient,
penalty and update.  Where many nets train at once, each has one block, and the barriers are the block's (many.py).
No number is summed by more than one block, and within a block in a fixed order: the result does not depend on timing.
Between barriers no block reads what another writes.

Shapes: all matrices are C-contiguous within one vector, ``work``, but for X, and for the parameters and gradients,
which are laid out as on the host.  ``shared`` has SHARED numbers; every function that writes it begins with a barrier
of the block, so that whoever reads it need not end with one.  ``U`` makes an index unsigned: Numba then need not look
for negative ones.
"""
