"""Drawings: who gets how much capacity, and why, and who has how much in an embedding that exists.

Nothing here opens a window or touches the state of pyplot: figures are plain `matplotlib.figure.Figure`
objects. Functions that draw one panel take ``ax`` and return it, so that they fit into figures and styles of
your own; whole figures come in the package's style sheet, ``matplotlib.style.use("capsolve.capsolve")``.

Blue and orange are Okabe and Ito's, which survive the common colour blindnesses; each phase has its own marker
too, for print in grey.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray
from capsolve.allocation import Allocation, Phase, Status
from capsolve.files import replacing
from capsolve.losses.quadratic import QuadraticLoss

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from capsolve.measurement import Comparison, Measurement

FORMATS = (".pdf", ".png", ".svg")
"""What `save` can write."""

STYLE = "capsolve.capsolve"

COLOURS = {Phase.IGNORED: "#707070", Phase.POLYSEMANTIC: "#e69f00", Phase.MONOSEMANTIC: "#0072b2"}
TINTS = {Phase.IGNORED: 0.05, Phase.POLYSEMANTIC: 0.22, Phase.MONOSEMANTIC: 0.25}  # opacity; differ in grey too
MARKERS = {Phase.IGNORED: "x", Phase.POLYSEMANTIC: "o", Phase.MONOSEMANTIC: "s"}

NAMED = 32  # up to so many features are labelled one by one
LINEAR = 2000  # up to so many ranks are spaced evenly; more are spaced by their logarithm
CROWD = 200  # above so many, dots become a picture and the mean capacity of neighbours is drawn too
BOTTOM = 0.9  # of the kurtosis axis: 1 must not touch the frame

# what random directions would have, above all else
DASHED: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": (0, (4, 2)), "zorder": 6}


def allocation(allocation: Allocation, *, names: Sequence[str] | None = None) -> Figure:
    """Draw an allocation on a page of its own: the capacities, and for the quadratic loss what decides them.

    Parameters
    ----------
    allocation : Allocation
        Any number of features: up to 32 are labelled one by one, above 2,000 their ranks are spaced by the
        logarithm, and dots are a picture inside vector files so that these stay small.
    names : sequence of n str, optional
        What to call the features; their index by default.

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
    from matplotlib import style  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with style.context(STYLE):
        if not isinstance(allocation.model, QuadraticLoss):
            figure = Figure(figsize=(7.0, 3.4))
            capacity(allocation, names=names, ax=figure.subplots())
            return figure
        figure = Figure(figsize=(7.0, 5.4))
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
    ax = _axes(ax)
    features = _sorted(allocation, names)
    _dots(ax, features, allocation.capacity, allocation.phase)
    if features.rank.size > CROWD:
        starts = features.sample(40)
        counts = np.diff(starts, append=features.rank.size)
        mean = np.add.reduceat(allocation.capacity[features.order], starts) / counts
        centre = np.add.reduceat(features.rank, starts) / counts
        ax.plot(centre, mean, color="black", linewidth=1.0, zorder=6, label="local mean")
    ax.set_ylim(-0.04, 1.04)
    ax.set_ylabel("capacity $C$")
    _features_axis(ax, features)
    _legend(ax, allocation)
    ax.set_title(_headline(allocation), loc="left", pad=24)
    return ax


def phases(allocation: Allocation, *, names: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Draw the kurtosis of the features over the phases that the price assigns to importance and kurtosis.

    The features come in the order of `capacity`. Behind each lies, over all kurtoses, the phase that a feature
    of its importance v would be in at the scale τ: monosemantic for v ≥ τ; below, polysemantic from
    κ = 1 + 2τ/v on; among the concave losses, κ < 3, all or nothing from v² (κ−1) = λ on. Dots of κ > 3 always
    lie in their phase. Those of κ < 3 do when the price alone settles the allocation; where that takes branch
    and bound, because the budget does not divide evenly, some near the border may lie beyond it.

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
    model = allocation.model
    if not isinstance(model, QuadraticLoss):
        raise TypeError(f"phases are drawn for QuadraticLoss, not for {type(model).__name__}")
    ax = _axes(ax)
    features = _sorted(allocation, names)
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
    _dots(ax, features, model.kurtosis, allocation.phase)
    ax.set_yscale("log")
    ax.set_ylim(BOTTOM, top)
    decades = int(np.log10(top))
    step = 1 + decades // 6
    ticks = [1.0, *([3.0] if step == 1 else []), *(10.0**k for k in range(step, decades + 1, step))]
    ax.set_yticks(ticks, [_number(tick) for tick in ticks])
    ax.set_yticks([], minor=True)
    ax.set_ylabel(r"kurtosis $\kappa$")
    ax.set_title(rf"phase at price $\lambda$ = {_number(allocation.price)}, by importance and kurtosis", loc="left")
    _features_axis(ax, features)
    return ax


def measurement(measurement: Measurement) -> Figure:
    """Draw what `capsolve.measure` found on a page of its own.

    The histogram of the capacities and the capacities in order, coloured by phase, and the spectrum of M = WᵀW, which
    is flat for a tight frame. Dashed is what as many random directions would have: D/(n + D − 1) each, and the
    Marchenko–Pastur spectrum. With activations also the measured capacities against the optimal ones.

    Parameters
    ----------
    measurement : Measurement
        Of any number of features and dimensions.

    Returns
    -------
    matplotlib.figure.Figure
        With three axes, or four with activations.

    Examples
    --------
    >>> import capsolve
    >>> from capsolve import figures
    >>> W = capsolve.solve([2, 1, 1, 1], kurtosis=9.0, dimensions=2).embedding()
    >>> figure = figures.measurement(capsolve.measure(W))
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['features', 'capacity $C$', 'eigenvalue / mean']
    >>> figures.save(figure, "measurement.pdf")  # doctest: +SKIP
    """
    from matplotlib import style  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    given = measurement.comparison
    with style.context(STYLE):
        figure = Figure(figsize=(7.0, 5.0))
        axes = figure.subplot_mosaic("hh;se" if given is None else "hc;se")
        _histogram(axes["h"], measurement)
        _in_order(axes["s"], measurement)
        _spectrum(axes["e"], measurement)
        if given is not None:
            _comparison(axes["c"], given)
        figure.legend(
            handles=[*_phase_handles(measurement), _line("random directions", **DASHED)],
            loc="outside lower left",
            ncols=4,
        )
        n, D = measurement.features, measurement.dimensions
        figure.suptitle(
            f"{n:,} feature{'s' * (n != 1)} in {D:,} dimension{'s' * (D != 1)}: total capacity "
            f"{_number(measurement.total)}, efficiency {measurement.efficiency:.3f} "
            f"({measurement.random / D:.3f} for random directions)",
            x=0.01,
            ha="left",
            fontsize="medium",
        )
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PDF, PNG or SVG, by the suffix of ``path``: the whole file or nothing.

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
    with style.context(STYLE), replacing(path) as temporary:
        figure.savefig(temporary, format=kind[1:], metadata={dated[kind]: None} if kind in dated else None)


@dataclass(frozen=True)
class _Features:
    """The features' axis: who comes when, and where the dots go."""

    order: npt.NDArray[np.intp]
    """Feature of each rank."""
    title: str
    labels: list[str] | None
    """One per rank, if there are few."""

    @property
    def rank(self) -> FloatArray:
        return np.arange(1.0, self.order.size + 1.0)

    @property
    def logarithmic(self) -> bool:
        return self.order.size > LINEAR

    @property
    def limits(self) -> tuple[float, float]:
        return (0.8, 1.15 * self.order.size) if self.logarithmic else (0.5, self.order.size + 0.5)

    def sample(self, count: int) -> npt.NDArray[np.intp]:
        """Return about ``count`` different positions, the first and the last included, evenly on the axis."""
        n = self.order.size
        spaced = np.geomspace(1.0, n, count) if self.logarithmic else np.linspace(1.0, n, count)
        return np.unique(np.rint(spaced).astype(np.intp)) - 1

    @property
    def diameter(self) -> FloatArray:
        """In points: smaller where dots are closer, larger than their distance where they are very close."""
        low, high = np.log(self.limits) if self.logarithmic else self.limits
        distance = 400.0 / (high - low) / (self.rank if self.logarithmic else np.ones(self.order.size))
        return np.clip(2.2 * distance**0.35, 0.6, 6.0)


def _sorted(allocation: Allocation, names: Sequence[str] | None) -> _Features:
    model = allocation.model
    n = model.features
    if names is not None and len(names) != n:
        raise ValueError(f"names must have one entry per feature: {n} features, got {len(names)} names")
    if isinstance(model, QuadraticLoss):
        order = np.lexsort((-model.kurtosis, -model.importance))
        title = "features, most important first"
    else:
        order = np.argsort(-model.feature_loss(np.zeros(n)), kind="stable")
        title = "features, costliest to ignore first"
    if n > NAMED:
        return _Features(order, title, None)
    called = [str(i) for i in range(n)] if names is None else [str(name) for name in names]
    return _Features(order, title, [_short(called[i]) for i in order])


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:11]}…{name[-8:]}"


def _borders(allocation: Allocation, model: QuadraticLoss, importance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the kurtoses up to which a feature of each importance is ignored and, beyond, monosemantic.

    Without bias a trace T raises every importance to v + T/(κ−1). Concave losses (κ < 3) are bought whole, from
    the price on at which no feature gains on average from more.
    """
    v, scale = importance, allocation.scale
    trace = model.trace(allocation.capacity)
    whole = max(scale, math.sqrt(float(np.max(model.steepest(allocation.capacity))) / 2.0))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        concave = np.minimum(3.0, 1.0 + 2.0 * np.square(whole / v))
        ignored = np.where(v >= scale, concave, 1.0 + (2.0 * scale - trace) / v)
        full = np.where(v >= scale, np.inf, 1.0 + trace / (scale - v))
    return np.where((v == 0.0) & (trace == 0.0), np.inf, ignored), full


def _dots(ax: Axes, features: _Features, height: FloatArray, phase: npt.NDArray[np.int8]) -> None:
    """Draw one dot per feature, in one collection per phase or two: where all have one size, drawing is fast."""
    n = phase.size
    for kind in reversed(Phase):
        everyone = np.flatnonzero(phase[features.order] == kind)
        for some in np.split(everyone, [np.searchsorted(everyone, LINEAR)]):
            diameter = features.diameter[some]
            if diameter.size and (diameter == diameter[0]).all():
                diameter = diameter[:1]
            ax.scatter(
                features.rank[some],
                height[features.order[some]],
                s=diameter**2,
                marker=MARKERS[kind],
                color=COLOURS[kind],
                linewidths=(0.18 * diameter).tolist() if kind is Phase.IGNORED else 0.0,
                rasterized=n > CROWD,
                clip_on=False,
                zorder=3 + 2 * kind,
                label=kind.name.lower(),
            )


def _features_axis(ax: Axes, features: _Features) -> None:
    if features.logarithmic:
        ax.set_xscale("log")
    elif features.labels is not None:
        upright = sum(map(len, features.labels)) > 80
        ax.set_xticks(features.rank, features.labels, rotation=90 if upright else 0, parse_math=False)
    ax.set_xlim(features.limits)
    ax.set_xlabel(features.title)


def _legend(ax: Axes, allocation: Allocation) -> None:
    """Put the legend between the axes and the title."""
    handles = [*_phase_handles(allocation), *ax.lines]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.03), ncols=4)


def _phase_handles(counted: Allocation | Measurement) -> list[Line2D]:
    """Return entries for a legend, with markers of a size that can be seen."""
    counts = {phase: counted.counts()[phase.name.lower()] for phase in reversed(Phase)}
    return [
        _line(f"{phase.name.lower()} ({count:,})", linestyle="none", marker=MARKERS[phase], color=COLOURS[phase])
        for phase, count in counts.items()
    ]


def _line(label: str, **look: Any) -> Line2D:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    return Line2D([], [], label=label, **look)


def _histogram(ax: Axes, measured: Measurement) -> None:
    null = measured.random / measured.features
    largest = float(measured.capacity.max())
    top = 1.0 if largest >= 1.0 - measured.tolerance else 1.05 * max(largest, null)
    order = tuple(reversed(Phase))
    ax.hist(
        [measured.capacity[measured.phase == phase] for phase in order],
        bins=60,
        range=(0.0, top),
        stacked=True,
        color=[COLOURS[phase] for phase in order],
    )
    ax.axvline(null, **DASHED)
    if measured.features > CROWD:
        ax.set_yscale("log")
        ax.set_ylim(bottom=0.7)
    ax.set_xlim(0.0, top)
    ax.set_xlabel("capacity $C$")
    ax.set_ylabel("features")


def _in_order(ax: Axes, measured: Measurement) -> None:
    features = _Features(np.argsort(-measured.capacity, kind="stable"), "features, most capacity first", None)
    sample = features.sample(1000)
    for phase in Phase:
        rank = sample[measured.phase[features.order[sample]] == phase]  # in this order a phase is an interval
        ax.plot(
            rank + 1,
            measured.capacity[features.order[rank]],
            color=COLOURS[phase],
            linewidth=2.0,
            marker=MARKERS[phase] if features.rank.size <= NAMED or rank.size == 1 else None,
            markersize=4.0,
            solid_capstyle="butt",
            clip_on=False,
            label=phase.name.lower(),
        )
    ax.axhline(measured.random / measured.features, **DASHED)
    ax.set_ylim(bottom=0.0)
    ax.set_ylabel("capacity $C$")
    _features_axis(ax, features)


def _spectrum(ax: Axes, measured: Measurement) -> None:
    D = measured.dimensions
    rank = np.arange(1, D + 1)
    value = measured.spectrum / (measured.spectrum.mean() or 1.0)
    ax.plot(rank, value, color="0.6", linewidth=2.4, marker="o" if D <= NAMED else None, markersize=4.0)
    null = _marchenko_pastur(measured.features, D)
    ax.plot(rank[: null.size], null, **DASHED)
    positive = value[: measured.rank]
    if positive.size and positive[0] > 30.0 * positive[-1]:
        ax.set_yscale("log")
        ax.set_ylim(0.5 * float(positive[-1]), 2.0 * float(positive[0]))  # the rest is rounding
    else:
        ax.set_ylim(bottom=0.0)
    ax.set_xlim(0.5, D + 0.5)
    ax.set_xlabel("eigenvalues of $W^T W$, largest first")
    ax.set_ylabel("eigenvalue / mean")


def _marchenko_pastur(features: int, dimensions: int) -> FloatArray:
    """Return the nonzero eigenvalues of M over their mean, largest first, for many random directions.

    Quantiles of the density √((b − x)(x − a)) / x on [a, b] = (1 ± √(D/n))², by the substitution that makes x a cosine.
    """
    ratio = dimensions / features
    count = min(features, dimensions)
    angle = np.linspace(0.0, np.pi, 4001)
    between = 0.5 * (angle[1:] + angle[:-1])  # where x is not 0 for n = D
    weight = np.sin(between) ** 2 / (1.0 + ratio + 2.0 * math.sqrt(ratio) * np.cos(between))
    below = np.concatenate([[0.0], np.cumsum(weight)]) / np.sum(weight)
    x = 1.0 + ratio + 2.0 * math.sqrt(ratio) * np.cos(angle)
    return np.interp((np.arange(count) + 0.5) / count, below, x)


def _comparison(ax: Axes, given: Comparison) -> None:
    best = given.allocation.capacity
    top = 1.05 * max(float(best.max()), float(given.capacity.max()))
    n = best.size
    ax.plot([0.0, top], [0.0, top], color="black", linewidth=0.6, linestyle=(0, (1, 2)))
    ax.scatter(
        best,
        given.capacity,
        s=float(np.clip(2000.0 / n, 1.0, 16.0)),
        color=[COLOURS[Phase(p)] for p in given.allocation.phase.tolist()],
        alpha=1.0 if n <= CROWD else 0.4,
        linewidths=0.0,
        rasterized=n > CROWD,
        clip_on=False,
        zorder=3,
    )
    ax.set_xlim(0.0, top)
    ax.set_ylim(0.0, top)
    ax.set_xlabel("optimal capacity, coloured by its phase")
    ax.set_ylabel(r"measured capacity, of $\sigma_i w_i$")
    ax.set_title(f"at least {given.left:.1%} left on the table", loc="left")


def _headline(allocation: Allocation) -> str:
    n, budget = allocation.model.features, allocation.dimensions
    status = allocation.status.value
    if allocation.status is not Status.OPTIMAL:
        status += f", relative gap {_number(allocation.gap, 2)}"
    return (
        f"{n:,} feature{'s' * (n != 1)} in {_number(budget, 6)} dimension{'s' * (budget != 1)}: {status}\n"
        rf"price $\lambda$ = {_number(allocation.price)}, loss $L$ = {_number(allocation.loss)}"
    )


def _number(value: float, digits: int = 4) -> str:
    """Return a number as text for Matplotlib, as a power of ten where it is very large or small."""
    mantissa, _, exponent = f"{value:,.{6 if 1e3 <= value < 1e6 else digits}g}".partition("e")
    if not exponent:
        return mantissa
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if mantissa == "1" else rf"${mantissa}\times{power}$"


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(layout="constrained").subplots()
