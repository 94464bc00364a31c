"""How the shape of the marginal values decides who is ignored, who shares and who is alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from capsolve.allocation import Allocation, Phase
from capsolve.figures._style import COLOURS, MARKERS, STYLE, line
from capsolve.figures.water import PRICE, draw_level
from capsolve.losses.quadratic import QuadraticLoss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3


def marginal_cases(cases: Mapping[str, Allocation], *, names: Sequence[str] | None = None) -> Figure:
    """Draw the marginal values of several allocations side by side: `water_level` in small, three to a row.

    Above each panel stand its label, whether returns increase (κ < 3), are constant or diminish (κ > 3), and the
    phase of feature 0, the odd one in the paper's diagram.

    Parameters
    ----------
    cases : mapping of str to Allocation
        By label, in the order in which they are drawn; all with the same number of features.
    names : sequence of n str, optional
        What to call the features; feature 0 is "odd" and the others are "other" by default.

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
    from matplotlib import style  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    if not cases:
        raise ValueError("cases must have at least one allocation, got an empty mapping")
    rows = math.ceil(len(cases) / COLUMNS)
    with style.context(STYLE):
        figure = Figure(figsize=(7.0, 0.5 + 2.1 * rows))
        panels = figure.subplots(rows, min(COLUMNS, len(cases)), squeeze=False, sharex=True).ravel()
        for ax, (label, given) in zip(panels, cases.items(), strict=False):
            allocation = given.to_numpy()
            n = allocation.model.features
            who = ["odd"] + ["other"] * (n - 1) if names is None else names
            draw_level(ax, allocation, who)
            phase = Phase(int(allocation.phase[0])).name.lower()
            ax.set_title(f"{label}{_returns(allocation)}\n{who[0]} is {phase}", loc="left")
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


def _returns(allocation: Allocation) -> str:
    model = allocation.model
    if not isinstance(model, QuadraticLoss):
        return ""
    low, high = float(model.kurtosis.min()), float(model.kurtosis.max())
    kinds = {"increasing": high < 3.0, "constant": low == high == 3.0, "diminishing": low > 3.0}
    return ", " + next((kind for kind, holds in kinds.items() if holds), "mixed") + " returns"
