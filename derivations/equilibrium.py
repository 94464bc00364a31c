"""The optimal allocation: the capacities at one price for the whole budget."""

from __future__ import annotations

import sympy as sp

from derivations import capacity_loss
from derivations.core import Derivation
from derivations.symbols import C, a, b, family, kappa, t, tau, u, v

CAPACITY = (v * (kappa - 1) - 2 * tau) / (tau * (kappa - 3))
"""C(τ), the capacity of a polysemantic feature; clipped to [0, 1] it is that of every feature."""

IGNORED_FROM = v * (kappa - 1) / 2
"""The scale τ from which on a feature is ignored."""

MONOSEMANTIC_UP_TO = v
"""The scale τ up to which a feature is monosemantic."""

PRICE = 2 * tau**2
"""λ = −dL/dD, the loss that one more dimension saves."""

OPTIMAL_NORM = (v * (kappa - 1) - 2 * tau) / (kappa - 3)
"""m = |w|² of a polysemantic feature, τ times its capacity."""

OPTIMAL_LOSS = 2 * tau * v * (1 - CAPACITY)
"""The loss of a polysemantic feature at the optimum."""


def derive() -> Derivation:
    """Prove equations 15 to 18: thresholds, capacities, price and loss at the optimum for kurtosis ≥ 3."""
    d = Derivation(
        name="equilibrium",
        title="The optimal allocation",
        statement=(
            r"The loss $\sum_i f_i(C_i)$ under $\sum_i C_i \le D$, $0 \le C_i \le 1$ is least when all features "
            r"respond to one scale $\tau$: feature $i$ is ignored for $v_i (\kappa_i-1)/2 \le \tau$, monosemantic "
            r"for $v_i \ge \tau$, and in between holds the capacity $C_i = (v_i(\kappa_i-1) - 2\tau) / "
            r"(\tau(\kappa_i-3))$, which is linear in $1/\tau$. One more dimension saves $\lambda = 2\tau^2$."
        ),
        assumptions=(
            "$f$ is the loss of a feature at capacity $C$ (`capacity_loss`).",
            r"$\kappa_i > 3$; $\kappa_i = 3$ as the limit. (For $\kappa_i < 3$ see `concave`.)",
            "There are more features of positive importance than dimensions. (Otherwise every feature can have a "
            r"dimension, the loss is 0, and nothing can be saved: $\tau = 0$.)",
        ),
        source=(
            r"arXiv 2210.01892 v4, equations 15 to 18, where our $\tau$ is called $\lambda$; equations 4 to 8 for "
            "the price as a multiplier"
        ),
    )
    f, best, ell = sp.Function("f"), sp.Function("C_opt"), sp.Function("Lambda")
    above_three = {kappa: 3 + a}
    inside = {C: 1 / (1 + t)}

    d.define("A feature costs", f(C), capacity_loss.FEATURE_LOSS)
    d.define(r"and, when it pays the price $2 \tau^2$ for its capacity,", ell(C), f(C) + 2 * tau**2 * C)
    d.remark(
        r"If $C^*$ minimises this for every feature and $\sum_i C_i^* = D$, it minimises the loss under the budget: "
        r"for any other allocation $\sum f_i(C_i) \ge \sum f_i(C_i^*) + 2\tau^2 (\sum C_i^* - \sum C_i) \ge \sum "
        "f_i(C_i^*)$. No more than this is needed; in particular no convexity."
    )
    d.define("In between the thresholds we claim", best(tau), CAPACITY)
    d.result(
        "CAPACITY",
        "There the marginal value is the price,",
        -sp.Subs(sp.Derivative(f(C), C), C, best(tau)),
        2 * tau**2,
        value=CAPACITY,
    )
    d.equal(
        "and every other capacity is dearer by a square over a positive number:",
        ell(C) - ell(best(tau)),
        2 * (v * (kappa - 1) - tau * (2 + (kappa - 3) * C)) ** 2 / ((kappa - 3) * (2 + (kappa - 3) * C)),
    )
    d.result(
        "IGNORED_FROM",
        r"This capacity vanishes at $\tau = v(\kappa-1)/2$,",
        best(IGNORED_FROM),
        0,
        value=IGNORED_FROM,
    )
    d.positive(
        "from where on any capacity costs more than it saves: $C = 0$ is best.",
        ell(C) - ell(0),
        {tau: v * (kappa - 1) / 2 + b, **above_three, **inside},
    )
    d.result(
        "MONOSEMANTIC_UP_TO",
        r"It reaches a full dimension at $\tau = v$,",
        best(MONOSEMANTIC_UP_TO),
        1,
        value=MONOSEMANTIC_UP_TO,
    )
    d.positive(
        r"and for smaller $\tau$ a full dimension is best, whatever the kurtosis.",
        ell(C) - ell(1),
        {v: tau + b, **above_three, **inside},
    )
    between = {tau: v + v * (kappa - 3) / 2 / (1 + t), **above_three}
    d.positive(r"Between the two, $v < \tau < v(\kappa-1)/2$, the capacity is positive", best(tau), between)
    d.positive("and less than 1.", 1 - best(tau), between)
    d.result(
        "OPTIMAL_NORM",
        r"The squared norm of its row is $\tau$ times that,",
        capacity_loss.SQUARED_NORM.subs(C, best(tau)),
        tau * best(tau),
        OPTIMAL_NORM,
    )
    d.result(
        "OPTIMAL_LOSS",
        "and what it still costs is",
        f(best(tau)),
        2 * tau * v * (1 - best(tau)),
        OPTIMAL_LOSS,
    )

    d.equal(r"In $u = 1/\tau$ the capacity is a straight line,", sp.Derivative(best(1 / u), u, u), 0)
    d.equal("of slope", sp.Derivative(best(1 / u), u), v * (kappa - 1) / (kappa - 3))
    d.positive(
        r"It falls strictly with $\tau$. The clipped capacities are continuous, so exactly one $\tau$ spends the "
        "budget as long as someone is polysemantic.",
        -sp.Derivative(best(tau), tau),
        above_three,
    )

    d.equal(
        r"What the budget is worth. As $\tau$ moves, the loss of a polysemantic feature changes by $-2\tau^2$ times "
        "the change of its capacity; the other features do not change at all.",
        sp.Derivative(f(best(tau)), tau) + 2 * tau**2 * sp.Derivative(best(tau), tau),
        0,
    )
    loss, dimensions = sp.Function("L"), sp.Function("D")
    importances, kurtoses = family("v", 2, positive=True), family("kappa", 2, positive=True)
    pair = [{v: vi, kappa: ki} for vi, ki in zip(importances, kurtoses, strict=True)]
    optimal_loss = f(best(tau))
    d.remark(r"So the sum over features has $dL = -2\tau^2 dD$, however many there are.")
    d.define(
        "Two features of different importance and kurtosis, for example: their capacities",
        dimensions(tau),
        sum(CAPACITY.subs(one) for one in pair),
    )
    d.define(
        "and their losses",
        loss(tau),
        sum(d.unfold(optimal_loss).subs(one) for one in pair),
        shown=sum(OPTIMAL_LOSS.subs(one) for one in pair),
    )
    d.result(
        "PRICE",
        "The price of a dimension is",
        -sp.Derivative(loss(tau), tau) / sp.Derivative(dimensions(tau), tau),
        PRICE,
    )
    d.equal(
        r"Limits. For $\kappa = 3$ the thresholds meet: the feature is all or nothing at $\tau = v$.",
        sp.Subs(IGNORED_FROM, kappa, 3),
        MONOSEMANTIC_UP_TO,
    )
    d.equal(
        r"For $\kappa \to \infty$ nobody is ignored, and capacity goes in proportion to importance.",
        sp.Limit(best(tau), kappa, sp.oo),
        v / tau,
    )
    return d
