"""A handful of features: the same answer and certificate as for many, in plain Python numbers: ten times faster."""

from __future__ import annotations

import math

import numpy as np

from capsolve._checks import outward
from capsolve.losses.quadratic import GIANT
from capsolve.solvers.price import fill_few
from capsolve.solvers.sharing import share_columns
from capsolve.solvers.solution import Proof, Solution
from capsolve.solvers.window import Totals

# Importance and kurtosis.
Feature = tuple[float, float]


def solve_few(importance: list[float], kurtosis: list[float], dimensions: float) -> Solution | None:
    """Solve a problem with a bias; None if the budget exceeds all demand, or where rounding asks for more care."""
    features = list(zip(importance, kurtosis, strict=True))
    curves = [_curve(v, k) for v, k in features]
    if dimensions >= sum([curve[0] > 0.0 for curve in curves]):
        return None
    capacity, scale, jump, _ = fill_few(curves, dimensions)
    if any(jump):
        concave = [i for i, (_, k) in enumerate(features) if jump[i] and k < 3.0]
        linear = [i for i, (_, k) in enumerate(features) if jump[i] and k >= 3.0]
        rest = dimensions - math.fsum([c for c, extra in zip(capacity, jump, strict=True) if not extra])
        whole = min(int(rest), len(concave))
        if rest - whole > len(linear):
            return _shared(features, scale, whole, dimensions)
        for place, i in enumerate(concave):
            capacity[i] = 1.0 if place < whole else 0.0
        for i in linear:
            capacity[i] = (rest - whole) / len(linear)
    return Solution(np.array(capacity), proof=_proof(features, capacity, scale, dimensions))


def _curve(v: float, k: float) -> tuple[float, float, float, float]:
    """Compare `demand_of`."""
    if k >= 3.0:
        return v * (0.5 * (k - 1.0)), v, 2.0 / (k - 3.0) if k > 3.0 else 0.0, 1.0
    step = v * math.sqrt(0.5 * (k - 1.0))
    return step, step, 0.0, 1.0


@np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")  # every limit is meant
def _shared(features: list[Feature], scale: float, whole: int, dimensions: float) -> Solution | None:
    """Look at all local optima: the budget ends inside a feature with κ < 3, see `capsolve.solvers.sharing`.

    There capacities are known to an ulp of D: None where that is too much for equal marginal values.
    """
    v, k = np.array(features).T[..., None]
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
    for (raw, k), c in zip(features, capacity, strict=True):
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
