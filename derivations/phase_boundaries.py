"""One odd feature among equal ones: where it is ignored, shares, or has a dimension to itself."""

from __future__ import annotations

import sympy as sp

from derivations import equilibrium, inputs
from derivations.core import Derivation
from derivations.symbols import D, a, b, c, kappa, tau, v

V = sp.Symbol("V", positive=True)
"""Importance of the odd feature; the others have importance 1."""
N = sp.Symbol("N", positive=True)
"""Number of features, the odd one included."""
p = sp.Symbol("p", positive=True)
"""Density: the probability that an input is not zero."""

SCALE = (kappa - 1) * (N - 1 + V) / ((kappa - 3) * D + 2 * N)
"""τ while all features share."""

ODD_CAPACITY = (V * ((kappa - 3) * D + 2 * (N - 1)) - 2 * (N - 1)) / ((kappa - 3) * (N - 1 + V))
"""The capacity of the odd feature while all features share."""

UPPER = (kappa - 1) * (N - 1) / ((kappa - 3) * (D - 1) + 2 * (N - 1))
"""The importance from which on the odd feature is monosemantic; also τ from there on."""

LOWER = 2 * (N - 1) / ((kappa - 3) * D + 2 * (N - 1))
"""The importance up to which the odd feature is ignored."""

OPENING = N / (2 * (N - 1))
"""d(UPPER − LOWER)/dκ at κ = 3: how fast the two boundaries part."""

PRICE_KINK = 4 * UPPER * (kappa - 1) / ((kappa - 3) * D + 2 * N)
"""By how much dλ/dV drops at the upper boundary."""

SLOPE_JUMP = 2 * (kappa - 1)
"""By how much dL/dV drops on the first-order line V = 1, κ ≤ 3."""

CRITICAL_DENSITY = sp.Rational(3, 5)
"""The density of sparse uniform inputs that puts the kurtosis at 3."""


def derive() -> Derivation:
    """Prove the phase diagram of Figure 4."""
    d = Derivation(
        name="phase_boundaries",
        title="The phase diagram of one odd feature",
        statement=(
            r"$N$ features of equal kurtosis $\kappa$ have importance 1, but one has importance $V$. For $\kappa > "
            r"3$ the odd feature is ignored up to $V = 2(N-1)/((\kappa-3)D+2(N-1))$, monosemantic from $V = "
            r"(\kappa-1)(N-1)/((\kappa-3)(D-1)+2(N-1))$ on, and shares in between; crossing either boundary is a "
            r"second-order transition. The boundaries meet at $V = 1$, $\kappa = 3$, from where a first-order line "
            r"$V = 1$ continues to smaller $\kappa$."
        ),
        assumptions=(
            r"The optimal capacities of `equilibrium` for $\kappa > 3$, those of `concave` for $\kappa < 3$.",
            r"$1 \le D < N - 1$, so that the other features neither fill their dimensions nor vanish; for $\kappa < "
            "3$ an integer $D$.",
        ),
        source="arXiv 2210.01892 v4, Figure 4 (there $N = 6$, $D = 3$), from equations 15 to 18",
    )
    C_v = sp.Function("C_opt")
    scale, low, high, price, odd = (sp.Function(s) for s in ("tau", "V_0", "V_1", "lambda", "C_1"))

    # ---- all share
    d.define(r"At the scale $\tau$ a polysemantic feature of importance $v$ holds", C_v(v, tau), equilibrium.CAPACITY)
    d.define("If all features share, we claim", scale(V), SCALE)
    d.result(
        "SCALE",
        "because that spends the budget:",
        C_v(V, scale(V)) + (N - 1) * C_v(1, scale(V)),
        D,
        value=SCALE,
    )
    d.result("ODD_CAPACITY", "The odd feature then holds", C_v(V, scale(V)), ODD_CAPACITY)
    d.define("Call it", odd(V), ODD_CAPACITY)
    roomy = {D: 1 + a, N: 3 + a + b, kappa: 3 + c}
    d.positive("It grows strictly with its importance,", sp.Derivative(odd(V), V), roomy)

    # ---- the boundaries
    d.define("so that there is one boundary where it vanishes", low(kappa, N, D), LOWER)
    d.define("and one where it is full:", high(kappa, N, D), UPPER)
    d.result("LOWER", "At the lower boundary", odd(low(kappa, N, D)), 0, value=LOWER)
    d.result("UPPER", "at the upper boundary", odd(high(kappa, N, D)), 1, value=UPPER)
    d.equal(
        "There the others hold what is left, between 0 and 1: at the lower boundary",
        C_v(1, scale(low(kappa, N, D))),
        D / (N - 1),
    )
    d.equal("and at the upper one", C_v(1, scale(high(kappa, N, D))), (D - 1) / (N - 1))

    # ---- where the boundaries meet
    d.equal(
        r"The boundaries differ by a multiple of $\kappa - 3$,",
        high(kappa, N, D) - low(kappa, N, D),
        (kappa - 3)
        * (N - 1)
        * ((kappa - 1) * D + 2 * (N - D))
        / (((kappa - 3) * (D - 1) + 2 * (N - 1)) * ((kappa - 3) * D + 2 * (N - 1))),
    )
    d.positive(r"positive for $\kappa > 3$", high(kappa, N, D) - low(kappa, N, D), roomy)
    d.equal(r"and zero at the critical point, $\kappa = 3$ and", high(3, N, D), 1)
    d.equal("(from both sides)", low(3, N, D), 1)
    d.result(
        "OPENING",
        "where they part at the rate",
        sp.Subs(sp.Derivative(high(kappa, N, D) - low(kappa, N, D), kappa), kappa, 3),
        OPENING,
    )
    d.equal(
        "For very sparse inputs nothing is ignored,",
        sp.Limit(low(kappa, N, D), kappa, sp.oo),
        0,
    )
    d.equal(
        "but a feature must be more important than the others to be alone:",
        sp.Limit(high(kappa, N, D), kappa, sp.oo),
        (N - 1) / (D - 1),
    )
    d.equal(
        "Two features in one dimension: they share while the ratio of their importances is less than",
        high(kappa, 2, 1),
        (kappa - 1) / 2,
    )
    d.equal("and more than", low(kappa, 2, 1), 2 / (kappa - 1))

    # ---- order of the transitions for κ > 3
    d.remark(
        r"The order of the transitions, for $\kappa > 3$. The price is $\lambda = 2\tau^2 = -\partial L/\partial D$, "
        "a first derivative of the least loss. Where the odd feature is monosemantic, the other $N-1$ share $D-1$ "
        r"dimensions; where it is ignored, they share $D$. In both cases $\tau$ does not depend on $V$:"
    )
    above, below = sp.symbols("tau_above tau_below", positive=True)
    d.define("above,", above, UPPER)
    d.equal("because", (N - 1) * C_v(1, above), D - 1)
    d.define("and below,", below, UPPER.subs(D, D + 1))
    d.equal("because", (N - 1) * C_v(1, below), D)
    d.equal("The price is continuous at the upper boundary,", 2 * scale(high(kappa, N, D)) ** 2, 2 * above**2)
    d.equal("and at the lower one,", 2 * scale(low(kappa, N, D)) ** 2, 2 * below**2)
    d.define("but while all share it depends on $V$,", price(V), 2 * scale(V) ** 2)
    d.result(
        "PRICE_KINK",
        "so that its derivative, a second derivative of the loss, jumps: a second-order transition. At the upper "
        "boundary by",
        sp.Subs(sp.Derivative(price(V), V), V, high(kappa, N, D)),
        PRICE_KINK,
    )
    d.equal(
        "and at the lower one by",
        sp.Subs(sp.Derivative(price(V), V), V, low(kappa, N, D)),
        4 * below * (kappa - 1) / ((kappa - 3) * D + 2 * N),
    )
    d.positive("Neither jump is zero.", PRICE_KINK, roomy)

    # ---- first order for κ < 3
    d.remark(
        r"For $\kappa < 3$ and integer $D$ every feature is all or nothing. The odd feature is chosen when it is the "
        "more important one:"
    )
    chosen, left_out = sp.Function("L_1"), sp.Function("L_0")
    d.define(
        r"Ignoring a feature costs $v^2 (\kappa-1)$. With the odd feature chosen, $N - D$ others are ignored,",
        chosen(V),
        (kappa - 1) * (N - D),
    )
    d.define("with the odd feature left out, one other fewer:", left_out(V), (kappa - 1) * (V**2 + N - 1 - D))
    d.equal("The two are equal at $V = 1$,", left_out(1) - chosen(1), 0)
    d.positive(
        "below that the odd feature is better left out,", chosen(V) - left_out(V), {V: 1 / (1 + a), kappa: 1 + c}
    )
    d.positive("above it is better chosen.", left_out(V) - chosen(V), {V: 1 + a, kappa: 1 + c})
    d.result(
        "SLOPE_JUMP",
        "The least loss is continuous but its first derivative jumps, a first-order transition, and the capacity "
        "jumps from 0 to 1:",
        sp.Subs(sp.Derivative(left_out(V) - chosen(V), V), V, 1),
        SLOPE_JUMP,
    )
    d.equal(
        r"For $\kappa > 3$ the same first derivative, $4 \tau (1 - C_1)$ while sharing (`sensitivities`), is "
        r"continuous: it starts at the slope $2 V (\kappa-1)$ of an ignored feature",
        4 * scale(low(kappa, N, D)) * (1 - odd(low(kappa, N, D))),
        2 * low(kappa, N, D) * (kappa - 1),
    )
    d.equal("and ends at 0.", 4 * scale(high(kappa, N, D)) * (1 - odd(high(kappa, N, D))), 0)

    # ---- sparse uniform inputs
    kurtosis = sp.Function("kappa")
    d.define(
        "Figure 4 has inputs that are uniform on $[-1, 1]$ with probability $p$ and otherwise 0, of the kurtosis "
        "(`inputs`)",
        kurtosis(p),
        inputs.SPARSE_KURTOSIS.subs({inputs.KAPPA_0: inputs.UNIFORM, inputs.S: 1 - p}),
    )
    d.result(
        "CRITICAL_DENSITY",
        "The critical point is at the density $p = 0.6$:",
        kurtosis(CRITICAL_DENSITY),
        3,
        value=CRITICAL_DENSITY,
    )
    for density in (sp.Rational(1, 10), sp.Rational(1, 100), sp.Rational(1, 1000)):
        for boundary, text in ((low, "ignored up to"), (high, "monosemantic from")):
            value = d.unfold(boundary(kurtosis(density), 6, 3))
            d.equal(
                f"With six features in three dimensions and $p = {float(density):g}$ it is {text} $V = "
                f"{float(value):.4g}$:",
                boundary(kurtosis(density), 6, 3),
                value,
            )
    return d
