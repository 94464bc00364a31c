"""Profiles and allocations larger than memory: folders of Parquet files, as Dask arrays.

What is wrong with a file is said in one line that names the path, the row (the first is 1) and the column. A folder is
written beside its final place and moved there when it is complete.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from capsolve._checks import FloatArray, shown
from capsolve.allocation import Allocation, Phase, phases
from capsolve.files._paths import StrPath, new_folder, optional_module, readable_file, replacing, require_path
from capsolve.files.tables import found_columns, parquet_file, write_parquet
from capsolve.losses.quadratic import QuadraticLoss

# The columns of a profile, and the least that may stand in them.
_LEAST = {"importance": 0.0, "kurtosis": 1.0}
# Row groups of a file are read together up to so many rows.
_ROWS = 1 << 21


class LazyProfile(NamedTuple):
    """Importance and kurtosis of n features in Parquet files, as Dask arrays: nothing is read until it is needed."""

    importance: Any
    kurtosis: Any

    @property
    def features(self) -> int:
        """The number of features, n."""
        return int(self.importance.size)

    @property
    def names(self) -> None:
        """Names are not read."""


def open_profile(path: StrPath) -> LazyProfile:
    """Open a profile larger than memory: a folder of Parquet files, or a pattern such as ``profile/*.parquet``.

    Each file has the columns ``importance`` and ``kurtosis``; others are ignored. Features are counted in the order of
    the files' paths. Now only their columns and lengths are looked up. `capsolve.solve` takes the two arrays and goes
    through them three times; `capsolve.write_allocation` goes through them once more and writes a folder. On a cluster
    all workers must see the files.

    Raises
    ------
    ValueError
        If there is no Parquet file or no row, a file is broken, or a column is missing, there twice or not of
        numbers. A cell that is not a finite number in its range (importance ≥ 0, kurtosis ≥ 1) is found when it is
        read: with path, row and column.
    OSError
        If a file is unreadable.
    ImportError
        If Dask or PyArrow is missing; it names the extra to install.

    Examples
    --------
    >>> import capsolve, pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for part, importance in enumerate([[2.0, 1.0, 1.0], [1.0, 1.0, 1.0]]):
    ...     capsolve.write_profile(capsolve.Profile(importance, 9.0), folder / f"part-{part}.parquet")
    >>> profile = open_profile(folder)
    >>> profile.features
    6
    >>> allocation = capsolve.solve(profile, dimensions=3)
    >>> allocation.capacity.compute()
    array([1. , 0.4, 0.4, 0.4, 0.4, 0.4])
    """
    da = optional_module("dask.array", "dask")
    pieces = [piece for file in parquet_files(path) for piece in _pieces(file)]
    if not pieces:
        raise ValueError(f"{path}: there are no rows")
    plan = np.empty(len(pieces), dtype=object)
    for number, piece in enumerate(pieces):
        plan[number] = piece
    sizes = (tuple(piece.rows for piece in pieces),)
    columns = (
        da.map_blocks(_column, da.from_array(plan, chunks=1), name, chunks=sizes, dtype=np.float64, meta=np.empty(0))
        for name in _LEAST
    )
    return LazyProfile(*columns)


class _Piece(NamedTuple):
    """Neighbouring row groups of a Parquet file."""

    path: Path
    groups: range
    first: int  # the number of rows before them
    rows: int


def parquet_files(path: StrPath) -> list[Path]:
    """Return the Parquet files in a folder, or that a pattern matches, in order; at least one."""
    folder = require_path(path)
    if folder.is_dir():
        # hidden files are those that are being written
        found = [file for file in folder.rglob("*.parquet") if not file.relative_to(folder).as_posix().startswith(".")]
        found = [file for file in found if not file.is_dir()]
    else:
        found = [folder] if folder.exists() else [Path(file) for file in glob.glob(str(path), recursive=True)]
    if not found:
        raise ValueError(f"{path}: there are no .parquet files")
    return sorted(found)


def _pieces(path: Path) -> Iterator[_Piece]:
    """Yield the pieces that a file is read in, after a look at its columns."""
    types = optional_module("pyarrow.types", "parquet")
    with parquet_file(path) as file, readable_file(path):
        schema, footer = file.schema_arrow, file.metadata
        lengths = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    for name in found_columns(path, schema.names, _LEAST):
        kind = schema.field(name).type
        if not (types.is_integer(kind) or types.is_floating(kind)):
            raise ValueError(f"{path}: column {name} must hold numbers, got {shown(str(kind))}")
    begin = first = rows = 0
    for group, length in enumerate([*lengths, _ROWS]):
        if rows and rows + length > _ROWS:
            yield _Piece(path, range(begin, group), first, rows)
            begin, first, rows = group, first + rows, 0
        rows += length


def _column(plan: Any, name: str) -> FloatArray:
    """Read and check one column of one piece."""
    path, groups, first, rows = plan[0]
    with parquet_file(path) as file, readable_file(path):
        cells = file.read_row_groups(list(groups), columns=[name]).column(0)
    column: FloatArray = cells.to_numpy().astype(np.float64)  # nulls become NaN
    if column.size != rows:
        raise ValueError(f"{path}: there were {rows} rows from row {first + 1} and now there are {column.size}")
    bad = ~(np.isfinite(column) & (column >= _LEAST[name]))
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(
            f"{path}: row {first + i + 1}, column {name}: must be a finite number >= {_LEAST[name]:g}, "
            f"got {cells[i].as_py()!r}"
        )
    return column


# ---------------------------------------------------------------------------------------------------- allocations


def write_dataset(allocation: Allocation, folder: StrPath) -> None:
    """Write an allocation of Dask arrays to a folder of Parquet files, one per chunk, all of it or nothing.

    The columns are those of `capsolve.Allocation.to_dict`. The folder must not exist yet, or be empty; it appears when
    it is complete.
    """
    da = optional_module("dask.array", "dask")
    optional_module("pyarrow.parquet", "parquet")
    model = allocation.model
    if not (isinstance(model, QuadraticLoss) and model.lazy):
        raise TypeError("an allocation of Dask arrays is written to a folder, all others to a file")
    once = {name: getattr(allocation, name) for name in ("dimensions", "price", "lower_bound")}
    with new_folder(folder) as temporary:
        parts = da.map_blocks(
            _write_part,
            model.importance,
            model.kurtosis,
            allocation.capacity,
            folder=temporary,
            once=once,
            digits=len(str(allocation.capacity.numblocks[0])),
            chunks=((1,) * allocation.capacity.numblocks[0],),
            dtype=np.int64,
            meta=np.empty(0, dtype=np.int64),
        )
        parts.compute()


def _write_part(
    v: FloatArray,
    k: FloatArray | float,
    capacity: FloatArray,
    folder: Path,
    once: dict[str, float],
    digits: int,
    block_info: Any = None,
) -> Any:
    """Write one chunk. Should two workers do so, because one of them was taken for dead, both are right."""
    arrow = optional_module("pyarrow", "parquet")
    model, capacity = QuadraticLoss(v, k), capacity.astype(np.float64)
    n = model.features
    names = [phase.name.lower() for phase in Phase]
    columns = {
        "importance": model.importance,
        "kurtosis": model.kurtosis,
        "capacity": capacity,
        "phase": arrow.DictionaryArray.from_arrays(phases(capacity), names),
        "squared_norm": model.squared_norm(capacity),
        "loss": model.feature_loss(capacity),
        **{name: np.full(n, value) for name, value in once.items()},
        "bias": np.ones(n, dtype=bool),
    }
    number = block_info[0]["chunk-location"][0]
    with replacing(folder / f"part-{number:0{digits}}.parquet") as temporary:
        write_parquet(columns, temporary)
    return np.array([n])
