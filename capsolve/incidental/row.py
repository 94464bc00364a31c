r"""One row of weights under feature benefit and an L1 penalty: who survives, and when the others die.

.. math:: \frac{dw_k}{dt} = (1 - |w|^2)\, w_k - \lambda \operatorname{sign} w_k, \qquad w_k = 0 \text{ stays } 0

All weights grow by a common factor e^A, and all that are alive are pushed down alike, so differences between sizes grow
by the same factor: |w_j| - |w_k| = e^A (|w_j(0)| - |w_k(0)|). A row of any length is therefore two numbers, the largest
size x and the growth A, with

.. math:: \frac{dx}{dt} = (1 - |w|^2)\, x - \lambda, \qquad \frac{dA}{dt} = 1 - |w|^2

and a weight is alive as long as it started less than x e^{-A} behind the largest. |w|² and |w|₁ over the survivors are
differences of prefix sums over the sorted start. No death is missed, however long the steps are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from capsolve._checks import FloatArray, former_function, real_array, scalar


@dataclass(frozen=True, eq=False, repr=False)
class RowFlow:
    """A row of weights in time.

    Attributes
    ----------
    start : (m,) array
        The weights at time 0.
    penalty : float
        λ.
    time : (k,) array
        Where the integration paused, from 0 to the end.
    largest : (k,) array
        max |w_k|.
    growth : (k,) array
        A, the logarithm of how far differences between sizes have grown.
    survivors : (k,) integer array
        m', the number of weights that are not yet 0.
    norm : (k,) array
        |w|₁.
    square : (k,) array
        |w|².
    winner : int
        The neuron that started with the largest size; the last to die if any survives.
    """

    start: FloatArray
    penalty: float
    time: FloatArray
    largest: FloatArray
    growth: FloatArray
    survivors: Any
    norm: FloatArray
    square: FloatArray
    winner: int

    @property
    def shape(self) -> FloatArray:
        """Return q = m' |w|²/|w|₁², shape (k,): 1 for equal sizes, π/2 for Gaussian ones, 2 for exponential ones."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.survivors * self.square / self.norm**2)

    @property
    def death(self) -> FloatArray:
        """Return when each weight reaches 0, shape (m,); infinite for those that are alive at the end."""
        from scipy.interpolate import CubicHermiteSpline  # noqa: PLC0415

        order = np.argsort(-np.abs(self.start), kind="stable")
        dead = order[self.survivors[-1] :]
        behind = np.abs(self.start[order[0]]) - np.abs(self.start[dead])
        reach = self.largest * np.exp(-self.growth)  # falls at the rate λ e^{-A}
        falls = np.flatnonzero(np.append(True, np.diff(reach) < 0.0))[::-1]
        found = np.full(self.start.shape, np.inf)
        if falls.size > 1:
            when = CubicHermiteSpline(reach[falls], self.time[falls], -np.exp(self.growth[falls]) / self.penalty)
            found[dead] = when(np.clip(behind, reach[falls[0]], reach[falls[-1]]))
        found[self.start == 0.0] = 0.0
        return np.asarray(found)

    def weights(self) -> FloatArray:
        """Return the weights at the end, shape (m,)."""
        size = np.abs(self.start)
        behind = (size.max() - size) * math.exp(min(self.growth[-1], 700.0))
        order = np.argsort(-size, kind="stable")
        found = np.sign(self.start) * np.maximum(self.largest[-1] - behind, 0.0)
        found[order[self.survivors[-1] :]] = 0.0
        return np.asarray(found)

    def slope(self, quantity: str, low: float = 10.0, high: float | None = None) -> float:
        r"""Return d log y / d log t by least squares, where |w|₁ is between ``low`` and ``high``.

        ``quantity`` is ``"norm"`` (|w|₁, law -1) or ``"survivors"`` (m', law -2). They are power laws once the start is
        forgotten and before few weights are left: by default from an eighth of the largest |w|₁ down to 10.
        """
        high = float(self.norm.max()) / 8.0 if high is None else high
        if quantity not in ("norm", "survivors"):
            raise ValueError(f"quantity must be 'norm' or 'survivors', got {quantity!r}")
        inside = (self.norm >= low) & (self.norm <= high) & (self.time > 0.0)
        if np.unique(self.norm[inside]).size < 2:
            raise ValueError(
                f"|w|₁ is between {low:g} and {high:g} at fewer than two times: it goes from "
                f"{self.norm[0]:g} to {self.norm[-1]:g}"
            )
        # between equal distances of log t, not between pauses, which crowd where weights die
        log_t = np.log(self.time[inside])
        even = np.linspace(log_t[0], log_t[-1], 200)
        values = np.interp(even, log_t, np.log(getattr(self, quantity)[inside]))
        return float(np.polyfit(even, values, 1)[0])

    def __repr__(self) -> str:
        return (
            f"RowFlow({self.start.size:,} weights, penalty {self.penalty:g}: {self.survivors[-1]} left at time "
            f"{self.time[-1]:g}, |w|₁ from {self.norm[0]:.4g} to {self.norm[-1]:.4g})"
        )


def integrate_row(weights: Any, penalty: float, *, until: float | None = None, tolerance: float = 1e-6) -> RowFlow:
    """Follow a row of weights under feature benefit and L1 penalty, without interference from other rows.

    Parameters
    ----------
    weights : array_like, shape (m,)
        The start, not all 0. The flow in the full model starts from N(0, 1/m).
    penalty : float
        λ > 0: the coefficient of |w|₁ in the flow, a quarter of that in the summed loss of the full model.
    until : float, optional
        Time to stop at. By default when at most one weight is left.
    tolerance : float
        Relative error allowed per step.

    Returns
    -------
    RowFlow

    Raises
    ------
    ValueError
        For weights that are not a vector of finite numbers or all 0, numbers out of range, or two largest weights
        of the same size without ``until``: neither would win.

    Notes
    -----
    O(m log m) for the sort, then O(log m) per evaluation of an implicit method (Radau, SciPy), as |w|² settles at a
    rate of 2 while sparsification takes times of 1/λ. On one core a Gaussian row of a million weights takes about ten
    seconds.

    Examples
    --------
    >>> import numpy as np
    >>> flow = integrate_row([0.5, -0.6, 0.3], penalty=0.01)
    >>> flow.survivors, flow.winner
    (array([3, ..., 1]), 1)
    >>> flow.death.round(1)
    array([153.7,   inf,  53.1])

    References
    ----------
    arXiv 2312.03096; the laws for |w|₁ and m' are proved in ``derivations/incidental.py``.
    """
    from scipy.integrate import solve_ivp  # noqa: PLC0415

    w = real_array("weights", weights, ndim=1)
    if not w.any():
        raise ValueError("weights must not all be 0")
    lam = scalar("penalty", penalty, low=np.finfo(float).tiny)
    rtol = scalar("tolerance", tolerance, low=1e-13, high=1e-2)
    row = _Row(np.sort(np.abs(w))[::-1], lam)
    if until is None:
        if row.behind.size == 1:
            raise ValueError("a single weight is alone from the start: give until")
        if row.ties > 1:
            raise ValueError(f"the {row.ties} largest weights have the same size, so none wins: give until")
    end = math.inf if until is None else scalar("until", until, low=np.finfo(float).tiny)
    solution = solve_ivp(
        row.slope,
        (0.0, end),
        [row.top, 0.0],
        method="Radau",
        jac=row.jacobian,
        events=[row.empty, row.alone] if until is None else [row.empty],
        rtol=rtol,
        atol=[1e-3 * rtol * row.top, rtol],
    )
    if not solution.success:
        raise ArithmeticError(f"the integration failed at time {solution.t[-1]:g}: {solution.message}")
    sums = [row.sums(*z) for z in solution.y.T]
    if solution.t_events[0].size:  # where an event is, rounding must not decide what is left
        sums[-1] = 0, 0.0, 0.0
    elif until is None:
        sums[-1] = 1, solution.y[0, -1], solution.y[0, -1] ** 2
    survivors, norm, square = (np.array(column) for column in zip(*sums, strict=True))
    winner = int(np.argmax(np.abs(w)))
    return RowFlow(w, lam, solution.t, solution.y[0], solution.y[1], survivors, norm, square, winner)


class _Row:
    """The right-hand side: x and A in, their rates out."""

    def __init__(self, size: FloatArray, penalty: float) -> None:
        self.penalty, self.top = penalty, float(size[0])
        self.behind = size[0] - size[size > 0.0]
        self.ties = int(np.count_nonzero(self.behind == 0.0))
        self.first = np.append(0.0, np.cumsum(self.behind))
        self.second = np.append(0.0, np.cumsum(self.behind**2))

    def sums(self, x: float, growth: float) -> tuple[int, float, float]:
        """Return the number of survivors, |w|₁ and |w|²."""
        if x <= 0.0:
            return 0, 0.0, 0.0
        p = int(np.searchsorted(self.behind, x * math.exp(-growth)))
        if p <= self.ties:  # and no difference to grow
            return self.ties, self.ties * x, self.ties * x * x
        factor = math.exp(growth)
        first, second = factor * self.first[p], factor**2 * self.second[p]
        return p, p * x - first, p * x * x - 2.0 * x * first + second

    def slope(self, _: float, state: FloatArray) -> list[float]:
        x, growth = state
        square = self.sums(x, growth)[2]
        return [(1.0 - square) * x - self.penalty, 1.0 - square]

    def jacobian(self, _: float, state: FloatArray) -> list[list[float]]:
        x, growth = state
        _, norm, square = self.sums(x, growth)
        by_x, by_growth = -2.0 * norm, 2.0 * (x * norm - square)
        return [[1.0 - square + by_x * x, by_growth * x], [by_x, by_growth]]

    def alone(self, _: float, state: FloatArray) -> float:
        """Change sign when the last but one dies."""
        return float(self.behind[1] * math.exp(min(state[1], 700.0)) - state[0])

    def empty(self, _: float, state: FloatArray) -> float:
        """Change sign when the largest dies."""
        return float(state[0])

    alone.terminal = empty.terminal = True  # type: ignore[attr-defined]


follow_row = former_function("follow_row", integrate_row)
