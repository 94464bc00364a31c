"""Importances that fall as a power of the rank: shares of the phases, price and loss as powers of the budget."""

from __future__ import annotations

import sympy as sp

from derivations import equilibrium
from derivations.core import Derivation
from derivations.symbols import D, kappa, tau, v

alpha = sp.Symbol("alpha", positive=True)
"""The exponent: v_i = i^−α."""
n = sp.Symbol("n", positive=True)
"""Number of features."""
s = sp.Symbol("s", positive=True)
"""Dimensions per monosemantic feature, `SPREAD`, in the formulas for price and loss."""

_HALF = sp.Rational(1, 2)

BREADTH = ((kappa - 1) / 2) ** (1 / alpha)
"""r: represented features per monosemantic feature."""

SPREAD = alpha * (kappa - 1 - 2 * BREADTH) / ((kappa - 3) * (alpha - 1))
"""s: dimensions per monosemantic feature, for α ≠ 1."""

SPREAD_AT_ONE = (kappa - 1) * sp.log((kappa - 1) / 2) / (kappa - 3)
"""s for α = 1."""

MONOSEMANTIC = 1 / s
"""Monosemantic features per dimension."""

POLYSEMANTIC = (BREADTH - 1) / s
"""Polysemantic features per dimension."""

POLYSEMANTIC_DIMENSIONS = 1 - 1 / s
"""The share of the dimensions that polysemantic features take up."""

PRICE = 2 * (s / D) ** (2 * alpha)
"""λ in the continuum limit."""

LOSS = 2 * s ** (2 * alpha) * D ** (1 - 2 * alpha) / (2 * alpha - 1)
"""The loss of infinitely many features in the continuum limit, for α > 1/2."""

LOSS_FINITE = LOSS - (kappa - 1) * n ** (1 - 2 * alpha) / (2 * alpha - 1)
"""The loss of n features, for any α ≠ 1/2 and D ≤ s n/r."""

LOSS_AT_HALF = (kappa - 1) * (2 + sp.log(n / D) - (kappa + 1) / (kappa - 3) * sp.log((kappa - 1) / 2))
"""The loss of n features for α = 1/2."""

PRICE_CORRECTED = PRICE.subs(D, D + _HALF)
"""λ with the first correction for whole features; what remains is of relative order 1/D²."""

LOSS_CORRECTED = LOSS.subs(D, D + _HALF)
"""The loss of infinitely many features with that correction."""

LOSS_FINITE_CORRECTED = LOSS_FINITE.subs({D: D + _HALF, n: n + _HALF}, simultaneous=True)
"""The loss of n features with that correction at both ends."""

COUNT_ERROR = alpha * (kappa - 1) / (6 * (kappa - 3)) * tau ** (1 / alpha)
"""A bound on |D + 1/2 − s a| for whole features, where a = τ^(−1/α)."""


def derive() -> Derivation:
    """Prove the continuum limit of power-law importances and its first correction."""
    d = Derivation(
        name="power_law",
        title="Power-law importances",
        statement=(
            r"Features of equal kurtosis $\kappa > 3$ have the importances $v_i = i^{-\alpha}$. In the continuum "
            "limit those up to the rank $a = D/s$ are monosemantic, those up to $r a$ polysemantic and the others "
            r"ignored, with $r = ((\kappa-1)/2)^{1/\alpha}$ and $s = \alpha (\kappa-1-2r)/((\kappa-3)(\alpha-1))$. "
            r"The price is $2 (s/D)^{2\alpha}$ for every $\alpha > 0$. The loss of infinitely many features is "
            r"finite for $\alpha > 1/2$, and falls as $D^{1-2\alpha}$. That features are whole replaces $D$ by $D + "
            "1/2$, up to relative errors of order $1/D^2$."
        ),
        assumptions=(
            "The optimal capacities of `equilibrium`.",
            r"There are enough features for some to be ignored: $n \ge r a$, that is $D \le s n/r$.",
        ),
        source="Follows from arXiv 2210.01892 v4, equations 15 to 18; not in the paper",
    )
    x, r, a, q = sp.symbols("x r a q", positive=True)
    capacity, cost, primitive = sp.Function("C"), sp.Function("h"), sp.Function("F")

    # ---- who is where
    d.define(r"Write $r$ for $((\kappa-1)/2)^{1/\alpha}$ or, the other way round,", kappa, 1 + 2 * r**alpha)
    d.result("BREADTH", "so that", r, BREADTH)
    d.define(
        "Let $a$ be the rank at which the importance is the scale, the last monosemantic feature,", tau, a ** (-alpha)
    )
    d.equal("The last represented one has the rank $r a$:", equilibrium.IGNORED_FROM.subs(v, (r * a) ** (-alpha)), tau)
    d.define(
        "The capacity of a feature in between depends on its rank through $x = i/a$ alone,",
        capacity(x),
        ((kappa - 1) * x ** (-alpha) - 2) / (kappa - 3),
    )
    d.equal("because", equilibrium.CAPACITY.subs(v, (x * a) ** (-alpha)), capacity(x))
    d.equal("It starts at", capacity(1), 1)
    d.equal("and ends at", capacity(r), 0)

    # ---- the budget
    d.define(
        r"The budget, in units of $a$, is $s = 1 + \int_1^r C dx$. For $\alpha \ne 1$, with the primitive",
        primitive(x),
        ((kappa - 1) * x ** (1 - alpha) / (1 - alpha) - 2 * x) / (kappa - 3),
    )
    d.equal("(since", sp.Derivative(primitive(x), x), capacity(x))
    d.result("SPREAD", "it is", 1 + primitive(r) - primitive(1), SPREAD)
    in_q = {kappa: 1 + 2 * q}
    d.result(
        "SPREAD_AT_ONE",
        r"For $\alpha = 1$ it is the limit, here with $q = (\kappa-1)/2$:",
        sp.Limit(SPREAD.subs(in_q), alpha, 1, "+-"),
        SPREAD_AT_ONE.subs(in_q),
        value=SPREAD_AT_ONE,
    )
    d.equal(r"For $\kappa \to 3$ nobody shares,", sp.Limit(SPREAD.subs(in_q), q, 1, "+-"), 1)
    d.equal(
        r"and for $\kappa \to \infty$, that is $q \to \infty$, $s$ falls to $\alpha/(\alpha-1)$ if $\alpha > 1$, "
        r"where both powers of $q$ vanish, but grows without limit if $\alpha < 1$:",
        SPREAD.subs(in_q),
        alpha / (alpha - 1) * (1 - q ** (1 / alpha - 1)) / (1 - 1 / q),
    )
    ranks = sp.Function("a")
    d.define("Hence the budget determines the ranks,", ranks(D), D / s)
    d.result("MONOSEMANTIC", "and per dimension there are, of monosemantic features,", ranks(D) / D, MONOSEMANTIC)
    d.result("POLYSEMANTIC", "of polysemantic ones", (r * ranks(D) - ranks(D)) / D, POLYSEMANTIC)
    d.result(
        "POLYSEMANTIC_DIMENSIONS", "which share of the dimensions the part", (D - ranks(D)) / D, POLYSEMANTIC_DIMENSIONS
    )

    nine = SPREAD_AT_ONE.subs(kappa, 9)
    monosemantic = float(1 / nine)
    d.equal(
        rf"For example $\alpha = 1$ and $\kappa = 9$: $r = 4$ and $s = {float(nine):.4f}$, so that each dimension "
        f"holds {monosemantic:.4f} monosemantic and {3 * monosemantic:.4f} polysemantic features, and the latter "
        f"take up {1 - monosemantic:.1%} of the dimensions.",
        sp.Subs(SPREAD_AT_ONE.subs(kappa, q), q, 9),
        sp.Rational(4, 3) * sp.log(4),
    )

    # ---- price and loss
    price, loss = sp.Function("lambda"), sp.Function("L")
    d.result("PRICE", r"The price is $2 \tau^2$ with $\tau = a^{-\alpha}$:", 2 * ranks(D) ** (-2 * alpha), PRICE)
    d.define(
        r"It falls as a power of the budget, for every $\alpha > 0$: the ignored features have no say in it.",
        price(D),
        PRICE,
    )
    d.define(
        r"The loss. A polysemantic feature costs $2 \tau v (1-C)$, in units of $\tau^2$",
        cost(x),
        2 * x ** (-alpha) * (1 - capacity(x)),
    )
    outside = (kappa - 1) * x ** (-2 * alpha)
    d.equal(
        r"and an ignored one $v^2 (\kappa-1)$, in these units $(\kappa-1) x^{-2\alpha}$, the same where the two meet:",
        cost(r),
        sp.Subs(outside, x, r),
    )
    costs, ignored = sp.Function("H"), sp.Function("K")
    d.define(
        "Primitives of the two are",
        costs(x),
        2 * (kappa - 1) / (kappa - 3) * (x ** (1 - alpha) / (1 - alpha) - x ** (1 - 2 * alpha) / (1 - 2 * alpha)),
    )
    d.define("and", ignored(x), (kappa - 1) * x ** (1 - 2 * alpha) / (1 - 2 * alpha))
    d.equal("as", sp.Derivative(costs(x), x), cost(x))
    d.equal("and", sp.Derivative(ignored(x), x), outside)
    excess = sp.Symbol("epsilon", positive=True)
    d.equal(
        r"The second vanishes at infinity for $\alpha = 1/2 + \epsilon$ with $\epsilon > 0$,",
        sp.Limit(x ** (1 - 2 * (_HALF + excess)), x, sp.oo),
        0,
    )
    d.holds(
        r"and grows without limit for $\alpha = 1/2 - \epsilon$: the ignored features cost a finite amount for "
        r"$\alpha > 1/2$ only.",
        sp.limit(x ** (1 - 2 * (_HALF - excess)), x, sp.oo) == sp.oo,
    )
    d.equal(
        r"Up to infinity, all together cost, in units of $a \tau^2$,",
        costs(r) - costs(1) - ignored(r),
        2 * SPREAD / (2 * alpha - 1),
    )
    d.result(
        "LOSS",
        r"which with $a = D/s$ and $\tau = a^{-\alpha}$ makes the loss",
        ranks(D) ** (1 - 2 * alpha) * 2 * s / (2 * alpha - 1),
        LOSS,
    )
    d.define("It falls as a power of the budget, too,", loss(D), LOSS)
    d.equal("as it must, for its derivative is the price:", -sp.Derivative(loss(D), D), price(D))
    d.result(
        "LOSS_FINITE",
        r"Of $n$ features the tail is missing. The ignored ones end at $x = n/a$, for any $\alpha \ne 1/2$:",
        loss(D) + ranks(D) ** (1 - 2 * alpha) * ignored(n / ranks(D)),
        LOSS_FINITE,
    )
    held = (2 * q / sp.sqrt(x) - 2) / (2 * q - 2)
    d.result(
        "LOSS_AT_HALF",
        r"For $\alpha = 1/2$ the powers become logarithms. There $a \tau^2 = 1$ and, with $\kappa = 1 + 2q$, $r = "
        "q^2$ and $s = q$:",
        sp.Integral(2 / sp.sqrt(x) * (1 - held), (x, 1, q**2)) + sp.Integral(2 * q / x, (x, q**2, n * q / D)),
        LOSS_AT_HALF.subs(in_q),
        value=LOSS_AT_HALF,
    )

    # ---- whole features
    g, bernoulli = sp.Function("g"), sp.Function("B")
    t = sp.Symbol("t", real=True)
    d.define(
        "Whole features. Sums over whole ranks differ from integrals (Euler and Maclaurin). With",
        bernoulli(t),
        t**2 - t + sp.Rational(1, 6),
    )
    d.equal(
        "the product rule gives, for every $g$,",
        sp.Derivative((t - _HALF) * g(t) - bernoulli(t) * sp.Derivative(g(t), t) / 2, t),
        g(t) - bernoulli(t) * sp.Derivative(g(t), t, t) / 2,
    )
    d.equal("As $B$ has the same value at both ends,", bernoulli(0), bernoulli(1), sp.Rational(1, 6))
    d.remark(
        r"integrating from rank to rank gives $\int_0^\infty g = g(0)/2 + \sum_{i \ge 1} g(i) + g'(0)/12 + \int B "
        "g''/2$ for a function that vanishes far out, with $B$ taken of the fractional part. At a kink, where $g'$ "
        r"jumps by $J$, the boundary terms add $B J/2$. For instance, where a ramp $g = t - \theta$ starts at "
        r"$\theta$ between two ranks, half the sum of the two values minus the integral"
    )
    theta = sp.Symbol("theta", positive=True)
    d.equal(
        "is $1/12 - B/2$:",
        (1 - theta) / 2 - sp.Integral(t - theta, (t, theta, 1)),
        sp.Rational(1, 12) - bernoulli(theta) / 2,
    )
    d.equal("Between 0 and 1, $B$ is at most 1/6", sp.Rational(1, 6) - bernoulli(t), t * (1 - t))
    d.equal("and at least $-1/12$.", bernoulli(t) + sp.Rational(1, 12), (t - _HALF) ** 2)
    d.remark(
        "Here $g(i) = C(i/a)$ is 1 at first, so $g(0) = 1$ and $g'(0) = 0$; it has kinks where it leaves 1 and "
        r"where it reaches 0, with $|J| = |C'(1)|/a$ and $|C'(r)|/a$. So the budget is $D = \sum_{i \ge 1} g(i) = s "
        r"a - 1/2$ but for an error of at most $1/12$ of $\sum |J| + \int |g''|$. In between"
    )
    d.equal(
        "the slope is negative and",
        sp.Derivative(capacity(x), x),
        -alpha * (kappa - 1) * x ** (-alpha - 1) / (kappa - 3),
    )
    d.equal(
        "the curvature positive,",
        sp.Derivative(capacity(x), x, x),
        alpha * (alpha + 1) * (kappa - 1) * x ** (-alpha - 2) / (kappa - 3),
    )
    slope = sp.Function("S")
    d.define("so with the slope", slope(x), -alpha * (kappa - 1) * x ** (-alpha - 1) / (kappa - 3))
    d.result(
        "COUNT_ERROR",
        "the sizes of the kinks and the integral of the curvature, $C'(r) - C'(1)$, add up to $2 |C'(1)|$. The error "
        "of the budget is at most",
        (-slope(1) - slope(r) + (slope(r) - slope(1))) / (12 * a),
        COUNT_ERROR,
    )
    d.remark(
        r"for every $\tau$. It is of order $1/a$, so that $a = (D + 1/2)/s$ up to a relative error of order $1/D^2$."
    )
    d.result("PRICE_CORRECTED", "The price with the first correction is", price(D + _HALF), PRICE_CORRECTED)
    d.equal(
        r"that is, lower than in the continuum limit by the relative amount $\alpha/D$:",
        sp.Limit(D * (price(D + _HALF) / price(D) - 1), D, sp.oo),
        -alpha,
    )
    d.result("LOSS_CORRECTED", "The loss follows, as its derivative is the price:", loss(D + _HALF), LOSS_CORRECTED)
    y = sp.Symbol("y", positive=True)
    d.equal(
        r"The tail of $n$ features is a sum as well, $\sum_{i > n} i^{-2\alpha} = \int_n^\infty i^{-2\alpha} di - "
        r"n^{-2\alpha}/2$ up to terms smaller by $1/n^2$. So is the integral from $n + 1/2$. In units of "
        r"$n^{1-2\alpha}/(2\alpha-1)$ and with $y = 1/n$ the two differ by",
        sp.Limit(((1 + y / 2) ** (1 - 2 * alpha) - (1 - (2 * alpha - 1) * y / 2)) / y**2, y, 0),
        alpha * (2 * alpha - 1) / 4,
    )
    d.result(
        "LOSS_FINITE_CORRECTED",
        "times $y^2$. So $n$ features lose",
        loss(D + _HALF) - (kappa - 1) * (n + _HALF) ** (1 - 2 * alpha) / (2 * alpha - 1),
        LOSS_FINITE_CORRECTED,
    )
    return d
