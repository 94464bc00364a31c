"""Columns of numbers and text as CSV or Parquet; here these two formats are opened.

In a CSV file the header is row 1; in a Parquet file row 1 is the first of the numbers. What a data frame wrote as its
index is no column: in a CSV file it stands first and has no name, in a Parquet file the metadata say so.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from capsolve._checks import listed, shown
from capsolve.files._paths import (
    StrPath,
    existing_file,
    known_suffix,
    optional_module,
    readable_file,
    regular_file,
    replacing,
)

# What pandas writes above the index in a CSV file or calls such a column when it reads it back, and what it calls an
# index without a name in a Parquet file.
_UNNAMED = re.compile(r"(Unnamed: \d+(\.\d+)?)?")
_INDEX_LEVEL = re.compile(r"__index_level_\d+__")

# Text that a spreadsheet takes for a formula, and the same when it was written, with an apostrophe in front of it.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_QUOTED_FORMULA = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")

# What is read as a whole has so many bytes and rows at most, and a line of text so many characters.
_LARGEST, _MOST_ROWS, _LONGEST_LINE = 2**32, 2**28, 2**26


def number(*, low: float = -math.inf, high: float = math.inf) -> Callable[[Any], float]:
    """Return a parser for `read_table` that takes finite numbers in ``[low, high]``."""
    bounds = f" >= {low:g}" * (low > -math.inf) + f" <= {high:g}" * (high < math.inf)

    def parse(cell: Any) -> float:
        try:
            value = float(cell)
        except (TypeError, ValueError):
            value = math.nan
        if not (low <= value <= high and math.isfinite(value)) or (isinstance(cell, str) and "_" in cell):
            raise ValueError(f"must be a finite number{bounds}, got {shown(repr(cell))}")
        return value

    return parse


def text(cell: Any) -> str:
    """Parse a cell as text, for `read_table`; whole numbers will do as names."""
    if not isinstance(cell, str | int):
        raise ValueError(f"must be text, got {shown(repr(cell))}")  # noqa: TRY004
    return str(cell)


def read_table(
    path: StrPath,
    columns: Mapping[str, Callable[[Any], Any]],
    *,
    optional: Collection[str] = (),
    index: str | None = None,
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
    index : str, optional
        The column that the index of a data frame stands for, as text, where the file has an index and no such column.
        An index that counts the rows says nothing and is passed over.

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
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path}: a table is read as a whole and must have at most {_LARGEST} bytes")
    table = (_read_csv if kind == ".csv" else _read_parquet)(path, columns, optional, index)
    if not all(table.values()):
        raise ValueError(f"{path}: there are no rows")
    return table


def write_table(columns: Mapping[str, Iterable[Any]], path: StrPath) -> None:
    """Write columns of numbers, truth values or text to a .csv or .parquet file.

    Floats are written so that reading restores them to the last bit. In a CSV file truth values are ``true`` and
    ``false``, and text that a spreadsheet would execute, such as ``=1+1``, has an apostrophe in front of it, which
    `read_table` takes away.

    Raises `ValueError` if columns differ in length or hold anything else, or the file type is unknown, and `OSError` if
    the file cannot be written. A file that is there already is replaced, when the new one is complete.
    """
    path = Path(path)
    kind = known_suffix(path, ".csv", ".parquet")
    cells = {name: _cells(name, column) for name, column in columns.items()}
    if len({len(column) for column in cells.values()}) != 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in cells.items())
        raise ValueError(f"a table needs columns of one length, got {lengths or 'none'}")
    with replacing(path) as temporary:
        try:
            (_write_csv if kind == ".csv" else write_parquet)(cells, temporary)
        except UnicodeEncodeError as error:
            raise ValueError(f"{path}: {error}") from None


def column_names(path: StrPath) -> list[str]:
    """Return what the columns of a .csv or .parquet file are called."""
    path, kind = existing_file(path, ".csv", ".parquet")
    if kind == ".csv":
        return list(map(as_meant, next(csv_rows(path))[1]))
    with parquet_file(path) as file:
        names: list[str] = file.schema_arrow.names
    return names


class _Wanted(NamedTuple):
    """A column of the result, and where it is in the file."""

    name: str
    position: int
    parse: Callable[[Any], Any]


def _wanted(
    path: Path,
    header: list[str],
    indices: list[int],
    columns: Mapping[str, Callable[[Any], Any]],
    optional: Collection[str],
    index: str | None,
) -> list[_Wanted]:
    found = found_columns(path, header, columns, optional)
    wanted = [_Wanted(name, header.index(name), columns[name]) for name in found]
    if index is not None and index not in header and len(indices) == 1:
        wanted.append(_Wanted(index, indices[0], _label))
    return wanted


def _label(cell: Any) -> str:
    return str(cell)


def _table(wanted: Iterable[_Wanted], values: Iterable[list[Any]]) -> dict[str, list[Any]]:
    """Put the columns together, without an index that only counts the rows."""
    return {
        column.name: cells
        for column, cells in zip(wanted, values, strict=True)
        if not (column.parse is _label and (counts_rows(cells) or counts_rows(cells, 1)))
    }


def _read_csv(path: Path, *what: Any) -> dict[str, list[Any]]:
    rows = csv_rows(path)
    header = list(map(as_meant, next(rows)[1]))
    wanted = _wanted(path, header, list(range(unnamed_columns(header))), *what)
    values: list[list[Any]] = [[] for _ in wanted]
    for row, cells in rows:
        for column, into in zip(wanted, values, strict=True):
            try:
                into.append(column.parse(as_meant(cells[column.position])))
            except ValueError as error:
                raise bad_cell(path, row, column.name, error) from None
    return _table(wanted, values)


def _write_csv(cells: Mapping[str, list[Any]], path: Path) -> None:
    words = [[_written(cell) for cell in column] for column in ([*cells], *cells.values())]
    # a bare carriage return is quoted only when all text is
    returns = any(isinstance(c, str) and "\r" in c for column in words for c in column)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL)
        writer.writerow(words[0])
        writer.writerows(zip(*words[1:], strict=True))


def _written(cell: Any) -> Any:
    """Return a cell as it stands in a CSV file."""
    if isinstance(cell, str):
        return f"'{cell}" if _FORMULA.match(cell) else cell
    return ("false", "true")[cell] if isinstance(cell, bool) else cell


def as_meant(cell: str) -> str:
    """Return what was meant by text in a CSV file: without the apostrophe that keeps spreadsheets from executing it."""
    return cell[1:] if _QUOTED_FORMULA.match(cell) else cell


def _read_parquet(path: Path, *what: Any) -> dict[str, list[Any]]:
    with parquet_file(path) as file, readable_file(path):
        header = file.schema_arrow.names
        wanted = _wanted(path, header, parquet_index(file.schema_arrow), *what)
        if file.metadata.num_rows > _MOST_ROWS:  # a small file may claim any number
            got = file.metadata.num_rows
            raise ValueError(f"{path}: a table is read as a whole and must have at most {_MOST_ROWS} rows, got {got}")
        content = file.read(columns=[header[column.position] for column in wanted])
        cells = [content.column(header[column.position]).to_pylist() for column in wanted]
    for column, values in zip(wanted, cells, strict=True):
        for row, cell in enumerate(values):
            try:
                values[row] = column.parse(cell)
            except ValueError as error:
                raise bad_cell(path, row + 1, column.name, error) from None
    return _table(wanted, cells)


def write_parquet(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns as they are."""
    arrow, parquet = optional_module("pyarrow", "parquet"), optional_module("pyarrow.parquet", "parquet")
    parquet.write_table(arrow.table(dict(columns)), path)


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


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each row that is not blank; there is at least one, and all are of one width."""
    row, width = 0, 0
    with readable_file(path), regular_file(path).open(encoding="utf-8-sig", newline="") as file:
        try:
            for row, cells in enumerate(csv.reader(_lines(file), strict=True), 1):
                width = width or len(cells)
                if cells and len(cells) != width:
                    raise ValueError(f"{path}: row {row} must have {width} cells, got {len(cells)}")
                if cells:
                    yield row, cells
        except UnicodeDecodeError:
            raise ValueError(f"{path}: after row {row}: the text is not UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{path}: after row {row}: {error}") from None
    if not width:
        raise ValueError(f"{path}: the file is empty")


def _lines(file: IO[str]) -> Iterator[str]:
    """Yield the lines of a file, each of bounded length."""
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise csv.Error(f"a line must have less than {_LONGEST_LINE} characters")
        yield line


def unnamed_columns(header: Sequence[str]) -> int:
    """Return how many columns at the beginning of a CSV file have no name, as the index of a data frame has none."""
    return len(list(takewhile(_UNNAMED.fullmatch, header)))


def parquet_index(schema: Any) -> list[int]:
    """Return which columns of a Parquet file are the index of the data frame that was written, where one was."""
    try:
        said = json.loads((schema.metadata or {})[b"pandas"])["index_columns"]
        names = {name for name in said if isinstance(name, str)}
    except (KeyError, TypeError, ValueError, RecursionError):  # written by others, or broken
        names = set()
    return [i for i, name in enumerate(schema.names) if name in names or _INDEX_LEVEL.fullmatch(name)]


def counts_rows(cells: Sequence[Any], start: int = 0) -> bool:
    """Return whether cells are the numbers of their rows, from ``start``."""
    return all(str(cell) == str(row) for row, cell in enumerate(cells, start))


def bad_cell(path: Path, row: int, column: str | int, error: object) -> ValueError:
    """Return the complaint about a cell."""
    return ValueError(f"{path}: row {row}, column {shown(str(column))}: {error}")


def parquet_file(path: Path) -> Any:
    """Open a Parquet file to be read piece by piece: without the small buffer all of it gets into memory."""
    _, parquet = optional_module("pyarrow", "parquet"), optional_module("pyarrow.parquet", "parquet")
    with readable_file(path):
        return parquet.ParquetFile(regular_file(path), pre_buffer=False, buffer_size=2**16)


def found_columns(path: Path, header: list[str], wanted: Iterable[str], optional: Collection[str] = ()) -> list[str]:
    """Return the wanted columns that are there; one that is there twice, or missing and not optional, is refused."""
    found = []
    for name in wanted:
        count = header.count(name)
        if count > 1:
            raise ValueError(f"{path}: column {name} is there {count} times")
        if not count and name not in optional:
            raise ValueError(f"{path}: column {name} is missing; the columns are {listed(header)}")
        found += [name] * count
    return found
