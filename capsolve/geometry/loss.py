"""What an embedding costs in the quadratic model: exactly, its gradient, and by sampling inputs.

Inputs x_i are independent, with mean 0, variance 1, third moment 0 and kurtosis κ_i. The target is y = Σ v_i x_i², the
model ŷ = Σ_k (Σ_i W_ik x_i)², plus a bias. With G = W Wᵀ and m_i = G_ii = |w_i|², the expected squared error is

    L = Σ_i (κ_i − 1)(v_i − m_i)² + 2 Σ_{i≠j} G_ij²        with the best bias, Σ_i (v_i − m_i)
    L + (Σ_i (v_i − m_i))²                                  without one

(Scherlis et al., arXiv 2210.01892, eqs. 4-8). The n × n matrix G is never formed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from capsolve._checks import FloatArray, importance_and_kurtosis, real_array, whole
from capsolve.geometry.capacities import capacities

_ENTRIES = 2**21  # numbers in one block of G, or of samples


def embedding_loss(W: Any, importance: Any, kurtosis: Any, bias: bool = True) -> float:
    """Return the expected squared error of an embedding in the quadratic model.

    Parameters
    ----------
    W : array_like, shape (n, D)
        One row per feature.
    importance : array_like, shape (n,)
        v_i ≥ 0.
    kurtosis : array_like, shape (n,) or scalar
        κ_i ≥ 1, Pearson's (3 for a Gaussian).
    bias : bool
        Whether the model has a bias, at its optimum.

    Raises
    ------
    ValueError
        For arguments of the wrong shape or range, or not finite.

    Notes
    -----
    Σ_{i≠j} G_ij² is what ‖WᵀW‖² leaves after subtracting Σ m_i², and all its digits may go with the difference. So the
    features with more than half a dimension, of which there are at most 2D, are multiplied out with all others, and
    only the rest is taken from its second moments, which then cannot cancel. The relative error is a small multiple of
    eps, however little of the loss is interference. O(nD²) time, O(D²) memory and blocks.

    Examples
    --------
    >>> W = [[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    >>> embedding_loss(W, [1, 2, 2], kurtosis=9)  # 8 (0 + 1 + 1) + 2 (1 + 1)
    20.0
    """
    W, v, k = _arguments(W, importance, kurtosis)
    unit = max(math.sqrt(v.max()), float(np.abs(W).max(initial=0.0)))
    if unit == 0:
        return 0.0
    unit = math.ldexp(0.5, math.frexp(unit)[1])  # a power of 2, so that squares stay in range and nothing rounds
    W, v = W / unit, v / unit / unit
    m = np.vecdot(W, W)
    loss = math.fsum((k - 1) * (v - m) ** 2) + 2 * _off_diagonal(W, m)
    if not bias:
        loss += math.fsum(v - m) ** 2
    return loss * unit * unit * unit * unit


def embedding_loss_gradient(W: Any, importance: Any, kurtosis: Any, bias: bool = True) -> FloatArray:
    """Return the gradient of `embedding_loss` with respect to W, shape (n, D); arguments and errors are the same.

    Row i is −4(κ_i − 1)(v_i − m_i) w_i + 8 (M w_i − m_i w_i), and without a bias − 4 Σ_j (v_j − m_j) w_i more.

    Examples
    --------
    >>> embedding_loss_gradient([[1.0, 0.0], [0.0, 1.0]], [1, 2], kurtosis=3)
    array([[ 0.,  0.],
           [ 0., -8.]])
    """
    W, v, k = _arguments(W, importance, kurtosis)
    m = np.vecdot(W, W)
    own = -4 * (k - 1) * (v - m) - 8 * m
    if not bias:
        own -= 4 * math.fsum(v - m)
    gradient: FloatArray = 8 * (W @ (W.T @ W)) + own[:, None] * W
    return gradient + 0.0  # no negative zeros


def sampled_loss(
    W: Any,
    importance: Any,
    kurtosis: Any = None,
    bias: bool = True,
    *,
    draw: Callable[[np.random.Generator, int], Any] | None = None,
    samples: int = 100_000,
    rng: Any = None,
) -> tuple[float, float]:
    """Return a Monte-Carlo estimate of `embedding_loss` and its standard error.

    The bias is the exact optimum for inputs of unit variance, so the estimate is unbiased.

    Parameters
    ----------
    W, importance, bias
        As for `embedding_loss`.
    kurtosis : array_like, shape (n,) or scalar, optional
        Draw x_i = ±√κ_i with probability 1/κ_i and 0 otherwise: mean 0, variance 1, kurtosis κ_i.
    draw : callable, optional
        In place of ``kurtosis``: ``draw(rng, count)`` returns inputs of shape (count, n).
    samples : int
        The number of inputs, at least 2.
    rng : numpy.random.Generator or seed, optional

    Returns
    -------
    mean, standard_error : float

    Notes
    -----
    The error of the mean involves eighth moments, κ³ for these inputs: it shrinks as √(κ³/samples), and is itself
    underestimated while samples/κ is small.

    Examples
    --------
    >>> mean, error = sampled_loss([[1.0], [1.0]], [1, 1], kurtosis=5, samples=10_000, rng=0)
    >>> abs(mean - embedding_loss([[1.0], [1.0]], [1, 1], kurtosis=5)) < 4 * error
    True
    """
    if (kurtosis is None) == (draw is None):
        raise ValueError("give exactly one of kurtosis and draw")
    W, v, k = _arguments(W, importance, 1.0 if kurtosis is None else kurtosis)
    count = whole("samples", samples, low=2)
    generator = np.random.default_rng(rng)
    sample = draw if draw is not None else _sparse_signs(k)
    best = math.fsum(v - np.vecdot(W, W)) if bias else 0.0
    losses: FloatArray = np.empty(count)
    step = max(1, _ENTRIES // v.size)
    for start in range(0, losses.size, step):
        size = min(step, losses.size - start)
        x = real_array("the result of draw", sample(generator, size), ndim=2)
        if x.shape != (size, v.size):
            raise ValueError(f"draw must return shape {(size, v.size)}, got {x.shape}")
        hidden: FloatArray = x @ W
        losses[start : start + size] = (x**2 @ v - np.vecdot(hidden, hidden) - best) ** 2
    return float(losses.mean()), float(losses.std(ddof=1) / math.sqrt(losses.size))


def _sparse_signs(kurtosis: FloatArray) -> Callable[[np.random.Generator, int], FloatArray]:
    def draw(rng: np.random.Generator, count: int) -> FloatArray:
        # One uniform number decides both: the outer 1/(2κ) at either end are the two signs.
        u = rng.random((count, kurtosis.size))
        tail = 0.5 / kurtosis
        size = np.sqrt(kurtosis)
        return np.where(u < tail, size, np.where(u >= 1 - tail, -size, 0.0))

    return draw


def _off_diagonal(W: FloatArray, m: FloatArray) -> float:
    """Return Σ_{i≠j} (w_i · w_j)², every digit of it."""
    if W.shape[1] == 0:
        return 0.0
    large = capacities(W) > 0.5
    few, rest = W[large], W[~large]
    moment = rest.T @ rest
    # For the rest Σ_j G_ij² ≥ 2 m_i²: this difference loses less than one bit of the whole.
    total = max(float((moment**2).sum()) - math.fsum(m[~large] ** 2), 0.0)
    step = max(1, _ENTRIES // max(1, len(W)))
    for start in range(0, len(few), step):
        block = few[start : start + step]
        inner = block @ few.T
        inner[np.arange(len(block)), start + np.arange(len(block))] = 0.0
        total += float((inner**2).sum()) + 2 * float(((block @ rest.T) ** 2).sum())
    return total


def _arguments(W: Any, importance: Any, kurtosis: Any) -> tuple[FloatArray, FloatArray, FloatArray]:
    W = real_array("W", W, ndim=2)
    v, k = importance_and_kurtosis(importance, kurtosis)
    if len(W) != v.size:
        raise ValueError(f"W must have one row per feature: {v.size} features, got shape {W.shape}")
    return W, v, k
