"""What several commands share: exit statuses, checks of options, loading of profiles, JSON."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from capsolve.profile import Profile

BAD_INPUT, BAD_USAGE, NOT_CERTIFIED, DISAGREE, INTERRUPTED = 1, 2, 3, 4, 130

Callback = Callable[[click.Context, click.Parameter, Any], Any]

TABLES = (".csv", ".parquet")


def in_range(low: float, high: float = math.inf) -> Callback:
    """Return a callback that lets finite numbers in [low, high] pass, and an option that is not given."""

    def check(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
        if value is None or (math.isfinite(value) and low <= value <= high):
            return value
        allowed = f"a finite number >= {low:g}" if high == math.inf else f"a number in [{low:g}, {high:g}]"
        raise click.BadParameter(f"must be {allowed}, got {value:g}")

    return check


def output_path(*suffixes: str) -> Callback:
    """Return a callback that checks that a file of one of these types can be written before there is one.

    A single one may be for standard output.
    """

    def check(context: click.Context, _: click.Parameter, value: str | None) -> Path | None:
        if value is None:
            return None
        if value == str(STANDARD):
            if context.params.get("as_json") or any(other is STANDARD for other in context.params.values()):
                raise click.BadParameter("standard output takes one file or the JSON object, not both")
            return STANDARD
        return writable(value, suffixes)

    return check


def figure_path(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """Check as a callback of `output_path` does that a figure can be written before there is one."""
    from capsolve.figures import FORMATS  # noqa: PLC0415

    return output_path(*FORMATS)(context, parameter, value)  # type: ignore[no-any-return]


figure_option = click.option(
    "-o",
    "--output",
    "--figure",
    callback=figure_path,
    metavar="FILE",
    help="Draw it as .png, .pdf or .svg; - is standard output.",
)


def writable(value: str, suffixes: Sequence[str]) -> Path:
    """Return the path of a file that can be written, of one of these types."""
    path = Path(value)
    if path.is_dir():
        raise click.BadParameter(f"{value} is a directory")
    if path.suffix.lower() not in suffixes:
        raise click.BadParameter(f"the file type must be one of {', '.join(suffixes)}, got {value}")
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise click.BadParameter('parquet files need pyarrow: pip install "capsolve[parquet]"')
    if not path.parent.is_dir():
        raise click.BadParameter(f"the directory {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise click.BadParameter(f"{value} cannot be written: permission denied")
    return path


def keep_inputs(source: Path, *outputs: Path | None) -> None:
    """Refuse to write over what is read."""
    for path in outputs:
        if path is not None and path.exists() and source.exists() and path.samefile(source):
            raise click.UsageError(f"the output would replace the input {source}")


STANDARD = Path("-")
"""What stands for standard input and standard output; an output is this very object, which no input is."""


class InputPath(click.Path):
    """The path of an input, or - for standard input; an empty one would mean the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if value == "":
            self.fail("a path must not be empty", param, ctx)
        return super().convert(value, param, ctx)


@contextmanager
def input_file(source: Path) -> Iterator[Path]:
    """Give the path of an input; standard input is copied to a file of the type that its first bytes show."""
    if source != STANDARD:
        yield source
        return
    from capsolve.files._paths import copied  # noqa: PLC0415

    with TemporaryDirectory() as folder:
        path = copied(sys.stdin.buffer, Path(folder))
        try:
            yield path
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), "standard input")) from None


@contextmanager
def output_file(output: Path, suffix: str) -> Iterator[Path]:
    """Give the path that a file is to be written to; what is for standard output goes there, of this type."""
    if output is not STANDARD:
        yield output
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, f"output{suffix}")
        yield path
        click.echo(path.read_bytes(), nl=False)


@contextmanager
def about(source: str | Path) -> Iterator[None]:
    """Make complaints about what a file says name the file."""
    try:
        yield
    except ValueError as error:
        if str(source) in str(error):
            raise
        raise ValueError(f"{source}: {error}") from error


def print_json(content: Mapping[str, Any]) -> None:
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


def report(
    as_json: bool, content: Callable[[], Mapping[str, Any]], summary: Callable[[], str], *written: Path | None
) -> None:
    """Print one JSON object, or a summary for people and which files were written."""
    if as_json:
        print_json(content())
        return
    aside = any(path is STANDARD for path in written)  # there the file is
    click.echo(summary(), err=aside)
    if any(path not in (None, STANDARD) for path in written):
        listed = " and ".join(str(path) for path in written if path not in (None, STANDARD))
        click.echo(f"\nwrote {listed}", err=aside)


def draw(path: Path | None, drawing: str, *what: Any, **how: Any) -> None:
    """Write a drawing of `capsolve.figures` if there is a path for it."""
    if path is not None:
        from capsolve import figures  # noqa: PLC0415

        with output_file(path, ".png") as file:
            figures.save(getattr(figures, drawing)(*what, **how), file)


json_flag = click.option(
    "--json", "as_json", is_flag=True, is_eager=True, help="Print one JSON object instead of a summary."
)


def load_profile(name: str) -> Profile:
    """Return the built-in example of that name, or the profile in the file, or on standard input for -."""
    from capsolve.examples import example, examples  # noqa: PLC0415
    from capsolve.files import read_profile  # noqa: PLC0415

    if name in examples():
        return example(name)
    if name and Path(name) != STANDARD and not Path(name).suffix and not Path(name).exists():
        raise ValueError(f"{name}: no such file, and no built-in example; the examples are {', '.join(examples())}")
    with input_file(Path(name)) as path:
        return read_profile(path if name else name)


def resumable(pieces: str, processes: str = "Processes.") -> Callable[[Any], Any]:
    """Add the options of a long run that may be interrupted."""

    def decorate(command: Any) -> Any:
        folder = click.Path(path_type=Path, file_okay=False)
        kept = f"Where finished {pieces} are kept.  [default: beside --data or --output, until all is done]"
        command = click.option("--checkpoint", type=folder, metavar="FOLDER", help=kept)(command)
        return workers_option(processes)(command)

    return decorate


def workers_option(processes: str) -> Callable[[Any], Any]:
    """Add the number of processes."""
    return click.option("--workers", type=int, default=1, show_default=True, callback=_workers, help=processes)


def _workers(_: click.Context, __: click.Parameter, value: int) -> int:
    if value == 1:
        return 1
    from capsolve._processes import PER_PROCESSOR, most_workers  # noqa: PLC0415

    most = most_workers()
    if not 1 <= value <= most:
        raise click.BadParameter(f"must be from 1 to {most}, {PER_PROCESSOR} for each processor, got {value}")
    return value


@contextmanager
def kept(checkpoint: Path | None, pieces: str, *outputs: Path | None) -> Iterator[Path | None]:
    """Give the folder of finished pieces: if nobody asked for one, beside the first output until all is done."""
    beside = next((path for path in outputs if path not in (None, STANDARD)), None)
    folder = checkpoint or (beside and beside.with_name(f"{beside.name}.{pieces}"))
    with resumes(folder, pieces):
        yield folder
    if folder is not None and checkpoint is None:
        from capsolve.files.checkpoints import forget  # noqa: PLC0415

        forget(folder)


@contextmanager
def resumes(folder: Path | None, pieces: str) -> Iterator[None]:
    """Let whatever ends a run also say where its finished pieces are; bad arguments would end the next one, too."""
    try:
        yield
    except ValueError:
        raise
    except BaseException as error:
        if folder is not None and any(path.name[0] != "." for path in folder.rglob("*.npz")):
            error.add_note(f"finished {pieces} are kept in {folder}, and the same command resumes")
        raise


@contextmanager
def pool(workers: int) -> Iterator[Executor | None]:
    """Give `worker_processes`, or None for a single one, which is this process."""
    if workers == 1:
        yield None
        return
    from capsolve._processes import worker_processes  # noqa: PLC0415

    with worker_processes(workers) as executor:
        yield executor
