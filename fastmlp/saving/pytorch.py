"""Networks as PyTorch's modules (:func:`to_torch`), and back (:func:`from_torch`).

A network is a ``torch.nn.Sequential`` of ``Linear``, ``BatchNorm1d``, activations and ``Dropout``. ``ACTIVATIONS`` says
which module each activation is, for both directions. torch_chain.py reads a Sequential.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastmlp.data import targets
from fastmlp.data.optional import needed
from fastmlp.estimator.base import ESTIMATORS, _BaseMLP
from fastmlp.estimators import MLPClassifier, MLPRegressor
from fastmlp.kernels import formulas
from fastmlp.model import choices, stages, weights
from fastmlp.model.network import Network
from fastmlp.saving.torch_chain import Chain, read
from fastmlp.saving.torch_table import ACTIVATIONS, BATCH_NORM_MOMENTUM
from fastmlp.training import state

if TYPE_CHECKING:
    import torch

INSTALL = '"fastmlp[torch]"'
OUTPUTS = ("logits", "predictions")


# --- to PyTorch -------------------------------------------------------------------------------------------------------


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
    torch = needed("torch", "to_torch", INSTALL)
    if not isinstance(estimator, _BaseMLP):
        raise TypeError(f"to_torch converts {' and '.join(ESTIMATORS)}, got {type(estimator).__name__}")
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


# --- from PyTorch -----------------------------------------------------------------------------------------------------


def from_torch(model: torch.nn.Sequential, *, classes: Any = None, multilabel: bool = False, **parameters: Any) -> Any:
    """Convert a ``torch.nn.Sequential`` to a fitted estimator with the same weights.

    The modules are ``Linear``, the activations that both have, ``BatchNorm1d`` before or after an activation, and
    ``Dropout`` behind them; at the end ``Softmax``, ``LogSoftmax`` or ``Sigmoid`` may stand. ``Identity``, ``Flatten``
    and Sequentials inside are looked through. Training goes on with ``partial_fit`` or a warm start; the optimizer is
    new.

    Parameters
    ----------
    model : torch.nn.Sequential
        It is left as it is. Weights in half precision become float32.
    classes : array-like of shape (n_classes,), default=None
        Labels of the outputs, in their order, which makes a classifier. With two classes the model may have one output,
        the logit of the second, or two, whose difference is that logit.
    multilabel : bool, default=False
        Whether each output is a label of its own, which makes a classifier too.
    **parameters : object
        Parameters of the estimator, such as `solver`, or the `loss` that it was trained with. Those that the modules
        state (`hidden_layer_sizes`, `activation`, `batch_norm`, `dropout`, `input_dropout`) cannot be given.

    Returns
    -------
    MLPClassifier or MLPRegressor
        A regressor if neither `classes` nor `multilabel` is given.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError
        If it is no Sequential, or a parameter is unknown or stated by the modules.
    ValueError
        If a module cannot be taken, which the message names with its place; if there are more or fewer classes than
        outputs, or the last module does not fit the task or the loss.

    Examples
    --------
    >>> import torch  # doctest: +SKIP
    >>> import fastmlp
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))  # doctest: +SKIP
    >>> fastmlp.from_torch(model, classes=["a", "b", "c"], solver="adamw")  # doctest: +SKIP
    MLPClassifier(activation='tanh', hidden_layer_sizes=(8,), solver='adamw')
    """
    torch = needed("torch", "from_torch", INSTALL)
    chain = read(torch, model)
    stated = chain.parameters()
    for name in parameters:
        if name in stated:
            raise TypeError(f"from_torch: {name} is stated by the modules, and cannot be given")
    given = {name: value for name, value in stated.items() if value is not None} | parameters
    if classes is None and not multilabel:
        made: Any = MLPRegressor(**given)
        task = "regression"
    else:
        made = MLPClassifier(**given)
        task = _learn_classes(made, chain, classes, multilabel)
    made._validate_params()
    objective = targets.resolve_loss(task, made.loss, chain.n_outputs)
    _check_link(chain, objective.link, task, made.loss)
    _fit(made, chain, objective.link)
    return made


def _learn_classes(made: Any, chain: Chain, classes: Any, multilabel: bool) -> str:
    """Give a classifier its labels; return its task."""
    n = chain.n_outputs
    if multilabel:
        labels = np.arange(n) if classes is None else np.asarray(classes)
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or not np.array_equal(labels, np.arange(n)) or n < 2:
            raise ValueError(
                f"multilabel=True: predictions are 0/1 for each of two or more outputs, so classes must be left out;"
                f" got {n} outputs and classes={classes!r}"
            )
        made._label_binarizer = LabelBinarizer().fit(np.eye(n, dtype=int))
    else:
        labels = np.asarray(classes)
        if labels.ndim != 1 or len(labels) != max(n, 2) or len(np.unique(labels)) != len(labels):
            raise ValueError(f"classes must be {max(n, 2)} different labels for {n} outputs, got {classes!r}")
        chain.sort_outputs(np.argsort(labels, kind="stable"))
        made._label_binarizer = LabelBinarizer().fit(labels)
    made.classes_ = made._label_binarizer.classes_
    return targets.task_of(made._label_binarizer)


def _check_link(chain: Chain, link: str, task: str, loss: Any) -> None:
    """Refuse a last module that computes otherwise than the loss's link."""
    if chain.link not in ("", link):
        hint = ": give classes, or multilabel=True" if task == "regression" else ""
        raise ValueError(
            f"from_torch: {chain.link_name} at the end does not fit {task} with loss={loss!r}, whose outputs are"
            f" {link!r}{hint}"
        )


def _fit(made: Any, chain: Chain, link: str) -> None:
    """Give an estimator the weights, and the attributes of a fit before its first epoch."""
    made.out_activation_ = link
    for attribute, arrays in chain.arrays().items():
        setattr(made, attribute, arrays)
    network = made._fitted_network()
    stages.options_of(made, len(network.activations))  # a rate of dropout may be out of range
    params = weights.flat_params(made, network)
    made._expose(network, params)
    state.begin(made, check_random_state(made.random_state), params)
    made.n_features_in_, made.n_outputs_ = network.widths[0], network.widths[-1]
    made.n_layers_ = len(network.widths)
