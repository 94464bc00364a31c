"""The compiled part of training autoencoders of one-hot inputs: closed-form gradients, three ways to follow them.

Needs JAX. B networks lie side by side along the first axis: W has the shape (B, n, m).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from capsolve.incidental.sparse_adamw import EPSILON, FIRST, SECOND


@dataclass(frozen=True)
class Steps:
    """Everything that is fixed at compile time: the optimiser, the kind of noise, and whether a batch shares it."""

    optimiser: str
    noise: str | None
    shared: bool

    def start(self, W: Any) -> Any:
        """Return the state before the first step: the weights, and the moments where there are any."""
        moments = (jnp.zeros_like(W), jnp.zeros_like(W)) if self.optimiser == "adamw" else ()
        return (W, *moments)

    @functools.partial(jax.jit, static_argnums=0)
    def advance(self, state: Any, step: Any, stop: Any, numbers: dict[str, Any], key: Any) -> Any:
        """Take the steps from ``step`` to ``stop``."""

        def body(k: Any, state: Any) -> Any:
            return self._step(k, state, numbers, jax.random.fold_in(key, k))

        with jax.default_matmul_precision("highest"):
            return jax.lax.fori_loop(step, stop, body, state)

    def _step(self, k: Any, state: Any, numbers: dict[str, Any], key: Any) -> Any:
        W, *moments = state
        rate, penalty = numbers["rate"], numbers["penalty"]
        if self.optimiser == "flow":  # what the penalty does is done after: weights that reach 0 stay
            there = W - rate / 4.0 * smooth_gradient(W)
            return (jnp.sign(there) * jnp.maximum(jnp.abs(there) - rate / 4.0 * penalty, 0.0),)
        if self.noise is None:
            gradient = smooth_gradient(W)
        else:
            shape = (W.shape[0], 1, W.shape[2]) if self.shared else W.shape
            gradient = noisy_gradient(W, numbers["sigma"] * draw(self.noise, key, shape, numbers["kurtosis"]))
        gradient = gradient + penalty * jnp.sign(W)
        if self.optimiser == "sgd":
            return (W - rate * gradient,)
        first = FIRST * moments[0] + (1 - FIRST) * gradient
        second = SECOND * moments[1] + (1 - SECOND) * gradient**2
        t = jnp.asarray(k + 1, W.dtype)
        move = first / (1 - FIRST**t) / (jnp.sqrt(second / (1 - SECOND**t)) + EPSILON)
        return (1 - rate * numbers["decay"]) * W - rate * move, first, second


def smooth_gradient(W: Any) -> Any:
    """Return the gradient of Σ_i |ReLU(W w_i) - e_i|²: 4 P W, P = ReLU(G) - I where G = W Wᵀ is positive."""
    G = W @ W.mT
    return 4.0 * jnp.where(G > 0, G - jnp.eye(W.shape[-2], dtype=W.dtype), 0.0) @ W


def noisy_gradient(W: Any, noise: Any) -> Any:
    """Return the gradient of Σ_i |ReLU(W (w_i + ξ_i)) - e_i|², with one row of noise for each input, or one for all."""
    hidden = W + noise
    Y = hidden @ W.mT
    P = jnp.where(Y > 0, Y - jnp.eye(W.shape[-2], dtype=W.dtype), 0.0)
    return 2.0 * (P.mT @ hidden + P @ W)


def draw(kind: str, key: Any, shape: tuple[int, ...], kurtosis: Any) -> Any:
    """Return noise of variance 1."""
    one, other = jax.random.split(key)
    if kind == "rademacher":
        return jax.random.rademacher(one, shape, jnp.float32)
    if kind == "gaussian":
        return jax.random.normal(one, shape)
    if kind == "uniform":
        return jax.random.uniform(one, shape, minval=-1.0, maxval=1.0) * jnp.sqrt(jnp.float32(3))
    if kind == "laplace":
        return jax.random.laplace(one, shape) / jnp.sqrt(jnp.float32(2))
    if kind == "light":  # signs and a Gaussian: fourth cumulants add, and that of the signs is -2
        share = jnp.sqrt((3.0 - kurtosis) / 2.0)
        signs = jax.random.rademacher(other, shape, jnp.float32)
        return jnp.sqrt(share) * signs + jnp.sqrt(1.0 - share) * jax.random.normal(one, shape)
    # a Gaussian that is there with the probability 3/κ
    there = jax.random.bernoulli(other, 3.0 / kurtosis, shape)
    return jnp.where(there, jax.random.normal(one, shape) * jnp.sqrt(kurtosis / 3.0), 0.0)
