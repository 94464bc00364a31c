"""Allocations as CSV or Parquet: one row per feature, judged anew when they are read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from capsolve._checks import shown
from capsolve.allocation import Allocation, allocate, certify
from capsolve.certificate import Status
from capsolve.files._paths import StrPath, is_dataset
from capsolve.files.parquet_folder import parquet_files, write_dataset
from capsolve.files.tables import column_names, number, read_table, text, write_table
from capsolve.losses.model import LossModel
from capsolve.losses.neuron_noise import NeuronNoiseLoss
from capsolve.losses.quadratic import QuadraticLoss
from capsolve.losses.tabulated import TabulatedLoss

# Values of a loss curve stand in one column for each point of the grid; beyond so many numbers that is no table.
_CURVE = re.compile(r"loss at (.+)")
_MOST_VALUES = 10**7


def write_allocation(allocation: Allocation, path: StrPath, *, names: Sequence[str] | None = None) -> None:
    """Write an allocation to a .csv or .parquet file, from which `read_allocation` restores it to the last bit.

    The columns are those of `capsolve.Allocation.to_dict` and what else the loss needs: for tabulated losses ``loss at
    0.25`` and so on, the curves at the points of their grid, with a column ``weight`` where they share one shape; for
    noisy neurons ``noise``.

    An allocation of Dask arrays is written to a folder of Parquet files, chunk by chunk, without names. The folder must
    not exist yet, or be empty; it appears when it is complete.

    Raises `ValueError` if the file type is unknown, names do not fit, or the loss is of another kind or its curves have
    more than 10⁷ values (then ``files.write_table(allocation.to_dict(), path)`` writes what can be written), and
    `OSError` if the file cannot be written.
    """
    if isinstance(allocation.model, QuadraticLoss) and allocation.model.lazy:
        if names is not None:
            raise ValueError("names cannot be written with an allocation of Dask arrays")
        write_dataset(allocation, path)
        return
    write_table(allocation.to_dict(names) | _model_columns(allocation.model), path)


def read_allocation(path: StrPath) -> Allocation:
    """Read back what `write_allocation` wrote, a file or a folder, and judge it anew in memory.

    Everything is recomputed from the loss, the capacities and the dimensions: a file that was changed by hand is not
    optimal any more, and says so. The lower bound is the one that the model shows: where that costs a search (κ < 3,
    curves that are not convex) the problem is solved again, because the bound in the file is a claim, no proof.

    Raises
    ------
    ValueError
        As `read_profile`, also where what is about the whole allocation differs between rows.
    OSError
        If the file is missing or unreadable.

    Examples
    --------
    >>> import capsolve, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "allocation.csv")
    >>> write_allocation(capsolve.solve([2, 1, 1], 9.0, dimensions=1), path)
    >>> read_allocation(path)
    Allocation(OPTIMAL, 3 features in 1 dimensions: 0 monosemantic, 3 polysemantic, 0 ignored; loss=..., gap=...)
    """
    table: dict[str, list[Any]] = {}
    for file in parquet_files(path) if is_dataset(path) else [path]:
        columns = {"name": text, **_columns(file), "capacity": number(low=0.0, high=1.0), "dimensions": number(low=0.0)}
        for name, cells in read_table(file, columns, optional={"name"}, index="name").items():
            table.setdefault(name, []).extend(cells)
    names, capacity = table.pop("name", None), table.pop("capacity")
    try:
        dimensions = _once("dimensions", table.pop("dimensions"))
        judged = _judged(_model(table), dimensions, capacity)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return replace(judged, names=None if names is None else tuple(names))


def _judged(model: LossModel, dimensions: float, capacity: list[float]) -> Allocation:
    judged = certify(model, dimensions, capacity)
    if judged.status is Status.OPTIMAL or model.convex or not math.isfinite(judged.loss):
        return judged
    return certify(model, dimensions, capacity, lower_bound=allocate(model, dimensions).lower_bound)


def _model_columns(model: LossModel) -> dict[str, Any]:
    """Return what `_model` needs besides the columns of every allocation."""
    if isinstance(model, QuadraticLoss):
        return {}
    if isinstance(model, NeuronNoiseLoss):
        noise = np.full(model.features, model.noise)
        return {"importance": model.importance, "kurtosis": model.kurtosis, "noise": noise}
    what = "an allocation cannot be read back from a table"
    else_ = "files.write_table(allocation.to_dict(), path) writes the answer alone"
    if not isinstance(model, TabulatedLoss):
        raise ValueError(f"{what} if its loss is a {type(model).__name__}; {else_}")  # noqa: TRY004
    if model.features * model.grid.size > _MOST_VALUES:
        count = f"{model.features} features × {model.grid.size} grid points"
        raise ValueError(f"{what} with more than {_MOST_VALUES} values of its curves, got {count}; {else_}")
    weight = {} if model.weight is None else {"weight": model.weight}
    curves = np.broadcast_to(model.curves, (model.features, model.grid.size))
    return weight | {f"loss at {c!r}": curves[:, j] for j, c in enumerate(model.grid.tolist())}


def _columns(path: StrPath) -> dict[str, Callable[[Any], Any]]:
    """Return which columns of a file describe the loss, and how they are read."""
    header = column_names(path)
    curves = [name for name in header if _CURVE.fullmatch(name)]
    if curves:
        return dict.fromkeys(curves, number()) | ({"weight": number(low=0.0)} if "weight" in header else {})
    last = {"noise": number(low=0.0)} if "noise" in header else {"bias": _flag}
    return {"importance": number(low=0.0), "kurtosis": number(low=1.0), **last}


def _model(table: dict[str, list[Any]]) -> LossModel:
    if "noise" in table:
        return NeuronNoiseLoss(table["importance"], table["kurtosis"], _once("noise", table["noise"]))
    if "bias" in table:
        return QuadraticLoss(table["importance"], table["kurtosis"], _once("bias", table["bias"]))
    weight = table.pop("weight", None)
    grid = [number()(name.removeprefix("loss at ")) for name in table]
    if weight is None:
        return TabulatedLoss(np.transpose(list(table.values())), grid)
    return TabulatedLoss([_once(name, cells) for name, cells in table.items()], grid, weight)


def _once(name: str, cells: list[Any]) -> Any:
    """Return what a column holds in all its rows."""
    values = set(cells)
    if len(values) > 1:
        raise ValueError(f"column {name} must be the same in all rows, got {sorted(values)[:2]}")
    return values.pop()


def _flag(cell: Any) -> bool:
    flag = {"true": True, "false": False}.get(str(cell).lower())
    if flag is None:
        raise ValueError(f"must be true or false, got {shown(repr(cell))}")
    return flag
