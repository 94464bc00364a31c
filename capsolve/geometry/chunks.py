"""Embeddings in chunks of rows, larger than memory: two passes over a Dask array, and nothing kept in between."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, Self

import array_api_compat as api

# Summaries that are merged at a time; the tree is always the same, and so are its rounding errors.
_ARITY = 8


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
