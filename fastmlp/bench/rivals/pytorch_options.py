"""PyTorch with the options of the suite `options`: what its user would write, eager."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from fastmlp.bench.rivals import pytorch
from fastmlp.bench.workloads import BETA_1, BETA_2, EPSILON, FORMULA, Task


class Swish(nn.Module):
    """The user's formula."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z / (1 + torch.exp(-z))


# By the names of our table. The step has no slope in PyTorch; prelu needs the number of neurons and the dtype.
ACTIVATIONS: Mapping[str, Callable[..., nn.Module]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "rrelu": nn.RReLU,
    "prelu": nn.PReLU,
    "relu6": nn.ReLU6,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    FORMULA: Swish,
}

BETAS = {"betas": (BETA_1, BETA_2), "eps": EPSILON}
# Class and arguments. PyTorch has no lion, and fuses on CPUs only some.
SOLVERS: Mapping[str, tuple[Callable[..., torch.optim.Optimizer], Mapping[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"fused": True}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "fused": True}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "fused": True}),
    "adam": (torch.optim.Adam, {**BETAS, "fused": True}),
    "adamw": (torch.optim.AdamW, {**BETAS, "fused": True}),
    "amsgrad": (torch.optim.Adam, {**BETAS, "fused": True, "amsgrad": True}),
    "nadam": (torch.optim.NAdam, BETAS),
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.99, "eps": EPSILON}),
    "adagrad": (torch.optim.Adagrad, {"eps": EPSILON, "fused": True}),
    "adadelta": (torch.optim.Adadelta, {"rho": 0.9, "eps": EPSILON}),
}
DECAYS = {"adamw": 0.01}  # where nothing else is asked for

LEARNED = (nn.BatchNorm1d, nn.PReLU)


class Trainer(pytorch.Trainer):
    """The eager trainer of `train` with the parameters of one option.

    Raises
    ------
    NotImplementedError
        If PyTorch has no such thing.
    """

    def __init__(self, task: Task, params: Mapping[str, Any]) -> None:
        self.options = params
        self.activation = params.get("activation", task.workload.activation)
        self.solver = params.get("solver", task.workload.solver)
        for name, table in ((self.activation, ACTIVATIONS), (self.solver, SOLVERS)):
            if name not in table:
                raise NotImplementedError(f"PyTorch has no {name}")
        if self.activation == "logistic":
            # the estimators' initial weights are smaller there: within sqrt(2 / n), not sqrt(6 / n)
            task = copy(task)
            task.params = (task.params * np.sqrt(2 / 6)).astype(task.params.dtype)
        super().__init__(task, "pytorch")
        self.model = pytorch.net(self.task, self._between)

    def _between(self, width: int) -> list[nn.Module]:
        """Return what follows the product of a hidden layer with so many neurons."""
        dtype = getattr(torch, self.task.X.dtype.name)
        norm = [nn.BatchNorm1d(width, dtype=dtype)] if self.options.get("batch_norm") else []
        learned = {"num_parameters": width, "dtype": dtype} if self.activation == "prelu" else {}
        dropout = [nn.Dropout(self.options["dropout"])] if self.options.get("dropout") else []
        return [*norm, ACTIVATIONS[self.activation](**learned), *dropout]

    def batch_loss(self, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the loss with the penalty of the weights, which scikit-learn divides by the number of rows."""
        loss = super().batch_loss(X, y)
        alpha, share = self.options.get("alpha", 0.0), self.options.get("l1_ratio", 0.0)
        if not alpha:
            return loss
        weights = [layer.weight for layer in pytorch.linears(self.model)]
        if share < 1:
            loss = loss + (0.5 * alpha * (1 - share) / len(X)) * sum(W.square().sum() for W in weights)
        if share > 0:
            loss = loss + (alpha * share / len(X)) * sum(W.abs().sum() for W in weights)
        return loss

    def optimizer(self) -> torch.optim.Optimizer:
        decay = self.options.get("weight_decay", DECAYS.get(self.solver, 0.0))
        # Adam's own weight_decay is a penalty; the decoupled one is AdamW's
        make, arguments = SOLVERS["adamw" if self.solver == "adam" and decay else self.solver]
        parameters = list(self.model.parameters())
        optimizer = make(parameters, lr=self.task.workload.learning_rate, weight_decay=decay, **arguments)
        max_norm = self.options.get("max_grad_norm")
        if max_norm is not None:

            def clip(*arguments: Any) -> None:
                nn.utils.clip_grad_norm_(parameters, max_norm)

            optimizer.register_step_pre_hook(clip)
        return optimizer

    def prepare(self, epochs: int) -> None:
        super().prepare(epochs)
        if self.solver != "adam":  # what scikit-learn lacks has PyTorch's epsilon with us too
            self.epsilons = [EPSILON] * len(self.epsilons)

    def fit(self, epochs: int) -> list[float]:
        for layer in self.model:
            if isinstance(layer, LEARNED):
                layer.reset_parameters()
        return super().fit(epochs)
