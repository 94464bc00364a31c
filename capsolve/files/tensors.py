"""Arrays in safetensors, NumPy and PyTorch files; here these formats are opened.

Every part of an array is read by opening the file anew, so what has been mapped is given back with it. Nothing is ever
unpickled, but for tensors and plain containers in PyTorch files.
"""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from capsolve.files._paths import StrPath, known_suffix, optional_module, readable_file, replacing

Index = tuple[slice, ...]
Arrays = dict[str, Any]

BROKEN = (ValueError, EOFError, zipfile.BadZipFile, zlib.error)
"""What NumPy and its zip archives raise where a file is broken."""

# What safetensors calls the types of numbers that NumPy and ml_dtypes can read: no complex numbers, none of the 4, 6
# and 8 bit floats.
_NAMES = {
    **{f"F{bits}": f"float{bits}" for bits in (64, 32, 16)},
    **{f"I{bits}": f"int{bits}" for bits in (64, 32, 16, 8)},
    **{f"U{bits}": f"uint{bits}" for bits in (64, 32, 16, 8)},
    "BF16": "bfloat16",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class Tensor:
    """An array in a file."""

    dtype: str
    """As NumPy calls it, also bfloat16; as the file calls it where NumPy cannot read it."""
    shape: tuple[int, ...]
    read: Callable[[Index], npt.NDArray[Any]]
    """Return a part of a matrix."""

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """Return some rows of a matrix."""
        return self.read((rows, slice(None)))

    @property
    def real(self) -> bool:
        """Whether it holds real numbers that can be read."""
        try:
            return self.dtype == "bfloat16" or np.can_cast(np.dtype(self.dtype), np.float64, "same_kind")
        except TypeError:  # a name that NumPy does not know
            return False


def open_tensors(path: Path, kind: str) -> dict[str, Tensor]:
    """Return the arrays in a file of one of the types in `SUFFIXES`, by their keys; a single one without is at "".

    Arrays that are compressed inside an .npz file are read into memory; all others are read in parts.

    Raises `ValueError` for a broken file and `ImportError` if an optional library is missing.
    """
    return SUFFIXES[kind](path)


def require_key(path: Path, key: str, keys: Collection[str], listed: str) -> str:
    """Return the key if it is there."""
    if key not in keys:
        raise ValueError(f"{path}: there is no key {key!r}; the keys are {listed}")
    return key


def read_arrays(path: StrPath) -> Arrays:
    """Return all arrays of an .npz file, read-only; what NumPy raises for a broken one passes."""
    with Path(path).open("rb") as file:  # which NumPy leaves open if it is broken
        if not zipfile.is_zipfile(file):
            raise ValueError("it is not a zip file")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def write_arrays(path: StrPath, arrays: Mapping[str, Any], *, compressed: bool = True) -> None:
    """Write arrays of numbers and text to an .npz file, which replaces an older one as a whole.

    Raises `ValueError` if the path does not end in .npz, and `OSError` if the file cannot be written.
    """
    known_suffix(path, ".npz")
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise TypeError(f"array {name} must hold numbers or text, got {array.dtype}")
    save: Callable[..., None] = np.savez_compressed if compressed else np.savez
    with replacing(path) as temporary:
        save(temporary, **plain)


def _open_safetensors(path: Path) -> dict[str, Tensor]:
    library, _ = (
        optional_module("safetensors", "safetensors"),
        optional_module("ml_dtypes", "safetensors"),
    )  # for bfloat16

    def opened(key: str) -> Any:
        return library.safe_open(path, framework="numpy").get_slice(key)

    def stored(key: str, tensor: Any) -> Tensor:
        dtype = tensor.get_dtype()
        return Tensor(_NAMES.get(dtype, dtype), tuple(tensor.get_shape()), lambda index: opened(key)[index])

    with readable_file(path, library.SafetensorError):
        file = library.safe_open(path, framework="numpy")
        return {key: stored(key, file.get_slice(key)) for key in file.keys()}  # noqa: SIM118  (not a mapping)


def _open_npy(path: Path) -> dict[str, Tensor]:
    with readable_file(path, ValueError, EOFError), path.open("rb") as file:
        stored = _mapped(path, file)
        if stored is None:
            raise ValueError("unknown version of the format")
        if len(stored.shape) == 2 and 0 not in stored.shape and stored.real:
            stored.read((slice(0, 1), slice(0, 1)))  # a truncated file cannot be mapped
    return {"": stored}


def _open_npz(path: Path) -> dict[str, Tensor]:
    with readable_file(path, *BROKEN), zipfile.ZipFile(path) as archive:
        return {
            info.filename.removesuffix(".npy"): _member(path, archive, info)
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    """Return an array of an .npz file: mapped if it lies there as it is, else decompressed when first read."""
    if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
        with path.open("rb") as file:
            file.seek(info.header_offset + 26)  # the local header is 30 bytes, and ends in the lengths of what follows
            lengths = [int.from_bytes(file.read(2), "little") for _ in range(2)]
            file.seek(sum(lengths), os.SEEK_CUR)
            stored = _mapped(path, file)
        if stored is not None:
            return stored
    with archive.open(info) as member:
        dtype, shape, _ = _npy_header(member) or (np.dtype(object), (), False)
    whole: list[npt.NDArray[Any]] = []

    def read(index: Index) -> npt.NDArray[Any]:
        if not whole:
            with readable_file(path, *BROKEN), np.load(path) as arrays:
                whole.append(arrays[info.filename.removesuffix(".npy")])
        return whole[0][index]

    return Tensor(dtype.name, shape, read)


def _mapped(path: Path, file: IO[bytes]) -> Tensor | None:
    """Return the array whose .npy header starts where ``file`` is, to be mapped; None if the version is unknown."""
    header = _npy_header(file)
    if header is None:
        return None
    dtype, shape, fortran = header
    offset = file.tell()
    order: Literal["C", "F"] = "F" if fortran else "C"

    def read(index: Index) -> npt.NDArray[Any]:
        part: npt.NDArray[Any] = np.memmap(path, dtype, "r", offset, shape, order)[index]
        return part

    return Tensor(dtype.name, shape, read)


def _npy_header(file: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], bool] | None:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    reader = readers.get(np.lib.format.read_magic(file))
    if reader is None:
        return None
    shape, fortran, dtype = reader(file)
    return dtype, shape, fortran


def _open_torch(path: Path) -> dict[str, Tensor]:
    torch = optional_module("torch", "torch")

    def load() -> dict[str, Any]:
        try:
            with readable_file(path, RuntimeError, EOFError, OSError):
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:
            raise ValueError(
                f"{path}: holds other objects than tensors, and those are not unpickled; save the state_dict() alone"
            ) from None
        return dict(_tensors(torch, content))

    def stored(key: str, tensor: Any) -> Tensor:
        dtype = str(tensor.dtype).removeprefix("torch.")
        precision = torch.float64 if dtype == "float64" else torch.float32

        def read(index: Index) -> npt.NDArray[Any]:
            part: npt.NDArray[Any] = load()[key].detach()[index].to(precision).numpy()
            return part

        return Tensor(dtype, tuple(tensor.shape), read)

    return {key: stored(key, tensor) for key, tensor in load().items()}


def _tensors(torch: Any, content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dense tensors in nested dictionaries, with their keys joined by dots."""
    if isinstance(content, torch.Tensor):
        if content.layout == torch.strided:
            yield name, content
    elif isinstance(content, Mapping):
        for key, entry in content.items():
            yield from _tensors(torch, entry, f"{name}.{key}" if name else str(key))


SUFFIXES: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": _open_safetensors,
    ".npz": _open_npz,
    ".npy": _open_npy,
    ".pt": _open_torch,
    ".pth": _open_torch,
}
