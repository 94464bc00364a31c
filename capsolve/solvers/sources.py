"""Where are the features? The passes over the data that a solver may ask for, and the sources that make them.

With features by the million the cost of an allocation is that of reading and writing them, and they may lie where
NumPy cannot see them: on another device, in a file, on a cluster. So the search for the price sees the data through a
few passes of a `Source` only. Here are the sources for NumPy and for arrays of any other library with the array API;
`numba_source` has the compiled one, `dask_source` that for chunks on a cluster.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, NoReturn, Protocol, cast

import array_api_compat as api
import numpy as np
import numpy.typing as npt

from capsolve._arrays import to_numpy
from capsolve._checks import LARGEST_KURTOSIS, FloatArray, raise_invalid
from capsolve.certificate import CertificateTerms, certificate_terms
from capsolve.losses.quadratic import feature_terms, response_curve
from capsolve.solvers.newton import Root, newton_root

IntArray = npt.NDArray[np.int64]
# Scales between which squares of importances that matter neither over- nor underflow.
MODERATE = 1e-100, 1e100
# Of no feature: what an answer lists that is the response to its scale everywhere.
NONE_LISTED = np.empty(0, dtype=np.int64), np.empty(0)
# Neighbours in a sample: memory comes in lines.
NEIGHBOURS = 32


class ScaleInterval(NamedTuple):
    """An interval of scales, 0 ≤ low ≤ high ≤ ∞, that the price may lie in.

    Features with κ < 3, which jump, count as free on the wider interval [low / margin, high · margin].
    """

    low: float
    high: float
    concave_margin: float = 1.0


class Screening(NamedTuple):
    """What one pass says about an interval. The free features are listed in the order of their index."""

    positive: int  # the number of features with positive importance
    total: float  # Σ v κ: not finite if any of the data are not, or if they are too large
    lowest: tuple[float, float]  # the smallest importance and kurtosis
    highest: float  # the largest kurtosis
    least_positive: float  # the smallest importance above 0, infinite if there is none
    at_low: float  # Σ C of the fixed features at the low end, where it is the larger one
    at_high: float
    importance: FloatArray  # of the free features
    kurtosis: FloatArray
    free_index: IntArray

    @property
    def is_valid(self) -> bool:
        """Whether all of the data are in the range that importances and kurtoses may have."""
        low_v, low_k = self.lowest
        return self.total < math.inf and low_v >= 0.0 and low_k >= 1.0 and self.highest <= LARGEST_KURTOSIS

    @classmethod
    def merge(cls, parts: Sequence[tuple[int, Screening]]) -> Screening:
        """Return the screening of a whole from those of its parts, each with the index of its first feature."""
        each = [part for _, part in parts]
        return cls(
            positive=sum(part.positive for part in each),
            total=float(np.sum([part.total for part in each])),
            lowest=(min(part.lowest[0] for part in each), min(part.lowest[1] for part in each)),
            highest=max(part.highest for part in each),
            least_positive=min(part.least_positive for part in each),
            at_low=math.fsum(part.at_low for part in each),
            at_high=math.fsum(part.at_high for part in each),
            importance=np.concatenate([part.importance for part in each]),
            kurtosis=np.concatenate([part.kurtosis for part in each]),
            free_index=np.concatenate([part.free_index + start for start, part in parts]),
        )


class PriceAndExceptions(NamedTuple):
    """The optimal allocation: the response to τ = scale + correction, but for a few features, listed by index.

    At scale 0 every feature of positive importance is full. The certificate is that for the price 2 · multiplier².
    """

    scale: float
    correction: float
    multiplier: float
    free_index: IntArray
    capacity: FloatArray

    def section(self, start: int, stop: int) -> PriceAndExceptions:
        """Return the same for the features from ``start`` to ``stop``, counted from there."""
        first, last = np.searchsorted(self.free_index, [start, stop])
        return PriceAndExceptions(
            float(self.scale),
            float(self.correction),
            float(self.multiplier),
            self.free_index[first:last] - start,
            self.capacity[first:last],
        )


class Source(Protocol):
    """Importance and kurtosis of many features, wherever they are."""

    @property
    def features(self) -> int:
        """The number of features, n."""
        ...

    def sample(self, size: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return importance and kurtosis of about ``size`` features drawn evenly from all over the data.

        Nothing has been validated yet: see `valid_sample` and `spread_out`.
        """
        ...

    def raise_invalid(self) -> NoReturn:
        """Raise the `ValueError` that says what is wrong with the data, some of which are known to be bad."""
        ...

    def scaled(self, factor: float) -> Source:
        """Return a source of the same features with importances multiplied by a power of two."""
        ...

    def screen(self, interval: ScaleInterval) -> Screening:
        """Return what `screen_features` says about each feature, added up, of data that may be bad."""
        ...

    def write(self, answer: PriceAndExceptions, unit: float) -> tuple[Any, CertificateTerms]:
        """Return the capacities, in the source's own kind of array, and the terms of their certificate.

        Importances count in ``unit``, losses in its square.
        """
        ...


class LocalSource(Source, Protocol):
    """A source in this process's memory, made from two arrays: for samples and for the free features."""

    def used(self, scale: float) -> tuple[float, float]:
        """Return Σ C and Σ C² at ``scale``; at 0 both are the number of features with positive importance."""
        ...


LocalKind = Callable[[FloatArray, FloatArray], LocalSource]


# --- one block of features ----------------------------------------------------------------------------------------


def screen_features(v: Any, k: Any, interval: ScaleInterval, xp: Any = np) -> tuple[Any, Any, Any]:
    """Return the capacities at both ends of the interval, 0 for free features, and which features are free.

    The others are *fixed* on the interval: empty, full, or in between on all of it, where they are linear in 1/τ.
    """
    low, high, margin = interval
    curve = response_curve(v, k, xp)
    concave = k < 3.0
    above = curve.full > xp.where(concave, xp.full_like(k, high * margin), high)
    below = curve.enter < xp.where(concave, xp.full_like(k, low / margin), low)
    between = (curve.full < low) & (curve.enter > high)
    free = (v > 0.0) & ~(above | below | between)
    one, zero = xp.ones_like(curve.width), xp.zeros_like(curve.width)
    full = xp.where(above, one, zero)
    at_low = xp.where(between, curve.at(low, xp=xp), full)
    at_high = xp.where(between, curve.at(high, xp=xp), full)
    return at_low, at_high, free


def respond(v: Any, k: Any, scale: float, correction: float = 0.0, xp: Any = np) -> Any:
    """Return the capacities at τ = scale + correction; those of features that jump at the scale are of no meaning."""
    if scale == 0.0:
        return xp.where(v > 0.0, xp.ones_like(v), 0.0)
    return response_curve(v, k, xp).at(scale, correction, xp=xp)


def terms_of(v: Any, k: Any, capacity: Any, multiplier: float, unit: float, xp: Any = np) -> CertificateTerms:
    """Return the terms of the certificate of features with the given capacities, as scalars of the namespace."""
    each = feature_terms(v / unit, k, capacity, multiplier / unit, xp)
    return certificate_terms(capacity, each.loss, each.marginal, each.lagrangian_gap, xp)


class NumPySource:
    """A source in memory: NumPy arrays of real numbers, gone through in blocks that stay in the cache."""

    BLOCK = 1 << 13

    def __init__(self, importance: npt.NDArray[Any], kurtosis: npt.NDArray[Any]) -> None:
        self.importance = importance
        self.kurtosis = kurtosis if kurtosis.shape == importance.shape else np.broadcast_to(kurtosis, importance.shape)

    @property
    def features(self) -> int:
        """The number of features, n."""
        return int(self.importance.size)

    def sample(self, size: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return a run of neighbours from each of many intervals of equal length; see `Source`."""
        index = spread_out(self.features, size, rng)
        return valid_sample(self.importance[index].astype(np.float64), self.kurtosis[index].astype(np.float64))

    def newton_root(self, budget: float) -> Root | None:
        """Return where Σ C = budget if Newton's method finds it, for features that are few enough to be copied."""
        v, k = (column.astype(np.float64, copy=False) for column in (self.importance, self.kurtosis))
        return newton_root(v, k, budget)

    def used(self, scale: float) -> tuple[float, float]:
        """Return the sums of what `respond` says and of its squares."""
        capacities = [respond(v, k, scale) for _, v, k in self._blocks()]
        return math.fsum(float(np.sum(c)) for c in capacities), math.fsum(float(c @ c) for c in capacities)

    def raise_invalid(self) -> NoReturn:
        """Raise the error of the detailed checks; see `Source`."""
        raise_invalid(self.importance, self.kurtosis)

    def scaled(self, factor: float) -> NumPySource:
        """Return the same with importances multiplied by a power of two."""
        return type(self)(self.importance.astype(np.float64) * factor, self.kurtosis)

    def screen(self, interval: ScaleInterval) -> Screening:
        """Go through the data once; see `Source`."""
        return Screening.merge([(start, _screened(v, k, interval, np)) for start, v, k in self._blocks()])

    def write(self, answer: PriceAndExceptions, unit: float) -> tuple[FloatArray, CertificateTerms]:
        """Go through the data once; see `Source`."""
        capacity, parts = np.empty(self.features), []
        for start, v, k in self._blocks():
            block, here = capacity[start : start + v.size], answer.section(start, start + v.size)
            if here.free_index.size < v.size:
                block[:] = respond(v, k, answer.scale, answer.correction)
            block[here.free_index] = here.capacity
            parts.append(terms_of(v, k, block, answer.multiplier, unit))
        return capacity, CertificateTerms.merge(parts)

    def _blocks(self) -> Iterator[tuple[int, FloatArray, FloatArray]]:
        for start in range(0, self.features, self.BLOCK):
            block = slice(start, start + self.BLOCK)
            v, k = (column[block].astype(np.float64, copy=False) for column in (self.importance, self.kurtosis))
            yield start, v, k


def spread_out(features: int, size: int, rng: np.random.Generator) -> IntArray:
    """Return ascending indices of about ``size`` of ``features``: a run of neighbours at random in each interval.

    Runs, because memory comes in lines; one in each interval, because of sorted data such a sample knows more.
    """
    if size >= features:
        return np.arange(features)
    run = max(1, min(NEIGHBOURS, size // 64))
    runs = max(1, size // run)
    edges = np.linspace(0, features - run, runs + 1)
    starts = (edges[:-1] + rng.random(runs) * np.diff(edges)).astype(np.int64)
    return (starts[:, None] + np.arange(run)).ravel()


def valid_sample(v: FloatArray, k: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the features of a sample whose data are valid; ``screen`` will complain about the others."""
    with np.errstate(invalid="ignore", over="ignore"):
        valid = (v >= 0.0) & (k >= 1.0) & (k <= LARGEST_KURTOSIS) & (v * k < math.inf)
    return v[valid], k[valid]


# --- arrays of any library -----------------------------------------------------------------------------------------


class ArrayAPISource:
    """A `Source` of features in arrays of one library on one device: PyTorch, JAX, CuPy, whatever has the array API.

    The data stay on their device and are gone through in blocks, in float64, so that a billion features need little
    memory beyond their own. Sums, samples and the free features come to the host. Where a device knows no float64 the
    blocks are computed on the host, one by one.

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
        return valid_sample(v.astype(np.float64), np.broadcast_to(k.astype(np.float64), v.shape))

    def raise_invalid(self) -> NoReturn:
        """Raise the error of the detailed checks; see `Source`."""
        with self._float64():
            entries = [InvalidEntry.of(to_numpy(v), to_numpy(k), start) for start, v, k, _ in self._blocks()]
        raise_worst(entries)

    def scaled(self, factor: float) -> ArrayAPISource:
        """Return the same with importances multiplied by a power of two."""
        with self._float64():
            return type(self)(self.importance * factor, self.kurtosis)

    def screen(self, interval: ScaleInterval) -> Screening:
        """Go through the data once; see `Source`."""
        interval = ScaleInterval(*map(float, interval))  # strict namespaces know Python's numbers only
        with self._float64():
            return Screening.merge([(start, _screened(v, k, interval, xp)) for start, v, k, xp in self._blocks()])

    def write(self, answer: PriceAndExceptions, unit: float) -> tuple[Any, CertificateTerms]:
        """Go through the data once; see `Source`. The terms are those of the capacities before they are rounded."""
        xp, dtype, parts = self.xp, self.importance.dtype, []
        inplace = api.is_writeable_array(self.importance)
        whole = xp.empty(self.features, dtype=dtype, device=self.device) if inplace else None
        blocks = []
        with self._float64():
            for start, v, k, work in self._blocks():
                stop = start + v.shape[0]
                capacity, terms = _written(v, k, answer.section(start, stop), float(unit), work)
                parts.append(terms)
                block = rounded(capacity, dtype if work is xp else np.dtype(np.float32), work)
                if work is not xp:
                    block = xp.asarray(block, device=self.device)
                if whole is None:
                    blocks.append(block)
                else:
                    whole[start:stop] = block
            return xp.concat(blocks) if whole is None else whole, CertificateTerms.merge(parts)

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


def _written(v: Any, k: Any, answer: PriceAndExceptions, unit: float, xp: Any) -> tuple[Any, CertificateTerms]:
    """Return the capacities of one block, the listed ones among them, and the terms of their certificate."""
    if answer.scale == 0.0:
        capacity = respond(v, k, 0.0, xp=xp)
    else:
        capacity = _compiled(respond_at, xp)(v, k, answer.scale, answer.correction)
    if answer.free_index.size:
        index, value = (
            xp.asarray(column, device=api.device(v))
            for column in _padded(v.shape[0], answer.free_index, answer.capacity)
        )
        capacity = _compiled(_listed, xp)(capacity, index, value)
    return capacity, _compiled(terms_of, xp)(v, k, capacity, answer.multiplier, unit)


def respond_at(v: Any, k: Any, scale: float, correction: float, xp: Any) -> Any:
    """Return the capacities at a scale that is not 0: what can be compiled for any scale."""
    return response_curve(v, k, xp).at(scale, correction, xp=xp)


def _listed(capacity: Any, index: Any, value: Any, xp: Any) -> Any:
    """Return the capacities with those in the list in their places; the list ends with a feature that is not there."""
    if api.is_jax_array(capacity):
        return capacity.at[index].set(value, mode="drop")
    # The array API cannot put values at places: each feature looks itself up in the list.
    features = xp.arange(capacity.shape[0], dtype=index.dtype, device=api.device(index))
    slot = xp.searchsorted(index, features)
    return xp.where(xp.take(index, slot) == features, xp.take(value, slot), capacity)


def rounded(capacity: Any, dtype: Any, xp: Any) -> Any:
    """Return the capacities in another precision, but none that became 0 or 1 by rounding: phases stay."""
    if capacity.dtype == dtype:
        return capacity
    limits = xp.finfo(dtype)
    inner = xp.clip(capacity, float(limits.smallest_normal), 1.0 - float(limits.eps) / 2.0)
    return xp.astype(xp.where((capacity > 0.0) & (capacity < 1.0), inner, capacity), dtype)


def _screened(v: Any, k: Any, interval: ScaleInterval, xp: Any) -> Screening:
    """Return what `screen_features` says about the features of one block."""
    *sums, free = _compiled(_screening_sums, xp)(v, k, *interval)
    positive, total, low_v, low_k, highest, least, at_low, at_high = map(float, sums)
    index, free_v, free_k = _chosen(v, k, free, xp)
    return Screening(int(positive), total, (low_v, low_k), highest, least, at_low, at_high, free_v, free_k, index)


def _screening_sums(v: Any, k: Any, low: float, high: float, margin: float, xp: Any) -> tuple[Any, ...]:
    at_low, at_high, free = screen_features(v, k, ScaleInterval(low, high, margin), xp)
    positive, total = xp.count_nonzero(v > 0.0), xp.sum(v * k)
    least = xp.min(xp.where(v > 0.0, v, xp.full_like(v, math.inf)))
    return positive, total, xp.min(v), xp.min(k), xp.max(k), least, xp.sum(at_low), xp.sum(at_high), free


def _chosen(v: Any, k: Any, chosen: Any, xp: Any) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return index, importance and kurtosis of the chosen features, on the host."""
    if xp is np:
        index = np.flatnonzero(chosen)
        return index, v[index], k[index]
    if not api.is_jax_array(v):
        index = xp.nonzero(chosen)[0]
        return to_numpy(index), to_numpy(xp.take(v, index)), to_numpy(xp.take(k, index))
    index = np.flatnonzero(to_numpy(chosen))
    (padded,) = _padded(0, index)
    free_v, free_k = (to_numpy(xp.take(column, xp.asarray(padded)))[: index.size] for column in (v, k))
    return index, free_v, free_k


def _padded(filler: int, *columns: Any) -> list[Any]:
    """Return longer columns, of one of a few lengths: JAX compiles for each of them."""
    size = columns[0].size
    more = (64 << int(size).bit_length()) - size
    return [np.append(column, np.full(more, filler, column.dtype)) for column in columns]


class InvalidEntry(NamedTuple):
    """The feature of a block that is wrong, or would be the first one too many in a sum that overflows."""

    is_valid: bool
    importance: float
    kurtosis: float
    place: int

    @classmethod
    def of(cls, v: FloatArray, k: FloatArray, start: int) -> InvalidEntry:
        """Return the entry of a block that starts at the index ``start``."""
        in_range = np.isfinite(v) & (v >= 0.0) & (k >= 1.0) & (k <= LARGEST_KURTOSIS)
        bad = np.flatnonzero(~in_range)
        with np.errstate(over="ignore"):
            i = int(bad[0] if bad.size else np.argmax(v * k))
        return cls(bad.size == 0, float(v[i]), float(k[i]), start + i)


def raise_worst(entries: Sequence[InvalidEntry]) -> NoReturn:
    """Raise the error about the first that is wrong, or the largest."""
    with np.errstate(over="ignore"):
        one = min(
            entries, key=lambda e: (e.is_valid, -np.multiply(e.importance, e.kurtosis) if e.is_valid else e.place)
        )
    raise_invalid(np.array([one.importance]), np.array([one.kurtosis]), one.place)
