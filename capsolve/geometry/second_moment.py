"""M = WᵀW from blocks of rows, and the capacities that follow from it: one implementation for arrays and streams.

The capacity of a row w is |w|⁴ / (wᵀMw): its own part of M over all of M in its direction. Two scalings keep this
from over- or underflowing and change nothing else. M is held in units of each column's largest entry, and each row
is divided by its own largest entry before it meets M. Rows of length 1e-200 and 1e200 may stand side by side.

Embeddings larger than memory come as Dask arrays: two passes over chunks of rows, and nothing is kept in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol, Self

import array_api_compat as api
import numpy as np

from capsolve._arrays import constant, dense, to_numpy
from capsolve._arrays import floating as as_floating
from capsolve._checks import FloatArray, refuse_masked

# Entries of W handled at a time. Adding a block costs an addition to M, so those blocks are the larger ones; not so
# large, though, that each would be given fresh memory, which costs more than to write to it.
_ADD = 2**23
_MEASURE = 2**21
# Summaries that are merged at a time; the tree is always the same, and so are its rounding errors.
_ARITY = 8


def floating(name: str, W: Any) -> tuple[Any, Any]:
    """Return ``(namespace, W)`` with W as at least float32, on its own device; ``ValueError`` if W cannot be."""
    refuse_masked(name, W)
    W = dense(W, name)
    if not api.is_array_api_obj(W):
        try:
            W = to_numpy(W)
        except ValueError as error:
            raise ValueError(f"{name} must be a rectangular array of real numbers: {error}") from None
    xp = api.array_namespace(W)
    if W.ndim < 2:
        raise ValueError(f"{name} must have a feature and a dimension axis, got shape {tuple(W.shape)}")
    if 0 in W.shape:
        raise ValueError(f"{name} must not be empty, got shape {tuple(W.shape)}")
    return xp, as_floating(name, W)


def require_finite(name: str, xp: Any, array: Any) -> None:
    """Raise a `ValueError` if ``array`` has a NaN or an infinity in it."""
    if not bool(xp.all(xp.isfinite(array))):
        raise ValueError(f"{name} must be finite, got a NaN or an infinity")


class SecondMoment:
    """The second-moment matrix of an embedding, accumulated from blocks of its rows.

    `add` every block (..., rows, D) once; then `capacities` and `interference` answer for any of them. Memory is
    O(D²) beyond the block. Products are formed in the rows' own precision, at least float32; the sum over blocks is
    float64 for NumPy arrays.

    Examples
    --------
    >>> import numpy as np
    >>> moment = SecondMoment()
    >>> moment.add(np.array([[3.0, 0.0]]))
    >>> moment.add(np.array([[0.0, 1.0], [0.0, -1.0]]))
    >>> moment.capacities(np.array([[3.0, 0.0], [0.0, 1.0]]))
    array([1. , 0.5])
    """

    def __init__(self) -> None:
        self._moment: Any = None  # WᵀW with row and column k in units of scale k
        self._scale: Any = None  # (..., D), the largest |entry| of each column so far

    def add(self, rows: Any) -> None:
        """Add the rows' outer products. Raises `ValueError` for a NaN, an infinity or another number of dimensions."""
        xp, rows = floating("W", rows)
        if self._scale is not None and self._scale.shape[-1] != rows.shape[-1]:
            raise ValueError(
                f"W must have the same number of dimensions in every block, got {rows.shape[-1]} "
                f"after {self._scale.shape[-1]}"
            )
        peak = _largest(xp, rows, axis=-2)
        require_finite("W", xp, peak)
        if self._scale is not None:
            peak = xp.maximum(self._scale, peak)
            self._moment = self._in_units(xp, peak)
        self._scale = peak
        unit = or_one(xp, peak)[..., None, :]
        for block in row_blocks(rows, _ADD):
            self._add(xp, block / unit)

    def merge(self, other: SecondMoment) -> None:
        """Add the rows that ``other`` was given."""
        if other._scale is None:
            return
        if self._scale is None:
            self._scale, self._moment = other._scale, other._moment
            return
        xp = api.array_namespace(self._scale)
        scale = xp.maximum(self._scale, other._scale)
        self._moment = self._in_units(xp, scale) + other._in_units(xp, scale)
        self._scale = scale

    def _add(self, xp: Any, unit: Any) -> None:
        product = xp.matrix_transpose(unit) @ unit
        if self._moment is not None:
            self._moment += product
        else:
            self._moment = product.astype(np.float64, copy=False) if api.is_numpy_array(product) else product

    def _in_units(self, xp: Any, scale: Any) -> Any:
        shrink = self._scale / or_one(xp, scale)
        moment = self._moment * shrink[..., :, None]
        moment *= shrink[..., None, :]
        return moment

    def capacities(self, rows: Any) -> Any:
        """Return the capacity of each of ``rows`` (..., n, D), shape (..., n); 0 for a zero row."""
        xp, parts = self._parts(rows)
        return xp.concat([own / or_one(xp, total) for own, total, _ in parts], axis=-1)

    def interference(self, rows: Any) -> Any:
        """Return Σ_j (ŵ·w_j)² over the other rows j, for each of ``rows``: shape (..., n), 0 for a zero row."""
        xp, parts = self._parts(rows)
        with np.errstate(over="ignore"):  # infinite where the true number overflows
            return xp.concat([unit * (total - own) * unit for own, total, unit in parts], axis=-1)

    def spectrum(self) -> FloatArray:
        """Return the D eigenvalues of M, largest first; for blocks that were two-dimensional NumPy arrays."""
        moment, peak = self._in_one_unit()
        eigenvalues: FloatArray = np.maximum(np.linalg.eigvalsh(moment)[::-1], 0.0)
        with np.errstate(over="ignore"):
            return eigenvalues * peak * peak

    def rank(self, blocks: Iterable[FloatArray], eps: float) -> int:
        """Return the number of W's singular values σ above D·eps of the largest, eps being M's relative error.

        M has their squares, and where those are small, only its errors. So ``blocks``, the rows that were added,
        two-dimensional NumPy arrays, are projected on the directions that M shows to be weak, and factored in float64.
        An error of c·eps in M leaves c·eps·σ_max²/σ of a strong direction in the weak ones. For c up to 8 that does not
        count if all directions with σ/σ_max up to 8/D are taken for weak.
        """
        moment, peak = self._in_one_unit()
        eigenvalues, directions = np.linalg.eigh(moment)
        D, largest = len(eigenvalues), max(float(eigenvalues[-1]), 0.0)
        weak = directions[:, eigenvalues <= max(D * eps, (8.0 / D) ** 2) * largest]
        if not weak.size:
            return D
        factor: Any = np.empty((0, weak.shape[1]))
        for block in blocks:
            for rows in row_blocks(block, _ADD):
                factor = np.linalg.qr(np.concatenate([factor, (rows.astype(np.float64) / peak) @ weak]), mode="r")
        singular = np.linalg.svd(factor, compute_uv=False)
        return D - int(weak.shape[1]) + int(np.count_nonzero(singular > D * eps * math.sqrt(largest)))

    def _in_one_unit(self) -> tuple[FloatArray, float]:
        """Return M over the square of W's largest entry, and that entry, or 1."""
        peak = float(self._scale.max()) or 1.0
        unit = np.asarray(self._scale / peak, dtype=np.float64)
        moment: FloatArray = self._moment * np.outer(unit, unit)
        return moment, peak

    def _parts(self, rows: Any) -> tuple[Any, list[tuple[Any, Any, Any]]]:
        """Return, per block, (own, total, unit): |w|⁴ and wᵀMw in one unit, and √ of that unit over |w|²."""
        if self._scale is None:
            raise ValueError("add the rows of W before asking for their capacities")
        xp, rows = floating("W", rows)
        moment = xp.astype(self._moment, rows.dtype)
        return xp, [_measure(xp, block, self._scale, moment) for block in row_blocks(rows, _MEASURE)]


def _measure(xp: Any, rows: Any, scale: Any, moment: Any) -> tuple[Any, Any, Any]:
    peak = _largest(xp, rows)
    require_finite("W", xp, peak)
    unit = rows / or_one(xp, peak)[..., None]
    square = xp.vecdot(unit, unit, axis=-1)
    if getattr(unit, "requires_grad", False):
        unit = unit * scale[..., None, :]
    else:
        unit *= scale[..., None, :]  # in place where arrays allow it: each pass through memory counts
    reach = _largest(xp, unit)
    unit /= or_one(xp, reach)[..., None]
    total = xp.vecdot(unit @ moment, unit, axis=-1)
    own = (peak / or_one(xp, reach) * square) ** 2
    # A row is part of M, so own <= total but for rounding.
    return own, xp.maximum(total, own), reach / xp.sqrt(or_one(xp, square))


def _largest(xp: Any, rows: Any, axis: int = -1) -> Any:
    """Return the largest absolute entry of each row, or column; NaN if there is one.

    To PyTorch's derivatives it is a constant: it scales what is computed and cancels in every answer.
    """
    rows = constant(rows)
    return xp.maximum(xp.max(rows, axis=axis), -xp.min(rows, axis=axis))


def or_one(xp: Any, array: Any) -> Any:
    """Replace zeros by ones, to divide by."""
    return xp.where(array > 0, array, xp.ones_like(array))


class Summary(Protocol):
    """What a first pass over the rows of an embedding leaves: of a size that does not grow with their number."""

    def add(self, rows: Any) -> None:
        """Take in a block of rows."""
        ...

    def merge(self, other: Self) -> None:
        """Take in the rows that ``other`` was given."""
        ...


def row_blocks(W: Any, entries: int) -> list[Any]:
    """Cut W (..., n, D) along its rows into blocks of about ``entries`` numbers."""
    rows = W.shape[-2]
    step = max(1, entries * rows // max(1, math.prod(W.shape)))
    return [W[..., start : min(start + step, rows), :] for start in range(0, rows, step)]


def summarise_and_answer(W: Any, summary: type[Summary], answer: Callable[[Any, Any], Any], dtype: Any) -> Any:
    """Return ``answer(summary of all rows, rows)`` for a W of any kind, shape (..., n).

    A Dask array is answered lazily and chunk by chunk. A chunk that both passes need would stay in memory all the while
    in between; so the second pass loads it again, and does not begin before the first has ended.
    """
    if not api.is_dask_array(W):
        whole = summary()
        whole.add(W)
        return answer(whole, W)
    import dask.array  # noqa: PLC0415
    from dask.delayed import delayed  # noqa: PLC0415
    from dask.graph_manipulation import bind  # noqa: PLC0415

    map_blocks: Any = dask.array.map_blocks
    lazy: Any = W
    if any(math.isnan(length) for length in lazy.shape):
        raise ValueError(f"W must have chunks of known sizes, got shape {lazy.shape}; see its compute_chunk_sizes()")
    lazy = lazy.rechunk({axis: -1 for axis in range(lazy.ndim) if axis != lazy.ndim - 2})
    parts = [delayed(_summarised)(summary, block) for block in lazy.to_delayed().ravel()]
    while len(parts) > 1:
        parts = [delayed(_merged)(parts[start : start + _ARITY]) for start in range(0, len(parts), _ARITY)]
    meta = api.array_namespace(lazy._meta).zeros((0,) * (lazy.ndim - 1), dtype=dtype)
    again = bind(lazy, parts[0])
    return map_blocks(
        _answered, again, summary=parts[0], answer=answer, dtype=dtype, meta=meta, drop_axis=lazy.ndim - 1
    )


def _summarised(summary: type[Summary], rows: Any) -> Summary:
    part = summary()
    part.add(rows)
    return part


def _merged(parts: list[Summary]) -> Summary:
    whole = type(parts[0])()  # a new one: Dask may need the parts again
    for part in parts:
        whole.merge(part)
    return whole


def _answered(rows: Any, summary: Any, answer: Callable[[Any, Any], Any]) -> Any:
    return answer(summary, rows)
