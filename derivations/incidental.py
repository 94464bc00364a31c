"""Incidental polysemanticity: forces on an embedding row, sparsification in time, and chance collisions."""

from __future__ import annotations

import itertools

import sympy as sp
from sympy.utilities.iterables import multiset_partitions

from derivations.core import Derivation
from derivations.symbols import family, rows

m, n, t = sp.symbols("m n t", positive=True)
"""Neurons, features, and the time of the gradient flow."""
lam = sp.Symbol("lambda", positive=True)
"""Strength of the L1 force in the flow, a quarter of the coefficient in the summed loss."""
y_0 = sp.Symbol("y_0", positive=True)
"""|w|₁ at the start."""
q = sp.Symbol("q", positive=True)
"""m'|w|²/|w|₁², which tells the shape of the distribution of the surviving weights."""

L1_NORM = 1 / (1 / y_0 + (q - 1) * lam * t)
"""|w|₁ of a row in time, down to 1; q = 2 and y_0 = √m give the published law."""

SURVIVORS = q * L1_NORM**2
"""m', the number of weights of a row that are not yet 0."""

START = sp.sqrt(2 * m / sp.pi)
"""The mean of |w|₁ for m Gaussian weights of variance 1/m."""

PAIRS = n * (n - 1) / (4 * m)
"""Expected number of pairs of features that share a neuron with opposite signs."""

NEURONS = m * (1 - 2 * (1 - 1 / (2 * m)) ** n + (1 - 1 / m) ** n)
"""Expected number of neurons with features of both signs."""

_k = sp.Symbol("k", integer=True)
_m = sp.Symbol("m", integer=True, positive=True)
W = sp.IndexedBase("w")
"""A row, indexed from 0."""
KAPPA_NOISE = sp.Symbol("kappa_noise", positive=True)
"""Kurtosis of the noise on a neuron."""

EXCESS_KURTOSIS = (KAPPA_NOISE - 3) * sp.Sum(W[_k] ** 4, (_k, 0, _m - 1)) / sp.Sum(W[_k] ** 2, (_k, 0, _m - 1)) ** 2
"""Excess kurtosis of w·ξ."""


def derive() -> Derivation:
    """Prove the forces, the law of sparsification, the two counts of collisions and the kurtosis of projected noise."""
    d = Derivation(
        name="incidental",
        title="Incidental polysemanticity",
        statement=(
            r"An autoencoder $\hat y = \mathrm{ReLU}(W W^T e_i)$ of one-hot inputs with an L1 penalty pulls each row "
            "by three forces: feature benefit, interference and the penalty. A row becomes sparse along $|w|_1 = "
            r"1/(1/|w_0|_1 + (q-1)\lambda t)$ with $m' = q |w|_1^2$ survivors, where $q$ rises from $\pi/2$ towards "
            "2. By chance $n(n-1)/(4m)$ pairs of features end on one neuron with opposite signs, on $m (1 - "
            r"2(1-1/2m)^n + (1-1/m)^n)$ neurons. Noise $\xi$ on the neurons gives $w \cdot \xi$ the excess kurtosis "
            r"$(\kappa_{noise}-3) \sum_k w_k^4/|w|^4$."
        ),
        assumptions=(
            r"The loss is summed over inputs, $\sum_i |\hat y(e_i) - e_i|^2 + 4 \lambda |W|_1$, and the flow is "
            r"$dW/dt = -\nabla L/4$.",
            r"Sparsification: a single row without interference, $\lambda |w|_1$ small against 1, so that the norm "
            "stays balanced at $|w| = 1$, and a fixed $q$ (it changes slowly).",
            "Collisions: every feature ends on one neuron, uniformly and independently, with a random sign.",
            r"Noise: independent on every neuron, with mean 0, the same variance and kurtosis $\kappa_{noise}$.",
        ),
        source=(
            r"arXiv 2312.03096: the forces, the laws for $|w|_1$ and $m'$ (there with $q = 2$, $|w_0|_1 = \sqrt{m}$ "
            "and $m' = |w|_1^2$), the number of collisions, noise in the hidden layer"
        ),
    )
    _forces(d)
    _sparsification(d)
    _collisions(d)
    _noise(d)
    return d


def _forces(d: Derivation) -> None:
    w = rows(3, 2)
    first = (w[0, 0], w[0, 1])
    active = [sp.Symbol(f"sigma_1{j}", nonnegative=True) for j in (2, 3)]
    length, *products = (sp.Function(f"G_1{j}") for j in (1, 2, 3))
    loss = sp.Function("L")
    d.define(
        "The forces, on the first of three rows over two neurons. Write", length(*first), (w[0, :] * w[0, :].T)[0, 0]
    )
    for j, product in enumerate(products, 1):
        d.define("and", product(*first), (w[0, :] * w[j, :].T)[0, 0])
    d.define(
        r"Let $\sigma_{1j}$ be 1 where $G_{1j} > 0$ and 0 elsewhere, so that $\mathrm{ReLU}(G_{1j})^2 = \sigma_{1j} "
        "G_{1j}^2$. The part of the loss that depends on $w_1$ is its own error and twice the interference, as the "
        "first feature disturbs the others as much as they disturb it:",
        loss(*first),
        (1 - length(*first)) ** 2 + 2 * sum(on * g(*first) ** 2 for on, g in zip(active, products, strict=True)),
    )
    d.equal(
        "A quarter of its downward slope is the feature benefit along $w_1$ and the interference along $-w_2$ and "
        "$-w_3$:",
        sp.Matrix([-sp.Derivative(loss(*first), w[0, k]) / 4 for k in range(2)]),
        sp.Matrix(
            [
                (1 - length(*first)) * w[0, k]
                - sum(on * g(*first) * w[j, k] for j, (on, g) in enumerate(zip(active, products, strict=True), 1))
                for k in range(2)
            ]
        ),
    )
    positive = sp.Symbol("w", positive=True)
    d.equal(
        r"A quarter of the slope of the penalty on a positive weight is $\lambda$; on a negative one $-\lambda$.",
        sp.Derivative(4 * lam * sp.Abs(positive), positive) / 4,
        lam,
    )
    d.remark(
        "So features on one neuron with equal signs push each other away, and with opposite signs do not feel each "
        "other: the ReLU hides the interference, and the collision stays."
    )


def _sparsification(d: Derivation) -> None:
    u = family("u", 4, positive=True)
    S, y, p = sp.symbols("S y p", positive=True)
    rate, x = sp.Function("R"), sp.Symbol("x", positive=True)
    d.define(
        "Sparsification. Let $u_k = |w_k|$ be the $p$ weights that are not yet 0, $S = |w|^2$ and $y = |w|_1$. "
        "Without interference a weight $u$ changes at the rate",
        rate(x),
        (1 - S) * x - lam,
    )
    d.equal("Three of them: their sum changes at the rate", sum(map(rate, u[:3])), (1 - S) * sum(u[:3]) - 3 * lam)
    d.equal(
        "and the sum of squares at the rate",
        sum(2 * z * rate(z) for z in u[:3]),
        2 * (1 - S) * sum(z**2 for z in u[:3]) - 2 * lam * sum(u[:3]),
    )
    d.equal(
        "The ratio of two differences, $(u_1-u_2)/(u_3-u_4)$, does not change: $u_k(t)$ is an affine function of "
        "$u_k(0)$, common to all survivors, and the small ones vanish first.",
        (rate(u[0]) - rate(u[1])) * (u[2] - u[3]) - (u[0] - u[1]) * (rate(u[2]) - rate(u[3])),
        0,
    )
    d.equal(
        r"The sum of squares returns to its balance at the rate 2, quickly compared with $\lambda y$.",
        sp.Subs(sp.Derivative(2 * (1 - S) * S, S), S, 1),
        -2,
    )
    benefit = sp.Symbol("b", positive=True)
    d.define("In balance the benefit $1 - S$ is", benefit, lam * y / S)
    d.equal("(as", 2 * benefit * S - 2 * lam * y, 0)
    d.equal(
        "so that the sum of $p$ survivors with $q = p S/y^2$ falls at the rate",
        benefit * y - lam * p.subs(p, q * y**2 / S),
        -lam * (q - 1) * y**2 / S,
    )
    norm, start = sp.Function("y"), sp.Symbol("x", positive=True)
    d.define("With $S = 1$ and a fixed $q$ the solution is", norm(t), L1_NORM)
    d.result(
        "L1_NORM", "for it falls at that rate,", sp.Derivative(norm(t), t), -lam * (q - 1) * norm(t) ** 2, value=L1_NORM
    )
    d.equal("and starts at", norm(0), y_0)
    d.result("SURVIVORS", "The number of survivors is $q y^2/S$:", q * norm(t) ** 2, SURVIVORS)
    gauss = 2 * sp.exp(-(start**2) / 2) / sp.sqrt(2 * sp.pi)
    line = (start, 0, sp.oo)
    d.equal(
        "The value of $q$. It is the mean square over the squared mean of the survivors, at first of the sizes of "
        "Gaussian weights:",
        sp.Integral(start**2 * gauss, line) / sp.Integral(start * gauss, line) ** 2,
        sp.pi / 2,
    )
    d.result(
        "START",
        "(and the sum of $m$ of them with variance $1/m$ is)",
        m * sp.Integral(start * gauss, line) / sp.sqrt(m),
        START,
    )
    z = sp.Symbol("z", positive=True)
    d.equal(
        "Later survivors are what exceeds a threshold $z$. In units of $1/z$ their density, relative to that at the "
        "threshold,",
        sp.exp(-((z + start / z) ** 2) / 2) / sp.exp(-(z**2) / 2),
        sp.exp(-start - start**2 / (2 * z**2)),
    )
    d.equal(
        "becomes exponential as the threshold rises,",
        sp.Limit(sp.exp(-start - start**2 / (2 * z**2)), z, sp.oo),
        sp.exp(-start),
    )
    d.equal(
        "and then $q$ is 2: the published law for the norm, and twice the published number of survivors.",
        sp.Integral(start**2 * sp.exp(-start), line) / sp.Integral(start * sp.exp(-start), line) ** 2,
        2,
    )
    small, moment = sp.Symbol("epsilon", positive=True), sp.Function("M")
    order = sp.Symbol("k", positive=True)
    d.define(
        r"The approach is slow. With $\epsilon = 1/z^2$ the density is $e^{-x} (1 - \epsilon x^2/2)$ to first order, "
        "and has the moments",
        moment(order),
        sp.gamma(order + 1) - small * sp.gamma(order + 3) / 2,
    )
    ratio = moment(0) * moment(2) / moment(1) ** 2
    d.equal("so that $q$ is 2", sp.Subs(ratio, small, 0), 2)
    d.equal(r"minus $2/z^2$ to first order:", sp.Subs(sp.Derivative(ratio, small), small, 0), -2)
    d.remark(
        "(With finitely many weights $q$ falls again when few are left: it is 1 for a single one, and the sum of "
        "sizes stays at 1.)"
    )


def _collisions(d: Derivation) -> None:
    pairs, neurons = sp.Function("P"), sp.Function("N")
    d.define(
        "Collisions. Two features share a neuron with probability $1/m$, and then have opposite signs with "
        "probability 1/2. Over all pairs the expectation is",
        pairs(n, m),
        PAIRS,
    )
    d.define(
        "A neuron has both signs unless it lacks the positive one, probability $(1-1/2m)^n$, or the negative one, as "
        "probable; lacking both has the probability $(1-1/m)^n$. By inclusion and exclusion the expected number is",
        neurons(n, m),
        NEURONS,
    )
    for features, width in ((2, 2), (3, 2), (3, 3), (4, 2)):
        seats = list(itertools.product(range(width), (1, -1)))
        outcomes = list(itertools.product(seats, repeat=features))
        colliding = sum(
            a[0] == b[0] and a[1] != b[1] for outcome in outcomes for a, b in itertools.combinations(outcome, 2)
        )
        both = sum((k, 1) in outcome and (k, -1) in outcome for outcome in outcomes for k in range(width))
        text = f"All {len(outcomes)} outcomes for {features} features on {width} neurons, counted: the mean number of "
        pair_mean, neuron_mean = (sp.Rational(x, len(outcomes)) for x in (colliding, both))
        last = (features, width) == (4, 2)
        if last:
            d.result("PAIRS", text + "pairs is", pairs(features, width), pair_mean, value=PAIRS)
            d.result("NEURONS", "and that of neurons", neurons(features, width), neuron_mean, value=NEURONS)
        else:
            d.equal(text + "pairs is", pairs(features, width), pair_mean)
            d.equal("and that of neurons", neurons(features, width), neuron_mean)
    d.equal("With many neurons the two counts agree:", sp.Limit(m * neurons(n, m), m, sp.oo), n * (n - 1) / 4)
    d.equal(
        "but with as many neurons as features they do not: per neuron there are",
        sp.Limit(pairs(m, m) / m, m, sp.oo),
        sp.Rational(1, 4),
    )
    d.equal(
        "pairs, but fewer neurons with both signs:",
        sp.Limit(neurons(m, m) / m, m, sp.oo),
        (1 - sp.exp(-sp.Rational(1, 2))) ** 2,
    )
    size = 256
    exact = NEURONS.subs({m: size, n: size})
    d.equal(
        f"For 256 features on 256 neurons that makes {float(exact):.1f} neurons, against this many pairs:",
        pairs(size, size),
        PAIRS.subs({m: size, n: size}),
    )


def _noise(d: Derivation) -> None:
    survivors = [blocks for blocks in multiset_partitions(list(range(4))) if all(len(b) > 1 for b in blocks)]
    d.holds(
        r"Noise. In $E (w \cdot \xi)^4 = \sum w_i w_j w_k w_l E \xi_i \xi_j \xi_k \xi_l$ an index that stands alone "
        r"gives 0. What survives is the partition with all indices equal and three with two pairs: with $E \xi^2 = "
        r"1$ the fourth moment is $\kappa_{noise} \sum_k w_k^4 + 3 \sum_{k \ne l} w_k^2 w_l^2$, and the second one "
        r"$\sum_k w_k^2$.",
        sorted(map(len, survivors)) == [1, 2, 2, 2],
    )
    fourth, second, both = sp.symbols("S_4 S_2 R", positive=True)
    d.define("With the sum", fourth, sp.Sum(W[_k] ** 4, (_k, 0, _m - 1)))
    d.define("and the sum of squares", second, sp.Sum(W[_k] ** 2, (_k, 0, _m - 1)))
    d.define("the products of different ones sum to", both, second**2 - fourth)
    d.result(
        "EXCESS_KURTOSIS",
        "The excess kurtosis is",
        (KAPPA_NOISE * fourth + 3 * both) / second**2 - 3,
        EXCESS_KURTOSIS,
    )
    weights, noise = family("w", 3, real=True), family("xi", 3, real=True)
    moments = {0: 1, 1: 0, 2: 1, 3: sp.Symbol("mu_3"), 4: KAPPA_NOISE}
    terms = sp.Poly(sum(a * b for a, b in zip(weights, noise, strict=True)) ** 4, *noise).terms()
    multiplied = sum(c * sp.prod([moments[power] for power in powers]) for powers, c in terms)
    moment, projection = sp.Symbol("M_4"), sum(a * b for a, b in zip(weights, noise, strict=True))
    d.define("Three neurons, multiplied out:", moment, multiplied, shown=sp.Function("E")(projection**4))
    squares = sum(x**2 for x in weights)
    d.equal(
        "agrees.",
        moment / squares**2 - 3,
        (KAPPA_NOISE - 3) * sum(x**4 for x in weights) / squares**2,
    )
    d.remark(
        "Gaussian noise has no excess, whatever the row: it is invariant under rotations and prefers no basis. "
        r"Noise of negative excess, such as random signs ($\kappa_{noise} = 1$), has the most negative projection, "
        "$-2$, on a row with one weight only."
    )
