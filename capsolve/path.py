"""The capacity path: the optimal allocation as a function of the budget."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from capsolve._checks import FloatArray, ReadOnlyArrays, at_least, read_only, real_array, scalar
from capsolve.allocation import Allocation, allocate, named
from capsolve.certificate import FINEST_TOLERANCE
from capsolve.losses.quadratic import QuadraticLoss, response_curve
from capsolve.profile import problem_of
from capsolve.solvers.value_function import ValueFunction


@dataclass(frozen=True, eq=False, repr=False)
class CapacityPath(ReadOnlyArrays):
    """Prices and losses for many budgets; capacities on demand.

    ``path[k]`` is the full `Allocation` for ``path.dimensions[k]``, certificate included, solved when asked for.

    Attributes
    ----------
    model : QuadraticLoss
    dimensions : (m,) array
        The budgets, in the order given.
    price, scale, loss : (m,) arrays
        As in `Allocation`: λ = −dL/dD to the right, τ = √(λ/2), and the least loss L(D).
    names : tuple of str or None
        What the features are called.
    """

    model: QuadraticLoss
    dimensions: FloatArray
    price: FloatArray
    scale: FloatArray
    loss: FloatArray
    tolerance: float
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return self.dimensions.size

    def __getitem__(self, k: int) -> Allocation:
        k = operator.index(k)  # a slice would be many allocations: take them one by one
        return named(allocate(self.model, self.dimensions[k], tolerance=self.tolerance), self.names)

    def __iter__(self) -> Iterator[Allocation]:
        return (self[k] for k in range(len(self)))

    @functools.cached_property
    def capacity(self) -> FloatArray:
        """The optimal capacities, shape (m, n), one row per budget; ``path[k].capacity`` computes a single row."""
        capacity = np.stack([allocation.capacity for allocation in self])
        read_only(capacity)
        return capacity

    def __repr__(self) -> str:
        low, high = self.dimensions.min(), self.dimensions.max()
        return f"CapacityPath({self.model.features} features, {len(self)} budgets from {low:g} to {high:g})"


def capacity_path(
    importance: Any, kurtosis: Any = None, dimensions: Any = None, *, bias: bool = True, tolerance: float = 1e-9
) -> CapacityPath:
    """Solve `capsolve.solve` for many budgets.

    With a bias and κ_i ≥ 3 for all i, prices and losses of all budgets together cost one sort of the 2n breakpoints
    in τ at which a feature enters or becomes full. With κ_i < 3 somewhere, or without bias, the budgets
    are solved one by one.

    Parameters
    ----------
    importance, kurtosis, bias, tolerance
        As in `capsolve.solve`, a profile included: ``capacity_path(profile, dimensions=[4, 16, 32])``.
    dimensions : (m,) array
        The budgets D ≥ 0, in any order.

    Raises
    ------
    ValueError
        For bad arguments, naming the argument, the value and the allowed range.

    Examples
    --------
    >>> import capsolve
    >>> path = capsolve.capacity_path([2.0, 1.0, 1.0], 9.0, dimensions=[0.5, 1.0, 2.0])
    >>> path.loss.round(3)
    array([21.926, 12.444,  3.2  ])
    >>> path.capacity.round(3)
    array([[0.417, 0.042, 0.042],
           [0.667, 0.167, 0.167],
           [1.   , 0.5  , 0.5  ]])

    References
    ----------
    arXiv 2210.01892, eqs. 15–18: capacities are piecewise linear in 1/τ.
    """
    importance, kurtosis, names = problem_of(importance, kurtosis, dimensions)
    model = QuadraticLoss(importance, kurtosis, bias).to_numpy()
    budgets = np.array(real_array("dimensions", dimensions, ndim=1))
    if budgets.size == 0:
        raise ValueError("dimensions must have at least one budget, got an empty array")
    at_least("dimensions", budgets, 0.0)
    tolerance = scalar("tolerance", tolerance, low=FINEST_TOLERANCE, high=1.0)
    if model.bias and model.convex and model.saturation_budget > 0.0:
        scale, loss = ValueFunction.of(response_curve(model.importance, model.kurtosis)).at(budgets)
        with np.errstate(over="ignore"):
            price = 2.0 * np.square(scale)
    else:
        solved = [allocate(model, budget, tolerance=tolerance) for budget in budgets]
        scale, price, loss = (np.array([getattr(a, name) for a in solved]) for name in ("scale", "price", "loss"))
    read_only(budgets, price, scale, loss)
    return CapacityPath(model, budgets, price, scale, loss, tolerance, names)
