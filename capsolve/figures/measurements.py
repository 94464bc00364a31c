"""What an embedding has: the histogram of its capacities, their order, its spectrum."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from capsolve._checks import FloatArray
from capsolve.allocation import Phase
from capsolve.figures._features import NAMED, FeatureAxis, label_features
from capsolve.figures._style import COLOURS, CROWD, DASHED, MARKERS, line, number, page, phase_handles, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from capsolve.measurement import Comparison, Measurement


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
    given = measurement.comparison
    with page(7.0, 5.0) as figure:
        axes = figure.subplot_mosaic("hh;se" if given is None else "hc;se")
        _histogram(axes["h"], measurement)
        _in_order(axes["s"], measurement)
        _spectrum(axes["e"], measurement)
        if given is not None:
            _comparison(axes["c"], given)
        figure.legend(
            handles=[*_phases(measurement), line("random directions", **DASHED)],
            loc="outside lower left",
            ncols=4 if given is None else 2,
        )
        n, D = measurement.features, measurement.dimensions
        figure.suptitle(
            f"{n:,} feature{'s' * (n != 1)} in {D:,} dimension{'s' * (D != 1)}: total capacity "
            f"{number(measurement.total_capacity)}, efficiency {measurement.efficiency:.3f} "
            f"({measurement.random_baseline / D:.3f} for random directions)",
            x=0.01,
            ha="left",
            fontsize="medium",
        )
    return figure


def _phases(measured: Measurement) -> list[Line2D]:
    """Return entries for a legend; with activations there are dots in colours of the optimum's phases too."""
    handles = phase_handles(measured)
    if measured.comparison is not None:
        best = measured.comparison.allocation.counts()
        for handle, phase in zip(handles, reversed(Phase), strict=True):
            count, optimal = measured.counts()[phase.name.lower()], best[phase.name.lower()]
            handle.set_label(f"{phase.name.lower()} ({count:,} measured, {optimal:,} in the optimum)")
    return handles


def _histogram(ax: Axes, measured: Measurement) -> None:
    null = measured.random_baseline / measured.features
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
    else:
        whole_numbers(ax.yaxis)
    ax.set_xlim(0.0, top)
    ax.set_xlabel("capacity $C$")
    ax.set_ylabel("features")


def _in_order(ax: Axes, measured: Measurement) -> None:
    features = FeatureAxis(np.argsort(-measured.capacity, kind="stable"), "features, most capacity first", None)
    sample = features.sample(1000)
    for phase in Phase:
        rank = sample[measured.phase[features.order[sample]] == phase]  # in this order a phase is an interval
        if not rank.size:  # the layout would leave room for a line without points, down to the corner of the page
            continue
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
    ax.axhline(measured.random_baseline / measured.features, **DASHED)
    ax.set_ylim(bottom=0.0)
    ax.set_ylabel("capacity $C$")
    label_features(ax, features)


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
        ax.set_ylim(0.0, 1.08 * float(max(value.max(), null.max())))
    ax.set_xlim(0.5, D + 0.5)
    whole_numbers(ax.xaxis)
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
    ax.set_title(f"at least {given.relative_suboptimality:.1%} suboptimal", loc="left")
