"""How the optimum moves with importance, kurtosis and budget."""

from __future__ import annotations

import sympy as sp

from derivations import capacity_loss, equilibrium
from derivations.core import Derivation
from derivations.symbols import C, kappa, m, tau, u, v

v_j, kappa_j = sp.symbols("v_j kappa_j", positive=True)
"""The polysemantic feature whose importance or kurtosis changes; v and κ belong to the one that responds."""
S = sp.Symbol("S", positive=True)
"""Σ v_i (κ_i−1)/(κ_i−3) over the polysemantic features: how fast they fill as 1/τ grows."""
T = sp.Symbol("T", real=True)
"""The trace Σ (v_i − m_i); without a bias it matters."""

RATE = v * (kappa - 1) / (kappa - 3)
"""One feature's part of S."""

CAPACITY_DIMENSIONS = RATE / S
"""dC/dD."""

OWN_IMPORTANCE = (kappa_j - 1) / (tau * (kappa_j - 3))
"""∂C_j/∂v_j at a fixed price."""

OWN_KURTOSIS = (tau - v_j) / (tau * (kappa_j - 3) ** 2) * 2
"""∂C_j/∂κ_j at a fixed price."""

CAPACITY_IMPORTANCE = -CAPACITY_DIMENSIONS * OWN_IMPORTANCE
"""dC/dv_j of another feature; feature j itself has `OWN_IMPORTANCE` on top."""

CAPACITY_KURTOSIS = -CAPACITY_DIMENSIONS * OWN_KURTOSIS
"""dC/dκ_j of another feature; feature j itself has `OWN_KURTOSIS` on top."""

PRICE_DIMENSIONS = -4 * tau**3 / S
"""dλ/dD."""

PRICE_IMPORTANCE = 4 * tau**2 * (kappa_j - 1) / ((kappa_j - 3) * S)
"""dλ/dv_j."""

PRICE_KURTOSIS = 8 * tau**2 * (tau - v_j) / ((kappa_j - 3) ** 2 * S)
"""dλ/dκ_j."""

LOSS_DIMENSIONS = -2 * tau**2
"""dL/dD."""

LOSS_IMPORTANCE = (kappa - 1) * (v - m) * 2
"""dL/dv, where m is the squared norm of the feature's row; without a bias 2T more."""

LOSS_KURTOSIS = (v - m) ** 2
"""dL/dκ, with or without a bias."""


def derive() -> Derivation:
    """Prove the derivatives of capacity, price and loss in importance, kurtosis and budget."""
    d = Derivation(
        name="sensitivities",
        title="Sensitivities",
        statement=(
            r"At the optimum $dL/dv_i = 2 (\kappa_i-1) (v_i-m_i)$, $dL/d\kappa_i = (v_i-m_i)^2$ and $dL/dD = "
            r"-2\tau^2$. The next bit of budget goes to the polysemantic features in proportion to $v_i "
            r"(\kappa_i-1)/(\kappa_i-3)$. A change in a polysemantic feature acts on the others only through the "
            "price; changes in the other features do not act on price or capacities at all."
        ),
        assumptions=(
            r"The optimum of `equilibrium`, $\kappa_i > 3$, with no feature exactly at a threshold, so that a small "
            "change leaves the phases as they are. (At a threshold the derivatives are one-sided.)",
            "$D'$ is the budget that is left to the polysemantic features, $D$ minus the number of monosemantic ones.",
        ),
        source="Follows from arXiv 2210.01892 v4, equations 13 to 18; not in the paper",
    )
    best, norm = sp.Function("C_opt"), sp.Function("m_opt")

    # ---- at a fixed price
    d.define(
        r"At the scale $\tau = 1/u$ a polysemantic feature holds",
        best(v, kappa, u),
        equilibrium.CAPACITY.subs(tau, 1 / u),
    )
    d.result("RATE", "As $u$ grows it fills at the rate", sp.Derivative(best(v, kappa, u), u), RATE)
    at_u = {tau: 1 / u}
    d.result(
        "OWN_IMPORTANCE",
        "At a fixed price its capacity responds to its own importance,",
        sp.Derivative(best(v_j, kappa_j, u), v_j),
        OWN_IMPORTANCE.subs(at_u),
        value=OWN_IMPORTANCE,
    )
    d.result(
        "OWN_KURTOSIS",
        r"and to its own kurtosis (upwards, as $\tau > v_j$ for a polysemantic feature),",
        sp.Derivative(best(v_j, kappa_j, u), kappa_j),
        OWN_KURTOSIS.subs(at_u),
        value=OWN_KURTOSIS,
    )
    d.remark(
        r"while ignored and monosemantic features respond to nothing. The budget holds $\sum C_i = D'$ over the "
        "polysemantic features: with $S$ the sum of their rates, $S du + dC_j = dD'$, where $dC_j$ is the response "
        r"at a fixed price of the feature that changes. So $u$ moves by $du = (dD' - dC_j)/S$, the price $\lambda = "
        r"2/u^2$ by $-4 \tau^3 du$, and the capacity of every polysemantic feature by its rate times $du$. This is "
        "all there is, for any number of features:"
    )
    change = sp.Function("Delta_u")
    x = sp.Symbol("x", real=True)
    d.define("with", change(x), x / S)
    d.result("CAPACITY_DIMENSIONS", "the budget is shared in the proportion", RATE * change(1), CAPACITY_DIMENSIONS)
    d.result("PRICE_DIMENSIONS", "and lowers the price by", -4 * tau**3 * change(1), PRICE_DIMENSIONS)
    d.result(
        "PRICE_IMPORTANCE", "Importance raises the price by", -4 * tau**3 * change(-OWN_IMPORTANCE), PRICE_IMPORTANCE
    )
    d.result(
        "CAPACITY_IMPORTANCE", "and lowers the other capacities by", RATE * change(-OWN_IMPORTANCE), CAPACITY_IMPORTANCE
    )
    d.result("PRICE_KURTOSIS", "Kurtosis raises the price by", -4 * tau**3 * change(-OWN_KURTOSIS), PRICE_KURTOSIS)
    d.result("CAPACITY_KURTOSIS", "and lowers the other capacities by", RATE * change(-OWN_KURTOSIS), CAPACITY_KURTOSIS)

    # ---- the loss
    ell, loss = sp.Function("L_1"), sp.Function("f")
    d.remark(
        "The loss. Its terms change with their own importance and kurtosis at fixed capacity, and with the "
        r"capacities by $\sum f_i' dC_i = -2\tau^2 \sum dC_i = -2\tau^2 dD'$, which vanishes unless the budget "
        "changes. The norm is stationary as well, so that only the explicit dependence counts (the envelope "
        "theorem)."
    )
    d.define(
        "With the norm free, a feature costs", ell(v, kappa, m, C), (kappa - 1) * (v - m) ** 2 + 2 * m**2 * (1 / C - 1)
    )
    d.define("at the best norm", norm(v, kappa, C), capacity_loss.SQUARED_NORM)
    d.define("it costs", loss(v, kappa, C), capacity_loss.FEATURE_LOSS)
    d.result(
        "LOSS_IMPORTANCE",
        "So the loss responds to importance by",
        sp.Derivative(ell(v, kappa, m, C), v),
        LOSS_IMPORTANCE,
    )
    d.equal(
        "(for the loss at the best norm this reads)",
        sp.Derivative(loss(v, kappa, C), v),
        LOSS_IMPORTANCE.subs(m, norm(v, kappa, C)),
    )
    d.result(
        "LOSS_KURTOSIS",
        "and to kurtosis by",
        sp.Derivative(ell(v, kappa, m, C), kappa),
        LOSS_KURTOSIS,
    )
    d.equal(
        "(at the best norm),",
        sp.Derivative(loss(v, kappa, C), kappa),
        LOSS_KURTOSIS.subs(m, norm(v, kappa, C)),
    )
    others = sp.Symbol("R", real=True)
    trace_term = (v - m + others) ** 2
    d.equal(
        "Without a bias the square of the trace $T$ is added, in which $v - m$ is the feature's own part and $R$ "
        "that of the others. It adds to the first",
        sp.Derivative(trace_term, v),
        2 * (v - m + others),
    )
    d.equal("and nothing to the second.", sp.Derivative(trace_term, kappa), 0)

    # ---- two features, solved outright
    budget = sp.Symbol("D'", positive=True)
    pair = [(v_j, kappa_j), sp.symbols("v_k kappa_k", positive=True)]
    data = (*pair[0], *pair[1], budget)
    solved, price, total = sp.Function("u"), sp.Function("lambda"), sp.Function("L")
    capacities = [sp.Function("C_j"), sp.Function("C_k")]
    rates = [RATE.subs({v: a, kappa: b}) for a, b in pair]
    d.remark("All of this again for two polysemantic features, $j$ and $k$, whose optimum can be written down:")
    d.define(
        "the budget is a linear equation for $u$ with the solution",
        solved(*data),
        (budget + sum(2 / (k - 3) for _, k in pair)) / sum(rates),
    )
    d.equal("which spends it:", sum(best(a, b, solved(*data)) for a, b in pair), budget)
    for function, (a, b) in zip(capacities, pair, strict=True):
        d.define("with the capacity", function(*data), best(a, b, solved(*data)))
    d.define("and the price", price(*data), 2 / solved(*data) ** 2)
    d.define(
        r"at the loss (each $2 \tau v (1-C)$ by `equilibrium`)",
        total(*data),
        sum(2 * a * (1 - function(*data)) / solved(*data) for function, (a, _) in zip(capacities, pair, strict=True)),
    )
    d.define("In the results above", S, sum(rates))
    d.define("and", tau, 1 / solved(*data))
    own_row, other_row = ({v: a, kappa: b} for a, b in pair)
    d.equal("The budget: for the price,", sp.Derivative(price(*data), budget), PRICE_DIMENSIONS)
    d.equal("for the capacity of $j$,", sp.Derivative(capacities[0](*data), budget), CAPACITY_DIMENSIONS.subs(own_row))
    d.result("LOSS_DIMENSIONS", "and for the loss,", sp.Derivative(total(*data), budget), LOSS_DIMENSIONS)
    for parameter, own, cross, of_price, of_loss, word in (
        (v_j, OWN_IMPORTANCE, CAPACITY_IMPORTANCE, PRICE_IMPORTANCE, LOSS_IMPORTANCE, "Importance"),
        (kappa_j, OWN_KURTOSIS, CAPACITY_KURTOSIS, PRICE_KURTOSIS, LOSS_KURTOSIS, "Kurtosis"),
    ):
        d.equal(f"{word} of feature $j$: for the price,", sp.Derivative(price(*data), parameter), of_price)
        d.equal(
            "for the capacity of the other feature,",
            sp.Derivative(capacities[1](*data), parameter),
            cross.subs(other_row),
        )
        d.equal("for its own capacity,", sp.Derivative(capacities[0](*data), parameter), own + cross.subs(own_row))
        row = {**own_row, m: tau * capacities[0](*data)}
        d.equal("and for the loss,", sp.Derivative(total(*data), parameter), of_loss.subs(row))
    return d
