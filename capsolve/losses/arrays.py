"""The quadratic model over arrays of other libraries: what an allocation of them refers to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import array_api_compat as api
import numpy as np

from capsolve._arrays import floating, is_foreign, to_numpy
from capsolve._checks import FloatArray, at_least, flag, real_array
from capsolve.losses.quadratic import QuadraticLoss


@dataclass(frozen=True, eq=False)
class QuadraticArrays:
    """`QuadraticLoss` of importance and kurtosis in PyTorch, JAX, CuPy, Dask or other array API arrays.

    The arrays are kept as they are, where they are; what they hold is checked when they are gone through.

    Parameters
    ----------
    importance, kurtosis : (n,) arrays
        Of one library, and on one device; one of them may be a NumPy array or a list, and is taken there. The
        kurtosis may be a number. 16-bit numbers become float32, integers the default float.
    bias : bool
        See `QuadraticLoss`.

    Raises
    ------
    ValueError
        For arrays of two libraries or on two devices, other dtypes, mismatched lengths, no features, or Dask
        arrays of unknown size.
    """

    importance: Any
    kurtosis: Any
    bias: bool = True

    def __init__(self, importance: Any, kurtosis: Any, bias: bool = True) -> None:
        v, k = _alike(importance, kurtosis)
        object.__setattr__(self, "importance", v)
        object.__setattr__(self, "kurtosis", k)
        object.__setattr__(self, "bias", flag("bias", bias))

    @property
    def features(self) -> int:
        """The number of features, n."""
        return int(self.importance.shape[0])

    @property
    def lazy(self) -> bool:
        """Whether these are Dask arrays."""
        return bool(api.is_dask_array(self.importance))

    @property
    def convex(self) -> bool:
        """Whether κ ≥ 3 for all features."""
        return bool((self.kurtosis >= 3.0).all()) if api.is_array_api_obj(self.kurtosis) else self.kurtosis >= 3.0

    def squared_norm(self, capacity: Any) -> Any:
        """Return the best m_i = |w_i|² at the given capacities, an array of their kind; 0 where the capacity is 0."""
        xp = api.array_namespace(capacity)
        v, k = self.importance, self.kurtosis
        denominator = 1.0 + 0.5 * (k - 3.0) * capacity
        denominator = xp.where(denominator == 0.0, xp.ones_like(capacity), denominator)  # κ = 1 and C = 1
        if not self.bias:
            trace = xp.sum(v * ((1.0 - capacity) / denominator)) / (1.0 + xp.sum(0.5 * capacity / denominator))
            v = v + trace / (k - 1.0)
        return xp.where(capacity == 1.0, v, v * (0.5 * (k - 1.0) * capacity / denominator))

    def to_numpy(self) -> QuadraticLoss:
        """Return the same model in memory."""
        k = self.kurtosis
        return QuadraticLoss(to_numpy(self.importance), k if isinstance(k, float) else to_numpy(k), self.bias)

    def brought(self, capacity: FloatArray) -> Any:
        """Return capacities as an array of the importance's kind."""
        return _brought(capacity, self.importance)


def _alike(importance: Any, kurtosis: Any) -> tuple[Any, Any]:
    """Return importance and kurtosis as floating-point arrays of one kind, unless the kurtosis is a number."""
    v: Any
    k: Any
    v, k = (
        floating(name, column) if is_foreign(column) else real_array(name, column)
        for name, column in (("importance", importance), ("kurtosis", kurtosis))
    )
    if is_foreign(v) and is_foreign(k) and k.ndim:
        _require_alike(v, k)
    if v.ndim != 1:
        raise ValueError(f"importance must have 1 dimension(s), got shape {tuple(v.shape)}")
    if k.ndim > 1:
        raise ValueError(f"kurtosis must be a scalar or one number per feature, got shape {tuple(k.shape)}")
    for name, column in (("importance", v), ("kurtosis", k)):
        if any(math.isnan(length) for length in column.shape):  # Dask's way to say that it does not know
            raise ValueError(f"{name} must have chunks of known sizes; see its compute_chunk_sizes()")
    if v.shape[0] == 0:
        raise ValueError("importance must have at least one feature, got an empty array")
    if k.ndim and k.shape != v.shape:
        raise ValueError(f"kurtosis must have one entry per feature: {v.shape[0]} features, got {k.shape[0]} entries")
    if not is_foreign(v):
        v = _brought(v, k)
    if k.ndim == 0:
        k = np.asarray(float(k))
        at_least("kurtosis", real_array("kurtosis", k), 1.0)
        k = float(k)
    elif not is_foreign(k):
        k = _brought(k, v)
    return _in_step(v, k) if api.is_dask_array(v) else (v, k)


def _in_step(v: Any, k: Any) -> tuple[Any, Any]:
    """Return Dask arrays in the chunks of the first, of which none is empty."""
    sizes = tuple(length for length in v.chunks[0] if length)
    return v.rechunk((sizes,)), k if isinstance(k, float) else k.rechunk((sizes,))


def _require_alike(v: Any, k: Any) -> None:
    if api.array_namespace(v) is not api.array_namespace(k):
        kinds = " and ".join(f"{type(array).__module__.partition('.')[0]}.{type(array).__name__}" for array in (v, k))
        raise ValueError(f"importance and kurtosis must be arrays of one library, got {kinds}")
    if api.device(v) != api.device(k):
        raise ValueError(f"importance and kurtosis must be on one device, got {api.device(v)} and {api.device(k)}")


def _brought(column: Any, other: Any) -> Any:
    """Return a NumPy array as an array of the other's library, device and precision."""
    column = column.astype(str(other.dtype).rpartition(".")[2])
    if api.is_dask_array(other):
        import dask.array  # noqa: PLC0415

        from_array: Any = dask.array.from_array
        return from_array(column, chunks=other.chunks if other.ndim else "auto")
    return api.array_namespace(other).asarray(column, device=api.device(other))
