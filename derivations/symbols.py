"""The letters that the derivations share, with the domains that the theory gives them."""

from __future__ import annotations

import sympy as sp

v = sp.Symbol("v", positive=True)  # importance
kappa = sp.Symbol("kappa", positive=True)  # kurtosis, ≥ 1
C = sp.Symbol("C", positive=True)  # capacity, in (0, 1) unless said otherwise
m = sp.Symbol("m", positive=True)  # squared norm |w|² of a row of the embedding
D = sp.Symbol("D", positive=True)  # dimensions
tau = sp.Symbol("tau", positive=True)  # scale; the price is λ = 2τ²
u = sp.Symbol("u", positive=True)  # 1/τ
gamma = sp.Symbol("gamma", real=True)  # half the excess kurtosis
a, b, c, t = sp.symbols("a b c t", positive=True)  # slack: κ = 3 + a says κ > 3, C = 1/(1 + t) says 0 < C < 1


def rows(count: int, width: int, name: str = "w") -> sp.Matrix:
    """Return a ``count`` × ``width`` matrix of real symbols, the rows of an embedding."""
    return sp.Matrix(count, width, lambda i, k: sp.Symbol(f"{name}_{i + 1}{k + 1}", real=True))


def family(name: str, count: int, **assumptions: bool) -> list[sp.Symbol]:
    """Return ``name_1 … name_count``."""
    return [sp.Symbol(f"{name}_{i + 1}", **assumptions) for i in range(count)]
