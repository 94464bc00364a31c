"""Profiles as CSV or Parquet: one row per feature."""

from __future__ import annotations

from typing import Any

import numpy as np

from capsolve.files._paths import StrPath
from capsolve.files.tables import number, read_table, text, write_table
from capsolve.profile import Profile


def read_profile(path: StrPath) -> Profile:
    """Read a profile from a .csv or .parquet file.

    The file has the columns ``importance`` and ``kurtosis``, and may have a column ``name``; others are ignored. Where
    a data frame wrote the file, its index is taken for the names, unless it counts the rows.

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
        path,
        {"name": text, "importance": number(low=0.0), "kurtosis": number(low=1.0)},
        optional={"name"},
        index="name",
    )
    try:
        return Profile(table["importance"], table["kurtosis"], table.get("name"))
    except ValueError as error:  # a product of the two that overflows
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
