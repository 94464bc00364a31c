"""Large profiles: one pass over the data to find the price, one to write the answer.

The search sees the data through the passes of a `Source` only:

1. A random sample tells where the scale τ = √(price/2) lies, up to an interval of a few per cent.
2. ``screen``: all but a few features are *fixed* on the interval: empty, full, or in between on all of it. The
   capacity of those is linear in 1/τ, so their sums at the two ends say everything. The others, the *free* ones, are
   collected.
3. The free features and one more that stands for all fixed ones are a small problem, solved exactly.
4. ``write``: the capacities by their formula at τ, those of the free features from a list, and the terms of the
   certificate of all.

Where the sample was misleading the interval is moved and pass 2 repeated: that costs time, never correctness. Slopes
and intercepts, which cancel near κ = 3, are never summed. τ is handed to ``write`` as the sum of two floats, because
one ulp of τ moves such a capacity by much more than rounding may.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray
from capsolve.losses.quadratic import TINY, ResponseCurve, response_curve
from capsolve.solvers.fractional import solve_fractional
from capsolve.solvers.price import resolve_ties, solve_knapsack
from capsolve.solvers.routes import Limits
from capsolve.solvers.sources import (
    NONE_LISTED,
    IntArray,
    LocalKind,
    NumPySource,
    PriceAndExceptions,
    ScaleInterval,
    Source,
)

LoadBracket = Callable[[ScaleInterval | None], "BracketedProblem | None"]


class TooSmall(Exception):  # noqa: N818  (no error as long as there is a factor)
    """Some importances are too small to compute with as they are."""

    def __init__(self, least: float, total: float) -> None:
        super().__init__(least, total)
        self.least, self.total = least, total

    def factor(self) -> float:
        """Return the power of two that brings all importances, and their products with kurtoses, into range."""
        factor = math.ldexp(1.0, min(1000 - math.frexp(self.total)[1], 1023))
        if self.least * factor < TINY:
            raise ValueError(
                "importances must not span more than 580 orders of magnitude: the smallest above 0 is "
                f"{self.least:g}, and importance × kurtosis sums to {self.total:g}"
            )
        return factor


class PrimalDualPoint(NamedTuple):
    """The allocation, not written yet; importances count in ``unit``, losses in its square."""

    answer: PriceAndExceptions
    unit: float
    proved: float  # by how much a proved lower bound exceeds the Lagrangian's at the answer's multiplier


class AggregateFeature(NamedTuple):
    """All fixed features as one: their capacity at the ends of an interval of scales, linear in 1/τ between."""

    low: float
    high: float
    at_low: float
    at_high: float

    def at(self, scale: float) -> float:
        """Return the capacity at a scale inside the interval."""
        if self.at_low == self.at_high or scale >= self.high:
            return self.at_high
        if scale <= self.low:
            return self.at_low
        share = self.low * ((self.high - scale) / (scale * (self.high - self.low)))
        return self.at_high + share * (self.at_low - self.at_high)

    def beside(self, curve: ResponseCurve) -> ResponseCurve:
        """Return the curves (n + 1, 1) of some features and, last, of what this one takes beyond ``at_high``."""
        width = self.at_low - self.at_high
        mine = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        if width > 0.0:
            mine = (self.high, self.low, self.high, 0.0, self.low / (self.high - self.low), width)
        return ResponseCurve(*(np.append(part, x)[:, None] for part, x in zip(curve, mine, strict=True)))


@dataclass(frozen=True)
class BracketedProblem:
    """What lies in an interval of scales around the price: the fixed features as one, and the free ones."""

    fixed: AggregateFeature
    importance: FloatArray
    kurtosis: FloatArray
    free_index: IntArray
    local: LocalKind
    concave_margin: float = 1.0  # of the interval for features with κ < 3, see `ScaleInterval`

    def used(self) -> Callable[[float], tuple[float, float]]:
        """Return the function that tells Σ C inside the interval, and Σ C² of the free features."""
        free = self.local(self.importance, self.kurtosis)

        def used(scale: float) -> tuple[float, float]:
            total, squares = free.used(scale)
            return self.fixed.at(scale) + total, squares

        return used

    def ends(self) -> tuple[float, float]:
        """Return Σ C at the high and at the low end; at τ = 0 features that gain nothing have nothing."""
        used, fixed = self.used(), self.fixed
        above = used(fixed.high)[0] if fixed.high < math.inf else fixed.at_high
        if fixed.low > 0.0:
            return above, used(fixed.low)[0]
        return above, fixed.at_low + np.count_nonzero(self.importance * (self.kurtosis - 1.0))

    def only(self, chosen: npt.NDArray[np.bool_]) -> BracketedProblem:
        """Return the same with some of the free features only."""
        return replace(
            self,
            importance=self.importance[chosen],
            kurtosis=self.kurtosis[chosen],
            free_index=self.free_index[chosen],
        )

    def restrict(self, low: float, high: float) -> BracketedProblem:
        """Return what lies in a smaller interval."""
        inner = self.local(self.importance, self.kurtosis).screen(ScaleInterval(low, high))
        at_low, at_high = self.fixed.at(low) + inner.at_low, self.fixed.at(high) + inner.at_high
        fixed = AggregateFeature(low, high, at_low, at_high)
        index = self.free_index[inner.free_index]
        return BracketedProblem(fixed, inner.importance, inner.kurtosis, index, self.local)


def solve_in_bracket(load_bracket: LoadBracket, dimensions: float, limits: Limits) -> PrimalDualPoint:
    """Find the price and the allocation; ``load_bracket`` returns what lies in an interval, or near the price."""
    found = load_bracket(None)
    if found is None:
        nothing = PriceAndExceptions(0.0, 0.0, 0.0, *NONE_LISTED)
        return PrimalDualPoint(nothing, 1.0, 0.0)
    wide = found.free_index.size > limits.all_free or found.fixed.high < math.inf
    problem = ReducedProblem(shrink_bracket(found, dimensions, limits) if wide else found, dimensions)
    complete = True
    if problem.ends_inside:
        scale, whole = problem.scale, problem.whole
        for attempt in range(5):
            interval = wider_bracket(found, scale, whole, dimensions)
            if interval is None:
                break
            found = load_bracket(interval if attempt < 3 else ScaleInterval(0.0, math.inf)) or found
        complete = wider_bracket(found, scale, whole, dimensions) is None
        problem = ReducedProblem(shrink_convex(found, scale, whole, dimensions, limits), dimensions)
    return problem.solve(complete)


def shrink_convex(
    found: BracketedProblem, scale: float, whole: float, dimensions: float, limits: Limits
) -> BracketedProblem:
    """Return the same with few free features of κ ≥ 3: on the scales where they share what the concave ones leave."""
    concave = found.kurtosis < 3.0
    full = response_curve(found.importance[concave], found.kurtosis[concave]).full
    left = dimensions - int(np.count_nonzero(full > scale)) - whole
    convex = found.only(~concave)
    if convex.free_index.size <= limits.free:
        return found
    (above, below), low, high = convex.ends(), found.fixed.low, found.fixed.high
    if above <= left - 1.0 < below:
        high = shrink_bracket(convex, left - 1.0, limits).fixed.high
    if above <= left < below:
        low = shrink_bracket(convex, left, limits).fixed.low
    convex, rest = convex.restrict(low, high), found.only(concave)
    index = np.concatenate([convex.free_index, rest.free_index])
    order = np.argsort(index)
    return replace(
        convex,
        importance=np.concatenate([convex.importance, rest.importance])[order],
        kurtosis=np.concatenate([convex.kurtosis, rest.kurtosis])[order],
        free_index=index[order],
    )


class ReducedProblem:
    """A bracketed problem as columns: its free features and, last, the one that stands for the others."""

    def __init__(self, found: BracketedProblem, dimensions: float) -> None:
        self.found, self.dimensions = found, dimensions
        self.v = np.append(found.importance, 0.0)[:, None]
        self.k = np.append(found.kurtosis, math.inf)[:, None]  # a convex one
        self.curve = found.fixed.beside(response_curve(found.importance, found.kurtosis))
        self.budget = np.array([dimensions - found.fixed.at_high])
        self.relaxation = solve_knapsack(self.curve, self.budget)
        self.capacity, saturated, inside = resolve_ties(self.relaxation, self.k, self.budget)
        self.ends_inside, self.whole = bool(inside[0]), float(saturated[0])
        # a budget that is all that can be used in the interval, by rounding only
        self.scale = float(self.relaxation.scale[0]) or found.fixed.low

    def solve(self, complete: bool) -> PrimalDualPoint:
        """Return the optimum, with a bound beyond the Lagrangian's if all candidates are known to be ``complete``."""
        scale, correction, capacity = self.scale, float(self.relaxation.correction[0]), self.capacity
        unit = unit_of(scale)
        multiplier, proved = scale, 0.0
        if self.ends_inside:
            whole = np.array([self.whole])
            given = self.v, self.k, self.curve, self.budget, np.array([scale]), whole
            capacity, scales, corrections, gap = solve_fractional(*given)
            scale, correction = float(scales[0]) or self.found.fixed.low, float(corrections[0])
            proved = float(gap[0]) * (multiplier / unit) ** 2 * complete
        answer = PriceAndExceptions(scale, correction, multiplier, self.found.free_index, capacity[:-1, 0])
        return PrimalDualPoint(answer, unit, proved)


def unit_of(scale: Any) -> Any:
    """Return a power of two by which importances are divided, so that squares of what matters stay in range."""
    if isinstance(scale, float):
        return math.ldexp(1.0, min(math.frexp(scale)[1], 1023)) if scale > 0.0 else 1.0
    return np.ldexp(1.0, np.where(scale > 0.0, np.minimum(np.frexp(scale)[1], 1023), 0))


def wider_bracket(found: BracketedProblem, scale: float, whole: float, dimensions: float) -> ScaleInterval | None:
    """Return a wider interval if features outside could matter for which concave feature is fractional, and how much.

    Of those that are not saturated, one outside the interval saves at most 2 low² per capacity, and is no candidate if
    the first bit of another saves more. Of the saturated, one outside costs at least 2 high² per capacity, and is no
    candidate if the last bit of another, worth 2v², costs less. Convex features outside are out of reach as well
    where a concave one stands in between; else the interval must hold all budgets that they may be left with.
    """
    fixed, margin = found.fixed, found.concave_margin
    concave = found.kurtosis < 3.0
    v, k = found.importance[concave], found.kurtosis[concave]
    full = response_curve(v, k).full
    order = np.argsort(-full, kind="stable")
    v, k = v[order], k[order]
    saturated = int(np.count_nonzero(full > scale)) + int(whole)
    low, high = (
        float(np.max(v[saturated:] * (0.5 * (k[saturated:] - 1.0)))),
        float(np.min(v[:saturated], initial=math.inf)),
    )
    needed = 1.0
    if fixed.low > 0.0:
        needed = max(needed, fixed.low / low if low > 0.0 else math.inf)
    if fixed.high < math.inf:
        needed = max(needed, high / fixed.high)
    if needed > margin:
        return ScaleInterval(fixed.low, fixed.high, needed * (1.0 + 1e-9))
    above, below = found.only(~concave).ends()
    low_enough = dimensions - saturated <= below or fixed.low <= low
    high_enough = above <= dimensions - saturated - 1.0 or fixed.high >= high
    if low_enough and high_enough:
        return None
    return ScaleInterval(fixed.low if low_enough else low, fixed.high if high_enough else high, margin)


# --- the bracket ---------------------------------------------------------------------------------------------------


def sample_bracket(source: Source, dimensions: float, local: LocalKind, limits: Limits) -> ScaleInterval:
    """Return an interval that the price lies in, as a sample has it: some standard errors on either side."""
    size = max(limits.sample, round(1.6 * source.features ** (2 / 3)))
    v, k = source.sample(size, np.random.default_rng(0))
    start = float(np.max(v, initial=0.0))
    if start == 0.0:
        return ScaleInterval(0.0, math.inf)
    share = min(1.0, dimensions / source.features)
    # A sample of the sample says where to start. Its capacities lie in [0, 1]: their variance is at most p (1 − p).
    step = max(1, v.size // limits.rough)
    rough = local(v[::step], k[::step])
    aim = min(share * rough.features, rough.used(0.0)[0])
    error = math.sqrt(share * (1.0 - share) * rough.features) + 1.0
    start = max(find_root(rough.used, aim - error, aim + error, [(start, rough.used(start)[0])], 0.01))
    sample = local(v, k)
    m, aim, positive = sample.features, share * sample.features, sample.used(0.0)[0]
    here, squares = sample.used(start)
    margin = limits.confidence * (math.sqrt(max(0.0, squares - here * here / m)) + 1.0)
    low, high, tried = 0.0, math.inf, [(start, here)]
    if aim + 1.5 * margin < positive:
        low = find_root(sample.used, aim + margin, aim + 1.5 * margin, tried, 0.001)[0]
    if aim > 1.5 * margin:
        high = find_root(sample.used, aim - 1.5 * margin, aim - margin, tried, 0.001)[1]
    return ScaleInterval(low, high)


def find_root(
    used: Callable[[float], tuple[float, float]],
    least: float,
    most: float,
    tried: list[tuple[float, float]],
    resolution: float,
) -> tuple[float, float]:
    """Return a scale with ``least`` ≤ used ≤ ``most``, twice, or its neighbours where capacity jumps across that.

    ``tried`` are scales and their capacity, at least one; what is tried is added. Neighbours are closer together than
    ``resolution`` relatively.
    """
    step, turn = 1.05, 0
    while True:
        for scale, here in tried:
            if least <= here <= most:
                return scale, scale
        low = max((point for point in tried if point[1] > most), default=None)
        high = min((point for point in tried if point[1] < least), default=None)
        if low is None or high is None:  # that side is unknown yet
            scale = high[0] / step if high else (low or tried[0])[0] * step
            step *= step
        else:
            if high[0] <= (1.0 + resolution) * low[0]:
                return low[0], high[0]
            turn += 1
            if turn % 4 == 0 or high[0] > 4.0 * low[0]:
                scale = math.sqrt(low[0]) * math.sqrt(high[0])
            else:
                share = (0.5 * (least + most) - high[1]) / (low[1] - high[1])
                scale = low[0] / (share + (1.0 - share) * (low[0] / high[0]))
        if not 0.0 < scale < math.inf:
            return scale, scale
        tried.append((scale, used(scale)[0]))


def bracket_all(source: NumPySource, dimensions: float, local: LocalKind) -> BracketedProblem | None:
    """Return all features as free ones; None if the budget is enough for all."""
    v, k = (column.astype(np.float64, copy=False) for column in (source.importance, source.kurtosis))
    if dimensions >= np.count_nonzero(v):
        return None
    least = float(np.min(v, where=v > 0.0, initial=math.inf))
    if least < TINY:
        raise TooSmall(least, float(v @ k))
    return BracketedProblem(AggregateFeature(0.0, math.inf, 0.0, 0.0), v, k, np.arange(v.size), local)


def bracket_price(
    source: Source, dimensions: float, local: LocalKind, limits: Limits, interval: ScaleInterval | None = None
) -> BracketedProblem | None:
    """Return what lies in an interval around the price; None if the budget is enough for all features."""
    interval, misses = interval or sample_bracket(source, dimensions, local, limits), 0
    while True:
        part = source.screen(interval)
        if not part.is_valid:
            source.raise_invalid()
        if dimensions >= part.positive:
            return None
        if part.least_positive < TINY:
            raise TooSmall(part.least_positive, part.total)
        low, high, margin = interval
        fixed = AggregateFeature(low, high, part.at_low, part.at_high)
        found = BracketedProblem(fixed, part.importance, part.kurtosis, part.free_index, local, margin)
        above, below = found.ends()
        if above <= dimensions and (below > dimensions or low == 0.0):
            return found
        misses += 1
        stretch = math.inf if misses > 2 or low == 0.0 or high == math.inf else max(1.01, high / low) ** 4
        interval = ScaleInterval(high, high * stretch) if above > dimensions else ScaleInterval(low / stretch, low)


def shrink_bracket(found: BracketedProblem, budget: float, limits: Limits) -> BracketedProblem:
    """Return a smaller interval around the price, with about ``limits.free`` free features where that can be had."""
    before = math.inf
    found = _finite(found, budget)
    while limits.free < found.free_index.size < 0.5 * before and found.fixed.low > 0.0:
        before, fixed = found.free_index.size, found.fixed
        above, below = found.ends()
        tried, tolerance = [(fixed.high, above), (fixed.low, below)], (below - above) * limits.free / (4.0 * before)
        used = found.used()
        low, _ = find_root(used, math.nextafter(budget, math.inf), budget + tolerance, tried, limits.narrowest)
        _, high = find_root(used, budget - tolerance, budget, tried, limits.narrowest)
        found = found.restrict(low, high)
    return found


def _finite(found: BracketedProblem, budget: float) -> BracketedProblem:
    """Return the same with the interval's ends at the outermost breakpoints, where they are 0 or infinite."""
    low, high = found.fixed.low, found.fixed.high
    if low > 0.0 and high < math.inf:
        return found
    curve = response_curve(found.importance, found.kurtosis)
    if high == math.inf:
        high = float(np.max(curve.enter))
    if low == 0.0 and budget < found.ends()[1]:
        low = float(np.nextafter(np.min(curve.full[curve.full > 0.0]), 0.0))
    return replace(found, fixed=found.fixed._replace(low=low, high=high))
