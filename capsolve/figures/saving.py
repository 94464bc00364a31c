"""Figures as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from capsolve.figures._style import STYLE, quiet_fonts, settle
from capsolve.files._paths import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".pdf", ".png", ".svg")
"""What `save` can write."""


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PDF, PNG or SVG, by the suffix of ``path``: the whole file or nothing.

    Characters that the font does not have, such as emoji, are boxes: choose another font by ``rcParams["font.family"]``
    before the figure is drawn.

    Raises
    ------
    ValueError
        If the suffix is another one.
    OSError
        If the file cannot be written.
    """
    from matplotlib import style  # noqa: PLC0415

    path = Path(path)
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise ValueError(f"a figure's suffix must be one of {', '.join(FORMATS)}, got {str(path)!r}")
    dated = {".pdf": "CreationDate", ".svg": "Date"}  # left out: equal figures make equal files
    with style.context(STYLE), quiet_fonts(), replacing(path) as temporary:
        if any(ax.get_aspect() != "auto" for ax in figure.axes):
            settle(figure)
        figure.savefig(temporary, format=kind[1:], metadata={dated[kind]: None} if kind in dated else None)
