"""Plain numbers: what arrays say, for a handful of features."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsolve import solve
from capsolve.certificate import NONE, certificate_terms
from capsolve.losses.quadratic import feature_terms, response_curve
from capsolve.solvers.price import solve_knapsack as solve_knapsack_in_arrays
from capsolve.solvers.routes import route_for
from capsolve.solvers.scalar import _at, _curve, scalar_terms, solve_knapsack, solve_scalar
from tests.oracles import NASTY_KURTOSIS, profiles


@given(st.floats(0.01, 100), st.one_of(st.sampled_from(NASTY_KURTOSIS), st.floats(1.0, 300.0)), st.floats(0.01, 100))
def test_curves_are_those_of_arrays(v, k, scale):
    curve, one = response_curve(np.array([v]), np.array([k])), _curve(v, k)
    assert one[:2] == (curve.enter[0], curve.full[0])
    # two forms of one line, whose coefficients are rounded in another order
    assert _at([one], scale)[0] == pytest.approx(curve.at(scale)[0], rel=4e-15, abs=4e-16)


@given(profiles())
def test_the_knapsack_is_that_of_arrays(problem):
    v, k, dimensions = problem
    curves = [_curve(*feature) for feature in zip(v.tolist(), k.tolist(), strict=True)]
    if dimensions >= sum(curve[0] > 0.0 for curve in curves):
        return
    capacity, scale, jump = solve_knapsack(curves, dimensions)
    relaxation = solve_knapsack_in_arrays(response_curve(v, k).take((slice(None), None)), np.array([dimensions]))
    np.testing.assert_allclose(capacity, relaxation.capacity[:, 0], rtol=0, atol=1e-14 * v.size)
    assert scale == pytest.approx(relaxation.scale[0], rel=1e-14)
    if any(jump) or relaxation.jumping.any():
        np.testing.assert_array_equal(np.flatnonzero(jump), np.flatnonzero(relaxation.jumping[:, 0]))


@given(profiles(max_features=6), st.randoms(use_true_random=False), st.floats(0.01, 100.0))
def test_terms_are_those_of_arrays(problem, random, scale):
    """At any capacities, right or wrong: the negative controls of a route are only as good as its terms."""
    v, k, _ = problem
    c = np.array([random.choice([0.0, 1.0, random.random(), 1e-12, 1 - 1e-12]) for _ in range(v.size)])
    unit = 2.0
    mine = scalar_terms(zip(v.tolist(), k.tolist(), strict=True), c.tolist(), scale, unit)
    with np.errstate(all="ignore"):
        each = feature_terms(v / unit, k, c, scale / unit)
        other = certificate_terms(c, each.loss, each.marginal, each.lagrangian_gap)
    # the numbers are products in another order; a gap is a difference of numbers of the size of its terms
    size = float(other.loss) + 2 * (scale / unit) ** 2 * v.size
    for name in mine._fields:
        one, two = float(getattr(mine, name)), float(getattr(other, name))
        atol = 1e-14 * v.size * size if name == "lagrangian_gap" else 0.0
        assert one == pytest.approx(two, rel=1e-13, abs=atol), name


def test_terms_where_nobody_is_active_or_unsaturated():
    features = [(2.0, 9.0), (1.0, 2.0)]
    assert scalar_terms(features, [0.0, 0.0], 1.0, 1.0).min_marginal_active == NONE
    assert scalar_terms(features, [1.0, 1.0], 1.0, 1.0).max_marginal_unsaturated == 0.0


def test_what_plain_numbers_leave_to_arrays():
    assert solve_scalar([(1.0, 9.0), (0.0, 9.0)], 1.0) is None, "nothing is scarce"
    assert solve_scalar([(1.0, 1.5), (0.9, 1.5)], 0.5) is None, "a fractional feature with κ < 3"
    assert solve_scalar([(1.0, 1.5), (0.9, 1.5)], 1.0) == ([1.0, 0.0], pytest.approx(0.45)), "the price of the next bit"


def test_small_problems_take_this_route():
    assert route_for(6).scalar
    assert not route_for(1000).scalar
    assert solve([2, 1, 1, 1, 1, 1], 9.0, 3).capacity.tolist() == pytest.approx([1.0] + [0.4] * 5, abs=1e-15)
