"""PyTorch with the options of the suite `options`: what its user would write, eager."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any

import numpy as np
import torch

from fastmlp.bench.rivals import pytorch
from fastmlp.bench.workloads import BETA_1, BETA_2, EPSILON, FORMULA, Task


class Swish(torch.nn.Module):
    """The user's formula."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z / (1 + torch.exp(-z))


# By the names of our table, from the number of neurons and the dtype. The step has no slope in PyTorch.
ACTIVATIONS: Mapping[str, Callable[[int, torch.dtype], torch.nn.Module]] = {
    "identity": lambda width, dtype: torch.nn.Identity(),
    "logistic": lambda width, dtype: torch.nn.Sigmoid(),
    "tanh": lambda width, dtype: torch.nn.Tanh(),
    "relu": lambda width, dtype: torch.nn.ReLU(),
    "leaky_relu": lambda width, dtype: torch.nn.LeakyReLU(),
    "prelu": lambda width, dtype: torch.nn.PReLU(width, dtype=dtype),
    "relu6": lambda width, dtype: torch.nn.ReLU6(),
    "elu": lambda width, dtype: torch.nn.ELU(),
    "selu": lambda width, dtype: torch.nn.SELU(),
    "celu": lambda width, dtype: torch.nn.CELU(),
    "gelu": lambda width, dtype: torch.nn.GELU(),
    "gelu_tanh": lambda width, dtype: torch.nn.GELU(approximate="tanh"),
    "silu": lambda width, dtype: torch.nn.SiLU(),
    "mish": lambda width, dtype: torch.nn.Mish(),
    "softplus": lambda width, dtype: torch.nn.Softplus(),
    "softsign": lambda width, dtype: torch.nn.Softsign(),
    "hardtanh": lambda width, dtype: torch.nn.Hardtanh(),
    "hardsigmoid": lambda width, dtype: torch.nn.Hardsigmoid(),
    "hardswish": lambda width, dtype: torch.nn.Hardswish(),
    FORMULA: lambda width, dtype: Swish(),
}

Parameters = Iterable[torch.nn.Parameter]


def _adam(kind: Any, **more: Any) -> Callable[[Parameters, float, float], torch.optim.Optimizer]:
    return lambda parameters, lr, decay: kind(
        parameters, lr=lr, betas=(BETA_1, BETA_2), eps=EPSILON, weight_decay=decay, **more
    )


def _sgd(**more: Any) -> Callable[[Parameters, float, float], torch.optim.Optimizer]:
    return lambda parameters, lr, decay: torch.optim.SGD(parameters, lr=lr, fused=True, **more)


# From parameters, learning rate and decoupled weight decay. PyTorch has no lion, and fuses on CPUs only some.
SOLVERS: Mapping[str, Callable[[Parameters, float, float], torch.optim.Optimizer]] = {
    "sgd": _sgd(),
    "momentum": _sgd(momentum=0.9),
    "nesterov": _sgd(momentum=0.9, nesterov=True),
    "adam": _adam(torch.optim.Adam, fused=True),
    "adamw": _adam(torch.optim.AdamW, fused=True),
    "amsgrad": _adam(torch.optim.Adam, fused=True, amsgrad=True),
    "nadam": _adam(torch.optim.NAdam),
    "rmsprop": lambda parameters, lr, decay: torch.optim.RMSprop(parameters, lr=lr, alpha=0.99, eps=EPSILON),
    "adagrad": lambda parameters, lr, decay: torch.optim.Adagrad(parameters, lr=lr, eps=EPSILON, fused=True),
    "adadelta": lambda parameters, lr, decay: torch.optim.Adadelta(parameters, lr=lr, rho=0.9, eps=EPSILON),
}
DECAYS = {"adamw": 0.01}  # where nothing else is asked for

LEARNED = (torch.nn.BatchNorm1d, torch.nn.PReLU)


class Trainer(pytorch.Trainer):
    """The eager trainer of `train` with the parameters of one option.

    Raises
    ------
    NotImplementedError
        If PyTorch has no such thing.
    """

    def __init__(self, task: Task, params: Mapping[str, Any]) -> None:
        known = {"activation": ACTIVATIONS, "solver": SOLVERS}
        for name, table in known.items():
            if params.get(name, next(iter(table))) not in table:
                raise NotImplementedError(f"PyTorch has no {params[name]}")
        self.options = params
        self.solver = params.get("solver", task.workload.solver)
        if params.get("activation") == "logistic":
            # the estimators' initial weights are smaller there: within sqrt(2 / n), not sqrt(6 / n)
            task = copy(task)
            task.params = (task.params * np.sqrt(2 / 6)).astype(task.params.dtype)
        super().__init__(task, "pytorch")
        self.model = self._net()

    def _net(self) -> torch.nn.Sequential:
        dtype = getattr(torch, self.task.X.dtype.name)
        activation = ACTIVATIONS[self.options.get("activation", self.task.workload.activation)]
        layers: list[torch.nn.Module] = []
        for fan_in, fan_out in self.task.network.shapes[:-1]:
            layers.append(torch.nn.Linear(fan_in, fan_out, dtype=dtype))
            if self.options.get("batch_norm"):
                layers.append(torch.nn.BatchNorm1d(fan_out, dtype=dtype))
            layers.append(activation(fan_out, dtype))
            if self.options.get("dropout"):
                layers.append(torch.nn.Dropout(self.options["dropout"]))
        return torch.nn.Sequential(*layers, torch.nn.Linear(*self.task.network.shapes[-1], dtype=dtype))

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
        solver = "adamw" if self.solver == "adam" and decay else self.solver
        optimizer = SOLVERS[solver](self.model.parameters(), self.task.workload.learning_rate, decay)
        max_norm = self.options.get("max_grad_norm")
        if max_norm is not None:
            parameters = list(self.model.parameters())

            def clip(*arguments: Any) -> None:
                torch.nn.utils.clip_grad_norm_(parameters, max_norm)

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
