"""Two independent routes to the least loss, which know neither prices nor capsolve's solvers.

The loss of an embedding depends on the squared norms m_i and the capacities C_i of its rows alone (arXiv 2210.01892,
eqs. 9-12); with the bias at its optimum

    L = Σ (κ_i−1)(v_i−m_i)² + 2 m_i² (1/C_i − 1)         and without one  + (Σ (v_i−m_i))²,

and C may be anything in [0, 1]ⁿ with Σ C_i ≤ D.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from capsolve._checks import FloatArray

# What Clarabel is asked for, in units of the loss at C = 0: near the limit of what it reaches in double precision, and
# what it hardly ever fails to reach.
_TOLERANCES = (1e-11, 1e-9)
_GRID = 129
_ZOOMS = 6
_BISECTIONS = 60


def convex_programme(v: FloatArray, k: FloatArray, dimensions: float, bias: bool) -> tuple[float, float]:
    """Return the least loss as a generic convex solver finds it, CVXPY with Clarabel, and the tolerance it kept.

    The tolerance is that of the duality gap and of the constraints, in units of the loss at C = 0.

    For κ_i ≥ 3 the loss above is jointly convex in (m_i, C_i), 2 m²/C being a rotated cone and (κ−3) m² a square, and
    is minimised as it stands, over both. A feature with κ_i < 3 enters with its convex envelope instead, the chord
    v_i²(κ_i−1)(1 − C_i); then the value is a lower bound on the least loss, and only where no chord is used in its
    inner part the least loss itself.

    Raises `ValueError` when Clarabel finds no solution.
    """
    import cvxpy  # noqa: PLC0415

    cp: Any = cvxpy  # its functions are partly typed
    if not v.any():
        return 0.0, 0.0
    unit = float(v.max())
    v = v / unit
    curved = np.flatnonzero(k >= 3.0)
    chord = np.flatnonzero(k < 3.0)
    size = float(loss_at_zero(v, k, bias)) or 1.0
    C = cp.Variable(v.size)
    terms = [cp.sum(cp.multiply((k - 1.0)[chord] * v[chord] ** 2, 1.0 - C[chord]))] if chord.size else []
    limits = [C >= 0.0, C <= 1.0]
    if dimensions < v.size:
        # Constraints are kept to a tolerance relative to the largest number in any of them, which must not be D.
        largest = max(1.0, dimensions)
        limits.append(cp.sum(C) / largest <= dimensions / largest)
    if curved.size:
        vc, kc = v[curved], k[curved]
        m, ratio = cp.Variable(curved.size), cp.Variable(curved.size)
        limits.append(cp.SOC(ratio + C[curved], cp.vstack([2.0 * m, ratio - C[curved]])))  # ratio · C ≥ m²
        terms.append(cp.sum(cp.multiply(kc - 3.0, cp.square(m))) + 2.0 * cp.sum(ratio))
        terms.append(cp.sum(cp.multiply((kc - 1.0) * vc, vc - 2.0 * m)))
        if not bias:
            terms.append(cp.square(vc.sum() - cp.sum(m)))
    problem = cp.Problem(cp.Minimize(sum(terms) / size), limits)
    for tolerance in _TOLERANCES:
        wanted = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tolerance)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # says in words what the status says
            try:
                problem.solve(solver=cp.CLARABEL, **wanted)
            except cp.SolverError as error:
                raise ValueError(f"Clarabel: {error}") from None
        if problem.status == cp.OPTIMAL:
            return float(problem.value) * size * unit * unit, tolerance
    raise ValueError(f"Clarabel ended with status {problem.status}")


def exhaustive(v: FloatArray, k: FloatArray, dimensions: float) -> float:
    """Return the least loss, with a bias, by trying every choice of features with κ_i < 3.

    Of two features with concave losses that share, one gains more than the other loses when capacity is moved: at most
    one of them is fractional. Each possible one, each number of full ones (those with the largest v_i²(κ_i−1), which is
    what a full feature saves) and each of its capacities on a grid that is refined around the best is tried; the others
    share the rest by bisection on their common marginal loss.
    """
    unit = float(v.max()) or 1.0
    v = v / unit
    curved, concave = k >= 3.0, (k < 3.0) & (k > 1.0)  # at κ = 1 nothing is lost
    saved = (v**2 * (k - 1.0))[concave]
    order = np.argsort(-saved, kind="stable")
    v_low, k_low, saved = v[concave][order], k[concave][order], saved[order]
    total = float(saved.sum())
    best = math.inf
    for full in range(min(saved.size, math.floor(dimensions)) + 1):
        left = dimensions - full
        # without a fractional one
        best = min(best, total - float(saved[:full].sum()) + float(_shared(v[curved], k[curved], left)))
        if full == saved.size or left == 0.0:
            continue
        # With j fractional the full ones are the first of the others.
        fixed = np.array([total - saved[j] - np.delete(saved, j)[:full].sum() for j in range(saved.size)])
        vj, kj = v_low[:, None], k_low[:, None]
        low, high = np.zeros(saved.size), np.full(saved.size, min(1.0, left))
        for zoom in range(_ZOOMS):
            c = np.linspace(low, high, _GRID, axis=-1)
            rest = _shared(v[curved], k[curved], np.maximum(left - c, 0.0))
            own = vj**2 * (kj - 1.0) * (1.0 - c) / (1.0 + (kj - 3.0) / 2.0 * c)
            values = fixed[:, None] + own + rest
            best = min(best, float(values.min()))
            if zoom == 0:
                # Both parts are monotone, so no value inside a cell is below the sum of their ends.
                hopeful = np.min(own[:, 1:] + rest[:, :-1], axis=-1) + fixed < best
                if not hopeful.any():
                    break
                vj, kj, fixed, values, c = (part[hopeful] for part in (vj, kj, fixed, values, c))
            i = np.argmin(values, axis=-1)
            rows = np.arange(i.size)
            low, high = c[rows, np.maximum(i - 1, 0)], c[rows, np.minimum(i + 1, _GRID - 1)]
    return best * unit * unit


def loss_at_zero(v: FloatArray, k: FloatArray, bias: bool) -> float:
    """Return the loss of an embedding of zeros, or infinity."""
    with np.errstate(over="ignore"):
        return float(np.sum((k - 1.0) * v**2) + (0.0 if bias else np.sum(v) ** 2))


def _shared(v: FloatArray, k: FloatArray, budget: FloatArray | float) -> FloatArray:
    """Return the least loss of features with κ ≥ 3, v > 0 or not, for each budget (of any shape)."""
    budget = np.asarray(budget, dtype=float)
    k, v = k[v > 0.0], v[v > 0.0]
    if v.size == 0:
        return np.zeros(budget.shape)
    gamma = (k - 3.0) / 2.0

    def capacity(marginal: FloatArray) -> FloatArray:  # its root, over √2: v (κ−1) / 2 / (1 + γC) = marginal
        room = v * (k - 1.0) / 2.0 / marginal[..., None] - 1.0
        inside = room / np.where(gamma > 0.0, gamma, 1.0)
        result: FloatArray = np.where(gamma > 0.0, np.clip(inside, 0.0, 1.0), room >= 0.0)
        return result

    low = np.full(budget.shape, math.log(float(v.min())) - 1.0)
    high = np.full(budget.shape, math.log(float((v * (k - 1.0) / 2.0).max())) + 1.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        enough = capacity(np.exp(middle)).sum(axis=-1) >= budget
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    # Between the two ends only linear losses (κ = 3, or nearly) move by more than rounding: interpolation is exact.
    much, little = capacity(np.exp(low)), capacity(np.exp(high))
    gain = much.sum(axis=-1) - little.sum(axis=-1)
    share = np.clip((budget - little.sum(axis=-1)) / np.where(gain > 0.0, gain, 1.0), 0.0, 1.0)
    c = little + share[..., None] * (much - little)
    loss: FloatArray = np.sum(v**2 * (k - 1.0) * (1.0 - c) / (1.0 + gamma * c), axis=-1)
    return loss
