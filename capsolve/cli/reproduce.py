"""``capsolve reproduce``: the figures of the paper, made again."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from capsolve.cli._shared import STANDARD, pool, resumes, workers_option


def _folder(_: click.Context, __: click.Parameter, value: Path) -> Path:
    if value == STANDARD:
        raise click.BadParameter("the files go to a folder, got -")
    return value


@click.command("reproduce")
@click.argument("figure", type=click.Choice(["fig2", "fig4", "fig6", "fig7", "incidental", "all"]))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    callback=_folder,
    metavar="FOLDER",
    help="The folder where the files go; made if missing.",
)
@click.option(
    "--cells",
    type=click.IntRange(min=2),
    help="Cells along each side of a diagram that is optimised cell by cell; for incidental, the number of widths.  "
    "[default: fig4 50, fig7 40, incidental 16]",
)
@workers_option("Processes that share the cells.")
def command(figure: str, output: Path, cells: int | None, workers: int) -> None:
    """Make figures of the paper again.

    \b
    fig2  marginal values of capacity, and the price that decides
    fig4  phase diagram, exact and from optimised embeddings, and six
          cases of marginal values
    fig6  capacities of small embeddings, and blocks that do not interfere
    fig7  phase diagrams of nine sorts of trained networks: takes long, goes
          on where it was interrupted
    incidental  features that collide by chance, the experiments of
          arXiv 2312.03096: takes long, resumes after an interruption

    Every statement of the paper is printed: whether it holds, and the numbers that say so. FOLDER gets pictures (.png
    and .pdf), data (.csv or .npz) and, for each figure, a text (.md) with these statements.

    \b
    Example:
      capsolve reproduce fig4 -o paper
    """  # noqa: D301  (click's mark for lines to be kept)
    from capsolve.reproduction import made_again  # noqa: PLC0415

    with resumes(output / "cells", "cells"), pool(workers) as executor:
        made = made_again(figure, output, cells=cells, executor=executor, progress=sys.stderr.isatty())
        for number, (result, written) in enumerate(made):
            click.echo("\n" * bool(number) + result.summary())
            click.echo(f"\nwrote {', '.join(map(str, written))}")
