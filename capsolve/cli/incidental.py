"""``capsolve incidental``: how many neurons end up with several features although there is room for all."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capsolve.cli._shared import (
    TABLES,
    draw,
    figure_option,
    in_range,
    json_flag,
    kept,
    output_file,
    output_path,
    pool,
    report,
    resumable,
)

if TYPE_CHECKING:
    from capsolve.incidental import CollisionSweep


def _widths(_: click.Context, __: click.Parameter, value: str) -> list[int]:
    """Turn 256, 256,512 or 256:4096:256 into numbers."""
    found: list[int] = []
    for part in value.split(","):
        try:
            numbers = [int(text) for text in part.split(":")]
        except ValueError:
            numbers = []
        low, high, step = {1: (*numbers, *numbers, 1), 3: (*numbers,)}.get(len(numbers), (0, 0, 0))
        if min(low, step) < 1 or high < low:
            raise click.BadParameter(f"must be M, LOW:HIGH:STEP or several of these with commas, got {value!r}")
        found += range(low, high + 1, step)
    if len(set(found)) < len(found):
        raise click.BadParameter(f"the same number occurs twice in {value!r}")
    return found


@click.command("incidental")
@click.option("--features", type=click.IntRange(min=1), default=256, show_default=True)
@click.option(
    "--neurons",
    default="256:4096:256",
    show_default=True,
    callback=_widths,
    metavar="M|LOW:HIGH:STEP",
    help="One number, a range with both ends, or several with commas.",
)
@click.option("--instances", type=click.IntRange(min=1), default=16, show_default=True, help="Networks of each width.")
@click.option("--penalty", type=float, default=1e-3, show_default=True, callback=in_range(0.0), help="λ of |W|₁.")
@click.option("--steps", type=click.IntRange(min=1), default=7500, show_default=True, help="Of AdamW.")
@click.option("--learning-rate", type=float, default=1e-3, show_default=True, callback=in_range(0.0))
@click.option("--low", type=float, default=0.8, show_default=True, callback=in_range(1e-6), help="Large weights from,")
@click.option("--high", type=float, default=1.2, show_default=True, callback=in_range(1e-6), help="and to this size.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the starts.")
@figure_option
@click.option(
    "--data",
    callback=output_path(*TABLES, ".npz"),
    metavar="FILE",
    help="Write means as .csv or .parquet, or every network as .npz; - is standard output.",
)
@resumable("networks")
@json_flag
def command(
    features: int,
    neurons: list[int],
    instances: int,
    penalty: float,
    steps: int,
    learning_rate: float,
    low: float,
    high: float,
    seed: int,
    workers: int,
    output: Path | None,
    data: Path | None,
    checkpoint: Path | None,
    as_json: bool,
) -> None:
    """Count neurons that several features share by chance.

    Autoencoders of one-hot inputs, ReLU(W Wᵀ x), are trained with AdamW and an L1 penalty. Each feature settles on one
    neuron, and some on the same one with opposite signs, although there may be neurons enough for all. A run that is
    interrupted goes on where it ended when it is started again with the same numbers.

    \b
    Example: a minute on two cores
      capsolve incidental --features 64 --neurons 64,128,256 -o collisions.png
    """  # noqa: D301  (click's mark for lines to be kept)
    from capsolve.incidental.sweep import collision_sweep  # noqa: PLC0415

    if high < low:
        raise click.UsageError(f"--high must be at least --low, got {high:g} < {low:g}")
    with kept(checkpoint, "networks", data, output) as folder:
        with pool(workers) as executor:
            sweep = collision_sweep(
                features,
                neurons,
                instances=instances,
                penalty=penalty,
                steps=steps,
                learning_rate=learning_rate,
                low=low,
                high=high,
                rng=seed,
                checkpoint=folder,
                executor=executor,
                progress=sys.stderr.isatty(),
            )
        if data is not None:
            with output_file(data, TABLES[0]) as path:
                _write(sweep, path)
        draw(output, "collisions", sweep)
    content = {"features": features, "instances": instances, **sweep.table()}
    report(as_json, lambda: content, lambda: _text(sweep), data, output)


def _write(sweep: CollisionSweep, path: Path) -> None:
    if path.suffix.lower() == ".npz":
        sweep.save(path)
        return
    from capsolve.files.tables import write_table  # noqa: PLC0415

    write_table({name: column.tolist() for name, column in sweep.table().items()}, path)


def _text(sweep: CollisionSweep) -> str:
    table = sweep.table()
    lines = [
        f"{sweep.features} features, {_counted(sweep.instances, 'network')} of each width; ± is one standard error",
        f"{'expected neurons':>79}",
        f"neurons {'polysemantic':>16} {'equal-sign pairs':>16} {'excess capacity':>16} {'draw':>10} {'exclusive':>9}",
    ]
    for row in range(len(sweep.neurons)):
        at = {name: float(column[row]) for name, column in table.items()}
        pairs = [
            f"{_number(at[name])} ± {_number(at[name + '_error'])}"
            for name in ("polysemantic", "equal_pairs", "excess")
        ]
        lines.append(
            f"{sweep.neurons[row]:7d}"
            + "".join(f" {pair:>16}" for pair in pairs)
            + f" {_number(at['expected_neurons']):>10} {_number(at['expected_exclusive']):>9}"
        )
    return "\n".join(lines)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _number(value: float) -> str:
    """Return a number, or a dash where there is none: one network has no standard error."""
    return "–" if math.isnan(value) else f"{value:.2f}"
