"""Marginal values: what the next bit of capacity is worth to each feature, with the price as a water level.

Their shape decides who is ignored, who shares and who is alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from capsolve._checks import BoolArray, FloatArray, IndexArray
from capsolve.allocation import Allocation, Phase
from capsolve.figures._features import called, sorted_features
from capsolve.figures._style import (
    COLOURS,
    MARKERS,
    axes_or_new,
    headline,
    legend_above,
    line,
    number,
    page,
    phase_handles,
    plain_log,
)
from capsolve.losses.quadratic import QuadraticLoss

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


CURVES = 12  # of each phase at most
LOWEST = 1e-200  # of what is drawn: a logarithmic axis cannot be as long as the range of float64
LABELLED = 12  # curves that still have room for a name each
COLUMNS = 3  # of small panels

LINES = {Phase.IGNORED: (0, (1, 1)), Phase.POLYSEMANTIC: "solid", Phase.MONOSEMANTIC: "solid"}
PRICE: dict[str, Any] = {"color": "black", "linewidth": 1.0, "linestyle": (0, (6, 2)), "zorder": 5}

# Capacities at which two curves must agree to be drawn as one.
COMPARED = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8)


def water_level(allocation: Allocation, *, names: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Draw the marginal value of capacity against capacity, −f_i'(C), with the price and the optimum.

    A feature whose curve starts below the price, the dashed line, is ignored; one whose curve ends above it is
    monosemantic; the others have their dot where the two meet. That is the whole optimum when losses are convex.
    Features whose curve rises (κ < 3) are served whole or not at all, by the mean height of the curve; the price is
    then no more than what the next bit of capacity is worth.

    Parameters
    ----------
    allocation : Allocation
        Of any loss. Equal features with equal capacity have one curve; of more than twelve curves in one phase,
        about twelve are drawn, closer where features are more important. Without bias the curves hold for the trace
        that the optimum leaves. Tabulated losses have steps. The logarithmic axis shows what is between 1e-200
        and 1e200.
    names : sequence of n str, optional
        What to call the features; their names or index by default. Up to twelve curves have their name beside them.
    ax : matplotlib.axes.Axes, optional
        Where to draw; on a new figure by default.

    Raises
    ------
    ValueError
        If there is not one name per feature.

    Examples
    --------
    >>> import capsolve
    >>> from capsolve import figures
    >>> ax = figures.water_level(capsolve.solve([4, 2, 1, 0.5, 0.25, 0.1], kurtosis=9.0, dimensions=3))
    >>> len(ax.get_lines())  # six curves and the price
    7

    References
    ----------
    arXiv 2210.01892, Fig. 2 and eqs. 4–8.
    """
    ax, allocation = axes_or_new(ax), allocation.to_numpy()
    draw_level(ax, allocation, names)
    handles = phase_handles(allocation)
    if allocation.price > 0.0:
        handles.append(line(rf"price $\lambda$ = {number(allocation.price)}", **PRICE))
    legend_above(ax, handles, headline(allocation))
    return ax


def draw_level(ax: Axes, allocation: Allocation, names: Sequence[str] | None) -> None:
    """Draw what `water_level` does, but for title and legend."""
    names = allocation.names if names is None else names
    features = sorted_features(allocation, names)
    groups, curves = _groups(allocation, features.order)
    first = np.array([group[0] for group in groups])
    ends = []
    for i in first.tolist():
        phase = Phase(int(allocation.phase[i]))
        x, y = _curve(allocation, i)
        ax.plot(x, y, color=COLOURS[phase], linestyle=LINES[phase], linewidth=1.2, zorder=2 + phase)
        visible = y[np.isfinite(y)]
        ends.append(float(visible[-1]) if visible.size else np.nan)
    height = _dot_heights(allocation)
    for phase in Phase:
        some = first[(allocation.phase[first] == phase) & _shown(height[first])]
        ax.scatter(
            allocation.capacity[some],
            height[some],
            s=26.0,
            marker=MARKERS[phase],
            color=COLOURS[phase],
            linewidths=1.2 if phase is Phase.IGNORED else 0.0,
            clip_on=False,
            zorder=7,
            label=phase.name.lower(),
        )
    if _shown(allocation.price):
        ax.axhline(allocation.price, **PRICE)
    ax.set_yscale("log")
    ax.set_xlim(0.0, 1.0)
    if not np.isfinite(ends).any():  # all importances are 0: an axis without data has limits of no meaning
        ax.set_ylim(0.1, 10.0)
        ax.set_yticks([])
        ax.set_yticks([], minor=True)
        ax.text(0.5, 0.5, "0: no feature gains from capacity", ha="center", transform=ax.transAxes)
    elif first.size <= LABELLED:
        _name_curves(ax, [_name(called(names, allocation.model.features, group)) for group in groups], ends)
    if np.isfinite(ends).any():
        plain_log(ax.yaxis)
    drawn = "" if first.size == curves else f"   ({first.size} of {curves:,} curves drawn)"
    ax.set_xlabel(f"capacity $C${drawn}")
    ax.set_ylabel(r"marginal value $-f_i'(C)$, loss per dimension")


def _groups(allocation: Allocation, order: IndexArray) -> tuple[list[IndexArray], int]:
    """Return the features of each curve to draw, the most important curve first, and how many curves there are."""
    model, n = allocation.model, allocation.model.features
    columns = [model.excess_loss(np.full(n, c)) for c in COMPARED]
    equal = np.column_stack([*columns, allocation.capacity])[order]
    _, first, group = np.unique(equal, axis=0, return_index=True, return_inverse=True)
    group = group.ravel()  # of shape (n, 1) in some versions of NumPy
    ranked = np.argsort(first)
    shown = []
    for phase in Phase:
        some = ranked[allocation.phase[order[first[ranked]]] == phase]
        if some.size > CURVES:
            some = some[np.unique(np.rint(np.geomspace(1, some.size, CURVES)).astype(np.intp)) - 1]
        shown.append(some)
    chosen = np.concatenate(shown)
    return [order[group == k] for k in chosen[np.argsort(first[chosen])]], first.size


def _curve(allocation: Allocation, feature: int) -> tuple[FloatArray, FloatArray]:
    """Return capacities and what the next bit is worth there; NaN where that cannot be shown."""
    x, y = allocation.model.marginal_curve(feature, allocation.capacity)
    return x, np.where(_shown(y), y, np.nan)


def _shown(value: Any) -> BoolArray:
    return (np.asarray(value) > LOWEST) & (np.asarray(value) < 1.0 / LOWEST)


def _dot_heights(allocation: Allocation) -> FloatArray:
    """Return the marginal value at the optimum; between the two of a kink, the price or what is nearest to it."""
    model, capacity = allocation.model, allocation.capacity
    following, last = model.marginal(capacity), model.marginal(capacity, growing=False)
    between = np.clip(allocation.price, np.minimum(following, last), np.maximum(following, last))
    heights: FloatArray = np.where(capacity == 0.0, following, np.where(capacity == 1.0, last, between))
    return heights


def _name(names: Sequence[str]) -> str:
    """Return what to call a curve that stands for the features of these names."""
    if len(names) == 1:
        return names[0]
    return f"{names[0]} (×{len(names)})" if len(set(names)) == 1 else f"{names[0]} and {len(names) - 1} more"


def _name_curves(ax: Axes, names: Sequence[str], ends: Sequence[float]) -> None:
    """Write each name where its curve ends, at the right, as far apart as they need to be."""
    low, high = np.log(ax.get_ylim())
    room = ax.get_window_extent()
    point = ax.figure.dpi / 72.0
    known = [(float(np.log(end) - low) / (high - low), name) for end, name in zip(ends, names, strict=True) if end > 0]
    known.sort()
    places = spread([place for place, _ in known], 11.0 * point / room.height)
    for place, (end, name) in zip(places, known, strict=True):
        ax.annotate(
            name,
            (1.0, end),
            xycoords="axes fraction",
            xytext=(1.0 + 10.0 * point / room.width, place),
            va="center",
            fontsize="small",
            parse_math=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "0.5", "shrinkA": 1.0, "shrinkB": 4.0},
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Return ascending ``places`` moved as little as it takes to be ``gap`` apart: neighbours in a pile share the way.

    Minimises Σ (p_k − places_k)² subject to p_{k+1} ≥ p_k + gap: isotonic regression of places_k − k·gap.
    """
    from scipy.optimize import isotonic_regression  # noqa: PLC0415

    if not places:
        return []
    steps = gap * np.arange(len(places))
    return [float(place) for place in isotonic_regression(np.asarray(places) - steps).x + steps]


def marginal_cases(cases: Mapping[str, Allocation], *, names: Sequence[str] | None = None) -> Figure:
    """Draw the marginal values of several allocations side by side: `water_level` in small, three to a row.

    Above each panel stand its label, whether returns increase (κ < 3), are constant or diminish (κ > 3), and the
    phase of feature 0. Where all others are equal in every case, as in the paper's diagram, that is the odd one.

    Parameters
    ----------
    cases : mapping of str to Allocation
        By label, in the order in which they are drawn; all with the same number of features.
    names : sequence of n str, optional
        What to call the features; by default as each allocation does, by their number where it has no names, and
        "odd" and "other" where feature 0 is the only one that differs.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there are no cases, or if there is not one name per feature.

    Examples
    --------
    >>> import capsolve
    >>> from capsolve import figures
    >>> points = {"D": (0.1, 18.0), "E": (0.6, 18.0), "F": (4.0, 18.0)}
    >>> cases = {label: capsolve.solve([V, 1, 1, 1, 1, 1], kurtosis, 3) for label, (V, kurtosis) in points.items()}
    >>> for ax in figures.marginal_cases(cases).axes:
    ...     print(ax.get_title(loc="left").replace(chr(10), ": "))
    D, diminishing returns: odd is ignored
    E, diminishing returns: odd is polysemantic
    F, diminishing returns: odd is monosemantic

    References
    ----------
    arXiv 2210.01892, Fig. 4 A–F.
    """
    if not cases:
        raise ValueError("cases must have at least one allocation, got an empty mapping")
    rows = math.ceil(len(cases) / COLUMNS)
    odd = names is None and _one_is_odd([given.to_numpy() for given in cases.values()])
    with page(7.0, 0.5 + 2.1 * rows) as figure:
        panels = figure.subplots(rows, min(COLUMNS, len(cases)), squeeze=False, sharex=True).ravel()
        for ax, (label, given) in zip(panels, cases.items(), strict=False):
            allocation = given.to_numpy()
            n = allocation.model.features
            who = ["odd"] + ["other"] * (n - 1) if odd else given.names if names is None else names
            draw_level(ax, allocation, who)
            phase = Phase(int(allocation.phase[0])).name.lower()
            (first,) = called(who, n, np.arange(1))
            ax.set_title(f"{label}{_returns(allocation)}\n{'feature ' * (who is None)}{first} is {phase}", loc="left")
            ax.set_xlabel("")
            ax.set_ylabel("")
        for ax in panels[len(cases) :]:
            ax.remove()
        figure.supxlabel("capacity $C$", fontsize="medium")
        figure.supylabel(r"marginal value $-f_i'(C)$", fontsize="medium")
        marks = [
            line(phase.name.lower(), linestyle="none", marker=MARKERS[phase], color=COLOURS[phase])
            for phase in reversed(Phase)
        ]
        figure.legend(handles=[*marks, line(r"price $\lambda$", **PRICE)], loc="outside upper left", ncols=4)
    return figure


def _one_is_odd(cases: Sequence[Allocation]) -> bool:
    """Return whether there are no names and, in every case, features from 1 on that are equal but not all like 0."""
    if any(given.names is not None or given.model.features < 3 for given in cases):
        return False
    losses = [[given.model.excess_loss(np.full(given.model.features, c)) for c in COMPARED] for given in cases]
    others_equal = all((column[1:] == column[1]).all() for columns in losses for column in columns)
    return others_equal and any(column[0] != column[1] for columns in losses for column in columns)


def _returns(allocation: Allocation) -> str:
    model = allocation.model
    if not isinstance(model, QuadraticLoss):
        return ""
    low, high = float(model.kurtosis.min()), float(model.kurtosis.max())
    kinds = {"increasing": high < 3.0, "constant": low == high == 3.0, "diminishing": low > 3.0}
    return ", " + next((kind for kind, holds in kinds.items() if holds), "mixed") + " returns"
