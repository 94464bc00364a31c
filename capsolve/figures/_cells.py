"""Capacities that fill an area, one cell for each pair of values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from capsolve._checks import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

MAP = "viridis"  # even in lightness, so that it reads in grey, and for the colour-blind


def draw_cells(
    ax: Axes, x: FloatArray, y: FloatArray, capacity: FloatArray, *, logarithmic: tuple[bool, bool]
) -> QuadMesh:
    """Draw ``capacity`` (ny, nx) as cells around the values; axes begin with the first value and end with the last."""
    across, up = edges("x", x, logarithmic[0]), edges("y", y, logarithmic[1])
    picture = ax.pcolormesh(across, up, capacity, vmin=0.0, vmax=1.0, cmap=MAP, rasterized=True)
    if logarithmic[0]:
        ax.set_xscale("log")
    if logarithmic[1]:
        ax.set_yscale("log")
    # half of an outer cell would lie beyond what was asked for: beyond density 1, for example
    ax.set_xlim(*(across if x.size == 1 else x)[[0, -1]])
    ax.set_ylim(*(up if y.size == 1 else y)[[0, -1]])
    return picture


def edges(name: str, centres: FloatArray, logarithmic: bool) -> FloatArray:
    """Return where the cells around strictly monotone ``centres`` begin and end: halfway to their neighbours."""
    steps = np.diff(centres)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"{name} must increase or decrease strictly")
    if logarithmic and not centres.min() > 0.0:
        raise ValueError(f"{name} must be > 0 on a logarithmic axis, got {centres.min():g}")
    if centres.size == 1:
        return np.array([0.5, 1.5]) * centres[0] if centres[0] > 0.0 else np.array([0.0, 1.0])
    at = np.log(centres) if logarithmic else centres
    middle = 0.5 * (at[1:] + at[:-1])
    borders = np.concatenate([[1.5 * at[0] - 0.5 * at[1]], middle, [1.5 * at[-1] - 0.5 * at[-2]]])
    return np.exp(borders) if logarithmic else borders
