"""Large profiles: one pass over the data to find the price, one to write the answer.

With features by the million the cost of an allocation is that of reading and writing them, and they may lie where
NumPy cannot see them: on another device, in a file, on a cluster. So the search for the price sees the data
through three passes of a `Source` only:

1. A random sample tells where the scale τ = √(price/2) lies, up to a window of a few per cent.
2. ``partition``: all but a few features are *decided* on the window: empty, full, or in between on all of it. The
   capacity of those is linear in 1/τ, so their sums at the two ends say everything. The others are collected.
3. The few and one more feature that stands for all decided ones are filled exactly (`capsolve.solvers.price`).
4. ``write``: the capacities by their formula at τ, those of the few from a list, and the sums for the certificate.

Where the sample was misleading the window is moved and pass 2 repeated: that costs time, never correctness. Slopes
and intercepts, which cancel near κ = 3, are never summed. τ is handed to ``write`` as the sum of two floats, because
one ulp of τ moves such a capacity by much more than rounding may.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray, refuse
from capsolve.losses.quadratic import GIANT, Demand, demand_of
from capsolve.solvers.price import Filling, fill

IntArray = npt.NDArray[np.int64]

# Standard errors of the sample on either side of the window: one window in 10⁴ misses.
CONFIDENCE = 4.0
# So few undecided features are filled by sorting their breakpoints.
FEW = 32
# Below this relative width of the window, rounding decides who is decided.
NARROWEST = 1e-9
# Features in a sample, at least; of many features as many as cost as much as the undecided ones that they save.
SAMPLE = 1 << 11
# Features in the sample of the sample that starts the search, and in a run of neighbours.
ROUGH = 1 << 10
RUN = 32


class Window(NamedTuple):
    """An interval of scales, 0 ≤ low ≤ high ≤ ∞.

    Features with κ < 3, which jump, count as undecided on the wider interval [low / reach, high · reach].
    """

    low: float
    high: float
    reach: float = 1.0


class Partition(NamedTuple):
    """What one pass says about a window. The undecided features are listed in the order of their index."""

    wanting: int  # the number of features with positive importance
    total: float  # Σ v κ: not finite if any of the data are not, or if they are too large
    lowest: tuple[float, float]  # the smallest importance and kurtosis
    at_low: float  # Σ C of the decided features at the low end, where it is the larger one
    at_high: float
    importance: FloatArray  # of the undecided
    kurtosis: FloatArray
    which: IntArray


class Answer(NamedTuple):
    """Who gets what: the response to τ = scale + correction, but for a few features, ``which`` in ascending order.

    At scale 0 every feature of positive importance is full.
    """

    scale: float
    correction: float
    which: IntArray
    capacity: FloatArray


class Totals(NamedTuple):
    """Sums and extremes over features at their capacities; importances count in ``unit``, losses in its square."""

    used: float  # Σ C
    empty: int  # features with C = 0
    full: int  # features with C = 1
    loss: float
    price: float  # the largest marginal value of a feature that is not full, 0 if there is none
    last: float  # the smallest marginal value of a feature that is not empty, infinite if there is none
    steepest: float  # the largest average saving that more capacity could bring

    @classmethod
    def of(cls, parts: list[Totals]) -> Totals:
        """Return the totals of a whole from those of its parts."""
        used, empty, full, loss, *extremes = zip(*parts, strict=True)
        price, last, steepest = (list(map(float, column)) for column in extremes)
        none, whole = sum(map(int, empty)), sum(map(int, full))
        return cls(math.fsum(used), none, whole, math.fsum(loss), max(price), min(last), max(steepest))


class Source(Protocol):
    """Importance and kurtosis of many features, wherever they are."""

    @property
    def features(self) -> int:
        """The number of features, n."""
        ...

    def sample(self, size: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return importance and kurtosis of about ``size`` features drawn evenly from all over the data.

        Nothing has been validated yet: see `valid` and `spread_out`.
        """
        ...

    def refuse(self) -> NoReturn:
        """Raise the `ValueError` that says what is wrong with the data, some of which are known to be bad."""
        ...

    def partition(self, window: Window) -> Partition:
        """Return what `decide` says about each feature, added up, of data that may be bad."""
        ...

    def write(self, answer: Answer, unit: float) -> tuple[Any, Totals]:
        """Return the capacities, in the source's own kind of array, and what `judge` says about them, added up."""
        ...


class LocalSource(Source, Protocol):
    """A source in this process's memory, made from two arrays: for samples and for the undecided few."""

    def used(self, scale: float) -> tuple[float, float]:
        """Return Σ C and Σ C² at ``scale``; at 0 both are the number of features with positive importance."""
        ...


LocalKind = Callable[[FloatArray, FloatArray], LocalSource]


# --- one block of features ----------------------------------------------------------------------------------------


def decide(v: Any, k: Any, window: Window, xp: Any = np) -> tuple[Any, Any, Any]:
    """Return the capacities at both ends of the window, 0 for undecided features, and which are undecided."""
    low, high, reach = window
    demand = demand_of(v, k, xp)
    concave = k < 3.0
    above = demand.full > xp.where(concave, xp.full_like(k, high * reach), high)
    below = demand.enter < xp.where(concave, xp.full_like(k, low / reach), low)
    between = (demand.full < low) & (demand.enter > high)
    undecided = (v > 0.0) & ~(above | below | between)
    one, zero = xp.ones_like(demand.width), xp.zeros_like(demand.width)
    full = xp.where(above, one, zero)
    at_low = xp.where(between, demand.at(low, xp=xp), full)
    at_high = xp.where(between, demand.at(high, xp=xp), full)
    return at_low, at_high, undecided


def respond(v: Any, k: Any, scale: float, correction: float = 0.0, xp: Any = np) -> Any:
    """Return the capacities at τ = scale + correction; those of features that jump at the scale are of no meaning."""
    demand = demand_of(v, k, xp)
    return demand.at(scale, correction, xp=xp) if scale > 0.0 else demand.width


def judge(v: Any, k: Any, capacity: Any, unit: float, xp: Any = np) -> Totals:
    """Return the totals of features with the given capacities, as scalars of the namespace; see `Totals.of`."""
    v = xp.where(v < GIANT * unit, v / unit, GIANT)
    denominator = 1.0 + 0.5 * (k - 3.0) * capacity
    denominator = xp.where(denominator == 0.0, xp.ones_like(capacity), denominator)
    ratio = (k - 1.0) / denominator
    not_full = capacity < 1.0
    zero = xp.zeros_like(capacity)
    # at C = 1 the ratio is 2 exactly, also for κ = 1 where it is 0/0
    marginal = 0.5 * (v * xp.where(not_full, ratio, zero + 2.0)) ** 2
    chord = (v * xp.sqrt(ratio)) ** 2
    return Totals(
        used=xp.sum(capacity),
        empty=xp.count_nonzero(capacity == 0.0),
        full=xp.count_nonzero(capacity == 1.0),
        loss=xp.sum((v * xp.sqrt(ratio * (1.0 - capacity))) ** 2),
        price=xp.max(xp.where(not_full, marginal, zero)),
        last=xp.min(xp.where(capacity > 0.0, marginal, zero + math.inf)),
        steepest=xp.max(xp.where(not_full, xp.where(k < 3.0, chord, marginal), zero)),
    )


def regret(v: FloatArray, k: FloatArray, capacity: FloatArray, scale: float) -> float:
    """Return by how much Σ [f_i(C_i) + λ C_i] exceeds its minimum, λ = 2 · scale²."""
    best = respond(v, k, scale)
    here, there = (
        np.where(c == 1.0, 2.0 * v, v * ((k - 1.0) / np.where(c == 1.0, 1.0, 1.0 + 0.5 * (k - 3.0) * c)))
        for c in (capacity, best)
    )
    return float(np.sum((capacity - best) * (2.0 * scale * scale - 0.5 * here * there)))


class Arrays:
    """A source in memory: NumPy arrays of real numbers, gone through in blocks that stay in the cache."""

    BLOCK = 1 << 13

    def __init__(self, importance: npt.NDArray[Any], kurtosis: npt.NDArray[Any]) -> None:
        self.importance = importance
        self.kurtosis = kurtosis if kurtosis.shape == importance.shape else np.broadcast_to(kurtosis, importance.shape)

    @property
    def features(self) -> int:
        """The number of features, n."""
        return int(self.importance.size)

    def sample(self, size: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return a run of neighbours from each of many intervals of equal length; see `Source`."""
        index = spread_out(self.features, size, rng)
        return valid(self.importance[index].astype(np.float64), self.kurtosis[index].astype(np.float64))

    def used(self, scale: float) -> tuple[float, float]:
        """Return the sums of what `respond` says and of its squares."""
        capacities = [respond(v, k, scale) for _, v, k in self._blocks()]
        return math.fsum(float(np.sum(c)) for c in capacities), math.fsum(float(c @ c) for c in capacities)

    def refuse(self) -> NoReturn:
        """Raise the error of the detailed checks; see `Source`."""
        refuse(self.importance, self.kurtosis)

    def partition(self, window: Window) -> Partition:
        """Go through the data once; see `Source`."""
        wanting, total, lowest, at_low, at_high = 0, 0.0, (math.inf, math.inf), [], []
        found: list[tuple[FloatArray, FloatArray, IntArray]] = []
        for start, v, k in self._blocks():
            low, high, undecided = decide(v, k, window)
            at_low.append(float(low.sum()))
            at_high.append(float(high.sum()))
            wanting += int(np.count_nonzero(v))
            total += float(np.sum(v * k))
            lowest = min(lowest[0], float(v.min())), min(lowest[1], float(k.min()))
            index = np.flatnonzero(undecided)
            found.append((v[index], k[index], index + start))
        few = [np.concatenate(column) for column in zip(*found, strict=True)]
        return Partition(wanting, total, lowest, math.fsum(at_low), math.fsum(at_high), *few)

    def write(self, answer: Answer, unit: float) -> tuple[FloatArray, Totals]:
        """Go through the data once; see `Source`."""
        capacity, totals = np.empty(self.features), []
        for start, v, k in self._blocks():
            block = capacity[start : start + v.size]
            block[:] = respond(v, k, answer.scale, answer.correction)
            first, last = np.searchsorted(answer.which, [start, start + v.size])
            block[answer.which[first:last] - start] = answer.capacity[first:last]
            totals.append(judge(v, k, block, unit))
        return capacity, Totals.of(totals)

    def _blocks(self) -> Iterator[tuple[int, FloatArray, FloatArray]]:
        for start in range(0, self.features, self.BLOCK):
            block = slice(start, start + self.BLOCK)
            yield start, self.importance[block].astype(np.float64), self.kurtosis[block].astype(np.float64)


def spread_out(features: int, size: int, rng: np.random.Generator) -> IntArray:
    """Return ascending indices of about ``size`` of ``features``: a run of neighbours at random in each interval.

    Runs, because memory comes in lines; one in each interval, because of sorted data such a sample knows more.
    """
    if size >= features:
        return np.arange(features)
    run = max(1, min(RUN, size // 64))
    runs = max(1, size // run)
    edges = np.linspace(0, features - run, runs + 1)
    starts = (edges[:-1] + rng.random(runs) * np.diff(edges)).astype(np.int64)
    return (starts[:, None] + np.arange(run)).ravel()


def valid(v: FloatArray, k: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the features of a sample whose data are sane; ``partition`` will complain about the others."""
    with np.errstate(invalid="ignore", over="ignore"):
        sane = (v >= 0.0) & (k >= 1.0) & (v * k < math.inf)
    return v[sane], k[sane]


# --- the search ----------------------------------------------------------------------------------------------------


class Ramp(NamedTuple):
    """All decided features as one: their capacity at the window's ends, linear in 1/τ between."""

    low: float
    high: float
    at_low: float
    at_high: float

    def at(self, scale: float) -> float:
        """Return the capacity at a scale inside the window."""
        if self.at_low == self.at_high or scale >= self.high:
            return self.at_high
        if scale <= self.low:
            return self.at_low
        share = self.low * ((self.high - scale) / (scale * (self.high - self.low)))
        return self.at_high + share * (self.at_low - self.at_high)

    def beside(self, few: Demand) -> Demand:
        """Return the demand of a few features and, last, of what this one takes beyond ``at_high``."""
        mine = (0.0, 0.0, 0.0, 0.0)
        if self.at_low > self.at_high:
            mine = (self.high, self.low, self.low / (self.high - self.low), self.at_low - self.at_high)
        return Demand(*(np.append(part, x) for part, x in zip(few, mine, strict=True)))


class Enclosed(NamedTuple):
    """What lies in a window around the price: the decided features as one, and the undecided few."""

    decided: Ramp
    importance: FloatArray
    kurtosis: FloatArray
    which: IntArray
    reach: float = 1.0  # of the window for features with κ < 3, see `Window`

    def demand(self) -> Demand:
        """Return the demand of the undecided features."""
        return demand_of(self.importance, self.kurtosis)

    def used(self, local: LocalKind) -> Callable[[float], tuple[float, float]]:
        """Return the function that tells Σ C inside the window, and Σ C² of the undecided."""
        few = local(self.importance, self.kurtosis)

        def used(scale: float) -> tuple[float, float]:
            total, squares = few.used(scale)
            return self.decided.at(scale) + total, squares

        return used

    def ends(self, local: LocalKind) -> tuple[float, float]:
        """Return Σ C at the high and at the low end of the window; at τ = 0 features that gain nothing have nothing."""
        used, ramp = self.used(local), self.decided
        above = used(ramp.high)[0] if ramp.high < math.inf else ramp.at_high
        if ramp.low > 0.0:
            return above, used(ramp.low)[0]
        return above, ramp.at_low + np.count_nonzero(self.importance * (self.kurtosis - 1.0))

    def only(self, chosen: npt.NDArray[np.bool_]) -> Enclosed:
        """Return the same with some of the undecided features only."""
        return self._replace(
            importance=self.importance[chosen], kurtosis=self.kurtosis[chosen], which=self.which[chosen]
        )

    def fill(self, budget: float) -> Filling:
        """Spread ``budget`` exactly. Last in the answer is what the decided features take beyond ``at_high``."""
        ramp = self.decided
        filling = fill(ramp.beside(self.demand()), budget - ramp.at_high)
        # a budget that is all that can be used in the window, by rounding only
        return filling if filling.scale > 0.0 else filling._replace(scale=ramp.low)

    def within(self, low: float, high: float, local: LocalKind) -> Enclosed:
        """Return what lies in a smaller window."""
        inner = local(self.importance, self.kurtosis).partition(Window(low, high))
        at_low, at_high = self.decided.at(low) + inner.at_low, self.decided.at(high) + inner.at_high
        return Enclosed(Ramp(low, high, at_low, at_high), inner.importance, inner.kurtosis, self.which[inner.which])


def bracket(source: Source, dimensions: float, local: LocalKind) -> Window:
    """Return a window that the price lies in, as a sample has it: `CONFIDENCE` standard errors on either side."""
    v, k = source.sample(max(SAMPLE, round(1.6 * source.features ** (2 / 3))), np.random.default_rng(0))
    start = float(np.max(v, initial=0.0))
    if start == 0.0:
        return Window(0.0, math.inf)
    share = min(1.0, dimensions / source.features)
    # A sample of the sample says where to start. Its capacities lie in [0, 1]: their variance is at most p (1 − p).
    rough = local(v[:: max(1, v.size // ROUGH)], k[:: max(1, v.size // ROUGH)])
    aim, error = (
        min(share * rough.features, rough.used(0.0)[0]),
        math.sqrt(share * (1.0 - share) * rough.features) + 1.0,
    )
    start = max(_locate(rough.used, aim - error, aim + error, [(start, rough.used(start)[0])], 0.01))
    sample = local(v, k)
    m, aim, wanting = sample.features, share * sample.features, sample.used(0.0)[0]
    here, squares = sample.used(start)
    margin = CONFIDENCE * (math.sqrt(max(0.0, squares - here * here / m)) + 1.0)
    low, high, tried = 0.0, math.inf, [(start, here)]
    if aim + 1.5 * margin < wanting:
        low = _locate(sample.used, aim + margin, aim + 1.5 * margin, tried, 0.001)[0]
    if aim > 1.5 * margin:
        high = _locate(sample.used, aim - 1.5 * margin, aim - margin, tried, 0.001)[1]
    return Window(low, high)


def _locate(
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


def enclose(source: Source, dimensions: float, local: LocalKind, window: Window | None = None) -> Enclosed | None:
    """Return a window around the price and what lies in it; None if the budget is enough for all features."""
    window, misses = window or bracket(source, dimensions, local), 0
    while True:
        part = source.partition(window)
        if not (part.total < math.inf and part.lowest[0] >= 0.0 and part.lowest[1] >= 1.0):
            source.refuse()
        if dimensions >= part.wanting:
            return None
        low, high, reach = window
        found = Enclosed(Ramp(low, high, part.at_low, part.at_high), part.importance, part.kurtosis, part.which, reach)
        above, below = found.ends(local)
        if above <= dimensions and (below > dimensions or low == 0.0):
            return found
        misses += 1
        stretch = math.inf if misses > 2 or low == 0.0 or high == math.inf else max(1.01, high / low) ** 4
        window = Window(high, high * stretch) if above > dimensions else Window(low / stretch, low)


def narrow(found: Enclosed, budget: float, local: LocalKind) -> Enclosed:
    """Return a smaller window around the price, with about `FEW` undecided features where that can be had."""
    before = math.inf
    found = _finite(found, budget, local)
    while FEW < found.which.size < 0.5 * before and found.decided.low > 0.0:
        before, ramp = found.which.size, found.decided
        above, below = found.ends(local)
        tried, tolerance = [(ramp.high, above), (ramp.low, below)], (below - above) * FEW / (4.0 * before)
        used = found.used(local)
        low, _ = _locate(used, math.nextafter(budget, math.inf), budget + tolerance, tried, NARROWEST)
        _, high = _locate(used, budget - tolerance, budget, tried, NARROWEST)
        found = found.within(low, high, local)
    return found


def _finite(found: Enclosed, budget: float, local: LocalKind) -> Enclosed:
    """Return the same with the window's ends at the outermost breakpoints, where they are 0 or infinite."""
    low, high = found.decided.low, found.decided.high
    if high == math.inf:
        high = float(np.max(found.demand().enter))
    if low == 0.0 and budget < found.ends(local)[1]:
        full = found.demand().full
        low = float(np.nextafter(np.min(full[full > 0.0]), 0.0))
    return found._replace(decided=found.decided._replace(low=low, high=high))
