"""Columns of numbers and text as CSV or Parquet; here these two formats are opened.

In a CSV file the header is row 1; in a Parquet file row 1 is the first of the numbers.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from capsolve.files._paths import StrPath, existing_file, known_suffix, optional_module, readable_file, replacing


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


def _read_csv(
    path: Path, columns: Mapping[str, Callable[[Any], Any]], optional: Collection[str]
) -> dict[str, list[Any]]:
    rows = csv_rows(path)
    _, header = next(rows)
    found = found_columns(path, header, columns, optional)
    table: dict[str, list[Any]] = {name: [] for name in found}
    plan = [(header.index(name), columns[name], table[name]) for name in found]
    for row, cells in rows:
        if len(cells) != len(header):
            raise wrong_width(path, row, cells, len(header))
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
    with parquet_file(path) as file:
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


def wrong_width(path: Path, row: int, cells: list[str], width: int) -> ValueError:
    """Return the complaint about a row that is too short or too long."""
    return ValueError(f"{path}: row {row} must have {width} cells, got {len(cells)}")


def parquet_file(path: Path) -> Any:
    """Open a Parquet file to be read piece by piece: without the small buffer all of it gets into memory."""
    parquet, arrow = optional_module("pyarrow.parquet", "parquet"), optional_module("pyarrow", "parquet")
    with readable_file(path, arrow.ArrowException):
        return parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**16)


def found_columns(path: Path, header: list[str], wanted: Iterable[str], optional: Collection[str] = ()) -> list[str]:
    """Return the wanted columns that are there; a missing one that is not optional is a `ValueError`."""
    refuse_duplicates(path, header)
    missing = [name for name in wanted if name not in header and name not in optional]
    if missing:
        there = ", ".join(header[:10]) + ", …" * (len(header) > 10)
        raise ValueError(f"{path}: column {missing[0]} is missing; the columns are {there}")
    return [name for name in wanted if name in header]


def refuse_duplicates(path: Path, names: Iterable[str]) -> None:
    """Raise a `ValueError` if a name is there twice."""
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{path}: column {name} is there {count} times")
