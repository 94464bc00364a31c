"""Independent routes to the optimum, and profiles that are hard on a solver. Nothing here uses a capsolve solver."""

import itertools

import mpmath
import numpy as np
from hypothesis import strategies as st

NASTY_KURTOSIS = [
    1.0,
    1.0 + 1e-12,
    1.5,
    2.9,
    3 - 1e-12,
    3.0,
    3 + 1e-15,
    3 + 1e-12,
    3 + 1e-7,
    3.1,
    9.0,
    100.0,
    1e6,
    1e12,
]


def feature_loss(v, k, c):
    """Return f_i(C_i), written from the formula with no care for extremes."""
    return v**2 * (k - 1) * (1 - c) / (1 + (k - 3) / 2 * c)


@st.composite
def profiles(draw, *, convex=None, max_features=12):
    """Draw (importance, kurtosis, dimensions): equal, wide-ranging, tied or ordinary, with the budget anywhere."""
    n = draw(st.integers(1, max_features))
    positive = draw(
        st.sampled_from(
            [
                st.just(1.0),
                st.floats(-150, 150).map(lambda e: 10.0**e),
                st.sampled_from([0.0, 0.5, 1.0, 2.0]),
                st.floats(0.1, 10.0),
                st.floats(1.0, 1.0 + 1e-6),
            ]
        )
    )
    v = np.array(draw(st.lists(positive, min_size=n, max_size=n)))
    low = 3.0 if convex else 1.0
    kurtosis = st.one_of(st.sampled_from([k for k in NASTY_KURTOSIS if k >= low]), st.floats(low, 300.0))
    k = np.array(draw(st.lists(kurtosis, min_size=n, max_size=n)))
    budget = st.one_of(
        st.sampled_from([0.0, 1e-300, 1e-9, 0.5, 1.0, max(0.0, n - 1e-12), float(n), n + 1.0, n / 2]),
        st.floats(0.0, float(n)),
    )
    return v, k, draw(budget)


def exact_convex(v, k, dimensions, digits=50):
    """Return (capacities, τ, loss) for κ ≥ 3 in mpmath arithmetic: sort breakpoints, find the piece, interpolate."""
    with mpmath.workdps(digits):
        v, k = [mpmath.mpf(float(x)) for x in v], [mpmath.mpf(float(x)) for x in k]
        budget = mpmath.mpf(float(dimensions))
        wanting = [i for i in range(len(v)) if v[i] > 0]
        if budget >= len(wanting):
            return [mpmath.mpf(x > 0) for x in v], mpmath.mpf(0), mpmath.mpf(0)

        def capacity(i, tau, jumped):
            if v[i] == 0:
                return mpmath.mpf(0)
            if k[i] == 3:
                return mpmath.mpf(v[i] >= tau if jumped else v[i] > tau)
            return min(mpmath.mpf(1), max(mpmath.mpf(0), (v[i] * (k[i] - 1) / tau - 2) / (k[i] - 3)))

        knots = sorted({x for i in wanting for x in (v[i], v[i] * (k[i] - 1) / 2)}, reverse=True)
        upper = [mpmath.mpf(0)] * len(v)  # the sum is 0 at the first knot
        for j, knot in enumerate(knots):
            tau = knot
            before = [capacity(i, tau, False) for i in range(len(v))]
            after = [capacity(i, tau, True) for i in range(len(v))]
            if sum(before) > budget:
                share = (budget - sum(upper)) / (sum(before) - sum(upper))
                c = [a + share * (b - a) for a, b in zip(upper, before, strict=True)]
                tau = 1 / ((1 - share) / knots[j - 1] + share / tau)
                break
            if sum(after) > budget:
                jump = [a - b for a, b in zip(after, before, strict=True)]
                share = (budget - sum(before)) / sum(jump)
                c = [a + share * b for a, b in zip(before, jump, strict=True)]
                break
            upper = after
        loss = sum(v[i] ** 2 * (k[i] - 1) * (1 - c[i]) / (1 + (k[i] - 3) / 2 * c[i]) for i in range(len(v)))
        return c, tau, loss


def clarabel_convex(v, k, dimensions):
    """Return the capacities for κ ≥ 3 and a binding budget from CVXPY with Clarabel.

    Equal marginal loss, v(κ−1)/(1+γC) = const, is also the optimality condition of the quadratic programme
    min Σ (C + γC²/2)/(v(κ−1)) subject to ΣC = D, 0 ≤ C ≤ 1, which interior-point solvers like better than ratios.
    """
    import cvxpy as cp

    weight = v * (k - 1)
    weight = weight / np.median(weight)
    c = cp.Variable(v.size)
    objective = cp.sum(cp.multiply(1 / weight, c) + cp.multiply((k - 3) / 4 / weight, cp.square(c)))
    problem = cp.Problem(cp.Minimize(objective), [c >= 0, c <= 1, cp.sum(c) == dimensions])
    problem.solve(solver=cp.CLARABEL)
    return np.clip(c.value, 0.0, 1.0)


def convex_loss(v, k, budgets):
    """Return the least loss of features with κ ≥ 3 for each budget: bisection on log τ, then interpolation."""
    budgets = np.asarray(budgets, dtype=float)
    if v.size == 0:
        return np.zeros_like(budgets)
    low = np.full(budgets.shape, np.log(v.min()) - 1.0)
    high = np.full(budgets.shape, np.log((v * (k - 1) / 2).max()) + 1.0)

    def at(log_tau):
        r = v / np.exp(log_tau)[..., None]
        ramp = 1.0 - (1.0 - r) * (k - 1) / np.where(k > 3, k - 3, 1.0)
        return np.where(k > 3, np.clip(ramp, 0.0, 1.0), r >= 1.0)

    for _ in range(60):
        middle = (low + high) / 2
        enough = at(middle).sum(axis=-1) >= budgets
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    c_low, c_high = at(low), at(high)
    gain = c_low.sum(axis=-1) - c_high.sum(axis=-1)
    share = np.clip((budgets - c_high.sum(axis=-1)) / np.where(gain > 0, gain, 1.0), 0.0, 1.0)
    c = c_high + share[..., None] * (c_low - c_high)
    return feature_loss(v, k, c).sum(axis=-1)


def brute_force(v, k, dimensions):
    """Return the least loss over all on/off sets of the features with κ < 3, at most one of them fractional."""
    concave = np.flatnonzero(k < 3)
    convex = np.flatnonzero(k >= 3)
    best = np.inf
    for on in itertools.product([False, True], repeat=concave.size):
        full = set(concave[list(on)])
        left = dimensions - len(full)
        if left < 0:
            continue
        off = [i for i in concave if i not in full]
        best = min(best, feature_loss(v[off], k[off], 0.0).sum() + float(convex_loss(v[convex], k[convex], left)))
        for j in off:
            rest = [i for i in off if i != j]
            constant = feature_loss(v[rest], k[rest], 0.0).sum()
            low, high = 0.0, min(1.0, left)
            for _ in range(6):  # zoom into the best of a grid: coarse first, so that no valley is missed
                c = np.linspace(low, high, 129)
                values = constant + feature_loss(v[j], k[j], c) + convex_loss(v[convex], k[convex], left - c)
                i = int(np.argmin(values))
                best = min(best, values[i])
                low, high = c[max(i - 1, 0)], c[min(i + 1, c.size - 1)]
    return float(best)
