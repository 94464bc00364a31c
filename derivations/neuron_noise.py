"""Noise on the hidden neurons: it acts as if every importance were smaller."""

from __future__ import annotations

import sympy as sp

from derivations import capacity_loss
from derivations.core import Derivation
from derivations.symbols import C, a, kappa, m, t, v

s = sp.Symbol("s", positive=True)  # standard deviation of the noise on each neuron
EFFECTIVE_IMPORTANCE = v - 2 * s**2 / (kappa - 1)
"""v_s, the importance of a noiseless network in which the feature would be embedded alike."""

_QUIET = {v: EFFECTIVE_IMPORTANCE}
NOISY_LOSS = (kappa - 1) * (v**2 - EFFECTIVE_IMPORTANCE**2) + capacity_loss.FEATURE_LOSS.xreplace(_QUIET)
"""f(C), the least loss of a feature at capacity C where v_s > 0."""

NOISY_NORM = capacity_loss.SQUARED_NORM.xreplace(_QUIET)
"""m(C), the best squared norm |w|² of its row."""


def _moment(power: int, third: sp.Symbol, fourth: sp.Expr, variance: sp.Expr) -> sp.Expr:
    return {0: sp.S.One, 1: sp.S.Zero, 2: variance, 3: third, 4: fourth}[power]


def derive() -> Derivation:
    """Prove what independent noise on the neurons adds to the loss, and the loss as a function of capacity."""
    d = Derivation(
        name="neuron_noise",
        title="Noise on the neurons",
        statement=(
            r"With independent noise of variance $s^2$ on every hidden neuron the loss gains $4 s^2 \sum_i |w_i|^2$ "
            r"and a constant. At the best row norms a feature costs what one of importance $v_s = v - 2 s^2 / "
            r"(\kappa - 1)$ costs without noise, plus a constant; where $v_s \le 0$ it is not represented."
        ),
        assumptions=(
            r"The network of `expected_loss` with noise: $\hat y = |W^T x + \xi|^2 + c$.",
            r"The $\xi_k$ are independent of the inputs and of each other, with mean 0, variance $s^2$ and any third "
            "and fourth moments.",
            r"$\kappa > 1$, $v > 0$ and $0 < C < 1$; the ends by continuity.",
        ),
        source="the model of arXiv 2210.01892 v4, equations 9 to 14, with noise as in arXiv 2312.03096",
    )
    # ---- two features in two dimensions, multiplied out
    x = list(sp.symbols("x_1 x_2", real=True))
    noise = list(sp.symbols("xi_1 xi_2", real=True))
    W = sp.Matrix(2, 2, lambda i, k: sp.Symbol(f"w_{i + 1}{k + 1}", real=True))
    importance = sp.symbols("v_1 v_2", positive=True)
    fourth, third = sp.symbols("kappa_1 kappa_2", positive=True), sp.symbols("mu_1 mu_2", real=True)
    skew, tail = sp.Symbol("nu_3", real=True), sp.Symbol("nu_4", positive=True)
    hidden = W.T * sp.Matrix(x) + sp.Matrix(noise)
    target = sum(value * letter**2 for value, letter in zip(importance, x, strict=True))
    error = sp.expand((hidden.T * hidden)[0] - target)

    def mean(polynomial: sp.Expr) -> sp.Expr:
        terms = sp.Poly(polynomial, *x, *noise).terms()
        total = sp.S.Zero
        for powers, coefficient in terms:
            of_inputs = [_moment(p, third[i], fourth[i], sp.S.One) for i, p in enumerate(powers[:2])]
            of_noise = [_moment(p, skew, tail, s**2) for p in powers[2:]]
            total += coefficient * sp.prod(of_inputs) * sp.prod(of_noise)
        return sp.expand(total)

    noisy, quiet, lengths, E = (
        sp.Symbol("V_s", real=True),
        sp.Symbol("V_0", real=True),
        sp.Symbol("M"),
        sp.Function("E"),
    )
    d.remark(
        r"The error is $x^T A x + 2 \xi^T W^T x + |\xi|^2 + c$. At the best bias the loss is its variance. The cross "
        r"terms vanish: $\xi$ has mean 0 and is independent of $x$, which has mean 0 as well. So the variance gains "
        r"that of $2 \xi^T W^T x$ and that of $|\xi|^2$."
    )
    d.define(
        "Two features in two dimensions, multiplied out: with noise the variance of the error is",
        noisy,
        mean(error**2) - mean(error) ** 2,
        shown=E(sp.Symbol("e_s") ** 2),
    )
    quiet_error = error.subs(dict.fromkeys(noise, 0))
    d.define(
        "without noise it is", quiet, mean(quiet_error**2) - mean(quiet_error) ** 2, shown=E(sp.Symbol("e_0") ** 2)
    )
    d.define("and the squared lengths of the rows sum to", lengths, sum(entry**2 for entry in W))
    d.equal(
        "The difference has no term that involves more than one row and one neuron, and so decides every number of "
        r"both. The last term, the variance of $|\xi|^2$, does not depend on the embedding.",
        noisy - quiet,
        4 * s**2 * lengths + 2 * (tail - s**4),
    )

    # ---- one feature
    ell, f, norm = sp.Function("L_1"), sp.Function("f"), sp.Function("m_opt")
    d.define(
        "So a feature of squared norm $m$ and capacity $C$ contributes, compared with `capacity_loss`, one more term:",
        ell(m, C),
        (kappa - 1) * (v - m) ** 2 + 2 * m**2 * (1 / C - 1) + 4 * s**2 * m,
    )
    d.positive("It is strictly convex in $m$.", sp.Derivative(ell(m, C), m, m), {kappa: 1 + a, C: 1 / (1 + t)})
    effective = sp.Symbol("v_s", real=True)
    d.result(
        "EFFECTIVE_IMPORTANCE",
        r"Its slope at $m = 0$ is $-2 (\kappa - 1)$ times the effective importance",
        -sp.Subs(sp.Derivative(ell(m, C), m), m, 0) / (2 * (kappa - 1)),
        EFFECTIVE_IMPORTANCE,
    )
    d.define(
        "If that is not positive the best row is 0, at any capacity. Where it is, write",
        effective,
        EFFECTIVE_IMPORTANCE,
    )
    d.define("and let", norm(C), NOISY_NORM)
    d.equal("There the derivative vanishes:", sp.Subs(sp.Derivative(ell(m, C), m), m, norm(C)), 0)
    d.result(
        "NOISY_NORM",
        "So the best squared norm is that of a feature of this importance in a network without noise:",
        norm(C),
        effective * (kappa - 1) * C / (2 + (kappa - 3) * C),
        NOISY_NORM,
    )
    d.define("Write $f$ for the loss at this norm,", f(C), ell(norm(C), C))
    d.result(
        "NOISY_LOSS",
        "The loss of a feature is the one without noise at the effective importance, and a constant:",
        f(C),
        (kappa - 1) * (v**2 - effective**2) + 2 * effective**2 * (kappa - 1) * (1 - C) / (2 + (kappa - 3) * C),
        NOISY_LOSS,
    )
    d.equal(
        "Its marginal value is twice the square of $m/C$, as without noise: the features that share have equal ratios "
        "of squared norm to capacity, and one tight frame realises them.",
        -sp.Derivative(f(C), C),
        2 * (norm(C) / C) ** 2,
    )
    d.equal(
        "Without capacity a feature costs what it costs without noise,",
        sp.Limit(f(C), C, 0),
        v**2 * (kappa - 1),
    )
    d.equal(
        "and with a dimension of its own what noise alone costs.",
        sp.Limit(f(C), C, 1, "-"),
        4 * s**2 * v - 4 * s**4 / (kappa - 1),
    )
    d.equal("Without noise all of this is `capacity_loss`.", sp.Limit(f(C), s, 0), capacity_loss.FEATURE_LOSS)
    return d
