"""A handful of features: the same answer and certificate as for many, in plain Python numbers.

For six features a call of NumPy costs as much as computing with all of them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable

from capsolve.certificate import NONE, CertificateTerms
from capsolve.losses.quadratic import LARGE
from capsolve.solvers.price import WHOLE, interpolate_scale

Numbers = list[float]
# Importance and kurtosis.
Feature = tuple[float, float]
# Where a feature enters and is full, and 2/(κ−3); compare `ResponseCurve`.
Curve = tuple[float, float, float]


def solve_scalar(features: list[Feature], dimensions: float) -> tuple[Numbers, float] | None:
    """Return capacities and τ of a problem with a bias; None if nothing is scarce or a κ < 3 feature is fractional."""
    curves = [_curve(v, k) for v, k in features]
    if dimensions >= sum([curve[0] > 0.0 for curve in curves]):
        return None
    capacity, scale, jump = solve_knapsack(curves, dimensions)
    if any(jump):
        # the rule of `capsolve.solvers.price.resolve_ties`
        concave = [i for i, (_, k) in enumerate(features) if jump[i] and k < 3.0]
        linear = [i for i, (_, k) in enumerate(features) if jump[i] and k >= 3.0]
        left = math.fsum([capacity[i] for i in concave + linear])
        whole = min(int(left + WHOLE * dimensions), len(concave))
        rest = max(0.0, left - whole)
        if rest > len(linear):
            return None
        for place, i in enumerate(concave):
            capacity[i] = 1.0 if place < whole else 0.0
        for i in linear:
            capacity[i] = rest / len(linear)
    return capacity, scale


def scalar_terms(features: Iterable[Feature], capacity: Iterable[float], scale: float, unit: float) -> CertificateTerms:
    """Return the terms of the certificate at the price 2 · scale²; compare `feature_terms`."""
    tau = scale / unit
    twice, price = 2.0 * tau, 2.0 * tau * tau
    empty, full, loss, gap, unsaturated, active = 0, 0, 0.0, 0.0, 0.0, NONE
    for (raw, k), c in zip(features, capacity, strict=True):
        v, excess, rest = raw / unit, k - 3.0, 1.0 - c
        v = v if v < LARGE else LARGE  # as in `feature_terms`: of full features, but for wrong answers
        first = v * (k - 1.0)
        y = rest + 0.5 * (k - 1.0) * c
        w = first / y if y > 0.0 else 2.0 * v  # κ = 1 and C = 1
        w = w if w < LARGE else LARGE
        chord, marginal = v * w, 0.5 * w * w
        if c < 1.0:
            loss += chord * rest
            unsaturated = marginal if marginal > unsaturated else unsaturated
        else:
            full += 1
        if c == 0.0:
            empty += 1
        elif marginal < active:
            active = marginal
        if excess < 0.0:
            gap += max(c * (price - 0.5 * first * w), rest * (chord - price))
        elif v >= tau:
            gap += rest * (chord - price) if c < 1.0 else 0.0
        elif first <= twice:
            gap += c * (price - 0.5 * first * w)
        else:
            tangent = max(c * (price - marginal), rest * (marginal - price))
            gap += min(tangent, y * ((w - twice) * (w - twice) / excess))
    return CertificateTerms(math.fsum(capacity), empty, full, loss, unsaturated, active, gap)


def _curve(v: float, k: float) -> Curve:
    """Return where a feature enters, is full, and its gain; see `capsolve.losses.quadratic.response_curve`."""
    if k >= 3.0:
        return v * (0.5 * (k - 1.0)), v, 2.0 / (k - 3.0) if k > 3.0 else 0.0
    step = v * math.sqrt(0.5 * (k - 1.0))
    return step, step, 0.0


def solve_knapsack(curves: list[Curve], budget: float) -> tuple[Numbers, float, list[bool]]:
    """Return capacities, scale and which features jump there, as `capsolve.solvers.price.solve_knapsack` does.

    For a budget that is less than what gains anything.
    """
    points = sorted(({curve[0] for curve in curves} | {curve[1] for curve in curves}) - {0.0}, reverse=True)
    # The last breakpoint at which Σ C ≤ budget; the sum rises along the list and is 0 at its start.
    after = bisect_left(points, True, 1, key=lambda scale: math.fsum(_at(curves, scale)) > budget)
    scale = points[after - 1]
    capacity = _at(curves, scale)
    jump = [full >= enter == scale for enter, full, _ in curves]
    if any(jump):
        room, left = sum(jump), budget - math.fsum(capacity)
        if left <= room or after == len(points):
            share = min(1.0, left / room)
            return [share if jumps else c for c, jumps in zip(capacity, jump, strict=True)], scale, jump
        capacity = [1.0 if jumps else c for c, jumps in zip(capacity, jump, strict=True)]

    end, following = _at(curves, points[after]), points[after]
    start = math.fsum(capacity)
    share = (budget - start) / (math.fsum(end) - start)
    capacity = [c + share * (to - c) for c, to in zip(capacity, end, strict=True)]
    return capacity, interpolate_scale(scale, following, share)[0], [False] * len(jump)


def _at(curves: list[Curve], scale: float) -> Numbers:
    """Return the capacities at a scale; see `capsolve.losses.quadratic.ResponseCurve.at`."""
    capacity = []
    for enter, full, gain in curves:
        if scale >= enter:
            share = 0.0
        elif scale <= full:
            share = 1.0
        elif gain < 1.0:
            share = min(gain * ((enter - scale) / scale), 1.0)
        else:
            share = max(1.0 - (1.0 + gain) * ((scale - full) / scale), 0.0)
        capacity.append(share)
    return capacity
