"""What every solver returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from capsolve.certificate import CertificateTerms


@dataclass(frozen=True)
class Solution:
    """Capacities, and what a solver has found out about them; importances count in ``unit``, losses in its square.

    The terms are those of all features at these capacities, for the price 2 · ``multiplier``². ``proved`` is by how
    much a lower bound that the solver has proved exceeds the Lagrangian bound at that price.
    """

    capacity: Any
    terms: CertificateTerms
    multiplier: float
    unit: float = 1.0
    proved: float = 0.0
    boxes: int = 1
