"""Which way is taken, for which sizes, with and without compiled code."""

import subprocess
import sys

import numpy as np
import pytest

from capsolve import QuadraticLoss, allocate
from capsolve.solvers import routes
from capsolve.solvers.quadratic import solve_quadratic
from capsolve.solvers.routes import SCALAR, route_for
from capsolve.solvers.sources import NumPySource
from tests.routes import LOCAL


def test_routes_by_size(monkeypatch):
    """Compiled code is loaded for many features only, and used from a handful on once it is."""
    monkeypatch.delitem(sys.modules, "capsolve.solvers.numba_source", raising=False)
    assert route_for(1) is route_for(100) is SCALAR
    assert route_for(101) is routes.NUMPY
    assert route_for(101).source is NumPySource
    monkeypatch.undo()
    pytest.importorskip("numba")
    from capsolve.solvers.numba_source import NumbaSource

    assert route_for(100_000).source is NumbaSource
    assert route_for(12) is SCALAR
    assert route_for(13).source is NumbaSource


def test_without_numba_large_problems_are_numpys():
    """In a process of its own, where Numba cannot be imported."""
    program = """
import sys
sys.modules["numba"] = None
import numpy as np, capsolve
from capsolve.solvers import routes
rng = np.random.default_rng(0)
allocation = capsolve.solve(rng.lognormal(size=100_000), 3 + rng.exponential(20, 100_000), 5000)
assert routes.route_for(100_000) is routes.NUMPY
print(allocation.status.value)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "optimal"


def test_a_route_is_a_value():
    v, k = np.array([2.0, 1.0, 0.5]), np.array([9.0, 2.0, 3.0])
    for name, make in LOCAL.items():
        given = allocate(QuadraticLoss(v, k), 1.5, route=make())
        found = solve_quadratic(QuadraticLoss(v, k), 1.5, make())
        np.testing.assert_array_equal(given.capacity, found.capacity, err_msg=name)
