"""From the axes of a diagram to allocation problems: which profile, how many dimensions, at which point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from capsolve._checks import BoolArray, FloatArray, IndexArray, importance_and_kurtosis, scalar, whole
from capsolve._memory import require_memory
from capsolve.batch import solve_batch
from capsolve.diagrams.axes import KNOWN, WHOLE, Axis, allowed
from capsolve.profile import Profile

Family = Callable[[float, float], Any]

FAMILIES = ("groups", "power-law", "exponential")
_BYTES = 13  # of memory for each feature in each cell: its capacity, and its phase with what leads to it
_OTHER_BYTES = 100  # for each cell
_NUMBERS = 1 << 22  # importances of problems that are solved together: more would only take memory
SHAPE = {"groups": "importance", "power-law": "exponent", "exponential": "rate"}  # what each family is a function of
DEFAULTS = {"importance": 1.0, "exponent": 1.0, "rate": 1.0, "features": 6.0, "dimensions": 3.0, "bias": 1.0}
INPUTS = ("kurtosis", "density", "sparsity")


class Group(NamedTuple):
    """Problems that can be solved together: equally many features, and all with or all without a bias."""

    which: IndexArray  # of the points asked for
    importance: FloatArray  # (k, n)
    kurtosis: FloatArray  # (k, n)
    dimensions: FloatArray  # (k,)
    bias: bool


class Answers(NamedTuple):
    """Optima at m points; what belongs to features that are not there is NaN."""

    capacities: FloatArray  # (m, n)
    price: FloatArray  # (m,)
    loss: FloatArray
    gap: FloatArray
    optimal: BoolArray


def problems_over(
    x: Any,
    y: Any,
    cells: int | tuple[int, int],
    *,
    family: str | Family = "groups",
    group: int = 1,
    distribution: Any = "uniform",
    **given: Any,
) -> tuple[Axis, Axis, Problems]:
    """Return the axes of a diagram and its problems from what a user gives, see `capsolve.phase_diagram`."""
    sizes = tuple(cells) if isinstance(cells, tuple | list) else (cells, cells)
    if len(sizes) != 2:
        raise ValueError(f"cells must be one number or (nx, ny), got {cells!r}")
    across, up = (Axis.of(axis, whole("cells", size, 2)) for axis, size in zip((x, y), sizes, strict=True))
    problems = Problems.of(across, up, family, given, whole("group", group, 1), distribution)
    problems.require_memory(across, up, _BYTES)
    return across, up, problems


@dataclass(frozen=True, eq=False)
class Problems:
    """A family of problems over two axes.

    ``fixed`` holds every parameter that is no axis; ``base`` the kurtosis of an input that is never zero.
    """

    family: str | Family
    x: str
    y: str
    fixed: Mapping[str, float]
    base: float
    group: int
    distribution: str

    @classmethod
    def of(cls, x: Axis, y: Axis, family: Any, given: Mapping[str, Any], group: int, distribution: Any) -> Problems:
        """Check the parameters ``given`` (None where the user gave nothing) against the axes and complete them."""
        if not callable(family) and family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)} or a function, got {family!r}")
        if x.name == y.name:
            raise ValueError(f"the axes must differ, got {x.name!r} twice")
        names = (x.name, y.name)
        fixed = {name: _checked(name, value) for name, value in given.items() if value is not None}
        both = [name for name in names if name in fixed]
        if both:
            raise ValueError(f"{both[0]} is an axis and cannot be given as well")
        shape = None if callable(family) else SHAPE[family]
        if callable(family):
            _leave_to_function(fixed)
        else:
            _belong(family, [*names, *fixed])
        for name, value in DEFAULTS.items():
            wanted = name in {"dimensions", "bias"} or (not callable(family) and name in {"features", shape})
            if wanted and name not in names:
                fixed.setdefault(name, value)
        if group > 1 and family != "groups":
            raise ValueError(f"group belongs to the family 'groups', got {group}")
        if group > fixed.get("features", group):
            raise ValueError(f"group must be at most features, {fixed['features']:g}, got {group}")
        base, label = _base(distribution)
        return cls(family, x.name, y.name, fixed, base, group, label)

    def require_memory(self, x: Axis, y: Axis, each: float) -> None:
        """Refuse diagrams beyond the memory that there is, at so many bytes for each feature in each cell."""
        nx, ny = x.values.size, y.values.size
        axis = next((axis.values for axis in (x, y) if axis.name == "features"), None)
        n = self.fixed.get("features", 1.0) if axis is None else float(axis.max())  # a function says it later
        require_memory(f"cells: {nx} × {ny} of {n:.0f} features", nx * ny * (each * n + _OTHER_BYTES))

    def at(self, name: str, x: FloatArray, y: FloatArray) -> FloatArray | None:
        """Return a parameter at m points, shape (m,), or None where the family does not have it."""
        if name in {self.x, self.y}:
            return x if name == self.x else y
        return np.full(x.shape, self.fixed[name]) if name in self.fixed else None

    def needed(self, name: str, x: FloatArray, y: FloatArray) -> FloatArray:
        """Return a parameter that is there for certain."""
        found = self.at(name, x, y)
        if found is None:
            raise KeyError(name)
        return found

    def density(self, x: FloatArray, y: FloatArray) -> FloatArray | None:
        """Return the density at m points, None if the diagram is in terms of the kurtosis."""
        sparsity = self.at("sparsity", x, y)
        return self.at("density", x, y) if sparsity is None else 1.0 - sparsity

    def kurtosis(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Return the kurtosis at m points, of a family that is not a function."""
        density = self.density(x, y)
        return self.needed("kurtosis", x, y) if density is None else self.base / density

    def groups(self, x: FloatArray, y: FloatArray) -> Iterator[Group]:
        """Yield the problems at m points, those of one size together up to a bounded number; the largest come first."""
        bias, dimensions = self.needed("bias", x, y), self.needed("dimensions", x, y)
        if callable(self.family):
            rows = [_row(self.family, float(a), float(b), (self.x, self.y)) for a, b in zip(x, y, strict=True)]
            features = np.array([row[0].size for row in rows], dtype=float)
        else:
            features = self.needed("features", x, y)
        keys, which = np.unique(np.stack([features, bias]), axis=1, return_inverse=True)
        for i, (n, b) in reversed(list(enumerate(keys.T))):
            alike = np.flatnonzero(which.ravel() == i)
            for index in np.array_split(alike, -(-alike.size * int(n) // _NUMBERS)):
                if callable(self.family):
                    v = np.stack([rows[j][0] for j in index])
                    k = np.stack([rows[j][1] for j in index])
                else:
                    v = self._importance(int(n), self.needed(SHAPE[self.family], x, y)[index])
                    k = np.broadcast_to(self.kurtosis(x, y)[index, None], v.shape)
                yield Group(index, v, k, dimensions[index], bool(b))

    def _importance(self, n: int, parameter: FloatArray) -> FloatArray:
        """Return the importances of a named family, shape (m, n)."""
        place = np.arange(1.0, n + 1.0)
        if self.family == "groups":
            return np.where(place <= self.group, parameter[:, None], 1.0)
        exponent = -parameter[:, None] * (np.log(place) if self.family == "power-law" else place - 1.0)
        v: FloatArray = np.exp(exponent)
        return v

    def solve(self, x: FloatArray, y: FloatArray, tolerance: float) -> Answers:
        """Return the optima at m points, (m,) each."""
        price, loss, gap = np.empty((3, x.size))
        answers = Answers(np.empty((0, 0)), price, loss, gap, np.empty(x.size, dtype=np.bool_))
        for group in self.groups(x, y):
            batch = solve_batch(
                group.importance, group.kurtosis, group.dimensions, bias=group.bias, tolerance=tolerance
            )
            if not answers.capacities.size:  # the first ones have the most features
                answers = answers._replace(capacities=np.full((x.size, batch.features), np.nan))
            answers.capacities[group.which, : batch.features] = batch.capacity
            for name in ("price", "loss", "gap", "optimal"):
                getattr(answers, name)[group.which] = getattr(batch, name)
        return answers

    def describe(self) -> str:
        """Return what is the same everywhere in the diagram, for people."""
        known = self.fixed
        parts = []
        if callable(self.family):
            parts.append(f"family {getattr(self.family, '__name__', 'function')}")
        else:
            if self.family != "groups":
                parts.append(f"{self.family} importances")
            if "features" in known:
                parts.append(f"{known['features']:g} features")
            if self.group > 1:
                parts.append(f"{self.group} of them of another importance")
        if "dimensions" in known:
            parts.append(f"{known['dimensions']:g} dimension{'' if known['dimensions'] == 1.0 else 's'}")
        parts += [f"{name} {known[name]:g}" for name in (*INPUTS, *SHAPE.values()) if name in known]
        if not callable(self.family) and not ({"kurtosis"} & {*known, self.x, self.y}):
            parts.append(f"{self.distribution} inputs")
        if known.get("bias") == 0.0:
            parts.append("no bias")
        return ", ".join(parts)


def _leave_to_function(fixed: Mapping[str, float]) -> None:
    """Refuse parameters that a user's function decides."""
    for name in (*SHAPE.values(), *INPUTS, "features"):
        if name in fixed:
            raise ValueError(f"{name} cannot be given with a function as family: it returns importance and kurtosis")


def _belong(family: str, names: list[str]) -> None:
    """Check that a named family has parameters of these names, and that they say what the inputs are, once."""
    for name in names:
        if name not in KNOWN:
            raise ValueError(f"an axis must be one of {', '.join(KNOWN)}, got {name!r}")
        if name in SHAPE.values() and name != SHAPE[family]:
            owner = next(owner for owner, parameter in SHAPE.items() if parameter == name)
            raise ValueError(f"{name} belongs to the family {owner!r}, not to {family!r}")
    inputs = [name for name in INPUTS if name in names]
    if len(inputs) > 1:
        raise ValueError(f"{' and '.join(inputs)} say the same thing: give one of them")
    if not inputs:
        raise ValueError("give kurtosis, density or sparsity, as an axis or as a number")


def _row(family: Family, x: float, y: float, names: tuple[str, str]) -> tuple[FloatArray, FloatArray]:
    """Return importance and kurtosis at one point, from a user's function."""
    where = f"at {names[0]} = {x:g}, {names[1]} = {y:g}"
    found = family(x, y)
    if isinstance(found, Profile):
        return found.importance, found.kurtosis
    if not isinstance(found, tuple) or len(found) != 2:
        raise ValueError(f"family must return a Profile or (importance, kurtosis), got {type(found).__name__} {where}")
    try:
        return importance_and_kurtosis(*found)
    except ValueError as error:
        raise ValueError(f"family, {where}: {error}") from error


def _checked(name: str, value: Any) -> float:
    """Return a parameter as a number, if it is allowed."""
    low, high, _ = KNOWN[name]
    number = scalar(name, value)
    outside = (
        not low <= number <= high or (name == "density" and number == 0.0) or (name == "sparsity" and number == 1.0)
    )
    if outside or (name in WHOLE and not number.is_integer()):
        raise ValueError(f"{name} must be {allowed(name)}, got {number:g}")
    return number


def _base(distribution: Any) -> tuple[float, str]:
    """Return the kurtosis of a base distribution and what to call it."""
    base = float(Profile.from_distribution(distribution, importance=[1.0]).kurtosis[0])
    if isinstance(distribution, str):
        return base, distribution
    return base, getattr(getattr(distribution, "dist", None), "name", type(distribution).__name__)
