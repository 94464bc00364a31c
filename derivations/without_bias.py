"""The optimal allocation of a model without a bias: a saddle in one more number, the trace."""

from __future__ import annotations

import sympy as sp

from derivations import capacity_loss
from derivations.core import Derivation
from derivations.symbols import C, a, b, c, kappa, m, t, v

s = sp.Symbol("s", real=True)
"""The multiplier of the trace; at the saddle it is the trace T itself."""

_n = sp.Symbol("n", integer=True, positive=True)
_i = sp.Symbol("i", integer=True)
_range = (_i, 0, _n - 1)
V, KAPPA, CAPACITY = sp.IndexedBase("v"), sp.IndexedBase("kappa"), sp.IndexedBase("C")
"""Importance, kurtosis and capacity of all features, indexed from 0 so that lambdified formulas take arrays."""
n = _n

EFFECTIVE_IMPORTANCE = v + s / (kappa - 1)
"""The importance that a feature answers with."""

TRACE = sp.Sum(2 * V[_i] * (1 - CAPACITY[_i]) / (2 + (KAPPA[_i] - 3) * CAPACITY[_i]), _range) / (
    1 + sp.Sum(CAPACITY[_i] / (2 + (KAPPA[_i] - 3) * CAPACITY[_i]), _range)
)
"""T = Σ (v_i − m_i) at given capacities and best norms."""

T = sp.Symbol("T", real=True)
"""The trace in `LOSS`."""

LOSS = sp.Sum(
    2 * V[_i] * (V[_i] * (KAPPA[_i] - 1) + T) * (1 - CAPACITY[_i]) / (2 + (KAPPA[_i] - 3) * CAPACITY[_i]), _range
)
"""The loss at given capacities and best norms, where the trace is T."""


def derive() -> Derivation:
    """Prove the saddle that solves the problem without a bias."""
    d = Derivation(
        name="without_bias",
        title="Without a bias",
        statement=(
            r"Without a bias the loss gains $T^2$, $T = \sum_i (v_i - m_i)$. For $\kappa_i \ge 3$ its minimum is "
            r"$\max_s \min_C \sum_i f_i(C_i; v_i + s/(\kappa_i-1)) - s^2 (1 + \sum_i 1/(\kappa_i-1))$: the problem "
            r"with a bias for raised importances. The maximum is at the only $s$ with $T(s) = s$, and $0 \le s \le "
            r"\sum_i v_i$."
        ),
        assumptions=(
            "The loss without a bias of `expected_loss`; $f(C; v)$ is the loss of a feature of `capacity_loss`.",
            r"$\kappa_i \ge 3$ where convexity is used; $\kappa_i > 1$ elsewhere.",
        ),
        source="Extends arXiv 2210.01892 v4, equation 12 (at the best bias); the saddle is not in the paper",
    )
    ell, f, norm, best = sp.Function("L_1"), sp.Function("f"), sp.Function("m_opt"), sp.Function("g")
    raised = sp.Function("v_s")

    # ---- the dual form
    d.equal(
        "The square of the trace is the maximum of functions linear in it, attained at $s = T$:",
        T**2,
        2 * s * T - s**2 + (T - s) ** 2,
    )
    d.define(
        "For a fixed $s$ the loss is a sum over features again, minus $s^2$. A feature of importance $v$ contributes "
        "the loss of before",
        ell(m, C, v),
        (kappa - 1) * (v - m) ** 2 + 2 * m**2 * (1 / C - 1),
    )
    d.define("and $2 s (v - m)$. With", raised(s), EFFECTIVE_IMPORTANCE)
    d.result(
        "EFFECTIVE_IMPORTANCE",
        "this is the loss of a feature of raised importance, up to a constant:",
        ell(m, C, v) + 2 * s * (v - m),
        ell(m, C, raised(s)) - s**2 / (kappa - 1),
        value=EFFECTIVE_IMPORTANCE,
    )
    d.define("So its best norm", norm(C, v), capacity_loss.SQUARED_NORM)
    d.define("and its loss at that norm are those of the problem with a bias:", f(C, v), capacity_loss.FEATURE_LOSS)
    d.equal(
        "(check)",
        ell(norm(C, raised(s)), C, v) + 2 * s * (v - norm(C, raised(s))),
        f(C, raised(s)) - s**2 / (kappa - 1),
    )

    # ---- min and max commute
    inside = {C: 1 / (1 + t)}
    hessian = sp.Matrix(
        [
            [sp.Derivative(ell(m, C, v), m, m), sp.Derivative(ell(m, C, v), m, C)],
            [sp.Derivative(ell(m, C, v), m, C), sp.Derivative(ell(m, C, v), C, C)],
        ]
    )
    d.equal(
        "Minimum and maximum commute, because the loss of a feature is convex in $m$ and $C$ together. Its matrix of "
        "second derivatives is",
        hessian,
        sp.Matrix([[2 * (kappa - 3) + 4 / C, -4 * m / C**2], [-4 * m / C**2, 4 * m**2 / C**3]]),
    )
    d.positive("with a positive diagonal", sp.Derivative(ell(m, C, v), C, C), inside)
    d.equal("and the determinant", hessian[0, 0] * hessian[1, 1] - hessian[0, 1] ** 2, 8 * (kappa - 3) * m**2 / C**3)
    d.positive(r"which is positive for $\kappa > 3$,", 8 * (kappa - 3) * m**2 / C**3, {kappa: 3 + a, **inside})
    d.positive(
        r"(and negative for $\kappa < 3$, where there is no such saddle).",
        -8 * (kappa - 3) * m**2 / C**3,
        {kappa: 1 + 2 / (1 + c), **inside},
    )
    d.remark(
        r"What is added, $2 s \sum (v_i - m_i) - s^2$, is linear in $m$ and concave in $s$, and the capacities with "
        r"$\sum_i C_i \le D$ form a compact convex set: Sion's theorem applies."
    )

    # ---- the root
    missed = sp.Function("h")
    d.define("What a feature contributes to the trace is, at a given $s$,", missed(s), v - norm(C, raised(s)))
    d.equal(
        "which is linear in $s$:",
        missed(s),
        2 * v * (1 - C) / (2 + (kappa - 3) * C) - s * C / (2 + (kappa - 3) * C),
    )
    d.define("Let a feature's part of the dual function be", best(s), f(C, raised(s)) - s**2 / (kappa - 1))
    d.equal("Its derivative is twice that contribution,", sp.Derivative(best(s), s), 2 * missed(s))
    d.remark(
        r"so that the dual function, the minimum over $C$ of $\sum_i g_i(s) - s^2$, has the derivative $2 (T(s) - "
        "s)$ by the envelope theorem. As a minimum of functions that are concave in $s$, each by at least $-s^2$, "
        "it is strictly concave: $T(s) = s$ has one solution. It is not negative, since"
    )
    d.positive("for $s = 0$ nothing contributes a negative amount,", missed(0), {kappa: 1 + a, **inside})
    d.positive(
        r"and at most $\sum_i v_i$, because norms are not negative.",
        v - missed(s),
        {s: b, kappa: 1 + a, **inside},
    )

    # ---- closed forms at given capacities
    feature = {v: V[_i], kappa: KAPPA[_i], C: CAPACITY[_i]}
    part = sp.Function("L_i")
    d.define(
        "Closed forms at given capacities. The loss is the sum over features of",
        part(s),
        v * raised(s) * 2 * (kappa - 1) * (1 - C) / (2 + (kappa - 3) * C),
    )
    d.equal(
        "because this differs from $f$ by",
        f(C, raised(s)) - part(s),
        s * (raised(s) - norm(C, raised(s))),
    )
    d.equal(
        "where the second factor is",
        raised(s) - norm(C, raised(s)),
        missed(s) + s / (kappa - 1),
    )
    d.remark(
        r"Summed over any number of features and at $s = T$ that is $T^2 (1 + \sum_i 1/(\kappa_i-1))$, exactly what "
        "the dual function subtracts."
    )
    share = (v * (v + T / (kappa - 1)) * 2 * (kappa - 1) * (1 - C) / (2 + (kappa - 3) * C)).subs(feature)
    d.result("LOSS", "So, at given capacities and best norms, the loss is", sp.Sum(share, _range), LOSS)
    constant, slope = sp.symbols("P Q", real=True)
    d.define(
        "The trace solves the linear equation $T(s) = s$. With the sums of the two parts of $h$,",
        constant,
        sp.Sum((2 * v * (1 - C) / (2 + (kappa - 3) * C)).subs(feature), _range),
    )
    d.define("and", slope, sp.Sum((C / (2 + (kappa - 3) * C)).subs(feature), _range))
    d.define("its solution is", T, TRACE, shown=constant / (1 + slope))
    d.result("TRACE", "since", constant - T * slope, T, value=TRACE)
    example = {v: (2, 1), kappa: (9, 5), C: (sp.Rational(3, 5), sp.Rational(2, 5))}
    numbers = {
        base[k]: sp.sympify(example[symbol][k])
        for base, symbol in ((V, v), (KAPPA, kappa), (CAPACITY, C))
        for k in range(2)
    }
    at = TRACE.subs(n, 2).doit().subs(numbers)
    least = LOSS.subs(n, 2).doit().subs(numbers).subs(T, at)
    embedded = [{symbol: sp.sympify(values[k]) for symbol, values in example.items()} | {s: at} for k in range(2)]
    norms = [d.unfold(norm(C, raised(s))).subs(one) for one in embedded]
    losses = [d.unfold(ell(m, C, v)).subs(m, held).subs(one) for held, one in zip(norms, embedded, strict=True)]
    d.holds(
        rf"For example $v = (2, 1)$, $\kappa = (9, 5)$, $C = (3/5, 2/5)$: at the best norms ${norms[0]}$ and "
        f"${norms[1]}$ the trace is $3 - ({sum(norms)}) = {at}$, and the losses of the two features and its square "
        f"add up to ${least}$ (all exact).",
        sum(example[v]) - sum(norms) == at and sum(losses) + at**2 == least,
    )
    return d
