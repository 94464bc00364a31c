"""How much capacity there is: bounds on one feature's and on the sum, and the embeddings that use all of it."""

from __future__ import annotations

import sympy as sp

from derivations.core import Derivation
from derivations.symbols import family, rows

_n, _D = sp.symbols("n D", integer=True, positive=True)
_i, _j, _k = sp.symbols("i j k", integer=True)
W = sp.IndexedBase("W")
"""The embedding, n × D, indexed from 0 so that a lambdified formula takes arrays."""
i, n, D = _i, _n, _D

CAPACITY = sp.Sum(W[_i, _k] ** 2, (_k, 0, _D - 1)) ** 2 / sp.Sum(
    sp.Sum(W[_i, _k] * W[_j, _k], (_k, 0, _D - 1)) ** 2, (_j, 0, _n - 1)
)
"""C_i = |w_i|⁴ / Σ_j (w_i·w_j)², a function of (W, i, n, D)."""

NULL_MODEL = _n * _D / (_n + _D - 1)
"""Σ C of n random directions in D dimensions, with every (w_i·w_j)² at its mean."""


def capacity(embedding: sp.Matrix, row: int) -> sp.Expr:
    """Return C_row of an explicit embedding."""
    gram = embedding * embedding.T
    return gram[row, row] ** 2 / sum(gram[row, other] ** 2 for other in range(gram.rows))


def leverage(embedding: sp.Matrix, row: int) -> sp.Expr:
    """Return the leverage score w M⁺ w of a row of an embedding of full column rank."""
    w = embedding[row, :]
    return (w * (embedding.T * embedding).inv() * w.T)[0, 0]


def derive() -> Derivation:
    """Prove Theorem 2 and its converse, the block form, and the identity of Appendix E."""
    d = Derivation(
        name="capacity_bounds",
        title="How much capacity there is",
        statement=(
            "For an embedding $W$ with rows $w_i$ in $D$ dimensions, $G = W W^T$ and $M = W^T W$: every capacity "
            r"$C_i = |w_i|^4 / \sum_j (w_i \cdot w_j)^2$ lies between 0 and 1 and is at most the leverage score "
            r"$w_i^T M^+ w_i$, so that $\sum_i C_i \le \mathrm{rank} W \le D$. Equality holds exactly when "
            "every row is an eigenvector of $M$ (and the rank is $D$): the rows then fall into mutually orthogonal "
            "blocks, each a tight frame of its own subspace."
        ),
        assumptions=(
            r"$w_i \ne 0$; a row of zeros has capacity 0 by convention, and leverage score 0.",
            "$M^+$ is the pseudoinverse of $M$.",
        ),
        source=(
            "arXiv 2210.01892 v4: the definition of capacity, Theorem 2, Appendix E (correlation), Appendix "
            "G (leverage scores), Figure 6 (examples)"
        ),
    )
    m = sp.Symbol("m", positive=True)
    q = sp.Symbol("q", nonnegative=True)
    Ci = sp.Function("C_i")

    # ---- between 0 and 1
    d.define(
        r"With $m = |w_i|^2$ and $q = \sum_{j \ne i} (w_i \cdot w_j)^2$, a sum of squares, the capacity is",
        Ci(q),
        m**2 / (m**2 + q),
    )
    d.positive("It is positive,", Ci(q))
    d.positive("at most 1,", 1 - Ci(q), strict=False)
    d.equal(
        "and equal to 1 only for $q = 0$: when the row is orthogonal to all others.",
        (1 - Ci(q)) / Ci(q),
        q / m**2,
    )

    # ---- the two forms
    w = rows(3, 2)
    second = w.T * w
    concrete = {W[x, y]: w[x, y] for x in range(3) for y in range(2)}
    d.result(
        "CAPACITY",
        r"The $n \times n$ matrix $G$ is not needed, as $\sum_j (w_i \cdot w_j)^2 = w_i^T (\sum_j w_j w_j^T) w_i = "
        "w_i^T M w_i$. The first of three rows in two dimensions:",
        CAPACITY.subs({n: 3, D: 2, i: 0}).doit().subs(concrete),
        (w[0, :] * w[0, :].T)[0, 0] ** 2 / sp.expand((w[0, :] * second * w[0, :].T)[0, 0]),
        value=CAPACITY,
    )

    # ---- Cauchy–Schwarz
    d.remark(
        r"In an orthonormal basis of eigenvectors, $M = \mathrm{diag}(\mu_1, \ldots, \mu_r)$ on its range, "
        r"which contains every row. Let $p_k$ be the square of the $k$-th coordinate of a row. Then $|w|^2 = \sum "
        r"p_k$, $w^T M w = \sum \mu_k p_k$ and $w^T M^+ w = \sum p_k/\mu_k$."
    )
    mu_k, mu_l, p_k, p_l = sp.symbols("mu_k mu_l p_k p_l", positive=True)
    term = sp.Function("h")
    d.define(
        r"The claim $C \le \ell$ says that $(\sum_k \mu_k p_k) (\sum_l p_l/\mu_l) - (\sum_k p_k)^2$ is not negative. "
        "As a double sum over $k$ and $l$ its terms are",
        term(mu_k, mu_l),
        (mu_k / mu_l - 1) * p_k * p_l,
    )
    d.equal("The terms with $k = l$ vanish,", sp.Subs(term(mu_k, mu_l), mu_l, mu_k), 0)
    d.equal(
        "and the terms of a pair add up to a square, in whatever dimension:",
        term(mu_k, mu_l) + term(mu_l, mu_k),
        p_k * p_l * (mu_k - mu_l) ** 2 / (mu_k * mu_l),
    )
    for rank in (2, 3):
        mu, p = family("mu", rank, positive=True), family("p", rank, positive=True)
        d.equal(
            f"Written out (Lagrange's identity) for rank {rank}:",
            sum(x * y for x, y in zip(mu, p, strict=True)) * sum(x / y for x, y in zip(p, mu, strict=True))
            - sum(p) ** 2,
            sum(p[x] * p[y] * (mu[x] - mu[y]) ** 2 / (mu[x] * mu[y]) for x in range(rank) for y in range(x)),
        )
    d.positive("A pair never contributes less than 0,", p_k * p_l * (mu_k - mu_l) ** 2 / (mu_k * mu_l), strict=False)
    d.remark(
        r"so $C_i \le \ell_i$, with equality exactly when no two coordinates with different eigenvalues are both "
        "nonzero: when $w_i$ is an eigenvector of $M$."
    )

    # ---- the sum
    p = family("p", 4, positive=True)
    d.equal(
        r"The leverage scores sum to the rank. In the basis of eigenvectors $\mu_k = M_{kk} = \sum_i p_{ik}$, so a "
        r"coordinate contributes $\sum_i p_{ik}/\mu_k$; with four rows",
        sp.Add(*(x / sum(p) for x in p), evaluate=False),
        1,
    )
    scores = sp.Symbol("R", positive=True)
    ell = sp.Function("ell")
    d.define(
        "and $r$ coordinates contribute $r$, the rank of $M$ and of $W$, at most $D$. Three rows in two dimensions, "
        "without a special basis:",
        scores,
        sum(leverage(w, x) for x in range(3)),
        shown=sp.Sum(ell(_i), (_i, 1, 3)),
    )
    d.equal(r"with $\ell_i = w_i^T M^{-1} w_i$ indeed gives", scores, 2)
    column, direction = sp.Matrix(family("a", 3, real=True)), sp.Matrix(family("b", 2, positive=True))
    column[0] = sp.Symbol("a_1", positive=True)  # so that the row is not zero
    single = column * direction.T
    square = single.T * single
    pseudo = direction * direction.T / (column.dot(column) * direction.dot(direction) ** 2)
    d.holds(
        "Rank 1, $W = a b^T$: here $M^+ = b b^T / (|a|^2 |b|^4)$, as $M M^+ M = M$ and $M^+ M M^+ = M^+$ with "
        "symmetric products,",
        (square * pseudo * square - square).applyfunc(sp.simplify).is_zero_matrix
        and (pseudo * square * pseudo - pseudo).applyfunc(sp.simplify).is_zero_matrix
        and (square * pseudo).is_symmetric()
        and (pseudo * square).is_symmetric(),
    )
    d.equal(
        "and the scores sum to",
        sp.Add(*(sp.factor((single[x, :] * pseudo * single[x, :].T)[0, 0]) for x in range(3))),
        1,
    )

    # ---- efficient embeddings
    tau_i, p_1, p_2 = sp.symbols("tau_i p_1 p_2", positive=True)
    d.equal(
        r"The block form. Let every row be an eigenvector, $M w_i = \tau_i w_i$, as equality demands. The capacity "
        "is then the squared norm in units of the eigenvalue (two coordinates with squares $p_1, p_2$):",
        (p_1 + p_2) ** 2 / (tau_i * p_1 + tau_i * p_2),
        (p_1 + p_2) / tau_i,
    )
    x, y = sp.Matrix(family("x", 3, real=True)), sp.Matrix(family("y", 3, real=True))
    symmetric = sp.Matrix(3, 3, lambda p, q: sp.Symbol(f"M_{min(p, q) + 1}{max(p, q) + 1}", real=True))
    d.holds(
        r"Rows of different eigenvalues are orthogonal, since $(M x) \cdot y = x \cdot (M y)$ for every symmetric "
        r"$M$ (three dimensions, symbolic), hence $(\tau_i - \tau_j) w_i \cdot w_j = 0$.",
        sp.expand((symmetric * x).dot(y) - x.dot(symmetric * y)) == 0,
    )
    d.remark(
        r"So the rows with eigenvalue $\tau_B$ form a block $B$ orthogonal to all others, and on the span of the "
        r"block $M$ is $W_B^T W_B = \tau_B P_B$ with the projection $P_B$ onto it: a tight frame. Conversely rows of "
        r"such blocks are eigenvectors. The capacities of a block sum to $\mathrm{tr}(\tau_B P_B)/\tau_B = "
        "d_B$, its dimension."
    )
    s_1, s_2 = sp.symbols("s_1 s_2", positive=True)
    half = sp.sqrt(3) / 2
    triangle = s_1 * sp.Matrix([[1, 0], [-sp.Rational(1, 2), half], [-sp.Rational(1, 2), -half]])
    blocks = sp.diag(triangle, sp.Matrix([[s_2], [-s_2], [2 * s_2]]))
    d.equal(
        "For instance an equilateral triangle in a plane and three rows of unequal length on a third axis, in any "
        "scales: the second-moment matrix is",
        sp.MatMul(blocks.T, blocks, evaluate=False),
        sp.diag(sp.Rational(3, 2) * s_1**2, sp.Rational(3, 2) * s_1**2, 6 * s_2**2),
    )
    capacities = sp.Function("C")
    d.define(
        "Write the capacities of all rows (of three, say) as",
        capacities(sp.Symbol("W")),
        lambda matrix: sp.ImmutableMatrix([[capacity(matrix, row) for row in range(matrix.rows)]]),
        shown=sp.Tuple(sp.Symbol("C_1"), sp.Symbol("C_2"), sp.Symbol("C_3")),
    )
    d.equal(
        "Here they sum to 3, in whatever scales:",
        capacities(blocks.as_immutable()),
        sp.Matrix([[sp.Rational(2, 3)] * 3 + [sp.Rational(1, 6)] * 2 + [sp.Rational(2, 3)]]),
    )

    # ---- the examples of Figure 6
    d.equal(
        "Figure 6. Triangle in the plane:",
        capacities(triangle.as_immutable()),
        sp.Matrix([[sp.Rational(2, 3)] * 3]),
    )
    pair = sp.Matrix([[1, 0], [0, 1], [0, -1]])
    d.equal(
        "One axis and an antipodal pair:",
        capacities(pair.as_immutable()),
        sp.Matrix([[1, sp.Rational(1, 2), sp.Rational(1, 2)]]),
    )
    close = sp.Matrix([[1, 0], [sp.cos(sp.pi / 6), sp.sin(sp.pi / 6)]])
    d.equal(
        "Two vectors at 30 degrees, which use 8/7 of 2 dimensions, because they are not eigenvectors:",
        capacities(close.as_immutable()),
        sp.Matrix([[sp.Rational(4, 7), sp.Rational(4, 7)]]),
    )

    # ---- Appendix E
    inputs = sp.symbols("x_1:4", real=True)
    output = sum(value * inputs[col] for col, value in enumerate((w * w.T)[0, :]))
    covariance, variance = _white(inputs[0] * output, inputs), _white(output**2, inputs)
    E, x_1, y_1 = sp.Function("E"), sp.Symbol("x_1"), sp.Symbol("y_1")
    shared, own = sp.symbols("V_xy V_yy", positive=True)
    d.define(
        "Appendix E. The capacity is also the squared correlation of $x_i$ with $y_i = (W W^T x)_i$, for "
        "uncorrelated inputs of unit variance. Three rows in two dimensions: the covariance",
        shared,
        covariance,
        shown=E(x_1 * y_1),
    )
    d.define("and the variance", own, variance, shown=E(y_1**2))
    d.equal("give", shared**2 / own, capacity(w, 0))

    # ---- random directions
    theta, phi = sp.symbols("theta phi", real=True)
    d.equal(
        "Random directions. The squared coordinates of a random unit vector sum to 1 and have the same mean, $1/D$; "
        r"so has $(w_i \cdot w_j)^2$. On the circle",
        sp.Integral(sp.cos(phi) ** 2, (phi, 0, 2 * sp.pi)) / (2 * sp.pi),
        sp.Rational(1, 2),
    )
    d.equal(
        "and on the sphere",
        sp.Integral(sp.cos(theta) ** 2 * sp.sin(theta), (theta, 0, sp.pi)) / 2,
        sp.Rational(1, 3),
    )
    d.result(
        "NULL_MODEL",
        "With every square at its mean, $n$ random directions have the total capacity",
        n / (1 + (n - 1) / D),
        NULL_MODEL,
    )
    return d


def _white(polynomial: sp.Expr, inputs: tuple[sp.Symbol, ...]) -> sp.Expr:
    """Return the expectation of a quadratic form in uncorrelated inputs of unit variance."""
    terms = sp.Poly(polynomial, *inputs).terms()
    return sp.Add(*(coefficient for powers, coefficient in terms if 2 in powers))
