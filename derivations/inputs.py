"""The kurtosis of the inputs that users have: sparse mixtures, base distributions, unequal variances."""

from __future__ import annotations

import sympy as sp

from derivations.core import Derivation
from derivations.symbols import family, rows

KAPPA_0 = sp.Symbol("kappa_0", positive=True)
"""Kurtosis of the base distribution."""
S = sp.Symbol("S", positive=True)
"""Sparsity: the probability that an input is 0."""

SPARSE_KURTOSIS = KAPPA_0 / (1 - S)
"""Kurtosis of a variable that is 0 with probability S."""

CRITICAL_DENSITY = KAPPA_0 / 3
"""The density 1 − S below which features share (kurtosis above 3)."""

UNIFORM = sp.Rational(9, 5)
GAUSSIAN = sp.S(3)
LAPLACE = sp.S(6)
RADEMACHER = sp.S.One
"""Kurtosis of the base distributions."""


def derive() -> Derivation:
    """Prove the kurtosis of sparse mixtures and of the base distributions, and the scaling by variances."""
    d = Derivation(
        name="inputs",
        title="The kurtosis of sparse inputs",
        statement=(
            "A variable that is 0 with probability $S$ and otherwise drawn from a base distribution of mean 0 and "
            r"kurtosis $\kappa_0$ has the kurtosis $\kappa_0/(1-S)$. The base kurtosis is 9/5 (uniform), 3 "
            r"(Gaussian), 6 (Laplace) or 1 (random sign). Unequal variances $\sigma_i^2$ turn into importances $v_i "
            r"\sigma_i^2$ and rows $w_i \sigma_i$."
        ),
        assumptions=(
            "Kurtosis is Pearson's, $E x^4/(E x^2)^2$ for a variable of mean 0.",
            "The base distributions are symmetric about 0.",
        ),
        source="arXiv 2210.01892 v4, the inputs of Figure 4; equation 12 for the role of the kurtosis",
    )
    second, fourth = sp.symbols("mu_2 mu_4", positive=True)
    sparse2, sparse4 = sp.symbols("s_2 s_4", positive=True)
    mixture = sp.Function("kappa")

    # ---- mixtures
    d.define(r"Let the base have the second moment $\mu_2$ and the fourth moment", fourth, KAPPA_0 * second**2)
    d.define("Zeros contribute nothing to a moment: the mixture has the second moment", sparse2, (1 - S) * second)
    d.define("and the fourth moment", sparse4, (1 - S) * fourth)
    d.result(
        "SPARSE_KURTOSIS",
        "Its kurtosis is that of the base over the density:",
        sparse4 / sparse2**2,
        SPARSE_KURTOSIS,
    )
    d.define("As a function of the sparsity,", mixture(S), SPARSE_KURTOSIS)
    d.result(
        "CRITICAL_DENSITY",
        r"it passes 3, so that features begin to share, where the density $1-S$ is $\kappa_0/3$:",
        mixture(1 - CRITICAL_DENSITY),
        3,
        value=CRITICAL_DENSITY,
    )
    x, y = sp.symbols("x y", real=True)
    q = sp.Symbol("q", positive=True)
    d.equal(
        "No kurtosis is below 1, because the square has a variance and that is not negative. With two values of the "
        "square, of probabilities $q$ and $1-q$:",
        q * x**4 + (1 - q) * y**4 - (q * x**2 + (1 - q) * y**2) ** 2,
        q * (1 - q) * (x**2 - y**2) ** 2,
    )

    # ---- base distributions
    h = sp.Symbol("h", positive=True)
    line = (x, -sp.oo, sp.oo)
    gauss = sp.exp(-(x**2) / (2 * h**2)) / (h * sp.sqrt(2 * sp.pi))
    laplace = sp.exp(-sp.Abs(x) / h) / (2 * h)
    for name, prose, density, domain, value in (
        (
            "UNIFORM",
            "The base distributions, each with a width $h$ that drops out. Uniform:",
            1 / (2 * h),
            (x, -h, h),
            UNIFORM,
        ),
        ("GAUSSIAN", "Gaussian:", gauss, line, GAUSSIAN),
        ("LAPLACE", "Laplace:", laplace, line, LAPLACE),
    ):
        d.equal(f"{prose} the density is normalised,", sp.Integral(density, domain), 1)
        d.result(
            name,
            "and has the kurtosis",
            sp.Integral(x**4 * density, domain) / sp.Integral(x**2 * density, domain) ** 2,
            value,
        )
    sign = sp.Symbol("x")
    d.result(
        "RADEMACHER",
        "A random sign, $x = 1$ or $x = -1$, has",
        sp.Sum((2 * sign - 1) ** 4 / 2, (sign, 0, 1)) / sp.Sum((2 * sign - 1) ** 2 / 2, (sign, 0, 1)) ** 2,
        RADEMACHER,
    )

    # ---- variances
    d.remark(
        r"Unequal variances. Write $x_i = \sigma_i z_i$ with unit-variance $z_i$ of the same kurtosis. The loss "
        r"depends on the data through the form $x^T A x = z^T A' z$ alone, $A = W W^T - \mathrm{diag}(v)$, and"
    )
    sigma, v = sp.diag(*family("sigma", 3, positive=True)), sp.diag(*family("v", 3, positive=True))
    w = rows(3, 2)
    d.holds(
        r"$A' = \sigma A \sigma$ is the matrix of an embedding with rows $\sigma_i w_i$ and importances $v_i "
        r"\sigma_i^2$ (three features in two dimensions, symbolic).",
        (sigma * (w * w.T - v) * sigma - ((sigma * w) * (sigma * w).T - v * sigma**2)).expand().is_zero_matrix,
    )
    return d
