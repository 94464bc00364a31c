"""The theory's phase diagram: every cell an exact allocation, and the lines between the phases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray, scalar, whole
from capsolve.allocation import Phase, phases
from capsolve.certificate import FINEST_TOLERANCE
from capsolve.diagrams.axes import Axis, restored_axes, stored_axes
from capsolve.diagrams.boundaries import Boundary, closed_form, traced
from capsolve.diagrams.problems import Problems, problems_over
from capsolve.files._paths import StrPath
from capsolve.files.archives import reading_archive, write_archive

_KIND = "a phase diagram of capsolve"
_ARRAYS = ("capacities", "price", "loss", "gap", "optimal")


@dataclass(frozen=True, eq=False, repr=False)
class PhaseDiagram:
    """Exact allocations over two axes; arrays have the shape (y values, x values, ...) and are read-only.

    Attributes
    ----------
    x, y : Axis
    capacities : (ny, nx, n) array
        C_i of every feature; NaN for features that a cell does not have.
    price, loss, gap : (ny, nx) arrays
        As in `Allocation`.
    optimal : (ny, nx) bool array
        Which cells are certified to be optimal within the tolerance.
    tracked : int
        The feature that ``capacity`` and the boundaries are about.
    boundaries : tuple of Boundary
        The lines between the phases of the tracked feature.
    critical : tuple of (x, y)
        The points where a jump becomes a kink: in closed form where that is known, else found to 1e-6 of a step.
    description : str
        What is the same in all cells.
    """

    x: Axis
    y: Axis
    capacities: FloatArray
    price: FloatArray
    loss: FloatArray
    gap: FloatArray
    optimal: npt.NDArray[np.bool_]
    tracked: int = 0
    boundaries: tuple[Boundary, ...] = field(default=())
    critical: tuple[tuple[float, float], ...] = field(default=())
    description: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.y.values.size, self.x.values.size

    @property
    def features(self) -> int:
        """The number of features of the largest cell."""
        return int(self.capacities.shape[-1])

    @property
    def capacity(self) -> FloatArray:
        """The capacity of the tracked feature, shape (ny, nx)."""
        return self.capacities[..., self.tracked]

    @property
    def phase(self) -> npt.NDArray[np.int8]:
        """The `Phase` of every feature, shape (ny, nx, n); −1 for features that a cell does not have."""
        return phase_of(self.capacities)

    def save(self, path: StrPath) -> None:
        """Write everything to a NumPy .npz file, which replaces an older one as a whole."""
        axes, values = stored_axes(self.x, self.y)
        facts = {
            **axes,
            "tracked": self.tracked,
            "description": self.description,
            "boundaries": [
                {"lower": int(b.lower), "upper": int(b.upper), "order": b.order, "exact": b.exact}
                for b in self.boundaries
            ],
        }
        arrays = values | {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {f"boundary_{i}": np.stack([b.x, b.y]) for i, b in enumerate(self.boundaries)}
        arrays["critical"] = np.array(self.critical, dtype=float).reshape(-1, 2)
        write_archive(path, _KIND, facts, arrays)

    @classmethod
    def load(cls, path: StrPath) -> PhaseDiagram:
        """Read what `save` wrote; raises `ValueError` for another kind of file."""
        with reading_archive(path, _KIND) as (facts, arrays):
            x, y = restored_axes(facts, arrays)
            boundaries = tuple(
                Boundary(Phase(b["lower"]), Phase(b["upper"]), b["order"], b["exact"], *arrays[f"boundary_{i}"])
                for i, b in enumerate(facts["boundaries"])
            )
            return cls(
                x,
                y,
                **{name: arrays[name] for name in _ARRAYS},
                tracked=int(facts["tracked"]),
                boundaries=boundaries,
                critical=tuple((float(a), float(b)) for a, b in arrays["critical"]),
                description=str(facts["description"]),
            )

    def __repr__(self) -> str:
        ny, nx = self.shape
        share = " ".join(
            f"{np.mean(self.phase[..., self.tracked] == phase):.0%} {phase.name.lower()}" for phase in reversed(Phase)
        )
        return (
            f"PhaseDiagram({nx} × {ny} cells, {self.x.name} × {self.y.name}, {self.description}; "
            f"feature {self.tracked}: {share})"
        )


def phase_diagram(
    x: Any = ("importance", 0.01, 100.0),
    y: Any = ("density", 1.0, 0.001),
    *,
    family: str | Callable[[float, float], Any] = "groups",
    features: int | None = None,
    dimensions: float | None = None,
    group: int = 1,
    importance: float | None = None,
    exponent: float | None = None,
    rate: float | None = None,
    kurtosis: float | None = None,
    density: float | None = None,
    sparsity: float | None = None,
    distribution: Any = "uniform",
    bias: bool | None = None,
    tracked: int = 0,
    cells: int | tuple[int, int] = 250,
    tolerance: float = 1e-9,
) -> PhaseDiagram:
    """Solve `capsolve.solve` over two axes and find where the phases of one feature meet.

    Parameters
    ----------
    x, y : (name, low, high), (name, low, high, "log" or "linear"), (name, values) or Axis
        What is varied: "importance", "exponent" or "rate" (see ``family``), "kurtosis", "density" or "sparsity",
        "dimensions", "features" or "bias". ``low`` belongs to the left or lower edge and may be the larger number.
        Importance, kurtosis and density are logarithmic unless something else is said; "features" takes the integers
        in between. A "bias" axis is ``("bias", (False, True))``.
    family : {"groups", "power-law", "exponential"} or callable
        "groups": the first ``group`` features have the importance given as ``importance``, the others 1.
        "power-law": v_i = i^−exponent. "exponential": v_i = exp(−rate (i−1)). A function of the values on the two
        axes returns a `Profile` or (importance, kurtosis); axes that are not listed above are its own.
    features, dimensions, importance, exponent, rate, bias
        Those that are not axes; by default 6, 3, 1, 1, 1 and True.
    kurtosis, density, sparsity
        One of the three, unless an axis says it: the same for all features. Inputs that are zero with probability
        ``sparsity`` = 1 − ``density`` and follow ``distribution`` otherwise have the kurtosis κ₀/density.
    group : int
        See ``family``.
    distribution : str or a frozen distribution of scipy.stats
        As in `Profile.from_distribution`; "uniform" has κ₀ = 9/5.
    tracked : int
        The index of the feature that the diagram is about.
    cells : int or (nx, ny)
        Values on axes given by their ends.
    tolerance
        As in `solve`.

    Returns
    -------
    PhaseDiagram
        Boundaries are closed forms for a group among equals (importance against kurtosis, density or sparsity, with a
        bias, an integer D from the size of the group to that of the rest, and the first feature tracked); all others
        are bisected along the edges of the grid to 1e-10.

    Raises
    ------
    ValueError
        For bad arguments, naming them, and more cells than there is memory for.

    Examples
    --------
    The paper's diagram: one feature of importance V among six, in three dimensions.

    >>> import capsolve
    >>> diagram = capsolve.phase_diagram(cells=50)
    >>> diagram
    PhaseDiagram(50 × 50 cells, importance × density, 6 features, 3 dimensions, uniform inputs; feature 0: ...)
    >>> diagram.critical
    ((1.0, 0.6),)
    >>> for boundary in diagram.boundaries:
    ...     print(boundary)
    Boundary(ignored–polysemantic, kink, ... points, closed form)
    Boundary(polysemantic–monosemantic, kink, ... points, closed form)
    Boundary(ignored–monosemantic, jump, ... points, closed form)

    The tenth of a thousand features, as importances fall faster and dimensions are added:

    >>> x, y = ("exponent", 0.2, 2), ("dimensions", 1, 60)
    >>> capsolve.phase_diagram(x, y, family="power-law", features=1000, kurtosis=20, tracked=9, cells=10).phase[0, :, 9]
    array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], dtype=int8)

    References
    ----------
    arXiv 2210.01892, section 4.3 and Fig. 4.
    """
    across, up, problems = problems_over(
        x,
        y,
        cells,
        family=family,
        group=group,
        distribution=distribution,
        features=features,
        dimensions=dimensions,
        importance=importance,
        exponent=exponent,
        rate=rate,
        kurtosis=kurtosis,
        density=density,
        sparsity=sparsity,
        bias=bias,
    )
    tracked = whole("tracked", tracked, 0)
    tolerance = scalar("tolerance", tolerance, low=FINEST_TOLERANCE, high=1.0)
    return solved(problems, across, up, tracked, tolerance)


def solved(problems: Problems, x: Axis, y: Axis, tracked: int, tolerance: float) -> PhaseDiagram:
    """Return the diagram of a family of problems."""
    at_x, at_y = (points.ravel() for points in np.meshgrid(x.values, y.values))
    answers = problems.solve(at_x, at_y, tolerance)
    shape = y.values.size, x.values.size
    capacities = answers.capacities.reshape(*shape, -1)
    if tracked >= capacities.shape[-1]:
        raise ValueError(f"tracked must be below the number of features, {capacities.shape[-1]}, got {tracked}")
    found = closed_form(problems, x, y, tracked)
    if found is None:
        found = traced(problems, x, y, phase_of(capacities[..., tracked]), tracked, tolerance)
    boundaries, critical = found
    arrays = {name: getattr(answers, name).reshape(shape) for name in ("price", "loss", "gap", "optimal")}
    return PhaseDiagram(
        x,
        y,
        **_frozen({"capacities": capacities, **arrays}),
        tracked=tracked,
        boundaries=boundaries,
        critical=critical,
        description=problems.describe(),
    )


def phase_of(capacities: FloatArray, tolerance: float = 0.0) -> npt.NDArray[np.int8]:
    """Return the phases of capacities that are known to within a tolerance, −1 for NaN."""
    phase: npt.NDArray[np.int8] = np.where(np.isnan(capacities), np.int8(-1), phases(capacities, tolerance))
    return phase


def _frozen(arrays: dict[str, Any]) -> dict[str, Any]:
    for array in arrays.values():
        array.setflags(write=False)
    return arrays
