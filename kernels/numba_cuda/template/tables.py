"""Tables of integers that the host fills, and names of their entries; constants."""

# ruff: noqa: F821

# --- network ---

Data = record(
    namedtuple(
        "Data",
        # tables of integers (see the constants below), then the rows of the fit
        "net layers phases tasks X indptr indices y classes weight order "
        # flat vectors; activations and deltas; and for each step its scalars, keys of its masks, sums of its tasks
        "params states grad work scalars factors masks partials",
    )
)
#: A chunk of a batch: the step's row in the tables, its first row in ``order``, its first row in the batch, its rows,
#: those of the batch, whether it is the last chunk, whether rows are found through ``order``, whether it is training;
#: which of the blocks that share the chunk this is, and how many they are.
Step = record(namedtuple("Step", "number first at rows batch_rows last gathered training block blocks"))
#: What the stage behind a product reads of its layer's row, and an update of the tables and of the step: looked up once
#: for many numbers, because the compiler must expect that each number written changes a table.
Stage = record(namedtuple("Stage", "width kind learned_at to slope_at product_at threshold"))
Update = record(namedtuple("Update", "store states_apart alpha l1 uniforms"))

# entries of ``net``
N_LAYERS, N_PARAMS, N_TRAINED, N_TASKS, MAX_ROWS, USE_INPUT, INPUT = 0, 1, 2, 3, 4, 5, 6
SPARSE, WEIGHTED, STORE, ROW_LOSS, DELTA_OUT, CLIPPED, IN_THRESHOLD = 7, 8, 9, 10, 11, 12, 13
NARROW_LAYER = 14  # the number of an output layer with few neurons, or -1
NET_ENTRIES = 15
# the columns of ``layers`` are kernels/layer_table.py's, as is the order of a layer's arrays
# kinds of phases
GATHER, TILES, BATCH_FORWARD, BATCH_BACKWARD, SLICES, UPDATE, NARROW_OUTPUT = 0, 1, 2, 3, 4, 5, 6
# columns of ``phases``: kind; layer, or of TILES the first operation and the one behind the last, and whether the
# columns, too, are spread over the blocks.  Operations on a tile of rows: 0 .. N_LAYERS - 1 forward, N_LAYERS the loss,
# then backward from the top layer to the second
PHASE, FIRST, LAST, SPREAD = 0, 1, 2, 3
PHASE_COLUMNS = 4
# tasks of SLICES: (kind, layer, first row, first column); kind: TASK_LOSS, or the number of an array, ARRAY_W ..
TASK_LOSS = -1
TASK_COLUMNS = 4
# columns of ``partials``: of W the sums of squares and of magnitudes (of TASK_LOSS: the loss), of the gradient squares
PARTIALS = 3
# columns of ``scalars`` before the rule's own: 1 / (sum of sample weights), 1 - decay
INVERSE, KEEP = 0, 1

ZERO, ONE = REAL(0.0), REAL(1.0)
LOWEST = REAL(-math.inf)
AHEAD = max(1, min(4, TILE * TILE // THREADS))  # numbers of a thread that are on their way from memory at once
BATCH_NORM_EPS = REAL(1e-5)
OLD_SHARE, NEW_SHARE = REAL(0.9), REAL(0.1)


@device
def entry(d, k, column):
    """An entry of a layer's row."""
    return d.layers[U(k * LAYER_COLUMNS + column)]
