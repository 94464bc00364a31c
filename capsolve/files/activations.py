"""Activations, samples by features, as streams: any size, from text, Parquet, NumPy, PyTorch and safetensors files."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from capsolve._checks import FloatArray, listed, shown
from capsolve.files._paths import StrPath, existing_file, optional_module, readable_file, require_path
from capsolve.files.tables import (
    as_meant,
    bad_cell,
    counts_rows,
    csv_rows,
    number,
    parquet_file,
    parquet_index,
    unnamed_columns,
)
from capsolve.files.tensors import SUFFIXES, Tensor, open_tensors, require_key
from capsolve.moments import MINIMUM_SAMPLES

KINDS = (".csv", ".parquet", *SUFFIXES)
_KEYLESS = (".csv", ".parquet", ".npy")
_SLICED = (".npy", ".npz", ".safetensors")  # a few rows cost little
_BLOCK = 2**22  # numbers of a tensor that are read at a time
_LONGEST_SPARSE = 2**28  # whatever the number of entries, memory is taken for every row and column
_CHUNK = 2**16  # cells of a text or Parquet file that are converted at a time
_LOOK = 100  # rows of a text file that decide whether there is a header or an index
_RISES = 10  # different values of a column that never falls: of a feature, that has a chance of 1 in 10!


@dataclass(frozen=True, eq=False)
class Activations:
    """What a file of activations holds, or several; `capsolve.Profile.from_activations` takes it."""

    data: Any
    """Samples × features: an array, perhaps memory-mapped, or something that can be iterated over, again and again,
    for chunks of samples; whatever the file's size, only the part at work is in memory (but see .npz)."""
    names: tuple[str, ...] | None
    """The names of the features, where the file has any."""
    note: str | None = None
    """How the file was read, where that is not plain from its type."""
    sources: tuple[Path, ...] = ()
    """Which files it was."""


def read_activations(
    path: StrPath | Iterable[StrPath], *, key: str | None = None, header: bool | None = None
) -> Activations:
    """Open a file of activations, samples × features, to be streamed; or several, or a folder of them.

    Arrays may have three axes, batch × position × feature: then each position of each batch is a sample, and a `note`
    says so.

    ========================  ==============================================================================
    ``.npy``                  memory-mapped
    ``.npz``                  one array, memory-mapped or, if it is compressed, decompressed in memory; or a sparse
                              matrix of SciPy, in memory
    ``.csv``                  numbers; the first row may hold the features' names, which may be numbers; columns
                              without a name before the others are the index of a data frame and passed over
    ``.parquet``              columns of numbers with their names, read by row groups; an index is passed over
    ``.safetensors``          one tensor, read by slices
    ``.pt``, ``.pth``         one tensor, as written by ``torch.save`` alone or in dictionaries, read by slices
    ========================  ==============================================================================

    Parameters
    ----------
    path : path, or iterable of paths
        A file, or a folder: all files of the types above in it and in the folders below, which must be of one type. All
        files must have the same columns.
    key : str, optional
        Which array of a file that has several. By default the only one with two or three axes.
    header : bool, optional
        Whether the first row of a CSV file holds names. By default what stands there and below decides.

    Raises
    ------
    ValueError
        If the file type or the key is unknown, there are several arrays and no key, what is there is not a two- or
        three-dimensional array of real numbers, files differ in their columns, the first row of a CSV file may be names
        or numbers, a first column numbers the rows or has no name and is no index either, or the file is broken. In
        text, a bad cell is found when the data are read; path, row and column are named.
    OSError
        If a file is missing or unreadable.
    ImportError
        If an optional library is missing; it names the extra to install.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from capsolve import Profile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "x.npy")
    >>> np.save(path, np.random.default_rng(0).standard_normal((1000, 3)))
    >>> activations = read_activations(path)
    >>> Profile.from_activations(activations)
    Profile(3 features, importance 0.9... … 1.0..., kurtosis 2.7... … 3.1..., measured)
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    files = [file for given in paths for file in _files(given)]
    if not files:
        raise ValueError("path must name at least one file, got none")
    parts = [_open(file, key, header) for file in files]
    joined = parts[0] if len(parts) == 1 else _joined(files, parts)
    return replace(joined, sources=tuple(files))


def as_activations(given: Any) -> Activations:
    """Return activations that were read already, those in a file or in a data frame, or wrap an array as it is."""
    if isinstance(given, Activations):
        return given
    if isinstance(given, str | os.PathLike) or (
        isinstance(given, list | tuple) and given and all(isinstance(entry, str | os.PathLike) for entry in given)
    ):
        return read_activations(given)
    columns = getattr(given, "column_names", getattr(given, "columns", None))  # of PyArrow; pandas, Polars
    if columns is None or not hasattr(given, "shape"):
        return Activations(given, None)
    data = given.to_numpy() if hasattr(given, "to_numpy") else np.asarray(given)
    names = tuple(str(column) for column in columns)
    if names and data.dtype.kind in "iuf":
        _refuse_index("activations", names[0], data)
    return Activations(data, names)


def _files(path: StrPath) -> list[Path]:
    """Return the files in a folder, in order of their paths, or the file itself."""
    folder = require_path(path)
    if not folder.is_dir():
        return [folder]
    found = [
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in KINDS and not file.is_dir() and not file.name.startswith(".")
    ]
    kinds = sorted({file.suffix.lower() for file in found})
    if len(kinds) != 1:
        got = f"types {', '.join(kinds)}; name those to be read" if kinds else "no such file"
        raise ValueError(f"{path}: a folder of activations must have files of one of {', '.join(KINDS)}, got {got}")
    return sorted(found)


def _open(path: Path, key: str | None, header: bool | None) -> Activations:
    path, kind = existing_file(path, *KINDS)
    if key is not None and kind in _KEYLESS:
        raise ValueError(f"{path}: a key is for files of several arrays, got {key!r}")
    if kind == ".csv":
        return _open_csv(path, header)
    if header is not None:
        raise ValueError(f"{path}: a header is for .csv files, got header={header!r}")
    return _open_parquet(path) if kind == ".parquet" else _open_tensor(path, kind, key)


def _joined(files: list[Path], parts: list[Activations]) -> Activations:
    for file, part in zip(files, parts, strict=True):
        if part.names != parts[0].names:
            names = [f"names {listed(given)}" if given else "none" for given in (parts[0].names, part.names)]
            raise ValueError(f"{file}: must have the columns of {files[0]}, {names[0]}, got {names[1]}")
    notes = [part.note for part in parts if part.note is not None]
    more = f", and {len(notes) - 1} more files" if len(notes) > 1 else ""
    return Activations(_Joined(files, parts), parts[0].names, notes[0] + more if notes else None)


@dataclass(frozen=True)
class _Joined:
    """The samples of several files, in chunks."""

    files: list[Path]
    parts: list[Activations]

    def __iter__(self) -> Iterator[Any]:
        width = None
        for file, part in zip(self.files, self.parts, strict=True):
            row = 0
            for chunk in _chunks(part.data):
                width = width or chunk.shape[1]
                if chunk.shape[1] != width:
                    raise ValueError(f"{file}: must have {width} columns, as {self.files[0]} has, got {chunk.shape[1]}")
                _require_finite(file, chunk, row)
                yield chunk
                row += chunk.shape[0]


def _chunks(data: Any) -> Iterator[Any]:
    """Yield samples that are one array in chunks, and those that come in chunks as they are."""
    if not hasattr(data, "shape"):
        yield from data
    elif hasattr(data, "tocsr"):  # a sparse matrix
        yield data
    else:
        yield from (data[rows] for rows in _cut(data.shape))


def _cut(shape: Sequence[int]) -> Iterator[slice]:
    """Yield the rows of an array in parts of bounded size."""
    step = max(1, _BLOCK // max(1, math.prod(shape[1:])))
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def _require_finite(file: Path, chunk: Any, row: int) -> None:
    """Complain of an entry of one of several files; where there is but one, whoever takes the samples does."""
    bad = np.argwhere([] if hasattr(chunk, "tocsr") else ~np.isfinite(chunk))
    if bad.size:
        i, column = bad[0].tolist()
        raise ValueError(f"{file}: must be finite, got {chunk[i, column]} at row {row + i}, column {column}")


def _open_csv(path: Path, header: bool | None) -> Activations:
    rows = csv_rows(path)
    row, first = next(rows)
    body = [cells for _, cells in islice(rows, _LOOK)]
    if not _has_header(path, row, first, body, header):
        return Activations(_CsvChunks(path, len(first), 0, None), None)
    index = unnamed_columns(first)
    for column in range(index):
        _require_index(path, column, [cells[column] for cells in body])
    names = _names(path, map(as_meant, first[index:]))
    return Activations(_CsvChunks(path, len(first), index, names), names)


def _has_header(path: Path, row: int, first: list[str], body: list[list[str]], header: bool | None) -> bool:
    """Return whether the first row of a CSV file holds names; where it may hold either, refuse.

    A row of different whole numbers may be names, for latents go by their numbers. It is if no number below it is
    written as a whole one, zeros apart: a sample would be written as the others are. So is 0, 1, …, n − 1 for many n.
    """
    say = "say --header or --no-header (in Python: header=True or False)"
    if header is not None:
        return header
    if unnamed_columns(first):
        return True
    strange = [cell for cell in first if not _is_number(cell)]
    if 0 < len(strange) < len(first):
        got = shown(repr(strange[0]))
        raise ValueError(f"{path}: row {row} must be all numbers or all names, got numbers and {got}; {say}")
    if strange:
        return True
    digits = all(cell.isdecimal() for cell in first)
    whole = str.isdecimal if digits else _is_whole
    if len(set(first)) < len(first) or not all(map(whole, first)) or not body:
        return False
    below = {cell for cells in body for cell in cells if whole(cell)}
    some = any(map(float, below))
    if digits and ((not some and (len(first) > 1 or not below)) or (len(first) > 5 and counts_rows(first))):
        return True
    if not digits and (some or len(first) == 1):
        return False
    raise ValueError(f"{path}: row {row} may hold the features' names or the first sample; {say}")


def _require_index(path: Path, column: int, cells: list[str]) -> None:
    """Refuse a column without a name that may be a feature: an index is text or different whole numbers."""
    numbers = [cell for cell in cells if _is_number(cell)]
    if numbers and not (len(set(cells)) == len(cells) and all(map(_is_whole, cells))):
        raise ValueError(
            f"{path}: column {column + 1} has no name, and its numbers are no index: name it if it is a feature, "
            "else leave it out"
        )


def _names(path: Path, names: Iterable[str]) -> tuple[str, ...]:
    names = tuple(names)
    if not names:
        raise ValueError(f"{path}: there are no columns, or none but an index")
    return names


def _refuse_index(where: object, name: str | int, block: FloatArray) -> None:
    """Refuse a first column that numbers the samples: taken for a feature it would be the one of all importance.

    It never falls while it rises often, as no feature of so many samples does; or it holds different whole numbers
    where the other columns hold none but zeros.
    """
    block = block[:_LOOK]
    first, others = block[:, 0], block[:, 1:]
    values = np.unique(first).size
    rising = values >= _RISES and (np.diff(first) >= 0).all()
    whole = values == first.size and (first == np.floor(first)).all() and others.any()
    if len(block) >= MINIMUM_SAMPLES and (
        rising or (whole and not ((others == np.floor(others)) & (others != 0)).any())
    ):
        raise ValueError(f"{where}: column {shown(str(name))} numbers the rows, as an index does: leave it out")


@dataclass(frozen=True)
class _CsvChunks:
    """The rows of a CSV file of numbers, in chunks."""

    path: Path
    width: int
    index: int  # columns to be passed over
    names: tuple[str, ...] | None

    def __iter__(self) -> Iterator[FloatArray]:
        rows = csv_rows(self.path)
        if self.names is not None:
            next(rows)
        start = True
        while batch := list(islice(rows, max(1, _CHUNK // self.width))):
            block = self._numbers(batch)
            if start:
                _refuse_index(self.path, self._name(0), block)
            start = False
            yield block

    def _name(self, column: int) -> str | int:
        return self.names[column] if self.names else column

    def _numbers(self, batch: list[tuple[int, list[str]]]) -> FloatArray:
        try:
            block = np.array([list(map(float, cells[self.index :])) for _, cells in batch])
            if np.isfinite(block).all() and not any("_" in "".join(cells[self.index :]) for _, cells in batch):
                return block
        except ValueError:
            pass
        parse = number()
        for row, cells in batch:
            for column, cell in enumerate(cells[self.index :]):
                try:
                    parse(cell)
                except ValueError as error:
                    raise bad_cell(self.path, row, self._name(column), error) from None
        raise AssertionError("unreachable: a batch that cannot be converted has a bad cell")


def _open_parquet(path: Path) -> Activations:
    types = optional_module("pyarrow.types", "parquet")
    with parquet_file(path) as file, readable_file(path):
        schema = file.schema_arrow
    index = parquet_index(schema)
    columns = [i for i in range(len(schema.names)) if i not in index]
    for field in map(schema.field, columns):
        if not (types.is_integer(field.type) or types.is_floating(field.type) or types.is_boolean(field.type)):
            raise ValueError(f"{path}: column {shown(field.name)} must hold numbers, got {shown(str(field.type))}")
    names = _names(path, (schema.names[i] for i in columns))
    return Activations(_ParquetChunks(path, columns, names), names)


@dataclass(frozen=True)
class _ParquetChunks:
    """The rows of a Parquet file of numbers, in chunks."""

    path: Path
    positions: list[int]  # of the features among the columns
    names: tuple[str, ...]

    def __iter__(self) -> Iterator[FloatArray]:
        with parquet_file(self.path) as file, readable_file(self.path):
            start = 1
            for batch in file.iter_batches(batch_size=max(1, _CHUNK // len(self.names))):
                # nulls become NaN
                columns = [batch.column(i).to_numpy(zero_copy_only=False) for i in self.positions]
                block = np.stack(columns, axis=1).astype(np.float64)
                bad = np.argwhere(~np.isfinite(block))
                if bad.size:
                    row, column = bad[0].tolist()
                    cell = batch.column(self.positions[column])[row].as_py()
                    raise bad_cell(self.path, start + row, self.names[column], f"must be a finite number, got {cell}")
                if start == 1:
                    _refuse_index(self.path, self.names[0], block)
                yield block
                start += len(block)


def _open_tensor(path: Path, kind: str, key: str | None) -> Activations:
    with readable_file(path):
        tensors = open_tensors(path, kind)
    if key is None and kind == ".npz" and {"format", "shape", "data"} <= tensors.keys():
        return Activations(_sparse(path), None)
    tensor = tensors[_only(path, key, tensors)]
    if len(tensor.shape) not in {2, 3}:
        got = f"shape {list(tensor.shape)}"
        raise ValueError(f"{path}: activations must be samples × features or batch × position × feature, got {got}")
    if not tensor.real:
        raise ValueError(f"{path}: activations must hold real numbers, got dtype {tensor.dtype}")
    if len(tensor.shape) == 2 and kind in _SLICED:
        # NumPy's own formats are mapped, or decompressed in memory
        with readable_file(path):
            return Activations(tensor if kind == ".safetensors" else tensor[:], None)
    note = None
    if len(tensor.shape) == 3:
        batches, positions, features = tensor.shape
        note = f"{batches} batches of {positions} positions, each a sample of {features} features"
    return Activations(_TensorChunks(path, tensor), None, note)


@dataclass(frozen=True)
class _TensorChunks:
    """The samples along all axes of an array but the last, in chunks."""

    path: Path
    tensor: Tensor

    def __iter__(self) -> Iterator[Any]:
        rest = self.tensor.shape[1:]
        for part in _cut(self.tensor.shape):
            with readable_file(self.path):
                samples = self.tensor.read((part, *[slice(None)] * len(rest))).reshape(-1, rest[-1])
            yield samples


def _sparse(path: Path) -> Any:
    """Read a sparse matrix of SciPy, and check that its indices lie inside: compiled code trusts them."""
    from scipy import sparse  # noqa: PLC0415

    with readable_file(path):
        matrix = sparse.load_npz(path)
        if max(matrix.shape) > _LONGEST_SPARSE:
            raise ValueError(f"must have at most {_LONGEST_SPARSE} rows and columns, got shape {matrix.shape}")
        if matrix.format in {"csr", "csc", "bsr"}:
            matrix.check_format(full_check=True)
    return matrix


def _only(path: Path, key: str | None, tensors: Mapping[str, Tensor]) -> str:
    keys = listed(f"{name} {list(entry.shape)}" for name, entry in sorted(tensors.items())) or "none"
    if key is not None:
        return require_key(path, key, tensors, keys)
    fitting = [name for name, entry in tensors.items() if len(entry.shape) in {2, 3}]
    for found in (fitting, list(tensors)):
        if len(found) == 1:
            return found[0]
    raise ValueError(f"{path}: a key is needed to choose one of the arrays; the keys are {keys}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_whole(cell: str) -> bool:
    return _is_number(cell) and float(cell).is_integer()
