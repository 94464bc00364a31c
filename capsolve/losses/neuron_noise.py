"""The quadratic toy model with noise on its neurons: a convex loss of its own, in one file.

With independent noise of standard deviation s on every hidden neuron the loss gains 4 s² Σ |w_i|² (and a constant that
is left out here). That is as if importances were smaller: with v_s = v − 2 s²/(κ−1), where that is positive,

    f(C) = (κ−1) (v² − v_s²) + v_s² ρ (1−C),      |w|² = ½ v_s ρ C,

and a feature whose v_s is not positive is not represented at all, however many dimensions there are. Proved in
`derivations/neuron_noise.py`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from capsolve._checks import FloatArray, capacity_vector, scalar
from capsolve.losses.model import ConvexLoss
from capsolve.losses.quadratic import QuadraticLoss

# Losses, its squares, and their sums stay finite.
LARGEST_ROOT = 1e140


class NeuronNoiseLoss(ConvexLoss):
    """Expected loss of the quadratic model with noisy neurons, as a function of capacity.

    Parameters
    ----------
    importance : (n,) array, v_i ≥ 0
        Coefficients of the target y = Σ v_i x_i².
    kurtosis : (n,) array or scalar, κ_i ≥ 3
        Pearson kurtosis of the inputs: at least 3, so that the losses are convex.
    noise : float, s ≥ 0
        Standard deviation of the noise on each neuron, in units of the neurons' activations.

    Raises
    ------
    ValueError
        As `QuadraticLoss`, and for κ < 3 or noise < 0.

    Examples
    --------
    Noise decides what is worth representing: the third feature is not, though there is room for all.

    >>> import capsolve
    >>> from capsolve.losses.neuron_noise import NeuronNoiseLoss
    >>> model = NeuronNoiseLoss([2.0, 1.0, 0.1], 9.0, noise=1.0)
    >>> capsolve.allocate(model, dimensions=3).capacity
    array([1., 1., 0.])
    >>> model.squared_norm([1.0, 1.0, 0.0])
    array([1.75, 0.75, 0.  ])

    References
    ----------
    The model of arXiv 2210.01892, eqs. 9–14, with noise as in arXiv 2312.03096.
    """

    def __init__(self, importance: Any, kurtosis: Any, noise: float) -> None:
        given = QuadraticLoss(importance, kurtosis).to_numpy()
        if not given.convex:
            i = int(np.argmax(given.kurtosis < 3.0))
            raise ValueError(f"kurtosis must be >= 3 for every feature, got {given.kurtosis[i]:g} at index {i}")
        self.importance, self.kurtosis = given.importance, given.kurtosis
        self.noise = scalar("noise", noise, low=0.0)
        largest = float(np.max(self.importance * np.sqrt(self.kurtosis - 1.0)))
        if not largest < LARGEST_ROOT:
            raise ValueError(
                f"importance × √(kurtosis − 1) must be below {LARGEST_ROOT:g}, got {largest:g}; divide all importances "
                "by a common factor and the noise by its root"
            )
        self._effective = QuadraticLoss(
            np.maximum(0.0, given.importance - 2.0 * self.noise**2 / (given.kurtosis - 1.0)), given.kurtosis
        )

    @property
    def features(self) -> int:
        """The number of features, n."""
        return self._effective.features

    def feature_loss(self, capacity: Any) -> FloatArray:
        """Return f_i(C_i), shape (n,)."""
        lost: FloatArray = (self.kurtosis - 1.0) * (self.importance**2 - self._effective.importance**2)
        return lost + self.excess_loss(capacity)

    def excess_loss(self, capacity: Any) -> FloatArray:
        """Return f_i(C_i) − f_i(1), shape (n,)."""
        loss: FloatArray = self._effective.feature_loss(capacity_vector(capacity, self.features))
        return loss

    def marginal(self, capacity: Any, *, growing: bool = True) -> FloatArray:
        """Return −f_i'(C_i) = ½ (v_s ρ)², shape (n,)."""
        marginal: FloatArray = self._effective.marginal(capacity, growing=growing)
        return marginal

    def response(self, price: float) -> FloatArray:
        """Return the capacities at which marginal values are the price, shape (n,)."""
        return self._effective.response(price)

    def normalised(self, capacity: FloatArray) -> tuple[NeuronNoiseLoss, float]:
        """Return an equivalent model whose loss is of order n at ``capacity``, and the unit of its importances."""
        unit = self._effective.normalised(capacity_vector(capacity, self.features))[1]
        scaled = NeuronNoiseLoss(self.importance / unit, self.kurtosis, self.noise / math.sqrt(unit))
        return scaled, unit

    def squared_norm(self, capacity: Any) -> FloatArray:
        """Return the best |w_i|² at the given capacities, shape (n,)."""
        squared_norm: FloatArray = self._effective.squared_norm(capacity)
        return squared_norm

    def __repr__(self) -> str:
        return f"NeuronNoiseLoss({self.features} features, noise={self.noise:g})"
