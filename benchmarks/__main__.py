"""``python -m benchmarks``: measure everything, print a table, keep the numbers as JSON, draw the figure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks import calls, timing

SECTIONS = ("solve", "memory", "small", "many", "path", "capacities", "blocks", "moments", "import")


def _measure(sections: tuple[str, ...], reduced: bool, rounds: int, largest: int) -> Iterator[dict[str, Any]]:
    if "solve" in sections or "memory" in sections:
        try:
            from benchmarks import allocations
        except ModuleNotFoundError as missing:
            raise click.UsageError(f"solve and memory need {missing.name}: pip install {missing.name}") from missing
    sizes = [10**3, 10**5] if reduced else [n for n in (6, 100, 1000, 10**4, 10**5, 10**6, 10**7) if n <= largest]
    if "solve" in sections:
        yield from allocations.records(
            sizes, "AD" if reduced else "ABCD", ["float64"], rounds, [2] if reduced else [1, 2]
        )
        if not reduced:
            yield from allocations.records(sizes[-2:], "ABCD", ["float32"], rounds, [2])
    if "memory" in sections:
        yield allocations.memory("A", 10**6 if reduced else largest)
        yield allocations.memory("D", 10**6 if reduced else largest)
    if "small" in sections:
        yield calls.small(rounds)
    if "many" in sections:
        yield calls.many(25 if reduced else 250, rounds)
    if "path" in sections:
        yield calls.path(10**4 if reduced else 10**6, rounds)
    yield from _embeddings(sections, reduced, rounds)
    if "moments" in sections:
        yield from calls.activations(*((2000, 256) if reduced else (100_000, 1_536)), rounds=rounds)
    if "import" in sections:
        yield calls.start_up(rounds)


def _embeddings(sections: tuple[str, ...], reduced: bool, rounds: int) -> Iterator[dict[str, Any]]:
    if "capacities" in sections:
        yield calls.embedding(*((2048, 256) if reduced else (65_536, 2_304)), rounds=rounds)
        yield calls.gram(*((1024, 64) if reduced else (16_384, 512)), rounds=rounds)
    if "blocks" in sections:
        for n, dimensions in [(2048, 64)] if reduced else [(32_000, 256), (65_536, 2_304)]:
            yield from calls.orthogonal_blocks(n, dimensions, rounds=rounds)


def _line(record: dict[str, Any]) -> str:
    what = " ".join(
        str(record[key]) for key in ("family", "features", "problems", "dtype", "threads", "solver") if key in record
    )
    seconds = record.get("seconds")
    time = (
        f"{seconds['median'] * 1e3:11.3f} ms ({seconds['q1'] * 1e3:.3f} to {seconds['q3'] * 1e3:.3f})"
        if seconds
        else ""
    )
    rest = "  ".join(
        f"{key.replace('_', ' ')} {value:.3g}"
        for key, value in record.items()
        if isinstance(value, int | float) and key not in ("features", "problems", "threads")
    )
    return f"{record['benchmark']:<11}{what:<58}{time:<40} {rest}"


@click.command()
@click.argument("sections", nargs=-1, type=click.Choice(SECTIONS))
@click.option("--reduced", is_flag=True, help="Small sizes: to see that everything runs.")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1), help="Runs of each call, in turn.")
@click.option("--largest", default=10**7, show_default=True, type=click.IntRange(10**3), help="Features at most.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Keep the numbers as JSON.")
@click.option("--figure", type=click.Path(path_type=Path, dir_okay=False), help="Draw time against size.")
def main(
    sections: tuple[str, ...], reduced: bool, rounds: int, largest: int, output: Path | None, figure: Path | None
) -> None:
    """Measure capsolve beside its peers; SECTIONS are all by default."""
    before, records = timing.machine(), []  # the load is that without our own
    for record in _measure(sections or SECTIONS, reduced, rounds, largest):
        records.append(record)
        click.echo(_line(record))
    if output:
        timing.keep(output, machine=before, rounds=rounds, records=records)
    if figure:
        from benchmarks.drawing import draw
        from capsolve.figures import save

        save(draw(records), figure)


if __name__ == "__main__":
    main()
