"""The capacity path against single solves."""

import copy

import numpy as np
import pytest
from hypothesis import given

import capsolve
from tests.oracles import profiles


@given(profiles(convex=True))
def test_every_point_of_the_path_is_a_solve(problem):
    v, k, dimensions = problem
    budgets = np.append(np.arange(v.size + 2.0), dimensions)
    path = capsolve.capacity_path(v, k, budgets)
    for i in range(budgets.size):
        single = path[i]
        size = single.loss + single.price * min(budgets[i], v.size) if budgets[i] else single.loss
        if not (0 < size < np.inf):
            continue
        # a relative error of 1e-14 in a knot's budget costs that much of price · D
        assert abs(path.loss[i] - single.loss) <= 1e-12 * size
        if single.scale > 1e-150 and budgets[i] >= 1e-9:
            assert path.scale[i] == pytest.approx(single.scale, rel=1e-9)


def test_mixed_kurtosis_and_no_bias_are_solved_one_by_one():
    rng = np.random.default_rng(0)
    v, budgets = rng.random(9), [0.5, 8.0, 3.3]
    for k, bias in ((rng.uniform(1, 9, 9), True), (rng.uniform(3, 9, 9), False)):
        path = capsolve.capacity_path(v, k, budgets, bias=bias)
        for i, budget in enumerate(budgets):
            single = capsolve.solve(v, k, budget, bias=bias)
            assert (path.price[i], path.loss[i], path.scale[i]) == (single.price, single.loss, single.scale)
            np.testing.assert_array_equal(path[i].capacity, single.capacity)


def test_loss_falls_and_price_falls_along_the_path():
    rng = np.random.default_rng(1)
    path = capsolve.capacity_path(rng.lognormal(size=300), 3 + rng.exponential(9, 300), np.linspace(0, 301, 2000))
    assert (np.diff(path.loss) <= 0).all()
    assert (np.diff(path.price) <= 0).all()
    assert path.loss[-1] == path.price[-1] == 0.0


def test_the_price_is_minus_the_slope_of_the_loss():
    rng = np.random.default_rng(2)
    v, k = rng.lognormal(size=50), 3 + rng.exponential(9, 50)
    budgets, h = rng.uniform(1, 49, 20), 1e-5
    path = capsolve.capacity_path(v, k, budgets)
    slope = (capsolve.capacity_path(v, k, budgets - h).loss - capsolve.capacity_path(v, k, budgets + h).loss) / (2 * h)
    np.testing.assert_allclose(path.price, slope, rtol=1e-5)


@pytest.mark.parametrize("budgets", [[], [[1.0]], [-1.0], [np.nan], ["a"], 1.0])
def test_bad_budgets(budgets):
    with pytest.raises(ValueError, match="dimensions"):
        capsolve.capacity_path([1.0, 2.0], 5.0, budgets)


def test_an_all_zero_profile_has_a_path():
    assert (capsolve.capacity_path([0.0, 0.0], 5.0, [0.0, 1.0]).loss == 0.0).all()


def test_budgets_above_the_demand():
    path = capsolve.capacity_path([0.014753090612119426], [3.1], [1.0, 4.0])
    assert not path.loss.any()
    assert not path.scale.any()


def test_indices_are_single_and_tolerances_sane():
    path = capsolve.capacity_path([2.0, 1.0], 9.0, [0.5, 1.0])
    assert len(list(path)) == len(path) == 2
    with pytest.raises(TypeError):
        path[0:1]
    with pytest.raises(ValueError, match="tolerance"):
        capsolve.capacity_path([2.0, 1.0], 9.0, [0.5], tolerance=-1)


def test_capacities_are_an_array_with_a_row_per_budget_as_in_every_other_answer():
    path = capsolve.capacity_path([2.0, 1.0, 1.0], 9.0, [0.5, 1.0])
    assert path.capacity.shape == (2, 3)
    assert not path.capacity.flags.writeable
    assert not copy.deepcopy(path).capacity.flags.writeable
    for k, allocation in enumerate(path):
        np.testing.assert_array_equal(path.capacity[k], allocation.capacity)


def test_a_profile_gives_its_names_to_every_allocation():
    path = capsolve.capacity_path(capsolve.Profile([2.0, 1.0], 9.0, ["a", "a"]), dimensions=[0.5, 1.0])
    assert [allocation.names for allocation in path] == [("a", "a")] * 2
    np.testing.assert_array_equal(path.loss, capsolve.capacity_path([2.0, 1.0], 9.0, [0.5, 1.0]).loss)
