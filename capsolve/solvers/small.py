"""A handful of features: the same search and certificate as for many, in plain Python numbers.

For six features a call of NumPy costs as much as computing with all of them; this is ten times faster.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

import numpy as np

from capsolve._checks import outward
from capsolve.losses.quadratic import GIANT
from capsolve.solvers.solution import Proof, Solution
from capsolve.solvers.window import Totals


class Feature(NamedTuple):
    """Importance and kurtosis, and one entry of a `Demand`."""

    v: float
    k: float
    enter: float
    full: float
    gain: float


def solve_few(importance: list[float], kurtosis: list[float], dimensions: float) -> Solution | None:
    """Solve a problem with a bias; None where a feature with κ < 3 is to be shared or the budget exceeds all demand."""
    features = [_feature(v, k) for v, k in zip(importance, kurtosis, strict=True)]
    points = sorted({point for _, _, *both, _ in features for point in both if point > 0.0}, reverse=True)
    if dimensions >= sum([f.enter > 0.0 for f in features]):
        return None

    # The last breakpoint at which Σ C ≤ D; the sum rises along the list and is 0 at its start.
    after = bisect_left(points, True, 1, key=lambda scale: math.fsum(_at(features, scale)) > dimensions)
    scale = points[after - 1]
    below = _at(features, scale)
    jumping = [i for i, f in enumerate(features) if f.enter == scale and f.full == scale]
    rest = dimensions - math.fsum(below)
    if jumping and rest <= len(jumping):
        capacity = _tied(features, below, jumping, rest)
        if capacity is None:
            return None
    else:
        for i in jumping:
            below[i] = 1.0
        end, start_total = _at(features, points[after]), math.fsum(below)
        share = (dimensions - start_total) / (math.fsum(end) - start_total)
        capacity = [a + share * (b - a) for a, b in zip(below, end, strict=True)]
        scale = points[after] / (share + (1.0 - share) * (points[after] / scale))
    return Solution(np.array(capacity), proof=_proof(features, capacity, scale, dimensions))


def _feature(v: float, k: float) -> Feature:
    """Compare `demand_of`."""
    if k >= 3.0:
        return Feature(v, k, v * (0.5 * (k - 1.0)), v, 2.0 / (k - 3.0) if k > 3.0 else 0.0)
    step = v * math.sqrt(0.5 * (k - 1.0))
    return Feature(v, k, step, step, 0.0)


def _at(features: list[Feature], scale: float) -> list[float]:
    """Return the capacities at ``scale``, where nothing has jumped yet; compare `Demand.at`."""
    capacity = []
    for _, _, enter, full, gain in features:
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


def _tied(features: list[Feature], capacity: list[float], jumping: list[int], rest: float) -> list[float] | None:
    """Serve features with κ < 3 whole, by index, then those with κ ≥ 3 equally; None if that does not add up."""
    concave = [i for i in jumping if features[i].k < 3.0]
    linear = [i for i in jumping if features[i].k >= 3.0]
    whole = min(int(rest), len(concave))
    rest -= whole
    if rest > len(linear):
        return None
    for i in concave[:whole]:
        capacity[i] = 1.0
    for i in linear:
        capacity[i] = rest / len(linear)
    return capacity


def _proof(features: list[Feature], capacity: list[float], scale: float, dimensions: float) -> Proof:
    """Judge the capacities by their formulas; compare `window.judge` and `window.regret`."""
    unit = math.ldexp(1.0, math.frexp(scale)[1])
    tau = scale / unit
    empty, full, loss, slack, price, least, steepest = 0, 0, 0.0, 0.0, 0.0, math.inf, 0.0
    multiplier = 2.0 * tau * tau
    for (v_raw, k, *_), c in zip(features, capacity, strict=True):
        v = min(v_raw / unit, GIANT)
        gamma = 0.5 * (k - 3.0)
        y = 1.0 + gamma * c or 1.0  # κ = 1 and C = 1: numerators vanish as well
        ratio = (k - 1.0) / y
        w = 2.0 * v if c == 1.0 else v * ratio
        marginal = 0.5 * w * w
        if c < 1.0:
            loss += v * (v * (ratio * (1.0 - c)))
            saving = marginal if gamma >= 0.0 else v * v * ratio
            price, steepest = max(price, marginal), max(steepest, saving)
        else:
            full += 1
        if c > 0.0:
            least = min(least, marginal)
        else:
            empty += 1
        # by how much the feature's loss and cost exceed the minimum of both
        if gamma < 0.0:
            slack += max(0.0, v * v * (k - 1.0) - multiplier if c == 0.0 else multiplier - v * v * (k - 1.0))
        elif gamma > 1.0 and not (c == 0.0 and w <= 2.0 * tau) and not (c == 1.0 and w >= 2.0 * tau):
            slack += y / gamma * 0.5 * (w - 2.0 * tau) * (w - 2.0 * tau)
        elif gamma <= 1.0:
            slack += max((multiplier - marginal) * c, (marginal - multiplier) * (1.0 - c))
    used = math.fsum(capacity)
    size = loss + steepest * dimensions
    slack += price * max(0.0, dimensions - used) - outward(0.0, size, len(features))
    return Proof(Totals(used, empty, full, loss, price, least, steepest), unit, dimensions, slack)
