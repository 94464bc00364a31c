"""Where phases meet: in closed form for one group of features among equals, else by bisection along cell edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from capsolve._checks import BoolArray, FloatArray, IndexArray
from capsolve.allocation import Phase, phases
from capsolve.diagrams.axes import WHOLE, Axis
from capsolve.diagrams.problems import INPUTS, Problems

Kind = tuple[int, int, str]  # lower and upper phase, order

ACCURACY = 1e-10  # of a crossing, along its axis: absolute, or relative on a logarithmic one
CUT = 0.487  # where an edge is cut: not in the middle, where lines lie if axes are symmetric, and optima tie on a line
JUMP = 1e-3  # a capacity that changes by more between two points that close jumps
FINER = 4  # points of a closed form for each value of the axis
SECTIONS = 32  # parts that a stretch is cut into at once in the search for the end of a jump
HALVINGS = 24  # of two steps of the grid, in which a jump ends


@dataclass(frozen=True, eq=False, repr=False)
class Boundary:
    """A line between two phases of the tracked feature.

    Attributes
    ----------
    lower, upper : Phase
        The phases on the two sides, the one of less capacity first.
    order : {"jump", "kink"}
        Whether the capacity jumps (a first-order transition) or only its slope.
    exact : bool
        True for a closed form; otherwise points were found to 1e-10 along the edges of the grid (not along an axis that
        has integers only), and lines between them are straight.
    x, y : (m,) arrays
        The line, NaN where it is broken.
    """

    lower: Phase
    upper: Phase
    order: str
    exact: bool
    x: FloatArray
    y: FloatArray

    def __repr__(self) -> str:
        names = f"{self.lower.name.lower()}–{self.upper.name.lower()}"
        points = np.count_nonzero(np.isfinite(self.x))
        return f"Boundary({names}, {self.order}, {points} points, {'closed form' if self.exact else 'found to 1e-10'})"


def odd_group_boundaries(kurtosis: Any, features: int, dimensions: float, group: int = 1) -> tuple[Any, Any]:
    """Return the importances at which a group is just ignored and just monosemantic, all kurtoses being κ ≥ 3.

    ``group`` of the ``features`` have the importance V, the other M = N − group the importance 1. With D ≤ M
    dimensions the group is ignored for V ≤ 2M / ((κ−3)D + 2M); with D ≥ group it is monosemantic for
    V ≥ (κ−1)M / ((κ−3)(D−group) + 2M). The two meet at κ = 3, V = 1, the critical point.

    Examples
    --------
    Six features in three dimensions, inputs uniform where they are not zero, at the densities 0.1, 0.01 and 0.001:

    >>> import numpy as np
    >>> low, high = odd_group_boundaries(1.8 / np.array([0.1, 0.01, 0.001]), 6, 3)
    >>> low.round(5), high.round(3)
    (array([0.18182, 0.01848, 0.00185]), array([2.125, 2.459, 2.496]))

    References
    ----------
    arXiv 2210.01892, Fig. 4; both are eqs. 15–18 with the group at the end of its range.
    """
    k, others = np.asarray(kurtosis, dtype=float), features - group
    low = 2.0 * others / ((k - 3.0) * dimensions + 2.0 * others)
    high = (k - 1.0) * others / ((k - 3.0) * (dimensions - group) + 2.0 * others)
    return low, high


def closed_form(
    problems: Problems, x: Axis, y: Axis, tracked: int
) -> tuple[tuple[Boundary, ...], tuple[tuple[float, float], ...]] | None:
    """Return boundaries and critical points where formulas are known, None elsewhere.

    They are for the first feature of the group, its importance against kurtosis, density or sparsity, with a bias and
    an integer D from the size of the group to that of the rest.
    """
    other = y if x.name == "importance" else x
    fixed, group = problems.fixed, problems.group
    known = problems.family == "groups" and tracked == 0 and "importance" in {x.name, y.name} and other.name in INPUTS
    if not known or not fixed.get("bias"):
        return None
    n, dimensions = int(fixed["features"]), fixed["dimensions"]
    if not (dimensions.is_integer() and group <= dimensions <= n - group):
        return None

    along = other.position(other.values)
    along = np.linspace(along[0], along[-1], FINER * (along.size - 1) + 1)
    meeting = {"kurtosis": 3.0, "density": problems.base / 3.0, "sparsity": 1.0 - problems.base / 3.0}[other.name]
    low, high = sorted((other.values[0], other.values[-1]))
    meets = low <= meeting <= high
    if meets:
        along = np.unique(np.append(along, other.position(meeting)))
    values = other.value(along)
    density = {"density": values, "sparsity": 1.0 - values}.get(other.name)
    kurtosis = values if density is None else problems.base / density
    if meets:
        kurtosis[np.argmin(np.abs(along - other.position(meeting)))] = 3.0

    def line(lower: Phase, upper: Phase, order: str, importance: FloatArray, where: BoolArray) -> Boundary:
        ends = (importance[where], values[where])
        return Boundary(lower, upper, order, True, *(ends if x.name == "importance" else ends[::-1]))

    ignored, full = odd_group_boundaries(np.maximum(kurtosis, 3.0), n, dimensions, group)
    sharing, dense = kurtosis >= 3.0, kurtosis <= 3.0
    lines = [
        line(Phase.IGNORED, Phase.POLYSEMANTIC, "kink", ignored, sharing),
        line(Phase.POLYSEMANTIC, Phase.MONOSEMANTIC, "kink", full, sharing),
        line(Phase.IGNORED, Phase.MONOSEMANTIC, "jump", np.ones_like(kurtosis), dense),
    ]
    importance = x if x.name == "importance" else y
    critical = meets and min(importance.values) <= 1.0 <= max(importance.values)
    point = (1.0, meeting) if x.name == "importance" else (meeting, 1.0)
    return tuple(found for found in lines if found.x.size > 1), (point,) if critical else ()


def traced(
    problems: Problems, x: Axis, y: Axis, phase: npt.NDArray[np.int8], tracked: int, tolerance: float
) -> tuple[tuple[Boundary, ...], tuple[tuple[float, float], ...]]:
    """Find the boundaries of the tracked feature's ``phase`` (ny, nx), and where jumps become kinks.

    Boundaries are found to 1e-10 along the edges of the grid, the ends of jumps to 1e-6 of a step of it.
    """
    ny, nx = phase.shape
    node = np.arange(ny * nx).reshape(ny, nx)
    horizontal = np.stack([node[:, :-1].ravel(), node[:, 1:].ravel()], axis=1)
    vertical = np.stack([node[:-1].ravel(), node[1:].ravel()], axis=1)
    edges = np.concatenate([horizontal, vertical])
    found: dict[Kind, list[list[FloatArray]]] = {}
    critical: list[tuple[float, float]] = []
    for begins in (Phase.POLYSEMANTIC, Phase.MONOSEMANTIC):
        # −1 stands for "there is no such feature", which is not a phase
        above, there = phase.ravel() >= begins, phase.ravel() >= 0
        cut = np.flatnonzero((above[edges[:, 0]] != above[edges[:, 1]]) & there[edges].all(axis=1))
        if cut.size == 0:
            continue
        # nothing lies between two integers: lines pass over such an edge
        real = np.where(cut < len(horizontal), x.name not in WHOLE, y.name not in WHOLE)
        points, kinds = np.empty((cut.size, 2)), np.empty(cut.size, dtype=object)
        if real.any():
            points[real], kinds[real] = _cross(problems, x, y, edges[cut[real]], begins, tracked, tolerance)
        at = np.full(len(edges), -1)
        at[cut] = np.arange(cut.size)
        for crossings in _chains(at, ny, nx):
            chain = [i for i in crossings if real[i]]
            for before, last in _last_jumps(chain, kinds):
                end = _jump_end(problems, x, y, points[[before, last]], begins, tracked, tolerance)
                if end is not None and not any(np.allclose(end, known, rtol=1e-5) for known in critical):
                    critical.append(end)
            for kind, piece in _pieces(chain, kinds):
                if kind[:2] == (Phase.IGNORED, Phase.MONOSEMANTIC) and begins is Phase.MONOSEMANTIC:
                    continue  # the same line as where polysemantic would begin
                found.setdefault(kind, []).append([points[piece, 0], points[piece, 1]])
    return tuple(_boundary(kind, pieces) for kind, pieces in sorted(found.items())), tuple(sorted(critical))


def _cross(
    problems: Problems, x: Axis, y: Axis, edges: IndexArray, begins: Phase, tracked: int, tolerance: float
) -> tuple[FloatArray, npt.NDArray[np.object_]]:
    """Return where along each edge the phase begins, (k, 2), and between which phases and how, by bisection."""
    nx = x.values.size
    ends = np.stack([x.position(x.values)[edges % nx], y.position(y.values)[edges // nx]], axis=-1)  # (k, 2 ends, 2)
    way = ends[:, 1] - ends[:, 0]

    def place(t: FloatArray) -> FloatArray:
        # an edge along one axis is at a value of the other, not at what comes back from its logarithm
        at_x, at_y = (ends[:, 0] + t[:, None] * way).T
        here_x = np.where(way[:, 0] == 0.0, x.values[edges[:, 0] % nx], x.value(at_x))
        here_y = np.where(way[:, 1] == 0.0, y.values[edges[:, 0] // nx], y.value(at_y))
        return np.stack([here_x, here_y], axis=1)

    def capacity(t: FloatArray) -> FloatArray:
        at_x, at_y = place(t).T
        return problems.solve(at_x, at_y, tolerance).capacities[:, tracked]

    def phase(c: FloatArray) -> IndexArray:
        numbers: IndexArray = phases(c).astype(np.intp)
        return numbers

    low, high = np.zeros(len(edges)), np.ones(len(edges))
    at_low, at_high = capacity(low), capacity(high)
    rising = phase(at_low) < begins
    steps = int(np.ceil(np.log(np.max(np.abs(way)) / ACCURACY) / -np.log(1.0 - CUT)))
    for _ in range(max(1, steps)):
        cut = low + CUT * (high - low)
        c = capacity(cut)
        before = (phase(c) < begins) == rising
        low, at_low = np.where(before, cut, low), np.where(before, c, at_low)
        high, at_high = np.where(before, high, cut), np.where(before, at_high, c)
    points = place(0.5 * (low + high))
    sides = np.sort(np.stack([phase(at_low), phase(at_high)]), axis=0)
    jumps = np.abs(at_high - at_low) > JUMP
    kinds = np.empty(len(edges), dtype=object)
    kinds[:] = [(int(a), int(b), "jump" if jump else "kink") for a, b, jump in zip(*sides, jumps, strict=True)]
    return points, kinds


def _chains(at: IndexArray, ny: int, nx: int) -> Iterator[list[int]]:
    """Join crossings of the edges of each cell to lines; ``at`` numbers them, horizontal edges first, −1 for none."""
    horizontal = at[: ny * (nx - 1)].reshape(ny, nx - 1)
    vertical = at[ny * (nx - 1) :].reshape(ny - 1, nx)
    around = np.stack([horizontal[:-1], vertical[:, 1:], horizontal[1:], vertical[:, :-1]], axis=-1).reshape(-1, 4)
    neighbours: dict[int, list[int]] = {int(i): [] for i in at[at >= 0]}
    for cell in around[(around >= 0).any(axis=1)]:
        here = [int(i) for i in cell if i >= 0]
        for a, b in zip(here[::2], here[1::2], strict=False):
            neighbours[a].append(b)
            neighbours[b].append(a)
    unused = set(neighbours)
    for start in sorted(neighbours, key=lambda i: len(neighbours[i])):  # open lines from their ends, then rings
        if start not in unused:
            continue
        chain = [start]
        unused.discard(start)
        while following := [i for i in neighbours[chain[-1]] if i in unused]:
            unused.discard(following[0])
            chain.append(following[0])
        if len(chain) > 2 and start in neighbours[chain[-1]]:
            chain.append(start)
        yield chain


def _pieces(chain: list[int], kinds: npt.NDArray[np.object_]) -> Iterator[tuple[Kind, list[int]]]:
    """Cut a line where it becomes one of another kind."""
    begin = 0
    for i in range(1, len(chain) + 1):
        if i == len(chain) or kinds[chain[i]] != kinds[chain[begin]]:
            yield kinds[chain[begin]], chain[begin:i]
            begin = i


def _last_jumps(chain: list[int], kinds: npt.NDArray[np.object_]) -> Iterator[tuple[int, int]]:
    """Yield the last jump before a kink along a line, in either direction, and the one before it."""
    for line in (chain, chain[::-1]):
        for before, last, beyond in zip(line, line[1:], line[2:], strict=False):
            if kinds[before][2] == kinds[last][2] == "jump" and kinds[beyond][2] == "kink":
                yield before, last


def _jump_end(
    problems: Problems, x: Axis, y: Axis, points: FloatArray, begins: Phase, tracked: int, tolerance: float
) -> tuple[float, float] | None:
    """Return where the jump ends that goes on from the second of two points; None if it does so beyond two steps.

    The search goes on in the direction of the line, along the axis that it follows more closely. At every place on it
    the boundary is looked for two steps to either side.
    """
    axes = (x, y)
    step = np.array([np.max(np.abs(np.diff(axis.position(axis.values)))) for axis in axes])
    start, ahead = np.stack([x.position(points[:, 0]), y.position(points[:, 1])], axis=1)
    main = int(np.argmax(np.abs(ahead - start) / step))
    if axes[main].name in WHOLE or axes[1 - main].name in WHOLE or ahead[main] == start[main]:
        return None
    stride = 2.0 * step[main] * np.sign(ahead[main] - start[main])

    def jump(t: float) -> tuple[bool, tuple[float, float]]:
        low, high = ahead[1 - main] + 2.0 * step[1 - main] * np.array([-1.0, 1.0])
        while True:
            across = axes[1 - main].value(np.linspace(low, high, SECTIONS + 1))
            along = np.full_like(across, axes[main].value(ahead[main] + t * stride))
            at = (along, across) if main == 0 else (across, along)
            c = problems.solve(*at, tolerance).capacities[:, tracked]
            reached = phases(c) >= begins
            if reached[0] == reached[-1]:
                return False, (np.nan, np.nan)
            i = int(np.argmax(reached != reached[0]))
            if high - low <= ACCURACY * SECTIONS:
                return bool(abs(c[i] - c[i - 1]) > JUMP), (float(at[0][i]), float(at[1][i]))
            low, high = (float(axes[1 - main].position(across[j])) for j in (i - 1, i))

    (is_jump, end), (goes_on, _) = jump(0.0), jump(1.0)
    if not is_jump or goes_on:
        return None
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        is_jump, place = jump(middle)
        low, high, end = (middle, high, place) if is_jump else (low, middle, end)
    return end


def _boundary(kind: Kind, pieces: list[list[FloatArray]]) -> Boundary:
    gap = np.array([np.nan])
    x, y = (np.concatenate([part for piece in pieces for part in (piece[i], gap)])[:-1] for i in (0, 1))
    return Boundary(Phase(kind[0]), Phase(kind[1]), kind[2], False, x, y)
