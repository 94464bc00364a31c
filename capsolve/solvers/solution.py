"""What every solver returns."""

from __future__ import annotations

from dataclasses import dataclass

from capsolve._checks import FloatArray


@dataclass(frozen=True)
class Solution:
    """Capacities and how far they can be from the optimum, as the solver sees it.

    ``gap`` is (loss − proved lower bound) / (loss − floor): relative, because the loss itself may over- or
    underflow where capacities are perfectly well behaved.
    """

    capacity: FloatArray
    gap: float
    boxes: int = 1
