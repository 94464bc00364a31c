"""Phase diagrams: the capacity of one feature over two axes, the lines between its phases, several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from capsolve._checks import real_array
from capsolve.allocation import Phase
from capsolve.figures._cells import draw_cells
from capsolve.figures._style import axes_or_new, legend_above, line, page, plain_log, settle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from capsolve.diagrams.analytic import PhaseDiagram
    from capsolve.diagrams.boundaries import Boundary
    from capsolve.diagrams.empirical import EmpiricalPhaseDiagram

LABELS = {
    "importance": "importance $V$ (inside the target)",
    "kurtosis": r"kurtosis $\kappa$",
    "density": "density $p$",
    "sparsity": "sparsity $1 - p$",
    "dimensions": "dimensions $D$",
    "features": "features $n$",
    "exponent": r"exponent $\alpha$ of the importances $i^{-\alpha}$",
    "rate": r"rate $\rho$ of the importances $e^{-\rho (i-1)}$",
}
"""What the axes that `capsolve.phase_diagram` knows are called."""
OUTSIDE = {"importance": "importance $V$ (on the squared error)"}
"""The same, where it is something else for autoencoders."""

LINES: dict[str, Any] = {"jump": "solid", "kink": (0, (3.5, 1.5))}
MEANING = {"jump": "capacity jumps", "kink": "its slope jumps"}
ROOM = 0.65, 2.6
"""Width of a letter of a phase's name, and height of the line that is kept free for it, as parts of the font's size."""


def phase_diagram(
    diagram: PhaseDiagram | EmpiricalPhaseDiagram,
    *,
    theory: PhaseDiagram | None = None,
    marks: Mapping[str, tuple[float, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the capacity of the tracked feature over the two axes, with the boundaries of its phases on top.

    Where the capacity jumps (first order) a boundary is solid, where only its slope does it is dashed; a critical point
    is a white dot.

    Parameters
    ----------
    diagram : PhaseDiagram or EmpiricalPhaseDiagram
        Of any two axes.
    theory : PhaseDiagram, optional
        For a diagram that was found numerically: the one whose boundaries are drawn on top of it.
    marks : mapping of str to (x, y), optional
        Points to mark by a dot with a letter or two beside. Without any, the names of the phases are written into
        large regions.
    ax : matplotlib.axes.Axes, optional
        Where to draw, with a colour bar beside; on a new figure by default.

    Examples
    --------
    >>> import capsolve
    >>> from capsolve import figures
    >>> ax = figures.phase_diagram(capsolve.phase_diagram(cells=20))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['capacity jumps', 'its slope jumps', 'critical point']

    References
    ----------
    arXiv 2210.01892, Fig. 4.
    """
    from matplotlib import patheffects  # noqa: PLC0415

    from capsolve.diagrams.analytic import PhaseDiagram  # noqa: PLC0415

    ax = axes_or_new(ax)
    x, y = diagram.x, diagram.y
    logarithmic = (x.logarithmic, y.logarithmic)
    picture = draw_cells(ax, x.values, y.values, diagram.capacity, logarithmic=logarithmic)
    width = ax.get_window_extent().width  # of the axes and the colour bar, which is to take a part of it
    bar = ax.figure.colorbar(picture, ax=ax, pad=0.02)
    bar.set_label(f"capacity $C$ of feature {diagram.tracked}")
    outline = [patheffects.Stroke(linewidth=2.8, foreground="white"), patheffects.Normal()]
    title, labels = diagram.description, LABELS
    if isinstance(diagram, PhaseDiagram):
        theory = diagram
    else:
        title = f"{diagram.model}: {title}"
        labels = LABELS | OUTSIDE if diagram.model.startswith("autoencoder") else LABELS
    boundaries = () if theory is None else [b for b in theory.boundaries if _inside(diagram, b)]
    critical = () if theory is None else theory.critical
    for boundary in boundaries:
        ax.plot(
            boundary.x,
            boundary.y,
            color="black",
            linewidth=1.3,
            linestyle=LINES[boundary.order],
            path_effects=outline,
            zorder=3,
            label=f"{boundary.lower.name.lower()}–{boundary.upper.name.lower()}",
        )
    dot: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": "white", "markeredgecolor": "black"}
    for point in critical:
        ax.plot(*point, markersize=6.0, zorder=4, **dot)
    bold: dict[str, Any] = {"weight": "bold", "path_effects": outline, "zorder": 5, "parse_math": False}
    for name, place in (_phase_names(diagram, ax) if marks is None else {}).items():
        ax.text(*place, name, ha="center", va="center", **bold)
    for name, place in (marks or {}).items():
        ax.plot(*place, marker="o", markersize=4.0, color="black", markeredgecolor="white", clip_on=False, zorder=5)
        ax.annotate(name, place, (4.0, 4.0), textcoords="offset points", **bold)
    orders = [order for order in LINES if any(boundary.order == order for boundary in boundaries)]
    handles = [line(MEANING[order], color="black", linewidth=1.3, linestyle=LINES[order]) for order in orders]
    if critical:
        handles.append(line("critical point", markersize=6.0, **dot))
    legend_above(ax, handles, title, width)
    for axis, given in ((ax.xaxis, x), (ax.yaxis, y)):
        axis.set_label_text(labels.get(given.name, given.name))
        if given.logarithmic:
            plain_log(axis)
        if given.name == "bias":
            axis.set_ticks([0.0, 1.0], ["without bias", "with bias"])
    return ax


def _inside(diagram: PhaseDiagram | EmpiricalPhaseDiagram, boundary: Boundary) -> bool:
    """Return whether some of the line is in the picture: closed forms go on beyond its frame."""
    at = ((boundary.x, diagram.x.values), (boundary.y, diagram.y.values))
    return bool(np.logical_and(*((values >= axis.min()) & (values <= axis.max()) for values, axis in at)).any())


def _phase_names(diagram: PhaseDiagram | EmpiricalPhaseDiagram, ax: Axes) -> dict[str, tuple[float, float]]:
    """Return the names of the phases, each where it is farthest from other phases and the frame."""
    from matplotlib import rcParams  # noqa: PLC0415
    from scipy.ndimage import distance_transform_edt  # noqa: PLC0415

    settle(ax.figure)  # only then it is known how large the axes are
    ny, nx = diagram.shape
    box, size = ax.get_window_extent(), rcParams["font.size"] * ax.figure.dpi / 72.0
    places = {}
    for phase in Phase:
        name = phase.name.lower()
        across, up = 0.5 * ROOM[0] * len(name) * size / box.width, 0.5 * ROOM[1] * size / box.height
        region = np.pad(diagram.phase[..., diagram.tracked] == phase, 1)
        distance = distance_transform_edt(region, sampling=(1.0 / ny / up, 1.0 / nx / across))[1:-1, 1:-1]
        distance[[0, -1]] = distance[:, [0, -1]] = 0.0  # the values at the ends of an axis are on the frame
        if distance.max() >= 1.0:
            row, column = np.unravel_index(np.argmax(distance), distance.shape)
            places[name] = (float(diagram.x.values[column]), float(diagram.y.values[row]))
    return places


def architecture_grid(
    capacity: Any,
    x: Any,
    y: Any,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    x_label: str = "importance $V$ of feature 0, the others' being 1",
    y_label: str = "density $p$",
) -> Figure:
    """Draw the capacity of one feature over the same two axes for several models: a grid with one colour bar.

    Parameters
    ----------
    capacity : array_like, shape (rows, columns, ny, nx)
        C in [0, 1], in dimensions; NaN, where there is no answer, stays white.
    x : array_like, shape (nx,)
        Positive, strictly monotone, drawn from left to right on a logarithmic axis.
    y : array_like, shape (ny,)
        The same, drawn from the bottom to the top.
    rows, columns : sequence of str
        What the models are; say in the name of a row what its importance multiplies.
    x_label, y_label : str
        What the axes are.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If shapes do not fit, or an axis is not positive and strictly monotone.

    Examples
    --------
    >>> import numpy as np
    >>> from capsolve import figures
    >>> capacity = np.random.default_rng(0).uniform(size=(2, 1, 3, 4))
    >>> figure = figures.architecture_grid(capacity, [0.1, 1, 10, 100], [1, 0.1, 0.01], rows=["a", "b"], columns=["c"])
    >>> [ax.get_title() for ax in figure.axes]
    ['c', '', '']

    References
    ----------
    arXiv 2210.01892, Fig. 7.
    """
    across, up = real_array("x", x, ndim=1), real_array("y", y, ndim=1)
    values = np.asarray(capacity, dtype=float)
    expected = (len(rows), len(columns), up.size, across.size)
    if values.shape != expected:
        raise ValueError(f"capacity must have shape (rows, columns, y, x) = {expected}, got {values.shape}")
    with page(0.9 + 1.95 * len(columns), 0.7 + 1.75 * len(rows)) as figure:
        panels = figure.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
        for row, name in enumerate(rows):
            for column, kind in enumerate(columns):
                ax = panels[row, column]
                picture = draw_cells(ax, across, up, values[row, column], logarithmic=(True, True))
                ax.set_title(kind if row == 0 else "")
                ax.label_outer()
            panels[row, 0].set_ylabel(name)
        figure.supxlabel(x_label, fontsize="medium")
        figure.supylabel(y_label, fontsize="medium")
        bar = figure.colorbar(
            picture, ax=panels.ravel().tolist(), label="capacity $C$ of feature 0", aspect=40, pad=0.01
        )
        bar.set_ticks([0.0, 0.25, 0.5, 0.75, 1.0])
    return figure
