"""capsolve's numerical functions against the lambdified results of the derivations, at random points.

The formulas are evaluated with 40 digits at the very numbers (doubles) that the code gets, so that all of a difference
is the code's. What can be asked of the code are a few rounding errors times the condition of the formula, which at
these points is at most a few hundred: 1e-12 for every relative error.
"""

import mpmath
import numpy as np
import pytest
import sympy as sp

import capsolve
from capsolve import QuadraticLoss, solve
from capsolve.losses.quadratic import response_curve
from derivations import (
    capacity_bounds,
    capacity_loss,
    concave,
    equilibrium,
    expected_loss,
    inputs,
    phase_boundaries,
    realisation,
    sensitivities,
    without_bias,
)
from derivations.symbols import C, D, c, kappa, m, tau, v

RTOL = 1e-12
SEEDS = range(20)


def lambdified(expression, *letters):
    """Return the expression as a function of arrays, evaluated with 40 digits and rounded once."""
    function = sp.lambdify(letters, expression, "mpmath")

    def evaluate(*values):
        with mpmath.workdps(40):
            rows = np.broadcast_arrays(*values)
            flat = [function(*map(mpmath.mpf, row)) for row in zip(*(r.ravel().tolist() for r in rows), strict=True)]
            return np.array([float(x) for x in flat]).reshape(rows[0].shape)

    return evaluate


def summed(expression, *letters):
    """Return a formula with sums over features as a function of arrays; plain doubles, positive terms."""
    return sp.lambdify(letters, expression, "numpy")


def draw(seed, low=3.5, high=30.0):
    """Return the rng, importance and kurtosis of 3 to 9 features."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 10))
    return rng, rng.uniform(0.3, 3.0, n), rng.uniform(low, high, n)


def agree(actual, expected, **options):
    np.testing.assert_allclose(actual, expected, **{"rtol": RTOL, "atol": 0.0, **options})


class TestLoss:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_of_a_capacity(self, seed):
        rng, v_, k_ = draw(seed, low=1.1)  # concave, linear and convex
        k_[0] = 3.0
        c_ = rng.uniform(0.01, 0.99, v_.size)
        model = QuadraticLoss(v_, k_)
        agree(model.feature_loss(c_), lambdified(capacity_loss.FEATURE_LOSS, v, kappa, C)(v_, k_, c_))
        agree(model.marginal(c_), lambdified(capacity_loss.MARGINAL, v, kappa, C)(v_, k_, c_))
        agree(model.squared_norm(c_), lambdified(capacity_loss.SQUARED_NORM, v, kappa, C)(v_, k_, c_))

    @pytest.mark.parametrize("seed", SEEDS)
    def test_of_a_capacity_without_a_bias(self, seed):
        rng, v_, k_ = draw(seed, low=3.0)
        c_ = rng.uniform(0.01, 0.99, v_.size)
        model = QuadraticLoss(v_, k_, bias=False)
        letters = (without_bias.V, without_bias.KAPPA, without_bias.CAPACITY, without_bias.n)
        trace = summed(without_bias.TRACE, *letters)(v_, k_, c_, v_.size)
        agree(model.trace(c_), trace)
        loss = summed(without_bias.LOSS, *letters, without_bias.T)(v_, k_, c_, v_.size, trace)
        agree(model.feature_loss(c_).sum(), loss)
        raised = lambdified(without_bias.EFFECTIVE_IMPORTANCE, v, kappa, without_bias.s)(v_, k_, trace)
        agree(model.effective_importance(trace), raised)
        agree(model.marginal(c_), lambdified(capacity_loss.MARGINAL, v, kappa, C)(raised, k_, c_))

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("bias", [True, False])
    def test_of_an_embedding(self, seed, bias):
        rng, v_, k_ = draw(seed, low=1.0)
        W = rng.normal(size=(v_.size, 3))
        A = W @ W.T - np.diag(v_)
        formula = expected_loss.LOSS_WITH_BIAS if bias else expected_loss.LOSS_WITHOUT_BIAS
        expected = summed(formula, expected_loss.A, expected_loss.KAPPA, expected_loss.n)(A, k_, v_.size)
        agree(capsolve.embedding_loss(W, v_, k_, bias=bias), expected)

    def test_a_wrong_formula_would_be_noticed(self):
        rng, v_, k_ = draw(0)
        c_ = rng.uniform(0.01, 0.99, v_.size)
        mistaken = capacity_loss.FEATURE_LOSS * (1 + sp.Rational(1, 10**10))
        with pytest.raises(AssertionError):
            agree(QuadraticLoss(v_, k_).feature_loss(c_), lambdified(mistaken, v, kappa, C)(v_, k_, c_))


class TestResponse:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_capacities_at_a_price(self, seed):
        rng, v_, k_ = draw(seed)
        scale = rng.uniform(0.3, 20.0)
        response = QuadraticLoss(v_, k_).response(2 * scale**2)
        interior = lambdified(equilibrium.CAPACITY, v, kappa, tau)(v_, k_, scale)
        ignored = scale >= lambdified(equilibrium.IGNORED_FROM, v, kappa)(v_, k_)
        monosemantic = scale <= lambdified(equilibrium.MONOSEMANTIC_UP_TO, v, kappa)(v_, k_)
        # one rounding of τ moves C by (κ−1)/(κ−3) ≤ 5 of its units: absolute, since small capacities are differences
        agree(response, np.where(ignored, 0.0, np.where(monosemantic, 1.0, interior)), rtol=0.0, atol=RTOL)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_thresholds(self, seed):
        _, v_, k_ = draw(seed)
        curve = response_curve(v_, k_)
        agree(curve.enter, lambdified(equilibrium.IGNORED_FROM, v, kappa)(v_, k_))
        agree(curve.full, lambdified(equilibrium.MONOSEMANTIC_UP_TO, v, kappa)(v_, k_))

    @pytest.mark.parametrize("seed", SEEDS)
    def test_concave_features_respond_as_their_chords(self, seed):
        rng, v_, k_ = draw(seed, low=1.05, high=2.95)
        model = QuadraticLoss(v_, k_)
        prices = lambdified(concave.CHORD_PRICE, v, kappa)(v_, k_)
        for i, price in enumerate(prices):
            assert model.response(price * (1 - RTOL))[i] == 1.0
            assert model.response(price * (1 + RTOL))[i] == 0.0
        c_ = rng.uniform(0.01, 0.9, v_.size)
        slope = -sp.diff(concave.CHORD, C).subs(concave.high, 1)
        agree(model.average_gain(c_), lambdified(slope, v, kappa, concave.low)(v_, k_, c_))


class TestOptimum:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_price_capacities_norms_and_loss(self, seed):
        rng, v_, k_ = draw(seed)
        found = solve(v_, k_, rng.uniform(0.5, v_.size - 0.5))
        agree(found.price, lambdified(equilibrium.PRICE, tau)(found.scale))
        shared = (found.capacity > 0) & (found.capacity < 1)
        at = (v_[shared], k_[shared], found.scale)
        agree(found.capacity[shared], lambdified(equilibrium.CAPACITY, v, kappa, tau)(*at), rtol=0.0, atol=RTOL)
        agree(found.squared_norm[shared], lambdified(equilibrium.OPTIMAL_NORM, v, kappa, tau)(*at), atol=RTOL)
        ignored = found.capacity == 0
        loss = lambdified(equilibrium.OPTIMAL_LOSS, v, kappa, tau)(*at).sum() + (v_**2 * (k_ - 1))[ignored].sum()
        agree(found.loss, loss)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_the_scale_is_the_closed_form_for_its_phases(self, seed):
        rng, v_, k_ = draw(seed)
        dimensions = rng.uniform(0.5, v_.size - 0.5)
        found = solve(v_, k_, dimensions)
        shared = (found.capacity > 0) & (found.capacity < 1)
        if not shared.any():
            pytest.skip("all or nothing at this point")
        rate = lambdified(sensitivities.RATE, v, kappa)(v_[shared], k_[shared]).sum()
        left = dimensions - (found.capacity == 1).sum()
        agree(1 / found.scale, (left + (2 / (k_[shared] - 3)).sum()) / rate)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_without_a_bias_it_is_that_of_raised_importances(self, seed):
        rng, v_, k_ = draw(seed)
        dimensions = rng.uniform(0.5, v_.size - 0.5)
        found = solve(v_, k_, dimensions, bias=False)
        letters = (without_bias.V, without_bias.KAPPA, without_bias.CAPACITY, without_bias.n)
        trace = summed(without_bias.TRACE, *letters)(v_, k_, found.capacity, v_.size)
        raised = lambdified(without_bias.EFFECTIVE_IMPORTANCE, v, kappa, without_bias.s)(v_, k_, trace)
        assert 0 <= trace <= v_.sum()
        with_bias = solve(raised, k_, dimensions)
        # The trace is a root of a slope of at least 1, found to rounding error; capacities follow it as above.
        agree(with_bias.capacity, found.capacity, rtol=0.0, atol=RTOL)
        agree(with_bias.scale, found.scale)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_polysemantic_rows_are_a_tight_frame(self, seed):
        rng, v_, k_ = draw(seed)
        found = solve(v_, k_, int(rng.integers(1, v_.size)))
        W = found.embedding(rng=seed, rotate=True)
        shared = (found.capacity > 0) & (found.capacity < 1)
        projection = (W @ W.T)[np.ix_(shared, shared)] / found.scale
        agree(projection @ projection, projection, rtol=0.0, atol=RTOL)
        agree(np.diag(projection), found.capacity[shared], rtol=0.0, atol=RTOL)
        letters = (capacity_bounds.W, capacity_bounds.i, capacity_bounds.n, capacity_bounds.D)
        formula = summed(capacity_bounds.CAPACITY, *letters)
        represented = np.flatnonzero(found.capacity)
        expected = [formula(W, i, *W.shape) for i in represented]
        agree(found.capacity[represented], expected, rtol=0.0, atol=RTOL)

    def test_a_fractional_concave_feature_meets_the_second_order_condition(self):
        inverse, met = lambdified(concave.INVERSE_CURVATURE, v, kappa, tau), 0
        for seed in SEEDS:
            rng, v_, k_ = draw(seed, low=3.5, high=9.0)
            v_[0], k_[0] = 2 * v_[0], rng.uniform(2.5, 2.95)  # hardly concave: it does share, sometimes
            for dimensions in np.linspace(0.1, v_.size - 0.1, 25):
                found = solve(v_, k_, dimensions)
                shared = (found.capacity > 0) & (found.capacity < 1)
                if shared[0] and shared.sum() > 1:
                    assert inverse(v_[shared], k_[shared], found.scale).sum() <= 0
                    met += 1
        assert met > 20


class TestBoundaries:
    LETTERS = (kappa, phase_boundaries.N, D)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_the_odd_feature_enters_and_fills_where_they_say(self, seed):
        rng = np.random.default_rng(seed)
        k_, n = rng.uniform(3.5, 100.0), int(rng.integers(5, 20))
        dimensions = int(rng.integers(2, n - 2))
        low = float(lambdified(phase_boundaries.LOWER, *self.LETTERS)(k_, n, dimensions))
        high = float(lambdified(phase_boundaries.UPPER, *self.LETTERS)(k_, n, dimensions))

        def odd(importance):
            return solve([importance] + [1.0] * (n - 1), k_, dimensions)

        assert odd(low * (1 - RTOL)).capacity[0] == 0.0
        assert 0.0 < odd(low * (1 + RTOL)).capacity[0] < 1e-10
        assert odd(high * (1 + RTOL)).capacity[0] == 1.0
        assert 1.0 - 1e-10 < odd(high * (1 - RTOL)).capacity[0] < 1.0

        inside = rng.uniform(low, high)
        point = (k_, n, dimensions, inside)
        letters = (*self.LETTERS, phase_boundaries.V)
        found = odd(inside)
        agree(found.capacity[0], lambdified(phase_boundaries.ODD_CAPACITY, *letters)(*point), rtol=0.0, atol=RTOL)
        agree(found.scale, lambdified(phase_boundaries.SCALE, *letters)(*point))
        agree(odd(2 * high).scale, high)

    def test_figure_4(self):
        kurtosis = capsolve.Profile.from_distribution("uniform", sparsity=0.9, importance=[1.0]).kurtosis[0]
        formula = inputs.SPARSE_KURTOSIS.subs({inputs.KAPPA_0: inputs.UNIFORM, inputs.S: sp.Rational(9, 10)})
        agree(kurtosis, float(formula))
        agree(lambdified(phase_boundaries.UPPER, *self.LETTERS)(kurtosis, 6, 3), 2.125)
        critical = 1 - float(phase_boundaries.CRITICAL_DENSITY)
        agree(capsolve.Profile.from_distribution("uniform", sparsity=critical, importance=[1.0]).kurtosis, 3.0)

    @pytest.mark.parametrize("base", ["UNIFORM", "GAUSSIAN", "LAPLACE", "RADEMACHER"])
    def test_base_distributions(self, base):
        profile = capsolve.Profile.from_distribution(base.lower(), importance=[1.0])
        agree(profile.kurtosis, float(getattr(inputs, base)))


class TestSensitivities:
    LETTERS = (v, kappa, sensitivities.v_j, sensitivities.kappa_j, tau, sensitivities.S)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_of_price_capacities_and_loss(self, seed):
        rng, v_, k_ = draw(seed)
        found = solve(v_, k_, rng.uniform(0.5, v_.size - 0.5))
        change = found.sensitivity()
        shared = (found.capacity > 0) & (found.capacity < 1)
        if not shared.any():
            pytest.skip("all or nothing at this point")
        rate = lambdified(sensitivities.RATE, v, kappa)(v_, k_)[shared].sum()

        def formula(name, *, to=slice(None)):
            """Evaluate a result for all polysemantic pairs: responding row, changing column."""
            column, row = (v_[shared][:, None], k_[shared][:, None]), (v_[shared][None, :], k_[shared][None, :])
            expression = getattr(sensitivities, name)
            return lambdified(expression, *self.LETTERS)(*column, *row, found.scale, rate)[to]

        agree(change.price_dimensions, formula("PRICE_DIMENSIONS")[0, 0])
        agree(change.capacity_dimensions[shared], formula("CAPACITY_DIMENSIONS")[:, 0])
        agree(change.loss_dimensions, formula("LOSS_DIMENSIONS")[0, 0])
        assert not change.capacity_dimensions[~shared].any()
        for parameter, price in (("importance", change.price_importance), ("kurtosis", change.price_kurtosis)):
            word = parameter.upper()
            # ∂C/∂κ is proportional to τ − v, of which rounding takes some digits near the threshold: absolute there
            agree(price[shared], formula(f"PRICE_{word}")[0], atol=RTOL * found.price)
            assert not price[~shared].any()
            own, others = formula(f"OWN_{word}"), formula(f"CAPACITY_{word}")
            jacobian = change.capacity_jacobian(parameter)
            agree(jacobian[np.ix_(shared, shared)], np.diag(own[0]) + others, atol=RTOL)
            assert not jacobian[~shared].any()
            assert not jacobian[:, ~shared].any()

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("bias", [True, False])
    def test_of_the_loss_with_and_without_a_bias(self, seed, bias):
        rng, v_, k_ = draw(seed)
        found = solve(v_, k_, rng.uniform(0.5, v_.size - 0.5), bias=bias)
        change, norms = found.sensitivity(), found.squared_norm
        trace = 0.0 if bias else float((v_ - norms).sum())
        scale = float((v_ - norms).max())  # both formulas are differences of importances and norms
        letters = (v, kappa, m)
        expected = lambdified(sensitivities.LOSS_IMPORTANCE, *letters)(v_, k_, norms) + 2 * trace
        agree(change.loss_importance, expected, atol=RTOL * scale * k_.max())
        expected = lambdified(sensitivities.LOSS_KURTOSIS, *letters)(v_, k_, norms)
        agree(change.loss_kurtosis, expected, atol=RTOL * scale**2)


class TestGeometry:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_capacities_of_an_embedding(self, seed):
        rng = np.random.default_rng(seed)
        W = rng.normal(size=(int(rng.integers(2, 8)), int(rng.integers(1, 5))))
        letters = (capacity_bounds.W, capacity_bounds.i, capacity_bounds.n, capacity_bounds.D)
        formula = summed(capacity_bounds.CAPACITY, *letters)
        agree(capsolve.capacities(W), [formula(W, i, *W.shape) for i in range(len(W))])

    def test_random_directions(self):
        for n, dimensions in ((2, 2), (1000, 10), (7, 30)):
            expected = float(capacity_bounds.NULL_MODEL.subs({capacity_bounds.n: n, capacity_bounds.D: dimensions}))
            agree(capsolve.random_capacity(n, dimensions), expected)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_the_rotation_moves_the_diagonal_as_wanted(self, seed):
        """An independent use of the angle: one rotation of a random symmetric 2 × 2 matrix, in doubles."""
        rng = np.random.default_rng(seed)
        low, wanted, high = np.sort(rng.uniform(0, 1, 3))
        coupling = rng.normal()
        letters = (realisation.p_i, realisation.p_j, c, realisation.g)
        uncoupled = np.tan(lambdified(realisation.ANGLE, *letters)(high, low, wanted, 0.0))
        agree(uncoupled**2, lambdified(realisation.TAN_SQUARED, *letters)(high, low, wanted, 0.0))
        for g_, tangent in (
            (0.0, uncoupled),
            (coupling, lambdified(realisation.TAN_COUPLED, *letters)(high, low, wanted, coupling)),
        ):
            cos = 1 / np.hypot(1, tangent)
            sin = tangent * cos
            turn = np.array([[cos, sin], [-sin, cos]])
            turned = turn @ np.array([[high, g_], [g_, low]]) @ turn.T
            agree(turned[0, 0], wanted, rtol=0.0, atol=RTOL * (1 + abs(g_)))
