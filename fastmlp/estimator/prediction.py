"""What repeated predictions of one fitted estimator share: network, engine, workspace; the mean over an ensemble."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from fastmlp.data import device_arrays
from fastmlp.data.inputs import is_plain
from fastmlp.engines import backends
from fastmlp.model.weights import FURTHER_ATTRIBUTES, flat_params, further_arrays, shared_params

#: Bytes of X that an ensemble's networks read one after the other.
BLOCK_BYTES = 1 << 20

_FURTHER = frozenset(FURTHER_ATTRIBUTES)


class Prediction:
    """Predictions with the weights that an estimator has now.

    It remembers which arrays it was made for.  Weights edited in place are seen, since engines read them at every
    call, and batch normalisation is folded into them at every call; weights, backend or n_jobs replaced make it not
    fit any more.
    """

    def __init__(self, estimator: Any) -> None:
        self.made_for = self._identity(estimator)
        self.fitted = estimator._fitted_network()
        self.network = self.fitted.plain
        self.dtype = np.dtype(self.network.dtype.type)  # NumPy's one object, which tells plain arrays from others
        self.n_features, self.n_outputs = self.network.n_columns, self.network.widths[-1]
        self.engine = backends.get(estimator.backend)
        self.has_names = hasattr(estimator, "feature_names_in_")
        self.shared = shared_params(estimator, self.fitted)
        self.workspace: Any = None
        self.rows = 0

    @staticmethod
    def _identity(estimator: Any) -> tuple:
        # looked at in every prediction, hence the dict and not its attributes
        now = estimator.__dict__
        settings = now["backend"], now["n_jobs"], now["activation"], now["matmul_precision"]
        arrays = (*now["coefs_"], *now["intercepts_"], *settings)
        return arrays if now.keys().isdisjoint(_FURTHER) else arrays + further_arrays(estimator)

    def fits(self, estimator: Any) -> bool:
        """Return whether the estimator still has the arrays this was made for."""
        now = self._identity(estimator)
        return len(now) == len(self.made_for) and all(map(operator.is_, now, self.made_for))

    def takes(self, X: Any) -> bool:
        """Return whether X, if finite, needs no validation by scikit-learn: a plain array of this width and dtype."""
        return (
            is_plain(X, self.dtype, self.n_features)
            and (flags := X.flags).c_contiguous
            and flags.aligned
            and not self.has_names
        )

    def params(self, estimator: Any) -> np.ndarray:
        """Return the flat vector to predict with, as it is now."""
        params = self.shared if self.shared is not None else flat_params(estimator, self.fitted)
        return params if self.fitted is self.network else self.fitted.folded(params)[1]

    def __call__(self, estimator: Any, X: Any) -> np.ndarray | None:
        """Return outputs (n, n_outputs); None if X is not finite, which scikit-learn's validation has to judge."""
        out, finite = self.outputs(estimator, X)
        return out if finite else None

    def outputs(self, estimator: Any, X: Any) -> tuple[np.ndarray, bool]:
        """Return outputs (n, n_outputs), and whether X is finite."""
        n = X.shape[0]
        if n > self.rows:
            self.rows = n
            self.workspace = self.engine.workspace(self.network, n, estimator.n_jobs)
        out = np.empty((n, self.n_outputs), dtype=self.dtype)
        return out, self.engine.predict(self.workspace, self.params(estimator), X, out)

    def of_device_array(self, estimator: Any, X: Any, in_kind: bool) -> Any:
        """Return outputs (n, n_outputs) for X on the device, read in place; an array of X's library if asked for."""
        rows = device_arrays.validated(estimator, X, reset=False)
        dtype = np.result_type(rows.dtype, self.dtype)
        device_arrays.check_dtype(rows, dtype, "the weights are")
        n, params = rows.shape[0], self.params(estimator).astype(dtype, copy=False)
        if dtype != self.dtype:
            workspace = self.engine.workspace(self.network.with_dtype(dtype), n, estimator.n_jobs)
        else:
            if n > self.rows:
                self.rows, self.workspace = n, self.engine.workspace(self.network, n, estimator.n_jobs)
            workspace = self.workspace
        answer = device_arrays.Answer(X, (n, self.n_outputs), dtype, in_kind)
        device_arrays.check_finite(rows, self.engine.predict(workspace, params, rows, answer.target))
        return answer.array()

    def in_dtype(self, estimator: Any, X: Any, dtype: np.dtype) -> np.ndarray:
        """Return outputs (n, n_outputs) of the same network in another dtype."""
        network = self.network.with_dtype(dtype)
        out = np.empty((X.shape[0], self.n_outputs), dtype=dtype)
        workspace = self.engine.workspace(network, X.shape[0], estimator.n_jobs)
        self.engine.predict(workspace, self.params(estimator).astype(dtype), X, out)
        return out


class LayerPrediction(Prediction):
    """The outputs of a hidden layer, as the network computes them in its predictions."""

    def __init__(self, estimator: Any, layer: int) -> None:
        super().__init__(estimator)
        self.first = self.fitted.up_to(layer)
        self.network = self.first.plain
        self.n_outputs = self.network.widths[-1] * self.network.members

    def params(self, estimator: Any) -> np.ndarray:
        """Return the flat vector of the first layers to predict with, as it is now."""
        params = self.shared if self.shared is not None else flat_params(estimator, self.fitted)
        return self.first.folded(self.fitted.params_up_to(self.first, params))[1]


class EnsemblePrediction:
    """Predictions of an ensemble with the weights that its members have now: the mean of their outputs.

    It offers what :class:`Prediction` does.  X is validated once; the members share one workspace.
    """

    def __init__(self, estimator: Any) -> None:
        self.members = tuple(estimator.estimators_)
        self.predictions = [Prediction(member) for member in self.members]
        self.network, self.takes = self.predictions[0].network, self.predictions[0].takes

    def fits(self, estimator: Any) -> bool:
        """Return whether the estimator still has the networks, and they have the arrays, that this was made for."""
        now = estimator.estimators_
        return (
            len(now) == len(self.members)
            and all(map(operator.is_, now, self.members))
            and all(map(Prediction.fits, self.predictions, now))
        )

    def __call__(self, estimator: Any, X: Any) -> np.ndarray | None:
        """Return outputs (n, n_outputs); None if X is not finite, which scikit-learn's validation has to judge."""
        out, finite = self.outputs(estimator, X)
        return out if finite else None

    def outputs(self, estimator: Any, X: Any) -> tuple[np.ndarray, bool]:
        """Return outputs (n, n_outputs), and whether X is finite.

        A block of rows goes through all networks while it is in cache.  So X is read once.
        """
        n = X.shape[0]
        n_block = max(1, BLOCK_BYTES // (self.network.widths[0] * X.dtype.itemsize))
        if n <= n_block or not isinstance(X, np.ndarray):
            return self._outputs_of_block(X)
        blocks = [self._outputs_of_block(X[start : start + n_block]) for start in range(0, n, n_block)]
        return np.concatenate([out for out, _ in blocks]), all(finite for _, finite in blocks)

    def _outputs_of_block(self, X: Any) -> tuple[np.ndarray, bool]:
        finite, first = True, self.predictions[0]

        def of_member(prediction: Prediction, member: Any) -> np.ndarray:
            nonlocal finite
            if prediction.network == first.network:
                prediction.workspace, prediction.rows = first.workspace, first.rows
            out, is_finite = prediction.outputs(member, X)
            finite &= is_finite
            return out

        return self._mean(of_member), finite

    def of_device_array(self, estimator: Any, X: Any, in_kind: bool) -> Any:
        """Return outputs (n, n_outputs) for X on the device, read in place; an array of X's library if asked for."""
        return self._mean(lambda prediction, member: prediction.of_device_array(member, X, in_kind))

    def in_dtype(self, estimator: Any, X: Any, dtype: np.dtype) -> np.ndarray:
        """Return outputs (n, n_outputs) of the same networks in another dtype."""
        return self._mean(lambda prediction, member: prediction.in_dtype(member, X, dtype))

    def _mean(self, of_member: Callable[[Prediction, Any], Any]) -> Any:
        """Return the mean of what the members come to, added in their order."""
        total, *others = map(of_member, self.predictions, self.members)
        for out in others:
            total += out
        total /= len(self.members)
        return total
