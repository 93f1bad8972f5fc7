"""fastmlp's estimators as PyTorch's: a ``torch.nn.Sequential`` of Linear, BatchNorm1d, activations and Dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastmlp.data.optional import needed
from fastmlp.estimator.base import _BaseMLP
from fastmlp.estimator.tabular import refuse_tables
from fastmlp.kernels import formulas
from fastmlp.model import choices, stages, weights
from fastmlp.model.network import Network
from fastmlp.saving.torch_table import ACTIVATIONS, BATCH_NORM_MOMENTUM, INSTALL

if TYPE_CHECKING:
    import torch

OUTPUTS = ("logits", "predictions")


def to_torch(estimator: Any, *, outputs: str = "logits") -> torch.nn.Sequential:
    """Convert a fitted estimator to a ``torch.nn.Sequential``, to predict or to train on with PyTorch.

    The modules are, for each hidden layer, ``Linear``, ``BatchNorm1d`` where the layer normalises, the activation, and
    ``Dropout`` where the parameters ask for it; then the last ``Linear``. Parameters are copies in the dtype of the
    estimator's weights. The model is in evaluation mode (``model.eval()``): call ``model.train()`` to train it.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Fitted.
    outputs : {'logits', 'predictions'}, default='logits'
        What the model returns, (n_samples, n_outputs). Logits are what PyTorch's losses expect: ``CrossEntropyLoss``
        with more than two classes, ``BCEWithLogitsLoss`` with two classes (one column) or labels,
        ``PoissonNLLLoss`` with ``loss="poisson"``. For most regressors, and for hinge losses, they are the predictions
        and decision values. With 'predictions' a ``Softmax`` or ``Sigmoid`` follows, so the outputs are probabilities;
        with two classes that of ``classes_[1]``.

    Returns
    -------
    torch.nn.Sequential

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError
        If it is not an estimator of this package.
    ValueError
        If PyTorch has no module for an activation ('step', formulas) or, with 'predictions', for the link of the
        outputs ('exp').
    sklearn.exceptions.NotFittedError

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastmlp import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPClassifier((8,), activation="gelu", solver="lbfgs", max_iter=50, random_state=0).fit(X, y)
    >>> clf.to_torch()  # doctest: +SKIP
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): GELU(approximate='none')
      (2): Linear(in_features=8, out_features=3, bias=True)
    )
    """
    refuse_tables(estimator, "to_torch")
    torch = needed("torch", "to_torch", INSTALL)
    if not isinstance(estimator, _BaseMLP):
        raise TypeError(f"to_torch converts MLPClassifier and MLPRegressor, got {type(estimator).__name__}")
    if not isinstance(outputs, str) or outputs not in OUTPUTS:
        raise ValueError(f"outputs must be 'logits' or 'predictions', got {outputs!r}")
    check_is_fitted(estimator)
    network = estimator._fitted_network()
    asked = stages.options_of(estimator, len(network.activations))
    modules = [torch.nn.Dropout(asked["input_dropout"])] if asked["input_dropout"] else []
    params = weights.flat_params(estimator, network)
    linear = list(map(_linear(torch), network.coefs(params), network.intercepts(params)))
    for layer, rate in enumerate(asked["dropout"] or (0.0,) * len(network.activations)):
        modules += [linear[layer], *_hidden(torch, network, params, layer)]
        modules += [torch.nn.Dropout(rate)] if rate else []
    modules.append(linear[-1])
    if outputs == "predictions":
        modules += _link(torch, estimator.out_activation_)
    return torch.nn.Sequential(*modules).eval()


def _linear(torch: Any) -> Any:
    """Return a function that makes a module of W (fan_in, fan_out) and b (fan_out,)."""

    def make(W: np.ndarray, b: np.ndarray) -> Any:
        module = torch.nn.Linear(*W.shape, dtype=getattr(torch, W.dtype.name))
        _fill(torch, {module.weight: W.T, module.bias: b})
        return module

    return make


def _hidden(torch: Any, network: Network, params: np.ndarray, layer: int) -> list[Any]:
    """Return the modules between a hidden layer's product and its dropout."""
    units, running = network.unit_parameters(params)[layer], network.running_statistics(params)[layer]
    entry, width, dtype = network.activations[layer], network.widths[layer + 1], getattr(torch, network.dtype.name)
    row = None if choices.is_formula(entry) else ACTIVATIONS.get(choices.name_of(entry))
    if row is None:
        raise ValueError(
            f"to_torch: activation={entry!r} of hidden layer {layer + 1} is no module of PyTorch, which has"
            f" {list(ACTIVATIONS)}"
        )
    activation = row.made(torch, choices.parameters_of(formulas.ACTIVATIONS, entry), width, dtype)
    if "slope" in units:
        _fill(torch, {activation.weight: units["slope"]})
    where = network.batch_norm[layer] if network.batch_norm else ""
    if not where:
        return [activation]
    norm = torch.nn.BatchNorm1d(width, stages.BATCH_NORM_EPS, BATCH_NORM_MOMENTUM, dtype=dtype)
    _fill(torch, {norm.weight: units["scale"], norm.bias: units["shift"]})
    _fill(torch, {norm.running_mean: running["mean"], norm.running_var: running["var"]})
    return [norm, activation] if where == "before" else [activation, norm]


def _link(torch: Any, link: str) -> list[Any]:
    if link == "exp":
        raise ValueError("to_torch: out_activation_='exp' is no module of PyTorch: use outputs='logits' and torch.exp")
    return {"identity": [], "softmax": [torch.nn.Softmax(dim=1)], "logistic": [torch.nn.Sigmoid()]}[link]


def _fill(torch: Any, arrays: dict[Any, np.ndarray]) -> None:
    """Copy arrays into tensors, which keep their dtypes."""
    with torch.no_grad():
        for tensor, array in arrays.items():
            tensor.copy_(torch.tensor(np.ascontiguousarray(array)))
