"""The names of regular arrangements of vectors, up to rotation, scale and the sign of each vector."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np

from capsolve._checks import FloatArray


def polytope(rows: FloatArray, rank: int, noise: float) -> str | None:
    """Return the name of the arrangement of ``rows``, each of them known to within ``noise``; None if it has none.

    An arrangement is known by the |cosine| of each vector with every other one, sorted; in those named here all vectors
    have equal length and see the same cosines.
    """
    count = len(rows)
    candidates = [(name, seen) for name, shape, seen in _catalogue() if shape == (count, rank)]
    if count == rank + 1 > 4:
        candidates.append(("simplex", np.full(rank, 1 / rank)))
    length = np.linalg.norm(rows, axis=1)
    if not candidates or np.ptp(length) > 2 * noise:
        return None
    unit = rows / length[:, None]
    seen = np.sort(np.abs(unit @ unit.T), axis=1)[:, :-1]
    for name, expected in candidates:
        if np.abs(seen - expected).max() <= 4 * noise / length.min():
            return name
    return None


@cache
def _catalogue() -> list[tuple[str, tuple[int, int], FloatArray]]:
    """Return (name, (vertices, dimensions), sorted |cosines| of one vertex with the others)."""
    golden = (1 + np.sqrt(5)) / 2
    signs = np.array(list(itertools.product([1.0, -1.0], repeat=3)))
    flat = np.array([(0.0, s, t * golden) for s in (1, -1) for t in (1, -1)])
    icosahedron = np.concatenate([np.roll(flat, k, axis=1) for k in range(3)])
    edges = np.array([(0.0, s, t) for s in (1, -1) for t in (1, -1)])
    dodecahedron = np.concatenate([signs] + [np.roll(flat * [0, 1 / golden, 1], k, axis=1) for k in range(3)])
    antiprism = np.concatenate([_ring(4, 0.5, np.sqrt(0.5)), _ring(4, 0.0, -np.sqrt(0.5))])
    names = {
        "triangle": _ring(3),
        "pentagon": _ring(5),
        "hexagon": _ring(6),
        "heptagon": _ring(7),
        "octagon": _ring(8),
        "tetrahedron": signs[signs.prod(axis=1) > 0],
        "square antiprism": antiprism,
        "cube": signs,
        "icosahedron": icosahedron,
        "icosahedron's diagonals": icosahedron[icosahedron @ [1, golden, golden**2] > 0],
        "cuboctahedron": np.concatenate([np.roll(edges, k, axis=1) for k in range(3)]),
        "dodecahedron": dodecahedron,
    }
    known = []
    for name, vertices in names.items():
        unit = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
        known.append((name, vertices.shape, np.sort(np.abs(unit[0] @ unit[1:].T))))
    return known


def _ring(count: int, turn: float = 0.0, height: float | None = None) -> FloatArray:
    angle = 2 * np.pi * (np.arange(count) + turn) / count
    columns = [np.cos(angle), np.sin(angle)]
    return np.column_stack(columns if height is None else [*columns, np.full(count, height)])
