"""Who is represented as the dimensions grow, and what the next dimension is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from capsolve.allocation import Phase
from capsolve.figures._cells import MAP, edges
from capsolve.figures._features import NAMED, sorted_features
from capsolve.figures._style import legend_above, number, page, plain_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from capsolve.path import CapacityPath

ROWS = 400  # of the picture: of more features than that a sample is drawn
COLUMNS = 200  # of the picture: of more budgets than that a sample is drawn
WIDE = 50.0  # budgets whose largest is so many times the smallest are spaced by their logarithm


def capacity_path(path: CapacityPath, *, names: Sequence[str] | None = None) -> Figure:
    r"""Draw the capacities of all features, and the price of capacity, against the budget.

    Features come from the bottom in the order of their importance. Where the phases follow that order at every
    budget, as they do for equal kurtoses, two lines separate the monosemantic features, below, from the polysemantic
    ones, and these from the ignored ones, above. Else there are no lines.

    Parameters
    ----------
    path : CapacityPath
        Of any number of features and budgets. Each of up to 200 budgets is solved once; of more, and of more than 400
        features, a sample is drawn. Budgets that span a factor of 50 or more are spaced by their logarithm.
    names : sequence of n str, optional
        What to call the features, as for `allocation`: up to 32 are labelled.

    Returns
    -------
    matplotlib.figure.Figure
        With two axes that share the budgets, and a colour bar.

    Raises
    ------
    ValueError
        If there is not one name per feature.

    Examples
    --------
    >>> import capsolve
    >>> from capsolve import figures
    >>> figure = figures.capacity_path(capsolve.capacity_path([4, 2, 1, 1, 0.5], 9.0, dimensions=[1, 2, 3, 4]))
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['features, most important first', 'price $\\lambda$', 'capacity $C$']

    References
    ----------
    arXiv 2210.01892, eqs. 15–18: capacities are piecewise linear in 1/τ.
    """
    with page(7.0, 5.0) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1.0))
        _capacities(above, path, names)
        price = np.where(path.price > 0.0, path.price, np.nan)
        order = np.argsort(path.dimensions, kind="stable")
        mark = "o" if order.size <= NAMED else None
        below.plot(path.dimensions[order], price[order], color="black", marker=mark, markersize=3.0, clip_on=False)
        below.set_yscale("log")
        if np.isfinite(price).any():
            plain_log(below.yaxis)
        else:
            below.set_yticks([])
            below.text(0.5, 0.5, "0: every budget meets the demand", ha="center", transform=below.transAxes)
        below.set_xlabel("dimensions $D$")
        below.set_ylabel(r"price $\lambda$")
        figure.align_ylabels()
    return figure


def _capacities(ax: Axes, path: CapacityPath, names: Sequence[str] | None) -> None:
    from matplotlib import patheffects  # noqa: PLC0415

    budgets, chosen = np.unique(path.dimensions, return_index=True)
    some = _evenly(budgets.size, COLUMNS)
    budgets, chosen = budgets[some], chosen[some]
    features = sorted_features(path[int(chosen[0])], names)
    rows = features.sample(ROWS) if features.order.size > ROWS else np.arange(features.order.size)
    capacity = np.empty((rows.size, chosen.size))
    represented, full = np.empty(chosen.size), np.empty(chosen.size)
    ordered = True
    for column, k in enumerate(chosen.tolist()):
        allocation = path[k]
        phase = allocation.phase[features.order]
        capacity[:, column] = allocation.capacity[features.order[rows]]
        represented[column] = np.count_nonzero(phase != Phase.IGNORED)
        full[column] = np.count_nonzero(phase == Phase.MONOSEMANTIC)
        ordered = ordered and bool((np.diff(phase) <= 0).all())
    logarithmic = bool(budgets[0] > 0.0 and budgets[-1] >= WIDE * budgets[0])
    across = np.maximum(edges("dimensions", budgets, logarithmic), 0.0)
    up = edges("features", features.rank[rows], features.logarithmic)
    up[0], up[-1] = features.limits
    picture = ax.pcolormesh(across, up, capacity, vmin=0.0, vmax=1.0, cmap=MAP, rasterized=True)
    ax.figure.colorbar(picture, ax=ax, label="capacity $C$", pad=0.01)
    if ordered:
        for count, look, label in (
            (represented, (0, (3, 1.5)), "above: ignored"),
            (full, "solid", "below: monosemantic"),
        ):
            # from edge to edge of the cells, wherever between two budgets those are
            height = np.append(count, count[-1]) + 0.5
            (drawn,) = ax.plot(across, height, color="black", linestyle=look, drawstyle="steps-post", label=label)
            drawn.set_path_effects([patheffects.Stroke(linewidth=2.6, foreground="white"), patheffects.Normal()])
    if logarithmic:
        ax.set_xscale("log")
    if features.logarithmic:
        ax.set_yscale("log")
    elif features.labels is not None:
        ax.set_yticks(features.rank, features.labels, parse_math=False)
        ax.tick_params(axis="y", length=0)
    ax.set_xlim(across[0], across[-1])
    ax.set_ylim(features.limits)
    ax.set_ylabel(features.title)
    n, m = features.order.size, path.dimensions.size
    budgets_text = f"{m:,} budgets from {number(budgets[0])} to {number(budgets[-1])}" if m > 1 else number(budgets[0])
    title = f"{n:,} feature{'s' * (n != 1)} in {budgets_text} dimensions"
    legend_above(ax, list(ax.lines), title)


def _evenly(count: int, most: int) -> npt.NDArray[np.intp]:
    """Return at most ``most`` positions out of ``count``, the first and the last included."""
    return np.unique(np.rint(np.linspace(0, count - 1, min(count, most))).astype(np.intp))
