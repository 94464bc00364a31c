"""The phase diagrams of several architectures on one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from capsolve._checks import real_array
from capsolve.figures._cells import draw_cells
from capsolve.figures._style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    from matplotlib import style  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    across, up = real_array("x", x, ndim=1), real_array("y", y, ndim=1)
    values = np.asarray(capacity, dtype=float)
    expected = (len(rows), len(columns), up.size, across.size)
    if values.shape != expected:
        raise ValueError(f"capacity must have shape (rows, columns, y, x) = {expected}, got {values.shape}")
    with style.context(STYLE):
        figure = Figure(figsize=(0.9 + 1.95 * len(columns), 0.7 + 1.75 * len(rows)))
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
