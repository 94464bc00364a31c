"""Profiles larger than memory: Dask arrays, gone through chunk by chunk, on one machine or a cluster.

Each pass makes one task per chunk, with the source that is right for the chunk's own kind of array; what tasks return
is small and is merged here, in the order of the chunks. So the numbers do not depend on how many workers there are, or
whether one of them dies and others do its tasks again.
"""

from __future__ import annotations

from typing import Any, NoReturn

import array_api_compat as api
import numpy as np

from capsolve._arrays import to_numpy
from capsolve._checks import FloatArray
from capsolve.certificate import CertificateTerms
from capsolve.solvers.routes import route_for
from capsolve.solvers.sources import (
    ArrayAPISource,
    InvalidEntry,
    PriceAndExceptions,
    ScaleInterval,
    Screening,
    Source,
    raise_worst,
    rounded,
    valid_sample,
)


class DaskSource:
    """A `Source` of features in Dask arrays.

    Parameters
    ----------
    importance, kurtosis : Dask arrays, shape (n,)
        In chunks of the same, known sizes > 0; the kurtosis may be a number.
    """

    def __init__(self, importance: Any, kurtosis: Any) -> None:
        self.importance, self.kurtosis = importance, kurtosis

    @property
    def features(self) -> int:
        """The number of features, n."""
        return int(self.importance.shape[0])

    def sample(self, size: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return as much of each chunk as its length entitles it to; see `Source`. Reads all of the data."""
        share = min(1.0, size / self.features)
        parts = self._on_chunks(_sample, share=share, seed=int(rng.integers(2**63)))
        v, k = (np.concatenate(column) for column in zip(*parts, strict=True))
        return valid_sample(v, k)

    def raise_invalid(self) -> NoReturn:
        """Raise the error of the detailed checks; see `Source`."""
        raise_worst(self._on_chunks(_invalid_entry))

    def scaled(self, factor: float) -> DaskSource:
        """Return the same with importances multiplied by a power of two."""
        return DaskSource(self.importance * factor, self.kurtosis)

    def screen(self, interval: ScaleInterval) -> Screening:
        """Go through the data once; see `Source`."""
        return Screening.merge(self._on_chunks(_screen, interval=interval))

    def write(self, answer: PriceAndExceptions, unit: float) -> tuple[Any, CertificateTerms]:
        """Go through the data once for the terms; see `Source`. The capacities are computed when asked for."""
        from dask.delayed import delayed  # noqa: PLC0415

        shared = delayed(answer)  # one copy for all tasks
        meta = self.importance._meta
        capacity = self._map(_capacity, answer=shared, unit=unit, dtype=meta.dtype, meta=meta)
        return capacity, CertificateTerms.merge(self._on_chunks(_terms, answer=shared, unit=unit))

    def _on_chunks(self, task: Any, **given: Any) -> list[Any]:
        """Return what ``task(source, start, stop, **given)`` says of each chunk, in their order."""
        ones = ((1,) * self.importance.numblocks[0],)
        meta = np.empty(0, dtype=object)
        return list(self._map(_boxed, task=task, chunks=ones, dtype=object, meta=meta, **given).compute())

    def _map(self, function: Any, **given: Any) -> Any:
        import dask.array  # noqa: PLC0415

        map_blocks: Any = dask.array.map_blocks
        return map_blocks(function, self.importance, self.kurtosis, **given)


def source_of_chunk(v: Any, k: Any) -> Source:
    """Return the source for one chunk."""
    if not api.is_numpy_array(v):
        return ArrayAPISource(v, k)
    return route_for(v.size, loaded=False).source(v, np.asarray(k))  # every process gives the same bits


def _boxed(v: Any, k: Any, task: Any, block_info: Any = None, **given: Any) -> Any:
    box = np.empty(1, dtype=object)
    with np.errstate(all="ignore"):  # infinities at the limits are intended
        box[0] = task(source_of_chunk(v, k), *_ends(block_info), **given)
    return box


def _ends(block_info: Any) -> tuple[int, int]:
    start, stop = block_info[0]["array-location"][0]
    return start, stop


def _sample(chunk: Source, start: int, stop: int, share: float, seed: int) -> tuple[FloatArray, FloatArray]:
    count = int(stop * share) - int(start * share)
    if count == 0:
        return np.empty(0), np.empty(0)
    return chunk.sample(count, np.random.default_rng((seed, start)))


def _invalid_entry(chunk: Any, start: int, stop: int) -> InvalidEntry:
    return InvalidEntry.of(to_numpy(chunk.importance), to_numpy(chunk.kurtosis), start)


def _screen(chunk: Source, start: int, stop: int, interval: ScaleInterval) -> tuple[int, Screening]:
    return start, chunk.screen(interval)


def _terms(chunk: Source, start: int, stop: int, answer: PriceAndExceptions, unit: float) -> CertificateTerms:
    return chunk.write(answer.section(start, stop), unit)[1]


def _capacity(v: Any, k: Any, answer: PriceAndExceptions, unit: float, block_info: Any = None) -> Any:
    with np.errstate(all="ignore"):
        capacity, _ = source_of_chunk(v, k).write(answer.section(*_ends(block_info)), unit)
    return rounded(capacity, v.dtype, api.array_namespace(v))
