"""The capacities of an allocation, and the phases that decide them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from capsolve._checks import FloatArray
from capsolve.allocation import Allocation, Phase
from capsolve.figures._features import draw_dots, label_features, sorted_features
from capsolve.figures._style import (
    COLOURS,
    CROWD,
    TINTS,
    axes_or_new,
    headline,
    legend_above,
    number,
    page,
    phase_handles,
    wrapped,
)
from capsolve.losses.quadratic import QuadraticLoss

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOTTOM = 0.9  # of the kurtosis axis: 1 must not touch the frame


def allocation(allocation: Allocation, *, names: Sequence[str] | None = None) -> Figure:
    """Draw an allocation on a page of its own: the capacities, and for the quadratic loss what decides them.

    Parameters
    ----------
    allocation : Allocation
        Any number of features: up to 32 are labelled one by one, above 2,000 their ranks are spaced by the
        logarithm, and dots are a picture inside vector files so that these stay small.
    names : sequence of n str, optional
        What to call the features; their names or index by default.

    Returns
    -------
    matplotlib.figure.Figure
        With one axes, `capacity`, or two, `capacity` over `phases`, that share the features' axis.

    Raises
    ------
    ValueError
        If there is not one name per feature.

    Examples
    --------
    >>> import capsolve
    >>> from capsolve import figures
    >>> figure = figures.allocation(capsolve.solve([2, 1, 1, 1], kurtosis=9.0, dimensions=2))
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['monosemantic (1)', 'polysemantic (3)', 'ignored (0)']
    >>> figures.save(figure, "allocation.pdf")  # doctest: +SKIP
    """
    allocation = allocation.to_numpy()
    quadratic = isinstance(allocation.model, QuadraticLoss)
    with page(7.0, 5.4 if quadratic else 3.4) as figure:
        if not quadratic:
            capacity(allocation, names=names, ax=figure.subplots())
            return figure
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.1, 1.0))
        capacity(allocation, names=names, ax=above)
        phases(allocation, names=names, ax=below)
        figure.align_ylabels()
        above.set_xlabel("")
        above.tick_params(axis="x", labelbottom=False)
    return figure


def capacity(allocation: Allocation, *, names: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Draw the capacities against the features, the most important first, coloured by phase.

    The title says the budget, the price, the loss and the status. Among many features a line shows the mean
    capacity of neighbours. Losses that know no importance are sorted by what ignoring the feature costs.

    Parameters
    ----------
    allocation : Allocation
    names : sequence of n str, optional
        As for `allocation`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; on a new figure by default.

    Raises
    ------
    ValueError
        If there is not one name per feature.
    """
    ax, allocation = axes_or_new(ax), allocation.to_numpy()
    features = sorted_features(allocation, names)
    draw_dots(ax, features, allocation.capacity, allocation.phase)
    if features.rank.size > CROWD:
        starts = features.sample(40)
        counts = np.diff(starts, append=features.rank.size)
        mean = np.add.reduceat(allocation.capacity[features.order], starts) / counts
        centre = np.add.reduceat(features.rank, starts) / counts
        ax.plot(centre, mean, color="black", linewidth=1.0, zorder=6, label="local mean")
    ax.set_ylim(-0.04, 1.04)
    ax.set_ylabel("capacity $C$")
    label_features(ax, features)
    legend_above(ax, [*phase_handles(allocation), *ax.lines], headline(allocation))
    return ax


def phases(allocation: Allocation, *, names: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Draw the kurtosis of the features over the phases that the price assigns to importance and kurtosis.

    The features come in the order of `capacity`. Behind each lies, over all kurtoses, the phase that a feature
    of its importance v would be in at the scale τ: monosemantic for v ≥ τ; below, polysemantic from
    κ = 1 + 2τ/v on; among the concave losses, κ < 3, all or nothing from v² (κ−1) = λ on. Dots of κ > 3 always
    lie in their phase. Those of κ < 3 do when the price alone settles the allocation; where local optima have to be
    compared, because the budget does not divide evenly, some near the border may lie beyond it.

    Parameters
    ----------
    allocation : Allocation
        Of a `QuadraticLoss`, with or without bias.
    names : sequence of n str, optional
        As for `allocation`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; on a new figure by default.

    Raises
    ------
    TypeError
        If the loss is not quadratic.
    ValueError
        If there is not one name per feature.

    References
    ----------
    arXiv 2210.01892, eqs. 15–18.
    """
    allocation = allocation.to_numpy()
    model = allocation.model
    if not isinstance(model, QuadraticLoss):
        raise TypeError(f"phases are drawn for QuadraticLoss, not for {type(model).__name__}")
    ax = axes_or_new(ax)
    features = sorted_features(allocation, names)
    top = max(10.0, 1.6 * float(model.kurtosis.max()))
    importance = model.importance[features.order]
    turn = int(np.count_nonzero(importance >= allocation.scale))  # the vertical border is exact in any sample
    columns = np.union1d(features.sample(500), [max(turn - 1, 0), min(turn, importance.size - 1)])
    ignored, full = _borders(allocation, model, importance[columns])
    rank = np.concatenate([[features.limits[0]], features.rank[columns], [features.limits[1]]])
    heights = [np.full(rank.size, BOTTOM)]
    for border in (ignored, np.maximum(ignored, full), np.full(columns.size, np.inf)):
        heights.append(np.pad(np.clip(border, BOTTOM, top), 1, mode="edge"))
    for phase, low, high in zip(
        (Phase.IGNORED, Phase.MONOSEMANTIC, Phase.POLYSEMANTIC), heights[:-1], heights[1:], strict=True
    ):
        ax.fill_between(
            rank,
            low,
            high,
            step="mid",  # a column reaches halfway to its neighbours
            facecolor=COLOURS[phase],
            alpha=TINTS[phase],
            linewidth=0,
            zorder=0,
            label=f"{phase.name.lower()} phase",
        )
    ax.axhline(3.0, color="black", linewidth=0.6, linestyle=(0, (1, 2)), zorder=1)
    draw_dots(ax, features, model.kurtosis, allocation.phase)
    ax.set_yscale("log")
    ax.set_ylim(BOTTOM, top)
    decades = int(np.log10(top))
    step = 1 + decades // 6
    ticks = [1.0, *([3.0] if step == 1 else []), *(10.0**k for k in range(step, decades + 1, step))]
    ax.set_yticks(ticks, [number(tick) for tick in ticks])
    ax.set_yticks([], minor=True)
    ax.set_ylabel(r"kurtosis $\kappa$")
    title = rf"phase at price $\lambda$ = {number(allocation.price)}, by importance and kurtosis"
    ax.set_title(wrapped(ax, title), loc="left")
    label_features(ax, features)
    return ax


def _borders(allocation: Allocation, model: QuadraticLoss, importance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the kurtoses up to which a feature of each importance is ignored and, beyond, monosemantic.

    Without bias a trace T raises every importance to v + T/(κ−1). Concave losses (κ < 3) are bought whole, from
    the price on at which no feature gains on average from more.
    """
    v, scale = importance, allocation.scale
    trace = model.trace(allocation.capacity)
    whole = max(scale, math.sqrt(float(np.max(model.average_gain(allocation.capacity))) / 2.0))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        concave = np.minimum(3.0, 1.0 + 2.0 * np.square(whole / v))
        ignored = np.where(v >= scale, concave, 1.0 + (2.0 * scale - trace) / v)
        full = np.where(v >= scale, np.inf, 1.0 + trace / (scale - v))
    return np.where((v == 0.0) & (trace == 0.0), np.inf, ignored), full
