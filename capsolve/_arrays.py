"""Arrays of any library with the array API: what they hold, and the way to NumPy."""

from __future__ import annotations

from typing import Any

import array_api_compat as api
import numpy as np
import numpy.typing as npt


def floating(name: str, array: Any) -> Any:
    """Return ``array`` as at least float32, on its own device; ``ValueError`` if it does not hold real numbers."""
    xp = api.array_namespace(array)
    if str(array.dtype).rpartition(".")[2] in {"float16", "bfloat16"}:
        return xp.astype(array, xp.float32)
    if _is(xp, array, "real floating"):
        return array
    if _is(xp, array, ("bool", "integral")):
        return xp.astype(array, xp.asarray(0.5).dtype)
    raise ValueError(f"{name} must hold real numbers of a type that can be computed with, got dtype {array.dtype}")


def _is(xp: Any, array: Any, kind: Any) -> bool:
    try:
        return bool(xp.isdtype(array.dtype, kind))
    except TypeError:  # a dtype the namespace does not know, such as an 8-bit float
        return False


def is_foreign(array: Any) -> bool:
    """Return whether ``array`` is an array of another library than NumPy."""
    return not isinstance(array, np.ndarray | np.generic | list | tuple | float | int) and api.is_array_api_obj(array)


def to_numpy(array: Any) -> npt.NDArray[Any]:
    """Return an array of any library as a NumPy array: on the host, computed, without gradients."""
    if api.is_torch_array(array):
        return np.asarray(array.detach().cpu())
    if api.is_cupy_array(array):
        return np.asarray(array.get())
    if api.is_array_api_strict_namespace(api.array_namespace(array)):
        return np.from_dlpack(array, device="cpu")
    return np.asarray(array)
