"""Which way a problem with a bias is solved, and up to which sizes: the one table of limits, and the one that chooses.

Whatever the way, the answer is the same; the limits were measured on two cores (``python -m benchmarks solve``).
"""

from __future__ import annotations

import functools
import logging
import sys
from dataclasses import dataclass, field

from capsolve.solvers.sources import LocalKind, NumPySource

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Sizes that decide how the search for the price goes about its work, measured with 10⁴ to 10⁷ features."""

    newton: int = 1 << 17
    """Up to so many features Newton's method is tried first: beyond, a sample saves the copies that it makes."""
    least_newton: int = 13
    """Fewer are solved in plain numbers, and where not, Newton's method has nothing to add."""
    few: int = 256
    """So few features are all free where the budget ends inside a jump."""
    free: int = 32
    """So few free features are solved by sorting their breakpoints: sorting 16,384 would take as long as a pass."""
    all_free: int = 1 << 14
    """Up to so many features all are free: beyond, passes over the data are faster than sorting."""
    sample: int = 1 << 11
    """Features in a sample, at least; of many as many as cost as much as the free ones that they save."""
    rough: int = 1 << 10
    """Features in the sample of the sample that starts the search."""
    confidence: float = 4.0
    """Standard errors of the sample on either side of the interval: one in 10⁴ misses."""
    narrowest: float = 1e-9
    """Below this relative width of the interval, rounding decides which features are free."""


@dataclass(frozen=True)
class Route:
    """A way to the optimum of problems with a bias. All lead to the same answers and the same certificates."""

    name: str
    scalar: bool = False
    """In plain Python numbers, where these are enough."""
    source: LocalKind = NumPySource
    """The kind of source for NumPy arrays."""
    limits: Limits = field(default_factory=Limits)


SCALAR = Route("plain numbers", scalar=True)
NUMPY = Route("NumPy")
# Up to so many features plain Python is faster than NumPy, and than compiled code where that is loaded.
SCALAR_FEATURES, SCALAR_BESIDE_COMPILED = 100, 12
# Beyond so many compiled passes over all features are faster than steps of Newton's.
NEWTON_COMPILED = 1 << 16
# From so many on compiled passes save more time than it takes to import Numba within a few calls.
COMPILED_FEATURES = 100_000


def route_for(features: int, *, loaded: bool | None = None) -> Route:
    """Return the fastest route for NumPy arrays of so many features, if compiled code is loaded or not."""
    if loaded is None:
        loaded = "capsolve.solvers.numba_source" in sys.modules
    if features <= (SCALAR_BESIDE_COMPILED if loaded else SCALAR_FEATURES):
        return SCALAR
    return compiled_route() or NUMPY if loaded or features >= COMPILED_FEATURES else NUMPY


@functools.cache
def compiled_route() -> Route | None:
    """Return the route through compiled passes; None without Numba."""
    try:
        from capsolve.solvers.numba_source import NumbaSource  # noqa: PLC0415  (imports Numba, for half a second)
    except Exception as reason:
        logger.debug("no compiled code: %r", reason)
        return None
    return Route("Numba", source=NumbaSource, limits=Limits(newton=NEWTON_COMPILED))
