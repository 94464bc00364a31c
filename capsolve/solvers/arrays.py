"""Profiles in arrays of other libraries: one source for PyTorch, JAX, CuPy and whatever else has the array API.

The data stay on their device and are gone through in blocks, in float64, so that a billion features need little memory
beyond their own. Sums, samples and the undecided few come to the host. Where a device knows no float64 the blocks are
computed on the host, one by one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, NoReturn, cast

import array_api_compat as api
import numpy as np

from capsolve._arrays import to_numpy
from capsolve._checks import FloatArray, refuse
from capsolve.losses.quadratic import demand_of
from capsolve.solvers.window import (
    Answer,
    IntArray,
    Partition,
    Totals,
    Window,
    decide,
    judge,
    spread_out,
    valid,
)


class ArraySource:
    """A `Source` of features in arrays of one library on one device.

    Parameters
    ----------
    importance, kurtosis : arrays, shape (n,)
        Of real floating types; the kurtosis may be a number.
    """

    BLOCK = 1 << 22

    def __init__(self, importance: Any, kurtosis: Any) -> None:
        self.xp, self.device = api.array_namespace(importance), api.device(importance)
        self.importance, self.kurtosis = (
            column.detach() if api.is_torch_array(column) else column for column in (importance, kurtosis)
        )
        with self._float64():
            self.capable = "float64" in self.xp.__array_namespace_info__().dtypes(device=self.device)

    @property
    def features(self) -> int:
        """The number of features, n."""
        return int(self.importance.shape[0])

    def sample(self, size: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return a run of neighbours from each of many intervals of equal length; see `Source`."""
        with self._float64():
            index = self.xp.asarray(spread_out(self.features, size, rng), device=self.device)
            v, k = (
                to_numpy(self.xp.take(column, index) if api.is_array_api_obj(column) else np.asarray(column))
                for column in (self.importance, self.kurtosis)
            )
        return valid(v.astype(np.float64), np.broadcast_to(k.astype(np.float64), v.shape))

    def refuse(self) -> NoReturn:
        """Raise the error of the detailed checks; see `Source`."""
        with self._float64():
            suspects = [Suspect.of(to_numpy(v), to_numpy(k), start) for start, v, k, _ in self._blocks()]
        refuse_one_of(suspects)

    def partition(self, window: Window) -> Partition:
        """Go through the data once; see `Source`."""
        window = Window(*map(float, window))  # strict namespaces know Python's numbers only
        with self._float64():
            parts = [(start, _partitioned(v, k, window, xp)) for start, v, k, xp in self._blocks()]
        return merged(parts)

    def write(self, answer: Answer, unit: float) -> tuple[Any, Totals]:
        """Go through the data once; see `Source`. The totals are those of the capacities before they are rounded."""
        xp, dtype, totals = self.xp, self.importance.dtype, []
        inplace = api.is_writeable_array(self.importance)
        whole = xp.empty(self.features, dtype=dtype, device=self.device) if inplace else None
        blocks = []
        with self._float64():
            for start, v, k, work in self._blocks():
                stop = start + v.shape[0]
                capacity, total = _written(v, k, section(answer, start, stop), float(unit), work)
                totals.append(total)
                block = rounded(capacity, dtype if work is xp else np.dtype(np.float32), work)
                if work is not xp:
                    block = xp.asarray(block, device=self.device)
                if whole is None:
                    blocks.append(block)
                else:
                    whole[start:stop] = block
            return xp.concat(blocks) if whole is None else whole, Totals.of(totals)

    def _blocks(self) -> Iterator[tuple[int, Any, Any, Any]]:
        """Yield start, importance, kurtosis in float64, and the namespace to compute with."""
        for start in range(0, self.features, self.BLOCK):
            block = slice(start, min(start + self.BLOCK, self.features))
            v = self.importance[block]
            k = self.kurtosis if isinstance(self.kurtosis, float) else self.kurtosis[block]
            xp = self.xp if self.capable else np
            v, k = (self._wide(column) for column in (v, k))
            yield start, v, xp.broadcast_to(k, v.shape), xp

    def _wide(self, column: Any) -> Any:
        if not self.capable:
            return np.asarray(column if isinstance(column, float) else to_numpy(column), np.float64)
        if isinstance(column, float):
            return self.xp.asarray(column, dtype=self.xp.float64, device=self.device)
        return self.xp.astype(column, self.xp.float64)

    def _float64(self) -> AbstractContextManager[Any]:
        if not api.is_jax_array(self.importance):
            return nullcontext()
        import jax  # noqa: PLC0415

        return cast(AbstractContextManager[Any], jax.enable_x64(True))


@functools.cache
def _compiled(function: Callable[..., Any], xp: Any) -> Callable[..., Any]:
    """Return a function of blocks for one namespace; JAX makes one kernel of all that it does."""
    given = functools.partial(function, xp=xp)
    if not api.is_jax_namespace(xp):
        return given
    import jax  # noqa: PLC0415

    return cast(Callable[..., Any], jax.jit(given))


def _written(v: Any, k: Any, answer: Answer, unit: float, xp: Any) -> tuple[Any, Totals]:
    """Return the capacities of one block, the listed ones among them, and their totals."""
    if answer.scale == 0.0:
        capacity = xp.where(v > 0.0, xp.ones_like(v), 0.0)
    else:
        capacity = _compiled(_at, xp)(v, k, answer.scale, answer.correction)
    if answer.which.size:
        which, value = (xp.asarray(column, device=api.device(v)) for column in _padded(v.shape[0], *answer[2:]))
        capacity = _compiled(_listed, xp)(capacity, which, value)
    return capacity, _compiled(judge, xp)(v, k, capacity, unit)


def _at(v: Any, k: Any, scale: float, correction: float, xp: Any) -> Any:
    return demand_of(v, k, xp).at(scale, correction, xp=xp)


def _listed(capacity: Any, which: Any, value: Any, xp: Any) -> Any:
    """Return the capacities with those in the list in their places; the list ends with a feature that is not there."""
    if api.is_jax_array(capacity):
        return capacity.at[which].set(value, mode="drop")
    # The array API cannot put values at places: each feature looks itself up in the list.
    index = xp.arange(capacity.shape[0], dtype=which.dtype, device=api.device(which))
    slot = xp.searchsorted(which, index)
    return xp.where(xp.take(which, slot) == index, xp.take(value, slot), capacity)


def rounded(capacity: Any, dtype: Any, xp: Any) -> Any:
    """Return the capacities in another precision, but none that became 0 or 1 by rounding: phases stay."""
    if capacity.dtype == dtype:
        return capacity
    limits = xp.finfo(dtype)
    inner = xp.clip(capacity, float(limits.smallest_normal), 1.0 - float(limits.eps) / 2.0)
    return xp.astype(xp.where((capacity > 0.0) & (capacity < 1.0), inner, capacity), dtype)


def _partitioned(v: Any, k: Any, window: Window, xp: Any) -> Partition:
    """Return what `decide` says about the features of one block."""
    *sums, undecided = _compiled(_decided, xp)(v, k, *window)
    wanting, total, *lowest, at_low, at_high = map(float, sums)
    which, few_v, few_k = _few(v, k, undecided, xp)
    return Partition(int(wanting), total, (lowest[0], lowest[1]), at_low, at_high, few_v, few_k, which)


def _decided(v: Any, k: Any, low: float, high: float, reach: float, xp: Any) -> tuple[Any, ...]:
    at_low, at_high, undecided = decide(v, k, Window(low, high, reach), xp)
    wanting, total = xp.count_nonzero(v > 0.0), xp.sum(v * k)
    return wanting, total, xp.min(v), xp.min(k), xp.sum(at_low), xp.sum(at_high), undecided


def _few(v: Any, k: Any, chosen: Any, xp: Any) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return index, importance and kurtosis of the chosen features, on the host."""
    if not api.is_jax_array(v):
        index = xp.nonzero(chosen)[0]
        return to_numpy(index), to_numpy(xp.take(v, index)), to_numpy(xp.take(k, index))
    which = np.flatnonzero(to_numpy(chosen))
    (padded,) = _padded(0, which)
    few_v, few_k = (to_numpy(xp.take(column, xp.asarray(padded)))[: which.size] for column in (v, k))
    return which, few_v, few_k


def _padded(filler: int, *columns: Any) -> list[Any]:
    """Return longer columns, of one of a few lengths: JAX compiles for each of them."""
    size = columns[0].size
    more = (64 << int(size).bit_length()) - size
    return [np.append(column, np.full(more, filler, column.dtype)) for column in columns]


class Suspect(NamedTuple):
    """The feature of a block that is wrong, or would be the first one too many in a sum that overflows."""

    sane: bool
    importance: float
    kurtosis: float
    which: int

    @classmethod
    def of(cls, v: FloatArray, k: FloatArray, start: int) -> Suspect:
        """Return the suspect of a block that starts at the index ``start``."""
        bad = np.flatnonzero(~(np.isfinite(v) & np.isfinite(k) & (v >= 0.0) & (k >= 1.0)))
        with np.errstate(over="ignore"):
            i = int(bad[0] if bad.size else np.argmax(v * k))
        return cls(bad.size == 0, float(v[i]), float(k[i]), start + i)


def refuse_one_of(suspects: Sequence[Suspect]) -> NoReturn:
    """Raise the error about the first that is wrong, or the largest."""
    with np.errstate(over="ignore"):
        one = min(suspects, key=lambda s: (s.sane, s.which if not s.sane else -np.multiply(s.importance, s.kurtosis)))
    refuse(np.array([one.importance]), np.array([one.kurtosis]), one.which)


def merged(parts: Sequence[tuple[int, Partition]]) -> Partition:
    """Return the partition of a whole from those of its parts, each with the index of its first feature."""
    each = [part for _, part in parts]
    return Partition(
        wanting=sum(part.wanting for part in each),
        total=float(np.sum([part.total for part in each])),
        lowest=(min(part.lowest[0] for part in each), min(part.lowest[1] for part in each)),
        at_low=math.fsum(part.at_low for part in each),
        at_high=math.fsum(part.at_high for part in each),
        importance=np.concatenate([part.importance for part in each]),
        kurtosis=np.concatenate([part.kurtosis for part in each]),
        which=np.concatenate([part.which + start for start, part in parts]),
    )


def section(answer: Answer, start: int, stop: int) -> Answer:
    """Return the answer for the features from ``start`` to ``stop``, counted from there."""
    first, last = np.searchsorted(answer.which, [start, stop])
    which, capacity = answer.which[first:last] - start, answer.capacity[first:last]
    return Answer(float(answer.scale), float(answer.correction), which, capacity)
