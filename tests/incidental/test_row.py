"""One row in time: against an integration of every weight from death to death, and against the laws."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import norm

from capsolve.incidental import integrate_row, sparsity_laws


def every_weight(start, penalty, until):
    """Integrate all weights, stopping at each death; return death times and the weights at the end."""
    sign, size, death, time = np.sign(start), np.abs(start), np.full(start.size, np.inf), 0.0
    alive = size > 0
    while time < until and alive.any():
        smallest = np.flatnonzero(alive)[np.argmin(size[alive])]

        def rates(_, w, alive=alive):
            return np.where(alive, (1.0 - (w[alive] ** 2).sum()) * w - penalty, 0.0)

        def dies(_, w, k=smallest):
            return w[k]

        dies.terminal, dies.direction = True, -1
        step = solve_ivp(rates, (time, until), size, events=dies, method="LSODA", rtol=1e-10, atol=1e-13)
        time, size = step.t[-1], step.y[:, -1]
        if step.t_events[0].size:
            death[smallest], size[smallest], alive[smallest] = time, 0.0, False
            alive = alive.copy()
    return death, sign * size


@pytest.mark.parametrize("seed", range(2))
def test_every_death_is_where_an_integration_of_all_weights_finds_it(seed):
    rng = np.random.default_rng(seed)
    start, penalty = rng.normal(size=14) / np.sqrt(14), 0.01
    flow = integrate_row(start, penalty, tolerance=1e-10)
    death, end = every_weight(start, penalty, flow.time[-1] * (1 + 1e-9))
    winner = np.argmax(np.abs(start))
    assert flow.winner == winner
    assert np.isinf(flow.death[winner])
    # the integrations allow 1e-10 per step, over a few hundred steps; between pauses deaths are interpolated
    np.testing.assert_allclose(np.delete(flow.death, winner), np.delete(death, winner), rtol=2e-6)
    np.testing.assert_allclose(flow.weights(), np.where(np.arange(14) == winner, end, 0.0), atol=1e-6)
    assert flow.survivors[0] == 14
    assert flow.survivors[-1] == 1


def test_stopping_early_leaves_the_weights_of_the_full_integration():
    start = np.random.default_rng(7).normal(size=20) / np.sqrt(20)
    start[3] = 0.0
    flow = integrate_row(start, 0.02, until=15.0, tolerance=1e-10)
    death, end = every_weight(start, 0.02, 15.0)
    assert 1 < flow.survivors[-1] < 19
    np.testing.assert_allclose(flow.weights(), end, atol=1e-8)
    np.testing.assert_array_equal(np.isinf(flow.death), np.isinf(death) & (start != 0))
    assert flow.death[3] == 0.0
    assert flow.norm[-1] == pytest.approx(np.abs(end).sum(), abs=1e-8)
    assert flow.square[-1] == pytest.approx((end**2).sum(), abs=1e-8)


def test_a_strong_penalty_leaves_nothing():
    # above 2/√27 = 0.385 the benefit (1 - w²) w of no single weight is as large as the penalty
    start = np.array([0.9, -0.5, 0.1])
    flow = integrate_row(start, 0.5, until=100.0, tolerance=1e-10)
    death, _ = every_weight(start, 0.5, 100.0)
    assert flow.survivors[-1] == 0
    assert not flow.weights().any()
    np.testing.assert_allclose(flow.death, death, rtol=2e-6)


def test_equal_sizes_share_for_ever():
    flow = integrate_row([0.6, -0.6, 0.1], 0.01, until=5000.0)
    assert flow.survivors[-1] == 2
    # two sizes x with (1 - 2x²) x = λ
    x = np.abs(flow.weights()[:2])
    np.testing.assert_allclose((1 - 2 * x**2) * x, 0.01, rtol=1e-5)


def gaussian_row(m):
    """Return the quantiles of N(0, 1/m): a row without the luck of the draw, with signs that alternate."""
    return norm.ppf((np.arange(m) + 0.5) / m) / np.sqrt(m)


def test_slopes_and_laws_of_a_long_row():
    m, penalty = 10**5, 1e-5
    flow = integrate_row(gaussian_row(m)[1:], penalty, tolerance=1e-5)  # the first has a twin
    assert flow.slope("norm") == pytest.approx(-1.0, abs=0.05)
    assert flow.slope("survivors") == pytest.approx(-2.0, abs=0.1)
    assert abs(flow.slope("norm", low=flow.norm[0] / 2, high=flow.norm[0]) + 1.0) > 0.3  # no law yet
    # between the laws for q at the start and for its limit, 2, as q rises; both norms from the same time on
    k = np.flatnonzero(flow.time > 20.0)[0]
    chosen = (flow.norm > 20.0) & (flow.time > flow.time[k])
    assert (np.pi / 2 - 0.01 < flow.shape[chosen]).all()
    assert (flow.shape[chosen] < 2.0).all()
    since = flow.time[chosen] - flow.time[k]
    slow, fast = (sparsity_laws(since, penalty, flow.norm[k], q)[0] for q in (np.pi / 2, 2.0))
    assert (fast < flow.norm[chosen]).all()
    assert (flow.norm[chosen] < slow).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0, 2.0]], 0.1), "weights must have 1 dimension"),
        (([0.0, 0.0], 0.1), "weights must not all be 0"),
        (([1.0, np.nan], 0.1), "weights must be finite, got nan at index 1"),
        (([1.0, 2.0], 0.0), "penalty must be"),
        (([1.0], 0.1), "a single weight is alone from the start"),
        (([0.5, -0.5, 0.1], 0.1), "the 2 largest weights have the same size"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        integrate_row(*arguments)


def test_slopes_need_a_range_that_the_row_passes_through():
    flow = integrate_row([0.5, 0.4, 0.3], 0.01)
    with pytest.raises(ValueError, match="fewer than two times"):
        flow.slope("norm", low=100.0, high=200.0)
    with pytest.raises(ValueError, match="quantity must be"):
        flow.slope("square", low=1.0, high=2.0)
