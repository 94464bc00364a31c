"""Allocations as CSV or Parquet: one row per feature, judged anew when they are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from capsolve.allocation import Allocation, allocate, certify
from capsolve.certificate import Status
from capsolve.files._paths import StrPath
from capsolve.files.parquet_folder import write_dataset
from capsolve.files.tables import number, read_table, write_table
from capsolve.losses.quadratic import QuadraticLoss


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
