r"""The quadratic toy model of Scherlis et al. 2022 in closed form.

Inputs x_i are independent with zero mean, unit variance and kurtosis κ_i. The target is y = Σ v_i x_i², the network
ŷ = Σ_k (Σ_i W_ik x_i)² + c. Once every embedding row has its best length, the expected squared error depends on the
capacities alone (eqs. 13–14). Everything is one function, ρ(C) = (κ−1)/(1+γC) with γ = (κ−3)/2:

    loss            f(C)    = v² ρ (1−C)
    marginal value  −f'(C)  = ½ (vρ)²
    mean marginal value up to C = 1:  f(C)/(1−C) = v² ρ
    squared norm    |w|²    = ½ v ρ C

Without the output bias c the loss gains the square of the trace T = Σ_i (v_i − |w_i|²), which raises every importance
to v_i + T/(κ_i − 1); T depends on all capacities but is known in closed form once they are.

The functions here are formulas over arrays of any library and any shape; `QuadraticLoss` is the model.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import array_api_compat as api
import numpy as np
import numpy.typing as npt

from capsolve._arrays import is_foreign, to_numpy
from capsolve._checks import (
    EPS,
    FloatArray,
    ReadOnlyArrays,
    alike,
    brought,
    capacity_vector,
    flag,
    profile_shaped,
    scalar,
    validate,
)
from capsolve.losses.model import CURVE_GRID, FormerNames

# Where importances are measured in units of the scale τ, numbers and squares above these belong to features that are
# full at any optimum: they are capped, so that nothing overflows.
LARGE, HUGE = 1e150, 1e300
# Importances below this are scaled up before anything is done with them: the smallest floats have few digits.
TINY = 2.0**-960
# Secants for the trace of a network without bias: 5 to 8 are usual, and every eighth halves what is left in any case.
SADDLE_STEPS = 500
# Up to so many numbers are copied.
LARGEST_COPY = 1 << 16


def ratio(kurtosis: Any, capacity: Any, xp: Any = np) -> Any:
    """Return ρ(C) = (κ−1)/(1+γC); 2 at C = 1, whatever the kurtosis is."""
    y = denominator(kurtosis, capacity)
    zero = y == 0.0  # κ = 1 and C = 1
    return xp.where(zero, 2.0, (kurtosis - 1.0) / xp.where(zero, xp.ones_like(y), y))


def denominator(kurtosis: Any, capacity: Any) -> Any:
    """Return 1 + γC as (1−C) + ½(κ−1)C, a sum of positive terms: 1 + γC would cancel for κ near 1 and C near 1."""
    return (1.0 - capacity) + 0.5 * (kurtosis - 1.0) * capacity


def trace_of(importance: Any, kurtosis: Any, capacity: Any, total: Callable[[Any], Any] = np.sum) -> Any:
    """Return T = Σ (v_i − |w_i|²) at the best row lengths of a network without bias (eqs. 32–33).

    The lengths depend on T themselves, linearly: solved for T, and free of cancellation. Needs κ ≥ 3.
    """
    y = denominator(kurtosis, capacity)
    return total(importance * ((1.0 - capacity) / y)) / (1.0 + total(0.5 * capacity / y))


class ResponseCurve(NamedTuple):
    """How the capacity of each feature answers to the scale τ = √(price/2); arrays of one shape, features first.

    Capacity is 0 for τ ≥ ``enter``, 1 for τ ≤ ``full`` and linear in 1/τ between. Where ``enter`` = ``full`` the
    feature jumps (κ ≤ 3, or so close above 3 that no τ lies between); a concave loss (κ < 3) answers as its convex
    envelope, which jumps.
    """

    enter: Any
    full: Any
    anchor: Any  # the line is start + slope · (anchor − τ)/τ, from its better conditioned end
    start: Any
    slope: Any
    width: Any  # the capacity of a saturated feature: 1, or 0 for one of importance 0

    def at(self, scale: Any, correction: Any = 0.0, xp: Any = np) -> Any:
        """Return the capacities at τ = ``scale`` + ``correction``; a feature that jumps exactly there has not jumped.

        The correction is what a float cannot hold of τ: some ulps of it, which is much where κ − 3 is small. ``scale``
        is a number > 0, or an array that broadcasts against the curves.
        """
        share = self.anchor - scale
        lower, upper = self.full >= scale, self.enter > scale
        if not isinstance(correction, float) or correction != 0.0:
            share -= correction
            lower, upper = (self.full - scale) >= correction, (self.enter - scale) > correction
        share *= self.slope
        share /= scale
        share += self.start
        if xp is not np:
            lower, upper = xp.astype(lower & upper, share.dtype), xp.astype(upper, share.dtype)
        share = xp.clip(share, lower, upper)
        share *= self.width
        return share

    def jumps_at(self, scale: Any) -> Any:
        """Return which features jump exactly at ``scale``."""
        return (self.enter <= self.full) & (self.enter == scale) & (self.width > 0.0)

    def take(self, rows: Any) -> ResponseCurve:
        """Return the curves of some of the features."""
        return ResponseCurve(*(part[rows] for part in self))


def response_curve(importance: Any, kurtosis: Any, xp: Any = np) -> ResponseCurve:
    """Return how features answer to the scale τ (eqs. 15–18)."""
    v, k = importance, kurtosis
    convex, excess = k >= 3.0, k - 3.0
    full = xp.where(convex, v, v * xp.sqrt(0.5 * (k - 1.0)))
    enter = xp.where(convex, v * (0.5 * (k - 1.0)), full)
    gain = xp.where(excess > 0.0, 2.0 / xp.where(excess > 0.0, excess, 1.0), 0.0)
    # Two forms of one line: from where a feature enters, small capacities are accurate relatively (large κ); from where
    # it is full, steep ones are accurate absolutely (κ near 3), because τ − full is exact there (Sterbenz).
    steep = gain >= 1.0
    start = xp.where(steep, xp.ones_like(gain), 0.0)
    return ResponseCurve(
        enter, full, xp.where(steep, full, enter), start, gain + start, xp.where(v > 0.0, xp.ones_like(v), 0.0)
    )


class FeatureTerms(NamedTuple):
    """What a certificate needs to know of each feature; see `feature_terms`."""

    loss: Any
    marginal: Any  # −f'(C)
    lagrangian_gap: Any  # by how much f(C) + λC may exceed its minimum over [0, 1]


def feature_terms(
    importance: Any, kurtosis: Any, capacity: Any, scale: Any, xp: Any = np, target: Any = None
) -> FeatureTerms:
    """Return loss, marginal value and Lagrangian gap of features at any capacities, for the price λ = 2 · scale².

    Importances are in units in which the scale is of order one, or losses are. The gap is a difference in closed form,

        to C = 0:  C (λ − ½ v² (κ−1) ρ),      to C = 1:  (1−C) (v²ρ − λ),      to the parabola's end between:
        (1+γC)/(2γ) · (vρ − 2τ)²

    The first two are all there is for concave losses, of which it is the larger one. A convex loss has its minimum
    at C = 1 where v ≥ τ, at C = 0 where ½v(κ−1) ≤ τ, and else between. There the tangent bounds the gap as well, by
    max(C (λ−m), (1−C) (m−λ)) with m = ½(vρ)²: that is the smaller one where κ−3 is at rounding level.

    ``target`` is the importance where ``importance`` is the effective one of a network without bias.
    """
    v, k, c = _capped(importance, HUGE, xp), kurtosis, capacity
    empty, price = 1.0 - c, 2.0 * scale * scale
    w = _capped(v * ratio(k, c, xp), LARGE, xp)
    first = _capped(v * (k - 1.0), LARGE, xp)
    chord, marginal = _capped(v * w, HUGE, xp), 0.5 * w * w
    to_empty, to_full = c * (price - 0.5 * (first * w)), empty * (chord - price)
    excess = xp.where(k > 3.0, k - 3.0, 1.0)
    distance = w - 2.0 * scale
    parabola = denominator(k, c) * (distance * distance / excess)
    convex = xp.where(v >= scale, to_full, xp.where(first <= 2.0 * scale, to_empty, parabola))
    tangent = xp.maximum(c * (price - marginal), empty * (marginal - price))
    gap = xp.where(k < 3.0, xp.maximum(to_empty, to_full), xp.minimum(convex, tangent))
    per_capacity = chord if target is None else _capped(_capped(target, HUGE, xp) * w, HUGE, xp)
    return FeatureTerms(per_capacity * empty, marginal, gap)


@dataclass(frozen=True, eq=False, init=False, repr=False)
class QuadraticLoss(ReadOnlyArrays, FormerNames):
    """Expected loss of the quadratic model as a function of capacity.

    Parameters
    ----------
    importance : (n,) array, v_i ≥ 0
        Coefficients of the target y = Σ v_i x_i². NumPy or anything like it, or an array of PyTorch, JAX, CuPy, Dask or
        another library with the array API, which is kept as it is, where it is: what it holds is checked when it is
        gone through.
    kurtosis : (n,) array or scalar, 1 ≤ κ_i ≤ 1e100
        Pearson kurtosis of the inputs (Gaussian = 3).
    bias : bool
        Whether the network has an output bias. Without one every kurtosis must be at least 3: below, capacity
        and trace no longer form a convex–concave saddle and no certificate would hold.

    Up to 65,536 numbers are copied. Larger arrays are used as they are: do not change them as long as the model or
    an allocation of it is in use.

    Raises
    ------
    ValueError
        For NaN, infinite or negative importance, kurtosis < 1 (or < 3 without bias) or > 1e100, mismatched lengths, no
        features; for arrays of two libraries or on two devices, or Dask arrays of unknown size.

    Examples
    --------
    >>> import capsolve
    >>> model = capsolve.QuadraticLoss([1.0, 0.5], kurtosis=9.0)
    >>> model.feature_loss([1.0, 0.25])  # the first is monosemantic and costs nothing
    array([0.       , 0.8571...])

    References
    ----------
    arXiv 2210.01892, eqs. 12–14; without bias, the trace term of eqs. 32–33.
    """

    given: tuple[Any, Any]  # importance (n,) and kurtosis, (n,) or (), in any precision; or arrays of another library
    bias: bool = True

    def __init__(self, importance: Any, kurtosis: Any, bias: bool = True) -> None:
        self._keep(importance, kurtosis, bias)
        if not self.in_memory:
            return
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
        if is_foreign(importance) or is_foreign(kurtosis):
            given = alike(importance, kurtosis)
        else:
            v, k = profile_shaped(importance, kurtosis)
            given = _kept(v), _kept(k)
        object.__setattr__(self, "given", given)
        object.__setattr__(self, "bias", bias)

    def __repr__(self) -> str:
        return f"QuadraticLoss(importance={self.importance!r}, kurtosis={self.kurtosis!r}, bias={self.bias})"

    @functools.cached_property
    def in_memory(self) -> bool:
        """Whether the data are NumPy's: those of other libraries stay where they are."""
        return isinstance(self.given[0], np.ndarray)

    @property
    def lazy(self) -> bool:
        """Whether the data are Dask arrays."""
        return not self.in_memory and bool(api.is_dask_array(self.given[0]))

    def to_numpy(self) -> QuadraticLoss:
        """Return the same model in memory: itself where it is."""
        if self.in_memory:
            return self
        v, k = self.given
        return QuadraticLoss(to_numpy(v), k if isinstance(k, float) else to_numpy(k), self.bias)

    def like_importance(self, column: FloatArray) -> Any:
        """Return one number per feature as an array of the importance's kind, device and precision."""
        return column if self.in_memory else brought(column, self.given[0])

    @functools.cached_property
    def importance(self) -> Any:
        """The importances, shape (n,), read-only; in float64, or as the arrays of another library that were given."""
        return _wide(self.given[0]) if self.in_memory else self.given[0]

    @functools.cached_property
    def kurtosis(self) -> Any:
        """The kurtoses, shape (n,), read-only; or the arrays of another library, or the number, that were given."""
        v, k = self.given
        if not self.in_memory:
            return k
        return _wide(k) if k.ndim else np.broadcast_to(_wide(k), v.shape)

    def numbers(self) -> tuple[list[float], list[float]]:
        """Return importance and kurtosis as lists of n numbers each."""
        v, k = self.given
        return v.tolist(), k.tolist() if k.ndim else [k.item()] * v.size

    @property
    def features(self) -> int:
        """The number of features, n."""
        return int(self.given[0].shape[0])

    @functools.cached_property
    def convex(self) -> bool:
        """Whether κ ≥ 3 for all features: then equal marginal loss is all there is to an optimum."""
        k = self.given[1]
        return k >= 3.0 if isinstance(k, float) else bool(api.array_namespace(k).all(k >= 3.0))

    @property
    def saturation_budget(self) -> float:
        """The number of features with positive importance: with that many dimensions the loss is 0."""
        return float(np.count_nonzero(self.given[0]))

    @property
    def floor(self) -> float:
        """The loss with unlimited dimensions, 0."""
        return 0.0

    def trace(self, capacity: Any) -> Any:
        """Return T = Σ (v_i − |w_i|²) at the best row lengths; 0 with a bias, which absorbs it."""
        if self.bias:
            return 0.0
        xp, c = self._at(capacity)
        return trace_of(self.importance, self.kurtosis, c, xp.sum)

    def effective_importance(self, trace: Any) -> Any:
        """Return v_i + T/(κ_i − 1), the importance that a trace T left over without bias turns v_i into."""
        return self.importance if self.bias else self.importance + trace / (self.kurtosis - 1.0)

    def squared_norm(self, capacity: Any) -> Any:
        """Return the best m_i = |w_i|² = ½ v_i ρ(C_i) C_i at the given capacities, shape (n,)."""
        xp, c = self._at(capacity)
        v = self.effective_importance(self.trace(c))
        return v * (0.5 * ratio(self.kurtosis, c, xp) * c)

    def feature_loss(self, capacity: Any) -> Any:
        """Return each feature's part v_i² ρ (1−C_i) of the loss, shape (n,); they add up to L(C), without bias too."""
        xp, c = self._at(capacity)
        # The root keeps v² from overflowing where 1 − C is 0 and from mattering there.
        root = xp.sqrt(ratio(self.kurtosis, c, xp) * (1.0 - c))
        with np.errstate(over="ignore"):
            return (self.importance * root) * (self.effective_importance(self.trace(c)) * root)

    def excess_loss(self, capacity: Any) -> Any:
        """Return the same: the least loss is 0."""
        return self.feature_loss(capacity)

    def marginal(self, capacity: Any, *, growing: bool = True) -> Any:
        """Return −∂L/∂C_i = ½ (v_i ρ)², shape (n,). The loss is smooth: both sides agree."""
        xp, c = self._at(capacity)
        with np.errstate(over="ignore"):
            return 0.5 * (self.effective_importance(self.trace(c)) * ratio(self.kurtosis, c, xp)) ** 2

    def average_gain(self, capacity: Any) -> Any:
        """Return the best average saving per capacity beyond C_i, shape (n,), 0 where C_i = 1.

        The marginal value for κ ≥ 3; the mean up to C = 1, v_i² ρ, for κ < 3.
        """
        xp, c = self._at(capacity)
        with np.errstate(over="ignore"):
            mean = (self.importance * xp.sqrt(ratio(self.kurtosis, c, xp))) ** 2
        return xp.where(c == 1.0, 0.0, xp.where(self.kurtosis < 3.0, mean, self.marginal(c)))

    def lagrangian_gap(self, capacity: Any, price: float) -> Any:
        """Return by how much f_i(C_i) + price · C_i exceeds its least value on [0, 1], at most; shape (n,).

        Without a bias the sum says it of L(C) + price · ΣC: at a fixed trace that is a sum over features, and the loss
        is the largest of those over all traces. See `feature_terms`; importances should be in units of τ or so.
        """
        xp, c = self._at(capacity)
        v = self.effective_importance(self.trace(c))
        with np.errstate(over="ignore", under="ignore"):
            return feature_terms(v, self.kurtosis, c, math.sqrt(0.5 * price), xp).lagrangian_gap

    def marginal_curve(self, feature: int, capacity: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return capacities and the marginal values of one feature there, the trace being that of ``capacity``."""
        v = self.effective_importance(self.trace(capacity))[feature]
        with np.errstate(over="ignore"):
            return CURVE_GRID, 0.5 * np.square(v * ratio(self.kurtosis[feature], CURVE_GRID))

    def response(self, price: float) -> FloatArray:
        """Return the capacities that minimise L(C) + price · ΣC, the smallest where several do, shape (n,)."""
        scale = math.sqrt(scalar("price", price, low=0.0) / 2.0)
        if scale == 0.0:
            return np.where(self.importance > 0.0, 1.0, 0.0)
        if self.bias:
            return np.asarray(response_curve(self.importance, self.kurtosis).at(scale))
        v, k = self.importance[:, None], self.kurtosis[:, None]
        return solve_saddle(v, k, lambda effective, _: response_curve(effective, k).at(scale))[:, 0]

    def normalised(self, capacity: FloatArray) -> tuple[QuadraticLoss, float]:
        """Return an equivalent model with a loss of order n at ``capacity``, and the unit it is measured in.

        Losses of this model are those of the other times the square of the unit, a power of two. Importances of full
        features are capped, where they would overflow.
        """
        root = np.sqrt(ratio(self.kurtosis, capacity) * (1.0 - capacity))
        largest = float(np.max(self.importance * root))
        if largest == 0.0:
            return self, 1.0
        exponent = min(math.frexp(largest)[1], 1023)
        with np.errstate(over="ignore", under="ignore"):
            v = np.minimum(np.ldexp(self.importance, -exponent), LARGE)
        return QuadraticLoss(v, self.kurtosis, self.bias), math.ldexp(1.0, exponent)

    def _at(self, capacity: Any) -> tuple[Any, Any]:
        """Return the namespace to compute with and the capacities, validated where they are NumPy's."""
        if self.in_memory:
            return np, capacity_vector(capacity, self.features)
        return api.array_namespace(capacity), capacity


def solve_saddle(v: FloatArray, k: FloatArray, respond: Callable[[FloatArray, Any], FloatArray]) -> FloatArray:
    """Return the capacities of networks without bias, one in each column of ``v`` and ``k``, shape (n, m).

    The loss is max over T of Σ f(v_e, C) − T² (1 + Σ 1/(κ−1)) with v_e = v + T/(κ−1), convex in C and concave in T.
    ``respond(v_e, columns)`` returns the minimiser over C at a fixed trace, for some of the columns. The trace of its
    answer minus T falls monotonically in T, so the root is unique; secants find it in log T, where it is well scaled.
    """

    def at(guess: FloatArray, column: Any) -> tuple[FloatArray, FloatArray]:
        some_v, some_k = v[:, column], k[:, column]
        capacity = respond(some_v + guess / (some_k - 1.0), column)
        return capacity, trace_of(some_v, some_k, capacity, column_sum)

    found, trace = at(np.zeros(v.shape[1]), slice(None))
    capacity, column = found.copy(), np.flatnonzero(trace > 0.0)  # nothing is left over where all of a column is full
    guess = trace[column]
    low, high, before, excess_before = 0.0 * guess, guess + math.inf, guess, guess + math.nan
    for step in range(SADDLE_STEPS):
        if column.size == 0:
            break
        capacity[:, column], trace = at(guess, column)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            excess = np.log(trace / guess)
            low, high = np.where(excess > 0.0, guess, low), np.where(excess > 0.0, high, guess)
            secant = excess / ((excess_before - excess) / np.log(guess / before))
            secant = np.where(secant * excess > 0.0, secant, np.clip(excess, -1.0, 1.0))
            following = guess * np.exp(secant)
            halved = np.where(np.isfinite(high) & (low > 0.0), np.sqrt(low) * np.sqrt(high), following)
            following = np.where((low < following) & (following < high) & (step % 8 < 7), following, halved)
        left = np.minimum(np.abs(excess), np.abs(following / guess - 1.0)) > 4.0 * EPS
        before, excess_before, guess = guess[left], excess[left], following[left]
        low, high, column = low[left], high[left], column[left]
    return capacity


def column_sum(a: FloatArray) -> FloatArray:
    """Return the sums of the columns, pairwise, so that rounding errors grow with the logarithm of their length."""
    half = len(a) // 2
    if half <= 64 or a.shape[1] == 1:  # NumPy adds pairwise along contiguous numbers only
        sums: FloatArray = a.sum(axis=0)
        return sums
    return column_sum(a[:half]) + column_sum(a[half:])


def _capped(values: Any, limit: float, xp: Any) -> Any:
    return np.minimum(values, limit) if xp is np else xp.clip(values, None, limit)


def _kept(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a read-only array: a private copy if it is small, a view if it is large."""
    array = array.copy() if array.size <= LARGEST_COPY else array.view()
    array.flags.writeable = False
    return array


def _wide(array: npt.NDArray[Any]) -> FloatArray:
    if array.dtype == np.float64:
        return array
    array = array.astype(np.float64)
    array.flags.writeable = False
    return array
