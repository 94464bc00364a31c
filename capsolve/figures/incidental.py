"""Incidental polysemanticity: rows that become sparse, noise that makes them so, and features that collide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from capsolve._checks import real_array
from capsolve.allocation import Phase
from capsolve.figures._style import COLOURS, axes_or_new, line, number, page, plain_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from capsolve.incidental import Autoencoders, CollisionSweep, RowFlow

_BLUE, _ORANGE = COLOURS[Phase.MONOSEMANTIC], COLOURS[Phase.POLYSEMANTIC]
_LAW: dict[str, Any] = {"linewidth": 0.9, "linestyle": (0, (4, 2))}


def sparsification(flow: RowFlow, *, ax: Axes | None = None) -> Axes:
    """Draw the survivors and |w|₁ of a row in time, with their laws, on logarithmic axes.

    The laws drawn are those of q = 2, from the norm at the start: |w|₁ falls to 1 along 1/(1/|w(0)|₁ + λt), and of
    q |w|₁² weights. Time is in units of 1/λ, in which laws for all penalties agree.

    Examples
    --------
    >>> import numpy as np
    >>> from capsolve import figures
    >>> from capsolve.incidental import integrate_row
    >>> ax = figures.sparsification(integrate_row(np.random.default_rng(0).normal(size=500) / 500**0.5, 0.001))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ["weights left $m'$", '$|w|_1$', 'laws for $q = 2$']
    """
    from capsolve.incidental.laws import sparsity_laws  # noqa: PLC0415

    ax = axes_or_new(ax)
    after = flow.time > 0.0
    time = flow.time[after]
    norm, survivors = sparsity_laws(time, flow.penalty, max(1.0, float(flow.norm[0])))
    scaled = flow.penalty * time
    for measured, law, colour, name in (
        (flow.survivors, survivors, _BLUE, "weights left $m'$"),
        (flow.norm, norm, _ORANGE, r"$|w|_1$"),
    ):
        ax.plot(scaled, measured[after], color=colour, label=name)
        ax.plot(scaled, law, color=colour, **_LAW)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(max(scaled[0], 1e-2 / flow.norm[0]), scaled[-1])
    ax.set_xlabel(r"time $\lambda t$")
    ax.set_title(f"{number(flow.start.size)} weights, $\\lambda$ = {number(flow.penalty)}")
    ax.legend(handles=[*ax.get_lines()[::2], line("laws for $q = 2$", color="0.4", **_LAW)], loc="lower left")
    return ax


def fourth_norm(trained: Mapping[str, Autoencoders], *, ax: Axes | None = None) -> Axes:
    r"""Draw how concentrated rows are while they are trained: the mean of Σ_k W_ik⁴ over features and networks.

    Bands are two standard errors between networks, on either side. Labels stand at the end of each line.

    Parameters
    ----------
    trained : mapping of str to Autoencoders
        By label.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Examples
    --------
    >>> from capsolve import figures
    >>> from capsolve.incidental import train_autoencoders
    >>> settings = {"optimiser": "flow", "steps": 50, "learning_rate": 0.1, "instances": 3, "rng": 0}
    >>> trained = {f"λ = {penalty}": train_autoencoders(3, 4, penalty=penalty, **settings) for penalty in (0, 0.2)}
    >>> [text.get_text() for text in figures.fourth_norm(trained).texts]
    ['λ = 0', 'λ = 0.2']
    """
    from matplotlib import colormaps  # noqa: PLC0415

    if not trained:
        raise ValueError("trained must have at least one entry, got an empty mapping")
    ax = axes_or_new(ax)
    colours = colormaps["viridis"](np.linspace(0.0, 0.85, len(trained)))
    ends = []
    for (label, found), colour in zip(trained.items(), colours, strict=True):
        mean, error = found.fourth_norm
        step = np.maximum(found.step, 0.5)  # the start, on a logarithmic axis
        ax.plot(step, mean, color=colour, label=label)
        if np.isfinite(error).all():
            ax.fill_between(step, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.2, linewidth=0)
        ends.append((float(mean[-1]), label, colour))
    ax.set_xscale("log")
    ax.set_yscale("log")
    last = max(float(found.step[-1]) for found in trained.values())
    ax.set_xlim(0.5, last)
    low, high = ax.get_ylim()
    places = _apart([np.log(end[0]) for end in ends], 0.055 * np.log(high / low))
    for (_, label, colour), place in zip(ends, places, strict=True):
        ax.annotate(
            label,
            (last, np.exp(place)),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize="small",
            annotation_clip=False,
        )
    plain_log(ax.yaxis)
    ax.set_xlabel("steps")
    ax.set_ylabel(r"mean of $\Sigma_k W_{ik}^4$")
    return ax


def collisions(sweep: CollisionSweep) -> Figure:
    """Draw the number of polysemantic neurons against the number of neurons, and what chance predicts.

    Below is the measured number relative to the expectation for exclusive places, n(n-1)/(2(2m-1)). Bars are two
    standard errors between networks, on either side.

    Examples
    --------
    >>> from capsolve import figures
    >>> from capsolve.incidental import collision_sweep
    >>> sweep = collision_sweep(4, [6, 8], instances=3, steps=300, learning_rate=0.02, penalty=0.02, rng=0)
    >>> [ax.get_ylabel() for ax in figures.collisions(sweep).axes]
    ['polysemantic neurons', 'ratio to exclusive']
    """
    from capsolve.incidental.laws import expected_neurons, expected_pairs  # noqa: PLC0415

    n, m = sweep.features, sweep.neurons
    mean, error = sweep.mean("polysemantic"), np.nan_to_num(sweep.error("polysemantic"))
    width = np.unique(np.geomspace(m.min(), m.max(), 200).astype(int))
    places = width[2 * width >= n]
    with page(4.8, 4.6) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        # wide, as the line of exclusive places lies on top of it
        above.plot(
            width,
            expected_pairs(n, width),
            color="0.85",
            linewidth=5,
            solid_capstyle="butt",
            label="pairs drawn at random, $n(n-1)/4m$",
        )
        above.plot(width, expected_neurons(n, width), color=_BLUE, label="neurons, drawn at random", **_LAW)
        above.plot(
            places, expected_neurons(n, places, exclusive=True), color=_ORANGE, label="neurons, exclusive places"
        )
        marks = {"fmt": "o", "color": "black", "markersize": 3.5, "capsize": 2, "linewidth": 1, "zorder": 6}
        above.errorbar(m, mean, 2 * error, label=f"measured, {sweep.instances} networks each", **marks)
        above.set_xscale("log")
        above.set_yscale("log")
        plain_log(above.yaxis)
        above.set_ylabel("polysemantic neurons")
        above.set_title(f"{n} features")
        above.legend(loc="lower left")
        known = 2 * m >= n
        expected = expected_neurons(n, m[known], exclusive=True)
        below.axhline(1.0, color=_ORANGE)
        below.plot(
            places, expected_neurons(n, places) / expected_neurons(n, places, exclusive=True), color=_BLUE, **_LAW
        )
        below.errorbar(m[known], mean[known] / expected, 2 * error[known] / expected, **marks)
        below.set_ylabel("ratio to exclusive")
        below.set_ylim(bottom=0.0)
        below.set_xlabel("neurons $m$")
        plain_log(below.xaxis)
        figure.align_ylabels()
    return figure


def start_end(correlation: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the cosines between rows at the start and rows at the end of training, (n, n).

    Examples
    --------
    >>> import numpy as np
    >>> from capsolve import figures
    >>> figures.start_end(0.3 * np.eye(3)).get_xlabel()
    'feature at the end'
    """
    values = real_array("correlation", correlation, ndim=2)
    ax = axes_or_new(ax)
    most = float(np.abs(values).max()) or 1.0
    picture = ax.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest", aspect="equal")
    ax.figure.colorbar(picture, ax=ax, label="cosine", pad=0.02)
    ax.set_xlabel("feature at the end")
    ax.set_ylabel("feature at the start")
    return ax


def _apart(values: list[float], distance: float) -> list[float]:
    """Return places in the order of the values, near them and at least a distance from each other."""
    order = np.argsort(values)
    places = np.asarray(values, dtype=float)[order]
    for _ in range(200):  # two neighbours that are too near share the way
        gaps = distance - np.diff(places)
        if (gaps < 1e-3 * distance).all():
            break
        push = np.maximum(gaps, 0.0) / 2.0
        places[:-1] -= push
        places[1:] += push
    found = np.empty_like(places)
    found[order] = places
    return [float(place) for place in found]
