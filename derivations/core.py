"""What a derivation is: a statement, its assumptions, steps that are checked as they are written, and results.

A step enters a `Derivation` only through a method that checks it: an equation whose difference simplifies to exactly
zero, an expression whose sign is read off its coefficients, a condition that SymPy decides. A step that does not hold
raises `DerivationError`, so a derivation that was built is a derivation that was proved.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import sympy as sp

ZERO = "the difference of the two sides simplifies to 0"

Kind = Literal["definition", "remark", "step", "result"]


class DerivationError(Exception):
    """A step of a derivation does not hold."""


@dataclass(frozen=True)
class Item:
    """One paragraph of a derivation: prose, the formula it announces, and how that formula was checked."""

    kind: Kind
    text: str
    formula: tuple[Any, ...] = ()  # the members of what is displayed, a = b = c or a > 0
    sign: str = "="  # between them: =, >, >= or !=
    check: str = ""  # how it was decided; empty for definitions and remarks, which claim nothing
    residuals: tuple[sp.Expr, ...] = ()  # the differences that were shown to be zero, definitions unfolded
    name: str = ""  # results: the name under which the module exports
    value: sp.Basic | None = None  # this expression


@dataclass
class Derivation:
    """A result with its proof, built step by step; every text may hold ``$...$`` and `` `code` ``."""

    name: str
    title: str
    statement: str
    assumptions: tuple[str, ...]
    source: str
    items: list[Item] = field(default_factory=list)
    _unfold: list[Callable[[sp.Basic], sp.Basic]] = field(default_factory=list, repr=False)

    # ------------------------------------------------------------------ what claims nothing

    def remark(self, text: str) -> None:
        """Add prose that leads over to the next step."""
        self.items.append(Item("remark", text))

    def define(self, text: str, head: sp.Expr, value: Any, shown: sp.Basic | None = None) -> None:
        """Let ``head``, a symbol or a function of symbols, stand for ``value`` in all that follows.

        ``shown`` is displayed in place of a ``value`` that is too long to be read, or is a Python function.
        """
        if callable(value):
            self._unfold.append(lambda e, f=head.func, value=value: e.replace(f, value))
        elif isinstance(head, sp.core.function.AppliedUndef):
            arguments = head.args
            body = sp.Lambda(arguments, value)
            self._unfold.append(lambda e, f=head.func, body=body: e.replace(f, body))
        else:
            self._unfold.append(lambda e, s=head, value=value: e.xreplace({s: value}))
        self.items.append(Item("definition", text, (head, value if shown is None else shown)))

    # ------------------------------------------------------------------ what is checked

    def equal(self, text: str, *chain: Any) -> None:
        """Claim that all expressions of ``chain`` (scalars or matrices) are equal: each difference must be 0."""
        self._add_equation("step", text, chain)

    def result(self, name: str, text: str, *chain: Any, value: Any = None) -> None:
        """Claim an equation about ``value``, by default its last member, which the module exports as ``name``."""
        self._add_equation("result", text, chain, name, sp.sympify(chain[-1] if value is None else value))

    def positive(
        self, text: str, expression: Any, where: Mapping[sp.Symbol, Any] | None = None, *, strict: bool = True
    ) -> None:
        """Claim that ``expression`` is > 0 (≥ 0 if not ``strict``).

        ``where`` writes the domain with positive (nonnegative) symbols, κ = 3 + a for κ > 3, say. After it, the
        numerator and the denominator must have coefficients of one sign, or SymPy must know the sign itself.
        """
        expression, where = sp.sympify(expression), dict(where or {})
        value = sp.sympify(self.unfold(expression).doit())
        # in order, as a later symbol may occur in an earlier replacement
        for symbol, replacement in where.items():
            value = value.xreplace({symbol: sp.sympify(replacement)})
        how = self._sign(value, strict=strict)
        sign = ">" if strict else ">="
        if not how:
            raise self._failure(text, f"no proof that this is {sign} 0: {value}")
        if where:
            with_ = ", ".join(f"${sp.latex(s)} = {sp.latex(sp.sympify(e))}$" for s, e in where.items())
            how = f"with {with_}: {how}"
        self.items.append(Item("step", text, (expression, sp.S.Zero), sign, how))

    def holds(self, text: str, condition: bool) -> None:
        """Claim a condition that exact counting or exact arithmetic has decided."""
        if condition is not True:
            raise self._failure(text, f"decided as {condition}")
        self.items.append(Item("step", text, check="decided"))

    def differ(self, text: str, left: Any, right: Any, at: Mapping[sp.Basic, Any]) -> None:
        """Claim that two expressions are *not* equal, with an exact witness ``at``."""
        left, right = sp.sympify(left), sp.sympify(right)
        gap = sp.simplify((self.unfold(left) - self.unfold(right)).doit().subs(dict(at)))
        if gap.free_symbols or gap.is_zero is not False:
            raise self._failure(text, f"the difference at the witness is {gap}")
        witness = ", ".join(f"${sp.latex(s)} = {sp.latex(sp.sympify(e))}$" for s, e in at.items())
        check = f"at {witness} the difference is ${sp.latex(gap)}$"
        self.items.append(Item("step", text, (left, right), "!=", check))

    # ------------------------------------------------------------------ what a reader asks

    @property
    def steps(self) -> list[Item]:
        """The items that claim something, results included."""
        return [item for item in self.items if item.kind in {"step", "result"}]

    @property
    def results(self) -> dict[str, sp.Basic]:
        """The exported expressions by name."""
        return {item.name: item.value for item in self.items if item.value is not None}

    def unfold(self, expression: Any) -> Any:
        """Replace everything that was defined by its definition."""
        expression = sp.sympify(expression)
        for _ in range(len(self._unfold) + 1):
            before = expression
            for replace in self._unfold:
                expression = replace(expression)
            if expression == before:
                return expression
        raise DerivationError(f"{self.name}: the definitions run in a circle at {expression}")

    # ------------------------------------------------------------------ inside

    def _add_equation(self, kind: Kind, text: str, chain: tuple[Any, ...], name: str = "", value: Any = None) -> None:
        members = [sp.ImmutableMatrix(e) if isinstance(e, sp.MatrixBase) else sp.sympify(e) for e in chain]
        if len(members) < 2:
            raise TypeError("an equation needs two sides")
        if any(left == right for left, right in itertools.pairwise(members)):
            raise self._failure(text, "both sides are the same expression, which says nothing")
        residuals: list[sp.Expr] = []
        unfolded = [self.unfold(member).doit() for member in members]
        for left, right in itertools.pairwise(unfolded):
            for difference in _entries(left - right):
                rest = vanish(difference)
                if rest != 0:
                    raise self._failure(text, f"left − right does not vanish but is {rest}")
                residuals.append(difference)
        self.items.append(Item(kind, text, tuple(members), "=", ZERO, tuple(residuals), name, value))

    def _sign(self, value: sp.Expr, *, strict: bool) -> str:
        known = value.is_positive if strict else value.is_nonnegative
        if known:
            return "a product or sum of terms of known sign"
        parts = sp.fraction(sp.cancel(sp.together(value)))
        if _one_sign(parts[0], strict=strict) and _one_sign(parts[1], strict=True):
            return "every coefficient is positive"
        return ""

    def _failure(self, text: str, why: str) -> DerivationError:
        return DerivationError(f"{self.name}, step {len(self.steps) + 1} ({text}): {textwrap.shorten(why, 500)}")


def vanish(expression: sp.Expr) -> sp.Expr:
    """Return 0 if ``expression`` can be rewritten to exactly 0, otherwise what is left of it."""
    numerator = sp.expand(sp.fraction(sp.together(expression))[0])
    letters = numerator.free_symbols
    if numerator == 0 or (letters and numerator.is_polynomial(*letters) and sp.Poly(numerator, *letters).domain.is_ZZ):
        return numerator  # decided: the expression is rational
    return sp.simplify(expression)


def _entries(difference: Any) -> list[sp.Expr]:
    return list(difference) if isinstance(difference, sp.MatrixBase) else [difference]


def _one_sign(part: sp.Expr, *, strict: bool) -> bool:
    """Whether all coefficients are positive, in generators that are known to be positive (or nonnegative)."""
    known = part.is_positive if strict else part.is_nonnegative
    if known is not None:
        return bool(known)
    try:
        poly = sp.Poly(part)
    except sp.PolynomialError:
        return False
    signs = [g.is_positive if strict else g.is_nonnegative for g in poly.gens]
    return all(signs) and all(c.is_positive for c in poly.coeffs())
