"""Argument validation: every public function checks what it is given here, with one wording."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NoReturn

import array_api_compat as api
import numpy as np
import numpy.typing as npt

from capsolve._arrays import dtype_name, floating, is_foreign, to_numpy

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]
LARGEST = float(np.finfo(np.float64).max)
EPS = float(np.finfo(np.float64).eps)
# No input has such a kurtosis; up to here, products with importances stay in range when those are scaled.
LARGEST_KURTOSIS = 1e100


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
    refuse_masked(name, value)
    try:
        raw = to_numpy(value)
    except (ValueError, TypeError) as error:  # ragged nested lists; types that NumPy does not know
        raise ValueError(f"{name} must be a rectangular array of real numbers: {error}") from None
    if raw.dtype.kind not in "biuf":
        # frame.kurtosis is a method of pandas, whatever the columns are called
        got = f'a function; a data frame\'s column is frame["{name}"]' if callable(value) else f"dtype {raw.dtype}"
        raise ValueError(f"{name} must hold real numbers, got {got}")
    if ndim is not None and raw.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {raw.shape}")
    return raw


def refuse_masked(name: str, value: Any) -> None:
    """Raise a `ValueError` for masked entries, which conversions would take for numbers."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(f"{name} must not have masked entries; fill them, or leave those features out")


def at_least(name: str, array: FloatArray, low: float, start: int = 0, high: float = math.inf) -> None:
    """Raise a `ValueError` that shows the first entry of ``array`` below ``low`` or above ``high``."""
    for bad, bound in ((array < low, f">= {low:g}"), (array > high, f"<= {high:g}")):
        if bad.any():
            where = tuple(int(k) for k in np.argwhere(bad)[0])
            at = f" at index {_index(where, start)}" if where else ""
            raise ValueError(f"{name} must be {bound}, got {array[where]!s}{at}")


def valid_kurtosis(kurtosis: FloatArray, start: int = 0) -> None:
    """Raise a `ValueError` for kurtoses that no input has."""
    at_least("kurtosis", kurtosis, 1.0, start, LARGEST_KURTOSIS)


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


def whole(name: str, value: Any, low: int = 1, high: float = math.inf) -> int:
    """Return ``value`` as an integer in ``[low, high]``, or raise a `ValueError` that names it; 3.0 is one."""
    number = scalar(name, value, low=float(low), high=high)
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


LONGEST_SHOWN, MOST_LISTED = 60, 10
"""Characters of one value, and entries of one list, that a message shows."""


def shown(value: Any, most: int = LONGEST_SHOWN) -> str:
    """Return text as it is and all else as its repr, in one line and cut, so that a message stays short."""
    if not isinstance(value, str):
        value = repr(value)
    start = value[: most + 1]
    start = start if start.isprintable() else repr(start)[1:-1]
    return start if len(start) <= most else start[: most - 1] + "…"


def listed(values: Iterable[Any]) -> str:
    """Return the first few of some values with commas between, each short enough for all of them."""
    first = [shown(value, LONGEST_SHOWN // 2) for value in islice(values, MOST_LISTED + 1)]
    return ", ".join([*first[:MOST_LISTED], *["…"] * (len(first) > MOST_LISTED)])


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
    valid_kurtosis(k, start)
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


# For up to so many features plain numbers are faster than arrays.
PLAIN_NUMBERS = 64


class ReadOnlyArrays:
    """Objects whose arrays stay read-only when they are copied or unpickled, which forget that of arrays."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        for value in state.values():
            read_only(*(value if isinstance(value, tuple) else (value,)))
        self.__dict__.update(state)


def read_only(*arrays: Any) -> None:
    """Make NumPy arrays read-only; anything else is left as it is."""
    for array in arrays:
        if isinstance(array, np.ndarray):
            array.setflags(write=False)


def former_property(old: str, new: str) -> Any:
    """Return a property under its former name, which warns."""

    def get(self: Any) -> Any:
        renamed(old, new)
        return getattr(self, new)

    return property(get, doc=f"Former name of `{new}`.")


def former_function(old: str, function: Callable[..., Any]) -> Any:
    """Return a function under its former name, which warns."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        renamed(old, function.__name__)
        return function(*arguments, **options)

    call.__doc__ = f"Former name of `{function.__name__}`."
    return call


def renamed(old: str, new: str) -> None:
    """Warn that a public name has another one now; the old one works for one release."""
    warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=3)


def is_valid(v: npt.NDArray[Any], k: npt.NDArray[Any]) -> bool:
    """Return whether v ≥ 0 and κ ≥ 1 are finite and sure to have a finite Σ v κ: enough for all but extreme data."""
    if v.size <= PLAIN_NUMBERS:  # the sums are NaN where one is
        some_v, some_k = v.tolist(), k.ravel().tolist()
        size: float = sum(some_v) * sum(some_k)
        in_range = min(some_v) >= 0.0 and min(some_k) >= 1.0 and max(some_k) <= LARGEST_KURTOSIS
        return bool(in_range and size < LARGEST / v.size)
    if not (v.min() >= 0.0 and k.min() >= 1.0):  # a NaN fails both
        return False
    return float(k.max()) <= LARGEST_KURTOSIS and float(v.max()) * float(k.max()) < LARGEST / v.size


def validate(v: npt.NDArray[Any], k: npt.NDArray[Any]) -> None:
    """Raise a `ValueError` unless v ≥ 0 and κ ≥ 1 are finite and Σ v κ is; shapes are those of `profile_shaped`."""
    if is_valid(v, k):
        return
    v, k = importance_and_kurtosis(v, k)
    with np.errstate(over="ignore"):
        total = np.sum(v * k)
    if not np.isfinite(total):
        raise_invalid(v, k)


def raise_invalid(v: npt.NDArray[Any], k: npt.NDArray[Any], start: int = 0) -> NoReturn:
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


# --- arrays of other libraries -------------------------------------------------------------------------------------


def alike(importance: Any, kurtosis: Any) -> tuple[Any, Any]:
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
        v = brought(v, k)
    if k.ndim == 0:
        k = np.asarray(float(k))
        valid_kurtosis(real_array("kurtosis", k))
        k = float(k)
    elif not is_foreign(k):
        k = brought(k, v)
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


def brought(column: Any, other: Any) -> Any:
    """Return a NumPy array as an array of the other's library, device and precision."""
    column = column.astype(dtype_name(other))
    if api.is_dask_array(other):
        import dask.array  # noqa: PLC0415

        from_array: Any = dask.array.from_array
        return from_array(column, chunks=other.chunks if other.ndim else "auto")
    return api.array_namespace(other).asarray(column, device=api.device(other))
