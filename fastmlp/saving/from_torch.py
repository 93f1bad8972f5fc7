"""A ``torch.nn.Sequential`` as an estimator of fastmlp; torch_chain.py reads its modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_random_state

from fastmlp.data import targets
from fastmlp.data.optional import needed
from fastmlp.estimators import MLPClassifier, MLPRegressor
from fastmlp.model import stages, weights
from fastmlp.saving.torch_chain import Chain, read
from fastmlp.saving.torch_table import INSTALL
from fastmlp.training import state

if TYPE_CHECKING:
    import torch


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
        if labels.ndim != 1 or len(labels) != max(n, 2) or len(set(labels.tolist())) != len(labels):
            raise ValueError(f"classes must be {max(n, 2)} different labels for {n} outputs, got {classes!r}")
        try:
            made._label_binarizer = LabelBinarizer().fit(labels)
        except (TypeError, ValueError) as error:
            raise ValueError(f"classes must be whole numbers or texts, got {classes!r}: {error}") from error
        chain.sort_outputs(np.argsort(labels, kind="stable"))
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
