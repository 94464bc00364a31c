"""What chance and the flow predict: proved in ``derivations/incidental.py``, for arXiv 2312.03096."""

from __future__ import annotations

from typing import Any

import numpy as np

from capsolve._checks import FloatArray, at_least, real_array, scalar, whole


def expected_pairs(features: int, neurons: Any) -> Any:
    r"""Return the expected number of pairs of features on one neuron with opposite signs, n(n-1)/(4m).

    Every feature has one neuron and one sign, drawn uniformly and independently. ``neurons`` is a number or an array.

    Examples
    --------
    >>> expected_pairs(256, [256, 512, 1024])
    array([63.75  , 31.875 , 15.9375])
    """
    n, m = _sizes(features, neurons)
    return (n * (n - 1) / (4.0 * m))[()]


def expected_neurons(features: int, neurons: Any, *, exclusive: bool = False) -> Any:
    r"""Return the expected number of neurons with features of both signs.

    Parameters
    ----------
    features : int
        n.
    neurons : int or array_like of int
        m.
    exclusive : bool
        If False, every feature draws its neuron and its sign independently: :math:`m (1 - 2(1-1/2m)^n + (1-1/m)^n)`.
        If True, no two features have the same neuron and the same sign, all such choices being equally likely:
        :math:`n(n-1)/(2(2m-1))`, for n ≤ 2m. That is what is left when features that collide with equal signs push each
        other to neurons at random; every neuron of this kind is one pair.

    Raises
    ------
    ValueError
        For numbers that are not positive integers, or exclusive places for more than 2m features.

    Examples
    --------
    >>> expected_neurons(256, [256, 1024]).round(1)
    array([39.6, 14.1])
    >>> expected_neurons(256, [256, 1024], exclusive=True).round(1)
    array([63.9, 15.9])
    """
    n, m = _sizes(features, neurons)
    if exclusive:
        if (2 * m < n).any():
            raise ValueError(f"neurons must be at least features / 2 for exclusive places, got {m.min():g} for {n}")
        return (n * (n - 1) / (2.0 * (2.0 * m - 1.0)))[()]
    one, none = n * np.log1p(-0.5 / m), np.where(m > 1, n * np.log1p(-1.0 / np.maximum(m, 2)), -np.inf)
    # the ones cancel before anything is rounded; what is left loses a digit for each factor of ten in m / n
    return (m * (np.expm1(none) - 2.0 * np.expm1(one)))[()]


def sparsity_laws(time: Any, penalty: float, start: float, shape: float = 2.0) -> tuple[FloatArray, FloatArray]:
    r"""Return |w|₁ and the number of survivors m' of a row in time.

    .. math:: |w|_1 = \max\left(\frac{1}{1/|w(0)|_1 + (q-1) \lambda t},\ 1\right), \qquad m' = q |w|_1^2

    Parameters
    ----------
    time : array_like
        t ≥ 0.
    penalty : float
        λ.
    start : float
        |w|₁ at time 0: √(2m/π) on average for weights drawn from N(0, 1/m).
    shape : float
        q = m'|w|²/|w|₁² ≥ 1, which rises slowly from π/2 towards 2. The published law has q = 2, the start √m, and
        m' = |w|₁².

    Examples
    --------
    >>> norm, survivors = sparsity_laws([0.0, 1e3, 1e6], 1e-4, start=80.0)
    >>> norm.round(2), survivors.astype(int)
    (array([80.  ,  8.89,  1.  ]), array([12800,   158,     1]))
    """
    t = real_array("time", time)
    at_least("time", t, 0.0)
    lam, q = scalar("penalty", penalty, low=0.0), scalar("shape", shape, low=1.0)
    norm = np.maximum(1.0 / (1.0 / scalar("start", start, low=1.0) + (q - 1.0) * lam * t), 1.0)
    return norm, np.where(norm > 1.0, q * norm**2, 1.0)


def projected_excess(weights: Any, kurtosis: float) -> FloatArray:
    r"""Return the excess kurtosis of w·ξ for every row w: :math:`(\kappa_\xi - 3) \sum_k w_k^4 / |w|^4`.

    ξ is independent noise of Pearson kurtosis κ on every neuron. It is most negative for signs, κ = 1, on a row of one
    weight: -2. ``weights`` has shape (..., m), rows that are not 0.

    Examples
    --------
    >>> projected_excess([[1.0, 0.0], [1.0, 1.0]], kurtosis=1.0)
    array([-2., -1.])
    """
    w = real_array("weights", weights)
    square = (w * w).sum(axis=-1)
    if not square.all():
        raise ValueError("weights must have no row of zeros")
    fourth: FloatArray = (w**4).sum(axis=-1)
    return np.asarray((scalar("kurtosis", kurtosis, low=1.0) - 3.0) * fourth / square**2)


def _sizes(features: int, neurons: Any) -> tuple[int, FloatArray]:
    m = real_array("neurons", neurons)
    at_least("neurons", m, 1.0)
    for number in m.flat:
        whole("neurons", number)
    return whole("features", features), m
