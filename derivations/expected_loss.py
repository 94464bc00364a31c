"""The expected loss of an embedding in the quadratic toy model, from the moments of its inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import sympy as sp
from sympy.utilities.iterables import multiset_partitions

from derivations.core import Derivation

n = sp.Symbol("n", integer=True, positive=True)
i, j = sp.symbols("i j", integer=True)
A = sp.IndexedBase("A")
"""A = W Wᵀ − diag(v), symmetric, indexed from 0 so that a lambdified formula takes arrays."""
KAPPA = sp.IndexedBase("kappa")
"""The kurtosis of every input."""

_I, _J = (i, 0, n - 1), (j, 0, n - 1)

OPTIMAL_BIAS = -sp.Sum(A[i, i], _I)
"""The bias with the least loss."""

LOSS_WITH_BIAS = sp.Sum((KAPPA[i] - 1) * A[i, i] ** 2, _I) + 2 * (
    sp.Sum(A[i, j] ** 2, _I, _J) - sp.Sum(A[i, i] ** 2, _I)
)
"""The expected loss with the bias at its optimum (the last bracket is the sum over i ≠ j)."""

LOSS_WITHOUT_BIAS = LOSS_WITH_BIAS + sp.Sum(A[i, i], _I) ** 2
"""The expected loss without a bias."""

MU3 = sp.IndexedBase("mu3")  # third moments; they will drop out
POSITIONS = ("i", "j", "k", "l")  # x_i A_ij x_j · x_k A_kl x_l


def _moment(k: int, power: int) -> sp.Expr:
    return {0: sp.S.One, 1: sp.S.Zero, 2: sp.S.One, 3: MU3[k], 4: KAPPA[k]}[power]


def _expectation(polynomial: sp.Expr, x: list[sp.Symbol]) -> sp.Expr:
    """Replace every monomial in independent inputs by the product of its moments."""
    terms = sp.Poly(polynomial, *x).terms()
    return sp.Add(*(c * sp.prod([_moment(k, p) for k, p in enumerate(powers)]) for powers, c in terms))


def _partitions(positions: int) -> Iterator[tuple[list[list[int]], bool]]:
    """Yield every way in which indices can coincide, and whether its expectation survives E x = 0."""
    for blocks in multiset_partitions(list(range(positions))):
        yield blocks, all(len(block) > 1 for block in blocks)


def _distinct_sum(blocks: list[list[int]], count: int) -> sp.Expr:
    """Sum A_ij A_kl E[x_i x_j x_k x_l] over the index quadruples that coincide exactly as ``blocks`` say."""
    total = sp.S.Zero
    for values in itertools.permutations(range(count), len(blocks)):
        index = {p: value for block, value in zip(blocks, values, strict=True) for p in block}
        weight = sp.prod([_moment(value, len(block)) for block, value in zip(blocks, values, strict=True)])
        total += weight * _entry(index[0], index[1]) * _entry(index[2], index[3])
    return total


def _entry(row: int, column: int) -> sp.Expr:
    return A[min(row, column), max(row, column)]


def _explicit(formula: sp.Expr, count: int) -> sp.Expr:
    """Write the sums out for ``count`` features, with A symmetric."""
    written = formula.subs(n, count).doit()
    return written.subs({A[p, q]: A[q, p] for p in range(count) for q in range(p)})


def derive() -> Derivation:
    """Prove equation 12, with and without a bias, for equal and unequal kurtosis and any number of features."""
    d = Derivation(
        name="expected_loss",
        title="The expected loss of an embedding",
        statement=(
            r"With targets $y = \sum_i v_i x_i^2$, outputs $\hat y = \sum_k (\sum_i W_{ik} x_i)^2 + c$ and $A = W "
            r"W^T - \mathrm{diag}(v)$, the expected squared error at the best bias is $\sum_i (\kappa_i-1) "
            r"A_{ii}^2 + 2 \sum_{i \ne j} A_{ij}^2$. Without a bias, $(\sum_i A_{ii})^2$ is added."
        ),
        assumptions=(
            r"The inputs $x_i$ are independent with mean 0, variance 1 and kurtosis $\kappa_i = E x_i^4$, which may "
            "differ.",
            "Nothing is assumed about the third moments: they are carried along and drop out.",
        ),
        source="arXiv 2210.01892 v4, equation 12; its derivation there, equations 30 to 32, has a misprint",
    )
    c = sp.Symbol("c", real=True)
    E = sp.Function("E")
    K, P, F, T = sp.symbols("K P F T", real=True)
    S, loss = sp.Symbol("S", real=True), sp.Function("L")

    d.remark(
        r"The error is $\hat y - y = x^T A x + c$. Its mean square needs the first and the second moment of the "
        r"quadratic form $x^T A x = \sum_{ij} A_{ij} x_i x_j$."
    )

    # ---- how indices can coincide
    pairs = list(_partitions(2))
    d.holds(
        "First moment: two indices are either equal or different, and different ones have the expectation $E x_i E "
        r"x_j = 0$. Of the 2 partitions of the positions 1 survives, so $E x^T A x = \sum_i A_{ii}$.",
        [blocks for blocks, survives in pairs if survives] == [[[0, 1]]] and len(pairs) == 2,
    )
    partitions = list(_partitions(4))
    by_blocks = {b: sum(len(blocks) == b for blocks, _ in partitions) for b in range(1, 5)}
    d.equal(
        "Second moment: four indices $i, j, k, l$ coincide in one of 15 ways, the set partitions of the four "
        r"positions; with $b$ different values there are $n (n-1) \cdot \ldots \cdot (n-b+1)$ assignments. There "
        f"are {by_blocks[1]}, {by_blocks[2]}, {by_blocks[3]}, {by_blocks[4]} partitions with 1, 2, 3, 4 blocks, and "
        "for every $n$ they count every quadruple once:",
        n**4,
        sp.expand_func(sum(by_blocks[b] * sp.ff(n, b) for b in range(1, 5))),
    )
    survivors = [blocks for blocks, survives in partitions if survives]
    named = [", ".join(" = ".join(POSITIONS[p] for p in block) for block in blocks) for blocks in survivors]
    d.holds(
        "A partition with an index of its own contributes $E x = 0$; third moments occur only together with such an "
        f"index. Four partitions survive: {'; '.join(f'${text}$' for text in named)}.",
        len(partitions) == 15 and sorted(map(len, survivors)) == [1, 2, 2, 2],
    )
    d.define("The first gives", K, sp.Sum(KAPPA[i] * A[i, i] ** 2, _I))
    d.define("The others need the trace", T, sp.Sum(A[i, i], _I))
    d.define("the squares on the diagonal", P, sp.Sum(A[i, i] ** 2, _I))
    d.define("and the squares of all entries:", F, sp.Sum(A[i, j] ** 2, _I, _J))
    d.define(
        r"A sum over different indices is the full double sum without its diagonal: $T^2 - P$ for $\sum_{i \ne j} "
        r"A_{ii} A_{jj}$, and $F - P$ for $\sum_{i \ne j} A_{ij}^2$ twice. Together, the second moment of $x^T A x$ "
        "is",
        S,
        K + (T**2 - P) + 2 * (F - P),
        shown=sp.Add(K, T**2 - P, sp.Mul(2, F - P, evaluate=False), evaluate=False),
    )
    for count in (2, 3):
        by_partition = sum(_distinct_sum(blocks, count) for blocks in survivors)
        d.equal(
            f"The four partitions, written out term by term for $n = {count}$ (left), give this second moment:",
            by_partition,
            _explicit(d.unfold(S), count),
        )

    # ---- and by multiplying out
    for count in (2, 3):
        x = [sp.Symbol(f"x_{k}", real=True) for k in range(count)]
        form = sum(_entry(p, q) * x[p] * x[q] for p in range(count) for q in range(count))
        square, mean = sp.Symbol(f"S_{count}", real=True), sp.Symbol(f"T_{count}", real=True)
        d.define(
            f"Independently of the counting, $n = {count}$: multiply out and replace each monomial by its moments.",
            square,
            _expectation(form**2, x),
            shown=E(form**2),
        )
        d.equal("It is the same,", square, _explicit(d.unfold(S), count))
        d.define("and so is the mean:", mean, _expectation(form, x), shown=E(form))
        d.equal("it is the trace.", mean, _explicit(d.unfold(T), count))

    x = [sp.Symbol(f"x_{k}", real=True) for k in range(4)]
    four, written = sp.Symbol("S_4", real=True), sp.Symbol("R_4", real=True)
    d.define(
        "No product $A_{ij} A_{kl}$ involves more than four features, and its coefficient, $E x_i x_j x_k x_l$, does "
        "not depend on the others. So $n = 4$ decides every $n$. The second moment there is",
        four,
        _expectation(sum(_entry(p, q) * x[p] * x[q] for p in range(4) for q in range(4)) ** 2, x),
        shown=E(sp.Symbol("Q_4") ** 2),
    )
    d.define(
        "with $Q_4 = x^T A x$ multiplied out; the formula with its sums written out to $n = 4$ is",
        written,
        _explicit(d.unfold(S), 4),
        shown=sp.Subs(S, n, 4),
    )
    d.equal("and they agree in every coefficient.", four - written, 0)

    # ---- the bias
    d.define("The loss with a bias $c$, for every $n$, is", loss(c), S + 2 * c * T + c**2)
    d.equal("Its derivative vanishes at $c = -T$,", sp.Subs(sp.Derivative(loss(c), c), c, -T), 0)
    d.positive("and it is convex.", sp.Derivative(loss(c), c, c))
    d.result("OPTIMAL_BIAS", "The bias of least loss is", -T, OPTIMAL_BIAS)
    d.equal("What the bias saves is the square of the trace.", loss(0) - loss(-T), T**2)
    d.result("LOSS_WITH_BIAS", "The loss at the best bias:", loss(-T), (K - P) + 2 * (F - P), LOSS_WITH_BIAS)
    d.result(
        "LOSS_WITHOUT_BIAS",
        "The loss without a bias:",
        loss(0),
        (K - P) + 2 * (F - P) + T**2,
        LOSS_WITHOUT_BIAS,
    )
    k = sp.Symbol("kappa", positive=True)
    equal_kurtosis = LOSS_WITH_BIAS.xreplace({KAPPA[i]: k})
    d.equal(
        r"Inputs of one and the same kurtosis $\kappa$:",
        equal_kurtosis,
        2 * d.unfold(F) + (k - 3) * d.unfold(P),
    )

    # ---- the misprint
    diagonal = {A[0, 0]: 1, A[1, 1]: -1, A[0, 1]: 0, KAPPA[0]: 3, KAPPA[1]: 3}
    d.remark(
        r"The misprint. The paper's equations 30 to 32 print $\sum_i D_{ii}^2$, with $D$ for our $A$, where the "
        r"trace $\sum_i D_{ii}$ is meant."
    )
    d.differ(
        "The mean of the quadratic form is not the sum of squares,",
        sp.Symbol("T_2", real=True),
        _explicit(d.unfold(P), 2),
        diagonal,
    )
    d.equal(
        r"and a bias of $-\sum_i A_{ii}^2$ misses the least loss by",
        loss(-P) - loss(-T),
        (T - P) ** 2,
    )
    return d
