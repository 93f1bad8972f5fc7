"""Recorder: norms of gradients, weights and updates, dead and saturated units, layer by layer, while a network trains.

It looks at a few rows, always the same, with the calls that train and predict.  Training tells it of its
:class:`~fastmlp.training.run.Run` (``on_run_begin``) and, if it asks for steps, stops between them (``on_step``).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastmlp.data import device_arrays
from fastmlp.engines import by_name
from fastmlp.model.network import Network
from fastmlp.training.callbacks import EpochInfo, is_due
from fastmlp.training.history import COLUMNS
from fastmlp.training.rows import Rows

if TYPE_CHECKING:
    import pandas as pd

#: How near to its limit, as a share of its range, a saturated output is.
NEAR = 0.05
#: Of a record: a number per layer, or per hidden layer.
PER_LAYER = ("gradient_norm", "weight_norm", "update_ratio", "dead", "saturation")


@dataclass(eq=False)
class Recorder:
    """Record what happens inside a network while it trains, layer by layer; the training itself stays bit for bit.

    By default it looks at 64 of the training rows after every epoch. For `load_digits` and one hidden layer of 64
    neurons that takes 10 to 15 % of an epoch. Besides, epochs that a callback watches do not share a call of the
    engine: in all, that fit takes 30 % longer than one that nobody watches. Shorter epochs pay more: raise `every`.

    Parameters
    ----------
    every : int, default=1
        Number of epochs or steps between two records; the last epoch that can come is always recorded.
    unit : {"epoch", "step"}, default="epoch"
        What `every` counts. A step is a batch.
    X, y : array-like, default=None
        Rows to look at, and their targets. None: `max_rows` of the training rows, evenly spaced.
    max_rows : int, default=64
        How many training rows to look at, at most; not used with `X`.

    Attributes
    ----------
    records : list of dict
        One per record, the first before any training. ``epoch`` and ``step`` (epochs done, steps of the optimizer),
        ``network`` (its number in an ensemble), ``loss``, ``validation_loss``, ``score``, ``learning_rate`` and further
        columns of ``history_`` (NaN where they are not known; with ``unit="step"`` the loss is that since the record
        before, or since the epoch began), ``rows_loss`` (of the rows looked at, with penalty). Lists with a number per
        layer:

        - ``gradient_norm``: Euclidean norm of the gradient of W, as :meth:`~fastmlp.MLPClassifier.loss_and_gradients`
          has it;
        - ``weight_norm``: that of W;
        - ``update_ratio``: norm of what W has changed by since the record before, divided by the norm it had then;
        - ``dead``, of hidden layers: share of the units with one and the same output for all rows, as a relu that is 0;
        - ``saturation``, of hidden layers: share of outputs within 5 % of a limit of the activation, by its range
          (tanh: beyond -0.9 or 0.9; relu: 0).

    Raises
    ------
    ValueError
        If a parameter is out of its range, or only one of `X` and `y` is given.

    See Also
    --------
    fastmlp.MLPClassifier.loss_and_gradients : all gradients, of any rows.

    Notes
    -----
    ``partial_fit`` and ``train_on_batch`` call no callbacks: call :meth:`record` after them. A fit that goes on (a warm
    start, ``resume_from``) adds to the records that the recorder has. With `standardize_y` all is in the units of
    training. A fit in several processes (``communicator``) refuses a recorder.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.callbacks import Recorder
    >>> X, y = load_iris(return_X_y=True)
    >>> recorder = Recorder()
    >>> clf = MLPClassifier((8, 8), "tanh", callbacks=[recorder], max_iter=20, n_iter_no_change=20, random_state=0)
    >>> table = clf.fit(X, y) and recorder.to_frame()
    >>> len(table), list(table["layer"][:3])
    (63, ['hidden 1', 'hidden 2', 'output'])
    """

    reads_weights: ClassVar[bool] = False

    every: int = 1
    unit: str = "epoch"
    X: Any = field(default=None, repr=False)
    y: Any = field(default=None, repr=False)
    max_rows: int = 64
    records: list[dict[str, Any]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("max_rows", 2)):
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an int of at least {least}, got {value!r}")
        if self.unit not in ("epoch", "step"):
            raise ValueError(f'unit must be "epoch" or "step", got {self.unit!r}')
        if (self.X is None) != (self.y is None):
            raise ValueError("X and y must be given together, or neither of them")
        self._forget()

    def _forget(self) -> None:
        self._probes: dict[int, _Probe] = {}  # by the estimator in training
        self._by_hand: tuple[Any, _Probe | None] = (None, None)

    # --- what training calls -----------------------------------------------------------------------------------------

    @property
    def every_steps(self) -> int:
        """Steps between two calls of :meth:`on_step`; 0 for none."""
        return int(self.every) if self.unit == "step" else 0

    def on_fit_begin(self, estimator: Any) -> None:
        """Begin anew, unless the fit goes on."""
        self._forget()
        if not getattr(estimator, "loss_curve_", ()):
            self.records = []

    def on_run_begin(self, run: Any) -> None:
        """Take the first record, unless there is one of these weights."""
        probe = self._probes[id(run.estimator)] = _Probe.of_run(self, run)
        epoch, step = _n_epochs(run.estimator), int(run.optimizer.t)

        def is_later(record: dict[str, Any]) -> bool:  # than the snapshot that the fit goes on from
            return record["epoch"] > epoch or (record["epoch"] == epoch and record["step"] > step > 0)

        self.records = [record for record in self.records if record["network"] != run.number or not is_later(record)]
        if not any((r["network"], r["epoch"], r["step"]) == (run.number, epoch, step) for r in self.records):
            self._take(run, probe)

    def on_step(self, run: Any, loss: float) -> None:
        """Take a record between two steps."""
        self._take(run, self._probes[id(run.estimator)], loss=loss, learning_rate=run.optimizer.scheduled_rate)

    def __call__(self, info: EpochInfo) -> None:
        probe = self._probes[id(info.estimator)]
        run, steps = probe.run, self.every_steps
        if not steps and not is_due(info, self.every):
            return
        known = {name: values[-1] for name, values in info.estimator.history_.items() if name != "seconds"}
        latest = next((record for record in reversed(self.records) if record["network"] == run.number), {"step": -1})
        if latest["step"] != run.optimizer.t:
            if not steps or info.epoch == info.max_iter:
                self._take(run, probe, **known)
            return
        if steps:  # the loss of the record is that of its steps
            known = {name: value for name, value in known.items() if name not in ("loss", "learning_rate")}
        latest.update(known, epoch=_n_epochs(info.estimator))

    def on_fit_end(self, estimator: Any) -> None:
        """Let go of the rows; put the networks of an ensemble in order."""
        self._forget()
        self.records.sort(key=lambda record: record["network"])

    def _take(self, run: Any, probe: _Probe, **known: Any) -> None:
        run.fetch(states=False)
        self._add(run.number, run.estimator, int(run.optimizer.t), known, probe.look(run.params))

    def _add(self, network: int, estimator: Any, step: int, known: dict[str, Any], seen: dict[str, Any]) -> None:
        blank = {name: float("nan") for name in COLUMNS if name != "seconds"}
        place = {"network": network, "epoch": _n_epochs(estimator), "step": step}
        self.records.append(place | blank | known | seen)

    # --- by hand -----------------------------------------------------------------------------------------------------

    def record(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> None:
        """Add a record of an MLPClassifier or MLPRegressor between two calls of ``partial_fit`` or ``train_on_batch``.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor
            With weights: fitted, or after ``initialize``.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to look at, all of them.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from fastmlp import MLPClassifier
        >>> from fastmlp.callbacks import Recorder
        >>> X, y = load_iris(return_X_y=True)
        >>> clf, recorder = MLPClassifier((8,), random_state=0).initialize(X, y), Recorder()
        >>> for _ in range(3):
        ...     recorder.record(clf.partial_fit(X, y), X, y)
        >>> [record["step"] for record in recorder.records]
        [1, 2, 3]
        """
        if not hasattr(estimator, "_problem"):
            raise TypeError(f"record takes an MLPClassifier or MLPRegressor, got {estimator!r:.200}")
        engine, network, params, data = estimator._problem(X, y, sample_weight)
        latest, before = self._by_hand
        probe = _Probe(None, Rows(estimator, engine, network, data), before if latest is estimator else None)
        optimizer = vars(estimator)["_training"].optimizer if "_training" in vars(estimator) else None
        known = {"loss": getattr(estimator, "loss_", float("nan"))}
        if optimizer is not None and optimizer.t:
            known["learning_rate"] = optimizer.scheduled_rate
        self._add(0, estimator, 0 if optimizer is None else int(optimizer.t), known, probe.look(params))
        self._by_hand = estimator, probe

    # --- the records -------------------------------------------------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """Return the records as a pandas frame, with a row per record and layer.

        Returns
        -------
        pandas.DataFrame
            Columns: those of ``records``, ``network`` only for ensembles, and ``layer``: "hidden 1", ..., "output".

        Raises
        ------
        ImportError
            Without pandas.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("Recorder.to_frame needs pandas: pip install pandas", name="pandas") from error
        columns = ["network", "epoch", "step", "layer", *PER_LAYER]
        columns += [name for record in self.records for name in record if name not in (*columns, *PER_LAYER)]
        frame = pandas.DataFrame(self._rows(), columns=list(dict.fromkeys(columns)))
        return frame if frame["network"].any() else frame.drop(columns="network")

    def _rows(self) -> Iterator[dict[str, Any]]:
        for record in self.records:
            n_hidden = len(record["dead"])
            names = [*(f"hidden {i + 1}" for i in range(n_hidden)), "output"]
            alike = {name: value for name, value in record.items() if name not in PER_LAYER}
            for name, *values in zip_longest(names, *(record[name] for name in PER_LAYER), fillvalue=float("nan")):
                yield {**alike, "layer": name, **dict(zip(PER_LAYER, values, strict=True))}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_probes": {}, "_by_hand": (None, None)}  # a copy watches no training yet


def _n_epochs(estimator: Any) -> int:
    return len(getattr(estimator, "loss_curve_", ()))


class _Probe:
    """The rows that a recorder looks at with one network, and the weights of its latest record."""

    def __init__(self, run: Any, rows: Rows, before: _Probe | None = None) -> None:
        self.run, self.rows = run, rows
        network = rows.network
        self.places = [segment.where for segment in network.segments if segment.name == "W"]  # the first ones
        self.weights, self.norms = np.zeros(network.n_weights, network.dtype), [math.nan] * len(self.places)
        if before is not None and before.rows.network.segments == network.segments:
            self.weights, self.norms = before.weights, before.norms
        self.near = [_near_limits(rows.engine, entry, network) for entry in network.activations]

    @classmethod
    def of_run(cls, recorder: Recorder, run: Any) -> _Probe:
        """Return that of a training, for the rows that the recorder was given, or some of those to train on."""
        estimator = run.estimator
        if recorder.X is not None:
            if not hasattr(estimator, "_problem"):
                raise ValueError(f"Recorder: X and y are for MLPClassifier and MLPRegressor, not {estimator!r}")
            _, _, _, data = estimator._problem(recorder.X, recorder.y, None)
            if run.units is not None:
                data = run.units.data(data)
        else:
            order, weight = np.sort(run.order), run.data.sample_weight
            if weight is not None:
                without = weight[order] == 0  # they have no loss; batch statistics need two rows
                order = order[np.argsort(without, kind="stable")][: max(2, np.count_nonzero(~without))]
            order = order[np.linspace(0, len(order) - 1, min(len(order), recorder.max_rows)).astype(np.intp)]
            X = device_arrays.host_rows(run.data.X, order)
            data = run.data._replace(X=X, y=run.data.y[order], sample_weight=None if weight is None else weight[order])
        return cls(run, Rows(estimator, run.engine, run.network, data))

    def look(self, params: np.ndarray) -> dict[str, Any]:
        """Return what there is to say of these weights."""
        loss, grad = self.rows.loss_and_grad(params)
        weights = params[: len(self.weights)]
        changes = self._norms(np.subtract(weights, self.weights, out=self.weights))
        ratios = [change / norm if norm else math.nan for change, norm in zip(changes, self.norms, strict=True)]
        self.weights[...], self.norms = weights, self._norms(weights)
        dead, saturation = [], []
        for layer, near in enumerate(self.near):
            out = self.rows.activations(layer, params)
            dead.append(np.count_nonzero(np.maximum.reduce(out) == np.minimum.reduce(out)) / out.shape[1])
            saturation.append(near(out))
        return {
            "rows_loss": loss,
            "gradient_norm": self._norms(grad),
            "weight_norm": self.norms,
            "update_ratio": ratios,
            "dead": dead,
            "saturation": saturation,
        }

    def _norms(self, vector: np.ndarray) -> list[float]:
        """Return the Euclidean norm of the part of each layer's W."""
        return [math.sqrt(np.dot(part := vector[place], part)) for place in self.places]


#: Points of an activation: its limits, if it has some, lie at the ends.
_POINTS = np.array([-1e6, -1e4, *np.linspace(-20, 20, 401), 1e4, 1e6])


def _near_limits(engine: Any, activation: Any, network: Network) -> Callable[[np.ndarray], float]:
    """Return the share of outputs (n, width) that are near a limit of the activation, as a function of them."""
    with np.errstate(all="ignore"):
        values = by_name.activate(engine, activation, _POINTS.astype(network.dtype)).astype(np.float64)
    lower, upper = (
        values[end] if abs(values[end] - values[inner]) <= 1e-3 else None for end, inner in ((0, 1), (-1, -2))
    )
    limits = [limit for limit in (lower, upper) if limit is not None]
    size = values.max() - values.min() if len(limits) == 2 else max(map(abs, limits), default=0.0)

    def share(out: np.ndarray) -> float:
        if not limits:
            return 0.0
        near = np.abs(out - limits[0]) <= NEAR * size if size else out == limits[0]
        for limit in limits[1:]:
            near |= np.abs(out - limit) <= NEAR * size
        return np.count_nonzero(near) / near.size

    return share
