"""How far a diagram found numerically agrees with the theory's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capsolve._checks import BoolArray, FloatArray, scalar
from capsolve.diagrams.analytic import PhaseDiagram, phase_of
from capsolve.diagrams.axes import Axis

CLOSE = 0.02


@dataclass(frozen=True, eq=False, repr=False)
class Agreement:
    """Agreement of the tracked feature's capacity, over the cells outside a strip around lines where it jumps.

    Attributes
    ----------
    cells, excluded, unknown : int
        How many cells were compared, how many lie in the strip, and how many have no answer (a training that diverged).
    strip : float
        The half-width of the strip, in cells.
    same_phase : float
        The share of cells with the same phase, capacities below the tolerance counting as 0 in both diagrams, and above
        1 minus it as 1.
    close : float
        The share of cells whose capacities differ by less than 0.02.
    largest, mean : float
        Of the differences of capacity.
    difference : (ny, nx) array
        Found minus exact, of all cells, those in the strip as well.
    inside : (ny, nx) bool array
        The strip.
    where : (k, 2) array
        (x, y) of the compared cells that differ by 0.02 or more, the largest difference first.
    """

    cells: int
    excluded: int
    unknown: int
    strip: float
    same_phase: float
    close: float
    largest: float
    mean: float
    difference: FloatArray
    inside: BoolArray
    where: FloatArray

    def summary(self) -> str:
        """Return the numbers in words."""
        near = f"{self.strip:g} cell{'' if self.strip == 1.0 else 's'}"
        lines = [
            f"cells compared     {self.cells}; {self.excluded} within {near} of a jump left out"
            + (f", {self.unknown} without an answer" if self.unknown else ""),
            f"same phase         {self.same_phase:.2%}",
            f"capacity within {CLOSE:g}  {self.close:.2%}",
            f"difference         mean {self.mean:.2g}, largest {self.largest:.2g}",
        ]
        if self.where.size:
            listed = ", ".join(f"({x:.4g}, {y:.4g})" for x, y in self.where[:5])
            lines.append(f"farthest apart at  {listed}{', …' if len(self.where) > 5 else ''}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"Agreement({self.cells} cells, {self.excluded} in the strip; same phase {self.same_phase:.2%}, "
            f"within {CLOSE:g} {self.close:.2%}, largest difference {self.largest:.2g})"
        )


def compare(
    x: Axis, y: Axis, capacity: FloatArray, tolerance: float, analytic: PhaseDiagram, strip: float
) -> Agreement:
    """Compare the tracked feature's capacity (ny, nx), known to a tolerance, with a diagram over the same values."""
    strip = scalar("strip", strip, low=0.0)
    for mine, other in ((x, analytic.x), (y, analytic.y)):
        if mine.name != other.name or not np.array_equal(mine.values, other.values):
            raise ValueError(f"the axes of the diagrams differ: {mine} and {other}")
    difference = capacity - analytic.capacity
    inside = near_jumps(analytic, strip)
    compared = ~inside & np.isfinite(difference)
    size = np.abs(difference[compared])
    same = phase_of(capacity[compared], tolerance) == phase_of(analytic.capacity[compared], tolerance)
    rows, columns = np.nonzero(compared)
    order = np.argsort(-size, kind="stable")
    far = order[size[order] >= CLOSE]
    return Agreement(
        cells=size.size,
        excluded=int(np.count_nonzero(inside)),
        unknown=int(np.count_nonzero(np.isnan(difference) & ~inside)),
        strip=strip,
        same_phase=float(np.mean(same)) if size.size else np.nan,
        close=float(np.mean(size < CLOSE)) if size.size else np.nan,
        largest=float(np.max(size, initial=0.0)),
        mean=float(np.mean(size)) if size.size else np.nan,
        difference=difference,
        inside=inside,
        where=np.stack([x.values[columns[far]], y.values[rows[far]]], axis=1),
    )


def near_jumps(diagram: PhaseDiagram, distance: float) -> BoolArray:
    """Return which cells lie as near as ``distance``, in cells along both axes, to a line where capacity jumps."""
    inside = np.zeros(diagram.shape, dtype=np.bool_)
    row, column = (np.arange(size, dtype=float) for size in diagram.shape)
    for boundary in diagram.boundaries:
        if boundary.order != "jump":
            continue
        there = np.isfinite(boundary.x)
        across = _place(diagram.x, boundary.x[there])
        up = _place(diagram.y, boundary.y[there])
        for i, j in zip(across, up, strict=True):
            inside |= (np.abs(row - j) <= distance)[:, None] & (np.abs(column - i) <= distance)
    return inside


def _place(axis: Axis, values: FloatArray) -> FloatArray:
    """Return where values lie, counted in cells; far away if they are beyond the axis."""
    at, cells = axis.position(axis.values), np.arange(axis.values.size, dtype=float)
    if at[0] > at[-1]:
        at, cells = at[::-1], cells[::-1]
    found: FloatArray = np.interp(axis.position(values), at, cells, left=-np.inf, right=np.inf)
    return found
