"""``capsolve profile``: importance and kurtosis of measured activations."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsolve.cli._shared import (
    InputPath,
    input_file,
    json_flag,
    keep_inputs,
    output_table,
    report,
    table_or_standard,
)

if TYPE_CHECKING:
    from capsolve.profile import Profile


@click.command("profile")
@click.argument("activations", type=InputPath(), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    callback=table_or_standard,
    metavar="FILE",
    help="Write the profile as .csv or .parquet; - is standard output.",
)
@click.option("--key", metavar="NAME", help="Which array of a file that has several.")
@click.option("--header/--no-header", default=None, help="Whether the first row of a .csv file holds names.")
@json_flag
def command(
    activations: tuple[Path, ...], output: Path | None, key: str | None, header: bool | None, as_json: bool
) -> None:
    """Measure the importance and kurtosis of features.

    ACTIVATIONS is a file of samples (rows) by features (columns): .npy, .npz, .csv, .parquet, .safetensors, .pt
    or .pth; or several files, or a folder of them, or - for standard input. Arrays may have three axes: batch,
    position and feature. All but .npz is read in pieces and need not fit into memory. The importance of a feature
    is its variance. A feature that never varies has no kurtosis: it gets importance 0 and kurtosis 3, and is
    reported.

    \b
    Examples:
      capsolve profile activations.npy -o profile.csv
      capsolve profile layer3/ --json
      capsolve profile activations.npy -o - | capsolve solve - -D 16
    """  # noqa: D301  (click's mark for lines to be kept)
    from capsolve.files import read_activations, write_profile  # noqa: PLC0415
    from capsolve.profile import Profile  # noqa: PLC0415

    for source in activations:
        keep_inputs(source, output)
    with ExitStack() as stack:
        paths = [stack.enter_context(input_file(source)) for source in activations]
        samples = read_activations(paths, key=key, header=header)
        measured = Profile.from_activations(samples, progress=sys.stderr.isatty())
    if samples.note is not None:
        click.echo(f"capsolve: note: {activations[0]}: {samples.note}", err=True)
    if output is not None:
        with output_table(output) as path:
            write_profile(measured, path)
    report(as_json, lambda: _profile_content(activations, measured), lambda: _profile_summary(measured), output)


def _profile_content(sources: tuple[Path, ...], measured: Profile) -> dict[str, Any]:
    moments = measured.moments
    assert moments is not None  # noqa: S101  (for the type checker: from_activations always measures)
    columns = {} if measured.names is None else {"name": measured.names}
    return {
        "activations": str(sources[0]) if len(sources) == 1 else [str(source) for source in sources],
        "samples": moments.samples,
        "features": len(measured),
        "columns": columns
        | {"importance": measured.importance, "kurtosis": measured.kurtosis}
        | {name: getattr(moments, name) for name in ("mean", "variance", "kurtosis_error", "density", "constant")},
    }


def _profile_summary(measured: Profile) -> str:
    import numpy as np  # noqa: PLC0415

    from capsolve._checks import listed  # noqa: PLC0415

    moments = measured.moments
    assert moments is not None  # noqa: S101
    varying = ~moments.constant
    lines = [f"{len(measured)} features from {moments.samples} samples"]
    if varying.any():
        kurtosis, error = measured.kurtosis[varying], moments.kurtosis_error[varying]
        lines += ["", f"{'':<16}{'smallest':>12}{'median':>12}{'largest':>12}"]
        for label, values in (
            ("importance", measured.importance[varying]),
            ("kurtosis", kurtosis),
            ("  std. error", error),
            ("density", moments.density[varying]),
        ):
            spread = "".join(f"{value:>12.4g}" for value in np.quantile(values, [0.0, 0.5, 1.0]))
            lines.append(f"{label:<16}{spread}")
        below = np.count_nonzero(kurtosis < 3.0)
        lines += ["", f"{below} have kurtosis below 3 and get capacity whole or not at all, but for one at most"]
        lines += [f"{kurtosis.size - below} have kurtosis 3 or more and may share dimensions"]
    if moments.constant.any():
        which = np.flatnonzero(moments.constant).tolist()
        lines += [
            "",
            f"{len(which)} never vary and get importance 0, with kurtosis 3 as a placeholder",
            f"  {listed(measured.names[i] if measured.names else i for i in which)}",
        ]
    return "\n".join(lines)
