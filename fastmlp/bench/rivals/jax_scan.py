"""JAX: one jitted call per epoch, lax.scan over its steps, buffers donated; on the device that its process sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
        """Return the state and the mean loss of an epoch; order (rows of X), lr (steps,)."""
        n, size = len(order), self.task.workload.batch_size
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


def scorer(
    task: Task, candidates: Sequence[Mapping[str, Any]], splits: Sequence[tuple[np.ndarray, np.ndarray]], epochs: int
) -> Callable[[], np.ndarray]:
    """Return a function that trains a net per candidate and split, all at once, and returns their log losses times -1.

    A candidate has `learning_rate_init` and `random_state`. Splits (train, test) have equal sizes, so nets of a
    candidate draw the same weights and orders, as the estimators do. X and y are shared.
    """
    one = Trainer(task, "jax")
    train = jax.jit(jax.vmap(one._epoch, in_axes=(0, 0, 0, None, None)), donate_argnums=(0,))
    loss = jax.jit(jax.vmap(lambda layers, rows, X, y: one._loss(layers, X[rows], y[rows]), in_axes=(0, 0, None, None)))
    trained, tested = (np.array(rows) for rows in zip(*splits, strict=True))  # (splits, rows)
    rows = trained[0]

    def scores() -> np.ndarray:
        tasks = [
            Task(
                replace(task.workload, learning_rate=candidate["learning_rate_init"]),
                task.X[rows],
                task.y[rows],
                task.threads,
                task.backend,
                task.precision,
                seed=candidate["random_state"],
            )
            for candidate in candidates
        ]

        def per_net(arrays: Sequence[np.ndarray]) -> jax.Array:  # an array per candidate, for each of its splits
            return jnp.asarray(np.repeat(np.stack(arrays), len(splits), axis=0))

        layers = [
            (per_net([W for W, _ in pairs]), per_net([b for _, b in pairs]))
            for pairs in zip(*(task.layers for task in tasks), strict=True)
        ]
        state = [layers, *(jax.tree.map(jnp.zeros_like, layers) for _ in range(2))]
        steps = len(tasks[0].batches)
        for epoch in range(epochs):
            orders = np.concatenate([trained[:, task.orders(epoch + 1)[epoch]] for task in tasks]).astype(np.int32)
            lr = per_net([task.learning_rates(epoch * steps, steps).astype(task.X.dtype) for task in tasks])
            state, _ = train(state, jnp.asarray(orders), lr, one.X, one.y)
        test_rows = jnp.asarray(np.tile(tested, (len(tasks), 1)).astype(np.int32))
        return -np.asarray(loss(state[0], test_rows, one.X, one.y)).reshape(len(tasks), len(splits))

    return scores


def device_name() -> str:
    return jax.devices("cuda")[0].device_kind
