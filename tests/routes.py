"""Every way to the optimum of the quadratic loss with a bias, as a value: what tests are parametrised over.

``ROUTES[name](v, k, dimensions)`` solves one problem by that route and returns its `capsolve.Allocation`. Each route is
forced: however small a problem is, it goes through plain numbers, Newton's method, all breakpoints, or samples and
brackets, whatever `capsolve.solvers.routes.route_for` would choose. Where a route needs a library that is not
installed, calling it skips the test.

``LOCAL[name]()`` is the `Route` itself, for those that `capsolve.allocate` takes; ``BRACKETED`` are the names of those
that go through samples and brackets, a handful of features at a time. Capacities come in the kind of array that the
route works on: `capacity_of` makes them NumPy's.
"""

import functools
from collections.abc import Callable

import numpy as np
import pytest

from capsolve import Allocation, QuadraticLoss, allocate, solve, solve_batch
from capsolve._arrays import to_numpy
from capsolve.solvers.routes import SCALAR, Limits, Route
from capsolve.solvers.sources import NumPySource

Solve = Callable[[np.ndarray, np.ndarray, float], Allocation]

NEWTON = Limits(newton=1 << 62)  # by Newton's method where it finds the price
EVERYTHING = Limits(newton=0, all_free=1 << 62)  # among all breakpoints, however many features there are
# bracketed from tiny samples, down to one feature
HARDLY_ANY = Limits(newton=0, free=1, all_free=0, sample=16, rough=4)


class SmallBlocks(NumPySource):
    """NumPy in blocks of a few features, so that small problems have several."""

    BLOCK = 7


def numba_source() -> type[NumPySource]:
    pytest.importorskip("numba")
    from capsolve.solvers.numba_source import NumbaSource

    return NumbaSource


LOCAL: dict[str, Callable[[], Route]] = {
    "plain numbers": lambda: SCALAR,
    "NumPy, Newton": lambda: Route("NumPy, Newton", limits=NEWTON),
    "NumPy, all breakpoints": lambda: Route("NumPy, all breakpoints", limits=EVERYTHING),
    "NumPy, bracketed": lambda: Route("NumPy, bracketed", limits=HARDLY_ANY),
    "NumPy, small blocks": lambda: Route("NumPy, small blocks", source=SmallBlocks, limits=HARDLY_ANY),
    "Numba, Newton": lambda: Route("Numba, Newton", source=numba_source(), limits=NEWTON),
    "Numba, all breakpoints": lambda: Route("Numba, all breakpoints", source=numba_source(), limits=EVERYTHING),
    "Numba, bracketed": lambda: Route("Numba, bracketed", source=numba_source(), limits=HARDLY_ANY),
}
BRACKETED = ("NumPy, bracketed", "NumPy, small blocks", "Numba, bracketed")


def by(name: str, v: np.ndarray, k: np.ndarray, dimensions: float) -> Allocation:
    """Solve by a route that `allocate` takes."""
    return allocate(QuadraticLoss(v, k), dimensions, route=LOCAL[name]())


def array_api_strict(column: np.ndarray) -> object:
    return pytest.importorskip("array_api_strict").asarray(np.asarray(column, np.float64))


def torch(column: np.ndarray) -> object:
    return pytest.importorskip("torch").asarray(np.array(column, np.float64))


def jax(v: np.ndarray, k: np.ndarray, dimensions: float) -> Allocation:
    """Solve in JAX, where float64 exists in a context only; what depends on the data is asked for there."""
    with pytest.importorskip("jax").enable_x64(True):
        xp = pytest.importorskip("jax.numpy")
        allocation = solve(xp.asarray(v, xp.float64), xp.asarray(k, xp.float64), dimensions)
        assert allocation.status, "now it is known"
        return allocation


def in_arrays(kind: Callable[[np.ndarray], object], v: np.ndarray, k: np.ndarray, dimensions: float) -> Allocation:
    """Solve in the arrays of another library, all features in one block."""
    return solve(kind(v), kind(k), dimensions)


def in_chunks(v: np.ndarray, k: np.ndarray, dimensions: float) -> Allocation:
    """Solve in Dask arrays of three chunks or so."""
    array = pytest.importorskip("dask.array")
    length = -(-np.size(v) // 3)
    chunks = [array.from_array(np.asarray(column, np.float64), chunks=length) for column in (v, k)]
    with pytest.importorskip("dask").config.set(scheduler="synchronous"):
        return solve(*chunks, dimensions)


def in_a_batch(v: np.ndarray, k: np.ndarray, dimensions: float) -> Allocation:
    """Solve as the first of two problems, the other one having half the budget and the features in reverse."""
    v, k = np.asarray(v, np.float64), np.asarray(k, np.float64)
    return solve_batch([v, v[::-1]], [k, k[::-1]], [dimensions, dimensions / 2])[0]


ROUTES: dict[str, Solve] = {
    **{name: functools.partial(by, name) for name in LOCAL},
    "array API": functools.partial(in_arrays, array_api_strict),
    "torch": functools.partial(in_arrays, torch),
    "JAX": jax,
    "Dask": in_chunks,
    "batch": in_a_batch,
}
# JAX takes seconds to compile for each new length: not for random problems.
QUICK = {name: route for name, route in ROUTES.items() if name != "JAX"}


def capacity_of(allocation: Allocation) -> np.ndarray:
    """Return the capacities as a NumPy array."""
    return to_numpy(allocation.capacity)
