"""Features with kurtosis below 3: all or nothing, chords as envelopes, and when one of them may be fractional."""

from __future__ import annotations

import sympy as sp

from derivations import capacity_loss, equilibrium
from derivations.core import Derivation
from derivations.symbols import C, a, b, c, family, kappa, t, tau, v

low, high = sp.symbols("p q", positive=True)
"""The ends of the interval, p < q, to which a capacity is confined."""

CHORD = (
    capacity_loss.FEATURE_LOSS.subs(C, low) * (high - C) + capacity_loss.FEATURE_LOSS.subs(C, high) * (C - low)
) / (high - low)
"""The convex envelope of a concave feature's loss on [p, q]."""

CHORD_PRICE = v**2 * (kappa - 1)
"""The price below which the envelope on [0, 1] takes a whole dimension, and above which nothing."""

GAP = (
    2
    * v**2
    * (kappa - 1) ** 2
    * (3 - kappa)
    * (C - low)
    * (high - C)
    / ((2 + (kappa - 3) * low) * (2 + (kappa - 3) * high) * (2 + (kappa - 3) * C))
)
"""By how much the loss exceeds its chord."""

INVERSE_CURVATURE = v * (kappa - 1) / (4 * tau**3 * (kappa - 3))
"""1/f″ of a feature with 0 < C < 1 at the scale τ; its sum over all of them must not be positive if one is concave."""


def derive() -> Derivation:
    """Prove what an optimum with concave features looks like, and the envelope that bounds it."""
    d = Derivation(
        name="concave",
        title="Kurtosis below 3",
        statement=(
            r"A feature with $1 < \kappa < 3$ has a strictly concave loss. At an optimum at most one such feature is "
            "fractional. The convex envelope of its loss is the chord, so that it takes everything below the price "
            r"$v^2 (\kappa-1)$ and nothing above. If a concave feature is fractional next to convex ones, then "
            r"$\sum_i v_i (\kappa_i-1)/(\kappa_i-3) \le 0$ over all fractional features."
        ),
        assumptions=(
            r"$f$ is the loss of a feature at capacity $C$ (`capacity_loss`); $\sum_i C_i = D$, $0 \le C_i \le 1$.",
        ),
        source=(
            "arXiv 2210.01892 v4, equations 4 to 8 (increasing marginal value); Falk and Soland 1969 for envelopes "
            "on boxes"
        ),
    )
    f, chord, best = sp.Function("f"), sp.Function("chord"), sp.Function("C_opt")
    below_three = {kappa: 1 + 2 / (1 + c)}
    inside = {C: 1 / (1 + t)}
    d.define("A feature costs", f(C), capacity_loss.FEATURE_LOSS)
    d.positive(r"For $1 < \kappa < 3$ this is strictly concave.", -sp.Derivative(f(C), C, C), {**below_three, **inside})

    # ---- at most one fractional
    shift = sp.Symbol("epsilon", real=True)
    v_1, v_2, kappa_1, kappa_2, C_1, C_2, k_1, k_2, t_1, t_2 = sp.symbols(
        "v_1 v_2 kappa_1 kappa_2 C_1 C_2 k_1 k_2 t_1 t_2", positive=True
    )
    move = sp.Function("Delta")
    loss = capacity_loss.FEATURE_LOSS
    d.define(
        r"At most one is fractional. Suppose two are, and move $\epsilon$ of capacity from one to the other: the two "
        "then cost",
        move(shift),
        loss.subs({v: v_1, kappa: kappa_1, C: C_1 + shift}, simultaneous=True)
        + loss.subs({v: v_2, kappa: kappa_2, C: C_2 - shift}, simultaneous=True),
    )
    d.positive(
        r"This is strictly concave in $\epsilon$ wherever the two capacities are. Over an interval it is least at an "
        r"end, and never at $\epsilon = 0$ inside: not an optimum.",
        -sp.Subs(sp.Derivative(move(shift), shift, shift), shift, 0),
        {
            C_1: 1 / (1 + t_1),
            C_2: 1 / (1 + t_2),
            kappa_1: 1 + 2 / (1 + k_1),
            kappa_2: 1 + 2 / (1 + k_2),
        },
    )
    d.remark("Hence, when all features are concave and $D$ is an integer, every capacity is 0 or 1.")

    # ---- second-order condition
    d.remark(
        "One concave feature next to convex ones. Let $h_i$ be the curvatures of the fractional features, $h_0 < 0$ "
        r"and the others positive. An optimum needs $h_0 x_0^2 + \sum_{i \ge 1} h_i x_i^2 \ge 0$ for all $x$ that "
        "sum to 0."
    )
    h, x, X, R = sp.symbols("h x X R", positive=True)
    term = sp.Function("e")
    d.define(
        r"With $X = \sum_{i \ge 1} x_i = -x_0$ and $R = \sum_{i \ge 1} 1/h_i$ consider",
        term(x, h),
        h * (x - X / (h * R)) ** 2,
    )
    d.equal("Term by term", term(x, h), h * x**2 - 2 * X * x / R + X**2 / (R**2 * h))
    d.remark(
        r"and the sum over $i \ge 1$ of the right-hand side is $\sum h_i x_i^2 - 2 X^2/R + X^2/R$, whatever their "
        "number."
    )
    for count in (2, 3):
        hs, xs = family("h", count, positive=True), family("x", count, real=True)
        total, inverse = sum(xs), sum(1 / y for y in hs)
        d.equal(
            f"For {count} convex features, for example,",
            sum(y * z**2 for y, z in zip(hs, xs, strict=True)) - total**2 / inverse,
            sum(y * (z - total / (y * inverse)) ** 2 for y, z in zip(hs, xs, strict=True)),
        )
    h_0 = sp.Symbol("h_0", negative=True)
    d.equal(
        r"So $\sum_{i \ge 1} h_i x_i^2 \ge X^2/R$ with equality at $x_i = X/(h_i R)$, and the condition is $h_0 + "
        r"1/R \ge 0$. In terms of the sum of all inverse curvatures, $R + 1/h_0$:",
        h_0 + 1 / R,
        h_0 / R * (R + 1 / h_0),
    )
    d.remark("As $h_0/R$ is negative, that sum must not be positive.")
    d.define(r"At the scale $\tau$ a fractional feature, convex or not, holds", best(tau), equilibrium.CAPACITY)
    d.equal(
        r"as its marginal value is $2 \tau^2$,",
        -sp.Subs(sp.Derivative(f(C), C), C, best(tau)),
        2 * tau**2,
    )
    d.result(
        "INVERSE_CURVATURE",
        "and its inverse curvature is",
        1 / sp.Subs(sp.Derivative(f(C), C, C), C, best(tau)),
        INVERSE_CURVATURE,
    )
    d.equal(
        r"The sum of these is, up to a positive factor, that of $v_i (\kappa_i-1)/(\kappa_i-3)$, the slope of the "
        r"capacity in $1/\tau$. So where a concave feature is fractional, the price rises with the budget.",
        sp.Derivative(best(tau), tau),
        -4 * tau * INVERSE_CURVATURE,
    )

    # ---- the envelope
    interval = (C, low, high)
    d.define("The envelope on an interval $[p, q]$ of capacities. The chord is", chord(*interval), CHORD)
    d.equal("It meets the loss at $p$", chord(low, low, high), f(low))
    d.equal("and at $q$.", chord(high, low, high), f(high))
    d.result("GAP", "In between, the loss exceeds it by", f(C) - chord(*interval), GAP)
    third = sp.Symbol("r", positive=True)
    d.positive(
        r"a positive number for $1 < \kappa < 3$ and $p < C < q < 1$ (here $p$, $C-p$, $q-C$ and $1-q$ are in the "
        "proportions $a : b : t : r$).",
        GAP,
        {
            C: (a + b) / (a + b + t + third),
            high: (a + b + t) / (a + b + t + third),
            low: a / (a + b + t + third),
            **below_three,
        },
    )
    d.remark(
        "So the chord lies below the loss. And no convex function below the loss exceeds the chord: at the ends it "
        "is at most $f(p)$ and $f(q)$, and in between at most the chord of its own values there. The chord is the "
        "envelope."
    )
    d.result(
        "CHORD",
        "It is linear in $C$:",
        sp.Derivative(chord(*interval), C),
        (f(high) - f(low)) / (high - low),
        value=CHORD,
    )
    d.equal("On the whole interval it is", chord(C, 0, 1), v**2 * (kappa - 1) * (1 - C))
    d.result(
        "CHORD_PRICE",
        "and saves at a constant rate, so that the envelope takes everything below this price and nothing above:",
        -sp.Derivative(chord(C, 0, 1), C),
        CHORD_PRICE,
    )
    d.remark(
        "Replacing every concave loss by its chord gives a convex problem whose minimum is a lower bound. Where its "
        "solution is fractional in a concave feature, splitting that feature's interval there raises the bound on "
        "both parts."
    )
    return d
