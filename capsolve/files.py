"""Reading and writing: profiles and allocations as CSV or Parquet, activations also as NumPy and safetensors files.

What is wrong with a file is said in one line that names the path, the row and the column. In a CSV file the header is
row 1; in all others the first row of numbers is. Files are written beside their final place and moved there when
complete, so that a failure leaves the old file or none. Nothing is ever unpickled.
"""

from __future__ import annotations

import csv
import errno
import math
import os
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray
from capsolve._files import StrPath, found_columns, optional_module, os_error, readable_file, refuse_duplicates
from capsolve.allocation import Allocation, allocate, certify
from capsolve.certificate import Status
from capsolve.datasets import write_dataset
from capsolve.losses.quadratic import QuadraticLoss
from capsolve.profile import Profile

_CHUNK = 2**16  # cells of a text or Parquet file that are converted at a time


# ---------------------------------------------------------------------------------------------------- profiles


def read_profile(path: StrPath) -> Profile:
    """Read a profile from a .csv or .parquet file.

    The file has the columns ``importance`` and ``kurtosis``, and may have a column ``name``; others are ignored.

    Raises
    ------
    ValueError
        If the file type is unknown, a column is missing or there twice, there are no rows, or a cell is not a finite
        number in its range (importance ≥ 0, kurtosis ≥ 1): with path, row and column.
    OSError
        If the file is missing, unreadable or a directory.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "profile.csv")
    >>> write_profile(Profile([1.0, 0.5], 9.0, ["a", "b"]), path)
    >>> print(path.read_text(), end="")
    name,importance,kurtosis
    a,1.0,9.0
    b,0.5,9.0
    >>> read_profile(path)
    Profile(2 features, importance 0.5 … 1, kurtosis 9, named)
    """
    table = read_table(
        path, {"name": text, "importance": number(low=0.0), "kurtosis": number(low=1.0)}, optional={"name"}
    )
    try:
        return Profile(table["importance"], table["kurtosis"], table.get("name"))
    except ValueError as error:  # names that are not distinct
        raise ValueError(f"{path}: {error}") from None


def write_profile(profile: Profile, path: StrPath) -> None:
    """Write a profile to a .csv or .parquet file that `read_profile` restores to the last bit.

    Where the profile was measured, the columns mean, variance, kurtosis_error, density, constant and samples say what
    was found; they are for other readers, and `read_profile` passes them over.

    Raises `ValueError` if the file type is unknown and `OSError` if the file cannot be written.
    """
    columns: dict[str, Any] = {} if profile.names is None else {"name": profile.names}
    columns |= {"importance": profile.importance, "kurtosis": profile.kurtosis}
    if profile.moments is not None:
        for name in ("mean", "variance", "kurtosis_error", "density", "constant"):
            columns[name] = getattr(profile.moments, name)
        columns["samples"] = np.full(len(profile), profile.moments.samples)
    write_table(columns, path)


# ------------------------------------------------------------------------------------------------- allocations


def write_allocation(allocation: Allocation, path: StrPath, *, names: Sequence[str] | None = None) -> None:
    """Write an allocation to a .csv or .parquet file: the columns of `capsolve.Allocation.to_dict`.

    An allocation of Dask arrays is written to a folder of Parquet files, chunk by chunk, without names. The folder must
    not exist yet, or be empty; it appears when it is complete.

    Raises `ValueError` if the file type is unknown or names do not fit, and `OSError` if the file cannot be written.
    """
    if isinstance(allocation.model, QuadraticLoss) and allocation.model.lazy:
        if names is not None:
            raise ValueError("names cannot be written with an allocation of Dask arrays")
        write_dataset(allocation, path)
        return
    write_table(allocation.to_dict(names), path)


def read_allocation(path: StrPath) -> Allocation:
    """Read an allocation of the quadratic model back and judge it anew.

    Everything but the lower bound is recomputed from importance, kurtosis, capacity, dimensions and bias: a file
    that was changed by hand is not optimal any more, and says so. The lower bound is the one that the model shows:
    where that costs a search (κ < 3) the problem is solved again, because the bound in the file is a claim, no proof.

    Raises
    ------
    ValueError
        As `read_profile`, also where dimensions, lower_bound or bias differ between rows, and for allocations of other
        losses, whose files lack importance and kurtosis.
    OSError
        If the file is missing, unreadable or a directory.

    Examples
    --------
    >>> import capsolve, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "allocation.csv")
    >>> write_allocation(capsolve.solve([2, 1, 1], 9.0, dimensions=1), path)
    >>> read_allocation(path)
    Allocation(OPTIMAL, 3 features in 1 dimensions: 0 monosemantic, 3 polysemantic, 0 ignored; loss=..., gap=...)
    """
    table = read_table(
        path,
        {
            "importance": number(low=0.0),
            "kurtosis": number(low=1.0),
            "capacity": number(low=0.0, high=1.0),
            "dimensions": number(low=0.0),
            "lower_bound": float,
            "bias": _flag,
        },
    )
    once = {}
    for name in ("dimensions", "lower_bound", "bias"):
        values = set(table[name])
        if len(values) > 1:
            raise ValueError(f"{path}: column {name} must be the same in all rows, got {sorted(values)[:2]}")
        once[name] = values.pop()
    try:
        model = QuadraticLoss(table["importance"], table["kurtosis"], once["bias"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    judged = certify(model, once["dimensions"], table["capacity"])
    if judged.status is Status.OPTIMAL or model.convex or not math.isfinite(judged.loss):
        return judged
    bound = allocate(model, once["dimensions"]).lower_bound
    return certify(model, once["dimensions"], table["capacity"], lower_bound=bound)


def _flag(cell: Any) -> bool:
    flag = {"true": True, "false": False}.get(str(cell).lower())
    if flag is None:
        raise ValueError(f"must be true or false, got {cell!r}")
    return flag


# ------------------------------------------------------------------------------------------------------ tables


def number(*, low: float = -math.inf, high: float = math.inf) -> Callable[[Any], float]:
    """Return a parser for `read_table` that takes finite numbers in ``[low, high]``."""
    bounds = f" >= {low:g}" * (low > -math.inf) + f" <= {high:g}" * (high < math.inf)

    def parse(cell: Any) -> float:
        try:
            value = float(cell)
        except (TypeError, ValueError):
            value = math.nan
        if not (low <= value <= high and math.isfinite(value)) or (isinstance(cell, str) and "_" in cell):
            raise ValueError(f"must be a finite number{bounds}, got {cell!r}")
        return value

    return parse


def text(cell: Any) -> str:
    """Parse a cell as text, for `read_table`; whole numbers will do as names."""
    if not isinstance(cell, str | int):
        raise ValueError(f"must be text, got {cell!r}")  # noqa: TRY004
    return str(cell)


def read_table(
    path: StrPath, columns: Mapping[str, Callable[[Any], Any]], *, optional: Collection[str] = ()
) -> dict[str, list[Any]]:
    """Read columns of a .csv or .parquet file.

    Parameters
    ----------
    path : path
        A CSV file is UTF-8 with a header; blank lines are skipped.
    columns : mapping of names to parsers
        A parser turns a cell (a string in a CSV file, a Python object in a Parquet file) into what is wanted, or raises
        a `ValueError` that says what it must be: `number`, `text`, or any function. Other columns are ignored.
    optional : collection of str
        Columns that may be missing, and then are missing in the result too.

    Raises
    ------
    ValueError
        With path, row and column, for anything wrong inside the file.
    OSError
        If the file is missing, unreadable or a directory.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "table.csv")
    >>> write_table({"name": ["a", "b, c"], "size": [0.1, 2.0]}, path)
    >>> read_table(path, {"name": text, "size": number(low=0.0)})
    {'name': ['a', 'b, c'], 'size': [0.1, 2.0]}
    """
    path, kind = existing_file(path, ".csv", ".parquet")
    table = (_read_csv if kind == ".csv" else _read_parquet)(path, columns, optional)
    if not all(table.values()):
        raise ValueError(f"{path}: there are no rows")
    return table


def write_table(columns: Mapping[str, Iterable[Any]], path: StrPath) -> None:
    """Write columns of numbers, truth values or text to a .csv or .parquet file.

    Floats are written so that reading restores them to the last bit. In a CSV file truth values are ``true`` and
    ``false``.

    Raises `ValueError` if columns differ in length or hold anything else, or the file type is unknown, and `OSError` if
    the file cannot be written. A file that is there already is replaced, when the new one is complete.
    """
    path = Path(path)
    kind = _suffix(path, ".csv", ".parquet")
    cells = {name: _cells(name, column) for name, column in columns.items()}
    if len({len(column) for column in cells.values()}) != 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in cells.items())
        raise ValueError(f"a table needs columns of one length, got {lengths or 'none'}")
    with replacing(path) as temporary:
        try:
            (_write_csv if kind == ".csv" else _write_parquet)(cells, temporary)
        except UnicodeEncodeError as error:
            raise ValueError(f"{path}: {error}") from None


@contextmanager
def replacing(path: StrPath) -> Iterator[Path]:
    """Give the path of a temporary file, which takes the place of ``path`` if the block ends well and goes if not.

    It lies in the same directory and has the same suffix. Raises `OSError`, about ``path``, if that is a directory or
    cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise os_error(errno.EISDIR, path)
    if not target.parent.is_dir():
        raise os_error(errno.ENOENT, target.parent)
    if target.exists() and not os.access(target, os.W_OK):
        raise os_error(errno.EACCES, path)
    temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex}{target.suffix}")
    try:
        yield temporary
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except OSError as error:
        if error.filename == str(temporary):
            raise os_error(error.errno or errno.EIO, path) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _read_csv(
    path: Path, columns: Mapping[str, Callable[[Any], Any]], optional: Collection[str]
) -> dict[str, list[Any]]:
    rows = _csv_rows(path)
    _, header = next(rows)
    found = found_columns(path, header, columns, optional)
    table: dict[str, list[Any]] = {name: [] for name in found}
    plan = [(header.index(name), columns[name], table[name]) for name in found]
    for row, cells in rows:
        if len(cells) != len(header):
            raise _wrong_width(path, row, cells, len(header))
        for index, parse, values in plan:
            try:
                values.append(parse(cells[index]))
            except ValueError as error:
                raise ValueError(f"{path}: row {row}, column {header[index]}: {error}") from None
    return table


def _write_csv(cells: Mapping[str, list[Any]], path: Path) -> None:
    words = [[("false", "true")[c] if c is True or c is False else c for c in column] for column in cells.values()]
    # a bare carriage return is quoted only when all text is
    returns = any(isinstance(c, str) and "\r" in c for column in [list(cells), *words] for c in column)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL)
        writer.writerow(cells)
        writer.writerows(zip(*words, strict=True))


def _read_parquet(
    path: Path, columns: Mapping[str, Callable[[Any], Any]], optional: Collection[str]
) -> dict[str, list[Any]]:
    with _parquet_file(path) as file:
        found = found_columns(path, file.schema_arrow.names, columns, optional)
        content = file.read(columns=found)
    table: dict[str, list[Any]] = {}
    for name in found:
        values = table[name] = []
        for row, cell in enumerate(content.column(name).to_pylist(), 1):
            try:
                values.append(columns[name](cell))
            except ValueError as error:
                raise ValueError(f"{path}: row {row}, column {name}: {error}") from None
    return table


def _write_parquet(cells: Mapping[str, list[Any]], path: Path) -> None:
    arrow, parquet = optional_module("pyarrow", "parquet"), optional_module("pyarrow.parquet", "parquet")
    parquet.write_table(arrow.table(dict(cells)), path)


def _cells(name: str, column: Iterable[Any]) -> list[Any]:
    if isinstance(column, str):
        raise ValueError(f"column {name} must be a sequence, got {column!r}")  # noqa: TRY004
    if isinstance(column, np.ndarray):
        column = column.tolist()
    cells = [cell.item() if isinstance(cell, np.generic) else cell for cell in column]
    kinds = str if cells and isinstance(cells[0], str) else int | float
    for cell in cells:
        if not isinstance(cell, kinds):
            raise ValueError(f"column {name} must be all text or all numbers, got {cell!r}")  # noqa: TRY004
    return cells


# ------------------------------------------------------------------------------------------------- activations


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
    ``.npz``                  one array, decompressed in memory; ``key`` says which one if there are several
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
    >>> path = pathlib.Path(tempfile.mkdtemp(), "x.npy")
    >>> np.save(path, np.random.default_rng(0).standard_normal((1000, 3)))
    >>> activations = read_activations(path)
    >>> Profile.from_activations(activations.data, names=activations.names)
    Profile(3 features, importance 0.9... … 1.0..., kurtosis 2.7... … 3.1..., measured)
    """
    path, kind = existing_file(path, *_OPEN)
    if key is not None and kind not in _KEYED:
        raise ValueError(f"{path}: a key is for {' and '.join(sorted(_KEYED))} files, got {key!r}")
    return _OPEN[kind](path, key)


def _open_npy(path: Path, key: str | None) -> Activations:
    with readable_file(path, ValueError, EOFError):
        data = np.lib.format.open_memmap(path, mode="r")  # which refuses pickled objects
    _require_matrix(path, data.shape, data.dtype, np.can_cast(data.dtype, np.float64, "same_kind"))
    return Activations(data, None)


def _open_npz(path: Path, key: str | None) -> Activations:
    broken = (ValueError, EOFError, zipfile.BadZipFile, zlib.error)
    with path.open("rb") as file:
        with readable_file(path, *broken):
            archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError(f"{path}: not a readable .npz file: it is a .npy file")  # noqa: TRY004
        name = _only(path, key, archive.files)
        with readable_file(path, *broken):
            data = archive[name]
    _require_matrix(path, data.shape, data.dtype, np.can_cast(data.dtype, np.float64, "same_kind"))
    return Activations(data, None)


def _open_csv(path: Path, key: str | None) -> Activations:
    row, first = next(_csv_rows(path))
    numeric = [_is_number(cell) for cell in first]
    if any(numeric) and not all(numeric):
        strange = first[numeric.index(False)]
        raise ValueError(f"{path}: row {row} must be all numbers or all names, got numbers and {strange!r}")
    header = not all(numeric) or (len(first) > 1 and first == [str(i) for i in range(len(first))])
    names = tuple(first) if header else None
    if names:
        refuse_duplicates(path, names)
    return Activations(_CsvChunks(path, len(first), tuple(first) if header else None), tuple(first) if header else None)


@dataclass(frozen=True)
class _CsvChunks:
    """The rows of a CSV file of numbers, in chunks."""

    path: Path
    width: int
    names: tuple[str, ...] | None

    def __iter__(self) -> Iterator[FloatArray]:
        rows = _csv_rows(self.path)
        if self.names is not None:
            next(rows)
        while batch := list(islice(rows, max(1, _CHUNK // self.width))):
            yield self._numbers(batch)

    def _numbers(self, batch: list[tuple[int, list[str]]]) -> FloatArray:
        for row, cells in batch:
            if len(cells) != self.width:
                raise _wrong_width(self.path, row, cells, self.width)
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


def _open_parquet(path: Path, key: str | None) -> Activations:
    types = optional_module("pyarrow.types", "parquet")
    with _parquet_file(path) as file:
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
        with _parquet_file(self.path) as file, readable_file(self.path, arrow.ArrowException, OSError):
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


def _open_safetensors(path: Path, key: str | None) -> Activations:
    safetensors, _ = (
        optional_module("safetensors", "safetensors"),
        optional_module("ml_dtypes", "safetensors"),
    )  # for bfloat16
    with readable_file(path, safetensors.SafetensorError):
        file = safetensors.safe_open(path, framework="numpy")
    tensor = file.get_slice(_only(path, key, file.keys()))
    data = _Tensor(tensor, tuple(tensor.get_shape()))
    _require_matrix(path, data.shape, tensor.get_dtype(), tensor.get_dtype() in _REAL)
    return Activations(data, None)


# the types that NumPy and ml_dtypes can read: no complex numbers, none of the 4, 6 and 8 bit floats
_REAL = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


@dataclass(frozen=True)
class _Tensor:
    """A tensor of a safetensors file: rows are read when asked for."""

    lazy: Any
    shape: tuple[int, ...]

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        block: npt.NDArray[Any] = self.lazy[rows]
        return block


_OPEN: dict[str, Callable[[Path, str | None], Activations]] = {
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".csv": _open_csv,
    ".parquet": _open_parquet,
    ".safetensors": _open_safetensors,
}
_KEYED = {".npz", ".safetensors"}


def _only(path: Path, key: str | None, keys: Collection[str]) -> str:
    listed = ", ".join(sorted(keys)) or "none"
    if key is not None and key not in keys:
        raise ValueError(f"{path}: there is no key {key!r}; the keys are {listed}")
    if key is None and len(keys) != 1:
        raise ValueError(f"{path}: a key is needed to choose one of the arrays; the keys are {listed}")
    return key if key is not None else next(iter(keys))


def _require_matrix(path: Path, shape: tuple[int, ...], dtype: Any, real: bool) -> None:
    if len(shape) != 2:
        raise ValueError(f"{path}: activations must be 2-D, samples by features, got shape {shape}")
    if not real:
        raise ValueError(f"{path}: activations must hold real numbers, got dtype {dtype}")


# ------------------------------------------------------------------------------------------------------ common


def existing_file(path: StrPath, *known: str) -> tuple[Path, str]:
    """Return the path and its suffix, of a readable file that is not empty."""
    path = Path(path)
    with path.open("rb") as file:  # missing, a directory, unreadable: the operating system's own words
        kind = _suffix(path, *known)
        if not file.read(1):
            raise ValueError(f"{path}: the file is empty")
    return path, kind


def _suffix(path: Path, *known: str) -> str:
    kind = path.suffix.lower()
    if kind not in known:
        raise ValueError(f"{path}: the file type must be one of {', '.join(known)}, got {kind or 'none'}")
    return kind


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each row that is not blank; there is at least one."""
    row, seen = 0, False
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            for row, cells in enumerate(csv.reader(file, strict=True), 1):
                if cells:
                    seen = True
                    yield row, cells
        except UnicodeDecodeError:
            raise ValueError(f"{path}: after row {row}: the text is not UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{path}: after row {row}: {error}") from None
    if not seen:
        raise ValueError(f"{path}: the file is empty")


def _wrong_width(path: Path, row: int, cells: list[str], width: int) -> ValueError:
    return ValueError(f"{path}: row {row} must have {width} cells, got {len(cells)}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parquet_file(path: Path) -> Any:
    parquet, arrow = optional_module("pyarrow.parquet", "parquet"), optional_module("pyarrow", "parquet")
    with readable_file(path, arrow.ArrowException):
        return parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**16)  # else all of it gets into memory
