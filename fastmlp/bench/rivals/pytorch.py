"""PyTorch, eager and compiled: torch.nn layers, index_select for the batch, a fused optimizer.

set_float32_matmul_precision is a permission, as ours is: without instructions for bfloat16, products of float32 stay
what they are. Autocast is none: it rounds weights, activations and deltas, on every processor.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fastmlp.bench.workloads import BETA_1, BETA_2, EPSILON, Task, flat


def net(task: Task, between: Callable[[int], list[nn.Module]] | None = None) -> nn.Sequential:
    """Return the layers, without the task's initial weights; `between` makes what follows a hidden product."""
    dtype = getattr(torch, task.X.dtype.name)
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh}[task.workload.activation]
    layers: list[nn.Module] = []
    for fan_in, fan_out in task.network.shapes[:-1]:
        layers += [nn.Linear(fan_in, fan_out, dtype=dtype), *(between(fan_out) if between else [activation()])]
    return nn.Sequential(*layers, nn.Linear(*task.network.shapes[-1], dtype=dtype))


def linears(model: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in model if isinstance(layer, nn.Linear)]


def reset(model: nn.Sequential, task: Task) -> None:
    """Copy the initial weights in."""
    with torch.no_grad():
        for layer, (W, b) in zip(linears(model), task.layers, strict=True):
            layer.weight.copy_(torch.from_numpy(W.T))
            layer.bias.copy_(torch.from_numpy(b))


class Trainer:
    """Epochs of steps as a PyTorch user writes them."""

    def __init__(self, task: Task, name: str) -> None:
        torch.set_num_threads(task.threads)
        torch.set_float32_matmul_precision(task.precision)
        self.autocasts = name == "torch autocast"
        self.task = task
        self.model = net(task)
        self.X, self.y = torch.from_numpy(task.X), torch.from_numpy(task.y)
        if task.workload.loss == "binary_log_loss":
            self.y = self.y.to(self.X.dtype)[:, None]
        # Batches have two sizes at most, and each gets code of its own.
        self.loss = torch.compile(self.batch_loss, dynamic=False) if name == "torch.compile" else self.batch_loss

    def output(self, X: torch.Tensor) -> torch.Tensor:
        """Return the logits, or the values of a regression."""
        if not self.autocasts:
            return self.model(X)
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(X).float()

    def batch_loss(self, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the training loss: the mean over rows, summed over the outputs of a regression."""
        output = self.output(X)
        if self.task.workload.loss == "log_loss":
            return F.cross_entropy(output, y)
        if self.task.workload.loss == "binary_log_loss":
            return F.binary_cross_entropy_with_logits(output, y)
        return 0.5 * F.mse_loss(output, y) * output.shape[1]

    def optimizer(self) -> torch.optim.Optimizer:
        workload = self.task.workload
        parameters = self.model.parameters()
        if workload.solver == "sgd":
            return torch.optim.SGD(parameters, lr=workload.learning_rate, momentum=workload.momentum, fused=True)
        return torch.optim.Adam(parameters, lr=workload.learning_rate, betas=(BETA_1, BETA_2), eps=EPSILON, fused=True)

    def prepare(self, epochs: int) -> None:
        task = self.task
        self.orders = [[torch.from_numpy(order[rows]) for rows in task.batches] for order in task.orders(epochs)]
        self.sizes = torch.tensor([rows.stop - rows.start for rows in task.batches], dtype=torch.float64)
        self.sizes /= len(task.X)
        # The estimators add epsilon to the uncorrected sqrt(v), PyTorch to the corrected one: the same formula with
        # an epsilon of its own for every step.
        t = np.arange(1, epochs * len(task.batches) + 1)
        self.epsilons = (EPSILON / np.sqrt(1 - BETA_2**t)).tolist()

    def fit(self, epochs: int) -> list[float]:
        reset(self.model, self.task)
        return self.task.mean_losses(self.train(epochs, self.optimizer()))

    def train(self, epochs: int, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """Return the loss of every epoch, without waiting for it: a device needs this."""
        (group,) = optimizer.param_groups
        epsilons = iter(self.epsilons)
        epoch_losses = []
        for order in self.orders[:epochs]:
            losses = []
            for rows in order:
                X, y = self.X.index_select(0, rows), self.y.index_select(0, rows)
                optimizer.zero_grad()
                loss = self.loss(X, y)
                loss.backward()
                group["eps"] = next(epsilons)
                optimizer.step()
                losses.append(self.kept(loss))
            epoch_losses.append(torch.stack(losses).double() @ self.sizes)
        return epoch_losses

    def kept(self, loss: torch.Tensor) -> torch.Tensor:
        """Return a step's loss, to be read after the epoch."""
        return loss.detach()

    def params(self) -> np.ndarray:
        layers = linears(self.model)
        tensors = [layer.weight.T for layer in layers] + [layer.bias for layer in layers]
        return flat(tensor.detach().cpu().numpy() for tensor in tensors)


trainer = Trainer


def predictor(task: Task, name: str) -> Callable[[np.ndarray], np.ndarray]:
    torch.set_num_threads(task.threads)
    model = net(task)
    reset(model, task)
    model.eval()

    def predict(X: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.softmax(model(torch.from_numpy(X)), dim=1).numpy()

    return predict
