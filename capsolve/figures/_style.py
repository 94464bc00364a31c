"""What all drawings share: colours, marks, numbers as text."""

from __future__ import annotations

import functools
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from capsolve.allocation import Phase
from capsolve.certificate import Status

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D

    from capsolve.allocation import Allocation
    from capsolve.measurement import Measurement

STYLE = "capsolve.figures.style"
"""The name of the package's style sheet, for `matplotlib.style`."""

COLOURS = {Phase.IGNORED: "#707070", Phase.POLYSEMANTIC: "#e69f00", Phase.MONOSEMANTIC: "#0072b2"}
TINTS = {Phase.IGNORED: 0.05, Phase.POLYSEMANTIC: 0.22, Phase.MONOSEMANTIC: 0.25}  # opacity; differ in grey too
MARKERS = {Phase.IGNORED: "x", Phase.POLYSEMANTIC: "o", Phase.MONOSEMANTIC: "s"}

CROWD = 200  # above so many, dots become a picture and the mean capacity of neighbours is drawn too

# what random directions would have, above all else
DASHED: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": (0, (4, 2)), "zorder": 6}


def phase_handles(counted: Allocation | Measurement) -> list[Line2D]:
    """Return entries for a legend, with markers of a size that can be seen."""
    counts = {phase: counted.counts()[phase.name.lower()] for phase in reversed(Phase)}
    return [
        line(f"{phase.name.lower()} ({count:,})", linestyle="none", marker=MARKERS[phase], color=COLOURS[phase])
        for phase, count in counts.items()
    ]


def line(label: str, **look: Any) -> Line2D:
    """Return an entry for a legend."""
    from matplotlib.lines import Line2D  # noqa: PLC0415

    return Line2D([], [], label=label, **look)


def headline(allocation: Allocation) -> str:
    """Return the title of an allocation: its size, status, price and loss."""
    n, budget = allocation.model.features, allocation.dimensions
    status = allocation.status.value
    if allocation.status is not Status.OPTIMAL:
        status += f", relative gap {number(allocation.gap, 2)}"
    return (
        f"{n:,} feature{'s' * (n != 1)} in {number(budget, 6)} dimension{'s' * (budget != 1)}: {status}\n"
        rf"price $\lambda$ = {number(allocation.price)}, loss $L$ = {number(allocation.loss)}"
    )


def number(value: float, digits: int = 4) -> str:
    """Return a number as text for Matplotlib, as a power of ten where it is very large or small."""
    mantissa, _, exponent = f"{value:,.{6 if 1e3 <= value < 1e6 else digits}g}".partition("e")
    if not exponent:
        return mantissa
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if mantissa == "1" else rf"${mantissa}\times{power}$"


def plain_log(axis: Axis) -> None:
    """Give a logarithmic axis of less than two decades ticks that are plain numbers: 2, 5, 10."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    low, high = sorted(axis.get_view_interval())
    if high < 100.0 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda tick, _: number(tick)))
        axis.set_minor_formatter(NullFormatter())


def whole_numbers(axis: Axis) -> None:
    """Put the ticks of a linear axis at whole numbers: there is no half feature."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def legend_above(ax: Axes, handles: Sequence[Artist], title: str, width: float | None = None) -> None:
    """Put a legend above the axes, in as many columns as fit, and the title above that, in any style.

    ``width`` in pixels is what there is, by default the width of the axes.
    """
    from matplotlib import rcParams  # noqa: PLC0415
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415

    size = FontProperties(size=rcParams["legend.fontsize"]).get_size_in_points()
    box, em = ax.get_window_extent(), size * ax.figure.dpi / 72.0
    width = box.width if width is None else width
    title = wrapped(ax, title, width)
    columns = max(1, min(len(handles), int(width / em // 9.25)))
    rows = math.ceil(len(handles) / columns)
    if handles:
        ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.03), ncols=columns, **_COMPACT)
    ax.set_title(title, loc="left", pad=(0.03 * box.height / em + 1.65 * rows + 0.6) * size if rows else None)


# as in the style sheet: the place that is left for the legend depends on it
_COMPACT: dict[str, Any] = {
    "frameon": False,
    "borderaxespad": 0.0,
    "borderpad": 0.2,
    "handletextpad": 0.4,
    "columnspacing": 1.4,
    "handlelength": 1.2,
}


def wrapped(ax: Axes, title: str, width: float | None = None) -> str:
    """Return the title with line breaks between words where it would reach far beyond the axes (or ``width``)."""
    from matplotlib import rcParams  # noqa: PLC0415
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415

    letter = 0.58 * FontProperties(size=rcParams["axes.titlesize"]).get_size_in_points() * ax.figure.dpi / 72.0
    width = ax.get_window_extent().width if width is None else width
    most = 1.1 * width / letter  # above what stands beside the axes there is room too
    lines = []
    for given in title.split("\n"):
        lines.append("")
        for word in re.findall(r"(?:\$[^$]*\$|[^\s$])+", given):
            longer = f"{lines[-1]} {word}".lstrip()
            if lines[-1] and len(re.sub(r"\$[^$]*\$", "xxx", longer)) > most:
                lines.append(word)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the given axes, or those of a new figure.

    Titles and legends stand outside the axes. So a figure that leaves the places of its axes to Matplotlib's defaults,
    as that of a plain ``plt.subplots(1, 2)`` does, gets the layout that makes room for them.
    """
    if ax is None:
        return shown(new_figure(layout="constrained").subplots())
    from matplotlib.gridspec import SubplotParams  # noqa: PLC0415

    figure: Any = ax.get_figure(root=True)
    by_default = ax.get_subplotspec() is not None and vars(figure.subplotpars) == vars(SubplotParams())
    if by_default and figure.get_layout_engine() is None:
        figure.set_layout_engine("constrained")
    return ax


def new_figure(**given: Any) -> Figure:
    """Return an empty figure. Notebooks show it as a picture, though pyplot does not know it."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    return shown(Figure(**given))


_Drawn = TypeVar("_Drawn")


def shown(drawn: _Drawn) -> _Drawn:
    """Make IPython show a figure, or axes as the figure that they are in."""
    figure: Any = drawn
    figure._repr_png_ = functools.partial(_png, figure.get_figure(root=True))
    return drawn


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with quiet_fonts():
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def settle(figure: Figure | SubFigure) -> None:
    """Lay a figure out, as drawing it will again: axes of equal aspect find their place in the third round."""
    root = figure.get_figure(root=True)
    engine = root.get_layout_engine()
    if engine is not None:
        with quiet_fonts():
            for _ in range(3):
                engine.execute(root)


@contextmanager
def quiet_fonts() -> Iterator[None]:
    """Keep fontTools from warning about the dates in Matplotlib's own fonts, and Matplotlib about scripts they lack."""
    logger = logging.getLogger("fontTools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph .* missing from|Matplotlib currently does not support")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def page(width: float, height: float) -> Iterator[Figure]:
    """Give an empty figure of a size in inches, in the package's style as long as the block lasts.

    >>> from capsolve import figures
    >>> with figures.page(7.0, 3.3) as figure:
    ...     left, right = figure.subplots(1, 2)
    """
    from matplotlib import style  # noqa: PLC0415

    with style.context(STYLE):
        yield new_figure(figsize=(width, height))
