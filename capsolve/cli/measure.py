"""``capsolve measure``: the capacities of an embedding in a file."""

from __future__ import annotations

import sys
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsolve.cli._shared import (
    STANDARD,
    TABLES,
    InputPath,
    draw,
    figure_path,
    in_range,
    input_file,
    json_flag,
    keep_inputs,
    output_file,
    output_path,
    report,
)

if TYPE_CHECKING:
    from capsolve.measurement import Comparison, Measurement


def part_number(_: click.Context, __: click.Parameter, value: str | None) -> int | str | None:
    """Return the number of a matrix, or "all"."""
    try:
        return value if value in (None, "all") else int(value)
    except ValueError:
        raise click.BadParameter(f"must be an integer or all, got {value}") from None


@click.command("measure")
@click.argument("weights", type=InputPath())
@click.option("--key", metavar="NAME", help="Which matrix of the file, W_dec for example; by default its decoder.")
@click.option("--features", type=click.Choice(["rows", "columns"]), help="What stands for a feature.")
@click.option("--part", callback=part_number, metavar="I", help="Which matrix of three axes, from 0; or all of them.")
@click.option(
    "--activations",
    type=InputPath(),
    metavar="FILE",
    help="Samples of the features, one column each: .npy, .npz, .csv, .parquet, .safetensors or .pt, or - for "
    "standard input.",
)
@click.option("--activations-key", metavar="NAME", help="Which array of a file of activations that has several.")
@click.option(
    "--tolerance",
    type=float,
    default=0.01,
    show_default=True,
    callback=in_range(1e-12, 0.5),
    help="A feature counts as monosemantic from capacity 1 - tolerance on.",
)
@click.option(
    "-o",
    "--output",
    callback=output_path(*TABLES),
    metavar="FILE",
    help="Write the capacities as .csv or .parquet; - is standard output.",
)
@click.option("--figure", callback=figure_path, metavar="FILE", help="Draw the measurement as .png, .pdf or .svg.")
@json_flag
def command(
    weights: Path,
    key: str | None,
    features: str | None,
    part: int | str | None,
    activations: Path | None,
    activations_key: str | None,
    tolerance: float,
    output: Path | None,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Measure the capacity of every feature in an embedding.

    WEIGHTS is a .safetensors, .npz, .npy, .pt, .pth, .bin or .ckpt file of any size, the .index.json file of a model in
    several files, a folder that has one, or - for standard input: the decoder of a sparse autoencoder, for example.
    Which axis counts the features is known from cfg.json or config.json beside it, from the usual layouts or from the
    biases; else the longer axis is taken, and a note says so. With activations, the optimum for the same importance and
    kurtosis is put beside it.

    \b
    Examples:
      capsolve measure sae_weights.safetensors --figure measurement.png
      capsolve measure crosscoder.pt --part all
    """  # noqa: D301  (click's mark for lines to be kept)
    if activations_key is not None and activations is None:
        raise click.UsageError("--activations-key needs --activations")
    if weights == activations == STANDARD:
        raise click.UsageError("standard input is read once: the weights or the activations, not both")
    if part == "all" and figure is not None:
        raise click.UsageError("--figure shows one matrix: choose it with --part")
    for source in (weights, activations):
        if source is not None:
            keep_inputs(source, output, figure)

    from capsolve.measurement import measure  # noqa: PLC0415

    with ExitStack() as stack:
        path, samples = (
            None if source is None else stack.enter_context(input_file(source)) for source in (weights, activations)
        )
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", ".* being the longer axis;")  # the note below says so

        def find(number: int | None) -> Measurement:
            found = measure(
                path,
                key=key,
                feature_axis=features,
                part=number,
                activations=samples,
                activations_key=activations_key,
                tolerance=tolerance,
                progress=sys.stderr.isatty(),
            )
            return replace(found, weights=replace(found.weights, path=weights)) if weights == STANDARD else found

        found = [find(0 if part == "all" else part)]  # type: ignore[arg-type]
        if part == "all":
            found += map(find, range(1, found[0].weights.parts or 1))
    first = found[0]
    if first.weights.guessed:
        click.echo(f"capsolve: note: {first.weights.guess}; if they are not, use --features", err=True)
    if output is not None:
        _write(found, output, part == "all")
    draw(figure, "measurement", first)
    if part == "all":
        report(as_json, lambda: _parts_content(found), lambda: _parts_summary(found), output)
    else:
        report(as_json, lambda: _measurement_content(first), first.summary, output, figure)


def _write(found: list[Measurement], output: Path, numbered: bool) -> None:
    import numpy as np  # noqa: PLC0415

    from capsolve.files.tables import write_table  # noqa: PLC0415

    tables = [one.to_dict() for one in found]
    if numbered:
        tables = [{"part": np.full(found[0].features, number)} | table for number, table in enumerate(tables)]
    with output_file(output, TABLES[0]) as path:
        write_table({name: np.concatenate([table[name] for table in tables]) for name in tables[0]}, path)


def _parts_summary(found: list[Measurement]) -> str:
    """Return a line for each matrix of an array with three axes, and the sums over them."""
    first, phases = found[0], ("monosemantic", "polysemantic", "ignored")
    lines = [
        f"{first.weights.name}: {len(found)} times {first.features} features in {first.dimensions} dimensions",
        f"(features are {first.weights.features}: {first.weights.reason})",
        "",
        f"{'part':<8}{'capacity':>10}{'efficiency':>12}{'rank':>7}" + "".join(f"{phase:>14}" for phase in phases),
    ]
    for name, ones in (*((str(number), [one]) for number, one in enumerate(found)), ("all", found)):
        total = sum(one.total_capacity for one in ones)
        rank, counts = sum(one.rank for one in ones), [one.counts() for one in ones]
        lines.append(
            f"{name:<8}{total:>10.6g}{total / (len(ones) * first.dimensions):>12.4f}{rank:>7}"
            + "".join(f"{sum(count[phase] for count in counts):>14}" for phase in phases)
        )
    return "\n".join(lines)


def _parts_content(found: list[Measurement]) -> dict[str, Any]:
    records = [{"part": number} | _measurement_content(one) for number, one in enumerate(found)]
    whole = {name: records[0][name] for name in ("weights", "key")}
    own = [{name: value for name, value in record.items() if name not in whole} for record in records]
    return whole | {"total": sum(one.total_capacity for one in found), "parts": own}


def _measurement_content(found: Measurement) -> dict[str, Any]:
    counts, edges = found.histogram()
    return {
        "weights": str(found.weights.path),
        **{name: getattr(found.weights, name) for name in ("key", "dtype", "reason", "guessed")},
        "orientation": found.weights.features,
        **{name: getattr(found, name) for name in ("features", "dimensions", "efficiency", "rank")},
        "total": found.total_capacity,
        "random": found.random_baseline,
        "effective_dimensions": found.effective_dimensions,
        "tolerance": found.tolerance,
        "phases": found.counts(),
        "histogram": {"edges": edges, "features": counts},
        "spectrum": found.spectrum,
        "blocks": None
        if found.blocks is None
        else [
            {name: getattr(block, name) for name in ("name", "features", "dimension", "scale", "residual")}
            for block in found.blocks
        ],
        **dict(zip(("least_monosemantic", "most_monosemantic"), found.extremes(), strict=True)),
        "comparison": None if found.comparison is None else _comparison_content(found.comparison),
        "columns": found.to_dict(),
    }


def _comparison_content(given: Comparison) -> dict[str, Any]:
    own = ("loss", "embedding_loss", "relative_suboptimality", "embedding_suboptimality", "correlation")
    return {
        "status": given.allocation.status.value,
        "total": given.capacity.sum(),
        **{name: getattr(given, name) for name in own},
        "optimal_loss": given.allocation.loss,
        "price": given.allocation.price,
        "optimal_phases": given.allocation.counts(),
    }
