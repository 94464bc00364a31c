"""``capsolve solve``: the optimal allocation for a profile and a budget."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsolve.cli._shared import (
    NOT_CERTIFIED,
    STANDARD,
    TABLES,
    about,
    draw,
    figure_path,
    in_range,
    json_flag,
    keep_inputs,
    load_profile,
    output_file,
    output_path,
    report,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsolve.allocation import Allocation
    from capsolve.files.parquet_folder import LazyProfile
    from capsolve.profile import Profile


def _larger_than_memory(profile: str) -> bool:
    """Return whether the profile is a folder of files, or a pattern for them."""
    from capsolve.examples import examples  # noqa: PLC0415
    from capsolve.files._paths import is_dataset  # noqa: PLC0415

    return profile not in examples() and is_dataset(profile)


def _output(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """Check that the answer can be written before there is one: to a folder for a folder, to a file otherwise."""
    from capsolve.files._paths import require_new_folder  # noqa: PLC0415

    if value is None or not _larger_than_memory(context.params["profile"]):
        return output_path(*TABLES)(context, parameter, value)  # type: ignore[no-any-return]
    if Path(value).suffix or Path(value) == STANDARD:
        raise click.BadParameter(f"the allocation of a folder is written to a folder, got {value}")
    try:
        return require_new_folder(value)
    except OSError as error:
        raise click.BadParameter(f"{error.filename}: {error.strerror}") from None


def _tolerance(context: click.Context, parameter: click.Parameter, value: float) -> Any:
    from capsolve.certificate import FINEST_TOLERANCE  # noqa: PLC0415

    return in_range(FINEST_TOLERANCE, 1.0)(context, parameter, value)


@click.command("solve")
@click.argument("profile", is_eager=True)
@click.option(
    "-D",
    "--dimensions",
    type=float,
    required=True,
    callback=in_range(0.0),
    help="The budget: any number >= 0.",
)
@click.option("--bias/--no-bias", default=True, help="Whether the network has an output bias (default: it has).")
@click.option(
    "--tolerance",
    type=float,
    default=1e-9,
    show_default=True,
    callback=_tolerance,
    help="Relative gap between loss and lower bound up to which the answer counts as optimal.",
)
@click.option(
    "-o",
    "--output",
    callback=_output,
    metavar="FILE",
    help="Write the allocation as .csv or .parquet, - is standard output; for a folder, to a new folder.",
)
@click.option("--figure", callback=figure_path, metavar="FILE", help="Draw the allocation as .png, .pdf or .svg.")
@json_flag
@click.pass_context
def command(
    context: click.Context,
    profile: str,
    dimensions: float,
    bias: bool,
    tolerance: float,
    output: Path | None,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Allocate dimensions to features at the least loss.

    PROFILE is a .csv or .parquet file with the columns importance, kurtosis and, optionally, name; or a
    built-in example: digits. Examples have no suffix and files must have one, so neither can hide the other. A
    folder of .parquet files, or a quoted pattern such as 'profile/*.parquet', may be larger than memory. With -
    the profile is read from standard input.

    \b
    Examples:
      capsolve solve digits --dimensions 16 --figure allocation.png
      capsolve solve profile.csv -D 100 -o allocation.parquet
      capsolve solve profile/ -D 1e6 -o allocation/
    """  # noqa: D301  (click's mark for lines to be kept)
    from capsolve.allocation import solve as find  # noqa: PLC0415
    from capsolve.certificate import Status  # noqa: PLC0415
    from capsolve.files.parquet_folder import open_profile  # noqa: PLC0415

    keep_inputs(Path(profile), output, figure)
    given: Profile | LazyProfile
    if _larger_than_memory(profile):
        if figure is not None:
            raise click.UsageError("a folder has too many features for a figure")
        given = open_profile(profile)
    else:
        given = load_profile(profile)
    with about(profile):
        allocation = find(given.importance, given.kurtosis, dimensions, bias=bias, tolerance=tolerance)
    if output is not None:
        from capsolve.files.allocations import write_allocation  # noqa: PLC0415

        with output_file(output, TABLES[0]) as path:
            write_allocation(allocation, path, names=given.names)
    draw(figure, "allocation", allocation, names=given.names)
    content = functools.partial(_allocation_content, profile, bias, allocation, given.names)
    report(as_json, content, allocation.summary, output, figure)
    if allocation.status is not Status.OPTIMAL:
        click.echo(
            f"capsolve: warning: the allocation is {allocation.status.value}, not certified to be optimal: "
            f"relative gap {allocation.gap:.1e}, tolerance {tolerance:.1e}",
            err=True,
        )
        context.exit(NOT_CERTIFIED)


def _allocation_content(source: str, bias: bool, allocation: Allocation, names: Sequence[str] | None) -> dict[str, Any]:
    numbers = ("price", "scale", "loss", "lower_bound", "gap", "tolerance", "kkt_error", "budget_error", "nodes")
    everywhere = ("dimensions", "price", "lower_bound", "bias")  # repeated in every row, for tables
    content = {
        "profile": source,
        "features": allocation.model.features,
        "dimensions": allocation.dimensions,
        "bias": bias,
        "status": allocation.status.value,
        "phases": allocation.counts(),
        **{name: getattr(allocation, name) for name in numbers},
    }
    if not _larger_than_memory(source):
        columns = allocation.to_dict(names)
        content["columns"] = {name: column for name, column in columns.items() if name not in everywhere}
    return content
