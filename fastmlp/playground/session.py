"""A network in training whose settings may change, and what there is to see of it.

There is no web in it, and no clock but the limit of :meth:`Session.advance`: the caller says when to train.
"""

from __future__ import annotations

import time
from math import isfinite
from typing import Any

import numpy as np
from scipy.special import expit

from fastmlp.engines import backends, by_name
from fastmlp.estimators import MLPClassifier, MLPRegressor
from fastmlp.playground.code import program
from fastmlp.playground.data import DATA_SETS, EXTENT, FEATURES, Table, draw, features_of, split
from fastmlp.playground.settings import DEFAULTS, FIELDS, TABLE, Settings, SettingsError

#: Side of the maps of units, and of the output's map, in cells.
UNIT_CELLS, OUTPUT_CELLS = 32, 96

#: L-BFGS begins each update anew; with fewer iterations it would know nothing of the curvature.
LEAST_ITERATIONS = 10


class Session:
    """One page's network.

    Parameters
    ----------
    table : Table, default=None
        A data set of the user's, beside those of ``DATA_SETS``.

    Raises
    ------
    SettingsError
        If the default settings make no sense with the table.

    Examples
    --------
    >>> from fastmlp.playground.session import Session
    >>> session = Session()
    >>> session.apply({**session.settings, "dataset": "gauss"})
    True
    >>> session.advance(20)
    20
    >>> header, arrays = session.view()
    >>> header["test"]["score"] > 0.9
    True
    >>> arrays["units"].shape, arrays["output"].shape
    ((16, 32, 32), (1, 96, 96))
    """

    estimator: Any
    problem: str | None  # what has stopped training

    def __init__(self, table: Table | None = None) -> None:
        self.table = table
        self.defaults: Settings = DEFAULTS if table is None else {**DEFAULTS, "dataset": TABLE, "noise": 0.0}
        self.settings: Settings = {}
        self.apply(self.defaults)

    # --- settings ----------------------------------------------------------------------------------------------------

    def apply(self, settings: Settings) -> bool:
        """Take settings that :func:`fastmlp.playground.settings.read` has made.

        Changes of fields that keep the weights go on with a new optimizer; others begin anew.

        Returns
        -------
        bool
            Whether the weights are new.

        Raises
        ------
        SettingsError
            If the settings contradict each other; then everything stays as it was.
        """
        changed = {name for name, value in settings.items() if self.settings.get(name) != value}
        source = self._source(settings)
        data = draw(source, settings["n_samples"], settings["noise"], settings["random_state"])
        train, test = split(data.y, settings["train_share"], settings["random_state"])
        task = source.task if isinstance(source, Table) else DATA_SETS[source].task
        estimator = _made(settings, task, len(train))
        X = features_of(data.points, settings["features"])
        try:
            estimator.initialize(X[train], data.y[train])
        except (ValueError, TypeError) as error:
            raise SettingsError({_field_of(error): str(error)}) from None

        self.settings, self.task, self.data = dict(settings), task, data
        self.train, self.test, self.X = train, test, X
        if all(FIELDS[name].keeps_weights for name in changed):
            estimator.set_weights(self.estimator.get_weights())
            self.estimator, self.problem = estimator, None
            return False
        self._begin(estimator)
        return True

    def reset(self) -> None:
        """Begin anew with the same settings and the same first weights."""
        estimator = _made(self.settings, self.task, len(self.train))
        self._begin(estimator.initialize(self.X[self.train], self.data.y[self.train]))

    def _begin(self, estimator: Any) -> None:
        self.estimator, self.epoch, self.problem = estimator, 0, None
        units, outputs = _grid(UNIT_CELLS), _grid(OUTPUT_CELLS)
        self._unit_rows = features_of(units, self.settings["features"])
        self._output_rows = features_of(outputs, self.settings["features"])

    def _source(self, settings: Settings) -> str | Table:
        if settings["dataset"] != TABLE:
            return str(settings["dataset"])
        if self.table is None:
            raise SettingsError({"dataset": "there is no table: name a file on the command line"})
        return self.table

    @property
    def code(self) -> str:
        """The present settings as a program."""
        table = self.table if self.settings["dataset"] == TABLE else None
        given = _parameters(self.settings, self.task, len(self.train))
        return program(self.settings, self.task, given, self.epoch, table)

    # --- training ----------------------------------------------------------------------------------------------------

    def advance(self, n_epochs: int = 1, seconds: float = np.inf) -> int:
        """Train for some epochs, or fewer if these take longer than some seconds.

        Returns
        -------
        int
            The epochs done; 0 if training has failed, until settings change or it is reset. ``problem`` says why.
        """
        if self.problem is not None:
            return 0
        begin, until = self.epoch, time.perf_counter() + seconds
        X, y = self.X[self.train], self.data.y[self.train]
        try:
            if self.settings["solver"] == "lbfgs":
                n_epochs = max(n_epochs, LEAST_ITERATIONS)
                self.estimator.set_params(max_iter=n_epochs, warm_start=True).fit(X, y)
                self.epoch += n_epochs
                return n_epochs
            while self.epoch < begin + n_epochs:
                self.estimator.partial_fit(X, y)
                self.epoch += 1
                if time.perf_counter() > until:
                    break
        except (ValueError, FloatingPointError) as error:
            self.problem = f"Training stopped: {error}"
        return self.epoch - begin

    # --- what there is to see ----------------------------------------------------------------------------------------

    def scene(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what stays while a network trains: the points, and maps of all features."""
        inputs = features_of(_grid(UNIT_CELLS), tuple(FEATURES)).T.reshape(-1, UNIT_CELLS, UNIT_CELLS)
        is_training = np.zeros(len(self.data.y), dtype=np.uint8)
        is_training[self.train] = 1
        header = {
            "task": self.task,
            "extent": EXTENT,
            "classes": self._classes(),
            "axes": list(self.table.columns) if self.settings["dataset"] == TABLE and self.table else ["x₁", "x₂"],
            "range": self._range(),
        }
        return header, {
            "points": self.data.points.astype(np.float32),
            "targets": self.data.y.astype(np.float32),
            "training": is_training,
            "inputs": np.stack([_signed(values) for values in inputs]),
        }

    def view(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what changes while a network trains.

        Returns
        -------
        header : dict
            Epoch, loss without the penalty and score of the training and of the test rows, norms of the gradient of
            each layer's weights with the penalty, learning rate, widths, and what has stopped training, if anything
            has.
        arrays : dict of str to ndarray
            ``weights`` and ``biases``, float32, layer after layer; ``units`` (n_units, 32, 32) uint8, the outputs of
            the hidden units over the plane, 128 for 0; ``scales`` (n_units,) float32, what 255 stands for; ``output``
            (n_outputs, 96, 96) uint8, probabilities, or values over the range of the targets.
        """
        X, y, estimator = self.X, self.data.y, self.estimator
        gradients = estimator.loss_and_gradients(X[self.train], y[self.train]).coefs
        layers = estimator.layer_outputs(np.vstack([X, self._unit_rows]))
        below, outputs = layers[-2][: len(X)] if len(layers) > 1 else X, layers[-1][: len(X)]
        logits, predicted = below @ estimator.coefs_[-1] + estimator.intercepts_[-1], estimator._decode(outputs)
        hidden = [layer[len(X) :] for layer in layers[:-1]]
        maps = [values.reshape(UNIT_CELLS, UNIT_CELLS) for layer in hidden for values in layer.T]
        rates = estimator.__dict__.get("history_", {}).get("learning_rate")
        header = {
            "epoch": self.epoch,
            "train": {"loss": self._loss(logits, self.train), "score": self._score(predicted, self.train)},
            "test": {"loss": self._loss(logits, self.test), "score": self._score(predicted, self.test)},
            "gradients": [_plain(np.linalg.norm(W)) for W in gradients],
            "rate": rates[-1] if rates else None,
            "widths": [X.shape[1], *(layer.shape[1] for layer in hidden), estimator.n_outputs_],
            "problem": self.problem,
        }
        empty = np.zeros((0, UNIT_CELLS, UNIT_CELLS), np.uint8)
        return header, {
            "weights": np.concatenate([W.ravel() for W in estimator.coefs_]).astype(np.float32),
            "biases": np.concatenate(estimator.intercepts_).astype(np.float32),
            "units": np.stack([_signed(values) for values in maps]) if maps else empty,
            "scales": np.array([_scale(values) for values in maps], np.float32),
            "output": self._output(),
        }

    def _loss(self, logits: np.ndarray, rows: np.ndarray) -> float | None:
        """Return the mean loss of some rows, without the penalty."""
        y = self.data.y[rows]
        objective = self.estimator._objective(y)
        targets = self.estimator._encode(y, logits.dtype, objective)
        return _plain(by_name.loss(backends.get("auto"), objective.loss, logits[rows], targets)[0])

    def _score(self, predicted: np.ndarray, rows: np.ndarray) -> float | None:
        """Return the share of correct classes, or the share of the variance that is explained, R^2."""
        y = self.data.y[rows]
        if self.task == "classification":
            return float(np.mean(predicted[rows] == y))
        left, all_of_it = ((y - predicted[rows]) ** 2).sum(), ((y - y.mean()) ** 2).sum()
        return _plain(1 - left / all_of_it) if all_of_it else None

    def _output(self) -> np.ndarray:
        values = self.estimator.layer_outputs(self._output_rows, -1)  # (cells, n_outputs)
        if self.task == "regression":
            low, high = self._range()
            shares = (values - low) / (high - low)
        elif self.estimator.out_activation_ in ("logistic", "softmax"):
            shares = values
        else:  # decision values
            shares = expit(2 * values)
            shares = shares / shares.sum(axis=1, keepdims=True) if shares.shape[1] > 1 else shares
        shares = np.nan_to_num(np.clip(255 * shares, 0, 255))
        return shares.round().astype(np.uint8).T.reshape(-1, OUTPUT_CELLS, OUTPUT_CELLS)

    def _range(self) -> tuple[float, float]:
        """Return the values that the ends of the colours stand for."""
        largest = float(np.abs(self.data.y).max()) or 1.0
        return (-largest, largest) if self.task == "regression" else (0.0, 1.0)

    def _classes(self) -> list[str]:
        if self.task == "regression":
            return []
        if self.settings["dataset"] == TABLE and self.table is not None:
            return list(self.table.classes)
        return [str(label) for label in np.unique(self.data.y)]


# --- estimators -------------------------------------------------------------------------------------------------------


def _parameters(settings: Settings, task: str, n_rows: int) -> dict[str, Any]:
    """Return the parameters of the estimator that differ from its defaults, and the seed."""
    names = ("hidden_layer_sizes", "activation", "init", "solver", "learning_rate_init", "learning_rate", "alpha")
    given = {name: settings[name] for name in (*names, "l1_ratio", "dropout", "random_state")}
    given["loss"] = settings["loss" if task == "classification" else "regression_loss"]
    given["batch_size"] = min(settings["batch_size"], n_rows)
    given["batch_norm"] = settings["batch_norm"] != "none" and settings["batch_norm"]
    if settings["learning_rate"] != "constant":
        given["max_iter"] = settings["max_iter"]
    defaults = _class_of(task)().get_params(deep=False)
    return {name: value for name, value in given.items() if value != defaults[name] or name == "random_state"}


def _class_of(task: str) -> type:
    return MLPClassifier if task == "classification" else MLPRegressor


def _made(settings: Settings, task: str, n_rows: int) -> Any:
    return _class_of(task)(**_parameters(settings, task, n_rows), n_jobs=1)


def _field_of(error: Exception) -> str:
    """Return the field that an error of an estimator is about; "" for none."""
    name = str(error).partition("=")[0]
    return name if name in FIELDS else ""


# --- maps -------------------------------------------------------------------------------------------------------------


def _grid(n: int) -> np.ndarray:
    """Return the centres of n x n cells of the plane, (n n, 2), row by row from the top."""
    centres = EXTENT * ((2 * np.arange(n) + 1) / n - 1)
    x1, x2 = np.meshgrid(centres, centres[::-1])
    return np.column_stack([x1.ravel(), x2.ravel()])


def _scale(values: np.ndarray) -> float:
    """Return the largest absolute value that is finite; 1 if all are 0."""
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) or 1.0


def _signed(values: np.ndarray) -> np.ndarray:
    """Return values as uint8, 128 for 0 and 1 or 255 for the largest absolute value."""
    return np.nan_to_num(128 + 127 * np.clip(values / _scale(values), -1, 1), nan=128).astype(np.uint8)


def _plain(value: Any) -> float | None:
    """Return a number for JSON, which has no NaN."""
    return float(value) if isfinite(value) else None
