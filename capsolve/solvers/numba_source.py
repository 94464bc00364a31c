"""The passes over NumPy arrays, compiled by Numba: as fast as memory can be read and written, on all cores.

Importing this module imports Numba, which takes longer than to solve a problem of a hundred thousand features: see
`capsolve.solvers.routes.route_for` for when it is worth it. The machine code is kept on disk where that is possible.
Compiled code is a bonus: whatever keeps Numba from working, the passes of `NumPySource` answer, and a debug log says
why.

Floating-point arithmetic is strict except for the order of the sums: a sum over a block of 4,096 features has as many
running totals as vector registers hold, and blocks are added pairwise. The order depends on nothing but the
data's size, so results do not depend on the number of threads.

v (κ − 1) − 2τ is computed with one rounding (fused multiply–add): small capacities of large kurtoses and
those with κ close to 3 depend on it alike.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import threading
from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np

from capsolve import certificate
from capsolve._checks import FloatArray
from capsolve._compiled import checksums, compiled, fma, inlined, internal, larger, on_all_cores, plus, smaller
from capsolve.certificate import FINEST_TOLERANCE, NONE, CertificateTerms
from capsolve.losses import quadratic
from capsolve.losses.quadratic import LARGE, TINY
from capsolve.solvers import newton
from capsolve.solvers.newton import NEAR, SAMPLE, STEEP, STEPS, Root, next_point
from capsolve.solvers.sources import MODERATE, NumPySource, PriceAndExceptions, ScaleInterval, Screening, spread_out

logger = logging.getLogger(__name__)

BLOCK = 4096
# Up to so many features one core does all: to wake another takes as long, and beside a busy process its time slice.
ONE_CORE = 1 << 15
# Blocks that one task screens for free features, and the share of them there is room for.
BLOCKS_PER_TASK = 16
SHARE_FREE = 1.0 / 8.0
# Up to so many features all kurtoses are looked at before the first pass, to know whether any is below 3: then the
# pass that expects none need not be repeated.
LOOKED_AT = 1 << 18

TAKEN_FROM = checksums(newton, quadratic, certificate)  # see `capsolve._compiled`


# --- one block -------------------------------------------------------------------------------------------------------


@inlined
def _capacity(v: float, k: float, scale: float, correction: float, mixed: bool) -> float:
    """Return the response to τ = scale + correction, as `ResponseCurve.at`; ``mixed`` says that κ may be below 3."""
    c = (fma(v, k - 1.0, -2.0 * scale) - 2.0 * correction) / ((k - 3.0) * scale)
    c = c if c > 0.0 else 0.0
    c = c if c < 1.0 else 1.0
    full = v
    if mixed:
        full = v * math.sqrt(0.5 * (k - 1.0)) if k < 3.0 else v
        c = 0.0 if k < 3.0 else c
        full = v if scale == 0.0 else full
    return c if full <= scale else 1.0


@inlined
def _denominator(k: float, c: float, mixed: bool) -> float:
    y = fma(0.5 * (k - 1.0), c, 1.0 - c)
    return 1.0 if mixed and y <= 0.0 else y  # κ = 1 and C = 1, where numerators vanish as well


@internal
def _respond(v, k, scale, correction, mixed, out):
    for i in range(v.size):
        out[i] = _capacity(np.float64(v[i]), np.float64(k[i]), scale, correction, mixed)


@inlined
def _terms(v, k, capacity, scale, mixed, exact):
    """Add up the terms of the certificate at the price 2 · scale²; see `feature_terms` and `CertificateTerms`.

    Marginal values appear as their square roots: ½ w² is the marginal value, w = v (κ−1) / (1 + γC). Unless it is to be
    ``exact``, the Lagrangian gap of convex losses is that of the tangents, which takes half the time.
    """
    used, not_empty, not_full, loss, unsaturated, active, gap = 0.0, 0.0, 0.0, 0.0, 0.0, np.inf, 0.0
    price = 2.0 * scale * scale
    for i in range(v.size):
        v_i, k_i, c = smaller(np.float64(v[i]), LARGE), np.float64(k[i]), capacity[i]
        y, first = _denominator(k_i, c, mixed), v_i * (k_i - 1.0)
        empty, rest = 1.0 - c, 1.0 if c < 1.0 else 0.0
        if exact:  # both quotients from one division
            excess = 1.0 if k_i == 3.0 else k_i - 3.0
            inverse = 1.0 / (y * excess)
            w = first * (inverse * excess)
        else:
            w = first / y
        if mixed:
            w = w if c < 1.0 else 2.0 * v_i
        chord, over = v_i * w, 0.5 * w * w - price
        of_feature = larger(-c * over, empty * over)
        if exact:
            distance = w - 2.0 * scale
            convex = (y * y * inverse) * (distance * distance)
            convex = c * (price - 0.5 * w * first) if first <= 2.0 * scale else convex
            convex = empty * (chord - price) if v_i >= scale else convex
            of_feature = smaller(of_feature, convex)
        if mixed:
            concave = larger(c * (price - 0.5 * w * first), empty * (chord - price))
            of_feature = concave if k_i < 3.0 else of_feature
        used = plus(used, c)
        not_empty = plus(not_empty, 1.0 if c > 0.0 else 0.0)
        not_full = plus(not_full, rest)
        loss = plus(loss, chord * empty)
        unsaturated = larger(unsaturated, w * rest)
        active = smaller(active, w + (0.0 if c > 0.0 else np.inf))
        gap = plus(gap, of_feature)
    return used, not_empty, not_full, loss, unsaturated, active, gap


@internal
def _terms_exact(v, k, capacity, scale, mixed):
    return _terms(v, k, capacity, scale, mixed, True)


@internal
def _terms_by_tangents(v, k, capacity, scale, mixed):
    return _terms(v, k, capacity, scale, mixed, False)


@internal
def _screen_block(v, k, low, high, low_jump, high_jump, mixed, flags, sums):
    """Add up the fixed features at both ends of the interval and flag the free ones; see `screen_features`."""
    at_low, at_high, total, least, lowest, highest = 0.0, 0.0, 0.0, np.inf, np.inf, 0.0
    for i in range(v.size):
        v_i, k_i = np.float64(v[i]), np.float64(k[i])
        gain = 1.0 / (k_i - 3.0)
        room_low, room_high = fma(v_i, k_i - 1.0, -2.0 * low), fma(v_i, k_i - 1.0, -2.0 * high)
        above, below, between = v_i > high, room_low < 0.0, (v_i < low) & (room_high > 0.0)
        if mixed:
            jump = v_i * math.sqrt(0.5 * (k_i - 1.0))
            above = jump > high_jump if k_i < 3.0 else above
            below = jump < low_jump if k_i < 3.0 else below
            between = between & (k_i >= 3.0)
        full = 1.0 if above else 0.0
        at_low = plus(at_low, room_low * gain * (1.0 / low) if between else full)
        at_high = plus(at_high, room_high * gain * (1.0 / high) if between else full)
        total = plus(total, v_i * k_i)
        least = smaller(least, v_i)
        lowest = smaller(lowest, k_i)
        highest = larger(highest, k_i)
        flags[i] = 0 if (above | below | between | (v_i == 0.0)) else 1
    sums[0], sums[1], sums[2], sums[3], sums[4], sums[5] = at_low, at_high, total, least, lowest, highest


# --- all blocks: the loops on all cores only call, for what they hold takes Numba several times as long to compile ----


@internal
def _write_block(b, v, k, stride, scale, correction, multiplier, mixed, exact, listed, exceptions, out, terms):
    start, stop = b * BLOCK, min((b + 1) * BLOCK, v.size)
    v_here, out_here, k_here = v[start:stop], out[start:stop], k[start * stride :][: stop - start]
    _respond(v_here, k_here, scale, correction, mixed, out_here)  # two loops are no slower than one: both divide
    for j in range(listed[b], listed[b + 1]):
        out[int(exceptions[0, j])] = exceptions[1, j]
    if exact:
        sums = _terms_exact(v_here, k_here, out_here, multiplier, mixed)
    else:
        sums = _terms_by_tangents(v_here, k_here, out_here, multiplier, mixed)
    for q in range(7):
        terms[b, q] = sums[q]


def _write(v, k, stride, scale, correction, multiplier, mixed, exact, listed, exceptions, out, terms):
    """Fill ``out`` and ``terms``, by blocks; exceptions are index and capacity, those of a block from ``listed`` on."""
    for b in nb.prange(terms.shape[0]):
        _write_block(
            np.int64(b), v, k, stride, scale, correction, multiplier, mixed, exact, listed, exceptions, out, terms
        )


@internal
def _screen_task(s, v, k, stride, low, high, low_jump, high_jump, mixed, sums, free):
    n, room = v.size, free.shape[2]
    flags = np.zeros(BLOCK, np.uint8)
    words = flags.view(np.uint64)
    count, index, free_v, free_k = 0, free[0, s], free[1, s], free[2, s]
    for b in range(s * BLOCKS_PER_TASK, min((s + 1) * BLOCKS_PER_TASK, sums.shape[0])):
        start, stop, before = b * BLOCK, min((b + 1) * BLOCK, n), count
        flags[stop - start :] = 0
        k_here = k[start * stride :][: stop - start]
        _screen_block(v[start:stop], k_here, low, high, low_jump, high_jump, mixed, flags[: stop - start], sums[b])
        for q in range(words.size):
            if words[q] != 0:
                for j in range(8 * q, 8 * q + 8):
                    if flags[j]:
                        if count < room:
                            index[count], free_v[count], free_k[count] = start + j, v[start + j], k_here[j]
                        count += 1
        sums[b, 6] = count - before


_write_on_one_core, _write_on_all_cores = compiled(_write), on_all_cores(_write)


def _screen(v, k, stride, low, high, low_jump, high_jump, mixed, sums, free):
    """Fill ``sums`` by blocks and ``free``, index, v and κ of free features, by tasks, as room permits."""
    for s in nb.prange(free.shape[1]):
        _screen_task(np.int64(s), v, k, stride, low, high, low_jump, high_jump, mixed, sums, free)


_screen_on_one_core, _screen_on_all_cores = compiled(_screen), on_all_cores(_screen)


@compiled
def _used(v, k, scale, mixed):
    total, squares = 0.0, 0.0
    for i in range(v.size):
        c = _capacity(v[i], k[i], scale, 0.0, mixed)
        total, squares = plus(total, c), plus(squares, c * c)
    return total, squares


@compiled
def _sample(v, k, stride, index, v_out, k_out):
    at = 0
    for i in index:
        v_i, k_i = np.float64(v[i]), np.float64(k[i * stride])
        if v_i >= 0.0 and k_i >= 1.0 and v_i * k_i < np.inf:
            v_out[at], k_out[at] = v_i, k_i
            at += 1
    return at


# --- Newton's method: as in `capsolve.solvers.newton` -----------------------------------------------------------------

_next_point = inlined(next_point)


@inlined
def _enter(v: float, k: float) -> float:
    """Return where a feature enters, to the last bit as `response_curve`."""
    half = 0.5 * (k - 1.0)
    return v * (math.sqrt(half) if k < 3.0 else half)


@internal
def _lines(v, k, stride, slope, gain):
    least, largest, gaining = np.inf, 0.0, 0.0
    for i in range(v.size):
        v_i, k_i = np.float64(v[i]), np.float64(k[i * stride])
        gain[i] = smaller(2.0 / larger(k_i - 3.0, 2.0 * STEEP), 1.0 / STEEP)
        slope[i] = gain[i] * _enter(v_i, k_i)
        least, largest = smaller(least, v_i if v_i > 0.0 else np.inf), larger(largest, v_i)
        gaining = plus(gaining, 1.0 if slope[i] > 0.0 else 0.0)
    return least, largest, gaining


@internal
def _sum_of_lines(slope, gain, u):
    used, total, steepest = 0.0, 0.0, 0.0
    for i in range(slope.size):
        share = slope[i] * u - gain[i]
        between = (share > 0.0) & (share < 1.0)
        used = plus(used, smaller(larger(share, 0.0), 1.0))
        total = plus(total, slope[i] if between else 0.0)
        steepest = larger(steepest, gain[i] if between else 0.0)
    return used, total, steepest


@internal
def _search(slope, gain, budget, u):
    low, high = 0.0, np.inf
    for step in range(STEPS):
        used, total, steepest = _sum_of_lines(slope, gain, u)
        missing = budget - used
        if missing > 0.0:
            low = u
        else:
            high = u
        following = _next_point(step, u, low, high, missing, total)
        if abs(following - u) <= NEAR * u:
            return following, total, steepest >= 1.0 / STEEP
        u = following
    return 0.0, 0.0, False


@internal
def _next_entry(v, k, stride, scale):
    following = 0.0
    for i in range(v.size):
        enter = _enter(np.float64(v[i]), np.float64(k[i * stride]))
        following = larger(following, enter if enter < scale else 0.0)
    return following


@compiled
def _newton_root(v, k, stride, budget):
    slope, gain = np.empty(v.size), np.empty(v.size)
    least, largest, gaining = _lines(v, k, stride, slope, gain)
    if budget >= gaining or least < TINY:
        return 0.0, 0.0
    start, every = 1.0 / largest, v.size // SAMPLE
    if every > 1:
        rough = slope[::every].copy()
        first = _search(rough, gain[::every].copy(), budget * rough.size / v.size, start)[0]
        start = first if first > 0.0 else start
    u, total, steep = _search(slope, gain, budget, start)
    if u == 0.0:
        return 0.0, 0.0
    if steep:
        return 1.0 / u, np.inf
    return (1.0 / u, total * u * u) if total > 0.0 else (_next_entry(v, k, stride, 1.0 / u), 0.0)


# --- the source -----------------------------------------------------------------------------------------------------

_turn = threading.Lock()  # not every threading layer of Numba can be entered twice
_forked = False


def _after_fork() -> None:
    global _forked  # noqa: PLW0603
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _or_numpy(method: Callable[..., Any]) -> Any:
    """Let `NumPySource` answer where compiled code does not, and from then on."""

    @functools.wraps(method)
    def attempt(self: NumbaSource, *given: Any) -> Any:
        if NumbaSource.works:
            try:
                return method(self, *given)
            except MemoryError:
                raise
            except Exception as reason:
                NumbaSource.works = False
                logger.debug("no compiled code from here on: %r", reason)
        return getattr(NumPySource, method.__name__)(self, *given)

    return attempt


class NumbaSource(NumPySource):
    """`NumPySource` in float64 or float32 whose passes are compiled."""

    works = True  # as far as is known

    def __init__(self, importance: Any, kurtosis: Any) -> None:
        super().__init__(importance, kurtosis)
        self._v = _plain(importance)
        if self.kurtosis.strides == (0,) and self.features:
            self._k, self._stride = _plain(np.full(BLOCK, self.kurtosis[0])), 0
        else:
            self._k, self._stride = _plain(self.kurtosis), 1
        # Whether some κ may be below 3, until a pass has seen.
        self._mixed = self.features > LOOKED_AT or bool((self._k < 3.0).any())
        self._blocks_total = -(-self.features // BLOCK)

    @_or_numpy
    def newton_root(self, budget: float) -> Root | None:
        """Return where Σ C = budget if Newton's method finds it; see `NumPySource`."""
        root = Root(*_newton_root(self._v, self._k, self._stride, budget))
        return root if root.scale > 0.0 else None

    def _run(self, on_one_core: Callable[..., None], on_all_cores: Callable[..., None], given: tuple[Any, ...]) -> None:
        """Run a pass; in a child of the process that used a threading layer first, that layer cannot be used."""
        if self.features <= ONE_CORE or _forked:
            on_one_core(*given)
        else:
            with _turn:
                on_all_cores(*given)

    @_or_numpy
    def used(self, scale: float) -> tuple[float, float]:
        """Return the sums of what `respond` says and of its squares."""
        return _used(self._v, self._k, scale, self._mixed) if self._stride else super().used(scale)

    @_or_numpy
    def sample(self, size: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return a run of neighbours from each of many intervals of equal length; see `Source`."""
        index = spread_out(self.features, size, rng)
        v, k = np.empty((2, index.size))
        found = _sample(self._v, self._k, self._stride, index, v, k)
        self._mixed = bool((k[:found] < 3.0).any())
        return v[:found], k[:found]

    @_or_numpy
    def screen(self, interval: ScaleInterval) -> Screening:
        """Go through the data once; see `Source`."""
        low, high, margin = interval
        if not (low == 0.0 or low > MODERATE[0]):
            return super().screen(interval)
        sums = np.empty((self._blocks_total, 7))
        tasks = range(0, self._blocks_total, BLOCKS_PER_TASK)
        room = int(BLOCKS_PER_TASK * BLOCK * SHARE_FREE)
        while True:
            free = np.empty((3, len(tasks), room))
            ends = (low, high, low / margin, high * margin)
            given = (self._v, self._k, self._stride, *ends, self._mixed, sums, free)
            self._run(_screen_on_one_core, _screen_on_all_cores, given)
            counts = np.add.reduceat(sums[:, 6], tasks).astype(np.int64)
            lowest = float(sums[:, 4].min())
            if not self._mixed and lowest < 3.0:
                self._mixed = True
            elif counts.max() > room:
                room = BLOCKS_PER_TASK * BLOCK
            else:
                break
        self._mixed = lowest < 3.0
        at_low, at_high, total = (float(x) for x in sums[:, :3].sum(axis=0))
        least, highest = float(sums[:, 3].min()), float(sums[:, 5].max())
        index, v, k = (np.concatenate([row[:n] for row, n in zip(part, counts, strict=True)]) for part in free)
        positive = self.features
        if least <= 0.0:
            positive_ones = self.importance > 0.0
            positive = int(np.count_nonzero(positive_ones))
            least_positive = float(np.min(self.importance, where=positive_ones, initial=np.inf))
        else:
            least_positive = least
        return Screening(
            positive, total, (least, lowest), highest, least_positive, at_low, at_high, v, k, index.astype(np.int64)
        )

    @_or_numpy
    def write(self, answer: PriceAndExceptions, unit: float) -> tuple[FloatArray, CertificateTerms]:
        """Go through the data once; see `Source`."""
        scale, multiplier = answer.scale, answer.multiplier
        if not all(x == 0.0 or MODERATE[0] < x < MODERATE[1] for x in (scale, multiplier)):
            return super().write(answer, unit)
        capacity, sums = np.empty(self.features), np.empty((self._blocks_total, 7))
        prices, exceptions = (scale, answer.correction, multiplier), np.array([answer.free_index, answer.capacity])
        listed = np.searchsorted(answer.free_index, BLOCK * np.arange(self._blocks_total + 1))
        for exact in (multiplier != scale, True):
            given = (self._v, self._k, self._stride, *prices, self._mixed, exact, listed, exceptions, capacity, sums)
            self._run(_write_on_one_core, _write_on_all_cores, given)
            used, not_empty, not_full, loss, *_, gap = (float(x) for x in sums.sum(axis=0))
            if exact or gap <= FINEST_TOLERANCE * (loss + 2.0 * multiplier**2 * used):
                break
        unsaturated, active = float(sums[:, 4].max()), float(sums[:, 5].min())
        if not unsaturated < LARGE:  # what is capped belongs to full features, but for wrong answers
            return super().write(answer, unit)
        n = self.features
        empty, full = n - round(not_empty), n - round(not_full)
        largest, smallest = (min(0.5 * (x / unit) * (x / unit), NONE) for x in (unsaturated, active))
        return capacity, CertificateTerms(used, empty, full, loss / unit / unit, largest, smallest, gap / unit / unit)


def _plain(column: Any) -> Any:
    """Return a contiguous, read-only view or copy: one type of array for one machine code."""
    column = np.ascontiguousarray(column if column.dtype in (np.float64, np.float32) else column.astype(np.float64))
    column = column.view()
    column.setflags(write=False)
    return column
