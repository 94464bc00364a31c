"""The part of training that runs compiled: losses of many networks at once, their gradients, and Adam. Needs JAX.

Networks that share their inputs lie side by side along the last axis of every array: B networks of n features in D
dimensions have W of shape (n, D, B). The inputs times all of them is then one matrix product, and everything else runs
along a long contiguous axis. The same done by `jax.vmap` over networks gives the same numbers and takes 1 to 6 times
as long on a CPU (6 features, 3 dimensions), because it multiplies many small matrices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from capsolve.simulate.inputs import Inputs

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "quadratic": jnp.square,
    "relu": jax.nn.relu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


@dataclass(frozen=True)
class Descent:
    """Compiled functions for one kind of training; everything in it is fixed at compile time."""

    architecture: str
    activation: str
    inputs: Inputs
    steps: int
    learning_rate: float
    schedule: str
    batch: int  # the size of fresh minibatches; 0 for fixed points

    def start(self, params: Any) -> Any:
        """Return the state of the optimiser before the first step."""
        return self._optimiser().init(params)

    @functools.partial(jax.jit, static_argnums=0)
    def advance(self, params: Any, state: Any, step: Any, stop: Any, cells: Any, source: Any) -> tuple[Any, Any]:
        """Take the steps from ``step`` to ``stop``.

        ``cells`` are the importance (n, B), the unit of each row of W (n, B) and the loss that counts as 1 (B,).
        ``source`` is a pair: sets of points (R, P, n), taken in turn, and their weights (P,); or a random key and the
        density.
        """
        optimiser = self._optimiser()

        def body(k: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            params, state = carry
            if self.batch:
                key, density = source
                x = draw(self.inputs, jax.random.fold_in(key, k), (self.batch, cells[0].shape[0]), density)
                weights = jnp.full(self.batch, 1 / self.batch, jnp.float32)
            else:
                sets, weights = source
                x = sets[k % len(sets)]
            task = self._task(x, cells[0])
            gradient = jax.grad(lambda p: self._relative(p, task, weights, cells).sum())(params)
            updates, state = optimiser.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        with jax.default_matmul_precision("highest"):
            after: tuple[Any, Any] = jax.lax.fori_loop(step, stop, body, (params, state))
        return after

    @functools.partial(jax.jit, static_argnums=0)
    def evaluate(self, params: Any, cells: Any, points: Any, weights: Any) -> tuple[Any, Any, Any]:
        """Return the loss (B,), the norm of its gradient relative to ``cells[2]`` (B,), and the bias (1 or n, B)."""
        with jax.default_matmul_precision("highest"):
            task = self._task(points, cells[0])
            loss, bias = self._loss(params, task, weights, cells)
            gradient = jax.grad(lambda p: self._relative(p, task, weights, cells).sum())(params)
        squared = sum((g**2).reshape(-1, g.shape[-1]).sum(0) for g in gradient.values())
        return loss, jnp.sqrt(squared), bias

    @functools.partial(jax.jit, static_argnums=0)
    def nothing(self, importance: Any, points: Any, weights: Any) -> Any:
        """Return the loss of networks that have learnt only the mean of their targets, shape (B,)."""
        with jax.default_matmul_precision("highest"):
            if self.architecture == "sum":
                _, y = self._task(points, importance)
                return weights @ (y - weights @ y) ** 2
            spread = points - weights @ points
            return (weights @ spread**2) @ importance

    def _optimiser(self) -> Any:
        rate = self.learning_rate
        if self.schedule == "cosine":
            rate = optax.cosine_decay_schedule(rate, self.steps)
        # eps is small because gradients are: a feature of importance 1e-3 has one of 1e-6
        return optax.adam(rate, eps=1e-12)

    def _task(self, x: Any, importance: Any) -> tuple[Any, Any]:
        """Return the inputs and the targets: (P, B) in the sum model, (P, n, 1) in the autoencoder."""
        if self.architecture == "sum":
            return x, ACTIVATIONS[self.activation](x) @ importance
        return x, x[:, :, None]

    def _relative(self, params: Any, task: Any, weights: Any, cells: Any) -> Any:
        return self._loss(params, task, weights, cells)[0] / cells[2]

    def _loss(self, params: Any, task: Any, weights: Any, cells: Any) -> tuple[Any, Any]:
        (x, target), (importance, unit, _) = task, cells
        activation = ACTIVATIONS[self.activation]
        W = unit[:, None] * params["W"]
        n, D, B = W.shape
        if self.architecture == "sum":
            hidden = (x @ W.reshape(n, D * B)).reshape(-1, D, B)
            residual = target - activation(hidden).sum(1)
            bias = weights @ residual
            return weights @ (residual - bias) ** 2, bias[None]
        if n <= 4 * D:  # the Gram matrices take more multiplications, but one large product instead of B small ones
            gram = (W[:, None] * W[None]).sum(2)
            seen = (x @ gram.reshape(n, n * B)).reshape(-1, n, B)
        else:
            seen = jnp.einsum("pdb,idb->pib", (x @ W.reshape(n, D * B)).reshape(-1, D, B), W)
        error = (target - activation(seen + params["bias"])) ** 2
        return (importance * jnp.einsum("p,pib->ib", weights, error)).sum(0), params["bias"]


def draw(inputs: Inputs, key: Any, shape: tuple[int, int], density: Any) -> Any:
    """Return random inputs of the given shape, (count, n)."""
    which, values, side = jax.random.split(key, 3)
    count, n = shape
    if inputs.pairs is None:
        active = jax.random.bernoulli(which, density, shape)
    elif inputs.pairs == "correlated":
        active = jnp.repeat(jax.random.bernoulli(which, density, (count, n // 2)), 2, axis=1)
    else:
        pair = jax.random.bernoulli(which, 2 * density, (count, n // 2))
        first = jax.random.bernoulli(side, 0.5, (count, n // 2))
        active = jnp.stack([pair & first, pair & ~first], axis=-1).reshape(shape)
    if inputs.distribution == "uniform":
        value = jax.random.uniform(values, shape, jnp.float32, inputs.low, 1.0)
    elif inputs.distribution == "gaussian":
        value = jax.random.normal(values, shape, jnp.float32)
    else:
        value = jax.random.laplace(values, shape, jnp.float32) / jnp.sqrt(jnp.float32(2))
    return jnp.where(active, value, jnp.float32(0))
