"""Activations, samples by features, as streams: any size, from text, Parquet, NumPy and safetensors files."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from capsolve._checks import FloatArray
from capsolve.files._paths import StrPath, existing_file, optional_module, readable_file
from capsolve.files.tables import csv_rows, number, parquet_file, refuse_duplicates, wrong_width
from capsolve.files.tensors import open_tensors, require_key

_KEYED = (".npz", ".safetensors")
_CHUNK = 2**16  # cells of a text or Parquet file that are converted at a time


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


def read_activations(path: StrPath, *, key: str | None = None) -> Activations:
    """Open a file of activations, samples × features, to be streamed.

    ========================  ==============================================================================
    ``.npy``                  memory-mapped
    ``.npz``                  one array, memory-mapped or, if it is compressed, decompressed in memory; ``key``
                              says which one if there are several
    ``.csv``                  numbers; the first row may hold the features' names (a first row 0, 1, …, n − 1
                              counts as names, as data frames write them)
    ``.parquet``              columns of numbers with their names, read by row groups
    ``.safetensors``          one tensor, read by slices; ``key`` as above (bfloat16 included)
    ========================  ==============================================================================

    Raises
    ------
    ValueError
        If the file type or the key is unknown, there are several arrays and no key, what is there is not a
        two-dimensional array of real numbers, or the file is broken. In text, a bad cell is found when the data are
        read; path, row and column are named.
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
        return _open_csv(path)
    if kind == ".parquet":
        return _open_parquet(path)
    return _open_tensor(path, kind, key)


def _open_csv(path: Path) -> Activations:
    row, first = next(csv_rows(path))
    numeric = [_is_number(cell) for cell in first]
    if any(numeric) and not all(numeric):
        strange = first[numeric.index(False)]
        raise ValueError(f"{path}: row {row} must be all numbers or all names, got numbers and {strange!r}")
    header = not all(numeric) or (len(first) > 1 and first == [str(i) for i in range(len(first))])
    names = tuple(first) if header else None
    if names:
        refuse_duplicates(path, names)
    return Activations(_CsvChunks(path, len(first), names), names)


@dataclass(frozen=True)
class _CsvChunks:
    """The rows of a CSV file of numbers, in chunks."""

    path: Path
    width: int
    names: tuple[str, ...] | None

    def __iter__(self) -> Iterator[FloatArray]:
        rows = csv_rows(self.path)
        if self.names is not None:
            next(rows)
        while batch := list(islice(rows, max(1, _CHUNK // self.width))):
            yield self._numbers(batch)

    def _numbers(self, batch: list[tuple[int, list[str]]]) -> FloatArray:
        for row, cells in batch:
            if len(cells) != self.width:
                raise wrong_width(self.path, row, cells, self.width)
        try:
            block = np.array([list(map(float, cells)) for _, cells in batch])
            if np.isfinite(block).all() and not any("_" in "".join(cells) for _, cells in batch):
                return block
        except ValueError:
            pass
        parse = number()
        for row, cells in batch:
            for column, cell in enumerate(cells):
                try:
                    parse(cell)
                except ValueError as error:
                    name = self.names[column] if self.names else column
                    raise ValueError(f"{self.path}: row {row}, column {name}: {error}") from None
        raise AssertionError("unreachable: a batch that cannot be converted has a bad cell")


def _open_parquet(path: Path) -> Activations:
    types = optional_module("pyarrow.types", "parquet")
    with parquet_file(path) as file:
        schema = file.schema_arrow
    refuse_duplicates(path, schema.names)
    for field in schema:
        if not (types.is_integer(field.type) or types.is_floating(field.type) or types.is_boolean(field.type)):
            raise ValueError(f"{path}: column {field.name} must hold numbers, got {field.type}")
    return Activations(_ParquetChunks(path, tuple(schema.names)), tuple(schema.names))


@dataclass(frozen=True)
class _ParquetChunks:
    """The rows of a Parquet file of numbers, in chunks."""

    path: Path
    names: tuple[str, ...]

    def __iter__(self) -> Iterator[FloatArray]:
        arrow = optional_module("pyarrow", "parquet")
        with parquet_file(self.path) as file, readable_file(self.path, arrow.ArrowException, OSError):
            start = 1
            for batch in file.iter_batches(batch_size=max(1, _CHUNK // len(self.names))):
                # nulls become NaN
                columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
                block = np.stack(columns, axis=1).astype(np.float64)
                bad = np.argwhere(~np.isfinite(block))
                if bad.size:
                    row, column = bad[0].tolist()
                    cell = batch.column(column)[row].as_py()
                    where = f"{self.path}: row {start + row}, column {self.names[column]}"
                    raise ValueError(f"{where}: must be a finite number, got {cell}")
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
