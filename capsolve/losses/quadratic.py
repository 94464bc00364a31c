r"""The quadratic toy model of Scherlis et al. 2022 in closed form.

Inputs x_i are independent with zero mean, zero third moment, unit variance and kurtosis κ_i. The target is
y = Σ v_i x_i², the network ŷ = Σ_k (Σ_i W_ik x_i)² + c. Once every embedding row has its best length, the expected
squared error depends on the capacities alone (eqs. 13–14): with γ_i = (κ_i − 3)/2,

    L(C) = Σ_i v_i² (κ_i − 1) (1 − C_i) / (1 + γ_i C_i).

Without the output bias c the loss gains the square of the trace T = Σ_i (v_i − |w_i|²), which raises every importance
to v_i + T/(κ_i − 1); T depends on all capacities but is known in closed form once they are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray, capacity_vector, flag, outward, profile_shaped, scalar, validate

# Importances this many times the scale belong to full features: larger ones are capped where losses are normalised, so
# that squares stay finite.
GIANT = 1e140
# Up to so many numbers are copied.
PRIVATE = 1 << 16


class Demand(NamedTuple):
    """How the capacity of each feature answers to the scale τ = √(price/2), shape (n,) each.

    Capacity is 0 for τ ≥ ``enter``, 1 for τ ≤ ``full`` and linear in 1/τ between, at a rate set by ``gain`` = 2/(κ−3).
    Where ``enter`` = ``full`` the feature takes everything at once (κ ≤ 3, or so close above 3 that no τ lies
    between). ``width`` is the capacity of a satisfied feature: 1, or less where part of it has been given already.
    """

    enter: FloatArray
    full: FloatArray
    gain: FloatArray
    width: FloatArray

    def at(self, scale: float, correction: float = 0.0, xp: Any = np) -> Any:
        """Return the capacities at τ = ``scale`` + ``correction``; a feature that jumps exactly there has not jumped.

        The correction is what a float cannot hold of τ: some ulps of it, which is much where κ − 3 is small.
        """
        room = (self.enter - scale) - correction
        excess = (scale - self.full) + correction
        # Two forms of one line: the first keeps small capacities accurate relatively (large κ), the second keeps steep
        # ones accurate absolutely (κ near 3), because τ − full is exact there (Sterbenz).
        share = xp.where(self.gain < 1.0, self.gain * (room / scale), 1.0 - (1.0 + self.gain) * (excess / scale))
        share = xp.where(room <= 0.0, 0.0, xp.where(excess <= 0.0, 1.0, xp.clip(share, 0.0, 1.0)))
        return share * self.width

    def jumps_at(self, scale: float) -> FloatArray:
        """Return what the features that jump exactly at ``scale`` would add, 0 for the others."""
        return np.where((self.enter <= self.full) & (self.enter == scale), self.width, 0.0)


def _kept(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a read-only array: a private copy if it is small, a view if it is large."""
    array = array.copy() if array.size <= PRIVATE else array.view()
    array.flags.writeable = False
    return array


def _wide(array: npt.NDArray[Any]) -> FloatArray:
    if array.dtype == np.float64:
        return array
    array = array.astype(np.float64)
    array.flags.writeable = False
    return array


def demand_of(v: Any, k: Any, xp: Any = np) -> Demand:
    """Return the demand of features with importance ``v`` and kurtosis ``k``, see `QuadraticLoss.demand_curve`."""
    convex, excess = k >= 3.0, k - 3.0
    full = xp.where(convex, v, v * xp.sqrt(0.5 * (k - 1.0)))
    enter = xp.where(convex, v * (0.5 * (k - 1.0)), full)
    gain = xp.where(excess > 0.0, 2.0 / xp.where(excess > 0.0, excess, 1.0), 0.0)
    return Demand(enter, full, gain, xp.where(v > 0.0, xp.ones_like(v), 0.0))


@dataclass(frozen=True, eq=False, init=False, repr=False)
class QuadraticLoss:
    """Expected loss of the quadratic model as a function of capacity.

    Parameters
    ----------
    importance : (n,) array, v_i ≥ 0
        Coefficients of the target y = Σ v_i x_i².
    kurtosis : (n,) array or scalar, κ_i ≥ 1
        Pearson kurtosis of the inputs (Gaussian = 3).
    bias : bool
        Whether the network has an output bias. Without one every kurtosis must be at least 3: below, capacity
        and trace no longer form a convex–concave saddle and no certificate would hold.

    Up to 65,536 numbers are copied. Larger arrays are used as they are: do not change them as long as the model or
    an allocation of it is in use.

    Raises
    ------
    ValueError
        For NaN, infinite or negative importance, kurtosis < 1 (or < 3 without bias), mismatched lengths, no features.

    Examples
    --------
    >>> import capsolve
    >>> model = capsolve.QuadraticLoss([1.0, 0.5], kurtosis=9.0)
    >>> model.feature_loss([1.0, 0.25])  # the first is monosemantic and costs nothing
    array([0.       , 0.8571...])

    References
    ----------
    arXiv 2210.01892, eqs. 12–14; without bias, eq. 11 with the trace term kept.
    """

    given: tuple[npt.NDArray[Any], npt.NDArray[Any]]  # importance (n,) and kurtosis, (n,) or (), in any precision
    bias: bool = True

    def __init__(self, importance: Any, kurtosis: Any, bias: bool = True) -> None:
        self._keep(importance, kurtosis, bias)
        v, k = self.given
        validate(v, k)
        if not bias and k.min() < 3.0:
            i = int(np.argmax(self.kurtosis < 3.0))
            raise ValueError(
                f"kurtosis must be >= 3 for every feature when bias=False, got {self.kurtosis[i]:g} at index {i}; "
                "the loss is not convex in capacity there"
            )

    @classmethod
    def unchecked(cls, importance: Any, kurtosis: Any) -> QuadraticLoss:
        """Return a model with a bias whose numbers are yet to be validated, by a solver's first pass over them."""
        model = cls.__new__(cls)
        model._keep(importance, kurtosis, True)
        return model

    def _keep(self, importance: Any, kurtosis: Any, bias: bool) -> None:
        bias = flag("bias", bias)
        v, k = profile_shaped(importance, kurtosis)
        object.__setattr__(self, "given", (_kept(v), _kept(k)))
        object.__setattr__(self, "bias", bias)

    def __repr__(self) -> str:
        return f"QuadraticLoss(importance={self.importance!r}, kurtosis={self.kurtosis!r}, bias={self.bias})"

    @functools.cached_property
    def importance(self) -> FloatArray:
        """The importances, shape (n,), read-only."""
        return _wide(self.given[0])

    @functools.cached_property
    def kurtosis(self) -> FloatArray:
        """The kurtoses, shape (n,), read-only."""
        v, k = self.given
        return _wide(k) if k.ndim else np.broadcast_to(_wide(k), v.shape)

    def numbers(self) -> tuple[list[float], list[float]]:
        """Return importance and kurtosis as lists of n numbers each."""
        v, k = self.given
        return v.tolist(), k.tolist() if k.ndim else [k.item()] * v.size

    @property
    def features(self) -> int:
        """The number of features, n."""
        return int(self.given[0].size)

    @functools.cached_property
    def convex(self) -> bool:
        """Whether κ ≥ 3 for all features: then equal marginal loss is all there is to an optimum."""
        return bool(self.given[1].min() >= 3.0)

    @property
    def demand(self) -> float:
        """The number of features with positive importance: with that many dimensions the loss is 0."""
        return float(np.count_nonzero(self.given[0]))

    @property
    def floor(self) -> float:
        """The loss with unlimited dimensions, 0."""
        return 0.0

    def trace(self, capacity: Any) -> float:
        """Return T = Σ (v_i − |w_i|²) at the best row lengths; 0 with a bias, which absorbs it."""
        return 0.0 if self.bias else _trace(self, capacity_vector(capacity, self.features))

    def effective_importance(self, trace: float) -> FloatArray:
        """Return v_i + T/(κ_i − 1), the importance that a trace T left over without bias turns v_i into."""
        return self.importance if trace == 0.0 else self.importance + trace / (self.kurtosis - 1.0)

    def squared_norm(self, capacity: Any) -> FloatArray:
        """Return the best m_i = |w_i|² at the given capacities, shape (n,); 0 where the capacity is 0."""
        c = capacity_vector(capacity, self.features)
        v = self.effective_importance(self.trace(c))
        return np.where(c == 1.0, v, v * (0.5 * (self.kurtosis - 1.0) * c / self._denominator(c)))

    def feature_loss(self, capacity: Any) -> FloatArray:
        """Return each feature's part of the loss, shape (n,); the parts add up to L(C), without bias as well."""
        c = capacity_vector(capacity, self.features)
        # The root keeps v² from overflowing where 1 − C is 0 and from mattering there.
        root = np.sqrt((self.kurtosis - 1.0) * (1.0 - c) / self._denominator(c))
        with np.errstate(over="ignore"):
            return (self.importance * root) * (self.effective_importance(self.trace(c)) * root)

    def marginal(self, capacity: Any, *, growing: bool = True) -> FloatArray:
        """Return −∂L/∂C_i = ½ v_i² (κ_i−1)² / (1 + γ_i C_i)², shape (n,). The loss is smooth: both sides agree."""
        c = capacity_vector(capacity, self.features)
        v = self.effective_importance(self.trace(c))
        # at C = 1 the ratio is 2 exactly, also for κ = 1 where it is 0/0
        ratio = np.where(c == 1.0, 2.0, (self.kurtosis - 1.0) / self._denominator(c))
        with np.errstate(over="ignore"):
            return 0.5 * np.square(v * ratio)

    def steepest(self, capacity: Any) -> FloatArray:
        """Return the best average saving per capacity beyond C_i, shape (n,), 0 where C_i = 1.

        The marginal value for κ ≥ 3; the mean up to C = 1, v_i² (κ_i−1) / (1 + γ_i C_i), for κ < 3.
        """
        c = capacity_vector(capacity, self.features)
        with np.errstate(over="ignore"):
            chord = np.square(self.importance * np.sqrt((self.kurtosis - 1.0) / self._denominator(c)))
        return np.where(c == 1.0, 0.0, np.where(self.kurtosis < 3.0, chord, self.marginal(c)))

    def response(self, price: float) -> FloatArray:
        """Return the capacities that minimise L(C) + price · ΣC, the smallest where several do, shape (n,)."""
        scale = math.sqrt(scalar("price", price, low=0.0) / 2.0)
        if scale == 0.0:
            return np.where(self.importance > 0.0, 1.0, 0.0)
        if self.bias:
            return np.asarray(self.demand_curve().at(scale))
        return self.balance(lambda trace: self.demand_curve(trace).at(scale))

    def lower_bound(self, price: float, dimensions: float) -> float:
        """Return the Lagrangian bound min_C [L(C) + price · ΣC] − price · dimensions.

        No allocation of the budget has a smaller loss, whatever ``price`` ≥ 0 is.
        """
        dimensions = scalar("dimensions", dimensions, low=0.0)
        c = self.response(price)
        paid = float(np.sum(self.feature_loss(c) + price * c))
        return outward(paid - price * dimensions, paid + price * dimensions, c.size)

    def demand_curve(self, trace: float = 0.0) -> Demand:
        """Return how the capacities answer to τ; a concave loss (κ < 3) answers as its convex envelope, a jump."""
        return demand_of(self.effective_importance(trace), self.kurtosis)

    def balance(self, respond: Callable[[float], FloatArray]) -> FloatArray:
        """Return the capacities C = respond(T) whose own trace is T: the saddle of the loss without bias.

        ``respond`` must return the minimiser over C of the loss at a fixed trace. The trace of its answer minus
        T falls monotonically in T, so the root is unique; it is sought in log T, where it is well scaled.
        """
        from scipy.optimize import brentq  # noqa: PLC0415  (scipy.optimize takes longer to import than to use)

        start = _trace(self, respond(0.0))
        if start == 0.0:
            return respond(0.0)

        def excess(log_trace: float) -> float:
            trace = math.exp(log_trace)
            return _trace(self, respond(trace)) / trace - 1.0

        low = high = math.log(start)
        step = 0.5
        while excess(low) < 0.0:
            low, step = low - step, 2.0 * step
        step = 0.5
        while excess(high) > 0.0:
            high, step = high + step, 2.0 * step
        if low < high:
            low = brentq(excess, low, high, xtol=1e-15, rtol=4 * np.finfo(float).eps)
        return respond(math.exp(low))

    def normalised(self, capacity: FloatArray) -> tuple[QuadraticLoss, float]:
        """Return an equivalent model with a loss of order n at ``capacity``, and the unit it is measured in.

        Importances are divided by a power of two (exactly) and losses by its square, so that a certificate does not
        care whether v is 1e-150 or 1e150. Importances that would overflow belong to features whose loss is 0 and
        are capped.
        """
        root = np.sqrt((self.kurtosis - 1.0) * (1.0 - capacity) / self._denominator(capacity))
        largest = float(np.max(self.importance * root))
        if largest == 0.0:
            return self, 1.0
        exponent = min(math.frexp(largest)[1], 1023)
        with np.errstate(over="ignore", under="ignore"):
            v = np.minimum(np.ldexp(self.importance, -exponent), GIANT / self.kurtosis)
        return QuadraticLoss(v, self.kurtosis, self.bias), math.ldexp(1.0, exponent)

    def _denominator(self, capacity: FloatArray) -> FloatArray:
        """Return 1 + γC, set to 1 for κ = 1 and C = 1, where numerators vanish with it."""
        denominator = 1.0 + 0.5 * (self.kurtosis - 3.0) * capacity
        return np.where(denominator == 0.0, 1.0, denominator)


def _trace(model: QuadraticLoss, c: FloatArray) -> float:
    """Solve T = Σ (v_i − m_i) with m_i proportional to v_i + T/(κ_i−1): linear in T, and free of cancellation."""
    denominator = 1.0 + 0.5 * (model.kurtosis - 3.0) * c
    return float(np.sum(model.importance * ((1.0 - c) / denominator)) / (1.0 + np.sum(0.5 * c / denominator)))
