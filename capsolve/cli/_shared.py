"""What several commands share: exit statuses, checks of options, loading of profiles, JSON."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
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


def in_range(low: float, high: float = math.inf) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a callback that lets finite numbers in [low, high] pass, and an option that is not given."""

    def check(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
        if value is None or (math.isfinite(value) and low <= value <= high):
            return value
        allowed = f"a finite number >= {low:g}" if high == math.inf else f"a number in [{low:g}, {high:g}]"
        raise click.BadParameter(f"must be {allowed}, got {value:g}")

    return check


def table_path(_: click.Context, __: click.Parameter, value: str | None) -> Path | None:
    """Check that a table can be written before there is one."""
    if value is None:
        return None
    path = writable(value, (".csv", ".parquet"))
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise click.BadParameter('parquet files need pyarrow: pip install "capsolve[parquet]"')
    return path


def figure_path(_: click.Context, __: click.Parameter, value: str | None) -> Path | None:
    """Check that a figure can be written before there is one."""
    if value is None:
        return None
    from capsolve.figures import FORMATS  # noqa: PLC0415

    return writable(value, FORMATS)


def output_path(*suffixes: str) -> Callable[[click.Context, click.Parameter, Any], Path | None]:
    """Return a callback that checks that a file of one of these types can be written before there is one."""
    return lambda _, __, value: None if value is None else writable(value, suffixes)


def writable(value: str, suffixes: Sequence[str]) -> Path:
    """Return the path of a file that can be written, of one of these types."""
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


def keep_inputs(source: Path, *outputs: Path | None) -> None:
    """Refuse to write over what is read."""
    for path in outputs:
        if path is not None and path.exists() and source.exists() and path.samefile(source):
            raise click.UsageError(f"the output would replace the input {source}")


STANDARD = Path("-")
"""What stands for standard input and standard output."""


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
def output_table(output: Path) -> Iterator[Path]:
    """Give the path that a table is to be written to; what is for standard output goes there as CSV."""
    if output != STANDARD:
        yield output
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        yield path
        click.echo(path.read_bytes(), nl=False)


def table_or_standard(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """Check as `table_path` does; - is standard output, which cannot take a JSON object as well."""
    if value != str(STANDARD):
        return table_path(context, parameter, value)
    if context.params.get("as_json"):
        raise click.BadParameter("standard output takes the table or the JSON object, not both")
    return STANDARD


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
    aside = STANDARD in written  # there the table is
    click.echo(summary(), err=aside)
    if any(path not in (None, STANDARD) for path in written):
        listed = " and ".join(str(path) for path in written if path not in (None, STANDARD))
        click.echo(f"\nwrote {listed}", err=aside)


def draw(path: Path | None, drawing: str, *what: Any, **how: Any) -> None:
    """Write a drawing of `capsolve.figures` if there is a path for it."""
    if path is not None:
        from capsolve import figures  # noqa: PLC0415

        figures.save(getattr(figures, drawing)(*what, **how), path)


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
        return click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help=processes)(
            command
        )

    return decorate


@contextmanager
def kept(checkpoint: Path | None, beside: Path | None, pieces: str) -> Iterator[Path | None]:
    """Give the folder of finished pieces; if nobody asked for it, it goes when all is done."""
    if checkpoint is not None or beside is None:
        yield checkpoint
        return
    from capsolve.files.checkpoints import forget  # noqa: PLC0415

    folder = beside.with_name(f"{beside.name}.{pieces}")
    yield folder
    forget(folder)


@contextmanager
def pool(workers: int) -> Iterator[Executor | None]:
    """Give processes that leave interruptions to this one, or None for a single worker.

    If the block is left by an exception they are stopped at once: what they would still find is not stored, and a batch
    can take minutes.
    """
    if workers == 1:
        yield None
        return
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415
    from multiprocessing import active_children, get_context  # noqa: PLC0415

    others = active_children()
    # forking a process that runs threads of a numerical library may hang it
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare) as executor:
        with _held_back(signal.SIGINT):
            for _ in range(workers):  # a process starts with its task, and takes over what is held back
                executor.submit(os.getpid)
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            _wait_until_forgotten(executor)
            for process in active_children():
                if process not in others:
                    process.terminate()
            raise


_MOMENT, _PATIENCE = 0.2, 5.0  # seconds


def _wait_until_forgotten(executor: Executor) -> None:
    """Let an executor forget its cancelled tasks: it stumbles over them where a process ends, and prints a traceback.

    That takes a moment of its own thread, which is longer where processors are busy.
    """
    end = time.monotonic() + _PATIENCE
    time.sleep(_MOMENT)
    while time.monotonic() < end:
        waiting = list(getattr(executor, "_pending_work_items", {}).values())
        if not any(item.future.cancelled() for item in waiting):
            return
        time.sleep(0.05)


@contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """Let a signal wait until the end of the block, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare() -> None:
    """Make a worker ignore interruptions, and let no semaphore of a progress bar outlive it."""
    from threading import RLock  # noqa: PLC0415

    from tqdm import tqdm  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(RLock())
