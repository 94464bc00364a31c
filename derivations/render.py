"""A derivation as text for people: plain for the terminal, Markdown for GitHub, LaTeX for print."""

from __future__ import annotations

import functools
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import sympy as sp
from sympy.printing.latex import LatexPrinter
from sympy.printing.pretty.pretty import PrettyPrinter
from sympy.printing.pretty.stringpict import prettyForm

from derivations.core import ZERO, Derivation, Item

WIDTH = 100
INTRODUCTION = (
    "Every formula that capsolve relies on, derived. Each numbered step below was checked by SymPy while this text "
    "was written: a tick behind it means that the difference of the two sides of its equation simplified to exactly "
    "0, and any other way of checking is named below the formula. A step that does not hold stops the derivation. "
    "The name in front of a result is that of the SymPy expression which the module exports; the numerical code is "
    "tested against it."
)


class _PositiveFirst:
    """Write sums with their positive terms first: 1 − C and v − m, not −C + 1 and −m + v."""

    def _as_ordered_terms(self, expr: sp.Expr, order: str | None = None) -> list[sp.Expr]:
        terms: list[sp.Expr] = super()._as_ordered_terms(expr, order)  # type: ignore[misc]
        return sorted(terms, key=lambda term: term.could_extract_minus_sign())


class _Latex(_PositiveFirst, LatexPrinter):
    def _print_Pow(self, expr: sp.Pow) -> str:
        self._settings["root_notation"] = expr.exp.is_Rational  # √x, but x^(1/α)
        return super()._print_Pow(expr)


class _Pretty(_PositiveFirst, PrettyPrinter):
    def _print_Function(self, expr: sp.Function, **options: Any) -> Any:
        named = sp.Function("ℓ")(*expr.args) if expr.func.__name__ == "ell" else expr
        return super()._print_Function(named, **options)

    def _print_Pow(self, expr: sp.Pow) -> Any:
        self._settings["root_notation"] = expr.exp.is_Rational  # √x, but x^(1/α)
        return super()._print_Pow(expr)

    def _print_Indexed(self, expr: sp.Indexed) -> Any:
        return self._print(sp.Symbol(f"{expr.base}_{''.join(map(str, expr.indices))}"))


_LATEX_SIGN = {"=": "=", ">": ">", ">=": r"\ge", "!=": r"\ne"}
_PRETTY_SIGN = {"=": " = ", ">": " > ", ">=": " ≥ ", "!=": " ≠ "}


def latex(item: Item) -> str:
    """Return the LaTeX of an item's formula, without delimiters, over several lines if it is wide."""
    printer = _Latex({"fold_short_frac": False})
    # GitHub refuses \operatorname
    first, *rest = (printer.doprint(member).replace(r"\operatorname", r"\mathrm") for member in item.formula)
    sign = _LATEX_SIGN[item.sign]
    forms = _forms(item)
    if _joined(forms).width() <= WIDTH:
        return f" {sign} ".join((first, *rest))
    head = rf"{first} " if forms[0].width() < WIDTH / 4 else rf"& {first} \\ "
    return rf"\begin{{aligned}} {head}" + r" \\ ".join(f"& {sign} {member}" for member in rest) + r" \end{aligned}"


def pretty(item: Item) -> list[str]:
    """Return an item's formula in two-dimensional Unicode, over several blocks of lines if it is wide."""
    forms = _forms(item)
    if _joined(forms).width() <= WIDTH:
        return _lines(_joined(forms))
    return [line for form in forms for line in (*_lines(form), "")][:-1]


def _forms(item: Item) -> list[prettyForm]:
    """Typeset the members of a formula, all but the first with the sign in front."""
    printer = _Pretty({"use_unicode": True, "wrap_line": False})
    first, *rest = (printer._print(member) for member in item.formula)
    return [first, *(prettyForm(*prettyForm(_PRETTY_SIGN[item.sign]).right(form)) for form in rest)]


def _joined(forms: list[prettyForm]) -> prettyForm:
    return functools.reduce(lambda left, right: prettyForm(*left.right(right)), forms)


def _lines(form: prettyForm) -> list[str]:
    return [line.rstrip() for line in str(form).splitlines()]


# ---------------------------------------------------------------------- plain text


def plain(derivation: Derivation, number: int) -> str:
    """Return one derivation for the terminal."""
    lines = [f"{number}. {derivation.title}   [{derivation.name}]", "=" * WIDTH]
    lines += ["", *_wrapped("Statement. " + derivation.statement), "", "Assumptions."]
    for assumption in derivation.assumptions:
        lines += _wrapped(assumption, "  · ", "    ")
    lines += ["", "Derivation."]
    step = 0
    for item in derivation.items:
        head = "      "
        if item.kind in {"step", "result"}:
            step += 1
            head = f"  {step:>2}. "
        lines += ["", *_wrapped(_lead(item) + item.text + _tick(item), head, "      ")]
        if item.formula:
            lines += ["", *(f"{'':10}{line}".rstrip() for line in pretty(item))]
        if item.check not in {"", ZERO}:
            lines += ["", *_wrapped("✓ " + item.check, "      ", "        ")]
    lines += ["", *_wrapped("Source. " + derivation.source), ""]
    return "\n".join(lines)


def _wrapped(text: str, first: str = "", rest: str | None = None) -> list[str]:
    readable = re.sub(r"\$([^$]+)\$", lambda found: unicode_math(found[1]), text)
    return textwrap.wrap(readable, WIDTH, initial_indent=first, subsequent_indent=first if rest is None else rest)


_MACROS = {
    "alpha": "α", "gamma": "γ", "delta": "δ", "epsilon": "ε", "theta": "θ", "kappa": "κ", "lambda": "λ",
    "mu": "μ", "xi": "ξ", "sigma": "σ", "tau": "τ", "Pi": "Π", "pi": "π", "sum": "Σ", "int": "∫", "sqrt": "√",
    "le": "≤", "ge": "≥", "ne": "≠", "cdot": "·", "times": "×", "to": "→", "infty": "∞", "ldots": "…",
    "min": "min", "max": "max", "tan": "tan", "ell": "ℓ", "partial": "∂", "nabla": "∇", "left": "", "right": "",
}  # fmt: skip
_SUPERSCRIPT = str.maketrans("0123456789+-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻")
_SIMPLE_GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"


def unicode_math(tex: str) -> str:
    r"""Return inline TeX as one line of Unicode; a macro that it does not know is an error, not a blot.

    >>> unicode_math(r"\sum_{i \ne j} G_{ij}^2 \le (\kappa-1)/2")
    'Σ_{i ≠ j} G_ij² ≤ (κ-1)/2'
    """
    out = re.sub(rf"\\frac{_SIMPLE_GROUP}{_SIMPLE_GROUP}", lambda f: f"{_group(f[1])}/{_group(f[2])}", tex)
    out = re.sub(r"\\hat\s*(\w)", lambda f: unicodedata.normalize("NFC", f[1] + "\u0302"), out)
    out = re.sub(r"\\(?:operatorname|mathrm)\{(\w+)\}", r"\1", out)
    out = re.sub(r"\\([A-Za-z]+)", _macro, out)
    out = re.sub(r"(?<![_^√])\{(\w+)\}", r"\1", out)
    out = re.sub(r"\^(?:\{([0-9+-]+)\}|([0-9]))", lambda f: (f[1] or f[2]).translate(_SUPERSCRIPT), out)
    out = re.sub(r"\^\{(\w)\}", r"^\1", re.sub(r"_\{(\w+)\}", r"_\1", out))
    out = re.sub(r"\^\{([^{}]*)\}", r"^(\1)", out)
    out = re.sub(r"(√)\{(\w+)\}", r"\1\2", out)
    out = re.sub(r"√\{([^{}]*)\}", r"√(\1)", out)
    if "\\" in out:
        raise ValueError(f"no plain form for the TeX {tex!r}: got as far as {out!r}")
    return out.replace("⊺", "ᵀ").replace("^T", "ᵀ")


def _group(tex: str) -> str:
    return tex if re.fullmatch(r"\\?\w+", tex) else f"({tex})"


def _macro(found: re.Match[str]) -> str:
    name = found[1]
    if name not in _MACROS:
        raise ValueError(f"no plain form for the TeX macro \\{name}")
    return _MACROS[name]


# ---------------------------------------------------------------------- Markdown


def markdown(derivations: Sequence[Derivation]) -> str:
    """Return all derivations as one Markdown document with the mathematics that GitHub renders."""
    parts = ["# Derivations", INTRODUCTION]
    parts.append("\n".join(f"{k}. [{d.title}](#{_anchor(f'{k}. {d.title}')})" for k, d in enumerate(derivations, 1)))
    for number, derivation in enumerate(derivations, 1):
        parts += [f"## {number}. {derivation.title}", f"*Module* `derivations.{derivation.name}`"]
        parts += [f"**Statement.** {derivation.statement}", "**Assumptions.**"]
        parts.append("\n".join(f"* {assumption}" for assumption in derivation.assumptions))
        parts.append("**Derivation.**")
        step = 0
        for item in derivation.items:
            label = ""
            if item.kind in {"step", "result"}:
                step += 1
                label = f"**({step})** "
            parts.append(label + _lead(item, "**") + item.text + _tick(item))
            if item.formula:
                parts.append(f"```math\n{latex(item)}\n```")
            if item.check not in {"", ZERO}:
                parts.append(f"<sub>✓ {item.check}</sub>")
        parts.append(f"**Source.** {derivation.source}")
    return "\n\n".join(parts) + "\n"


def _anchor(heading: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")


# ---------------------------------------------------------------------- LaTeX

_PREAMBLE = r"""\documentclass[11pt]{article}
\usepackage[a4paper,margin=2.6cm]{geometry}
\usepackage{amsmath}
\usepackage{graphicx}
\newsavebox{\formula}
% a formula that is too wide for the line is scaled down to it
\newcommand{\fit}[1]{\[\sbox{\formula}{$\displaystyle #1$}%
  \ifdim\wd\formula>\linewidth\resizebox{\linewidth}{!}{\usebox{\formula}}\else\usebox{\formula}\fi\]}
\newcommand{\checked}[1]{{\par\noindent\footnotesize$\surd$ #1\par}}
\setlength{\parindent}{0pt}\setlength{\parskip}{5pt plus 2pt}\emergencystretch=3em
\title{Derivations}\author{capsolve}\date{}
\begin{document}
\maketitle
"""


def tex(derivations: Sequence[Derivation]) -> str:
    """Return all derivations as one LaTeX document that a plain installation compiles."""
    parts = [_PREAMBLE + _tex(INTRODUCTION), r"\tableofcontents"]
    for derivation in derivations:
        parts += [
            rf"\section{{{_tex(derivation.title)}}}",
            rf"Module \texttt{{derivations.{_tex(derivation.name)}}}",
        ]
        parts += [rf"\textbf{{Statement.}} {_tex(derivation.statement)}", r"\textbf{Assumptions.}"]
        parts.append(_itemized(derivation.assumptions))
        parts.append(r"\textbf{Derivation.}")
        step = 0
        for item in derivation.items:
            label = ""
            if item.kind in {"step", "result"}:
                step += 1
                label = rf"\textbf{{({step})}} "
            lead = rf"\textbf{{Result}} \texttt{{{_tex(item.name)}}}. " if item.kind == "result" else ""
            shown = f"\n\\fit{{{latex(item)}}}" if item.formula else ""
            parts.append(label + lead + _tex(item.text) + _tick(item).replace("✓", r"$\surd$") + shown)
            if item.check not in {"", ZERO}:
                parts.append(rf"\checked{{{_tex(item.check)}}}")
        parts.append(rf"\textbf{{Source.}} {_tex(derivation.source)}")
    return "\n\n".join(parts) + "\n\\end{document}\n"


def _itemized(entries: Iterable[str]) -> str:
    return "\\begin{itemize}\n" + "\n".join(rf"\item {_tex(e)}" for e in entries) + "\n\\end{itemize}"


def _tex(prose: str) -> str:
    pieces = re.split(r"(\$[^$]+\$|`[^`]+`)", prose)
    return "".join(_tex_piece(piece) for piece in pieces)


def _tex_piece(piece: str) -> str:
    if piece.startswith("$"):
        return piece
    code = piece.startswith("`")
    text = re.sub(r"([_%&#])", r"\\\1", piece.strip("`") if code else piece)
    return rf"\texttt{{{text}}}" if code else text.replace("−", "$-$").replace("κ", r"$\kappa$")


def _tick(item: Item) -> str:
    return " ✓" if item.check == ZERO else ""


def _lead(item: Item, bold: str = "") -> str:
    return f"{bold}Result{bold} `{item.name}`. " if item.kind == "result" else ""
