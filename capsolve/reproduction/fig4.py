"""Fig. 4: the phase diagram, analytic and from optimised embeddings, and the six cases of marginal values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.figure import Figure
from tqdm import tqdm

from capsolve import figures
from capsolve._checks import FloatArray
from capsolve.allocation import Phase, solve
from capsolve.batch import solve_batch
from capsolve.diagrams.analytic import phase_diagram
from capsolve.diagrams.boundaries import odd_group_boundaries
from capsolve.figures._cells import draw_cells
from capsolve.reproduction._report import Finding, Result, Settings
from capsolve.simulate import optimise_embedding

if TYPE_CHECKING:
    from capsolve.diagrams.analytic import PhaseDiagram

FEATURES, DIMENSIONS = 6, 3
KURTOSIS = 1.8  # of uniform inputs that are never 0; 1.8 / p where they are not 0 with probability p
V_RANGE, P_RANGE = (0.01, 100.0), (1.0, 0.001)

CELLS = 50  # along each side of the empirical diagram
FINE = 250  # of the analytic one
STARTS = {True: 2, False: 16}  # of descent, where the loss is convex in the capacities (κ ≥ 3) and where it is not
SEED = 0

CLOSE = 0.02  # capacities that differ by less agree
STRIP = 1.05  # below κ = 3, importances within this factor of 1 are all but tied
DENSITIES = (0.1, 0.01, 0.001)
ASIDE = 1e-9  # relative distance from a boundary at which the phases on its two sides are checked

CASES = {"A": (0.5, 0.8), "B": (2.0, 0.8), "C": (1.0, 0.6), "D": (0.1, 0.1), "E": (0.6, 0.1), "F": (4.0, 0.1)}
"""Importance and density of the points that are marked in the diagram: below, at and above the critical density."""
EXPECTED = {
    "A": ("increasing", Phase.IGNORED),
    "B": ("increasing", Phase.MONOSEMANTIC),
    "C": ("constant", None),
    "D": ("diminishing", Phase.IGNORED),
    "E": ("diminishing", Phase.POLYSEMANTIC),
    "F": ("diminishing", Phase.MONOSEMANTIC),
}


@dataclass(frozen=True)
class _Empirical:
    """Embeddings found by descent, and the optimum, in every cell: (ny, nx) each."""

    importance: FloatArray
    density: FloatArray
    capacity: FloatArray
    loss: FloatArray
    optimal_capacity: FloatArray
    optimal_loss: FloatArray

    @property
    def difference(self) -> FloatArray:
        return np.abs(self.capacity - self.optimal_capacity)

    @property
    def strip(self) -> npt.NDArray[np.bool_]:
        """Where two optima all but tie: the first-order line."""
        dense = self.density > KURTOSIS / 3.0
        tied: npt.NDArray[np.bool_] = np.abs(np.log(self.importance)) < np.log(STRIP)
        return dense[:, None] & tied


def make(settings: Settings) -> Result:
    """Solve the diagram exactly, find it again by descent on embeddings, and look at six of its points."""
    analytic = phase_diagram(
        ("importance", *V_RANGE), ("density", *P_RANGE), features=FEATURES, dimensions=DIMENSIONS, cells=FINE
    )
    found = _descend(settings)
    cases = {label: solve(_profile(V), _kurtosis(p), DIMENSIONS) for label, (V, p) in CASES.items()}
    return Result(
        "Fig. 4: phase diagram of one odd feature",
        f"{FEATURES} features in {DIMENSIONS} dimensions: one has importance V inside the target, the others 1; inputs "
        f"are uniform, and 0 with probability 1 − p. Analytic: {FINE} × {FINE} exact allocations. Empirical: "
        f"{found.importance.size} × {found.density.size} cells, the best embedding of {STARTS[True]} descents on the "
        f"exact expected loss ({STARTS[False]} where κ < 3, where there are many local optima).",
        {"": _picture(analytic, found), "-cases": figures.marginal_cases(cases)},
        [*_analytic_findings(analytic), _cases_finding(), *_empirical_findings(found)],
        arrays={
            "analytic_importance": analytic.x.values,
            "analytic_density": analytic.y.values,
            "analytic_capacity": analytic.capacity,
            "importance": found.importance,
            "density": found.density,
            "capacity": found.capacity,
            "loss": found.loss,
            "optimal_capacity": found.optimal_capacity,
            "optimal_loss": found.optimal_loss,
        },
    )


def _profile(V: float) -> FloatArray:
    importance = np.ones(FEATURES)
    importance[0] = V
    return importance


def _kurtosis(p: float) -> float:
    """Return 1.8/p, exactly 3 at the critical density."""
    return 3.0 if p == KURTOSIS / 3.0 else KURTOSIS / p


def _descend(settings: Settings) -> _Empirical:
    cells = settings.cells or CELLS
    V, p = np.geomspace(*V_RANGE, cells), np.geomspace(*P_RANGE, cells)
    importance = np.stack([_profile(v) for v in V])
    capacity, loss = np.empty((2, cells, cells))
    for row in tqdm(range(cells), unit="row", disable=not settings.progress):
        kurtosis = _kurtosis(float(p[row]))
        best = optimise_embedding(importance, kurtosis, DIMENSIONS, restarts=STARTS[kurtosis >= 3.0], rng=[SEED, row])
        capacity[row], loss[row] = best.capacity[:, 0], best.loss
    optimum = solve_batch(importance, KURTOSIS / p[:, None, None], DIMENSIONS)
    return _Empirical(V, p, capacity, loss, optimum.capacity[..., 0], optimum.loss)


def _analytic_findings(analytic: PhaseDiagram) -> list[Finding]:
    V, p = analytic.x.values, analytic.y.values
    kurtosis = KURTOSIS / np.array(DENSITIES)
    borders = odd_group_boundaries(kurtosis, FEATURES, DIMENSIONS)
    sides = [
        [Phase(int(solve(_profile(v * side), k, DIMENSIONS).phase[0])) for side in (1.0 - ASIDE, 1.0 + ASIDE)]
        for border in borders
        for v, k in zip(border, kurtosis, strict=True)
    ]
    kinks = [[Phase.IGNORED, Phase.POLYSEMANTIC]] * 3 + [[Phase.POLYSEMANTIC, Phase.MONOSEMANTIC]] * 3
    told = "; ".join(f"p = {q:g}: V = {a:.3g} and {b:.4g}" for q, a, b in zip(DENSITIES, *borders, strict=True))
    dense = p > KURTOSIS / 3.0
    jump = analytic.capacity[dense]
    shared = (analytic.capacity > 0.0) & (analytic.capacity < 1.0)
    width = shared.sum(axis=1)
    sparse = np.flatnonzero(~dense)
    limit = (FEATURES - 1) / (DIMENSIONS - 1)
    return [
        Finding(
            "The odd feature is ignored, shares or is monosemantic between two lines in closed form.",
            sides == kinks,
            f"{told}; exact solutions a relative {ASIDE:g} below and above have the phases that belong there.",
        ),
        Finding(
            "Dense inputs (κ < 3) are served whole or not at all, and importance alone decides.",
            bool((jump[:, V < 1.0] == 0.0).all() and (jump[:, V > 1.0] == 1.0).all()),
            f"{jump.size} cells with p > {KURTOSIS / 3.0:g}: C = 0 for V < 1 and C = 1 for V > 1 in "
            f"{np.mean(jump == (V > 1.0)):.1%} of them.",
        ),
        Finding(
            "The region where it shares begins at one critical point, V = 1 and κ = 3, and widens with sparsity.",
            analytic.critical == ((1.0, KURTOSIS / 3.0),)
            and not shared[dense].any()
            and bool((np.diff(width[sparse]) >= 0).all()),
            f"critical point at V = {analytic.critical[0][0]:g}, p = {analytic.critical[0][1]:g}; cells that share: "
            f"none of those with p > {KURTOSIS / 3.0:g}, {width[sparse[0]]} of {V.size} at p = {p[sparse[0]]:.3g}, "
            f"{width[sparse[-1]]} at p = {p[sparse[-1]]:.3g}.",
        ),
        Finding(
            "However sparse, a feature that is important enough is monosemantic.",
            bool(borders[1][-1] < limit and abs(borders[1][-1] / limit - 1.0) < 0.01),
            f"from V = {borders[1][-1]:.5g} on at p = {DENSITIES[-1]:g}; the limit is (N−1)/(D−1) = {limit:g}.",
        ),
    ]


def _cases_finding() -> Finding:
    told, right = [], True
    for label, (V, p) in CASES.items():
        kurtosis = _kurtosis(p)
        returns = "constant" if kurtosis == 3.0 else "increasing" if kurtosis < 3.0 else "diminishing"
        allocation = solve(_profile(V), kurtosis, DIMENSIONS)
        phase = Phase(int(allocation.phase[0]))
        expected = EXPECTED[label]
        right = right and returns == expected[0] and expected[1] in {phase, None}
        told.append(f"{label} (V = {V:g}, p = {p:g}): {returns} returns, C = {allocation.capacity[0]:.3g}")
    return Finding(
        "Six cases: returns increase (A, B), are constant (C) or diminish (D, E, F), and the price decides.",
        right,
        "; ".join(told) + ". At C all features tie and any allocation that fills the dimensions is optimal.",
    )


def _empirical_findings(found: _Empirical) -> list[Finding]:
    outside = ~found.strip
    difference, excess = found.difference[outside], found.loss / found.optimal_loss - 1.0
    agree = float(np.mean(difference < CLOSE))
    far = np.argwhere(outside & (found.difference >= CLOSE))
    listed = "; ".join(
        f"V = {found.importance[x]:.4g}, p = {found.density[y]:.4g}: C = {found.capacity[y, x]:.3f} for "
        f"{found.optimal_capacity[y, x]:.3f}, loss {excess[y, x]:.1e} above the optimum"
        for y, x in far[:10]
    )
    more = f"; and {len(far) - 10} more" if len(far) > 10 else ""
    return [
        Finding(
            "Optimised embeddings have the capacities of the theory.",
            agree >= 0.99,
            f"{agree:.2%} of {difference.size} cells within {CLOSE:g} ({found.strip.sum()} cells left out, with p > "
            f"{KURTOSIS / 3.0:g} and V within a factor {STRIP:g} of 1); mean difference {difference.mean():.1e}, "
            f"largest {difference.max():.1e}. " + (f"Different: {listed}{more}." if len(far) else "None differs."),
        ),
        Finding(
            "No embedding is better than the optimal allocation.",
            bool(excess.min() > -1e-12),
            f"relative to the optimum the losses are between {excess.min():+.1e} and {excess.max():+.1e}.",
        ),
    ]


def _picture(analytic: PhaseDiagram, found: _Empirical) -> Figure:
    with style.context(figures.STYLE):
        figure = Figure(figsize=(7.0, 3.4))
        left, right = figure.subplots(1, 2)
        figures.phase_diagram(analytic, marks=CASES, ax=left)
        legend = left.get_legend()
        figure.legend(handles=legend.legend_handles, loc="outside upper left", ncols=3, handlelength=2.0)
        legend.remove()
        left.set_title("analytic", loc="left")
        cells = draw_cells(right, found.importance, found.density, found.capacity, logarithmic=(True, True))
        figure.colorbar(cells, ax=right, pad=0.02)
        right.set_title(f"optimised embeddings, {found.importance.size} × {found.density.size}", loc="left")
        right.set_xlabel(left.get_xlabel())
    return figure
