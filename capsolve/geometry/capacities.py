"""How much of the space each feature of a given embedding has: capacities, leverages, efficiency, interference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import array_api_compat as api
import numpy as np

from capsolve._arrays import constant, dense
from capsolve._checks import scalar
from capsolve.geometry.second_moment import (
    SecondMoment,
    floating,
    or_one,
    require_finite,
    row_blocks,
    summarise_and_answer,
)

_FACTOR = 2**24  # entries of W in one step of the orthogonal factorisation


def capacities(W: Any, *, feature_axis: int = -2) -> Any:
    r"""Return the capacity of every feature of an embedding.

    .. math:: C_i = \frac{|w_i|^4}{\sum_j (w_i \cdot w_j)^2} = \frac{|w_i|^4}{w_i^\top M w_i}, \qquad M = W^\top W

    0 ≤ C_i ≤ 1, with 1 for a feature that is orthogonal to every other one, and 0 for a zero row. Σ C_i ≤ rank W, with
    equality just where every row is an eigenvector of M. The same number is the squared correlation between x_i and
    (W Wᵀ x)_i for white inputs x (Scherlis et al., arXiv 2210.01892, eq. 2 and App. E) and the per-feature
    dimensionality of Elhage et al. (2022).

    Parameters
    ----------
    W : array, shape (..., n, D)
        One row per feature, the ``W_dec`` layout of sparse autoencoders; leading axes are batches. NumPy, PyTorch,
        JAX, CuPy, Dask or any other array of the array API standard, of real numbers; sparse ones become dense. Where
        a tensor of PyTorch requires a gradient, so do the answers, but for `leverages`.
    feature_axis : int
        The axis that counts features; -1 for one column per feature. Dimensions are the last of the other axes.

    Returns
    -------
    array, shape (..., n)
        Of W's kind and on W's device; float32 for 16-bit W, and for integers the namespace's default float.

    Raises
    ------
    ValueError
        For fewer than two axes, an empty W, complex numbers, NaN or infinities.

    Notes
    -----
    O(nD²) time; beyond W, O(D²) memory and a block of rows. With u the unit roundoff of the precision used (W's own,
    or float32 for 16-bit W, which is converted exactly), to first order

        |δC_i| / C_i  ≤  2 (n + 2D) u · Σ_j (|ŵ_i|·|w_j|)² / Σ_j (ŵ_i·w_j)²

    where |w| holds the absolute values of w's entries. Rounding errors are far from their worst case: for
    65,536 × 2,304 Gaussian entries in float32 the largest relative error is below 1e-6. A feature much shorter than
    those it is orthogonal to keeps its digits if their entries are zero where its own are not, and loses them
    otherwise.

    Examples
    --------
    >>> import numpy as np
    >>> turn = 2 * np.pi * np.arange(3) / 3
    >>> capacities(np.column_stack([np.cos(turn), np.sin(turn)])).round(12)
    array([0.66666667, 0.66666667, 0.66666667])
    """
    W = _features_first(W, feature_axis)
    return summarise_and_answer(W, SecondMoment, SecondMoment.capacities, floating("W", W)[1].dtype)


def stream_capacities(blocks: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """Yield the capacities of an embedding larger than memory, one array per block of its rows.

    Parameters
    ----------
    blocks : callable
        Called twice; each time it returns an iterable over the same blocks (rows, D) in the same order.

    Examples
    --------
    >>> import numpy as np
    >>> W = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> list(stream_capacities(lambda: (W[:2], W[2:])))
    [array([1. , 0.5]), array([0.5])]
    """
    moment = SecondMoment()
    for rows in blocks():
        moment.add(rows)
    for rows in blocks():
        yield moment.capacities(rows)


def interference(W: Any, *, feature_axis: int = -2) -> Any:
    r"""Return what the other features add along each feature's direction, :math:`\sum_{j≠i} (ŵ_i \cdot w_j)^2`.

    It equals |w_i|² (1/C_i − 1), in W's units squared, and 0 for a zero row. Arguments, shapes and errors are those of
    `capacities`. It is a difference: its absolute error is that of the sum with j = i included.

    Examples
    --------
    >>> import numpy as np
    >>> interference(np.array([[2.0, 0.0], [0.0, 1.0], [0.0, -3.0]]))
    array([0., 9., 1.])
    """
    W = _features_first(W, feature_axis)
    return summarise_and_answer(W, SecondMoment, SecondMoment.interference, floating("W", W)[1].dtype)


def efficiency(W: Any, *, feature_axis: int = -2) -> Any:
    """Return Σ C_i / D, the fraction of the dimensions that is capacity: 1 just where W is block-semi-orthogonal.

    That is where W's rows fall into mutually orthogonal tight frames which fill all D dimensions (Scherlis et al.,
    arXiv 2210.01892, sec. 4). Arguments and errors are those of `capacities`; one number per batch.

    Examples
    --------
    >>> import numpy as np
    >>> W = np.array([[1.0, 0.0], [np.cos(np.pi / 6), np.sin(np.pi / 6)]])
    >>> round(float(efficiency(W)), 6)  # 4/7 each, in two dimensions
    0.571429
    """
    W = _features_first(W, feature_axis)
    capacity = capacities(W)
    return api.array_namespace(capacity).sum(capacity, axis=-1) / W.shape[-1]


def leverages(W: Any, *, feature_axis: int = -2) -> Any:
    """Return the leverage score ℓ_i = w_iᵀ M⁺ w_i of every feature, M = WᵀW: the other capacity (App. G).

    C_i ≤ ℓ_i ≤ 1, with C_i = ℓ_i just where w_i is an eigenvector of M, and Σ ℓ_i = rank W for every W. Arguments,
    shapes and errors are those of `capacities`.

    Singular values of the column-scaled W up to D·eps times the largest count as zero, eps being that of W's
    precision. W is factored by blocks of rows, never squared: the error is about eps times W's condition number, where
    M would square it. No derivatives flow through them: those of a factor are undefined where its singular values are
    equal, as they are for tight frames.

    Examples
    --------
    >>> import numpy as np
    >>> W = np.array([[1.0, 0.0], [np.cos(np.pi / 6), np.sin(np.pi / 6)]])
    >>> leverages(W).round(12), capacities(W).round(6)
    (array([1., 1.]), array([0.571429, 0.571429]))
    """
    W = constant(_features_first(W, feature_axis))
    return summarise_and_answer(W, _Factor, _Factor.leverages, floating("W", W)[1].dtype)


class _Factor:
    """The triangular factor R of W = QR, its columns in units of W's largest entry in them."""

    def __init__(self) -> None:
        self._factor: Any = None
        self._scale: Any = None

    def add(self, rows: Any) -> None:
        """Take in a block of rows."""
        xp, rows = floating("W", rows)
        for block in row_blocks(rows, _FACTOR):
            peak = xp.maximum(xp.max(block, axis=-2), -xp.min(block, axis=-2))
            require_finite("W", xp, peak)
            self._take(xp, block / or_one(xp, peak)[..., None, :], peak)

    def merge(self, other: _Factor) -> None:
        """Take in the rows that ``other`` was given."""
        self._take(api.array_namespace(other._factor), other._factor, other._scale)

    def _take(self, xp: Any, rows: Any, scale: Any) -> None:
        if self._scale is not None:
            largest = xp.maximum(self._scale, scale)
            unit = or_one(xp, largest)
            rows = xp.concat(
                [part * (own / unit)[..., None, :] for part, own in ((self._factor, self._scale), (rows, scale))],
                axis=-2,
            )
            scale = largest
        self._factor = np.linalg.qr(rows, mode="r") if api.is_numpy_array(rows) else xp.linalg.qr(rows)[1]
        self._scale = scale

    def leverages(self, rows: Any) -> Any:
        """Return the leverage score of each of ``rows`` (..., n, D), shape (..., n)."""
        xp, rows = floating("W", rows)
        _, singular, directions = xp.linalg.svd(self._factor, full_matrices=False)
        cut = rows.shape[-1] * xp.finfo(rows.dtype).eps * xp.max(singular, axis=-1, keepdims=True)
        kept = singular > cut
        inverse = xp.astype(kept, singular.dtype) / xp.where(kept, singular, xp.ones_like(singular))
        whiten = xp.matrix_transpose(directions) * inverse[..., None, :]
        scale = or_one(xp, self._scale)[..., None, :]  # leverages do not see column scales
        parts = [(block / scale) @ whiten for block in row_blocks(rows, _FACTOR)]
        # The rows of an orthonormal basis are no longer than 1, but for rounding times the condition number.
        return xp.concat([xp.clip(xp.vecdot(part, part, axis=-1), None, 1.0) for part in parts], axis=-1)


def random_capacity(features: float, dimensions: float) -> float:
    """Return nD/(n + D − 1), the Σ C of n random directions in D dimensions: the null to hold a measurement against.

    Two random directions have a squared cosine of 1/D on average, so Σ_j cos² ≈ 1 + (n − 1)/D for each feature. The
    mean of ΣC itself is larger, by a relative 2(D−1)(n−1) / ((D+2)(n+D−1)²) to leading order.

    Examples
    --------
    >>> random_capacity(1000, 10)
    9.910802775024777
    """
    n = scalar("features", features, low=1.0)
    D = scalar("dimensions", dimensions, low=1.0)
    return n * D / (n + D - 1)


def _features_first(W: Any, feature_axis: int) -> Any:
    """Bring the feature axis to −2 and the dimensions to −1."""
    W = dense(W, "W")
    if not api.is_array_api_obj(W) or isinstance(W, np.ma.MaskedArray):
        W = floating("W", W)[1]
    if W.ndim < 2:
        raise ValueError(f"W must have a feature and a dimension axis, got shape {tuple(W.shape)}")
    if not isinstance(feature_axis, int | np.integer) or not -W.ndim <= feature_axis < W.ndim:
        raise ValueError(
            f"feature_axis must be in [{-W.ndim}, {W.ndim - 1}] for shape {tuple(W.shape)}, got {feature_axis!r}"
        )
    return api.array_namespace(W).moveaxis(W, feature_axis, -2)
