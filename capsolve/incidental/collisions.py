"""Which features share a neuron in a given network, and what it costs them in capacity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray, real_array, scalar
from capsolve.geometry.capacities import capacities

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Collisions:
    """Features that share a neuron, in one network or several: "..." stands for the networks.

    A weight is *large* if its size is between ``low`` and ``high``.

    Attributes
    ----------
    low, high : float
    features, neurons : int
        n and m.
    opposite_pairs, equal_pairs : (...) int array
        Pairs of features with large weights on one neuron, of opposite or of equal sign; one pair for each neuron that
        two features share.
    polysemantic : (...) int array
        Neurons with two or more large weights.
    opposite_neurons : (...) int array
        Neurons with large weights of both signs.
    single : (...) array
        The share of features with exactly one large weight: where the winner took all.
    capacity : (..., n) array
        C_i, as `capsolve.capacities` has it: ½ for two features of one length on one neuron.
    """

    low: float
    high: float
    features: int
    neurons: int
    opposite_pairs: Counts
    equal_pairs: Counts
    polysemantic: Counts
    opposite_neurons: Counts
    single: FloatArray
    capacity: FloatArray

    @property
    def excess(self) -> FloatArray:
        """The capacity that is lost without need, min(n, m) - Σ C_i, in dimensions; shape (...).

        min(n, m) is what an optimal allocation hands out when every feature wants a dimension. With n ≤ m one pair on
        one neuron is an excess of 1.
        """
        return np.asarray(min(self.features, self.neurons) - self.capacity.sum(axis=-1))

    def __repr__(self) -> str:
        return (
            f"Collisions({self.features} features, {self.neurons} neurons: {self.polysemantic} polysemantic, pairs of "
            f"opposite sign {self.opposite_pairs}, of equal sign {self.equal_pairs}, excess capacity "
            f"{np.round(self.excess, 2)})"
        )


def count_collisions(weights: Any, *, low: float = 0.8, high: float = 1.2) -> Collisions:
    """Count the neurons and pairs of features that collide in a network, and measure the capacities.

    Parameters
    ----------
    weights : array_like, shape (..., n, m)
        One row per feature.
    low, high : float
        What counts as a large weight; the defaults are the published ones.

    Returns
    -------
    Collisions

    Raises
    ------
    ValueError
        For weights that are not finite, of fewer than two axes or empty, or not 0 < low <= high.

    Examples
    --------
    Features 0 and 1 share neuron 0 with opposite signs, feature 2 has neuron 1, neuron 2 is idle:

    >>> found = count_collisions([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.9, 0.0]])
    >>> found
    Collisions(3 features, 3 neurons: 1 polysemantic, pairs of opposite sign 1, of equal sign 0, excess capacity 1.0)
    >>> found.capacity
    array([0.5, 0.5, 1. ])
    """
    W = np.asarray(weights)
    if W.ndim < 2 or W.size == 0:
        raise ValueError(f"weights must have shape (..., n, m) with at least one row and column, got {W.shape}")
    if W.dtype.kind not in "biuf" or not np.isfinite(W).all():
        raise ValueError("weights must be finite real numbers")
    least = scalar("low", low, low=float(np.finfo(float).tiny))
    most = scalar("high", high, low=least)
    size = np.abs(W)
    large = (size >= least) & (size <= most)
    positive = np.count_nonzero(large & (W > 0), axis=-2)
    negative = np.count_nonzero(large & (W < 0), axis=-2)
    several = positive + negative >= 2
    return Collisions(
        least,
        most,
        W.shape[-2],
        W.shape[-1],
        (positive * negative).sum(axis=-1),
        (positive * (positive - 1) // 2 + negative * (negative - 1) // 2).sum(axis=-1),
        several.sum(axis=-1),
        ((positive > 0) & (negative > 0)).sum(axis=-1),
        (np.count_nonzero(large, axis=-1) == 1).mean(axis=-1),
        np.asarray(capacities(W)),
    )


def same_winner(start: Any, end: Any) -> FloatArray:
    """Return the share of features whose largest weight is where it was at the start, with the same sign; shape (...).

    Parameters
    ----------
    start, end : array_like, shape (..., n, m)
        Two states of one network.

    Examples
    --------
    >>> same_winner([[0.2, 0.1], [0.2, -0.3]], [[1.0, 0.0], [0.0, 1.0]])
    array(0.5)
    """
    a, b = _alike(start, end)
    first, last = (np.abs(w).argmax(axis=-1)[..., None] for w in (a, b))
    signs = [np.sign(np.take_along_axis(w, last, axis=-1)) for w in (a, b)]
    return np.asarray(((first == last) & (signs[0] == signs[1])).mean(axis=(-2, -1)))


def start_end_correlation(start: Any, end: Any) -> FloatArray:
    """Return the cosines between rows at the start and rows at the end, shape (..., n, n); 0 for rows of zeros.

    Entry (i, j) is the cosine of w_i at the start and w_j at the end. The diagonal stands out where features end where
    they began.

    Examples
    --------
    >>> start_end_correlation([[0.3, 0.4], [0.2, 0.0]], [[0.0, 1.0], [1.0, 0.0]])
    array([[0.8, 0.6],
           [0. , 1. ]])
    """
    a, b = (w / np.where((norm := np.linalg.norm(w, axis=-1, keepdims=True)) > 0, norm, 1) for w in _alike(start, end))
    return np.asarray(a @ np.swapaxes(b, -1, -2))


def hidden_interference(weights: Any) -> FloatArray:
    r"""Return the overlap that the ReLU hides, :math:`\sum_{i<j} \mathrm{ReLU}(-w_i \cdot w_j)^2`, shape (...).

    It is the number of colliding pairs before there are any: for weights drawn from N(0, 1/m) it is n(n-1)/(4m) on
    average, as many as pairs with opposite signs would be by chance, and once every feature has one weight of size 1 it
    is the number of these pairs. In between it shows when training departs from a pure draw.

    Parameters
    ----------
    weights : array_like, shape (..., n, m)

    Examples
    --------
    >>> hidden_interference([[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]])
    array(1.36)
    """
    W = real_array("weights", weights)
    if W.ndim < 2:
        raise ValueError(f"weights must have shape (..., n, m), got {W.shape}")
    hidden = np.maximum(-(W @ np.swapaxes(W, -1, -2)), 0.0)
    return np.asarray((hidden**2).sum(axis=(-2, -1)) / 2.0)


def _alike(start: Any, end: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    a, b = np.asarray(start), np.asarray(end)
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"start and end must have the same shape (..., n, m), got {a.shape} and {b.shape}")
    return a, b


def standard_error(values: FloatArray) -> FloatArray:
    """Return the standard error of the mean over networks, the columns of ``values``; NaN for a single network."""
    if values.shape[1] == 1:
        return np.full(len(values), np.nan)
    return np.asarray(values.std(axis=1, ddof=1) / np.sqrt(values.shape[1]))
