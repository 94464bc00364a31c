"""A handful of features: the same search and certificate as for many, in plain Python numbers.

For six features a call of NumPy costs as much as computing with all of them; this is ten times faster.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np

from capsolve._checks import outward
from capsolve.losses.quadratic import GIANT
from capsolve.solvers.sharing import share_columns
from capsolve.solvers.solution import Proof, Solution
from capsolve.solvers.window import Totals

# Importance and kurtosis, and what `Demand` keeps: enter, full and gain.
Feature = tuple[float, float, float, float, float]


def solve_few(importance: list[float], kurtosis: list[float], dimensions: float) -> Solution | None:
    """Solve a problem with a bias; None if the budget exceeds all demand, or where rounding asks for more care."""
    features = list(map(_feature, importance, kurtosis))
    points = sorted(({f[2] for f in features} | {f[3] for f in features}) - {0.0}, reverse=True)
    if dimensions >= sum([f[2] > 0.0 for f in features]):
        return None

    # The last breakpoint at which Σ C ≤ D; the sum rises along the list and is 0 at its start.
    after = bisect_left(points, True, 1, key=lambda scale: math.fsum(_at(features, scale)) > dimensions)
    scale = points[after - 1]
    below = _at(features, scale)
    jumping = [i for i, f in enumerate(features) if f[2] == f[3] == scale]
    rest = dimensions - math.fsum(below)
    if jumping and rest <= len(jumping):
        concave = [i for i in jumping if features[i][1] < 3.0]
        whole = min(int(rest), len(concave))
        if rest - whole > len(jumping) - len(concave):
            return _shared(features, scale, whole, dimensions)
        # Those with κ < 3 whole, by index, then those with κ ≥ 3 equally.
        capacity = below
        for i in jumping:
            capacity[i] = (rest - whole) / (len(jumping) - len(concave)) if features[i][1] >= 3.0 else 0.0
        for i in concave[:whole]:
            capacity[i] = 1.0
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
        return v, k, v * (0.5 * (k - 1.0)), v, 2.0 / (k - 3.0) if k > 3.0 else 0.0
    step = v * math.sqrt(0.5 * (k - 1.0))
    return v, k, step, step, 0.0


def _at(features: list[Feature], scale: float) -> list[float]:
    """Return the capacities at ``scale``, where nothing has jumped yet; compare `Demand.at`."""
    capacity = []
    for _, _, enter, full, gain in features:
        if scale >= enter:
            share = 0.0
        elif scale <= full:
            share = 1.0
        elif gain < 1.0:
            share = gain * ((enter - scale) / scale)
            share = 1.0 if share > 1.0 else share
        else:
            share = 1.0 - (1.0 + gain) * ((scale - full) / scale)
            share = 0.0 if share < 0.0 else share
        capacity.append(share)
    return capacity


@np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")  # every limit is meant
def _shared(features: list[Feature], scale: float, whole: int, dimensions: float) -> Solution | None:
    """Look at all local optima: the budget ends inside a feature with κ < 3, see `capsolve.solvers.sharing`.

    There capacities are known to an ulp of D: None where that is too much for equal marginal values.
    """
    v, k = np.array([f[:2] for f in features]).T[..., None]
    capacity = share_columns(v, k, np.array([dimensions]), np.array([scale]), np.array([whole]))[:, 0]
    proof = _proof(features, capacity.tolist(), scale, dimensions, optimal=True)
    exact = proof.totals.last >= (1.0 - 1e-12) * proof.totals.price
    return Solution(capacity, proof=proof) if exact else None


def _proof(
    features: list[Feature], capacity: list[float], scale: float, dimensions: float, optimal: bool = False
) -> Proof:
    """Judge the capacities by their formulas; compare `window.judge` and `window.regret`.

    Of capacities that are known to be ``optimal``, the slack is what rounding may have cost.
    """
    unit = math.ldexp(1.0, math.frexp(scale)[1])
    tau = scale / unit
    empty, full, loss, slack, price, least, steepest = 0, 0, 0.0, 0.0, 0.0, math.inf, 0.0
    multiplier = 2.0 * tau * tau
    for (raw, k, _, _, _), c in zip(features, capacity, strict=True):
        v = raw / unit if raw < GIANT * unit else GIANT
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
        if c == 0.0:
            empty += 1
        elif marginal < least:
            least = marginal
        # by how much the feature's loss and cost exceed the minimum of both
        if gamma < 0.0:
            excess = v * v * (k - 1.0) - multiplier
            slack += max(0.0, excess if c == 0.0 else -excess)
        elif gamma <= 1.0:
            slack += max((multiplier - marginal) * c, (marginal - multiplier) * (1.0 - c))
        elif not (c == 0.0 and w <= 2.0 * tau) and not (c == 1.0 and w >= 2.0 * tau):
            slack += y / gamma * 0.5 * (w - 2.0 * tau) * (w - 2.0 * tau)
    if optimal:
        slack = 0.0
    used = math.fsum(capacity)
    size = loss + steepest * dimensions
    slack += price * max(0.0, dimensions - used) - outward(0.0, size, len(features))
    return Proof(Totals(used, empty, full, loss, price, least, steepest), unit, dimensions, slack)
