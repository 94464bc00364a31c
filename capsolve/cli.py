"""The command line: ``capsolve profile`` measures features, ``solve`` allocates, ``measure`` looks at what exists.

Results go to standard output, for people or with ``--json`` for machines; all else goes to standard error,
errors in one line. The exit status is

    0    done
    1    bad input, or a file that cannot be read or written
    2    bad usage: an option or argument that makes no sense, found before any work is done
    3    done, but the allocation is not certified to be optimal within the tolerance
    130  interrupted

Modules that take long to import are imported by the commands that need them, so that help comes at once.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import capsolve

if TYPE_CHECKING:
    from capsolve.allocation import Allocation
    from capsolve.measurement import Comparison, Measurement
    from capsolve.profile import Profile

BAD_INPUT, BAD_USAGE, NOT_CERTIFIED, INTERRUPTED = 1, 2, 3, 130


class _Commands(click.Group):
    """Commands whose failures end in one line on standard error and an exit status, never in a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            status = super().main(*args, **kwargs)
        except click.UsageError as error:
            help_at = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
            status = _complain(error.format_message() + help_at, BAD_USAGE)
        except click.Abort:  # click's word for KeyboardInterrupt
            status = _complain("interrupted", INTERRUPTED)
        except Exception as error:
            if os.environ.get("CAPSOLVE_DEBUG"):
                raise
            status = _complain(_reason(error), BAD_INPUT)
        sys.exit(status)


def _complain(message: str, status: int) -> int:
    click.echo(f"capsolve: error: {' '.join(message.split())}", err=True)
    return status


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return str(error) or "not enough memory"
    if isinstance(error, ValueError | OSError | ImportError):
        return str(error)
    return f"internal error, {type(error).__name__}: {error} (set CAPSOLVE_DEBUG=1 to see where)"


@click.group(cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(capsolve.__version__, prog_name="capsolve", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Optimal capacity allocation for features in superposition.

    A network has D dimensions and more than D features. From the importance and kurtosis of each feature,
    capsolve computes how much capacity it gets at the least loss, with a certificate of optimality.

    \b
    Example: 64 pixels of handwritten digits in 16 dimensions
      capsolve solve digits --dimensions 16 --figure allocation.png

    \b
    Exit status: 0 done, 1 bad input, 2 bad usage, 3 done but not
    certified to be optimal, 130 interrupted.
    """  # noqa: D301  (click's mark for lines to be kept)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


# ------------------------------------------------------------------------------ what several commands share


def _number(low: float, high: float = math.inf) -> Callable[[click.Context, click.Parameter, float], float]:
    """Return a callback that lets finite numbers in [low, high] pass."""

    def check(_: click.Context, __: click.Parameter, value: float) -> float:
        if math.isfinite(value) and low <= value <= high:
            return value
        allowed = f"a finite number >= {low:g}" if high == math.inf else f"a number in [{low:g}, {high:g}]"
        raise click.BadParameter(f"must be {allowed}, got {value:g}")

    return check


def _table(_: click.Context, __: click.Parameter, value: str | None) -> Path | None:
    """Check that a table can be written before there is one."""
    if value is None:
        return None
    path = _writable(value, (".csv", ".parquet"))
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise click.BadParameter('parquet files need pyarrow: pip install "capsolve[parquet]"')
    return path


def _figure(_: click.Context, __: click.Parameter, value: str | None) -> Path | None:
    """Check that a figure can be written before there is one."""
    if value is None:
        return None
    from capsolve.figures import FORMATS  # noqa: PLC0415

    return _writable(value, FORMATS)


def _writable(value: str, suffixes: Sequence[str]) -> Path:
    path = Path(value)
    if path.is_dir():
        raise click.BadParameter(f"{value} is a directory")
    if path.suffix.lower() not in suffixes:
        raise click.BadParameter(f"the file type must be one of {', '.join(suffixes)}, got {value}")
    if not path.parent.is_dir():
        raise click.BadParameter(f"the directory {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise click.BadParameter(f"{value} cannot be written: permission denied")
    return path


def _keep(source: Path, *outputs: Path | None) -> None:
    """Refuse to write over what is read."""
    for path in outputs:
        if path is not None and path.exists() and source.exists() and path.samefile(source):
            raise click.UsageError(f"the output would replace the input {source}")


@contextmanager
def _about(source: str | Path) -> Iterator[None]:
    """Make complaints about what a file says name the file."""
    try:
        yield
    except ValueError as error:
        if str(source) in str(error):
            raise
        raise ValueError(f"{source}: {error}") from error


def _print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object; what overflowed float64 is null there, for JSON knows no infinity."""
    click.echo(json.dumps({key: _plain(value) for key, value in content.items()}, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a summary.")


# ------------------------------------------------------------------------------------------ capsolve profile


@main.command()
@click.argument("activations", type=click.Path(path_type=Path))
@click.option("-o", "--output", callback=_table, metavar="FILE", help="Write the profile as .csv or .parquet.")
@click.option("--key", metavar="NAME", help="Which array of an .npz or .safetensors file that has several.")
@_as_json
def profile(activations: Path, output: Path | None, key: str | None, as_json: bool) -> None:
    """Measure the importance and kurtosis of features.

    ACTIVATIONS is a file of samples (rows) by features (columns): .npy, .npz, .csv, .parquet or .safetensors.
    All but .npz is read in pieces and need not fit into memory. The importance of a feature is its variance. A
    feature that never varies has no kurtosis: it gets importance 0 and kurtosis 3, and is reported.

    \b
    Example:
      capsolve profile activations.npy -o profile.csv
    """  # noqa: D301  (click's mark for lines to be kept)
    from capsolve.files import read_activations, write_profile  # noqa: PLC0415
    from capsolve.profile import Profile  # noqa: PLC0415

    _keep(activations, output)
    with _about(activations):
        samples = read_activations(activations, key=key)
        measured = Profile.from_activations(samples.data, names=samples.names, progress=sys.stderr.isatty())
    if output is not None:
        write_profile(measured, output)
    if as_json:
        _print_json(_profile_content(activations, measured))
    else:
        click.echo(_profile_summary(measured))
        if output is not None:
            click.echo(f"\nwrote {output}")


def _profile_content(source: Path, measured: Profile) -> dict[str, Any]:
    moments = measured.moments
    assert moments is not None  # noqa: S101  (for the type checker: from_activations always measures)
    columns = {} if measured.names is None else {"name": measured.names}
    return {
        "activations": str(source),
        "samples": moments.samples,
        "features": len(measured),
        "columns": columns
        | {"importance": measured.importance, "kurtosis": measured.kurtosis}
        | {name: getattr(moments, name) for name in ("mean", "variance", "kurtosis_error", "density", "constant")},
    }


def _profile_summary(measured: Profile) -> str:
    import numpy as np  # noqa: PLC0415

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
        listed = ", ".join(measured.names[i] if measured.names else str(i) for i in which[:10])
        lines += [
            "",
            f"{len(which)} never vary and get importance 0, with kurtosis 3 as a placeholder",
            f"  {listed}{', ...' if len(which) > 10 else ''}",
        ]
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------- capsolve solve


@main.command()
@click.argument("profile")
@click.option(
    "-D",
    "--dimensions",
    type=float,
    required=True,
    callback=_number(0.0),
    help="The budget: any number >= 0.",
)
@click.option("--bias/--no-bias", default=True, help="Whether the network has an output bias (default: it has).")
@click.option(
    "--tolerance",
    type=float,
    default=1e-9,
    show_default=True,
    callback=_number(0.0, 1.0),
    help="Relative gap between loss and lower bound up to which the answer counts as optimal.",
)
@click.option("-o", "--output", callback=_table, metavar="FILE", help="Write the allocation as .csv or .parquet.")
@click.option("--figure", callback=_figure, metavar="FILE", help="Draw the allocation as .png, .pdf or .svg.")
@_as_json
@click.pass_context
def solve(
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
    built-in example: digits. Examples have no suffix and files must have one, so neither can hide the other.

    \b
    Examples:
      capsolve solve digits --dimensions 16 --figure allocation.png
      capsolve solve profile.csv -D 100 -o allocation.parquet
    """  # noqa: D301  (click's mark for lines to be kept)
    from capsolve.allocation import Status  # noqa: PLC0415
    from capsolve.allocation import solve as find  # noqa: PLC0415

    _keep(Path(profile), output, figure)
    given = _load(profile)
    with _about(profile):
        allocation = find(given.importance, given.kurtosis, dimensions, bias=bias, tolerance=tolerance)
    if output is not None:
        from capsolve.files import write_allocation  # noqa: PLC0415

        write_allocation(allocation, output, names=given.names)
    if figure is not None:
        from capsolve import figures  # noqa: PLC0415

        figures.save(figures.allocation(allocation, names=given.names), figure)
    if as_json:
        _print_json(_allocation_content(profile, given, allocation))
    else:
        click.echo(allocation.summary())
        written = [str(path) for path in (output, figure) if path is not None]
        if written:
            click.echo(f"\nwrote {' and '.join(written)}")
    if allocation.status is not Status.OPTIMAL:
        click.echo(
            f"capsolve: warning: the allocation is {allocation.status.value}, not certified to be optimal: "
            f"relative gap {allocation.gap:.1e}, tolerance {tolerance:.1e}",
            err=True,
        )
        context.exit(NOT_CERTIFIED)


def _load(name: str) -> Profile:
    """Return the built-in example of that name, or the profile in the file."""
    from capsolve.examples import example, examples  # noqa: PLC0415
    from capsolve.files import read_profile  # noqa: PLC0415

    if name in examples():
        return example(name)
    path = Path(name)
    if not path.suffix and not path.exists():
        raise ValueError(f"{name}: no such file, and no built-in example; the examples are {', '.join(examples())}")
    return read_profile(path)


def _allocation_content(source: str, given: Profile, allocation: Allocation) -> dict[str, Any]:
    columns = allocation.to_dict(given.names)
    everywhere = ("dimensions", "price", "lower_bound", "bias")  # repeated in every row, for tables
    return {
        "profile": source,
        "features": len(given),
        "dimensions": allocation.dimensions,
        "bias": columns["bias"][0],
        "status": allocation.status.value,
        "phases": allocation.counts(),
        **{
            name: getattr(allocation, name)
            for name in (
                "price",
                "scale",
                "loss",
                "lower_bound",
                "gap",
                "tolerance",
                "kkt_error",
                "budget_error",
                "boxes",
            )
        },
        "columns": {name: column for name, column in columns.items() if name not in everywhere},
    }


# ------------------------------------------------------------------------------------------ capsolve measure


@main.command()
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("--key", metavar="NAME", help="Which matrix of the file, W_dec for example; by default its decoder.")
@click.option("--features", type=click.Choice(["rows", "columns"]), help="What stands for a feature.")
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
    callback=_number(1e-12, 0.5),
    help="A feature counts as monosemantic from capacity 1 - tolerance on.",
)
@click.option("-o", "--output", callback=_table, metavar="FILE", help="Write the capacities as .csv or .parquet.")
@click.option("--figure", callback=_figure, metavar="FILE", help="Draw the measurement as .png, .pdf or .svg.")
@_as_json
def measure(
    weights: Path,
    key: str | None,
    features: str | None,
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
            _keep(source, output, figure)
    found = find(
        weights,
        key=key,
        features=features,
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
        from capsolve.files import write_table  # noqa: PLC0415

        write_table(found.to_dict(), output)
    if figure is not None:
        from capsolve import figures  # noqa: PLC0415

        figures.save(figures.measurement(found), figure)
    if as_json:
        _print_json(_measurement_content(found))
    else:
        click.echo(found.summary())
        written = [str(path) for path in (output, figure) if path is not None]
        if written:
            click.echo(f"\nwrote {' and '.join(written)}")


def _measurement_content(found: Measurement) -> dict[str, Any]:
    counts, edges = found.histogram()
    return {
        "weights": str(found.weights.path),
        **{name: getattr(found.weights, name) for name in ("key", "dtype", "reason", "guessed")},
        "orientation": found.weights.features,
        **{name: getattr(found, name) for name in ("features", "dimensions", "total", "efficiency", "random", "rank")},
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
    own = ("loss", "embedding_loss", "left", "embedding_left", "correlation")
    return {
        "status": given.allocation.status.value,
        "total": given.capacity.sum(),
        **{name: getattr(given, name) for name in own},
        "optimal_loss": given.allocation.loss,
        "price": given.allocation.price,
        "optimal_phases": given.allocation.counts(),
    }
