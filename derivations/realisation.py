"""Why the relaxation to capacities loses nothing: an embedding with exactly these capacities and norms."""

from __future__ import annotations

import sympy as sp

from derivations import capacity_loss, equilibrium
from derivations.core import Derivation
from derivations.symbols import C, a, b, c, kappa, tau, v

p_i, p_j = sp.symbols("p_i p_j", positive=True)
g = sp.Symbol("g", real=True)

TAN_SQUARED = (p_i - c) / (c - p_j)
"""tan²θ of the rotation that takes the diagonal entry p_i to c, and p_j to p_i + p_j − c, when they are uncoupled."""

ANGLE = sp.atan(sp.sqrt(TAN_SQUARED))
"""θ itself."""

TAN_COUPLED = (g + sp.sqrt(g**2 + (p_i - c) * (c - p_j))) / (c - p_j)
"""tan θ when the two coordinates are coupled by an off-diagonal entry g."""


def fill(capacities: list[sp.Rational]) -> sp.ImmutableMatrix:
    """Return a projection with the given diagonal, built with one rotation less than it has rows.

    The capacities lie strictly between 0 and 1 and have an integer sum d. The projection starts as diag(1, …, 1,
    0, …, 0). One coordinate is under way; it trades with one not touched so far until one of the two has reached its
    capacity, and the other goes on.
    """
    count, d = len(capacities), int(sum(capacities))
    projection = sp.diag(*[1] * d, *[0] * (count - d))
    untouched, current = list(range(1, count)), 0
    while untouched:
        have, want = projection[current, current], capacities[current]
        # too much: give to a coordinate that has nothing; too little: take from one that has everything
        partner = next(k for k in untouched if projection[k, k] == (0 if have > want else 1))
        untouched.remove(partner)
        high, low = (current, partner) if have > want else (partner, current)
        surplus = projection[high, high] - capacities[high]
        deficit = capacities[low] - projection[low, low]
        reached = projection[high, high] - min(surplus, deficit)
        tan_squared = TAN_SQUARED.subs({p_i: projection[high, high], p_j: projection[low, low], c: reached})
        rotation = sp.eye(count)
        rotation[high, high] = rotation[low, low] = 1 / sp.sqrt(1 + tan_squared)
        rotation[high, low] = sp.sqrt(tan_squared / (1 + tan_squared))
        rotation[low, high] = -rotation[high, low]
        projection = (rotation * projection * rotation.T).applyfunc(lambda e: sp.radsimp(sp.expand(e)))
        current = low if surplus <= deficit else high
    return projection.as_immutable()


def derive() -> Derivation:
    """Prove that an optimal allocation of an integer number of dimensions is the allocation of some embedding."""
    d = Derivation(
        name="realisation",
        title="Every optimal allocation is that of an embedding",
        statement=(
            r"For an integer $D$ the least loss over embeddings equals the least $\sum_i f_i(C_i)$ over capacities. "
            r"The polysemantic features of the optimum share one ratio $m_i/C_i = \tau$, even when their kurtosis "
            "differs; they form one tight frame, whose projection with the diagonal $C_i$ takes one rotation less "
            "than there are features in it."
        ),
        assumptions=(
            r"$\kappa_i > 3$; or $\kappa_i < 3$ and an optimum at which all polysemantic features have the same "
            "marginal value.",
            "$D$ is an integer, and smaller than the number of features of positive importance.",
        ),
        source=(
            "arXiv 2210.01892 v4, Theorem 2 for the block structure; the theorem of Schur and Horn for the diagonals "
            "of projections; Dhillon, Heath, Sustik and Tropp 2005 for finite constructions"
        ),
    )
    best, norm, f, ell = sp.Function("C_opt"), sp.Function("m_opt"), sp.Function("f"), sp.Function("L_1")
    m = sp.Symbol("m", positive=True)

    d.remark(
        r"First the bound. Every embedding has capacities with $0 \le C_i \le 1$ and $\sum_i C_i \le D$ "
        r"(`capacity_bounds`), and with those it loses at least $\sum_i f_i(C_i)$ (`capacity_loss`). So no embedding "
        "beats the best allocation, and it remains to build one that is as good."
    )

    # ---- constant ratio
    d.define("At capacity $C$ the best squared norm is", norm(C), capacity_loss.SQUARED_NORM)
    d.define("At the optimum a polysemantic feature holds", best(tau), equilibrium.CAPACITY)
    d.equal("Importance and kurtosis cancel from the ratio of the two:", norm(best(tau)) / best(tau), tau)
    d.define(
        "The same follows from equal marginal values alone, for any kurtosis: with", f(C), capacity_loss.FEATURE_LOSS
    )
    d.equal("the ratio is a function of the marginal value.", -sp.Derivative(f(C), C), 2 * (norm(C) / C) ** 2)
    d.equal("A monosemantic feature has the squared norm", sp.Limit(norm(C), C, 1, "-"), v)

    # ---- what the Gram matrix must be
    d.remark(
        "The polysemantic capacities sum to $d$, which is $D$ minus the number of monosemantic features, an "
        r"integer. Suppose that there is a projection of rank $d$ with this diagonal, $\Pi^2 = \Pi = \Pi^T$ and "
        r"$\Pi_{ii} = C_i$. Give the polysemantic features rows in $d$ dimensions with the Gram matrix $G = \tau "
        r"\Pi$, every monosemantic feature an axis of its own and the squared norm $v_i$, and the ignored ones "
        "zeros. That takes $D$ dimensions."
    )
    own, row = sp.symbols("G_ii q_i", positive=True)
    d.define("The squared norm of such a row is", own, tau * C)
    d.define(
        r"and, as $\sum_j \Pi_{ij}^2 = (\Pi^2)_{ii} = \Pi_{ii}$ for a projection, its products with all rows have "
        "the sum of squares",
        row,
        tau**2 * C,
    )
    d.equal("so its capacity is the wanted one,", own**2 / row, C)
    d.equal("its squared norm too,", tau * best(tau), norm(best(tau)))
    d.define(
        "and its share of the loss",
        ell(m, C),
        (kappa - 1) * (v - m) ** 2 + 2 * m**2 * (1 / C - 1),
    )
    d.equal("is that of the allocation:", ell(tau * best(tau), best(tau)), f(best(tau)))

    # ---- the rotation
    theta = sp.Symbol("theta", real=True)
    first, second = sp.Function("P_1"), sp.Function("P_2")
    rotation = sp.Matrix([[sp.cos(theta), sp.sin(theta)], [-sp.sin(theta), sp.cos(theta)]])
    mixed = rotation * sp.Matrix([[p_i, g], [g, p_j]]) * rotation.T
    d.remark(
        r"The projection. Start from $\mathrm{diag}(1, \ldots, 1, 0, \ldots, 0)$ with $d$ ones and rotate two "
        "coordinates at a time by orthogonal matrices, which leaves it a projection of rank $d$:"
    )
    d.equal("indeed", sp.MatMul(rotation, rotation.T, evaluate=False), sp.eye(2))
    d.define("Two diagonal entries $p_i > p_j$, coupled by $g$, become", first(theta), sp.expand(mixed[0, 0]))
    d.define("and", second(theta), sp.expand(mixed[1, 1]))
    d.result(
        "TAN_COUPLED",
        r"With $t = \tan \theta$ the first is $c$ where $(p_j - c) t^2 + 2 g t + p_i - c = 0$, for instance at this "
        "$t$:",
        (p_j - c) * TAN_COUPLED**2 + 2 * g * TAN_COUPLED + p_i - c,
        0,
        value=TAN_COUPLED,
    )
    d.positive("The root is real whenever $p_j < c < p_i$,", g**2 + (p_i - c) * (c - p_j), {p_i: c + a, c: p_j + b})
    d.equal("and the sum of the two never changes:", first(theta) + second(theta), p_i + p_j)
    d.result(
        "TAN_SQUARED",
        "We only need coordinates that are not coupled, $g = 0$. For them the square of the (positive) root is",
        sp.Subs(TAN_COUPLED**2, g, 0),
        TAN_SQUARED,
    )
    d.result(
        "ANGLE",
        "and the first entry becomes $c$ by a rotation through the angle",
        sp.Subs(first(ANGLE), g, 0),
        c,
        value=ANGLE,
    )

    # ---- the construction
    d.remark(
        "The construction. One coordinate is under way; the others have reached their capacity, or are untouched: on "
        "the diagonal 0 or 1, coupled to nothing. The deviations from the capacities sum to 0, and only the "
        "coordinate under way and the untouched ones have any. So if it has too much, $p > C$, some untouched "
        "coordinate $k$ has too little, and therefore 0; if it has too little, some untouched coordinate has too "
        "much, and therefore 1. The two trade the smaller one of surplus and deficit, so that at least one of them "
        "arrives and the other goes on."
    )
    moved = sp.Symbol("delta", positive=True)
    p = sp.Symbol("p", positive=True)
    d.positive(
        r"Giving to a 0: what is left, $p - \delta$ with $\delta \le p - C$, lies between 0 and $p$, so the rotation "
        "exists.",
        p - moved,
        {p: C + moved + a},
    )
    d.positive(
        r"Taking from a 1: what is left there, $1 - \delta$ with $\delta \le C - p$, lies between $p$ and 1.",
        (1 - moved) - p,
        {p: C - moved - a, C: 1 / (1 + b)},
    )
    d.remark(
        "Every rotation finishes a coordinate, and the last one is finished by the sum: $n$ coordinates take at most "
        "$n - 1$ rotations."
    )
    wanted = [sp.Rational(3, 4), sp.Rational(2, 3), sp.Rational(1, 3), sp.Rational(1, 4)]
    projection = fill(wanted)
    d.equal(
        "For example the capacities 3/4, 2/3, 1/3, 1/4 in two dimensions. The construction gives a projection, "
        r"$\Pi^2 = \Pi$,",
        sp.MatMul(projection, projection, evaluate=False),
        projection,
    )
    d.holds("The diagonal of this projection is 3/4, 2/3, 1/3, 1/4.", list(projection.diagonal()) == wanted)
    return d
