"""Power-law importances: the continuum limit and its correction against the solver with whole features."""

import mpmath
import numpy as np
import pytest
import sympy as sp

import capsolve
from capsolve.profile import power_law as importances
from derivations import power_law
from derivations.symbols import D, kappa, tau

FEATURES = 100_000
BUDGETS = np.array([3.0, 10.0, 30.0, 100.0, 300.0, 1000.0])
CASES = [(alpha, k) for alpha in (0.6, 1.0, 1.7) for k in (4.0, 9.0, 100.0)]


def formula(expression, alpha, k, *letters):
    """Return an expression as a function of arrays, with r and s written out for this exponent and kurtosis."""
    exponent = sp.nsimplify(alpha)
    spread = power_law.SPREAD_AT_ONE if exponent == 1 else power_law.SPREAD.subs(power_law.alpha, exponent)
    written = expression.subs(power_law.s, spread).subs({power_law.alpha: exponent, kappa: sp.nsimplify(k)})
    return sp.lambdify(letters, written, "numpy")


def solved(alpha, k, budgets=BUDGETS, features=FEATURES):
    path = capsolve.capacity_path(importances(features, alpha), k, budgets)
    ranks = path.scale ** (-1 / alpha)
    # the derivation is about budgets for which some features are ignored
    some = ranks * formula(power_law.BREADTH, alpha, k)() < features
    assert some.sum() >= 3
    return path, ranks, some


def order(budgets, errors):
    """Return the exponent p of errors ~ budget^−p, from a straight line through the logarithms."""
    return -np.polyfit(np.log(budgets), np.log(errors), 1)[0]


@pytest.mark.parametrize(("alpha", "k"), CASES)
def test_the_budget_is_that_of_the_continuum_within_the_proved_bound(alpha, k):
    path, ranks, some = solved(alpha, k)
    spread = formula(power_law.s, alpha, k)()
    error = np.abs(path.dimensions + 0.5 - spread * ranks)
    bound = formula(power_law.COUNT_ERROR, alpha, k, tau)(path.scale)
    assert (error[some] <= bound[some]).all()
    # a bound that would hold for anything proves nothing: without the correction of 1/2 it does not
    tight = some & (bound < 0.2)
    assert tight.sum() >= 2
    assert not (np.abs(path.dimensions - spread * ranks)[tight] <= bound[tight]).any()


@pytest.mark.parametrize(("alpha", "k"), CASES)
def test_the_corrected_price_errs_at_second_order_and_the_plain_one_at_first(alpha, k):
    budgets = np.geomspace(3, 1000, 40)
    path, _, some = solved(alpha, k, budgets)
    bound = formula(power_law.COUNT_ERROR, alpha, k, tau)(path.scale)
    price = formula(power_law.PRICE_CORRECTED, alpha, k, D)(budgets)
    # λ = 2 (s/(D+½+ε))^2α with |ε| ≤ bound
    allowed = (1 - bound / (budgets + 0.5)) ** (-2 * alpha) - 1
    assert (np.abs(path.price / price - 1)[some] <= allowed[some]).all()
    plain = np.abs(path.price / formula(power_law.PRICE, alpha, k, D)(budgets) - 1)
    assert order(budgets[some], plain[some]) == pytest.approx(1.0, abs=0.1)
    assert (np.abs(budgets * plain / alpha - 1)[some & (budgets > 100)] < 0.02).all()
    assert order(budgets[some], allowed[some]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(("alpha", "k"), CASES)
def test_the_loss_of_infinitely_many_features(alpha, k):
    path, _, some = solved(alpha, k)
    with mpmath.workdps(30):  # the features beyond the last one are all ignored
        tail = float((k - 1) * mpmath.zeta(2 * mpmath.mpf(alpha), FEATURES + 1))
    corrected = formula(power_law.LOSS_CORRECTED, alpha, k, D)(path.dimensions)
    error = np.abs((path.loss + tail) / corrected - 1)[some]
    # the price's relative error is at most 2α·bound/(D+½), falls as 1/D², and the loss is its integral
    bound = formula(power_law.COUNT_ERROR, alpha, k, tau)(path.scale)[some]
    assert (error <= 4 * alpha * bound / (path.dimensions[some] + 0.5)).all()
    plain = formula(power_law.LOSS, alpha, k, D)(path.dimensions)
    assert (np.abs((path.loss + tail) / plain - 1)[some] > 5 * error).all()


@pytest.mark.parametrize("alpha", [0.3, 0.6, 1.0])
def test_the_loss_of_a_finite_number_of_features(alpha):
    k, features, budgets = 9.0, 50_000, np.array([30.0, 300.0, 1000.0])
    path, _, some = solved(alpha, k, budgets, features)
    assert some.all()
    loss = formula(power_law.LOSS_FINITE_CORRECTED, alpha, k, D, power_law.n)(budgets, features)
    scale = formula(power_law.LOSS_CORRECTED, alpha, k, D)(budgets)  # the part that depends on the budget
    bound = formula(power_law.COUNT_ERROR, alpha, k, tau)(path.scale)
    assert (np.abs(path.loss - loss) <= 4 * alpha * bound / budgets * np.abs(scale) + 1e-9 * path.loss).all()


def test_the_loss_at_the_exponent_one_half():
    k, features, budgets = 9.0, 50_000, np.array([30.0, 300.0, 1000.0])
    path, _, some = solved(0.5, k, budgets, features)
    assert some.all()
    formula_ = sp.lambdify((D, power_law.n), power_law.LOSS_AT_HALF.subs(kappa, 9), "numpy")
    corrected = formula_(budgets + 0.5, features + 0.5)
    error = np.abs(path.loss - corrected)
    # ∂L/∂D = −(κ−1)/D: an error ε ≤ bound of the budget costs (κ−1) ε/D
    bound = formula(power_law.COUNT_ERROR, 0.5, k, tau)(path.scale)
    assert (error <= 2 * (k - 1) * bound / budgets).all()
    assert (np.abs(path.loss - formula_(budgets, features)) > 10 * error).all()


@pytest.mark.parametrize(("alpha", "k"), CASES)
def test_shares_of_the_phases(alpha, k):
    path, _, some = solved(alpha, k)
    per_dimension = [formula(expression, alpha, k)() for expression in (power_law.MONOSEMANTIC, power_law.POLYSEMANTIC)]
    taken_up = formula(power_law.POLYSEMANTIC_DIMENSIONS, alpha, k)()
    for index in np.flatnonzero(some):
        allocation = path[index]
        count, budget = allocation.counts(), path.dimensions[index]
        # ranks are whole, and ½ beside a: a count differs by less than 1 + the corrections of its two ends
        breadth = formula(power_law.BREADTH, alpha, k)()
        assert abs(count["monosemantic"] - budget * per_dimension[0]) <= 1.5
        assert abs(count["polysemantic"] - budget * per_dimension[1]) <= 2 + breadth
        shared = (allocation.capacity > 0) & (allocation.capacity < 1)
        assert abs(allocation.capacity[shared].sum() - budget * taken_up) <= 1.5
