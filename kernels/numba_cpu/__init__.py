"""The Numba engine: the contract, compiled on the user's machine for its processor; no C compiler is needed.

Where it sits: a backend like any other, ``fastmlp.engines.backends.get("numba")``.  The functions of the contract check
arguments and fill tables with sizes and addresses.  The work is done in machine code that Numba makes of template/ and
the formulas, once per dtype, and keeps on disk.  Numba itself is imported when the first of these functions is called.

Reading order: calls.py (the calls), epoch.py (an epoch's steps), workspace.py (buffers and tables), entries.py
(activations and losses as addresses), team.py (threads), cache.py (compiled code on disk), memory.py; template/ is what
Numba compiles: math.py, then tables, teams, products, rows, stages, losses, updates, network.
"""

from __future__ import annotations

import os
from importlib.util import find_spec


def _told_not_to_compile() -> bool:
    """Whether NUMBA_DISABLE_JIT is set, as Numba reads it, without importing Numba."""
    try:
        return int(os.environ.get("NUMBA_DISABLE_JIT") or 0) != 0
    except ValueError:  # Numba warns and goes on
        return False


if find_spec("numba") is None:
    raise ImportError("No module named 'numba'", name="numba")
if _told_not_to_compile():  # as Python the code would mean nothing: it works on addresses and in LLVM's language
    raise ImportError("NUMBA_DISABLE_JIT is set, and this engine is what Numba compiles")

from fastmlp.kernels.numba_cpu.calls import loss_and_grad, predict, shuffle, train_epoch, workspace  # noqa: E402

__all__ = ["loss_and_grad", "predict", "shuffle", "train_epoch", "workspace"]
