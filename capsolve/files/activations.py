"""Activations, samples by features, as streams: any size, from text, Parquet, NumPy and safetensors files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from capsolve._checks import FloatArray, shown
from capsolve.files._paths import StrPath, existing_file, optional_module, readable_file
from capsolve.files.tables import (
    bad_cell,
    counts_rows,
    csv_rows,
    number,
    parquet_file,
    parquet_index,
    unnamed_columns,
    wrong_width,
)
from capsolve.files.tensors import open_tensors, require_key
from capsolve.moments import MINIMUM_SAMPLES

_KEYED = (".npz", ".safetensors")
_CHUNK = 2**16  # cells of a text or Parquet file that are converted at a time
_LOOK = 100  # rows of a text file that decide whether there is a header or an index


@dataclass(frozen=True, eq=False)
class Activations:
    """What a file of activations holds.

    Pass it on as ``Profile.from_activations(activations.data, names=activations.names)``.
    """

    data: Any
    """Samples × features: an array, perhaps memory-mapped, or something that can be iterated over, again and again,
    for chunks of samples; whatever the file's size, only the part at work is in memory (but see .npz)."""
    names: tuple[str, ...] | None
    """The names of the features, where the file has any."""


def read_activations(path: StrPath, *, key: str | None = None, header: bool | None = None) -> Activations:
    """Open a file of activations, samples × features, to be streamed.

    ========================  ==============================================================================
    ``.npy``                  memory-mapped
    ``.npz``                  one array, memory-mapped or, if it is compressed, decompressed in memory; ``key``
                              says which one if there are several
    ``.csv``                  numbers; the first row may hold the features' names, which may be numbers; columns
                              without a name before the others are the index of a data frame and passed over
    ``.parquet``              columns of numbers with their names, read by row groups; an index is passed over
    ``.safetensors``          one tensor, read by slices; ``key`` as above (bfloat16 included)
    ========================  ==============================================================================

    Parameters
    ----------
    path : path
        The file.
    key : str, optional
        Which array of a file that has several.
    header : bool, optional
        Whether the first row of a CSV file holds names. By default what stands there and below decides.

    Raises
    ------
    ValueError
        If the file type or the key is unknown, there are several arrays and no key, what is there is not a
        two-dimensional array of real numbers, the first row of a CSV file may be names or numbers, a first column
        numbers the rows or has no name and is no index either, or the file is broken. In text, a bad cell is found when
        the data are read; path, row and column are named.
    OSError
        If the file is missing, unreadable or a directory.
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
    >>> Profile.from_activations(activations.data, names=activations.names)
    Profile(3 features, importance 0.9... … 1.0..., kurtosis 2.7... … 3.1..., measured)
    """
    path, kind = existing_file(path, ".npy", ".npz", ".csv", ".parquet", ".safetensors")
    if key is not None and kind not in _KEYED:
        raise ValueError(f"{path}: a key is for {' and '.join(_KEYED)} files, got {key!r}")
    if kind == ".csv":
        return _open_csv(path, header)
    if header is not None:
        raise ValueError(f"{path}: a header is for .csv files, got header={header!r}")
    if kind == ".parquet":
        return _open_parquet(path)
    return _open_tensor(path, kind, key)


def _open_csv(path: Path, header: bool | None) -> Activations:
    rows = csv_rows(path)
    row, first = next(rows)
    body = [cells for _, cells in islice(rows, _LOOK) if len(cells) == len(first)]
    if not _has_header(path, row, first, body, header):
        return Activations(_CsvChunks(path, len(first), 0, None), None)
    index = unnamed_columns(first)
    for column in range(index):
        _require_index(path, column, [cells[column] for cells in body])
    names = _names(path, first[index:])
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


def _refuse_index(path: Path, name: str | int, block: FloatArray) -> None:
    """Refuse a first column that numbers the samples: taken for a feature it would be the one of all importance.

    It counts from 0 or 1, or holds different whole numbers where the other columns hold none but zeros.
    """
    block = block[:_LOOK]
    first, others = block[:, 0], block[:, 1:]
    whole = np.unique(first).size == first.size >= MINIMUM_SAMPLES and (first == np.floor(first)).all()
    if whole and (
        any(np.array_equal(first, np.arange(first.size) + start) for start in (0, 1))
        or (others.any() and not ((others == np.floor(others)) & (others != 0)).any())
    ):
        raise ValueError(f"{path}: column {shown(str(name))} numbers the rows, as an index does: leave it out")


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
        for row, cells in batch:
            if len(cells) != self.width:
                raise wrong_width(self.path, row, cells, self.width)
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
    with parquet_file(path) as file:
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
    columns: list[int]
    names: tuple[str, ...]

    def __iter__(self) -> Iterator[FloatArray]:
        arrow = optional_module("pyarrow", "parquet")
        with parquet_file(self.path) as file, readable_file(self.path, arrow.ArrowException, OSError):
            start = 1
            for batch in file.iter_batches(batch_size=max(1, _CHUNK // len(self.names))):
                # nulls become NaN
                columns = [batch.column(i).to_numpy(zero_copy_only=False) for i in self.columns]
                block = np.stack(columns, axis=1).astype(np.float64)
                bad = np.argwhere(~np.isfinite(block))
                if bad.size:
                    row, column = bad[0].tolist()
                    cell = batch.column(self.columns[column])[row].as_py()
                    raise bad_cell(self.path, start + row, self.names[column], f"must be a finite number, got {cell}")
                if start == 1:
                    _refuse_index(self.path, self.names[0], block)
                yield block
                start += len(block)


def _open_tensor(path: Path, kind: str, key: str | None) -> Activations:
    tensors = open_tensors(path, kind)
    tensor = tensors[_only(path, key, tensors)]
    if len(tensor.shape) != 2:
        raise ValueError(f"{path}: activations must be 2-D, samples by features, got shape {tensor.shape}")
    if not tensor.real:
        raise ValueError(f"{path}: activations must hold real numbers, got dtype {tensor.dtype}")
    # NumPy's own formats are mapped, or decompressed in memory; of others, rows are read when asked for
    return Activations(tensor if kind == ".safetensors" else tensor[:], None)


def _only(path: Path, key: str | None, keys: Collection[str]) -> str:
    listed = ", ".join(sorted(keys)) or "none"
    if key is not None:
        return require_key(path, key, keys, listed)
    if len(keys) != 1:
        raise ValueError(f"{path}: a key is needed to choose one of the arrays; the keys are {listed}")
    return next(iter(keys))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_whole(cell: str) -> bool:
    return _is_number(cell) and float(cell).is_integer()
