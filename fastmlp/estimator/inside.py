"""What can be seen and done inside a network: outputs of layers, gradients, weights, single steps.

``initialize`` gives an estimator the weights that ``fit`` would start from, so all of this works before ``fit``, too.
All numbers come from the calls that train and predict: what a picture shows is what happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from fastmlp.data import inputs
from fastmlp.engines import backends
from fastmlp.engines.backends import Data
from fastmlp.estimator import ensemble
from fastmlp.estimator.base import BaseNetwork, Extras, fit_context
from fastmlp.estimator.prediction import LayerPrediction
from fastmlp.model import choices, weights
from fastmlp.model.network import Network
from fastmlp.training.optimizers import STOCHASTIC_SOLVERS
from fastmlp.training.rows import Rows


class _LossAndGradients(NamedTuple):
    loss: float
    coefs: list[np.ndarray]
    intercepts: list[np.ndarray]


class LossAndGradients(_LossAndGradients):
    """What :meth:`~fastmlp.MLPClassifier.loss_and_gradients` returns.

    Other arrays that a network learns have their gradients under the names of the estimator's attributes:
    ``bn_scales_``, ``bn_shifts_``, ``prelu_slopes_``, each a list with None for a layer without one.

    Attributes
    ----------
    loss : float
        Mean loss of the rows, penalty included.
    coefs : list of ndarray of shape (fan_in, fan_out)
        Its gradient by each of ``coefs_``.
    intercepts : list of ndarray of shape (fan_out,)
        Its gradient by each of ``intercepts_``.
    """


class Inside(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseNetwork):
    """The methods of MLPClassifier and MLPRegressor that look inside the network, or change it by hand."""

    @fit_context
    def initialize(self, X: Any, y: Any) -> Self:
        """Draw the first weights, as :meth:`fit` does, and train nothing.

        Afterwards predictions, summaries, displays and the other methods work on an untrained network. ``fit`` with
        ``warm_start=True``, ``partial_fit`` and :meth:`train_on_batch` go on from these weights, to the bits that they
        would have reached by themselves.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows of the fit to come: they tell the number of features and the dtype.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Their targets, with every class that will come.

        Returns
        -------
        self : object
            With ``n_iter_`` and ``t_`` 0.

        Raises
        ------
        ValueError
            For data or parameters that ``fit`` refuses.
        AttributeError
            With `n_ens` or `n_cv` above 1.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from fastmlp import MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = MLPClassifier((5, 5), random_state=0).initialize(X, y)
        >>> clf.n_iter_, clf.summary().n_params, clf.predict_proba(X).shape
        (0, 73, (150, 3))
        """
        _check_one_network(self, "initialize")
        task = self._task(X, y, None, Extras(anew=True))
        assert task is not None, "one network without weights of rows always has a task"
        task.begin()
        self._training.untrained = True
        return self

    def layer_outputs(self, X: Any, layer: int | None = None) -> Any:
        """Return what each layer of the network makes of X, as in predictions.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        layer : int, default=None
            One layer: 0 is the first hidden one, -1 the output layer. None: all of them.

        Returns
        -------
        list of ndarray of shape (n_samples, width), or one of these
            Of a hidden layer after its activation and `batch_norm`, of the output layer after the output activation.

        Raises
        ------
        IndexError
            If there is no such layer.
        AttributeError
            For an ensemble, whose networks differ: ask one of ``estimators_``.

        Notes
        -----
        Each layer takes a prediction of the layers up to it. An infinite output makes its row of a hidden layer NaN.

        Examples
        --------
        >>> import numpy as np
        >>> from fastmlp import MLPRegressor
        >>> X, y = np.linspace(-1, 1, 20).reshape(-1, 1), np.zeros(20)
        >>> reg = MLPRegressor(hidden_layer_sizes=(4, 3), activation="tanh", random_state=0).initialize(X, y)
        >>> [a.shape for a in reg.layer_outputs(X)]
        [(20, 4), (20, 3), (20, 1)]
        """
        _check_one_network(self, "layer_outputs")
        check_is_fitted(self)
        n_layers = len(self.coefs_)
        if layer is None:
            return [_outputs_of_layer(self, X, i) for i in range(n_layers)]
        return _outputs_of_layer(self, X, _index_of(layer, n_layers))

    def transform(self, X: Any) -> Any:
        """Return the outputs of the last hidden layer: the features that the network has learned.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, width)
            Of an ensemble the outputs of its networks side by side. A frame, if ``set_output`` asked for one.

        Raises
        ------
        ValueError
            If the network has no hidden layer.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> from fastmlp import MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> net = MLPClassifier((8,), solver="lbfgs", random_state=0)
        >>> make_pipeline(net, LogisticRegression()).fit(X, y).score(X, y) > 0.9
        True
        """
        check_is_fitted(self)
        if self.n_layers_ < 3:
            raise ValueError("transform returns the outputs of the last hidden layer, and this network has none")
        members = self.estimators_ if ensemble.is_ensemble(self) else [self]
        found = [_outputs_of_layer(member, X, len(member.coefs_) - 2) for member in members]
        return found[0] if len(found) == 1 else np.hstack(found)

    def set_output(self, *, transform: Any = None) -> Self:
        """Set what :meth:`transform` and ``fit_transform`` return.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, default=None
            Arrays, or frames of one of these libraries. None changes nothing.

        Returns
        -------
        self : object
        """
        super().set_output(transform=transform)
        return self

    @property
    def _n_features_out(self) -> int:
        # get_feature_names_out makes 'mlpclassifier0', 'mlpclassifier1', ... of it
        members = self.estimators_ if ensemble.is_ensemble(self) else [self]
        return sum(len(member.intercepts_[-2]) for member in members) if self.n_layers_ > 2 else 0

    def loss_and_gradients(self, X: Any, y: Any, sample_weight: Any = None) -> LossAndGradients:
        """Return the loss of some rows and its gradient by each weight, at the present weights.

        They are those of a training step with these rows as its batch, before any clipping. Nothing is dropped out.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None
            Multiplied by `class_weight`, if there is one.

        Returns
        -------
        LossAndGradients
            A named tuple (loss, coefs, intercepts).

        Raises
        ------
        ValueError
            For rows that ``partial_fit`` refuses, weights that sum to zero, or a single row with `batch_norm`.
        AttributeError
            For an ensemble: ask one of ``estimators_``.

        Notes
        -----
        The penalty is (alpha (1 - l1_ratio) / 2 ||W||^2 + alpha l1_ratio ||W||_1) / n_samples, or by the sum of the
        weights. `weight_decay` is no part of it. As in scikit-learn the squared error of several outputs is their mean,
        but the gradient that of their sum. With `batch_norm` the rows are normalised by their own mean and variance.
        With `standardize_y` loss and gradients are of the weights as ``coefs_`` has them, in the units of y.

        Examples
        --------
        >>> import numpy as np
        >>> from fastmlp import MLPRegressor
        >>> X, y = np.array([[1.0], [2.0]]), np.array([1.0, 2.0])
        >>> reg = MLPRegressor(hidden_layer_sizes=(), alpha=0, random_state=0).initialize(X, y)
        >>> reg.set_weights([[[0.0]], [0.0]])
        >>> loss, coefs, intercepts = reg.loss_and_gradients(X, y)
        >>> loss, float(coefs[0][0, 0]), float(intercepts[0][0])
        (1.25, -2.5, -1.5)
        """
        engine, network, params, data = self._problem(X, y, sample_weight)
        loss, grad = Rows(self, engine, network, data).loss_and_grad(params)
        places, found = weights.places(network), weights.views(network, grad)
        learned = {name: any(s is not None and s.trained for s in segments) for name, segments in places.items()}
        result = LossAndGradients(loss, found.pop("coefs_"), found.pop("intercepts_"))
        vars(result).update({name: arrays for name, arrays in found.items() if learned[name]})
        return result

    def _problem(self, X: Any, y: Any, sample_weight: Any) -> tuple[ModuleType, Network, np.ndarray, Data]:
        """Return engine, network, present weights (n_params,) and rows, as training would have them."""
        _check_one_network(self, "loss_and_gradients")
        check_is_fitted(self)
        X, y = self._validated(X, y, reset=False)
        self._check_targets(y)
        y = inputs.dense_targets(self, y)
        weight = self._weigh(y, inputs.validated_weight(self, sample_weight, y))
        objective = self._objective(y)
        network = self._network_to_train(X, objective, False)
        if choices.name_of(self.solver) == "lbfgs":
            network = network.with_dtype(np.float64)
        data = inputs.encoded(self, X, y, weight, network, objective)
        if data.y.dtype.kind == "f":  # in float64, if training would standardise them
            data = data._replace(y=data.y.astype(network.dtype, copy=False))
        engine = backends.get(self.backend, backends.work_of_fit(network, X.shape[0], 1))
        return engine, network, weights.flat_params(self, network), data

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of all weights: W and b of each layer in turn, then other arrays, if the network has some.

        Returns
        -------
        list of ndarray
            ``[W0, b0, W1, b1, ...]``, W (fan_in, fan_out), b (fan_out,). Other arrays, as those of ``bn_scales_``, have
            one number per neuron.

        Examples
        --------
        >>> import numpy as np
        >>> from fastmlp import MLPRegressor
        >>> reg = MLPRegressor(hidden_layer_sizes=(3,)).initialize(np.zeros((2, 4)), np.zeros(2))
        >>> [w.shape for w in reg.get_weights()]
        [(4, 3), (3,), (3, 1), (1,)]
        """
        _check_one_network(self, "get_weights")
        network, params = _present(self)
        return [array.copy() for _, array in _arrays(network, params)]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Overwrite all weights in place by arrays of the same shapes; the state of the optimizer stays.

        Parameters
        ----------
        weights : list of array-like
            As :meth:`get_weights` returns them. Any numbers, also NaN and infinities.

        Raises
        ------
        ValueError
            If there are more or fewer arrays, or one of another shape or no numbers; nothing is written then.
        """
        _check_one_network(self, "set_weights")
        network, params = _present(self)
        kept = params.copy()
        views = _arrays(network, kept)
        if not isinstance(weights, list | tuple) or len(weights) != len(views):
            shapes = [view.shape for _, view in views]
            got = f"{len(weights)} arrays" if isinstance(weights, list | tuple) else f"{weights!r:.100}"
            raise ValueError(f"weights must be a list of {len(views)} arrays of shapes {shapes}, got {got}")
        for i, ((name, view), given) in enumerate(zip(views, weights, strict=True)):
            try:
                array = np.asarray(given).astype(view.dtype, casting="same_kind", copy=False)
            except (TypeError, ValueError) as error:
                raise ValueError(f"weights[{i}] ({name}) must be an array of numbers: {error}") from error
            if array.shape != view.shape:
                raise ValueError(f"weights[{i}] ({name}) must have shape {view.shape}, got {array.shape}")
            view[...] = array
        if params.flags.writeable:
            params[...] = kept
        self._expose(network, params if params.flags.writeable else kept)

    @fit_context
    def train_on_batch(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Take one step of the optimizer, with exactly these rows as its batch; return their loss before it.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None
            Rows without weight change nothing.

        Returns
        -------
        float
            Mean loss of the rows, penalty included; NaN if no row has a weight.

        Raises
        ------
        NotFittedError
            If there are no weights yet; call :meth:`initialize`.
        ValueError
            For rows that ``partial_fit`` refuses, or weights that diverged.
        AttributeError
            With the solver 'lbfgs', and for an ensemble.

        Notes
        -----
        The state of the optimizer goes on, also from ``fit`` to here and from here to ``partial_fit``. Schedules that
        count in epochs count those of the fit that :meth:`initialize` was told of. ``t_`` grows by the rows and
        ``loss_`` is this loss; a step is no epoch, so ``n_iter_``, ``loss_curve_`` and ``history_`` stay.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from fastmlp import MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = MLPClassifier((5, 5), random_state=0).initialize(X, y)
        >>> losses = [clf.train_on_batch(X, y) for _ in range(100)]
        >>> losses[-1] < losses[0]
        True
        """
        _check_one_network(self, "train_on_batch")
        solver = choices.name_of(self.solver)
        if solver not in STOCHASTIC_SOLVERS:
            raise AttributeError(f"train_on_batch is a step of a stochastic optimizer, which {solver!r} is not")
        check_is_fitted(self, msg="This %(name)s has no weights yet: call initialize(X, y), fit or partial_fit first.")
        task = self._task(X, y, sample_weight, Extras(incremental=True, one_batch=True))
        return float(np.nan if task is None else task.step())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # lbfgs works in float64
        both = choices.name_of(self.solver) != "lbfgs"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"] if both else ["float64"]
        return tags


def _check_one_network(estimator: Any, method: str) -> None:
    """Raise an AttributeError for an ensemble, fitted or asked for."""
    if ensemble.is_ensemble(estimator):
        raise AttributeError(ensemble.no_such_attribute(estimator, method))
    if ensemble.size(estimator) > 1:
        raise AttributeError(f"{method} is for one network, not for n_ens={estimator.n_ens!r}, n_cv={estimator.n_cv!r}")


# --- outputs of layers ------------------------------------------------------------------------------------------------


def _index_of(layer: Any, n_layers: int) -> int:
    """Return the number of a layer from 0; an IndexError or a TypeError says that there is none."""
    if not isinstance(layer, int | np.integer) or isinstance(layer, bool):
        raise TypeError(f"layer must be None or an int, got {layer!r}")
    if not -n_layers <= layer < n_layers:
        raise IndexError(f"layer must be in [{-n_layers}, {n_layers}), as this network has {n_layers}, got {layer}")
    return int(layer) % n_layers


def _outputs_of_layer(estimator: Any, X: Any, layer: int) -> Any:
    """Return the outputs (n, width) of a layer of one network."""
    if layer == len(estimator.coefs_) - 1:
        return estimator._outputs_of(X)
    prediction = LayerPrediction(estimator, layer)
    out = prediction(estimator, X) if prediction.takes(X) else None
    return estimator._outputs_of_any(prediction, X, False) if out is None else out


# --- weights ----------------------------------------------------------------------------------------------------------


def _present(estimator: Any) -> tuple[Network, np.ndarray]:
    """Return the fitted network and its flat vector, which has the estimator's arrays in it."""
    check_is_fitted(estimator)
    network = estimator._fitted_network()
    return network, weights.flat_params(estimator, network)


def _arrays(network: Network, params: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return each array as a view of the flat vector, with its name: W and b of each layer, then the others."""
    linear = sorted((s for s in network.segments if s.name in ("W", "b")), key=lambda s: (s.layer, s.name))
    others = [segment for segment in network.segments if segment.name not in ("W", "b")]
    return [(f"{s.attribute}[{s.layer}]", s.view(params)) for s in (*linear, *others)]


class WeightSpace:
    """The penalised loss of some rows over all weights as one vector, for pictures that ask for it at many points.

    Attributes
    ----------
    present : ndarray of shape (n_params,)
        A copy of the estimator's weights.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> None:
        _check_one_network(estimator, "a loss over weights")
        engine, self._network, present, data = estimator._problem(X, y, sample_weight)
        self._rows, self.present = Rows(estimator, engine, self._network, data), present.copy()

    def loss(self, vector: np.ndarray) -> float:
        """Return the loss at weights (n_params,), of which none is kept."""
        return self._rows.loss_and_grad(np.ascontiguousarray(vector, dtype=self._network.dtype))[0]

    def arrays(self, vector: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Return views of a vector (n_params,), in the order of ``get_weights``, with the names of the attributes."""
        return _arrays(self._network, vector)
