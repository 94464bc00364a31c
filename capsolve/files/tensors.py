"""Arrays in safetensors, NumPy and PyTorch files; here these formats are opened.

Every part of an array is read by opening the file anew, so what has been mapped is given back with it. Nothing is ever
unpickled, but for tensors and plain containers in PyTorch files.
"""

from __future__ import annotations

import json
import math
import pickle
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from capsolve._checks import shown
from capsolve.files._paths import StrPath, known_suffix, optional_module, readable_file, regular_file, replacing

Index = tuple[Any, ...]
Arrays = dict[str, Any]

INDEX = ".json"
"""Type of the file that says in which other files the arrays of a model are."""

_LARGEST_TEXT = 2**26  # bytes of a JSON file
_MOST_ENTRIES = 2**20  # of the dictionaries in a PyTorch file: one may stand in many places

# What safetensors calls the types of numbers that NumPy and ml_dtypes can read: no complex numbers, none of the 4 and
# 6 bit floats.
_NAMES = {
    **{f"F{bits}": f"float{bits}" for bits in (64, 32, 16)},
    **{f"I{bits}": f"int{bits}" for bits in (64, 32, 16, 8)},
    **{f"U{bits}": f"uint{bits}" for bits in (64, 32, 16, 8)},
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
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
    """Return the arrays in a file of a type in `SUFFIXES`, or of `INDEX`, by their keys; one without is at "".

    Arrays that are compressed inside an .npz file are read into memory; all others are read in parts.

    Raises `ValueError` for a broken file, also while a part is read, and `ImportError` if an optional library is
    missing.
    """
    with readable_file(path):
        return {key: _about(path, tensor) for key, tensor in (SUFFIXES | {INDEX: _open_index})[kind](path).items()}


def _about(path: Path, tensor: Tensor) -> Tensor:
    def read(index: Index) -> npt.NDArray[Any]:
        with readable_file(path):
            return tensor.read(index)

    return replace(tensor, read=read)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; one that is broken or too large is a `ValueError`."""
    regular_file(path)
    with readable_file(path):
        if path.stat().st_size > _LARGEST_TEXT:
            raise ValueError(f"larger than {_LARGEST_TEXT} bytes")
        return json.loads(path.read_text(encoding="utf-8"))


def require_key(path: Path, key: str, keys: Collection[str], listed: str) -> str:
    """Return the key if it is there."""
    if key not in keys:
        raise ValueError(f"{path}: there is no key {shown(repr(key))}; the keys are {listed}")
    return key


def read_arrays(path: StrPath) -> Arrays:
    """Return all arrays of an .npz file, read-only; a broken one is a `ValueError`."""
    arrays = {name: np.array(entry.read((...,))) for name, entry in open_tensors(Path(path), ".npz").items()}
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
    library = optional_module("safetensors", "safetensors")
    optional_module("ml_dtypes", "safetensors")  # for short floats
    file = library.safe_open(path, framework="numpy")  # which finds what is broken
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))

    def stored(key: str, tensor: Any) -> Tensor:
        dtype = _NAMES.get(tensor.get_dtype(), tensor.get_dtype())
        offset, shape = 8 + length + header[key]["data_offsets"][0], tuple(tensor.get_shape())
        return Tensor(dtype, shape, lambda index: _mapped(path, np.dtype(dtype), shape, offset)[index])

    return {key: stored(key, file.get_slice(key)) for key in file.keys()}  # noqa: SIM118  (not a mapping)


def _open_npy(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        dtype, shape, fortran = _npy_header(file, path.stat().st_size)
        offset = file.tell()
    return {"": Tensor(dtype.name, shape, lambda index: _mapped(path, dtype, shape, offset, fortran)[index])}


def _open_npz(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        if not members:
            raise ValueError("there are no arrays in it")
        return {info.filename.removesuffix(".npy"): _member(path, archive, info) for info in members}


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    """Return an array of an .npz file: mapped if it lies there as it is, else decompressed when first read."""
    with archive.open(info) as member:
        dtype, shape, fortran = _npy_header(member, info.file_size)
        header = member.tell()
    stored = info.compress_type == zipfile.ZIP_STORED
    whole: list[npt.NDArray[Any] | None] = []  # None where it is mapped; both once its checksum has been compared

    def read(index: Index) -> npt.NDArray[Any]:
        if not whole:
            with zipfile.ZipFile(path) as again, again.open(info) as member:
                array = None if stored else np.lib.format.read_array(member, allow_pickle=False)
                while member.read(2**20):  # to the end, where the checksum is
                    pass
            whole.append(array)
        if whole[0] is None:
            return _mapped(path, dtype, shape, _start(path, info) + header, fortran)[index]
        return whole[0][index]

    return Tensor(dtype.name, shape, read)


def _start(path: Path, info: zipfile.ZipInfo) -> int:
    """Return where the bytes of a member begin: its header of 30 bytes ends in the lengths of what follows."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = [int.from_bytes(file.read(2), "little") for _ in range(2)]
    return info.header_offset + 30 + sum(lengths)


def _mapped(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int, fortran: bool = False
) -> npt.NDArray[Any]:
    if dtype.hasobject:
        raise ValueError("it holds objects, and those are not unpickled")
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def _npy_header(file: IO[bytes], size: int) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Return type, shape and order of an array of that many bytes, header included, of which ``file`` is at the start.

    Raises `ValueError` if the numbers are more than the bytes: what follows belongs to something else.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    reader = readers.get(np.lib.format.read_magic(file))
    if reader is None:
        raise ValueError("unknown version of the format")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd in a header that can be read, such as that of Python 2
        shape, fortran, dtype = reader(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"the shape is {shape}")
    announced, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if announced > there and not dtype.hasobject:
        raise ValueError(f"{there} bytes of numbers are there, {announced} are announced")
    return dtype, shape, fortran


def _open_torch(path: Path) -> dict[str, Tensor]:
    torch = optional_module("torch", "torch")
    mapped = zipfile.is_zipfile(path)  # before PyTorch 1.6 it was something else, which is read as a whole

    def load() -> dict[str, Any]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of PyTorch about itself
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            if "GLOBAL" not in str(error):
                raise ValueError("torch.save has not written it, or something was changed since") from None
            raise ValueError(
                f"{path}: holds other objects than tensors, and those are not unpickled; save the state_dict() alone"
            ) from None
        return dict(_tensors(torch, content))

    whole = load()
    return {key: _torch_tensor(torch, key, tensor, load if mapped else whole.copy) for key, tensor in whole.items()}


def _torch_tensor(torch: Any, key: str, tensor: Any, load: Callable[[], dict[str, Any]]) -> Tensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    precision = torch.float64 if dtype == "float64" else torch.float32

    def read(index: Index) -> npt.NDArray[Any]:
        part: npt.NDArray[Any] = load()[key].detach()[index].to(precision).numpy()
        return part

    return Tensor(dtype, tuple(tensor.shape), read)


def _tensors(torch: Any, content: Any) -> Iterator[tuple[str, Any]]:
    """Yield the dense tensors in nested dictionaries, with their keys joined by dots."""
    waiting, seen = [("", content)], 0
    while waiting:
        name, entry = waiting.pop()
        seen += 1
        if seen > _MOST_ENTRIES:
            raise ValueError(f"it has more than {_MOST_ENTRIES} entries")
        if isinstance(entry, torch.Tensor):
            if entry.layout == torch.strided:
                yield name, entry
        elif isinstance(entry, Mapping):
            below = [(f"{name}.{key}" if name else str(key), inner) for key, inner in entry.items()]
            waiting += reversed(below)


def _open_index(path: Path) -> dict[str, Tensor]:
    """Return the arrays of a model in several files, which a JSON file lists, where each key is."""
    content = read_json(path)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise ValueError("there is no weight_map: it is not the index of a model in several files")
    found: dict[str, Tensor] = {}
    for place in sorted(set(places.values())):
        file, kind = path.with_name(Path(place).name), Path(place).suffix.lower()
        if Path(place).name != place or kind not in SUFFIXES or not file.is_file():
            raise ValueError(f"there is no file of weights {shown(place)} beside it")
        there = open_tensors(file, kind)
        for key in (key for key in places if places[key] == place):
            if key not in there:
                raise ValueError(f"there is no key {shown(repr(key))} in {shown(place)}")
            found[key] = there[key]
    return found


SUFFIXES: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": _open_safetensors,
    ".npz": _open_npz,
    ".npy": _open_npy,
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), _open_torch),
}
