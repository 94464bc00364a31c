"""What every solver returns."""

from __future__ import annotations

import math
from dataclasses import dataclass

from capsolve._checks import FloatArray
from capsolve.solvers.window import Totals


@dataclass(frozen=True)
class Proof:
    """What is known about capacities, by the model alone; importances count in ``unit``, losses in its square."""

    totals: Totals
    unit: float
    budget: float  # what of the budget can be of use
    slack: float  # no allocation of the budget has a loss smaller by more


@dataclass(frozen=True)
class Solution:
    """Capacities, and what the solver has proved about them.

    ``gap`` is (loss − proved lower bound) / (loss − floor), infinite where the solver claims nothing beyond what the
    Lagrangian of the model shows by itself: for convex losses that is everything. It is relative, because the
    loss itself may over- or underflow where capacities are perfectly well behaved. With a ``proof`` there is nothing
    left to be evaluated.
    """

    capacity: FloatArray
    gap: float = math.inf
    boxes: int = 1
    proof: Proof | None = None
