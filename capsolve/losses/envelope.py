"""Convex envelopes of piecewise-linear loss curves, and how many features share a budget by them.

A budget may be left unspent, so only the falling part of an envelope matters: from its left end to its
smallest minimiser. It is stored as vertices with the *gain* (minus the slope) of the segment that starts at
each; gains fall from vertex to vertex, which is all that a price search needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray

IntArray = npt.NDArray[np.intp]

# Above this number of segments the price is narrowed down by pivots before what remains is sorted: sorting
# everything takes longer, and with few segments a pivot does (measured between 10³ and 10⁷ segments).
SORT_LIMIT = 4_096

# A curve this much above its hull, relative to its largest value, is a line that was rounded.
ROUNDING = 8 * np.finfo(float).eps


def decreasing_convex_envelopes(x: FloatArray, curves: FloatArray) -> list[FloatArray]:
    """Return the falling part of the lower convex hull of each of the curves (k, g) over x (g,), as a table.

    Row 0: abscissas of the m + 1 vertices; row 1: ordinates; row 2: the gain of the segment to the right of
    each, in falling order, with a final 0; row 3: how many segments to the left of each are not part of the
    curve, points between their ends lying above them by more than rounding.

    The greatest convex minorant of a function is the isotonic regression of its slopes (Barlow et al. 1972),
    which SciPy solves in linear time.
    """
    step = x[1:] - x[:-1]
    gains = (curves[:, :-1] - curves[:, 1:]) / step
    return [_decreasing_convex_envelope(x, y, step, gain) for y, gain in zip(curves, gains, strict=True)]


def decreasing_convex_envelope(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return what `decreasing_convex_envelopes` does for the single curve y (g,)."""
    step = x[1:] - x[:-1]
    return _decreasing_convex_envelope(x, y, step, (y[:-1] - y[1:]) / step)


def _decreasing_convex_envelope(x: FloatArray, y: FloatArray, step: FloatArray, gain: FloatArray) -> FloatArray:
    if (gain[1:] < gain[:-1]).all():
        return _table(x, y, gain, np.zeros(gain.size))
    from scipy.optimize import isotonic_regression  # noqa: PLC0415  (takes longer to import than to use)

    ends = isotonic_regression(gain, weights=step, increasing=False).blocks
    vx, vy = x[ends], y[ends]
    above = y - np.interp(x, vx, vy) > ROUNDING * np.abs(y).max()
    gapped = np.logical_or.reduceat(above[:-1], ends[:-1])
    # the regression compares averaged slopes, which may differ from the hull's own in the last digit
    gain = np.minimum.accumulate((vy[:-1] - vy[1:]) / (vx[1:] - vx[:-1]))
    return _table(vx, vy, gain, gapped)


def _table(x: FloatArray, y: FloatArray, gain: FloatArray, gapped: npt.NDArray[Any]) -> FloatArray:
    m = int(np.count_nonzero(gain > 0.0))
    table = np.zeros((4, m + 1))
    table[0] = x[: m + 1]
    table[1] = y[: m + 1]
    table[2, :m] = gain[:m]
    table[3, 1:] = np.cumsum(gapped[:m])
    return table


class Envelope:
    """The envelopes of n features; feature i has hull ``tables[which[i]]``, times ``weight[i]`` ≥ 0.

    Hulls may be shared, so that n features of one shape need memory for n + m numbers, not n · m. Attributes
    ``x``, ``y``, ``gain``, ``gaps`` are all hulls one after the other; feature i's vertices start at
    ``offset[i]`` and it has ``length[i]`` segments. A *state* is an array (n,) that counts the segments
    filled.
    """

    def __init__(self, tables: Sequence[FloatArray], which: IntArray, weight: FloatArray) -> None:
        sizes = np.array([table.shape[1] for table in tables])
        rows: FloatArray = np.concatenate(tables, axis=1)
        self.x, self.y, self.gain, self.gaps = (np.asarray(row) for row in rows)
        self.offset: IntArray = (np.cumsum(sizes) - sizes)[which]
        self.length: IntArray = np.where(weight > 0.0, sizes[which] - 1, 0)
        self.weight = weight

    def capacity(self, state: IntArray) -> FloatArray:
        """Return the capacities in a state, shape (n,)."""
        capacity: FloatArray = self.x[self.offset + state]
        return capacity

    def loss(self, state: IntArray) -> FloatArray:
        """Return the envelopes in a state, before they are multiplied by the weights; shape (n,)."""
        loss: FloatArray = self.y[self.offset + state]
        return loss

    def gapped(self, below: IntArray, above: IntArray) -> npt.NDArray[np.bool_]:
        """Return whether the envelope is not the curve somewhere between two states, shape (n,)."""
        hidden: npt.NDArray[np.bool_] = self.gaps[self.offset + above] > self.gaps[self.offset + below]
        return hidden

    def state(self, price: float) -> IntArray:
        """Return the state with exactly the segments filled that gain more than ``price`` ≥ 0."""
        return self._search(price, np.arange(self.weight.size), np.zeros_like(self.length), self.length, strict=True)

    def solve_price(self, budget: float) -> tuple[float, IntArray, IntArray]:
        """Return the price at which ``budget`` runs out, and the states without and with what gains it.

        The capacities of the first state sum to at most ``budget``, those of the second to more; the
        difference is tied at the price. Requires that the budget covers the empty state but not the full one.
        """
        low, high = np.zeros_like(self.length), self.length.copy()
        while int(np.sum(high - low)) > SORT_LIMIT:
            active = np.flatnonzero(high > low)
            gains = self._gain(active, (low[active] + high[active]) // 2)
            middle = gains.size // 2
            price = float(np.partition(gains, middle)[middle])
            above, least = high.copy(), high.copy()
            above[active] = self._search(price, active, low[active], high[active], strict=True)
            if float(np.sum(self.capacity(above))) > budget:
                high = above
                continue
            least[active] = self._search(price, active, above[active], high[active], strict=False)
            if float(np.sum(self.capacity(least))) > budget:
                return price, above, least
            low = least

        # ragged aranges: every segment between the two states
        feature = np.repeat(np.arange(low.size), high - low)
        first = np.repeat(np.cumsum(high - low) - (high - low), high - low)
        segment = low[feature] + np.arange(feature.size) - first
        gains = self._gain(feature, segment)
        vertex = self.offset[feature] + segment
        order = np.argsort(-gains, kind="stable")
        spent = float(np.sum(self.capacity(low))) + np.cumsum((self.x[vertex + 1] - self.x[vertex])[order])
        marginal = min(int(np.searchsorted(spent, budget, side="right")), feature.size - 1)
        price = float(gains[order[marginal]])
        above = low + np.bincount(feature[gains > price], minlength=low.size)
        return price, above, above + np.bincount(feature[gains == price], minlength=low.size)

    def _gain(self, feature: IntArray, segment: IntArray) -> FloatArray:
        gain: FloatArray = self.weight[feature] * self.gain[self.offset[feature] + segment]
        return gain

    def _search(self, price: float, feature: IntArray, low: IntArray, high: IntArray, *, strict: bool) -> IntArray:
        """Count the segments that gain more than (at least) ``price``: a bisection in every feature."""
        low, high = low.copy(), high.copy()
        while (unknown := low < high).any():
            middle = (low + high) // 2
            gains = self._gain(feature, middle)
            wanted = gains > price if strict else gains >= price
            low = np.where(unknown & wanted, middle + 1, low)
            high = np.where(unknown & ~wanted, middle, high)
        return low
