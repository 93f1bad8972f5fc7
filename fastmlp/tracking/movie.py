"""A film of a training, drawn by matplotlib."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastmlp.data.files import Reservation, replacing
from fastmlp.data.optional import needed
from fastmlp.training.callbacks import EpochInfo, check_every, is_due

#: What a frame can show, from left to right -> relative width.
PANELS = {"region": 1.0, "weights": 1.3, "curves": 1.1}
#: Formats by the end of the file's name -> class of matplotlib.animation.
WRITERS = {".gif": "PillowWriter", ".mp4": "FFMpegWriter"}


class Frame(NamedTuple):
    """What is kept of an epoch until the film is drawn."""

    epoch: int
    n_rows: int  # of the history, which may have epochs of fits before
    outputs: np.ndarray | None  # at the points of the grid
    layers: Any  # FittedLayers with weights of its own


@dataclass(eq=False)
class TrainingMovie:
    """Film a training: what the network predicts, its weights, and the curves, epoch by epoch.

    Frames are drawn when the fit ends, and the file is then written whole. A fit that ends early, by a rule, an error
    or Ctrl-C, leaves the film of its epochs.

    Parameters
    ----------
    path : str or path-like
        The file, ``.gif`` or ``.mp4``; the latter needs ffmpeg on the PATH.
    X : array-like of shape (n_samples, 1) or (n_samples, 2), default=None
        Rows to show, as the network reads them: behind a scaler in a pipeline, the scaled ones. Predictions are drawn
        over their range. Without them, or with more features, predictions are not drawn.
    y : array-like of shape (n_samples,), default=None
        What is true of these rows: colours the points of two features, or the heights of points of one.
    every : int, default=1
        Number of epochs between two frames. The first frame shows the first weights, the last one the fitted network.
    fps : float, default=10
        Frames per second.
    panels : sequence of {"region", "weights", "curves"}, default=None
        What to show, from left to right; None: all that there is.
    grid_resolution : int, default=80
        Points on each axis of the predictions.
    dpi : float, default=80
        Pixels per inch; a panel is three inches high.

    Attributes
    ----------
    n_frames_ : int
        Of the latest film.

    Raises
    ------
    ValueError
        If an argument is out of its range. In a fit: if a panel cannot be drawn, or for an ensemble.
    ImportError
        In a fit: if matplotlib is not installed.
    RuntimeError
        In a fit: if a film in ``.mp4`` is asked for and there is no ffmpeg.
    OSError
        In a fit: if the file cannot be written.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.callbacks import TrainingMovie
    >>> from sklearn.datasets import make_moons
    >>> X, y = make_moons(noise=0.2, random_state=0)
    >>> clf = MLPClassifier((8,), max_iter=100, callbacks=[TrainingMovie("moons.gif", X, y, every=5)])
    """

    reads_weights: ClassVar[bool] = False  # it copies those of its frames
    after_others: ClassVar[bool] = True  # what they change of the network belongs to the epoch

    path: str | os.PathLike[str]
    X: Any = field(default=None, repr=False)
    y: Any = field(default=None, repr=False)
    every: int = 1
    fps: float = field(default=10, kw_only=True)
    panels: Sequence[str] | None = field(default=None, kw_only=True)
    grid_resolution: int = field(default=80, kw_only=True)
    dpi: float = field(default=80, kw_only=True)
    _frames: list[Frame] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        check_every(self.every)
        if Path(self.path).suffix.lower() not in WRITERS:
            raise ValueError(f"path must end in {' or '.join(WRITERS)}, got {os.fspath(self.path)!r}")
        for name, least in (("fps", 0), ("dpi", 0), ("grid_resolution", 1)):
            value = getattr(self, name)
            if not (isinstance(value, int | float | np.number) and value > least):
                raise ValueError(f"{name} must be a number > {least}, got {value!r}")
        if self.panels is not None and (
            isinstance(self.panels, str) or not self.panels or not set(self.panels) <= set(PANELS)
        ):
            raise ValueError(f"panels must name some of {list(PANELS)}, got {self.panels!r}")
        if self.X is not None:
            try:
                rows = np.asarray(self.X, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(f"X must be a matrix of finite numbers: {error}") from error
            if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
                raise ValueError(f"X must be a matrix of finite numbers, got shape {rows.shape}")
            if self.y is not None and np.shape(self.y)[:1] != rows.shape[:1]:
                raise ValueError(f"y must have {len(rows)} values as X has rows, got shape {np.shape(self.y)}")

    def on_fit_begin(self, estimator: Any) -> None:
        animation = needed("matplotlib.animation", "TrainingMovie", '"fastmlp[plot]"')
        self._frames = []
        if max(getattr(estimator, "n_ens", 1), getattr(estimator, "n_cv", 1)) > 1:
            raise ValueError("TrainingMovie shows one network, and this fit trains several: give n_ens=1 and n_cv=1")
        path = Path(self.path)
        if not getattr(animation, WRITERS[path.suffix.lower()]).isAvailable():
            raise RuntimeError(
                f"TrainingMovie({os.fspath(self.path)!r}) needs ffmpeg, which is not on the PATH: install it, or write"
                " a .gif"
            )
        try:
            Reservation(path).release()  # a long training must not end where nothing can be written
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(self.path)) from error
        self._shown = self._panels_of(estimator)
        if "region" in self._shown and self.y is not None and hasattr(estimator, "classes_"):
            unknown = np.setdiff1d(np.asarray(self.y), np.asarray(estimator.classes_))
            if len(unknown):
                raise ValueError(f"y of TrainingMovie holds {unknown.tolist()}, which the classes of the fit do not")
        if hasattr(estimator, "coefs_"):
            self._take(estimator)

    def __call__(self, info: EpochInfo) -> None:
        if is_due(info, self.every):
            self._take(info.estimator)

    def on_fit_end(self, estimator: Any) -> None:
        if self._frames and self._frames[-1].epoch < getattr(estimator, "n_iter_", 0):
            self._take(estimator)
        frames, self._frames = self._frames, []
        if frames:
            self._write(frames, dict(estimator.history_), getattr(estimator, "classes_", None))
            self.n_frames_ = len(frames)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_frames": []}  # a copy has filmed nothing yet

    # --- frames ------------------------------------------------------------------------------------------------------

    def _panels_of(self, estimator: Any) -> list[str]:
        """Return what a frame shows; a ValueError names what it cannot show."""
        from fastmlp.estimator.base import _BaseMLP

        n_features = 0 if self.X is None else np.shape(self.X)[1]
        region = "" if n_features in (1, 2) else f"X has {n_features} features, and a region needs one or two"
        if n_features == 2 and _has_several_outputs(estimator):
            region = "there are several outputs, and a region shows one"
        why_not = {
            "region": region,
            "weights": "" if isinstance(estimator, _BaseMLP) else f"{type(estimator).__name__} has no plain weights",
            "curves": "",
        }
        if self.panels is None:
            return [panel for panel, reason in why_not.items() if not reason]
        for panel in self.panels:
            if why_not[panel]:
                raise ValueError(f"TrainingMovie cannot show {panel!r}: {why_not[panel]}")
        return list(self.panels)

    def _take(self, estimator: Any) -> None:
        from fastmlp.estimator.description import fitted_layers

        layers = None
        if "weights" in self._shown:
            layers = vars(fitted_layers(estimator))
            layers |= {name: [array.copy() for array in layers[name]] for name in ("coefs", "intercepts")}
        outputs = None if "region" not in self._shown else _outputs(estimator, self._points())
        self._frames.append(Frame(estimator.n_iter_, len(estimator.history_["loss"]), outputs, layers))

    def _grid(self) -> list[np.ndarray]:
        """Return the values of each feature at which predictions are drawn."""
        rows = np.asarray(self.X, dtype=np.float64)
        low, high = rows.min(axis=0), rows.max(axis=0)
        room = np.where(high > low, 0.1 * (high - low), 1.0)
        n = self.grid_resolution if rows.shape[1] == 2 else 4 * self.grid_resolution
        return [np.linspace(a, b, int(n)) for a, b in zip(low - room, high + room, strict=True)]

    def _points(self) -> Any:
        """Return the points of the grid as rows, with the names of X's columns if it has some."""
        axes = self._grid()
        points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, len(axes))
        return type(self.X)(points, columns=self.X.columns) if hasattr(self.X, "columns") else points

    # --- the film ----------------------------------------------------------------------------------------------------

    def _write(self, frames: list[Frame], history: dict[str, Any], classes: Any) -> None:
        """Draw the frames into a file beside all others, and put it in its place."""
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        widths = [PANELS[panel] for panel in self._shown]
        layouts = {"figure.constrained_layout.use": False, "figure.autolayout": False}  # savefig would choose one, too
        with rc_context(layouts):
            figure = Figure(figsize=(3 * sum(widths) + 0.6, 3.0))  # no window, whatever the backend
        FigureCanvasAgg(figure)
        shown = [frame.outputs for frame in frames if frame.outputs is not None]
        if classes is None and self.y is not None:
            shown.append(np.asarray(self.y, dtype=np.float32))
        finite = np.concatenate([values[np.isfinite(values)] for values in shown] or [np.zeros(0)])
        self._ends = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        suffix = Path(self.path).suffix.lower()
        writer = _gif_writer(self.fps) if suffix == ".gif" else _mp4_writer(self.fps)
        with tempfile.TemporaryDirectory() as folder:
            film = Path(folder, f"film{suffix}")
            with rc_context(layouts), writer.saving(figure, str(film), self.dpi):
                for frame in frames:
                    figure.clear()
                    self._draw(figure, widths, frame, history, classes)
                    writer.grab_frame()
                writer.hold()  # the end stays for a second
            with replacing(Path(self.path)) as stream:
                stream.write(film.read_bytes())

    def _draw(self, figure: Any, widths: list[float], frame: Frame, history: dict[str, Any], classes: Any) -> None:
        axes = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
        figure.subplots_adjust(left=0.07, right=0.9, bottom=0.2, top=0.78, wspace=0.3)
        figure.suptitle(f"epoch {frame.epoch}", fontsize=10)
        for ax, panel in zip(axes, self._shown, strict=True):
            if panel == "region":
                self._draw_region(ax, frame.outputs, classes)
            elif panel == "weights":
                _draw_weights(ax, frame.layers)
            else:
                _draw_curves(ax, history, frame.n_rows)

    def _draw_region(self, ax: Any, outputs: Any, classes: Any) -> None:
        rows, grid = np.asarray(self.X, dtype=np.float64), self._grid()
        if len(grid) == 1:
            ax.plot(grid[0], outputs, linewidth=1.5, zorder=2)
            if self.y is not None and classes is None:
                ax.plot(rows[:, 0], np.asarray(self.y), ".", color="0.5", markersize=3, zorder=1)
            room = 0.05 * (self._ends[1] - self._ends[0])
            ax.set_ylim(self._ends[0] - room, self._ends[1] + room)
            ax.set_ylabel("prediction" if classes is None else "probability", fontsize=8)
        else:
            known = None if self.y is None else np.asarray(self.y)
            style = {"cmap": "viridis", "vmin": self._ends[0], "vmax": self._ends[1]}
            if classes is not None:
                known = None if known is None else np.searchsorted(classes, known)
                style = {"cmap": "RdBu", "vmin": 0, "vmax": 1}
                if len(classes) > 2:
                    style = {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5}
                    outputs, known = outputs.argmax(axis=1) % 10, None if known is None else known % 10
                else:
                    outputs = outputs[:, -1]
            image = outputs.reshape(len(grid[1]), len(grid[0]))
            extent = [ends for axis in grid for ends in (axis[0], axis[-1])]
            ax.imshow(image, origin="lower", extent=extent, aspect="auto", alpha=0.5, **style)
            if known is not None:
                ax.scatter(*rows.T, c=known, s=12, edgecolors="white", linewidths=0.4, **style)
        ax.tick_params(labelsize=7)

    def __repr__(self) -> str:
        return f"TrainingMovie({os.fspath(self.path)!r}, every={self.every!r})"


def _has_several_outputs(estimator: Any) -> bool:
    """Return whether a prediction is several numbers or labels, not a class."""
    classes = hasattr(estimator, "classes_") and getattr(estimator, "out_activation_", None) != "logistic"
    return getattr(estimator, "n_outputs_", 1) > 1 and not classes


def _gif_writer(fps: Any) -> Any:
    """Return matplotlib's writer by Pillow, with one palette for all frames, which halves the file."""
    from matplotlib.animation import PillowWriter
    from PIL import Image

    class Writer(PillowWriter):
        _frames: list[Any]

        def hold(self) -> None:
            self._frames += self._frames[-1:] * round(self.fps)

        def finish(self) -> None:
            frames = self._frames
            if not frames:  # drawing has failed, and nobody will see the file
                return
            width, height = frames[0].size
            sheet = Image.new("RGB", (width, 3 * height))
            for i, frame in enumerate([frames[0], frames[len(frames) // 2], frames[-1]]):
                sheet.paste(frame, (0, i * height))
            palette = sheet.quantize(256)
            self._frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
            super().finish()

    return Writer(fps=fps)


def _mp4_writer(fps: Any) -> Any:
    """Return matplotlib's writer by ffmpeg."""
    from matplotlib.animation import FFMpegWriter

    class Writer(FFMpegWriter):
        def hold(self) -> None:
            for _ in range(round(self.fps)):
                self.grab_frame()

    return Writer(fps=fps)


def _outputs(estimator: Any, points: Any) -> np.ndarray:
    """Return probabilities (n, n_classes), decision values squeezed into (0, 1), or predictions (n, n_outputs)."""
    if hasattr(estimator, "predict_proba"):
        found = estimator.predict_proba(points)
    elif hasattr(estimator, "decision_function"):
        found = 1 / (1 + np.exp(-np.asarray(estimator.decision_function(points), np.float64)))
    else:
        found = estimator.predict(points)
    return np.asarray(found, dtype=np.float32).reshape(len(points), -1)


def _draw_weights(ax: Any, layers: Any) -> None:
    from fastmlp.displays import NetworkDisplay

    if all(np.isfinite(array).all() for name in ("coefs", "intercepts") for array in layers[name]):
        NetworkDisplay.from_weights(**layers, ax=ax, max_units=10, legend=False)
    else:
        ax.text(0.5, 0.5, "weights are not finite", ha="center")
        ax.axis("off")


def _draw_curves(ax: Any, history: dict[str, Any], n_rows: int) -> None:
    """Draw the first rows of a history, on the axes of all of them."""
    from fastmlp.displays import LossCurveDisplay

    n = len(history["loss"])
    if n_rows:
        display = LossCurveDisplay.from_history({name: column[:n_rows] for name, column in history.items()}, ax=ax)
        ends = {"loss": ax, "score": display.score_ax_}
    else:
        ends = {"loss": ax}
        ax.set(xlabel="epoch", ylabel="loss")
    for end, axis in ends.items():
        columns = [column for name, column in history.items() if name == end or name.endswith(f"_{end}")]
        values = np.array([column for column in columns if len(column)], dtype=np.float64)
        values = values[np.isfinite(values)]
        if axis is not None and len(values):
            room = 0.05 * float(np.ptp(values) or 1.0)
            axis.set_ylim(values.min() - room, values.max() + room)
    ax.set_xlim(0.5, n + 0.5)
    ax.tick_params(labelsize=7)
