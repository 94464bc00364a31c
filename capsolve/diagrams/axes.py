"""The axes of a phase diagram: what is varied, between which values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from capsolve._checks import FloatArray, real_array, scalar

# Allowed values, and whether equal steps are equal ratios unless something else is asked for.
KNOWN: dict[str, tuple[float, float, bool]] = {
    "importance": (0.0, math.inf, True),
    "kurtosis": (1.0, math.inf, True),
    "density": (0.0, 1.0, True),
    "sparsity": (0.0, 1.0, False),
    "dimensions": (0.0, math.inf, False),
    "features": (1.0, math.inf, False),
    "exponent": (0.0, math.inf, False),
    "rate": (0.0, math.inf, False),
    "bias": (0.0, 1.0, False),
}
WHOLE = {"features", "bias"}


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a phase diagram.

    Attributes
    ----------
    name : str
        What is varied: a name that `capsolve.phase_diagram` knows, or one of the user's own.
    values : (m,) array, m ≥ 2
        Strictly monotone; the first belongs to the left or lower edge.
    logarithmic : bool
        Whether the axis is meant to be drawn on a logarithmic scale.
    """

    name: str
    values: FloatArray
    logarithmic: bool = False

    def __init__(self, name: str, values: Any, logarithmic: bool | None = None) -> None:
        if not isinstance(name, str):
            raise ValueError(f"an axis has a name, got {name!r}")  # noqa: TRY004
        numbers = np.array(real_array(f"values of the axis {name!r}", np.asarray(values) + 0.0, ndim=1))
        steps = np.diff(numbers)
        if numbers.size < 2 or not ((steps > 0).all() or (steps < 0).all()):
            raise ValueError(f"the axis {name!r} needs at least 2 values that increase or decrease strictly")
        if name in KNOWN:
            low, high, _ = KNOWN[name]
            inside = (numbers >= low) & (numbers <= high)
            inside &= numbers > 0.0 if name == "density" else numbers < 1.0 if name == "sparsity" else True
            inside &= numbers == np.round(numbers) if name in WHOLE else True
            if not inside.all():
                i = int(np.argmin(inside))
                raise ValueError(f"{name} must be {allowed(name)}, got {numbers[i]:g} at index {i} of its axis")
        if logarithmic is None:
            ratios = numbers[1:] / numbers[:-1] if numbers.min() > 0.0 else np.empty(0)
            logarithmic = ratios.size > 0 and KNOWN.get(name, (0, 0, True))[2]
        if logarithmic and not numbers.min() > 0.0:
            raise ValueError(f"a logarithmic axis has values > 0, got {numbers.min():g} for {name!r}")
        numbers.setflags(write=False)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "values", numbers)
        object.__setattr__(self, "logarithmic", bool(logarithmic))

    @classmethod
    def of(cls, given: Any, cells: int) -> Axis:
        """Return an axis from what a user gives: see `capsolve.phase_diagram`."""
        if isinstance(given, Axis):
            return given
        if not isinstance(given, tuple | list) or not 2 <= len(given) <= 4 or not isinstance(given[0], str):
            raise ValueError(
                f"an axis is (name, low, high), (name, low, high, 'log' or 'linear') or (name, values), got {given!r}"
            )
        name = given[0]
        if len(given) == 2:
            return cls(name, given[1])
        start, end = (scalar(f"the end of the axis {name!r}", value) for value in given[1:3])
        scale = given[3] if len(given) == 4 else None
        if scale not in {None, "log", "linear"}:
            raise ValueError(f"the scale of the axis {name!r} must be 'log' or 'linear', got {scale!r}")
        if start == end:
            raise ValueError(f"the axis {name!r} must end elsewhere than it begins, got {start:g} twice")
        positive = min(start, end) > 0.0
        logarithmic = positive and KNOWN.get(name, (0, 0, False))[2] if scale is None else scale == "log"
        if logarithmic and not positive:
            raise ValueError(f"a logarithmic axis goes between numbers > 0, got {start:g} to {end:g} for {name!r}")
        values = np.geomspace(start, end, cells) if logarithmic else np.linspace(start, end, cells)
        if name in WHOLE:
            values = np.round(values)
            values = values[np.concatenate([[True], np.diff(values) != 0.0])]
        return cls(name, values, logarithmic)

    def position(self, values: Any) -> Any:
        """Return where values lie along the axis: themselves, or their logarithms."""
        return np.log(values) if self.logarithmic else np.asarray(values, dtype=float)

    def value(self, position: Any) -> Any:
        """Return the values at positions between the ends of the axis, which rounding does not leave."""
        values = np.exp(position) if self.logarithmic else np.asarray(position, dtype=float)
        return np.clip(values, self.values.min(), self.values.max())

    def __repr__(self) -> str:
        scale = "logarithmic" if self.logarithmic else "linear"
        return f"Axis({self.name}, {self.values.size} values from {self.values[0]:g} to {self.values[-1]:g}, {scale})"


def allowed(name: str) -> str:
    """Say which values a known parameter may have."""
    low, high, _ = KNOWN[name]
    if name == "bias":
        return "True or False"
    if name in {"density", "sparsity"}:
        return "in (0, 1]" if name == "density" else "in [0, 1)"
    return f"{'an integer ' if name in WHOLE else ''}>= {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"


def stored_axes(x: Axis, y: Axis) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """Return two axes as facts and arrays of an archive."""
    named = [{"name": axis.name, "logarithmic": axis.logarithmic} for axis in (x, y)]
    return {"axes": named}, {"x": x.values, "y": y.values}


def restored_axes(facts: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple[Axis, Axis]:
    """Return what `stored_axes` took apart."""
    x, y = (Axis(a["name"], arrays[key], a["logarithmic"]) for a, key in zip(facts["axes"], "xy", strict=True))
    return x, y
