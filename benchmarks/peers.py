"""Other ways to the same capacities, each written as its user would, and the floor under them all."""

from __future__ import annotations

import numba
import numpy as np
from scipy import optimize

from benchmarks.instances import Problem
from capsolve._checks import FloatArray


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _write(v, kurtosis, u, out):
    for i in numba.prange(v.size):
        excess = kurtosis[i] - 3.0
        share = (v[i] * u * (kurtosis[i] - 1.0) - 2.0) / excess
        whole = v[i] * u * np.sqrt(0.5 * (kurtosis[i] - 1.0))
        out[i] = min(max(share, 0.0), 1.0) if excess > 0.0 else (1.0 if max(whole, v[i] * u) > 1.0 else 0.0)


def floor(v: FloatArray, kurtosis: FloatArray, scale: float, out: FloatArray) -> FloatArray:
    """Write the capacities at a price that is already known: one parallel pass, no check, no certificate."""
    _write(v, kurtosis, 1.0 / scale, out)
    return out


@numba.njit(cache=True, error_model="numpy")
def _used(v, kurtosis, u):
    total = slope = 0.0
    for i in range(v.size):
        rate = v[i] * (kurtosis[i] - 1.0) / (kurtosis[i] - 3.0)
        share = rate * u - 2.0 / (kurtosis[i] - 3.0)
        total += min(max(share, 0.0), 1.0)
        slope += rate if 0.0 < share < 1.0 else 0.0
    return total, slope


@numba.njit(cache=True, error_model="numpy")
def _newton(v, kurtosis, dimensions, out):
    total = slope = 0.0
    for i in range(v.size):  # the start: the price at which everybody is between the bounds
        slope += v[i] * (kurtosis[i] - 1.0) / (kurtosis[i] - 3.0)
        total += 2.0 / (kurtosis[i] - 3.0)
    u = (dimensions + total) / slope
    low, high = 0.0, np.inf
    for _ in range(100):
        total, slope = _used(v, kurtosis, u)
        if abs(total - dimensions) <= 1e-14 * dimensions:
            break
        if total < dimensions:
            low = u
        else:
            high = u
        step = u + (dimensions - total) / slope if slope > 0.0 else 2.0 * u
        u = step if low < step < high else (0.5 * (low + high) if high < np.inf else 2.0 * u)
    for i in range(v.size):
        share = (v[i] * u * (kurtosis[i] - 1.0) - 2.0) / (kurtosis[i] - 3.0)
        out[i] = min(max(share, 0.0), 1.0)


def semismooth_newton(problem: Problem) -> FloatArray:
    """Semismooth Newton on the dual (Cominetti, Mascarenhas & Silva 2014), compiled, one thread."""
    out = np.empty_like(problem.importance)
    _newton(problem.importance, problem.kurtosis, problem.dimensions, out)
    return out


def _dual(problem: Problem) -> tuple[FloatArray, FloatArray]:
    v, k, _ = problem
    return v * (k - 1.0) / (k - 3.0), 2.0 / (k - 3.0)


def brentq(problem: Problem) -> FloatArray:
    """SciPy's brentq on the dual equation in u = 1/τ, written in NumPy."""
    return _root(problem, optimize.brentq)


def toms748(problem: Problem) -> FloatArray:
    """SciPy's toms748 on the same equation."""
    return _root(problem, optimize.toms748)


def _root(problem: Problem, method) -> FloatArray:
    v, k, dimensions = problem
    slope, offset = _dual(problem)
    low, high = 1.0 / np.max(0.5 * v * (k - 1.0)), 1.0 / np.min(v)
    u = method(lambda u: np.clip(slope * u - offset, 0.0, 1.0).sum() - dimensions, low, high, xtol=1e-300, rtol=1e-15)
    return np.clip(slope * u - offset, 0.0, 1.0)


def breakpoint_sort(problem: Problem) -> FloatArray:
    """Sort all breakpoints, accumulate the slopes, interpolate: NumPy."""
    v, k, dimensions = problem
    slope, offset = _dual(problem)
    at = np.concatenate([2.0 / (v * (k - 1.0)), 1.0 / v])
    order = np.argsort(at)
    at, change = at[order], np.concatenate([slope, -slope])[order]
    rate = np.cumsum(change)
    used = np.concatenate([[0.0], np.cumsum(rate[:-1] * np.diff(at))])
    i = np.searchsorted(used, dimensions) - 1
    u = at[i] + (dimensions - used[i]) / rate[i]
    return np.clip(slope * u - offset, 0.0, 1.0)


def clarabel(problem: Problem) -> FloatArray:
    """CVXPY with Clarabel on the equivalent quadratic programme, the form that suits it best."""
    import cvxpy as cp

    v, k, dimensions = problem
    w = v * (k - 1.0)
    c = cp.Variable(v.size)
    cost = cp.sum(cp.multiply(1.0 / w, c)) + 0.5 * cp.sum(cp.multiply(0.5 * (k - 3.0) / w, cp.square(c)))
    cp.Problem(cp.Minimize(cost), [cp.sum(c) == dimensions, c >= 0.0, c <= 1.0]).solve(solver="CLARABEL")
    return np.clip(c.value, 0.0, 1.0)


def clarabel_as_written(problem: Problem) -> FloatArray:
    """CVXPY with Clarabel on the loss as it is written in the paper, which needs a cone for each feature."""
    import cvxpy as cp

    v, k, dimensions = problem
    gamma = 0.5 * (k - 3.0)
    c = cp.Variable(v.size)
    loss = cp.sum(cp.multiply(v**2 * (k - 1.0) * (1.0 + 1.0 / gamma), cp.inv_pos(1.0 + cp.multiply(gamma, c))))
    cp.Problem(cp.Minimize(loss), [cp.sum(c) <= dimensions, c >= 0.0, c <= 1.0]).solve(solver="CLARABEL")
    return np.clip(c.value, 0.0, 1.0)


def slsqp(problem: Problem) -> FloatArray:
    """SciPy's SLSQP on the loss with its gradient."""
    return _minimise(problem, "SLSQP", {"ftol": 1e-15, "maxiter": 1000})


def trust_constr(problem: Problem) -> FloatArray:
    """SciPy's trust-constr on the loss with its gradient and Hessian."""
    return _minimise(problem, "trust-constr", {"gtol": 1e-10, "xtol": 1e-12, "maxiter": 2000})


def _minimise(problem: Problem, method: str, options: dict[str, float]) -> FloatArray:
    v, k, dimensions = problem
    gamma, weight = 0.5 * (k - 3.0), v**2 * (k - 1.0)
    second = (
        {}
        if method == "SLSQP"
        else {"hess": lambda c: np.diag(weight * (1 + gamma) * 2 * gamma / (1 + gamma * c) ** 3)}
    )
    found = optimize.minimize(
        lambda c: np.sum(weight * (1.0 - c) / (1.0 + gamma * c)),
        np.full(v.size, dimensions / v.size),
        jac=lambda c: -weight * (1.0 + gamma) / (1.0 + gamma * c) ** 2,
        bounds=optimize.Bounds(0.0, 1.0, keep_feasible=method != "SLSQP"),
        constraints=optimize.LinearConstraint(np.ones(v.size), dimensions, dimensions),
        method=method,
        options=options,
        **second,
    )
    return np.clip(found.x, 0.0, 1.0)


# The largest problem that each peer is asked for: more would take minutes, or more memory than there is.
PEERS = {
    "semismooth Newton, Numba": (semismooth_newton, 10**7),
    "SciPy brentq": (brentq, 10**7),
    "SciPy toms748": (toms748, 10**7),
    "breakpoint sort": (breakpoint_sort, 10**7),
    "CVXPY + Clarabel": (clarabel, 10**5),
    "CVXPY + Clarabel, loss as written": (clarabel_as_written, 10**5),
    "SciPy SLSQP": (slsqp, 10**2),
    "SciPy trust-constr": (trust_constr, 10**2),
}
