"""What the answer really is: the same equations in extended precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.instances import Problem

LongArray = np.ndarray[Any, np.dtype[np.longdouble]]


def reference(problem: Problem) -> LongArray:
    """Return the capacities of a problem with κ > 3 from Newton's method in np.longdouble (64-bit mantissa on x86).

    In u = 1/τ the used capacity is increasing and piecewise linear: Newton's iteration, kept in a bracket, ends on the
    exact piece.
    """
    v, k = problem.importance.astype(np.longdouble), problem.kurtosis.astype(np.longdouble)
    if not (k > 3).all():
        raise ValueError("the reference is for κ > 3")
    slope, offset = v * (k - 1) / (k - 3), 2 / (k - 3)
    low, high = 1 / np.max(v * (k - 1) / 2), 1 / np.min(v)
    u = np.longdouble(1 / np.quantile(problem.importance * (problem.kurtosis - 1) / 2, 0.5))
    for _ in range(200):
        capacity = np.clip(slope * u - offset, 0, 1)
        excess = capacity.sum() - np.longdouble(problem.dimensions)
        low, high = (u, high) if excess < 0 else (low, u)
        steepness = slope[(capacity > 0) & (capacity < 1)].sum()
        step = u - excess / steepness if steepness > 0 else low - 1
        following = step if low <= step <= high else (low + high) / 2
        if following == u or high - low <= 4 * np.finfo(np.longdouble).eps * u:
            break
        u = following
    return capacity
