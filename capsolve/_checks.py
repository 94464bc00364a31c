"""Checks at the door: every public function validates its arguments here, with one wording."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from capsolve._arrays import is_foreign, to_numpy

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]
LARGEST = float(np.finfo(np.float64).max)
EPS = float(np.finfo(np.float64).eps)


def real_array(name: str, value: Any, *, ndim: int | None = None, start: int = 0) -> FloatArray:
    """Return ``value`` as a float64 array of finite real numbers, or raise a `ValueError` that names it.

    ``start`` is the index of the first entry where the value is a part of something larger.
    """
    array = real_numbers(name, value, ndim=ndim).astype(np.float64, copy=False)
    bad = ~np.isfinite(array)
    if bad.any():
        where = tuple(int(k) for k in np.argwhere(bad)[0])
        at = f" at index {_index(where, start)}" if where else ""
        raise ValueError(f"{name} must be finite, got {array[where]}{at}")
    return array


def real_numbers(name: str, value: Any, *, ndim: int | None = None) -> npt.NDArray[Any]:
    """Return ``value`` as an array of real numbers, which may be infinite or NaN, or raise a `ValueError`."""
    try:
        raw = to_numpy(value) if is_foreign(value) else np.asarray(value)
    except (ValueError, TypeError) as error:  # ragged nested lists; types that NumPy does not know
        raise ValueError(f"{name} must be a rectangular array of real numbers: {error}") from None
    if raw.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, got dtype {raw.dtype}")
    if ndim is not None and raw.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {raw.shape}")
    return raw


def at_least(name: str, array: FloatArray, low: float, start: int = 0) -> None:
    """Raise a `ValueError` that shows the first entry of ``array`` below ``low``."""
    bad = array < low
    if bad.any():
        where = tuple(int(k) for k in np.argwhere(bad)[0])
        at = f" at index {_index(where, start)}" if where else ""
        raise ValueError(f"{name} must be >= {low:g}, got {array[where]!s}{at}")


def scalar(name: str, value: Any, *, low: float = -math.inf, high: float = math.inf) -> float:
    """Return ``value`` as a finite float in ``[low, high]``, or raise a `ValueError` that names it."""
    if type(value) in (float, int) and low <= value <= high and abs(value) <= LARGEST:
        return float(value)
    array = real_array(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be a single number, got an array of shape {array.shape}")
    number = float(array)
    if not low <= number <= high:
        bounds = f">= {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be {bounds}, got {number!r}")
    return number


def whole(name: str, value: Any, low: int = 1) -> int:
    """Return ``value`` as an integer ≥ ``low``, or raise a `ValueError` that names it; 3.0 is one."""
    number = scalar(name, value, low=float(low))
    if not number.is_integer():
        raise ValueError(f"{name} must be an integer, got {number!r}")
    return int(number)


def capacity_vector(value: Any, features: int) -> FloatArray:
    """Return validated capacities, shape (features,), each in [0, 1]."""
    c = value if isinstance(value, np.ndarray) and value.dtype == np.float64 else real_array("capacity", value)
    if c.shape != (features,):
        raise ValueError(f"capacity must have one entry per feature: shape ({features},), got {c.shape}")
    if not (c.min() >= 0.0 and c.max() <= 1.0):  # a NaN fails both
        i = int(np.argmin((c >= 0.0) & (c <= 1.0)))
        raise ValueError(f"capacity must be in [0, 1], got {c[i]} at index {i}")
    return c


def outward(bound: float, size: float, terms: int) -> float:
    """Return a lower bound summed from ``terms`` numbers of total size ``size``, less what rounding may have added."""
    return bound - (8.0 + math.log2(terms)) * EPS * size


def flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False, or raise a `ValueError` that names it."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {value!r}")  # noqa: TRY004
    return bool(value)


def importance_and_kurtosis(importance: Any, kurtosis: Any, start: int = 0) -> tuple[FloatArray, FloatArray]:
    """Return validated importance (n,) and kurtosis, broadcast to (n,)."""
    v, k = profile_shaped(importance, kurtosis)
    v = real_array("importance", v, start=start)
    at_least("importance", v, 0.0, start)
    k = real_array("kurtosis", kurtosis, start=start)
    at_least("kurtosis", k, 1.0, start)
    return v, np.broadcast_to(k, v.shape)


def profile_shaped(importance: Any, kurtosis: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return importance (n,) and kurtosis (n,) or (), of any real dtype; only their shapes and dtypes are validated."""
    v = real_numbers("importance", importance, ndim=1)
    if v.size == 0:
        raise ValueError("importance must have at least one feature, got an empty array")
    k = real_numbers("kurtosis", kurtosis)
    if k.ndim > 1:
        raise ValueError(f"kurtosis must be a scalar or one number per feature, got shape {k.shape}")
    if k.ndim == 1 and k.size != v.size:
        raise ValueError(f"kurtosis must have one entry per feature: {v.size} features, got {k.size} entries")
    return v, k


FEW = 64


def sane(v: npt.NDArray[Any], k: npt.NDArray[Any]) -> bool:
    """Return whether v ≥ 0 and κ ≥ 1 are finite and sure to have a finite Σ v κ: enough for all but extreme data."""
    if v.size <= FEW:  # for which plain numbers are faster; the sums are NaN where one is
        some_v, some_k = v.tolist(), k.ravel().tolist()
        size: float = sum(some_v) * sum(some_k)
        return bool(min(some_v) >= 0.0 and min(some_k) >= 1.0 and size < LARGEST / v.size)
    if not (v.min() >= 0.0 and k.min() >= 1.0):  # a NaN fails both
        return False
    return float(v.max()) * float(k.max()) < LARGEST / v.size


def validate(v: npt.NDArray[Any], k: npt.NDArray[Any]) -> None:
    """Raise a `ValueError` unless v ≥ 0 and κ ≥ 1 are finite and Σ v κ is; shapes are those of `profile_shaped`."""
    if sane(v, k):
        return
    v, k = importance_and_kurtosis(v, k)
    with np.errstate(over="ignore"):
        total = np.sum(v * k)
    if not np.isfinite(total):
        refuse(v, k)


def refuse(v: npt.NDArray[Any], k: npt.NDArray[Any], start: int = 0) -> NoReturn:
    """Raise the `ValueError` that says what is wrong with importance and kurtosis, one of which is known to be bad."""
    v, k = importance_and_kurtosis(v, k, start)
    with np.errstate(over="ignore"):
        i = int(np.argmax(v * k))
    raise ValueError(
        f"importance × kurtosis must sum to less than {np.finfo(float).max:.3g}, got {v[i]:g} × {k[i]:g} "
        f"at index {i + start}; divide all importances by a common factor"
    )


def _index(where: tuple[int, ...], start: int) -> str:
    return str(where[0] + start) if len(where) == 1 else str(where)
