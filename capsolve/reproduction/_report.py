"""What every reproduction hands in: pictures, data, and statements that its own numbers confirm or contradict."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsolve.files._paths import write_text
from capsolve.files.tables import write_table
from capsolve.files.tensors import write_arrays

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = "Scherlis, Sachan, Jermyn, Benton, Shlegeris, Polysemanticity and Capacity in Neural Networks, arXiv 2210.01892"


@dataclass(frozen=True)
class Settings:
    """What the caller asked for."""

    folder: Path
    cells: int | None = None
    progress: bool = False
    executor: Executor | None = None

    def checkpoint(self, name: str, cells: int) -> Path:
        """Return the folder where finished cells of a diagram are kept, of ``cells`` if the caller asked for none."""
        return self.folder / "cells" / f"{name}-{self.cells or cells}"


@dataclass(frozen=True)
class Finding:
    """A statement of the paper, whether it holds here, and the numbers that say so."""

    claim: str
    holds: float
    """1 (or True) if it does, 0 if not; between if it does for that share of the models it is about."""
    evidence: str

    @property
    def verdict(self) -> str:
        """Return one word, or two."""
        if self.holds == 1:
            return "agrees"
        return "agrees in part" if self.holds > 0 else "DISAGREES"


@dataclass(frozen=True)
class Result:
    """A figure made again."""

    title: str
    about: str
    """What was computed, with which settings."""
    pictures: Mapping[str, Figure]
    """By what is added to the figure's name: "" for the figure itself."""
    findings: Sequence[Finding]
    table: Mapping[str, Any] | None = None
    """Columns of equal length."""
    arrays: Mapping[str, Any] | None = None
    appendix: str = ""
    """More numbers, as Markdown."""
    source: str = PAPER

    def write(self, folder: Path, name: str) -> list[Path]:
        """Write pictures (.png and .pdf), data (.csv, .npz) and the text (.md); return the paths."""
        from capsolve import figures  # noqa: PLC0415

        written = []
        for suffix, picture in self.pictures.items():
            for kind in (".png", ".pdf"):
                written.append(folder / f"{name}{suffix}{kind}")
                figures.save(picture, written[-1])
        if self.table is not None:
            written.append(folder / f"{name}.csv")
            write_table(self.table, written[-1])
        if self.arrays is not None:
            written.append(folder / f"{name}.npz")
            write_arrays(written[-1], self.arrays)
        written.append(folder / f"{name}.md")
        write_text(written[-1], self.text([path.name for path in written[:-1]]))
        return written

    def agreement(self) -> str:
        """Return how many statements agree, in a sentence."""
        verdicts = [finding.verdict for finding in self.findings]
        partly = verdicts.count("agrees in part")
        more = f", {partly} more in part" if partly else ""
        return f"{verdicts.count('agrees')} of {len(verdicts)} statements agree{more}."

    def summary(self) -> str:
        """Return every statement with what was found, for people, 80 columns wide."""
        lines = [f"{self.title}: {self.agreement()}"]
        for finding in self.findings:
            for text, indent in ((f"{finding.verdict}: {finding.claim}", "  "), (finding.evidence, "    ")):
                lines += textwrap.wrap(text, 80, initial_indent=indent, subsequent_indent=f"{indent}  ")
        return "\n".join(lines)

    def text(self, files: Sequence[str]) -> str:
        """Return the report as Markdown."""
        lines = [f"# {self.title}", "", f"{self.source}.", "", self.about, "", self.agreement(), ""]
        for finding in self.findings:
            lines += [f"- **{finding.verdict}**: {finding.claim}  ", f"  {finding.evidence}"]
        if self.appendix:
            lines += ["", self.appendix]
        lines += ["", f"Files: {', '.join(files)}.", ""]
        return "\n".join(lines)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    cells = [list(heads), ["---"] * len(heads), *map(list, rows)]
    return [f"| {' | '.join(row)} |" for row in cells]
