"""The quadratic loss: its formulas, its limits, its units and its bad input."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsolve import QuadraticLoss
from capsolve.losses.model import is_loss_model
from capsolve.losses.quadratic import column_sum, ratio, response_curve, solve_saddle, trace_of
from tests.oracles import NASTY_KURTOSIS, feature_loss

kurtoses = st.one_of(st.sampled_from(NASTY_KURTOSIS), st.floats(1.0, 1e6))


def best_row_length(v, k, c):
    """Return the minimiser of (κ−1)(v−m)² + 2m²(1/C−1) over m, from its normal equation."""
    return (k - 1) * v / ((k - 1) + 2 * ((1 - c) / c))


def test_satisfies_the_interface():
    assert is_loss_model(QuadraticLoss([1.0], 4.0))
    for other in (QuadraticLoss, np.ones(3), "quadratic", None):
        assert not is_loss_model(other)


@given(st.floats(0.1, 10), kurtoses, st.floats(0.0, 1.0))
def test_loss_is_the_formula(v, k, c):
    if k == 1.0 and c == 1.0:
        return
    expected = feature_loss(v, k, c)
    assert QuadraticLoss([v], k).feature_loss([c])[0] == pytest.approx(expected, rel=1e-13, abs=1e-300)


@given(st.floats(0.1, 10), kurtoses, st.floats(1e-3, 1.0))
def test_row_length_minimises_the_expected_loss(v, k, c):
    if k == 1.0:
        return
    m = QuadraticLoss([v], k).squared_norm([c])[0]
    assert m == pytest.approx(best_row_length(v, k, c), rel=1e-12)
    value = (k - 1) * (v - m) ** 2 + 2 * m**2 * ((1 - c) / c)
    assert QuadraticLoss([v], k).feature_loss([c])[0] == pytest.approx(value, rel=1e-9, abs=1e-13 * v * v * k)


@given(st.floats(0.1, 10), st.floats(1.1, 100), st.floats(0.05, 0.95))
def test_marginal_is_minus_the_slope(v, k, c):
    model, h = QuadraticLoss([v], k), 1e-5
    slope = (model.feature_loss([c - h])[0] - model.feature_loss([c + h])[0]) / (2 * h)
    # central difference: error h²/6 · f''' ≤ h² γ² f' plus rounding eps · f / h
    assert model.marginal([c])[0] == pytest.approx(slope, rel=1e-10 * (k + 3) ** 2 + 1e-8)


def test_without_bias_the_parts_add_up_to_the_loss_minimised_over_row_lengths():
    rng = np.random.default_rng(5)
    for _ in range(50):
        n = 6
        v, k, c = rng.random(n), rng.uniform(3, 20, n), rng.uniform(0.01, 1, n)
        model = QuadraticLoss(v, k, bias=False)
        # minimise Σ(κ−1)(v−m)² + 2m²(1/C−1) + (Σ(v−m))² over m: one linear system
        hessian = np.diag((k - 1) + 2 * ((1 - c) / c)) + 1.0
        m = np.linalg.solve(hessian, (k - 1) * v + v.sum())
        loss = np.sum((k - 1) * (v - m) ** 2 + 2 * m**2 * ((1 - c) / c)) + np.sum(v - m) ** 2
        assert model.trace(c) == pytest.approx(np.sum(v - m), rel=1e-12)
        np.testing.assert_allclose(model.squared_norm(c), m, rtol=1e-12)
        assert model.feature_loss(c).sum() == pytest.approx(loss, rel=1e-12)
        h = 1e-6
        for i in range(n):
            step = np.zeros(n)
            step[i] = h
            if c[i] + h > 1:
                continue
            slope = (model.feature_loss(c - step).sum() - model.feature_loss(c + step).sum()) / (2 * h)
            assert model.marginal(c)[i] == pytest.approx(slope, rel=1e-5, abs=1e-8)


@given(
    st.floats(0.1, 10),
    st.one_of(st.sampled_from([3.0, 2.0, 1.5]), st.floats(1.01, 100)),
    st.floats(1e-3, 1e3),
)
def test_response_minimises_loss_plus_price(v, k, price):
    model = QuadraticLoss([v], k)
    c = model.response(price)
    grid = np.linspace(0, 1, 2001)
    everywhere = feature_loss(v, k, grid) + price * grid
    here = model.feature_loss(c)[0] + price * c[0]
    assert here <= everywhere.min() + 1e-12 * (v * v * k + price)


def test_average_gain_is_the_best_mean_saving():
    for k in (1.5, 2.9, 3.0, 5.0):
        model, c = QuadraticLoss([2.0], k), 0.3
        further = np.linspace(c, 1, 10_001)[1:]
        mean = (model.feature_loss([c])[0] - feature_loss(2.0, k, further)) / (further - c)
        assert model.average_gain([c])[0] == pytest.approx(mean.max(), rel=1e-3)
        assert model.average_gain([c])[0] >= mean.max() * (1 - 1e-12)


def test_limits_of_kurtosis():
    c = np.array([0.25])
    assert QuadraticLoss([1.0], 1.0).feature_loss(c)[0] == 0.0  # x² is a constant: the bias knows it
    np.testing.assert_allclose(QuadraticLoss([1.0], 3.0).feature_loss(c), 2 * 0.75)  # linear
    np.testing.assert_allclose(QuadraticLoss([1.0], 1e15).feature_loss(c), 2 * 0.75 / 0.25)  # → 2v²(1−C)/C
    assert QuadraticLoss([1.0], 1.0).squared_norm([1.0])[0] == 1.0
    assert QuadraticLoss([1.0], 1.0).squared_norm([0.5])[0] == 0.0


@pytest.mark.parametrize("importance", [1e-150, 1.0, 1e150])
def test_normalised_measures_losses_in_units_of_their_square(importance):
    model = QuadraticLoss([importance, importance / 2], 9.0)
    c = np.array([0.5, 0.1])
    scaled, unit = model.normalised(c)
    np.testing.assert_allclose(scaled.feature_loss(c) * unit * unit, model.feature_loss(c), rtol=1e-15)
    assert 0.1 < scaled.feature_loss(c).sum() < 10


def test_data_are_frozen_copies():
    v = np.array([1.0, 2.0])
    model = QuadraticLoss(v, 4.0)
    v[0] = 7.0
    assert model.importance[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        model.importance[0] = 3.0


@pytest.mark.parametrize(
    ("importance", "kurtosis", "message"),
    [
        ([1, np.nan], 3.0, "importance must be finite, got nan at index 1"),
        ([1, np.inf], 3.0, "importance must be finite, got inf at index 1"),
        ([1, -1], 3.0, r"importance must be >= 0, got -1.0 at index 1"),
        ([1, 1], 0.5, "kurtosis must be >= 1, got 0.5"),
        ([1, 1], [3, 0.5], "kurtosis must be >= 1, got 0.5 at index 1"),
        ([1, 1], [3, 4, 5], "one entry per feature: 2 features, got 3"),
        ([1, 1], [3.0], "one entry per feature: 2 features, got 1"),
        ([1, 1], [[3, 4]], "kurtosis must be a scalar or one number per feature"),
        ([], 3.0, "at least one feature"),
        ([[1, 2]], 3.0, r"importance must have 1 dimension\(s\), got shape \(1, 2\)"),
        (1.0, 3.0, r"importance must have 1 dimension\(s\)"),
        (["a"], 3.0, "importance must hold real numbers"),
        ([1 + 2j], 3.0, "importance must hold real numbers"),
        ([None], 3.0, "importance must hold real numbers"),
        ([[1], [1, 2]], 3.0, "importance must be a rectangular array"),
        ([1.0], "3", "kurtosis must hold real numbers"),
        ([1e300], 1e100, "importance × kurtosis must sum to less"),
        ([1, 1], [3, 1.1e100], r"kurtosis must be <= 1e\+100, got 1.1e\+100 at index 1"),
    ],
)
def test_bad_input_is_refused_at_the_door(importance, kurtosis, message):
    with pytest.raises(ValueError, match=message):
        QuadraticLoss(importance, kurtosis)


def test_the_largest_kurtosis_is_one():
    assert QuadraticLoss([1.0], 1e100).feature_loss([1e-100])[0] == pytest.approx(1e100 / 1.5, rel=1e-15)


def test_low_kurtosis_without_bias_is_refused():
    with pytest.raises(ValueError, match="kurtosis must be >= 3 for every feature when bias=False, got 2 at index 1"):
        QuadraticLoss([1, 1], [4, 2], bias=False)


# --- formulas over arrays -------------------------------------------------------------------------------------------


@given(st.floats(0.1, 10), kurtoses, st.floats(1e-3, 1e3))
def test_the_response_curve_is_the_response(v, k, scale):
    """Independent: eqs. 15–18 in 50 digits; for κ < 3 all or nothing, at the scale of the chord."""
    found = float(response_curve(np.array([v]), np.array([k])).at(scale)[0])
    with mpmath.workdps(50):
        v_, k_, tau = mpmath.mpf(v), mpmath.mpf(k), mpmath.mpf(scale)
        if k_ > 3:
            exact = min(mpmath.mpf(1), max(mpmath.mpf(0), (v_ * (k_ - 1) / tau - 2) / (k_ - 3)))
            # an ulp of where the feature enters, v (κ−1)/2, moves its capacity by (κ−1)/(κ−3) of them
            assert abs(found - exact) <= 4 * np.finfo(float).eps * (1 + exact + min(exact, 1) * 2 / (k_ - 3))
        else:
            edge = v_ * mpmath.sqrt((k_ - 1) / 2)
            if abs(edge / tau - 1) > 1e-15:
                assert found == (edge > tau)


def test_the_response_curve_jumps_where_it_says():
    curve = response_curve(np.array([1.0, 2.0, 1.0, 0.0]), np.array([3.0, 1.5, 9.0, 2.0]))
    assert curve.jumps_at(1.0).tolist() == [True, True, False, False]
    assert curve.at(1.0).tolist() == [0.0, 0.0, 1.0, 0.0], "a feature that jumps exactly there has not jumped"
    assert curve.at(np.nextafter(1.0, 0.0)).tolist() == [1.0, 1.0, 1.0, 0.0]
    # half an ulp is more than a float can hold beside 1.0
    assert curve.at(1.0, -1e-17).tolist() == [1.0, 1.0, 1.0, 0.0]


def test_the_correction_is_what_a_float_cannot_hold_of_the_scale():
    v, k = np.array([1.0 + 1e-12]), np.array([3.0 + 1e-11])
    curve = response_curve(v, k)
    near, share = curve.at(1.0 + 2e-12), curve.at(1.0 + 2e-12, 1e-13)
    slope = (v * (k - 1) / (k - 3))[0]
    assert near[0] - share[0] == pytest.approx(1e-13 * slope, rel=1e-3)


@pytest.mark.parametrize("total", [np.sum, column_sum])
def test_traces_of_columns_are_those_of_each(total):
    rng = np.random.default_rng(1)
    v, k, c = rng.random((7, 3)), rng.uniform(3, 20, (7, 3)), rng.random((7, 3))
    if total is column_sum:
        each = [QuadraticLoss(v[:, j], k[:, j], bias=False).trace(c[:, j]) for j in range(3)]
        np.testing.assert_allclose(trace_of(v, k, c, total), each, rtol=1e-14)
    else:
        expected = QuadraticLoss(v[:, 0], k[:, 0], bias=False).trace(c[:, 0])
        assert trace_of(v[:, 0], k[:, 0], c[:, 0]) == pytest.approx(expected, rel=1e-14)


def test_sums_of_columns_are_pairwise():
    # the error of adding 10⁶ times 0.1 one by one is 1e-6, pairwise it is a few ulps of the sum
    assert abs(column_sum(np.full((10**6, 1), 0.1))[0] - 1e5) < 1e-9
    assert np.abs(column_sum(np.full((10**5, 3), 0.1)) - 1e4).max() < 1e-10


def test_ratio_at_the_ends():
    k = np.array(NASTY_KURTOSIS)
    np.testing.assert_array_equal(ratio(k, np.ones(k.size)), 2.0)
    np.testing.assert_array_equal(ratio(k, np.zeros(k.size)), k - 1.0)


def test_the_trace_of_a_network_without_bias_is_a_fixed_point_found_in_a_few_responses():
    rng = np.random.default_rng(5)
    v = rng.lognormal(0, 1, (30, 200)) * 10.0 ** rng.uniform(-100, 100, 200)
    k = 3.5 + rng.choice([0.0, 1.0, 10.0, 1e3], v.shape) * rng.random(v.shape)  # nobody jumps
    scale = v.max(axis=0) * rng.uniform(0.01, 3.0, 200)
    asked = np.zeros(200, dtype=int)

    def respond(effective, column):
        asked[column] += 1
        return response_curve(effective, k[:, column]).at(scale[column])

    capacity = solve_saddle(v, k, respond)
    trace = trace_of(v, k, capacity, column_sum)
    again = response_curve(v + trace / (k - 1.0), k).at(scale)
    np.testing.assert_allclose(trace_of(v, k, again, column_sum), trace, rtol=1e-12)
    assert np.median(asked) <= 10
    assert asked.max() <= 60
