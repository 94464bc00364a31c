"""Fig. 7: the phase diagrams of trained networks, three activations by three architectures."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from capsolve import figures
from capsolve._checks import BoolArray, FloatArray
from capsolve.diagrams.agreement import CLOSE
from capsolve.diagrams.empirical import EmpiricalPhaseDiagram, empirical_phase_diagram
from capsolve.geometry.blocks import blocks
from capsolve.reproduction._report import Finding, Result, Settings, table

FEATURES = 6
ROWS = (("sum", 3), ("autoencoder", 3), ("autoencoder", 5))
COLUMNS = ("quadratic", "relu", "gelu")
NAMES = {"quadratic": "quadratic", "relu": "ReLU", "gelu": "GeLU"}
MEANING = {"sum": "$V$ inside the target", "autoencoder": "$V$ on the squared error"}

CELLS = 40  # along each side
STARTS, STEPS, POINTS = 4, 1500, 512
RATES = {"sum": 0.3, "autoencoder": 0.03}  # of Adam, at the start
V_RANGE = (0.01, 100.0)
P_RANGE = (1.0, 0.001)

BAND = 0.03  # |C − ½| below this belongs to the band at one half
SHARED = 0.1  # features with C between this and 1 − this share
DENSE, SPARSE = 0.6, 0.03  # rows of density above and below; at 0.6 the kurtosis of uniform inputs is 3
GAP = 30.0  # importances this many times apart are orders of magnitude apart
ORTHOGONAL = 0.1  # the tolerance of `capsolve.blocks`: what training leaves between vectors that are orthogonal
BINS = (1.0, 0.6, 0.1, 0.01, 0.001)  # of density, in the table of transitions


@dataclass(frozen=True)
class _Panel:
    """One model, trained in every cell."""

    architecture: str
    activation: str
    dimensions: int
    found: EmpiricalPhaseDiagram

    @property
    def name(self) -> str:
        return f"{self.architecture} {NAMES[self.activation]} {FEATURES}-in-{self.dimensions}"

    @property
    def importance(self) -> FloatArray:
        """V along the horizontal axis, (nx,)."""
        return self.found.x.values

    @property
    def density(self) -> FloatArray:
        """The density along the vertical axis, (ny,)."""
        return self.found.y.values

    @property
    def capacity(self) -> FloatArray:
        """C of the odd feature, (ny, nx); NaN where every start diverged."""
        return self.found.capacity

    @cached_property
    def sizes(self) -> FloatArray:
        """The number of features in the block of each feature, (ny, nx, n); 0 for ignored ones."""
        W = self.found.embedding
        found = np.zeros(W.shape[:-1])
        for cell in np.ndindex(*W.shape[:2]):
            if np.isfinite(W[cell]).all():
                for block in blocks(W[cell], tolerance=ORTHOGONAL):
                    found[(*cell, block.features)] = block.features.size
        return found

    @property
    def band(self) -> float:
        """The share of the cells where C is one half."""
        return float(np.mean(np.abs(self.capacity - 0.5) < BAND))

    @property
    def shared(self) -> BoolArray:
        """Where the odd feature shares, (ny, nx)."""
        return (self.capacity > SHARED) & (self.capacity < 1.0 - SHARED)

    def decades(self, rows: BoolArray) -> float:
        """Return over how many decades of V the odd feature shares, on average over some rows."""
        width = np.log10(self.importance[-1] / self.importance[0]) / (self.importance.size - 1)
        return float(self.shared[rows].sum(axis=1).mean() * width)

    def jump(self, rows: BoolArray) -> float:
        """Return the largest change of C between neighbouring cells of a row, the median over some rows."""
        return float(np.nanmedian(np.max(np.abs(np.diff(self.capacity[rows], axis=1)), axis=1)))

    @property
    def gap(self) -> float:
        """The share of the cells with importances orders of magnitude apart where the odd feature shares."""
        far = (self.importance >= GAP) | (self.importance <= 1.0 / GAP)
        return float(self.shared[:, far].mean())

    @property
    def rising(self) -> float:
        """The share of neighbouring cells of a row between which C does not fall by more than the band's width."""
        return float(np.mean(np.diff(self.capacity, axis=1) > -BAND))

    def crowd(self, sizes: FloatArray) -> float:
        """Return the mean number of features in the block of a polysemantic feature."""
        several = sizes[sizes > 1]
        return float(several.mean()) if several.size else np.nan


def make(settings: Settings) -> Result:
    """Train nine models in every cell and hold the paper's findings against them."""
    cells = settings.cells or CELLS
    panels = list(_panels(settings))
    V, p = panels[0].importance, panels[0].density
    grid = [[panel.capacity for panel in panels[3 * row : 3 * row + 3]] for row in range(len(ROWS))]
    picture = figures.architecture_grid(
        grid,
        V,
        p,
        rows=[f"{kind}, {FEATURES} in {D}\n{MEANING[kind]}" for kind, D in ROWS],
        columns=[NAMES[activation] for activation in COLUMNS],
    )
    lost = sum(int(np.isnan(panel.capacity).sum()) for panel in panels)
    return Result(
        "Fig. 7: phase diagrams of trained networks",
        f"{FEATURES} features of which one has importance V and the others 1; {cells} × {cells} cells, V from "
        f"{V_RANGE[0]:g} to {V_RANGE[1]:g}, density p from {P_RANGE[0]:g} to {P_RANGE[1]:g}. The sum model predicts "
        "Σ v_i σ(x_i) from inputs uniform on [-1, 1], so that V is inside the target; the autoencoder reconstructs "
        "inputs uniform on [0, 1], and V multiplies the squared error. The paper does not publish how it trained. "
        f"Here: {STARTS} starts per cell, {STEPS} steps of Adam with cosine decay from a learning rate of "
        f"{', '.join(f'{rate:g} ({kind})' for kind, rate in RATES.items())} on the expected loss over sets of {POINTS} "
        "stratified quasi-random points, the best of the starts by the expected loss on other points; in "
        f"{lost} of {sum(panel.capacity.size for panel in panels)} cells all diverged.",
        {"": picture, "-blocks": _histograms(panels)},
        _findings(panels),
        arrays={
            "importance": V,
            "density": p,
            "capacity": np.reshape([panel.found.capacities for panel in panels], (3, 3, cells, cells, FEATURES)),
            "block_size": np.reshape([panel.sizes for panel in panels], (3, 3, cells, cells, FEATURES)),
            "loss": np.reshape([panel.found.loss for panel in panels], (3, 3, cells, cells)),
            "agreeing": np.reshape([panel.found.agreeing for panel in panels], (3, 3, cells, cells)),
        },
        appendix=_tables(panels),
    )


def _panels(settings: Settings) -> Iterator[_Panel]:
    for architecture, D in ROWS:
        for activation in COLUMNS:
            model = f"{architecture}-{activation}"
            if settings.progress:
                tqdm.write(f"{model}, {FEATURES} in {D}", file=sys.stderr)
            found = empirical_phase_diagram(
                ("importance", *V_RANGE),
                ("density", *P_RANGE),
                model=model,
                cells=settings.cells or CELLS,
                features=FEATURES,
                dimensions=D,
                restarts=STARTS,
                training={"steps": STEPS, "points": POINTS, "learning_rate": RATES[architecture]},
                rng=0,
                checkpoint=settings.checkpoint(f"fig7-{model}-{FEATURES}in{D}", CELLS),
                executor=settings.executor,
                progress=settings.progress,
            )
            yield _Panel(architecture, activation, D, found)


def _findings(panels: Sequence[_Panel]) -> list[Finding]:
    V, p = panels[0].importance, panels[0].density
    dense, sparse = p > DENSE, p < SPARSE
    low, high = np.ix_(dense, V < 0.1), np.ix_(dense, V > 10.0)
    sums = [panel for panel in panels if panel.architecture == "sum"]
    automata = [panel for panel in panels if panel.architecture == "autoencoder"]
    tight = [panel for panel in automata if panel.dimensions == 3]

    def finding(
        claim: str,
        about: Sequence[_Panel],
        holds: Callable[[_Panel], bool],
        what: str,
        value: Callable[[_Panel], float],
        form: str = ".2f",
    ) -> Finding:
        """Judge a claim model by model; the value is told for all of them."""
        exceptions = [panel.name for panel in about if not holds(panel)]
        told = "; ".join(f"{panel.name} {value(panel):{form}}" for panel in panels)
        but = f" Not so: {', '.join(exceptions)}." if exceptions else ""
        return Finding(claim, 1.0 - len(exceptions) / len(about), f"{what}: {told}.{but}")

    def wider(panel: _Panel) -> float:
        return panel.decades(sparse) - panel.decades(dense)

    def sharper(panel: _Panel) -> float:
        return panel.jump(dense) - panel.jump(sparse)

    def crowd(panel: _Panel) -> float:
        return panel.crowd(panel.sizes[sparse])

    exact = panels[0].found.compare(strip=0.0)
    near = np.abs(exact.difference) < SHARED
    share = f"{SHARED:g} < C < {1.0 - SHARED:g}"
    return [
        Finding(
            f"The diagram of the {panels[0].name} model is the analytic one.",
            float(near.mean()) > 0.95,
            f"{near.mean():.1%} of the cells within {SHARED:g} of the optimal capacity, {exact.close:.1%} within "
            f"{CLOSE:g}; the mean difference is {exact.mean:.4f}.",
        ),
        finding(
            "What is dense and unimportant is ignored.",
            panels,
            lambda panel: float(np.nanmean(panel.capacity[low])) < SHARED,
            f"mean C at p > {DENSE:g} and V < 0.1",
            lambda panel: float(np.nanmean(panel.capacity[low])),
        ),
        finding(
            "What is dense and important is monosemantic.",
            panels,
            lambda panel: float(np.nanmean(panel.capacity[high])) > 1.0 - SHARED,
            f"mean C at p > {DENSE:g} and V > 10",
            lambda panel: float(np.nanmean(panel.capacity[high])),
        ),
        finding(
            "More importance does not mean less capacity.",
            panels,
            lambda panel: panel.rising > 0.95,
            f"share of neighbouring cells along V between which C does not fall by more than {BAND:g}",
            lambda panel: panel.rising,
            ".1%",
        ),
        finding(
            "Features share over a wider range of importance when inputs are sparse.",
            panels,
            lambda panel: wider(panel) > 0.0,
            f"decades of V over which {share}, at p < {SPARSE:g} less those at p > {DENSE:g}",
            wider,
        ),
        finding(
            "The transition is sharp when inputs are dense and smooth when they are sparse.",
            panels,
            lambda panel: sharper(panel) > 0.0,
            "largest step of C between neighbouring cells of a row (a plateau at one half has two), median at p > "
            f"{DENSE:g} less that at p < {SPARSE:g}",
            sharper,
        ),
        finding(
            "The autoencoder has a wide band at C = ½ (antipodal pairs), the sum model has not.",
            automata,
            lambda panel: panel.band > max(other.band for other in sums),
            f"share of the cells with |C − ½| < {BAND:g}",
            lambda panel: panel.band,
            ".1%",
        ),
        finding(
            "The autoencoder with 6 features in 3 dimensions shares even at importances orders of magnitude apart.",
            tight,
            lambda panel: panel.gap > max(other.gap for other in sums),
            f"share of the cells with V > {GAP:g} or V < 1/{GAP:g} where {share}",
            lambda panel: panel.gap,
            ".1%",
        ),
        finding(
            "Polysemantic features come in many small blocks in the autoencoder, in one large block in the sum model.",
            automata,
            lambda panel: crowd(panel) < min(crowd(other) for other in sums),
            f"mean number of features in the block of a polysemantic feature, at p < {SPARSE:g}",
            crowd,
        ),
    ]


def _tables(panels: Sequence[_Panel]) -> str:
    p = panels[0].density
    heads = ["model", *(f"p {high:g} … {low:g}" for high, low in itertools.pairwise(BINS))]
    rows = []
    for panel in panels:
        entries = [panel.name]
        for high, low in itertools.pairwise(BINS):
            inside = (p <= high) & (p >= low)
            entries.append(f"{panel.decades(inside):.2f} / {panel.jump(inside):.2f}" if inside.any() else "–")
        rows.append(entries)
    starts = [
        [panel.name, f"{np.nanmean(panel.found.agreeing):.0%}", f"{np.mean(panel.found.agreeing < 0.5):.0%}"]
        for panel in panels
    ]
    return "\n".join(
        [
            f"Decades of V over which {SHARED:g} < C < {1 - SHARED:g}, and the largest step of C between neighbouring "
            "cells of a row (median), by density:",
            "",
            *table(heads, rows),
            "",
            "What depends on the start: the share of the starts that end within a relative 1e-3 of the best loss (mean "
            "over cells), and the share of cells in which fewer than half of them do:",
            "",
            *table(["model", "starts that agree", "cells where most do not"], starts),
        ]
    )


def _histograms(panels: Sequence[_Panel]) -> Figure:
    """Draw in how large blocks features are, as shares of all features that are represented in sparse rows."""
    sparse = panels[0].density < SPARSE
    with figures.page(7.0, 5.4) as figure:
        axes = figure.subplots(len(ROWS), len(COLUMNS), sharex=True, sharey=True)
        for ax, panel in zip(axes.ravel(), panels, strict=True):
            sizes = panel.sizes[sparse]
            count = np.bincount(sizes[sizes > 0].astype(int), minlength=FEATURES + 1)[1:]
            ax.bar(np.arange(1, FEATURES + 1), count / max(1, count.sum()), color="0.35", width=0.7)
            ax.set_title(panel.name, loc="left", fontsize="small")
        figure.supxlabel("features in the block", fontsize="medium")
        figure.supylabel(f"share of the represented features, p < {SPARSE:g}", fontsize="medium")
    return figure
