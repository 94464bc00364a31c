"""What every solver returns."""

from __future__ import annotations

import math
from dataclasses import dataclass

from capsolve._checks import FloatArray


@dataclass(frozen=True)
class Solution:
    """Capacities, and what the solver has proved about them.

    ``gap`` is (loss − proved lower bound) / (loss − floor), infinite where the solver claims nothing beyond what the
    Lagrangian of the model shows by itself: for convex losses that is everything. It is relative, because the
    loss itself may over- or underflow where capacities are perfectly well behaved.
    """

    capacity: FloatArray
    gap: float = math.inf
    boxes: int = 1
