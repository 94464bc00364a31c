"""What a feature costs at a given capacity, and what more capacity is worth to it."""

from __future__ import annotations

import sympy as sp

from derivations.core import Derivation
from derivations.symbols import C, a, c, gamma, kappa, m, t, v

SQUARED_NORM = v * (kappa - 1) * C / (2 + (kappa - 3) * C)
"""m(C), the best squared norm |w|² of a row that holds capacity C."""

FEATURE_LOSS = 2 * v**2 * (kappa - 1) * (1 - C) / (2 + (kappa - 3) * C)
"""f(C), the least loss of a feature at capacity C."""

MARGINAL = 2 * v**2 * (kappa - 1) ** 2 / (2 + (kappa - 3) * C) ** 2
"""−f′(C), the marginal value of capacity."""

CURVATURE = 4 * v**2 * (kappa - 1) ** 2 * (kappa - 3) / (2 + (kappa - 3) * C) ** 3
"""f″(C), whose sign is that of κ − 3."""


def derive() -> Derivation:
    """Prove equations 13 and 14: the loss as a function of the capacities alone."""
    d = Derivation(
        name="capacity_loss",
        title="The loss as a function of capacity",
        statement=(
            r"At the best norm of its row, a feature of importance $v$ and kurtosis $\kappa$ that holds capacity $C$ "
            r"costs $f(C) = v^2 (\kappa-1) (1-C) / (1 + \gamma C)$ with $\gamma = (\kappa-3)/2$. Its returns "
            r"diminish for $\kappa > 3$, are constant for $\kappa = 3$ and increase for $\kappa < 3$."
        ),
        assumptions=(
            r"The loss with the bias at its optimum is $L = \sum_i (\kappa_i-1) (v_i-m_i)^2 + 2 \sum_{i \ne j} "
            "G_{ij}^2$, with $G = W W^T$ and $m_i = G_{ii} = |w_i|^2$ (`expected_loss`).",
            r"$C_i = m_i^2 / \sum_j G_{ij}^2$ is the capacity of row $i$.",
            r"$\kappa > 1$, $v > 0$ and $0 < C < 1$; the ends by continuity.",
        ),
        source="arXiv 2210.01892 v4, equations 13 and 14",
    )
    f, norm, ell = sp.Function("f"), sp.Function("m_opt"), sp.Function("L_1")
    interference = sp.Symbol("q", positive=True)

    d.equal(
        r"Let $q = \sum_{j \ne i} G_{ij}^2$ be the interference that row $i$ suffers from all others, so that $C = "
        "m^2/(m^2+q)$. The norm and the capacity determine it:",
        interference,
        m**2 * (1 / (m**2 / (m**2 + interference)) - 1),
    )
    d.define(
        r"As $\sum_{i \ne j} G_{ij}^2$ is the sum of the $q_i$, the loss is a sum over features. One of them, with "
        "$m$ and $C$ still free, contributes",
        ell(m, C),
        (kappa - 1) * (v - m) ** 2 + 2 * m**2 * (1 / C - 1),
    )
    d.positive(
        "This is strictly convex in $m$,",
        sp.Derivative(ell(m, C), m, m),
        {kappa: 1 + a, C: 1 / (1 + t)},
    )
    d.define(
        "so that its only stationary point is the minimum. With half the excess kurtosis",
        gamma,
        sp.Mul(sp.Rational(1, 2), kappa - 3, evaluate=False),
    )
    d.define("this point is", norm(C), SQUARED_NORM)
    d.equal("for there the derivative vanishes:", sp.Subs(sp.Derivative(ell(m, C), m), m, norm(C)), 0)
    d.equal(
        r"(The denominator, twice $1 + \gamma C$, is positive: both terms on the right are.)",
        1 + gamma * C,
        (1 - C) + (kappa - 1) * C / 2,
    )
    d.result(
        "SQUARED_NORM",
        "The squared norm of a row at capacity $C$ is",
        norm(C),
        v * (kappa - 1) / 2 * C / (1 + gamma * C),
        SQUARED_NORM,
    )
    d.equal("and misses the importance by", v - norm(C), v * (1 - C) / (1 + gamma * C))
    d.define("Write $f$ for the loss at this norm,", f(C), ell(norm(C), C))
    d.result(
        "FEATURE_LOSS",
        "The loss of a feature at capacity $C$:",
        f(C),
        v**2 * (kappa - 1) * (1 - C) / (1 + gamma * C),
        FEATURE_LOSS,
    )
    d.result("MARGINAL", "The marginal value of capacity:", -sp.Derivative(f(C), C), MARGINAL)
    d.equal(
        "It is twice the square of $m/C$, whatever the kurtosis: features that pay the same price have the same "
        "ratio of squared norm to capacity.",
        -sp.Derivative(f(C), C),
        2 * (norm(C) / C) ** 2,
    )
    d.result("CURVATURE", "The curvature:", sp.Derivative(f(C), C, C), CURVATURE)
    d.positive(
        r"Its sign is the sign of $\kappa - 3$: positive for $\kappa > 3$ (share),",
        sp.Derivative(f(C), C, C),
        {kappa: 3 + a, C: 1 / (1 + t)},
    )
    d.equal(r"zero for $\kappa = 3$ (indifferent),", sp.Limit(sp.Derivative(f(C), C, C), kappa, 3, "+-"), 0)
    d.positive(
        r"and negative for $1 < \kappa < 3$ (all or nothing).",
        -sp.Derivative(f(C), C, C),
        {kappa: 1 + 2 / (1 + c), C: 1 / (1 + t)},
    )
    d.equal(
        "The ends. A feature without capacity costs the variance of its target,",
        sp.Limit(f(C), C, 0),
        v**2 * (kappa - 1),
    )
    d.equal("one that has a dimension to itself costs nothing,", sp.Limit(f(C), C, 1, "-"), 0)
    d.equal("and is embedded at its importance.", sp.Limit(norm(C), C, 1, "-"), v)
    d.equal(
        r"The limits of the kurtosis. Dense binary inputs, $\kappa \to 1$: the square is a constant that the bias "
        "learns, and short of a full dimension capacity makes no difference to the little that is left.",
        sp.Limit(f(C) / (kappa - 1), kappa, 1),
        v**2,
    )
    d.equal(
        r"Gaussian inputs, $\kappa = 3$: the loss falls in a straight line.",
        sp.Limit(f(C), kappa, 3, "+-"),
        2 * v**2 * (1 - C),
    )
    d.equal(r"Very sparse inputs, $\kappa \to \infty$:", sp.Limit(f(C), kappa, sp.oo), 2 * v**2 * (1 / C - 1))
    d.equal(
        "with a marginal value that no longer depends on the kurtosis,",
        sp.Limit(-sp.Derivative(f(C), C), kappa, sp.oo),
        2 * v**2 / C**2,
    )
    d.equal("and every row at the length of its importance.", sp.Limit(norm(C), kappa, sp.oo), v)
    return d
