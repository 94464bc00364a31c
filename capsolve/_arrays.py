"""Arrays of any library with the array API, sparse ones too: what they hold, and the way to NumPy."""

from __future__ import annotations

from typing import Any

import array_api_compat as api
import numpy as np
import numpy.typing as npt


def floating(name: str, array: Any) -> Any:
    """Return ``array`` as at least float32, on its own device; ``ValueError`` if it does not hold real numbers."""
    array = dense(array, name)
    xp = api.array_namespace(array)
    if _short(array):
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


def dense(array: Any, name: str = "the array") -> Any:
    """Return a sparse array of any library as a dense one of the same library, and everything else as it is."""
    if api.is_torch_array(array):
        if array.is_meta:
            raise ValueError(f"{name} must hold numbers, got a tensor on the device 'meta', which has none")
        return array.to_dense()
    return array.toarray() if hasattr(array, "toarray") else array


def to_numpy(array: Any, name: str = "the array") -> npt.NDArray[Any]:
    """Return anything that holds numbers as a NumPy array: on the host, computed, dense, without gradients.

    Floating-point types that NumPy does not know become float32, which holds their numbers exactly.
    """
    if isinstance(array, list | tuple):
        array = [to_numpy(part) if is_foreign(part) else part for part in array]
    array = dense(array, name)
    if api.is_torch_array(array):
        array = array.detach().cpu().resolve_conj().resolve_neg()
        return np.asarray(array.float() if _short(array) else array)
    if api.is_cupy_array(array):
        return np.asarray(array.get())
    if is_foreign(array) and api.is_array_api_strict_namespace(api.array_namespace(array)):
        return np.from_dlpack(array, device="cpu")
    plain: npt.NDArray[Any] = np.asarray(array)
    return plain.astype(np.float32) if _short(plain) and plain.dtype != np.float16 else plain


def constant(array: Any) -> Any:
    """Return an array that PyTorch's derivatives do not see."""
    return array.detach() if api.is_torch_array(array) else array


def cut_by_rows(array: Any) -> Any:
    """Return a sparse matrix of PyTorch as SciPy's, which can be cut by rows without filling the memory."""
    if not api.is_torch_array(array) or array.is_meta or array.ndim != 2 or str(array.layout) == "torch.strided":
        return array
    from scipy import sparse  # noqa: PLC0415

    entries: Any = array.detach().to_sparse().coalesce()
    return sparse.coo_array((to_numpy(entries.values()), tuple(to_numpy(entries.indices()))), shape=entries.shape)


def _short(array: Any) -> bool:
    """Return whether the numbers are floating-point ones of 8 or 16 bits."""
    return dtype_name(array).startswith(("float16", "bfloat16", "float8"))


def dtype_name(array: Any) -> str:
    """Return the name of an array's type of numbers, the same in every library: "bfloat16"."""
    return str(array.dtype).rpartition(".")[2]
