"""One problem, several routes to its least loss, and a verdict on each."""

from __future__ import annotations

import enum
import functools
import textwrap
from dataclasses import dataclass
from typing import Any

from capsolve.allocation import Allocation


class Verdict(enum.Enum):
    """What one route says about the allocation."""

    AGREE = "agree"
    DISAGREE = "disagree"
    INCONCLUSIVE = "inconclusive"
    """The route ended in something worse that contradicts nothing: a local optimum."""
    SKIPPED = "skipped"
    """The route cannot be taken here; the note says why."""


@dataclass(frozen=True)
class Check:
    """One route: its value beside that of the allocation.

    Attributes
    ----------
    route, quantity : str
    value, expected : float or None
        What the route says, and what it is held against; None where it was skipped.
    tolerance : float or None
        The largest |difference| that counts as agreement.
    verdict : Verdict
    note : str
        How the value was found, or why there is none.
    """

    route: str
    quantity: str
    value: float | None
    expected: float | None
    tolerance: float | None
    verdict: Verdict
    note: str

    @property
    def difference(self) -> float | None:
        """``value − expected``."""
        return None if self.value is None or self.expected is None else self.value - self.expected


@dataclass(frozen=True, eq=False, repr=False)
class Verification:
    """All routes to one problem.

    Attributes
    ----------
    title : str
        What the problem is.
    allocation : Allocation
        The allocation that was judged.
    checks : tuple of Check
    """

    title: str
    allocation: Allocation
    checks: tuple[Check, ...]

    @functools.cached_property
    def verdict(self) -> Verdict:
        """`Verdict.DISAGREE` if one route disagrees, else `Verdict.AGREE`."""
        return Verdict.DISAGREE if any(c.verdict is Verdict.DISAGREE for c in self.checks) else Verdict.AGREE

    def counts(self) -> dict[str, int]:
        """Return the number of checks with each verdict."""
        return {verdict.value: sum(c.verdict is verdict for c in self.checks) for verdict in Verdict}

    def summary(self) -> str:
        """Return the checks as a table for people, 80 columns wide; `markdown` has more digits."""
        lines = [*_wrapped(self.heading(), ""), ""]
        lines.append(f"{'route':<29} {'quantity':<8} {'value':>11} {'differs':>8} {'allowed':>7} verdict")
        for c in self.checks:
            numbers = f"{_shown(c.value, '.6g'):>11} {_shown(c.difference, '.1e'):>8} {_shown(c.tolerance, '.1e'):>7}"
            lines.append(f"{c.route:<29} {c.quantity:<8} {numbers} {c.verdict.value}")
            lines += _wrapped(c.note, "  ")
        return "\n".join(lines)

    def markdown(self) -> str:
        """Return the checks as a section of Markdown with one table."""
        lines = [f"## {self.heading()}", ""]
        lines += ["| route | quantity | value | difference | tolerance | verdict | note |"]
        lines += ["| --- | --- | ---: | ---: | ---: | --- | --- |"]
        for c in self.checks:
            numbers = f"{_shown(c.value, '.12g')} | {_shown(c.difference, '.1e')} | {_shown(c.tolerance, '.1e')}"
            word = f"**{c.verdict.value}**" if c.verdict is Verdict.DISAGREE else c.verdict.value
            lines.append(f"| {c.route} | {c.quantity} | {numbers} | {word} | {c.note} |")
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers and text, ready for JSON."""
        return {
            "title": self.title,
            "features": self.allocation.model.features,
            "dimensions": self.allocation.dimensions,
            "verdict": self.verdict.value,
            "loss": self.allocation.loss,
            "lower_bound": self.allocation.lower_bound,
            "checks": [
                {
                    name: getattr(c, name)
                    for name in ("route", "quantity", "value", "expected", "difference", "tolerance")
                }
                | {"verdict": c.verdict.value, "note": c.note}
                for c in self.checks
            ],
        }

    def heading(self) -> str:
        """Return the title and the verdict in one line."""
        word = {Verdict.AGREE: "all routes agree", Verdict.DISAGREE: "routes DISAGREE"}[self.verdict]
        others = {name: self.counts()[name] for name in ("inconclusive", "skipped")}
        rest = ", ".join(f"{count} {name}" for name, count in others.items() if count)
        return f"{self.title}: {word}{f' ({rest})' if rest else ''}"

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.counts().items() if count)
        return f"Verification({self.title!r}, {self.verdict.name}: {counts})"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 80, initial_indent=indent, subsequent_indent=indent, break_long_words=False)


def _shown(number: float | None, style: str) -> str:
    return "" if number is None else format(number, style)
