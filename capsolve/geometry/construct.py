"""Embeddings that realise given capacities exactly: orthogonal axes and tight frames.

A tight frame with prescribed row lengths exists whenever C_i lie in [0, 1] and sum to an integer d (Schur–Horn), and
plane rotations lead to it from d unit rows and n − d zero rows, each of them giving one row its final length (Dhillon,
Heath, Sustik & Tropp, "Generalized finite algorithms for constructing Hermitian matrices with prescribed diagonals and
spectra", SIAM J. Matrix Anal. Appl. 27, 2005). Here one row is carried along. Picture the capacities end to end on
the line from 0 to d, where every unit interval is one orthonormal direction brought into play:

* a feature inside an interval takes its length from the carried row and points along it;
* a feature across an integer mixes the carried row with the next new direction, and so does what is carried on.

So there are d steps, not n, and the work is that of writing n × d numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from capsolve._checks import FloatArray, at_least, real_array, scalar

_TOLERANCE = 1e-9  # how far ΣC may be from an integer, and |w_i|²/C_i from one scale, relatively
_TURN = 2.0**64


def construct_embedding(
    capacity: Any,
    squared_norm: Any = None,
    scale: Any = None,
    *,
    dimensions: int | None = None,
    rng: Any = None,
    rotate: bool = False,
) -> FloatArray:
    """Return an embedding W whose features have the given capacities, to rounding error.

    A feature with C = 1 has an axis of its own, one with C = 0 a zero row, and those between form one tight frame: in
    its own subspace of d = Σ C dimensions their WᵀW is τ times the identity, and |w_i|² = C_i τ. WᵀW is thus diagonal,
    every row is an eigenvector of it, and the efficiency is 1 when the capacities fill the dimensions. The frame cannot
    be split into orthogonal parts. Many other embeddings have the same capacities and loss; this is one of them.

    Parameters
    ----------
    capacity : array_like, shape (n,)
        C_i in [0, 1], with an integer sum. A remainder up to 1e-9·max(1, ΣC) is spread over the features with
        0 < C < 1, in proportion to C(1 − C).
    squared_norm : array_like, shape (n,), optional
        |w_i|². Positive where C is; free where C = 1; equal to C_i times one scale τ where 0 < C < 1, to 1e-9.
    scale : float, optional
        τ > 0, in place of ``squared_norm``: |w_i|² = C_i τ for all features.
    dimensions : int, optional
        D, the number of columns: at least ΣC, and ΣC when not given.
    rng : numpy.random.Generator or seed, optional
        The source of the rotation; without ``rotate`` nothing is drawn.
    rotate : bool
        Rotate the D dimensions by a random orthogonal matrix (Haar measure): the axes then mean nothing.

    Returns
    -------
    ndarray, shape (n, D)

    Raises
    ------
    ValueError
        If ΣC is no integer or exceeds ``dimensions``, if both or neither of ``squared_norm`` and ``scale`` are given,
        or if the squared norms do not fit the capacities.

    Notes
    -----
    O(nD) work and no n × n matrix; the rotation costs O(nD²). For the features of an optimal allocation |w_i|²/C_i is
    one number (Scherlis et al., arXiv 2210.01892, eqs. 15-18), so every optimum with an integer budget is realised.

    Examples
    --------
    >>> from capsolve import capacities
    >>> W = construct_embedding([1, 0.75, 0.75, 0.5, 0], scale=2.0)
    >>> W.shape
    (5, 3)
    >>> capacities(W).round(12)
    array([1.  , 0.75, 0.75, 0.5 , 0.  ])
    >>> bool(abs(W.T @ W - 2.0 * np.eye(3)).max() < 1e-15)
    True
    """
    C = _capacity(capacity)
    if (squared_norm is None) == (scale is None):
        raise ValueError("give exactly one of squared_norm and scale")
    squared = C * _scale(scale) if squared_norm is None else real_array("squared_norm", squared_norm, ndim=1)
    if squared.shape != C.shape:
        raise ValueError(f"squared_norm must have one entry per capacity: {C.size}, got {squared.size}")
    wrong = np.flatnonzero((squared > 0) != (C > 0))
    if wrong.size:
        i = int(wrong[0])
        raise ValueError(
            f"squared_norm must be > 0 where capacity is, and 0 elsewhere, got {squared[i]} at index {i} "
            f"for capacity {C[i]}"
        )
    shared = (C > 0) & (C < 1)
    if shared.any():
        ratio = squared[shared] / C[shared]
        tau = squared[shared].sum() / C[shared].sum()
        worst = int(np.argmax(np.abs(ratio - tau)))
        if abs(ratio[worst] - tau) > _TOLERANCE * tau:
            i = int(np.flatnonzero(shared)[worst])
            raise ValueError(
                f"squared_norm / capacity must be the same for all features with 0 < capacity < 1, got "
                f"{ratio[worst]} at index {i} where the mean is {tau}"
            )
    W = np.zeros((C.size, _columns(_whole(C, "capacity"), dimensions)))
    _place(W, np.arange(C.size), 0, C, squared)
    return _rotated(W, rng) if rotate else W


def construct_blocks(
    blocks: Iterable[tuple[Any, Any, Any]],
    *,
    features: int | None = None,
    dimensions: int | None = None,
    rng: Any = None,
    rotate: bool = False,
) -> FloatArray:
    """Return an embedding made of the given tight frames, on mutually orthogonal subspaces.

    This is the general efficient embedding: block B has W_Bᵀ W_B = τ_B times a projection of rank d_B = Σ_B C_i.

    Parameters
    ----------
    blocks : iterable of (features, capacity, scale)
        For each block the indices of its features, their capacities with an integer sum, and its scale τ_B > 0. No
        feature may be in two blocks; one that is in none has a zero row.
    features : int, optional
        n, the number of rows: one more than the largest index when not given.
    dimensions, rng, rotate
        As for `construct_embedding`; the errors are its too.

    Examples
    --------
    >>> W = construct_blocks([([0, 3], [0.5, 0.5], 1.0), ([1, 2, 4], [2 / 3] * 3, 9.0)])
    >>> W.shape
    (5, 3)
    >>> (W.T @ W).round(12) + 0.0
    array([[1., 0., 0.],
           [0., 9., 0.],
           [0., 0., 9.]])
    """
    parts: list[tuple[Any, FloatArray, FloatArray, int]] = []
    for k, (index, capacity, scale) in enumerate(blocks):
        C = _capacity(capacity)
        rows = np.asarray(index)
        if rows.shape != C.shape or rows.dtype.kind not in "iu" or (rows < 0).any():
            raise ValueError(f"block {k} needs one feature index >= 0 per capacity, got {C.size} capacities")
        parts.append((rows, C, C * _scale(scale), _whole(C, f"the capacity of block {k}")))
    every = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, dtype=int)
    named, count = np.unique(every, return_counts=True)
    if (count > 1).any():
        raise ValueError(f"feature {named[count > 1][0]} is in more than one block")
    least = int(named[-1]) + 1 if named.size else 0
    rows_needed = least if features is None else int(scalar("features", features, low=least))
    W = np.zeros((rows_needed, _columns(sum(part[3] for part in parts), dimensions)))
    axis = 0
    for rows, C, squared, rank in parts:
        _place(W, rows, axis, C, squared)
        axis += rank
    return _rotated(W, rng) if rotate else W


def _place(W: FloatArray, rows: Any, axis: int, C: FloatArray, squared: FloatArray) -> None:
    """Write the rows of an embedding of rank ΣC into W, from column ``axis`` on."""
    rounding = C.size * np.finfo(float).eps
    alone = rounding >= 1 - C  # a sum of n capacities cannot tell C from 1 there, and `_write_frame` relies on that
    shared = np.flatnonzero((C > 0) & ~alone)
    rank = round(math.fsum(C[shared]))
    if rank == shared.size:  # if not empty, the shared features are within the tolerance of capacity 1
        alone[shared] = True
    width = np.count_nonzero(alone)
    W[rows[alone], axis + np.arange(width)] = np.sqrt(squared[alone])
    if 0 < rank < shared.size:  # at rank 0 they are within the tolerance of 0
        tau = squared[shared].sum() / C[shared].sum()
        _write_frame(W[:, axis + width : axis + width + rank], rows[shared], _to_whole(C[shared]), tau)


def _to_whole(C: FloatArray) -> FloatArray:
    """Spread what ΣC lacks to an integer over features with 0 < C < 1, so that all of them stay in between."""
    weight = C * (1 - C)
    remainder = float(_fixed(C).sum().astype(np.int64)) / _TURN
    moved: FloatArray = C - remainder * (weight / weight.sum())
    return np.clip(moved, np.finfo(float).tiny, 1 - np.finfo(float).epsneg)


def _write_frame(out: FloatArray, rows: Any, C: FloatArray, tau: float) -> None:
    """Write √τ F into ``out[rows]``: FᵀF = 1 and |f_i|² = C_i, with 0 < C_i < 1 and ΣC the number of columns."""
    order = np.argsort(-C, kind="stable")
    part = _fixed(C[order])
    slack = np.uint64(C.size << 11)  # n ulp(1/2): what rounding may have done to a sum of n capacities
    end = np.cumsum(part)  # the place of each feature's end inside its unit interval, as sums modulo 1
    end[end + slack <= 2 * slack] = 0
    filled = _filled(end)[: out.shape[1]]
    last = filled[-1]  # what comes after it is shorter than rounding
    # Where an earlier feature ends on an integer, those up to it fill their dimensions and the frame would fall apart.
    # Let it and the next one change places; if they are equal, turn the two rows into each other when all is done.
    # No two of these are neighbours, since no capacity is within 2 slack of 1.
    whole = filled[:-1][end[filled[:-1]] == 0]
    differ = part[whole] - part[whole + 1] > slack
    one, two = whole[differ], whole[differ] + 1
    end[one] -= part[one] - part[two]
    order[one], order[two], part[one], part[two] = order[two], order[one], part[two], part[one]
    index = rows[order]
    length = np.sqrt(tau * C[order])
    left, over, lacking = -_start(end) / _TURN, end / _TURN, -part / _TURN  # exact up to here
    carried = np.zeros(out.shape[1])
    carried[0] = 1.0
    done = 0
    for k, i in enumerate(_filled(end)[: out.shape[1]]):
        stop = C.size if i == last else i + int(end[i] == 0)
        out[index[done:stop], : k + 1] = length[done:stop, None] * carried[: k + 1]
        done = i + 1
        if i == last:
            break
        if end[i] == 0:
            carried[: k + 1] = 0.0
            carried[k + 1] = 1.0
            continue
        # Rotate the carried row, of squared length `left`, and the next unit row by the angle that gives one of them
        # the squared length C_i = cos² · left + sin².
        total = lacking[i] + over[i]
        cos, sin = math.sqrt(lacking[i] / total), math.sqrt(over[i] / total)
        mixed = np.append(cos * math.sqrt(left[i]) * carried[: k + 1], sin)
        out[index[i], : k + 2] = mixed * (length[i] / np.linalg.norm(mixed))
        carried[: k + 1] *= -sin * math.sqrt(left[i])
        carried[k + 1] = cos
        carried[: k + 2] /= np.linalg.norm(carried[: k + 2])
    for i in whole[~differ]:
        one, two = out[index[i]], out[index[i + 1]]
        out[index[i]], out[index[i + 1]] = (one + two) * math.sqrt(0.5), (one - two) * math.sqrt(0.5)


def _fixed(C: FloatArray) -> Any:
    """Return C in units of 2⁻⁶⁴, as integers that add up modulo 1 without rounding."""
    return (C * _TURN).astype(np.uint64)


def _start(end: Any) -> Any:
    """Return where each feature starts, given where each one ends."""
    return np.concatenate([np.zeros(1, np.uint64), end[:-1]])


def _filled(end: Any) -> Any:
    """Return the features that end on or reach across an integer."""
    return np.flatnonzero((end == 0) | (end < _start(end)))


def _capacity(value: Any) -> FloatArray:
    C = real_array("capacity", value, ndim=1)
    at_least("capacity", C, 0.0)
    if (C > 1).any():
        i = int(np.argmax(C > 1))
        raise ValueError(f"capacity must be in [0, 1], got {C[i]} at index {i}")
    return C


def _scale(value: Any) -> float:
    scale = scalar("scale", value, low=0.0)
    if scale == 0:
        raise ValueError("scale must be > 0, got 0.0")
    return scale


def _whole(C: FloatArray, name: str) -> int:
    """Return ΣC as an integer."""
    total = math.fsum(C)
    if abs(total - round(total)) > _TOLERANCE * max(1.0, total):
        raise ValueError(f"{name} must sum to an integer for an embedding to have it, got {total!r}")
    return round(total)


def _columns(rank: int, dimensions: int | None) -> int:
    if dimensions is None:
        return rank
    number = scalar("dimensions", dimensions)
    if number != int(number) or number < rank:
        raise ValueError(f"dimensions must be an integer >= the sum of capacities, {rank}, got {dimensions}")
    return int(number)


def _rotated(W: FloatArray, rng: Any) -> FloatArray:
    """Return W Q for a random orthogonal Q: the Q of a Gaussian matrix, with signs that make it Haar."""
    draws = np.random.default_rng(rng).standard_normal((W.shape[1], W.shape[1]))
    Q, R = np.linalg.qr(draws)
    return np.asarray(W @ (Q * np.where(np.diag(R) < 0, -1.0, 1.0)))
