"""What solvers return: the units that its numbers count in are the same for all of them."""

import math

import numpy as np
import pytest

from capsolve import QuadraticLoss, TabulatedLoss
from capsolve.solvers.quadratic import solve_quadratic
from capsolve.solvers.separable import solve_separable
from capsolve.solvers.tabulated import solve_tabulated
from tests.routes import LOCAL

V, K = np.array([3.0, 2.0, 1.0, 0.5, 0.25]), np.array([9.0, 4.0, 30.0, 9.0, 4.0])
CURVES = np.linspace(1.0, 0.0, 9) ** 2 * np.array([[4.0], [2.0], [1.0]])


def solutions(unit):
    model, tables = QuadraticLoss(unit * V, K), TabulatedLoss(unit * unit * CURVES)
    for make in LOCAL.values():
        yield model, solve_quadratic(model, 2.3, make()), 2.3
    yield model, solve_quadratic(QuadraticLoss(unit * V, K), 2.3), 2.3
    yield model, solve_separable(model, 2.3), 2.3
    yield tables, solve_tabulated(tables, 1.3, 1e-9), 1.3


@pytest.mark.parametrize("unit", [2.0**-300, 1.0, 2.0**300])
def test_numbers_count_in_the_unit(unit):
    for model, solution, dimensions in solutions(unit):
        terms, c = solution.terms, solution.capacity
        assert math.frexp(solution.unit)[0] == 0.5, "a power of two"
        loss = float(model.feature_loss(c).sum())
        assert terms.loss * solution.unit**2 == pytest.approx(loss, rel=1e-13)
        marginal = model.marginal(c)[c < 1.0].max()
        assert terms.max_marginal_unsaturated * solution.unit**2 == pytest.approx(marginal, rel=1e-12)
        assert terms.used == pytest.approx(dimensions, rel=1e-14)
        assert (terms.empty, terms.full) == (np.count_nonzero(c == 0), np.count_nonzero(c == 1))
        price = 2 * (solution.multiplier * solution.unit) ** 2
        last = model.marginal(c, growing=False)[c > 0.0].min()
        assert marginal * (1 - 1e-12) <= price <= last * (1 + 1e-12), "any price between what is next and what is last"
        assert solution.proved <= 1e-14 * terms.loss, "convex losses have no duality gap"
