"""What every reproduction hands in: pictures, data, and statements that its own numbers confirm or contradict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from capsolve.files import replacing, write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = "Scherlis, Sachan, Jermyn, Benton, Shlegeris, Polysemanticity and Capacity in Neural Networks, arXiv 2210.01892"


@dataclass(frozen=True)
class Settings:
    """What the caller asked for."""

    folder: Path
    cells: int | None
    progress: bool


@dataclass(frozen=True)
class Finding:
    """A statement of the paper, whether it holds here, and the numbers that say so."""

    claim: str
    holds: bool
    evidence: str


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
            with replacing(written[-1]) as temporary:
                np.savez_compressed(temporary, **self.arrays)
        written.append(folder / f"{name}.md")
        with replacing(written[-1]) as temporary:
            temporary.write_text(self.text([path.name for path in written[:-1]]), encoding="utf-8")
        return written

    def text(self, files: Sequence[str]) -> str:
        """Return the report as Markdown."""
        agree = sum(finding.holds for finding in self.findings)
        lines = [f"# {self.title}", "", f"{PAPER}.", "", self.about, ""]
        lines += [f"{agree} of {len(self.findings)} statements agree.", ""]
        for finding in self.findings:
            verdict = "agrees" if finding.holds else "DISAGREES"
            lines += [f"- **{verdict}**: {finding.claim}  ", f"  {finding.evidence}"]
        lines += ["", f"Files: {', '.join(files)}.", ""]
        return "\n".join(lines)
