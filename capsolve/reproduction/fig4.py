"""Fig. 4: the phase diagram, analytic and from optimised embeddings, and the six cases of marginal values."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from capsolve import figures
from capsolve._checks import FloatArray
from capsolve.allocation import Phase, solve
from capsolve.diagrams.agreement import CLOSE
from capsolve.diagrams.analytic import PhaseDiagram, phase_diagram
from capsolve.diagrams.boundaries import odd_group_boundaries
from capsolve.diagrams.empirical import EmpiricalPhaseDiagram, empirical_phase_diagram
from capsolve.reproduction._report import Finding, Result, Settings

FEATURES, DIMENSIONS = 6, 3
KURTOSIS = 1.8  # of uniform inputs that are never 0; 1.8 / p where they are not 0 with probability p
V_RANGE, P_RANGE = (0.01, 100.0), (1.0, 0.001)

CELLS = 50  # along each side of the empirical diagram
FINE = 250  # of the analytic one

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


def make(settings: Settings) -> Result:
    """Solve the diagram exactly, find it again by descent on embeddings, and look at six of its points."""
    analytic = phase_diagram(
        ("importance", *V_RANGE), ("density", *P_RANGE), features=FEATURES, dimensions=DIMENSIONS, cells=FINE
    )
    found = empirical_phase_diagram(
        ("importance", *V_RANGE),
        ("density", *P_RANGE),
        features=FEATURES,
        dimensions=DIMENSIONS,
        cells=settings.cells or CELLS,
        rng=0,
        checkpoint=settings.checkpoint("fig4", CELLS),
        executor=settings.executor,
        progress=settings.progress,
    )
    optimum = phase_diagram(found.x, found.y, features=FEATURES, dimensions=DIMENSIONS)
    cases = {label: solve(_profile(V), _kurtosis(p), DIMENSIONS) for label, (V, p) in CASES.items()}
    return Result(
        "Fig. 4: phase diagram of one odd feature",
        f"{FEATURES} features in {DIMENSIONS} dimensions: one has importance V inside the target, the others 1; inputs "
        f"are uniform, and 0 with probability 1 − p. Analytic: {FINE} × {FINE} exact allocations. Empirical: "
        f"{found.shape[1]} × {found.shape[0]} cells, the best embedding of several descents on the exact expected loss "
        "(more of them where κ < 3, where there are many local optima).",
        {"": _picture(analytic, found), "-cases": figures.marginal_cases(cases)},
        [*_analytic_findings(analytic), _cases_finding(), *_empirical_findings(found, optimum)],
        arrays={
            "analytic_importance": analytic.x.values,
            "analytic_density": analytic.y.values,
            "analytic_capacity": analytic.capacity,
            "importance": found.x.values,
            "density": found.y.values,
            "capacity": found.capacity,
            "loss": found.loss,
            "optimal_capacity": optimum.capacity,
            "optimal_loss": optimum.loss,
        },
    )


def _profile(V: float) -> FloatArray:
    importance = np.ones(FEATURES)
    importance[0] = V
    return importance


def _kurtosis(p: float) -> float:
    """Return 1.8/p, exactly 3 at the critical density."""
    return 3.0 if p == KURTOSIS / 3.0 else KURTOSIS / p


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


def _empirical_findings(found: EmpiricalPhaseDiagram, optimum: PhaseDiagram) -> list[Finding]:
    agreement = found.compare(optimum)
    excess = found.loss / optimum.loss - 1.0
    listed = []
    for x, y in agreement.where[:10].tolist():
        cell = int(np.argmin(np.abs(found.y.values - y))), int(np.argmin(np.abs(found.x.values - x)))
        listed.append(
            f"V = {x:.4g}, p = {y:.4g}: C = {found.capacity[cell]:.3f} for {optimum.capacity[cell]:.3f}, loss "
            f"{excess[cell]:.1e} above the optimum"
        )
    more = len(agreement.where) - len(listed)
    different = f"Different: {'; '.join(listed)}{f'; and {more} more' if more else ''}." if listed else "None differs."
    return [
        Finding(
            "Optimised embeddings have the capacities of the theory.",
            agreement.close >= 0.99,
            f"{agreement.close:.2%} of {agreement.cells} cells within {CLOSE:g}, {agreement.excluded} left out that "
            f"are within {agreement.strip:g} cell of the line where the capacity jumps and two optima tie; mean "
            f"difference {agreement.mean:.1e}, largest {agreement.largest:.1e}. {different}",
        ),
        Finding(
            "Optimised embeddings are in the phases of the theory.",
            agreement.same_phase >= 0.99,
            f"{agreement.same_phase:.2%} of these cells, where C < {found.tolerance:g} counts as ignored and "
            f"C > {1.0 - found.tolerance:g} as monosemantic.",
        ),
        Finding(
            "No embedding is better than the optimal allocation.",
            bool(excess.min() > -1e-12),
            f"relative to the optimum the losses are between {excess.min():+.1e} and {excess.max():+.1e}.",
        ),
    ]


def _picture(analytic: PhaseDiagram, found: EmpiricalPhaseDiagram) -> Figure:
    with figures.page(7.0, 3.4) as figure:
        left, right = figure.subplots(1, 2)
        figures.phase_diagram(analytic, marks=CASES, ax=left)
        figures.phase_diagram(found, theory=analytic, marks={}, ax=right)
        figure.legend(handles=left.get_legend().legend_handles, loc="outside upper left", ncols=3)
        for ax in (left, right):
            ax.get_legend().remove()
        left.set_title("analytic", loc="left")
        right.set_title(f"optimised embeddings, {found.shape[1]} × {found.shape[0]}", loc="left")
    return figure
