"""What is evaluated after each epoch: validation rows, their loss and score, and the history of all epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer
from sklearn.model_selection import train_test_split

from fastmlp.data import device_arrays, targets
from fastmlp.engines.backends import Data
from fastmlp.kernels import formulas, reference
from fastmlp.model import choices
from fastmlp.model.network import Network

#: Columns of ``history_``.
COLUMNS = ("loss", "validation_loss", "score", "learning_rate", "seconds")


def new_history() -> dict[str, list[float]]:
    """Return a history without a row."""
    return {name: [] for name in COLUMNS}


#: Outputs of a softmax from which NumPy is faster than a product with the identity, of (width, width).
WIDE = 256


class _Head:
    """The loss and the predictions of given logits: a network of one layer whose weights are the identity.

    Except for softmax each logit is a row of it, whose loss is then a mean over the outputs.
    """

    def __init__(self, engine: ModuleType, network: Network) -> None:
        self._engine, self._name = engine, network.loss
        self._link, self._width = targets.link_of(network.loss), network.widths[-1]
        self._is_wide = self._link == "softmax" and self._width > WIDE
        if self._is_wide:
            return
        width, self._columns = (self._width, 1) if self._link == "softmax" else (1, self._width)
        row = None if choices.is_formula(network.loss) else formulas.LOSSES[choices.name_of(network.loss)]
        self._outputs_summed = 1 if row and row.mean_over_outputs else self._columns
        self._network = Network((width, width), (), network.loss, network.dtype)
        self._params = np.zeros(self._network.n_params, network.dtype)
        np.fill_diagonal(self._network.coefs(self._params)[0], 1)
        self._grad = np.empty_like(self._params)

    def select(self, y: np.ndarray, weight: np.ndarray | None) -> None:
        """Take these targets and sample weights from now on."""
        self._y, self._weight, self._weightless = y, weight, weight is not None and weight.sum() == 0
        if not self._is_wide:
            self._y = y if self._link == "softmax" else y.reshape(-1, 1)
            self._weight = None if weight is None else weight.repeat(self._columns)
            # one thread: this is little work, and a second team of threads beside the training's would cost more
            self._workspace = self._engine.workspace(self._network, len(y) * self._columns, 1)

    def loss(self, logits: np.ndarray) -> float:
        """Return the mean loss of logits (n, n_outputs)."""
        if self._weightless:
            return np.nan  # a mean over nothing
        if self._is_wide:
            return reference.loss(self._name, logits, self._y, self._weight)[0]
        data = Data(logits.reshape(-1, self._width // self._columns), self._y, self._weight)
        value = self._engine.loss_and_grad(self._workspace, self._params, data, 0.0, self._grad)
        return value * self._outputs_summed

    def outputs(self, logits: np.ndarray) -> np.ndarray:
        """Return the predictions (n, n_outputs) of these logits."""
        if self._link == "identity":
            return logits
        if self._is_wide:
            return reference.softmax(logits)
        outputs, shape = np.empty_like(logits), (-1, self._width // self._columns)
        self._engine.predict(self._workspace, self._params, logits.reshape(shape), outputs.reshape(shape))
        return outputs


class Validation:
    """Rows to validate on, and how well the present weights do there.

    One forward pass, to the logits, serves both loss and score. Batch normalisation is folded, dropout is off.

    The estimator in training is read for ``monitor`` and its way to score. `params` are the weights that are trained in
    place. `data` has rows and targets as the network has them, `y` the targets as the user has them; `rows` are those
    of both to validate on, all if left out.
    """

    def __init__(
        self,
        estimator: Any,
        engine: ModuleType,
        network: Network,
        params: np.ndarray,
        data: Data,
        y: np.ndarray,
        rows: np.ndarray | None = None,
    ) -> None:
        self._estimator, self._engine = estimator, engine
        self._network, self._params = network, params
        self._all, self._all_y = data, y
        self._head = _Head(engine, network)
        self.select(rows)

    def watch(self, params: np.ndarray) -> None:
        """Validate these weights from now on: training goes on in another vector."""
        self._params = params

    def select(self, rows: np.ndarray | None) -> None:
        """Validate on these rows from now on."""
        X, y, weight = self._all
        n = X.shape[0] if rows is None else len(rows)
        self.rows = rows
        self._X = X
        self._targets = y if rows is None else y[rows]
        self._y = self._all_y if rows is None else self._all_y[rows]
        self._weight = weight if rows is None or weight is None else weight[rows]
        # squared_error has the identity as its link: "predictions" of this network are logits
        self._to_logits = replace(self._network.plain, loss="squared_error")
        self._workspace = self._engine.workspace(self._to_logits, n, self._estimator.n_jobs)
        self._head.select(self._targets, self._weight)
        self._score = self._scorer()

    def __len__(self) -> int:
        return len(self._targets)

    def __call__(self) -> tuple[float, float]:
        """Return (loss without penalty, score) of the present weights."""
        # new in each epoch: an engine may know arrays that come again by their identity
        logits = np.empty((len(self), self._network.widths[-1]), self._network.dtype)
        self._engine.predict(self._workspace, self._network.folded(self._params)[1], self._X, logits, self.rows)
        return self._head.loss(logits), self._score(self._head.outputs(logits))

    def _scorer(self) -> Callable[[np.ndarray], float]:
        """Return the score as a function of outputs (n, n_outputs)."""
        estimator, monitor = self._estimator, self._estimator.monitor
        if isinstance(monitor, str) and monitor in ("score", "loss"):
            return lambda outputs: estimator._score(outputs, self._y, self._weight)
        scorer = get_scorer(monitor)
        X = device_arrays.host_rows(self._X, self.rows)  # once in a fit: scorers of the user's may look at the rows
        weight = {} if self._weight is None else {"sample_weight": self._weight}

        def score(outputs: np.ndarray) -> float:
            twin = object.__new__(type(estimator))
            twin.__dict__ = estimator.__dict__ | {"_outputs_of": lambda rows, *_: _known(twin, X, outputs, rows)}
            return float(scorer(twin, X, self._y, **weight))

        return score


def _known(twin: Any, X: Any, outputs: np.ndarray, rows: Any) -> np.ndarray:
    """Return outputs of `rows`: those at hand if the rows are X itself, as they are for scikit-learn's own scorers."""
    return outputs.copy() if rows is X else type(twin)._outputs_of(twin, rows)


def validation_of(
    estimator: Any,
    engine: ModuleType,
    network: Network,
    params: np.ndarray,
    data: Data,
    y: np.ndarray,
    given: tuple[Data, np.ndarray] | None,
    random_state: np.random.RandomState,
) -> tuple[np.ndarray | None, Validation | None]:
    """Return the rows to train on (None: all of them), and the validation after each epoch, if there is one.

    Validation rows are those given, or with ``early_stopping`` a share of the data.
    """
    if given is not None:
        return None, Validation(estimator, engine, network, params, *given)
    if not estimator.early_stopping:
        return None, None
    n_samples, stratify = data.X.shape[0], estimator._stratify(y)
    rows, held_out = validation_split(n_samples, estimator.validation_fraction, random_state, stratify)
    return rows, Validation(estimator, engine, network, params, data, y, held_out)


def validation_split(
    n_samples: int, fraction: float, rng: np.random.RandomState, stratify: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (train, validation) row indices, at least two of the latter: scikit-learn's split, without copies."""
    train, validation = train_test_split(
        np.arange(n_samples, dtype=np.intp), random_state=rng, test_size=fraction, stratify=stratify
    )
    if len(validation) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    return train, validation


def given_validation(X_val: Any, y_val: Any, sample_weight_val: Any, eval_set: Any) -> tuple[Any, Any, Any] | None:
    """Return the validation data of a call of fit: (X, y, sample_weight), or None if there is none.

    A ValueError says what is missing or given twice.
    """
    if eval_set is not None:
        if X_val is not None or y_val is not None:
            raise ValueError("validation data is given twice, as X_val and y_val and as eval_set: give one of them")
        pair = eval_set[0] if isinstance(eval_set, list | tuple) and len(eval_set) == 1 else None
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError("eval_set must be a list of one pair, [(X, y)]")
        X_val, y_val = pair
    if X_val is None and y_val is None:
        if sample_weight_val is not None:
            raise ValueError("sample_weight_val is given without X_val and y_val")
        return None
    if X_val is None or y_val is None:
        given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
        raise ValueError(f"{given} is given without {missing}")
    return X_val, y_val, sample_weight_val
