"""``capsolve phase``: phase diagrams, of the theory and found numerically."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsolve.cli._shared import (
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
    from capsolve.diagrams.agreement import Agreement
    from capsolve.diagrams.analytic import PhaseDiagram
    from capsolve.diagrams.empirical import EmpiricalPhaseDiagram

_MODELS = ("quadratic", *(f"{kind}-{s}" for kind in ("sum", "autoencoder") for s in ("quadratic", "relu", "gelu")))


def _axis(_: click.Context, parameter: click.Parameter, value: str) -> tuple[Any, ...]:
    """Turn name:low:high or name:low:high:scale into an axis."""
    from capsolve.diagrams.axes import Axis  # noqa: PLC0415

    parts = value.split(":")
    form = "NAME:LOW:HIGH or NAME:LOW:HIGH:log, NAME:LOW:HIGH:linear"
    if len(parts) not in {3, 4}:
        raise click.BadParameter(f"an axis is {form}, got {value!r}")
    try:
        ends = float(parts[1]), float(parts[2])
    except ValueError:
        raise click.BadParameter(f"an axis is {form} with two numbers, got {value!r}") from None
    given = (parts[0], *ends, *parts[3:])
    try:
        Axis.of(given, 2)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return given


def _cells(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Turn 50 or 60x40 into a pair."""
    if value is None:
        return None
    try:
        sizes = [int(part) for part in value.lower().split("x")]
    except ValueError:
        sizes = []
    if len(sizes) not in {1, 2} or min(sizes) < 2:
        raise click.BadParameter(f"must be a number >= 2 or two of them like 60x40, got {value!r}")
    return sizes[0], sizes[-1]


@click.command("phase")
@click.option(
    "--x",
    default="importance:0.01:100",
    show_default=True,
    callback=_axis,
    metavar="AXIS",
    help="What varies from left to right: NAME:LOW:HIGH, and :log or :linear.",
)
@click.option(
    "--y",
    default="density:1:0.001",
    show_default=True,
    callback=_axis,
    metavar="AXIS",
    help="What varies from the bottom to the top.",
)
@click.option(
    "--family",
    type=click.Choice(["groups", "power-law", "exponential"]),
    default="groups",
    show_default=True,
    help="Importances: V for the first features and 1 for the others, i^-exponent, or exp(-rate (i-1)).",
)
@click.option("--features", type=int, help="[default: 6]")
@click.option("-D", "--dimensions", type=float, help="[default: 3]")
@click.option("--group", type=click.IntRange(min=1), default=1, show_default=True, help="How many have importance V.")
@click.option("--importance", type=float, help="V, where it is no axis.  [default: 1]")
@click.option("--exponent", type=float, help="Of a power law, where it is no axis.  [default: 1]")
@click.option("--rate", type=float, help="Of exponential importances, where it is no axis.  [default: 1]")
@click.option("--kurtosis", type=float, help="Of all inputs, where neither it, density nor sparsity is an axis.")
@click.option("--density", type=float, help="Probability that an input is not 0, instead of the kurtosis.")
@click.option("--sparsity", type=float, help="Probability that an input is 0, instead of the kurtosis.")
@click.option(
    "--distribution",
    type=click.Choice(["uniform", "gaussian", "laplace", "rademacher"]),
    default="uniform",
    show_default=True,
    help="Of inputs that are not 0.",
)
@click.option("--no-bias", is_flag=True, help="The network has no output bias.")
@click.option(
    "--track", type=click.IntRange(min=0), default=0, show_default=True, help="The feature to draw, counted from 0."
)
@click.option("--cells", callback=_cells, metavar="N|NxM", help="[default: 250; with --empirical 50]")
@click.option(
    "--empirical",
    type=click.Choice(_MODELS),
    help="Find the embedding of each cell by descent on the exact loss (quadratic), or train networks.",
)
@click.option("--restarts", type=click.IntRange(min=1), help="Starts per cell, with --empirical.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the starts.")
@click.option(
    "--strip",
    type=float,
    default=1.0,
    show_default=True,
    callback=in_range(0.0),
    help="Cells this near to a jump are left out of the comparison with the theory.",
)
@figure_option
@click.option(
    "--data", callback=output_path(".npz"), metavar="FILE", help="Write the arrays as .npz; - is standard output."
)
@resumable("cells", "Processes, with --empirical.")
@json_flag
def command(
    x: tuple[Any, ...],
    y: tuple[Any, ...],
    no_bias: bool,
    track: int,
    cells: tuple[int, int] | None,
    empirical: str | None,
    restarts: int | None,
    seed: int,
    workers: int,
    strip: float,
    output: Path | None,
    data: Path | None,
    checkpoint: Path | None,
    as_json: bool,
    **family: Any,
) -> None:
    """Solve or find a phase diagram over any two axes.

    An axis is one of importance, exponent, rate (of the family), kurtosis, density, sparsity, dimensions, features and
    bias. Importance, kurtosis and density are logarithmic unless something else is said. The default is the diagram of
    the paper: one feature of importance V among six, in three dimensions.

    With --empirical, a run that is interrupted goes on where it ended when it is started again, and its results are
    compared with the theory.

    \b
    Examples:
      capsolve phase -o phase.png
      capsolve phase --x exponent:0:2 --y dimensions:1:60 --family power-law \\
        --features 1000 --kurtosis 20 --track 9 --cells 100 -o power.pdf
      capsolve phase --empirical quadratic --cells 20 -o found.png --data found.npz
    """  # noqa: D301  (click's mark for lines to be kept)
    from capsolve.diagrams.analytic import phase_diagram  # noqa: PLC0415

    numerical = {"--restarts": restarts, "--checkpoint": checkpoint, "--workers": workers if workers > 1 else None}
    if empirical is None and (useless := [name for name, value in numerical.items() if value is not None]):
        raise click.UsageError(f"{useless[0]} makes no sense without --empirical")
    given = {name: value for name, value in family.items() if value is not None}
    if "bias" not in {x[0], y[0]}:
        given["bias"] = not no_bias
    elif no_bias:
        raise click.UsageError("--no-bias makes no sense with bias as an axis")
    size = cells or (250 if empirical is None else 50)
    exact = phase_diagram(x, y, cells=size, tracked=track, **given)
    found, agreement = None, None
    with kept(checkpoint, "cells", data, output) as folder:
        if empirical is not None:
            from capsolve.diagrams.empirical import empirical_phase_diagram  # noqa: PLC0415

            with pool(workers) as executor:
                found = empirical_phase_diagram(
                    x,
                    y,
                    model=empirical,
                    cells=size,
                    restarts=restarts,
                    rng=seed,
                    tracked=track,
                    executor=executor,
                    checkpoint=folder,
                    progress=sys.stderr.isatty(),
                    **given,
                )
            agreement = found.compare(exact, strip=strip)
        if data is not None:
            with output_file(data, ".npz") as path:
                (found or exact).save(path)
        if output is not None:
            _draw(exact, found, output)
    report(as_json, lambda: _numbers(exact, found, agreement), lambda: _text(exact, found, agreement), data, output)


def _draw(exact: PhaseDiagram, found: EmpiricalPhaseDiagram | None, path: Path) -> None:
    """Draw the diagram; one found numerically with the theory's boundaries on top."""
    from capsolve import figures  # noqa: PLC0415

    with figures.page(5.2, 3.9) as figure:
        if found is None:
            figures.phase_diagram(exact, ax=figure.subplots())
        else:
            figures.phase_diagram(found, theory=exact, marks={}, ax=figure.subplots())
    with output_file(path, ".png") as file:
        figures.save(figure, file)


def _shares(diagram: PhaseDiagram | EmpiricalPhaseDiagram) -> dict[str, float]:
    """Return the share of the cells in each phase."""
    from capsolve.allocation import Phase  # noqa: PLC0415

    phase = diagram.phase[..., diagram.tracked]
    return {kind.name.lower(): float((phase == kind).mean()) for kind in reversed(Phase)}


def _text(exact: PhaseDiagram, found: EmpiricalPhaseDiagram | None, agreement: Agreement | None) -> str:
    ny, nx = exact.shape
    lines = [f"{exact.description}", f"{nx} × {ny} cells: {exact.x.name} × {exact.y.name}, feature {exact.tracked}", ""]
    names, shares = ["exact"], [_shares(exact)]
    if found is not None:
        names, shares = [*names, found.model], [*shares, _shares(found)]
    lines.append(f"{'phase':<14}" + "".join(f"{name:>22}" for name in names))
    for name in shares[0]:
        lines.append(f"{name:<14}" + "".join(f"{share[name]:>22.1%}" for share in shares))
    lines += ["", *(f"{boundary!r}"[9:-1] for boundary in exact.boundaries)]
    lines += [f"critical point at ({a:g}, {b:g})" for a, b in exact.critical]
    uncertified = int((~exact.optimal).sum())
    if uncertified:
        lines.append(f"{uncertified} cells are not certified to be optimal")
    if agreement is not None:
        lines += ["", agreement.summary()]
    return "\n".join(lines)


def _numbers(exact: PhaseDiagram, found: EmpiricalPhaseDiagram | None, agreement: Agreement | None) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "description": exact.description,
        "cells": exact.shape[::-1],
        "axes": [exact.x.name, exact.y.name],
        "tracked": exact.tracked,
        "exact": _shares(exact),
        "certified": float(exact.optimal.mean()),
        "boundaries": [
            {"lower": b.lower.name.lower(), "upper": b.upper.name.lower(), "order": b.order, "exact": b.exact}
            for b in exact.boundaries
        ],
        "critical": exact.critical,
    }
    if found is not None and agreement is not None:
        names = ("cells", "excluded", "unknown", "strip", "same_phase", "close", "largest", "mean", "where")
        numbers |= {
            "model": found.model,
            "empirical": _shares(found),
            "agreement": {name: getattr(agreement, name) for name in names},
        }
    return numbers
