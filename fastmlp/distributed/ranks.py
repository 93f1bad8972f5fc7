"""A fit that several ranks take part in: what they compare before it, do together in it, and compare after it.

::

    fit(communicator=) -> taking_part -> the steps of a fit in one process, on SharedRows, with a SharedEngine

All ranks begin with the random state of rank 0, so they draw the same first weights, splits and orders of rows. They
sum the same vectors in the same order, so they make the same updates: no weights are ever sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral
from types import ModuleType
from typing import Any

import numpy as np

import fastmlp
from fastmlp.data import warned
from fastmlp.data.shared_rows import Rows, check_same
from fastmlp.distributed.callbacks import OF_A_RANK, FirstRanksCallbacks
from fastmlp.distributed.communicator import INTERRUPTED, Communicator
from fastmlp.distributed.engine import SharedEngine
from fastmlp.distributed.mpi import MPICommunicator
from fastmlp.model import weights
from fastmlp.model.network import Network
from fastmlp.training import callbacks as single


class Ranks:
    """The ranks of a fit, as its steps see them.

    Parameters
    ----------
    communicator : Communicator
    """

    def __init__(self, communicator: Communicator) -> None:
        self.communicator = communicator
        self._network: Network | None = None
        self._callbacks_of_first: bool | None = None  # whether they read weights; None: there are none

    # --- before the fit -----------------------------------------------------------------------------------------------

    def compare(self, estimator: Any, callbacks: Sequence[Any], given: Sequence[str]) -> None:
        """Refuse ranks of another version, or with other parameters or sets of rows, by a ValueError on all ranks.

        `given` are the names of what was given to ``fit`` besides X and y.
        """
        facts = {"fastmlp": fastmlp.__version__, "the estimator": type(estimator).__name__, "given": list(given)}
        facts |= {f"parameter {name}": value for name, value in _parameters(estimator).items()}
        reads = single.reads_weights(callbacks) if callbacks else None
        found = self.communicator.allgather((facts, reads), "parameters")
        for name in {name: None for theirs, _ in found for name in theirs}:
            check_same(self.communicator, name, [repr(theirs.get(name)) for theirs, _ in found])
        self._callbacks_of_first = found[0][1]

    def rows(self, X: Any, y: Any, sample_weight: Any) -> tuple[Rows, None, Rows]:
        """Return what takes the place of X, y and sample_weight in the steps of the fit."""
        rows = Rows(self.communicator, X, y, sample_weight)
        return rows, None, rows

    def callbacks(self, own: Sequence[Callable[[Any], Any]]) -> tuple[Callable[[Any], Any], ...]:
        """Return the callbacks of every rank: one that stands for those of rank 0, if it has some."""
        if self._callbacks_of_first is None:
            return ()
        if self.communicator.rank == 0:
            single.check_callbacks(own)
        return (FirstRanksCallbacks(self.communicator, self._present_network, own, self._callbacks_of_first),)

    def _present_network(self) -> Network:
        assert self._network is not None, "callbacks are called once training has begun"
        return self._network

    # --- in the steps of the fit --------------------------------------------------------------------------------------

    def random_state(self, own: np.random.RandomState) -> np.random.RandomState:
        """Return the random state of rank 0; its own one there, so that it goes on from fit to fit."""
        state = self.communicator.broadcast(
            own.get_state(legacy=False) if self.communicator.rank == 0 else None, "random state"
        )
        if self.communicator.rank == 0:
            return own
        copied = np.random.RandomState()
        copied.set_state(state)
        return copied

    def of_first(self, load: Callable[[], Any]) -> Any:
        """Return what rank 0 loads: a checkpoint, which others may not see."""
        return self.communicator.broadcast(load() if self.communicator.rank == 0 else None, "checkpoint")

    def engine(self, engine: ModuleType, network: Network) -> Any:
        """Return the engine of all ranks together; a ValueError says that the network needs whole batches."""
        if network.needs_whole_batch:
            raise ValueError(
                "batch_norm makes no sense with communicator: it needs all rows of a batch at once, and each rank has"
                " some of them"
            )
        self._network = network
        return SharedEngine(engine, self.communicator)

    def begin(self, task: Any) -> None:
        """Refuse ranks that would not train alike: with another engine, or from other weights."""
        inner, optimizer = task.engine.inner, task.estimator._training.optimizer
        isa = getattr(inner, "isa", lambda: "")()
        facts = {
            "the engine": f"{inner.__name__.rpartition('.')[2].strip('_')} {isa}".strip(),
            "the network": repr(task.network),
            "weights to start from": _digest(task.params),
            "classes": repr(getattr(task.estimator, "classes_", None)),
        }
        if task.single_epoch and optimizer is not None:
            facts["an optimizer to go on with"] = _digest(*optimizer.states)
        found = self.communicator.allgather(facts, "beginning")
        for name in {name: None for theirs in found for name in theirs}:
            check_same(self.communicator, name, [theirs.get(name, "none") for theirs in found])

    def end(self, task: Any) -> None:
        """Make sure that all ranks have trained the same weights; after Ctrl-C, end the training of the others."""
        if task.estimator._training.interrupted:
            self.communicator.abort(INTERRUPTED)
            return
        params = weights.flat_params(task.estimator, task.network)
        found = self.communicator.allgather(_digest(params), "end")
        check_same(self.communicator, "trained weights with the digest", found)


def fit_together(estimator: Any, X: Any, y: Any, sample_weight: Any, extras: Any) -> None:
    """Fit an estimator as one rank of several.

    Parameters
    ----------
    estimator : estimator
    X, y, sample_weight
        The rows of this rank, as users give them to ``fit``.
    extras : fastmlp.estimator.base.Extras
        Its `communicator` is not None.
    """
    with taking_part(estimator, extras.communicator) as ranks:
        given = {"resume_from": extras.resume_from, "partial_fit": extras.incremental, **extras.validation}
        ranks.compare(estimator, extras.callbacks, [name for name, value in given.items() if value])
        sets = {name: ranks.rows(*triple) for name, triple in extras.validation.items()}
        extras = replace(extras, validation=sets, callbacks=ranks.callbacks(extras.callbacks), ranks=ranks)
        task = estimator._task(*ranks.rows(X, y, sample_weight), extras)
        if task is not None:
            ranks.begin(task)
            task.train()
            ranks.end(task)


@contextmanager
def taking_part(estimator: Any, given: Any) -> Iterator[Ranks]:
    """Let an estimator fit as one rank of several; whatever ends its fit ends that of the others.

    Parameters
    ----------
    estimator : estimator
    given : Communicator, or one of mpi4py's

    Raises
    ------
    CommunicationError
        If another rank fails, or does not answer in time; it names the rank.
    """
    communicator, is_ours = _communicator_of(given)
    quiet, verbose = list[warned.Warned](), estimator.verbose
    try:
        if communicator.rank == 0:
            yield Ranks(communicator)
        else:  # rank 0 tells the user what all would tell
            vars(estimator).update(verbose=False)
            with warned.kept(quiet):
                yield Ranks(communicator)
    except BaseException as error:
        communicator.abort(INTERRUPTED if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}")
        raise
    finally:
        if communicator.rank > 0:
            vars(estimator).update(verbose=verbose)
        if is_ours:
            communicator.close()


def _communicator_of(given: Any) -> tuple[Communicator, bool]:
    """Return the communicator that a user gives to ``fit``, and whether it was made for this call.

    A TypeError refuses what is neither one of ours nor one of mpi4py's.
    """
    if isinstance(given, Communicator):
        return given, False
    if type(given).__module__.partition(".")[0] == "mpi4py" and hasattr(given, "Get_rank"):
        return MPICommunicator(given), True
    raise TypeError(
        "communicator must be a fastmlp.distributed.Communicator, or one of mpi4py's such as MPI.COMM_WORLD, got"
        f" {given!r:.100}"
    )


def _parameters(estimator: Any) -> dict[str, Any]:
    """Return the parameters that all ranks must have alike, in a form that can be compared."""
    found = {name: getattr(estimator, name) for name in estimator._get_param_names() if name not in OF_A_RANK}
    if isinstance(estimator.random_state, Integral):
        found["random_state"] = int(estimator.random_state)
    return {name: _comparable(value) for name, value in found.items()}


def _comparable(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, _digest(value)
    if isinstance(value, dict):
        return {key: _comparable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_comparable, value))
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _digest(*arrays: np.ndarray) -> str:
    """Return a text that differs if a bit of the arrays differs."""
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        found.update(np.ascontiguousarray(array).view(np.uint8).data)
    return found.hexdigest()
