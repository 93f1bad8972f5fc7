"""scikit-learn's callbacks (``set_callbacks``, since 1.9) around fastmlp's training.

For estimators: inherit from :class:`CallbackSupportMixin`; in ``fit``, which scikit-learn's ``_fit_context`` decorates
and which thereby tears callbacks down, wrap the training::

    with fit_task(self, X, y, sample_weight) as more:
        ...  # train with callbacks=[*callbacks, *more]: each of them is called once per epoch

``more`` is empty if no scikit-learn callback is set: then nothing is done.  Otherwise it holds one callback that
reports each epoch as a subtask of the fit, as scikit-learn's own iterative estimators do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastmlp.training.callbacks import EpochInfo


class _NoCallbacks:
    """Stand-in without ``set_callbacks``: there is no protocol to support."""


if TYPE_CHECKING:  # an unknown base class would hide the estimators' attributes
    CallbackSupportMixin = _NoCallbacks
else:
    try:
        # no cost: scikit-learn's estimators and their fit import it anyway
        from sklearn.callback import CallbackSupportMixin
    except ImportError:  # scikit-learn < 1.9
        CallbackSupportMixin = _NoCallbacks


@contextmanager
def fit_task(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    max_epochs: int | None = None,
) -> Iterator[tuple[Callable[[EpochInfo], bool], ...]]:
    """Report a fit, and each of its epochs, to the callbacks set by ``estimator.set_callbacks``.

    The ``copy.copy`` of the estimator must be able to predict after an epoch. X, y and sample_weight are as the user
    gave them to ``fit``: a scorer will hand X to ``predict``. `max_epochs` is the most epochs that can come,
    ``estimator.max_iter`` if None; 0: epochs are not reported. The tuple that it yields is empty without callbacks.
    Otherwise it has one callable, to be called with an :class:`~fastmlp.callbacks.EpochInfo` after each epoch; it
    returns whether to stop. What its callbacks return is judged by scikit-learn: any true value is a wish to stop, for
    its own estimators too.

    An epoch begins where the one before ended.  So if training stops by a rule of its own before ``max_epochs``,
    one epoch was begun that never ran; it is ended empty, as scikit-learn does around L-BFGS.  If training fails, tasks
    stay open and scikit-learn only tears the callbacks down.
    """
    if not getattr(estimator, "_skl_callbacks", None):
        yield ()
        return
    max_epochs = estimator.max_iter if max_epochs is None else max_epochs
    root = estimator._init_callback_context(max_subtasks=max_epochs)
    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    given = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
    root.call_on_fit_task_begin(**given)
    epochs = _Epochs(root, given)
    if max_epochs:
        epochs.begin()
    yield (epochs,)
    epochs.close()
    root.call_on_fit_task_end(**given, reconstruction_attributes=dict)


class _Epochs:
    """Ends the task of the epoch that was trained, and begins that of the next."""

    def __init__(self, root: Any, given: dict[str, Any]) -> None:
        self._root, self._given = root, given
        self._task: Any = None
        self._callbacks = list(given["estimator"]._skl_callbacks)

    def __repr__(self) -> str:
        return f"set_callbacks({', '.join(type(callback).__name__ for callback in self._callbacks)})"

    def begin(self) -> None:
        self._task = self._root.subcontext(task_name="epoch")
        self._task.call_on_fit_task_begin(**self._given)

    def __call__(self, info: EpochInfo) -> bool:
        if self._task is None:
            return False
        task, self._task = self._task, None
        # the estimator as it is after an epoch is what it would be if fit had stopped here
        stop = bool(task.call_on_fit_task_end(**self._given, reconstruction_attributes=dict))
        if not stop and info.epoch < info.max_iter:
            self.begin()
        return stop

    def close(self) -> None:
        if self._task is not None:
            self._task.call_on_fit_task_end(estimator=self._given["estimator"])
