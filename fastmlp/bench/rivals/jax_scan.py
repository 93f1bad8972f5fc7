"""JAX: one jitted call per epoch, lax.scan over its steps, buffers donated; on the device that its process sees."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastmlp.bench.rivals import row
from fastmlp.bench.workloads import BETA_1, BETA_2, EPSILON, Task, flat

Layers = list[tuple[jax.Array, jax.Array]]  # W (fan_in, fan_out) and b (fan_out,) of each


def _multiply_with(precision: str) -> None:
    """Set the precision of all products; raise a NotImplementedError if the device refuses it."""
    jax.config.update("jax_default_matmul_precision", precision)
    try:
        jax.block_until_ready(jax.jit(jnp.matmul)(jnp.ones((2, 2), jnp.float32), jnp.ones((2, 2), jnp.float32)))
    except Exception as error:
        raise NotImplementedError(f"JAX refuses {precision}: {error}") from error


class Trainer:
    """Epochs as a JAX user writes them; the smaller last batch is a step of its own in the same call."""

    def __init__(self, task: Task, name: str, device: str = "cpu") -> None:
        jax.config.update("jax_enable_x64", task.X.dtype == np.float64)
        # a GPU's default for float32 is a product of ten-bit mantissas
        _multiply_with(row("jax").precisions[task.precision])
        self.task = task
        self.X = jnp.asarray(task.X)
        y = task.y.astype(task.X.dtype)[:, None] if task.workload.loss == "binary_log_loss" else task.y
        self.y = jnp.asarray(y)
        self.epoch = partial(jax.jit(self._epoch, donate_argnums=(0,)), X=self.X, y=self.y)

    def _loss(self, layers: Layers, X: jax.Array, y: jax.Array) -> jax.Array:
        """Return the training loss: the mean over rows, summed over the outputs of a regression."""
        activation = {"relu": jax.nn.relu, "tanh": jnp.tanh}[self.task.workload.activation]
        *hidden, (W, b) = layers
        for W_hidden, b_hidden in hidden:
            X = activation(X @ W_hidden + b_hidden)
        z = X @ W + b
        if self.task.workload.loss == "log_loss":
            log_p = jax.nn.log_softmax(z)
            return -jnp.mean(jnp.take_along_axis(log_p, y[:, None], axis=1))
        if self.task.workload.loss == "binary_log_loss":
            return jnp.mean(jnp.logaddexp(0, z) - y * z)
        return 0.5 * jnp.mean(jnp.sum((z - y) ** 2, axis=1))

    def _step(self, state: Any, rows: jax.Array, lr: jax.Array, X: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        layers, *moments = state
        take = [array.at[rows].get(mode="promise_in_bounds") for array in (X, y)]
        loss, grad = jax.value_and_grad(self._loss)(layers, *take)
        if self.task.workload.solver == "sgd":
            momentum = self.task.workload.momentum
            velocity = jax.tree.map(lambda v, g: momentum * v - lr * g, moments[0], grad)
            return [jax.tree.map(jnp.add, layers, velocity), velocity], loss
        m = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, moments[0], grad)
        v = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, moments[1], grad)
        layers = jax.tree.map(lambda p, m, v: p - lr * m / (jnp.sqrt(v) + EPSILON), layers, m, v)
        return [layers, m, v], loss

    def _epoch(self, state: Any, order: jax.Array, lr: jax.Array, X: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        """Return the state and the mean loss of an epoch; order (n_samples,), lr (steps,)."""
        n, size = len(X), self.task.workload.batch_size
        whole = n // size
        state, losses = jax.lax.scan(
            lambda state, step: self._step(state, step[0], step[1], X, y),
            state,
            (order[: whole * size].reshape(whole, size), lr[:whole]),
        )
        total = jnp.sum(losses) * size
        if n % size:
            state, loss = self._step(state, order[whole * size :], lr[whole], X, y)
            total += loss * (n % size)
        return state, total / n

    def prepare(self, epochs: int) -> None:
        steps, dtype = len(self.task.batches), self.task.X.dtype
        self.orders = [jnp.asarray(order.astype(np.int32)) for order in self.task.orders(epochs)]
        self.rates = [jnp.asarray(self.task.learning_rates(k * steps, steps).astype(dtype)) for k in range(epochs)]

    def fit(self, epochs: int) -> list[float]:
        layers = [(jnp.array(W), jnp.array(b)) for W, b in self.task.layers]
        n_moments = 1 if self.task.workload.solver == "sgd" else 2
        state = [layers, *(jax.tree.map(jnp.zeros_like, layers) for _ in range(n_moments))]
        jax.block_until_ready(state)
        start = time.perf_counter()
        losses = []
        for order, lr in zip(self.orders[:epochs], self.rates[:epochs], strict=True):
            state, loss = self.epoch(state, order, lr)
            losses.append(loss)
        self.layers = jax.block_until_ready(state)[0]
        self.seconds = time.perf_counter() - start
        return self.task.mean_losses(losses)

    def params(self) -> np.ndarray:
        return flat(np.asarray(array) for arrays in zip(*self.layers, strict=True) for array in arrays)


trainer = Trainer


def device_name() -> str:
    return jax.devices("cuda")[0].device_kind
