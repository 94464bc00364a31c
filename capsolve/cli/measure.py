"""``capsolve measure``: the capacities of an embedding in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsolve.cli._shared import draw, figure_path, in_range, json_flag, keep_inputs, report, table_path

if TYPE_CHECKING:
    from capsolve.measurement import Comparison, Measurement


@click.command("measure")
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("--key", metavar="NAME", help="Which matrix of the file, W_dec for example; by default its decoder.")
@click.option("--features", type=click.Choice(["rows", "columns"]), help="What stands for a feature.")
@click.option("--part", type=int, metavar="I", help="Which matrix of an array with three axes, from 0.")
@click.option(
    "--activations",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Samples of the features, one column each: .npy, .npz, .csv, .parquet or .safetensors.",
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
@click.option("-o", "--output", callback=table_path, metavar="FILE", help="Write the capacities as .csv or .parquet.")
@click.option("--figure", callback=figure_path, metavar="FILE", help="Draw the measurement as .png, .pdf or .svg.")
@json_flag
def command(
    weights: Path,
    key: str | None,
    features: str | None,
    part: int | None,
    activations: Path | None,
    activations_key: str | None,
    tolerance: float,
    output: Path | None,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Measure the capacity of every feature in an embedding.

    WEIGHTS is a .safetensors, .npz, .npy, .pt or .pth file of any size, or a folder that has one: the decoder of a
    sparse autoencoder, for example. Which axis counts the features is known from cfg.json beside it, from the usual
    layouts or from the biases; else the longer axis is taken, and a note says so. With activations, the optimum for
    the same importance and kurtosis is put beside it.

    \b
    Example:
      capsolve measure sae_weights.safetensors --figure measurement.png
    """  # noqa: D301  (click's mark for lines to be kept)
    from capsolve.measurement import measure as find  # noqa: PLC0415

    if activations_key is not None and activations is None:
        raise click.UsageError("--activations-key needs --activations")
    for source in (weights, activations):
        if source is not None:
            keep_inputs(source, output, figure)
    found = find(
        weights,
        key=key,
        feature_axis=features,
        part=part,
        activations=activations,
        activations_key=activations_key,
        tolerance=tolerance,
        progress=sys.stderr.isatty(),
    )
    if found.weights.guessed:
        click.echo(
            f"capsolve: note: the {found.weights.features} are taken as features, being the longer axis; "
            "if they are not, use --features",
            err=True,
        )
    if output is not None:
        from capsolve.files.tables import write_table  # noqa: PLC0415

        write_table(found.to_dict(), output)
    draw(figure, "measurement", found)
    report(as_json, lambda: _measurement_content(found), found.summary, output, figure)


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
