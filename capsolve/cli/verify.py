"""``capsolve verify``: independent routes to the optimum, side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capsolve.cli._shared import (
    DISAGREE,
    STANDARD,
    about,
    in_range,
    json_flag,
    keep_inputs,
    load_profile,
    output_file,
    output_path,
    report,
)

if TYPE_CHECKING:
    from capsolve.verification.report import Verification


@click.command("verify")
@click.argument("profile", required=False)
@click.option("-D", "--dimensions", type=float, callback=in_range(0.0), help="The budget, with a profile.")
@click.option("--bias/--no-bias", default=True, help="Whether the network has an output bias (default: it has).")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of problems, starts and inputs."
)
@click.option(
    "-o",
    "--output",
    callback=output_path(".md"),
    metavar="FILE",
    help="Write the report as Markdown, .md; - is standard output.",
)
@json_flag
@click.pass_context
def command(
    context: click.Context,
    profile: str | None,
    dimensions: float | None,
    bias: bool,
    seed: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Check the solver against independent routes.

    The allocation for a PROFILE, a file, a built-in example or - as for solve, is held against its lower bound, a
    generic convex solver, the embedding that realises it, an embedding found by descent, and sampled inputs. Without a
    profile a suite of problems of every kind is run. The exit status is 4 if any two routes disagree.

    \b
    Examples:
      capsolve verify
      capsolve verify digits --dimensions 16 -o report.md
    """  # noqa: D301  (click's mark for lines to be kept)
    if (profile is None) != (dimensions is None):
        raise click.UsageError("a profile needs --dimensions, and the suite takes none")
    if profile is None:
        if not bias:
            raise click.UsageError("the suite has problems with and without a bias; --no-bias needs a profile")
        from capsolve.verification.checks import verify_suite  # noqa: PLC0415

        reports = verify_suite(rng=seed, progress=sys.stderr.isatty())
    else:
        from capsolve.verification.checks import verify  # noqa: PLC0415

        keep_inputs(Path(profile), output)
        given = load_profile(profile)
        with about(profile):
            what = "standard input" if Path(profile) == STANDARD else profile
            title = f"{what}: {len(given)} features in {dimensions:g} dimensions{'' if bias else ', no bias'}"
            show = sys.stderr.isatty()
            v, k = given.importance, given.kurtosis
            reports = [verify(v, k, dimensions, bias=bias, rng=seed, title=title, progress=show)]
    disagree = [one for one in reports if one.verdict.value == "disagree"]
    if output is not None:
        with output_file(output, ".md") as path:
            _write(reports, path)
    report(
        as_json,
        lambda: {"disagree": len(disagree), "problems": [one.to_dict() for one in reports]},
        lambda: "\n\n".join([*(one.summary() for one in reports), _conclusion(reports)]),
        output,
    )
    if disagree:
        click.echo(f"capsolve: warning: routes disagree: {'; '.join(one.title for one in disagree)}", err=True)
        context.exit(DISAGREE)


def _conclusion(reports: list[Verification]) -> str:
    """Return the number of checks with each verdict."""
    counts: dict[str, int] = {}
    for one in reports:
        for name, count in one.counts().items():
            counts[name] = counts.get(name, 0) + count
    listed = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"{len(reports)} problem{'s' if len(reports) > 1 else ''}: {listed}"


def _write(reports: list[Verification], path: Path) -> None:
    import capsolve  # noqa: PLC0415
    from capsolve.files._paths import write_text  # noqa: PLC0415

    head = f"# Verification, capsolve {capsolve.__version__}\n\n{_conclusion(reports)}.\n\n"
    write_text(path, head + "\n".join(one.markdown() for one in reports))
