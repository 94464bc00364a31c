"""The finest partition of an embedding's features into mutually orthogonal blocks, and what each block looks like.

Two features are linked when neither is negligible and they are not orthogonal; blocks are the connected components of
that graph. The n × n graph is never formed. In most embeddings the links of a handful of rows prove that there is but
one component. Otherwise choose pivots, at most D rows that span all others. Rows linked to a pivot join its component,
and pivots that share a row join each other. Two components of this smaller graph span orthogonal subspaces, because the
span of each is that of its pivots and the pivots of one are orthogonal to those of the other; so no link between them
has been missed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from capsolve._arrays import to_numpy
from capsolve._checks import FloatArray, IndexArray, scalar
from capsolve._threads import one_blas_thread
from capsolve.geometry.second_moment import SecondMoment, floating, require_finite

_ENTRIES = 2**22  # numbers of W handled at a time
_FACTORED = 256  # rows of them whose span is found at a time
_FEW = 64  # dimensions of a block up to which a second thread costs more than it computes
_SOME = 16  # rows whose links are looked at first
_FINE = 64 * float(np.finfo(np.float32).eps)  # tolerances below this need float64 throughout


@dataclass(frozen=True, eq=False)
class Block:
    """A set of features that is orthogonal to every other feature and cannot be split further.

    Attributes
    ----------
    name : str
        ``"monosemantic"``: one feature in one dimension. ``"antipodal pair"``: two in one dimension, of equal length or
        not. ``"triangle"``, ``"tetrahedron"``, ``"pentagon"``, ``"square antiprism"`` and other regular arrangements
        of equal vectors: up to the sign of each row, which neither capacity nor the quadratic loss can see. ``"large
        block"``: any other tight frame. ``"not tight"``: W_Bᵀ W_B is not a multiple of a projection.
    features : ndarray of int, shape (k,)
        The rows of W, ascending.
    dimension : int
        The rank of W_B, up to directions in which it is shorter than the tolerance.
    scale : float
        τ, the mean of the nonzero eigenvalues of W_Bᵀ W_B, in W's units squared.
    residual : float
        The largest deviation of those eigenvalues from τ, relative to τ: 0 for a tight frame.
    capacity : ndarray, shape (k,)
        The capacities of the features; they sum to ``dimension`` just when the residual is 0.
    """

    name: str
    features: IndexArray
    dimension: int
    scale: float
    residual: float
    capacity: FloatArray


def blocks(W: Any, *, tolerance: float = 1e-5) -> tuple[Block, ...]:
    """Return the finest partition of an embedding's features into mutually orthogonal blocks.

    An efficient embedding, one whose capacities sum to D, is an orthogonal sum of tight frames (Scherlis et al.,
    arXiv 2210.01892): blocks with a ``residual`` of 0. In any other one the blocks are still the subspaces that do
    not interfere. Directions inside a block are not reported: where its spectrum is degenerate they mean nothing.

    Parameters
    ----------
    W : array_like, shape (n, D)
        One row per feature; of any library, brought into memory.
    tolerance : float
        A length, relative to the longest row, below which a component of a row is noise. With t = tolerance · max |w|,
        features i and j are linked when |w_i · w_j| > t · max(|w_i|, |w_j|), that is when the shorter of them reaches
        further than t along the other. Rows no longer than t are in no block. The same t decides the rank of a block
        and, through 2 t √(k/τ) for k features, whether a residual counts as 0.

    Returns
    -------
    tuple of Block
        Ordered by their first feature.

    Raises
    ------
    ValueError
        If W is not two-dimensional, is empty, has entries that are not finite real numbers, or if the tolerance is not
        in (0, 1).

    Notes
    -----
    Noise of length ε · max |w| in every row moves a vanishing |w_i · w_j| / max(|w_i|, |w_j|) to at most
    (2 + ε/tolerance) ε max |w|. So blocks that are exactly orthogonal stay apart while ε ≤ 0.4 · tolerance (if that is
    at most 0.1), and stay whole while their links exceed t by as much. Where rows are nearly parallel, and one leaves
    the span of the others by a length r, noise counts as one more dimension once ε · max |w|² / r exceeds t.

    O(nD²) time in matrix products, O(D²) memory beside W. Where W is float32 and one block takes everything, its scale
    and residual have the accuracy of float32, if the tolerance is no finer.

    Examples
    --------
    >>> from capsolve import construct_blocks
    >>> W = construct_blocks([([0, 3], [0.5, 0.5], 1.0), ([1], [1], 4.0), ([2, 4, 5], [2 / 3] * 3, 9.0)])
    >>> for block in blocks(W):
    ...     print(block.name, block.features, block.dimension, round(block.scale, 9))
    antipodal pair [0 3] 1 1.0
    monosemantic [1] 1 4.0
    triangle [2 4 5] 2 9.0
    """
    W = to_numpy(floating("W", W)[1])
    if W.ndim != 2:
        raise ValueError(f"W must have 2 dimensions, got shape {W.shape}")
    tolerance = scalar("tolerance", tolerance, low=0.0, high=1.0)
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be in (0, 1), got {tolerance!r}")
    if tolerance < _FINE:
        W = W.astype(np.float64, copy=False)
    moment = SecondMoment()
    moment.add(W)
    capacity = np.asarray(moment.capacities(W), dtype=np.float64)
    return find_blocks(W, tolerance, capacity, moment.spectrum)


def find_blocks(
    W: Any, tolerance: float, capacity: FloatArray, spectrum: Callable[[], FloatArray]
) -> tuple[Block, ...]:
    """Return the blocks of a NumPy array, as `blocks` does, given its capacities and the eigenvalues of WᵀW.

    Those are asked for where they help: largest first, with errors of a few roundoffs of W's type times the largest.
    """
    peak = np.maximum(W.max(axis=0), -W.min(axis=0))
    require_finite("W", np, peak)
    unit = float(peak.max())
    if unit == 0:
        return ()
    length = np.concatenate([np.sqrt(np.vecdot(rows, rows)) for rows in _batches(W, np.arange(len(W)), unit)])
    cut = tolerance * float(length.max())
    active = np.flatnonzero(length > cut)
    active = active[np.argsort(-length[active], kind="stable")]

    def block(features: IndexArray, eigenvalues: FloatArray) -> Block:
        return _describe(W, np.sort(features), eigenvalues, unit, cut, capacity[np.sort(features)])

    one = _one_component(W, active, unit, length, cut)
    if one:
        known = 1e-140 < unit < 1e140  # else squares are lost
        eigenvalues = spectrum()[::-1] / unit / unit if known else _spectrum(W, active, unit)
        # Were all rows within `cut` of a space of fewer dimensions, the least one would not be above this.
        rounding = eigenvalues.size * float(np.finfo(W.dtype).eps) * eigenvalues[-1]
        if eigenvalues[0] > active.size * cut**2 + rounding:
            return (block(active, eigenvalues),)
    pivots = _pivots(W, active, unit, cut)
    if one:
        return (block(active, _spectrum(W, active, unit, pivots)),)
    member, group = _components(W, active, pivots, unit, length, cut)
    sets = [(active[member == label], pivots[group == label]) for label in range(group.max() + 1)]
    found = [block(features, _spectrum(W, features, unit, own)) for features, own in sets if own.size > _FEW]
    with one_blas_thread():
        found += [block(features, _spectrum(W, features, unit, own)) for features, own in sets if own.size <= _FEW]
    return tuple(sorted(found, key=lambda block: int(block.features[0])))


def _one_component(W: Any, active: IndexArray, unit: float, length: FloatArray, cut: float) -> bool:
    """Return whether links with some of the rows, long and short ones, join all; False may mean that others would."""
    some = np.unique(active[np.linspace(0, active.size - 1, _SOME).astype(np.intp)])
    group = np.arange(some.size)
    for _, linked in _links(W, active, some, unit, length, cut):
        if not linked.any(axis=1).all():
            return False
        group = _joined(group, linked)
    return bool(group.max() == 0)


def _links(
    W: Any, active: IndexArray, chosen: IndexArray, unit: float, length: FloatArray, cut: float
) -> Iterator[tuple[FloatArray, npt.NDArray[np.bool_]]]:
    """Yield |w_i · w_j| / |w_j| of some rows i at a time and the chosen rows j, and whether they are linked."""
    P = W[chosen].astype(float) / unit / length[chosen, None]
    for index, rows in zip(_chunks(W, active), _batches(W, active, unit), strict=True):
        along = np.abs(rows @ P.T)
        yield along, along > cut * np.maximum(1.0, length[index, None] / length[chosen])


def _joined(group: IndexArray, linked: npt.NDArray[np.bool_]) -> IndexArray:
    """Return the groups of columns when those that share a row are joined."""
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.diff(group[order], prepend=-1))
    touched = sparse.csr_array(np.logical_or.reduceat(linked[:, order], first, axis=1))
    graph = sparse.block_array([[None, touched], [touched.T, None]])
    joined = sparse.csgraph.connected_components(graph, directed=False)[1][len(linked) :]
    together: IndexArray = np.unique(joined, return_inverse=True)[1][group]
    return together


def _pivots(W: Any, active: IndexArray, unit: float, cut: float) -> IndexArray:
    """Return rows, long ones first, such that every active row is within ``cut`` of their span."""
    D = W.shape[1]
    basis = np.zeros((D, 0))
    pivots: list[IndexArray] = []
    for index, rows in zip(_chunks(W, active, _FACTORED), _batches(W, active, unit, _FACTORED), strict=True):
        rest = rows - (rows @ basis) @ basis.T
        new = np.flatnonzero(np.linalg.norm(rest, axis=1) > cut)
        if not new.size:
            continue
        rest = rest[new]
        rest -= (rest @ basis) @ basis.T  # once more: what is short has lost digits
        # Where each row leaves the span of those before it, as in most cases, there is no need to reorder them.
        order = np.arange(min(new.size, D - basis.shape[1]))
        Q, R = np.linalg.qr(rest[order].T)
        if not (np.abs(np.diag(R)) > cut).all():
            with one_blas_thread():
                Q, R, order = linalg.qr(rest.T, mode="economic", pivoting=True)
        rank = np.count_nonzero(np.abs(np.diag(R)) > cut)
        basis = np.hstack([basis, Q[:, :rank]])
        pivots.append(index[new[order[:rank]]])
        if basis.shape[1] == D:
            break
    return np.concatenate(pivots)


def _components(
    W: Any, active: IndexArray, pivots: IndexArray, unit: float, length: FloatArray, cut: float
) -> tuple[IndexArray, IndexArray]:
    """Return the component of every active row and of every pivot, under links of rows with pivots."""
    group = np.arange(pivots.size)
    nearest = np.zeros(active.size, dtype=np.intp)
    place = 0
    for along, linked in _links(W, active, pivots, unit, length, cut):
        # A row joins the pivot that it leans on most, also in case no link is strong enough to join pivots.
        nearest[place : place + len(along)] = np.argmax(along, axis=1)
        place += len(along)
        group = _joined(group, linked)
        if group.max() == 0:
            break
    return group[nearest], group


def _spectrum(W: Any, features: IndexArray, unit: float, pivots: IndexArray | None = None) -> FloatArray:
    """Return the eigenvalues of Σ w wᵀ over the features, smallest first, in the span of the pivots or everywhere."""
    rank = D = W.shape[1]
    if pivots is not None and pivots.size < D:
        rank = pivots.size
        basis = np.linalg.qr((W[pivots].astype(float) / unit).T)[0]
    moment = np.zeros((rank, rank))
    for rows in _batches(W, features, unit):
        part = rows @ basis if rank < D else rows
        moment += part.T @ part
    spectrum: FloatArray = np.linalg.eigvalsh(moment)
    return spectrum


def _describe(
    W: Any, features: IndexArray, spectrum: FloatArray, unit: float, cut: float, capacity: FloatArray
) -> Block:
    rank = spectrum.size
    scale = float(spectrum.mean())
    residual = float(np.abs(spectrum - scale).max()) / scale
    noise = cut * np.sqrt(features.size / scale)
    if residual > 2 * noise + noise**2:
        name = "not tight"
    elif rank == 1:
        name = {1: "monosemantic", 2: "antipodal pair"}.get(features.size, "large block")
    else:
        name = polytope(W[features].astype(float) / unit, rank, cut) or "large block"
    return Block(name, features, rank, scale * unit * unit, residual, capacity)


def _chunks(W: Any, index: IndexArray, most: int = _ENTRIES) -> Iterator[IndexArray]:
    step = max(1, min(most, _ENTRIES // W.shape[1]))
    for start in range(0, index.size, step):
        yield index[start : start + step]


def _batches(W: Any, index: IndexArray, unit: float, most: int = _ENTRIES) -> Iterator[FloatArray]:
    """Yield the indexed rows in float64, in chunks of ``most`` rows at most, divided by ``unit``."""
    for chunk in _chunks(W, index, most):
        yield W[chunk].astype(float) / unit


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
