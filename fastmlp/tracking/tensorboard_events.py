"""Event files of TensorBoard, by its own writer."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from fastmlp.data.optional import needed
from fastmlp.tracking.epoch import numbers_of
from fastmlp.training.callbacks import EpochInfo, check_every, is_due


@dataclass(eq=False)
class TensorBoard:
    """Write each epoch's numbers as scalars for ``tensorboard --logdir log_dir``.

    Parameters
    ----------
    log_dir : str or path-like
        Folder of the event files. Each fit makes a new folder in it, ``fit-1``, ``fit-2``, ..., which TensorBoard shows
        as a run; so searches work, also in several processes.
    every : int, default=1
        Number of epochs between two that are written; epoch ``max_iter`` is always written.

    Attributes
    ----------
    run_dir_ : pathlib.Path
        Folder of the latest fit.

    Raises
    ------
    ValueError
        If `every` is less than 1.
    ImportError
        In a fit: if TensorBoard is not installed.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> clf = MLPClassifier(callbacks=[TensorBoard("runs/first")])
    """

    reads_weights: ClassVar[bool] = False

    log_dir: str | os.PathLike[str]
    every: int = 1
    _writer: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_every(self.every)
        self.log_dir = os.fspath(self.log_dir)

    def on_fit_begin(self, estimator: Any) -> None:
        summary = needed("tensorboard.summary", "TensorBoard", '"fastmlp[tensorboard]"')
        self.run_dir_ = _new_folder(Path(self.log_dir))
        self._writer = summary.Writer(str(self.run_dir_))

    def __call__(self, info: EpochInfo) -> None:
        if is_due(info, self.every):
            for name, value in numbers_of(info).items():
                self._writer.add_scalar(name, value, info.epoch)

    def on_fit_end(self, estimator: Any) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_writer": None}  # a copy has written nothing yet


def _new_folder(parent: Path) -> Path:
    """Make the first of ``fit-1``, ``fit-2``, ... that nobody has made."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in count(sum(1 for _ in parent.glob("fit-*")) + 1):
        folder = parent / f"fit-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        break
    return folder
