"""Networks in step: several that train on the same rows, and are judged after each epoch by their mean.

::

    each network, on its own thread:  epoch -> outputs for the evaluated rows -> wait for the others
    the thread that comes last:       mean of the outputs, in the order of the networks -> losses and scores for all

So the Stopping of each network is told the same numbers: all networks end after the same epoch, and go back to the same
one.  many.py has a thread for each network of a group, and lets some of them run at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastmlp.kernels import interrupts
from fastmlp.training.together import Turns
from fastmlp.training.validation import UNLINKED, Evaluation


class Group:
    """Networks in step, which wait for one another.

    Parameters
    ----------
    evaluations : sequence of Evaluation
        One for each network, in their order; from now on they come to what the mean of all networks comes to.
    """

    def __init__(self, evaluations: Sequence[Evaluation]) -> None:
        self.size, self._evaluations = len(evaluations), list(evaluations)
        #: Holds back the networks beyond the number of threads; of the trainings side by side.
        self.turns = Turns(self.size)
        self._condition = threading.Condition()
        self._brought: dict[Evaluation, Any] = {}
        self._n_meetings, self._result = 0, None
        self._one_has_left = False
        for evaluation in evaluations:
            evaluation.together = partial(self.meet, evaluation, combine=self._measured)

    def meet(self, of: Evaluation, value: Any, combine: Callable[[list[Any]], Any]) -> Any:
        """Bring a value of one network, wait for those of the others, return what `combine` makes of all in order.

        KeyboardInterrupt ends the wait if training is stopped, or if another network does not come any more.
        """
        with self._condition:
            meeting = self._n_meetings
            self._brought[of] = value
            if len(self._brought) == self.size:
                self._result = combine([self._brought[evaluation] for evaluation in self._evaluations])
                self._brought, self._n_meetings = {}, meeting + 1
                self._condition.notify_all()
                self.turns.expect(self.size - 1)
                return self._result
        self.turns.leave()  # another network trains while this one waits
        try:
            return self._result_of(meeting, of)
        finally:
            self.turns.come_back()

    def _result_of(self, meeting: int, of: Evaluation) -> Any:
        """Wait for a meeting to be complete, and return what it came to."""
        with self._condition:
            while self._n_meetings == meeting:
                try:
                    interrupts.check()
                    if self._one_has_left:
                        raise KeyboardInterrupt
                except KeyboardInterrupt:
                    del self._brought[of]  # the meeting is complete for all or for none
                    self.turns.expect(1)
                    raise
                self._condition.wait(interrupts.SLICE)
            return self._result  # that of the next meeting needs this network

    def leave(self) -> None:
        """Note that a network has ended: those that wait for it, since something has made them differ, end too."""
        with self._condition:
            self._one_has_left = True
            self._condition.notify_all()

    def _measured(self, brought: list[dict[str, np.ndarray]]) -> dict[str, dict[str, float]]:
        """Return the loss and the scores of the mean of all networks' outputs (n, n_outputs), for each set of rows."""
        evaluation, measured = self._evaluations[0], {}
        for name, rows in evaluation.sets.items():
            mean = brought[0][name].copy()
            for outputs in brought[1:]:
                mean += outputs[name]
            mean /= self.size  # the operations of a prediction by the ensemble, so the same bits
            measured[name] = rows(UNLINKED[evaluation.link](mean.copy()), mean)
        return measured
