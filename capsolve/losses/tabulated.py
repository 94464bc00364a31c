"""Loss curves known as numbers: convex, concave, S-shaped, flat, rising, measured or computed.

Every f_i is given by its values on one capacity grid over [0, 1] and is piecewise linear in between. So a
convex problem is a sort of slopes, and any other one differs from it by what its convex envelopes hide
(`capsolve.solvers.tabulated`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from capsolve._checks import FloatArray, ReadOnlyArrays, at_least, capacity_vector, real_array, scalar
from capsolve.losses.curve_grid import LARGEST_LOSS, Curve, sample
from capsolve.losses.envelope import Envelope, IntArray, decreasing_convex_envelopes
from capsolve.losses.model import FormerNames

BLOCK = 1 << 20  # numbers in one temporary table


@dataclass(frozen=True, eq=False, repr=False)
class TabulatedLoss(ReadOnlyArrays, FormerNames):
    """Loss curves sampled on a common capacity grid: L(C) = Σ_i f_i(C_i), each f_i piecewise linear.

    The curves may have any shape. Where more capacity makes a feature worse it is left unused: the budget is
    an upper bound.

    Parameters
    ----------
    curves : (n, g) array, or (g,) array together with ``weight``
        f_i on the grid, one row per feature; or one shape s for all, f_i = w_i · s. Any finite values, any
        sign, in whatever unit the loss has.
    grid : (g,) array, optional
        Capacities (in dimensions) from exactly 0 to exactly 1, strictly increasing; default uniform.
    weight : (n,) array, w_i ≥ 0, optional
        What the one shape is multiplied by. Memory stays at n + g numbers.

    Raises
    ------
    ValueError
        For values that are not finite, a wrong shape, a grid that does not increase from 0 to 1, a negative
        weight, or losses so large or so steep that their sums overflow.

    Examples
    --------
    A feature with diminishing returns and one that is worth having only as a whole:

    >>> import capsolve
    >>> model = capsolve.TabulatedLoss([[1.0, 0.3, 0.0], [1.0, 0.9, 0.0]])
    >>> model.feature_loss([0.25, 0.5])
    array([0.65, 0.9 ])
    >>> capsolve.allocate(model, dimensions=1.5).capacity
    array([0.5, 1. ])

    Notes
    -----
    The cases of arXiv 2210.01892, Fig. 4, are curves of increasing (A, B), constant (C) and diminishing (D,
    E, F) marginal benefit.
    """

    curves: FloatArray
    grid: FloatArray
    weight: FloatArray | None = None

    def __init__(self, curves: Any, grid: Any = None, weight: Any = None) -> None:
        # private copies: a frozen object must not change under its owner
        y = np.array(real_array("curves", curves))
        if y.ndim not in {1, 2} or y.shape[-1] < 2 or y.size == 0:
            raise ValueError(
                f"curves must have shape (features, grid points >= 2) or (grid points >= 2,), got {y.shape}"
            )
        x = np.linspace(0.0, 1.0, y.shape[-1]) if grid is None else np.array(real_array("grid", grid, ndim=1))
        if x.size != y.shape[-1]:
            raise ValueError(f"grid must have one entry per column of curves: {y.shape[-1]} columns, got {x.size}")
        if x[0] != 0.0 or x[-1] != 1.0:
            raise ValueError(f"grid must go from exactly 0 to exactly 1, got {x[0]!s} to {x[-1]!s}")
        if not (x[1:] > x[:-1]).all():
            k = int(np.argmin(x[1:] > x[:-1]))
            raise ValueError(f"grid must increase strictly, got {x[k]!s} then {x[k + 1]!s} at index {k + 1}")
        w = None
        if weight is not None:
            if y.ndim == 2:
                raise ValueError(f"weight goes with a single curve; multiply the rows instead, got curves {y.shape}")
            w = np.array(real_array("weight", weight, ndim=1))
            if w.size == 0:
                raise ValueError("weight must have at least one feature, got an empty array")
            at_least("weight", w, 0.0)
            w.setflags(write=False)
        elif y.ndim == 1:
            raise ValueError("weight is needed with a single curve: one number per feature, e.g. weight=numpy.ones(n)")
        _check_size(y, x, w)
        x.setflags(write=False)
        y.setflags(write=False)
        object.__setattr__(self, "curves", y)
        object.__setattr__(self, "grid", x)
        object.__setattr__(self, "weight", w)

    @classmethod
    def from_callables(
        cls, functions: Curve | Sequence[Curve], *, weight: Any = None, accuracy: float = 1e-6
    ) -> TabulatedLoss:
        """Sample loss curves given as functions, on one grid as fine as the most demanding of them needs.

        Parameters
        ----------
        functions : callable, or sequence of n callables
            Each maps an array of capacities in [0, 1] to an array of losses of the same shape. A single
            callable is the common shape and needs ``weight``.
        weight : (n,) array, optional
            As for `TabulatedLoss`.
        accuracy : float
            Intervals are bisected until every curve differs from its linear interpolant by at most
            ``accuracy`` times its range (largest minus smallest value). Then the losses of the model and of
            the functions differ, for any allocation, by at most ``accuracy`` × the sum of the ranges, and the
            two minima too. This is an estimate, not a proof: it is tested at three points in each interval,
            of 64 to begin with, so a spike narrower than about 1/200 can be missed; between the test points a
            convex or concave curve with kinks can exceed it by up to 41 %.

        Raises
        ------
        ValueError
            When a function returns another shape, NaN or infinities; when it jumps, or is so steep that an
            interval has been bisected 40 times (a width of 1e-14) and still fails; or when 100,000 grid
            points, or 2·10⁷ values in all, are not enough. √C is resolved to 1e-7, a jump never is.

        Examples
        --------
        >>> import numpy as np
        >>> import capsolve
        >>> model = capsolve.TabulatedLoss.from_callables([lambda c: (1 - c) ** 2, lambda c: np.exp(-c)])
        >>> capsolve.allocate(model, dimensions=0.5).capacity.round(2)
        array([0.5, 0. ])
        """
        accuracy = scalar("accuracy", accuracy, low=1e-12, high=0.5)
        if callable(functions):
            if weight is None:
                raise ValueError("weight is needed with a single callable: one number per feature")
            grid, values = sample([functions], accuracy)
            return cls(values[0], grid, weight)
        if weight is not None:
            raise ValueError("weight goes with a single callable, got a sequence")
        chosen = list(functions)
        strange = [i for i, function in enumerate(chosen) if not callable(function)]
        if strange:
            what = type(chosen[strange[0]]).__name__
            raise ValueError(f"functions must be callables, got {what} at index {strange[0]}")
        if not chosen:
            raise ValueError("functions must have at least one callable, got an empty sequence")
        grid, values = sample(chosen, accuracy)
        return cls(values, grid)

    @property
    def features(self) -> int:
        """The number of features, n."""
        return self.curves.shape[0] if self.weight is None else self.weight.size

    @functools.cached_property
    def convex(self) -> bool:
        """Whether every curve is convex up to its minimum: then equal marginal loss is all there is to an optimum."""
        return not bool(self.envelope.gapped(np.zeros_like(self.envelope.length), self.envelope.length).any())

    @functools.cached_property
    def saturation_budget(self) -> float:
        """The sum of the smallest minimisers of the curves: capacity beyond that is left unused."""
        return float(np.sum(self.response(0.0)))

    @functools.cached_property
    def floor(self) -> float:
        """The loss with unlimited dimensions, Σ_i min f_i."""
        return math.fsum((self.multiplier * self.shapes.min(axis=1)[self.shape_of]).tolist())

    def feature_loss(self, capacity: Any) -> FloatArray:
        """Return f_i(C_i), shape (n,)."""
        return self.multiplier * interpolate(
            self.grid, self.shapes, self.shape_of, capacity_vector(capacity, self.features)
        )

    def excess_loss(self, capacity: Any) -> FloatArray:
        """Return f_i(C_i) − min f_i, shape (n,)."""
        c = capacity_vector(capacity, self.features)
        return self.multiplier * interpolate(self.grid, self.above_minimum, self.shape_of, c)

    def marginal(self, capacity: Any, *, growing: bool = True) -> FloatArray:
        """Return −f_i'(C_i), shape (n,): on the right, or on the left if not ``growing``.

        Beyond the ends of the grid, at C = 1 on the right and C = 0 on the left, the last segment is
        continued.
        """
        return self.multiplier * self._fall(capacity_vector(capacity, self.features), growing)

    def average_gain(self, capacity: Any) -> FloatArray:
        """Return max over C' > C_i of (f_i(C_i) − f_i(C')) / (C' − C_i), shape (n,), 0 where C_i = 1.

        The best average saving that more capacity could bring, attained on the grid or just beyond C_i.
        """
        c = capacity_vector(capacity, self.features)
        value = interpolate(self.grid, self.above_minimum, self.shape_of, c)
        best = self._fall(c, growing=True)
        cell = np.searchsorted(self.grid, c, side="right")
        rows = max(1, BLOCK // self.grid.size)
        for block in (slice(k, k + rows) for k in range(0, c.size, rows)):
            later = np.arange(self.grid.size) > cell[block, None]
            saving = value[block, None] - self.above_minimum[self.shape_of[block]]
            distance = np.where(later, self.grid - c[block, None], 1.0)
            best[block] = np.max(np.where(later, saving / distance, best[block, None]), axis=1)
        return np.where(c == 1.0, 0.0, self.multiplier * best)

    def marginal_curve(self, feature: int, capacity: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the segments and the marginal values on them, which jump between."""
        fall = -np.diff(self.shapes[self.shape_of[feature]]) / np.diff(self.grid)
        return np.repeat(self.grid, 2)[1:-1], self.multiplier[feature] * np.repeat(fall, 2)

    def response(self, price: float) -> FloatArray:
        """Return the capacities that minimise L(C) + price · ΣC, the smallest where several do, (n,)."""
        price = scalar("price", price, low=0.0)
        return self.envelope.capacity(self.envelope.state(price))

    def lagrangian_gap(self, capacity: Any, price: float) -> FloatArray:
        """Return by how much f_i(C_i) + price · C_i exceeds its least value, the convex envelope's; shape (n,)."""
        price = scalar("price", price, low=0.0)
        c = capacity_vector(capacity, self.features)
        state = self.envelope.state(price)
        least = self.multiplier * self.envelope.loss(state) + price * self.envelope.capacity(state)
        gap: FloatArray = np.maximum(0.0, self.excess_loss(c) + price * c - least)
        return gap

    def normalised(self, capacity: FloatArray) -> tuple[TabulatedLoss, float]:
        """Return an equivalent model whose loss above its floor is of order one at ``capacity``, and a unit.

        Losses of this model are those of the other times the square of the unit, a power of two. The model
        itself is returned unless its losses are outlandishly large or small.
        """
        c = capacity_vector(capacity, self.features)
        size = float(np.max(self.excess_loss(c)))
        if size == 0.0 or 1e-100 < size < 1e100:
            return self, 1.0
        # an even power, so that the unit is a power of two; not so low that other features' losses overflow
        largest = float(np.max(self.multiplier * np.abs(self.shapes).max(axis=1)[self.shape_of]))
        exponent = max(math.frexp(size)[1], math.frexp(largest)[1] - 900) // 2
        if self.weight is None:
            scaled = TabulatedLoss(np.ldexp(self.curves, -2 * exponent), self.grid)
        else:
            scaled = TabulatedLoss(self.curves, self.grid, np.ldexp(self.weight, -2 * exponent))
        return scaled, math.ldexp(1.0, exponent)

    @property
    def shapes(self) -> FloatArray:
        """The distinct curves, shape (k, g): feature i's is row ``shape_of[i]`` times ``multiplier[i]``."""
        return self.curves if self.weight is None else self.curves[None, :]

    @functools.cached_property
    def shape_of(self) -> IntArray:
        """Which row of `shapes` belongs to each feature, shape (n,)."""
        return np.arange(self.features) if self.weight is None else np.zeros(self.features, dtype=np.intp)

    @functools.cached_property
    def multiplier(self) -> FloatArray:
        """The weights, or ones; shape (n,)."""
        return np.ones(self.features) if self.weight is None else self.weight

    @functools.cached_property
    def above_minimum(self) -> FloatArray:
        """`shapes` minus the minimum of each, so that large constant parts cost no digits."""
        above: FloatArray = self.shapes - self.shapes.min(axis=1, keepdims=True)
        return above

    @functools.cached_property
    def hulls(self) -> list[FloatArray]:
        """The convex envelopes of `above_minimum` over [0, 1], as `decreasing_convex_envelopes` describes them."""
        return decreasing_convex_envelopes(self.grid, self.above_minimum)

    @functools.cached_property
    def envelope(self) -> Envelope:
        """The convex envelopes of all features."""
        return Envelope(self.hulls, self.shape_of, self.multiplier)

    def _fall(self, c: FloatArray, growing: bool) -> FloatArray:
        """Return minus the slopes of the shapes, before they are multiplied by the weights."""
        k = np.searchsorted(self.grid, c, side="right" if growing else "left") - 1
        k = np.clip(k, 0, self.grid.size - 2)
        fall: FloatArray = self.shapes[self.shape_of, k] - self.shapes[self.shape_of, k + 1]
        return fall / (self.grid[k + 1] - self.grid[k])

    def __repr__(self) -> str:
        kind = "one curve each" if self.weight is None else "one shape, weighted"
        return f"TabulatedLoss({self.features} features, {kind}, {self.grid.size} grid points)"


def interpolate(grid: FloatArray, shapes: FloatArray, row: IntArray, capacity: FloatArray) -> FloatArray:
    """Return shape ``row[i]`` at ``capacity[i]``: exact on the grid, never outside its segment's ends."""
    k = np.clip(np.searchsorted(grid, capacity, side="right") - 1, 0, grid.size - 2)
    low, high = shapes[row, k], shapes[row, k + 1]
    t = (capacity - grid[k]) / (grid[k + 1] - grid[k])
    return np.where(t <= 0.5, low + t * (high - low), high - (1.0 - t) * (high - low))


def _check_size(curves: FloatArray, grid: FloatArray, weight: FloatArray | None) -> None:
    """Reject losses whose sum, or whose slopes, would overflow."""
    each = np.max(np.abs(curves), axis=-1)
    with np.errstate(over="ignore"):
        total = float(np.sum(each)) if weight is None else float(each * np.sum(weight))
    if not (np.max(each) <= LARGEST_LOSS and total <= LARGEST_LOSS):
        raise ValueError(
            f"curves must sum to at most {LARGEST_LOSS:g} in size, got {max(total, np.max(each)):g}; "
            "divide them by a common factor"
        )
    with np.errstate(over="ignore"):
        steepest = float(np.max(np.abs(np.diff(curves) / np.diff(grid))))
    steepest *= 1.0 if weight is None else max(1.0, float(np.max(weight)))
    if not steepest <= LARGEST_LOSS:
        raise ValueError(
            f"curves must not fall by more than {LARGEST_LOSS:g} per dimension, got {steepest:g}; "
            f"the smallest step of the grid is {np.diff(grid).min():g}"
        )
