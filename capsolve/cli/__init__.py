"""The command line: ``capsolve profile`` measures features, ``solve`` allocates, ``measure`` looks at what exists.

Results go to standard output, for people or with ``--json`` for machines; all else goes to standard error,
errors in one line. The exit status is

    0    done
    1    bad input, or a file that cannot be read or written
    2    bad usage: an option or argument that makes no sense, found before any work is done
    3    done, but the allocation is not certified to be optimal within the tolerance
    4    done, but independent routes disagree (``verify``)
    130  interrupted; 143 if asked to end (SIGTERM), 129 if the terminal is gone

Modules that take long to import are imported by the commands that need them, so that help comes at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

import capsolve
from capsolve.cli import incidental, measure, phase, profile, reproduce, solve, verify
from capsolve.cli._shared import BAD_INPUT, BAD_USAGE, INTERRUPTED


class _Commands(click.Group):
    """Commands whose failures end in one line on standard error and an exit status, never in a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            with _signals_raise():
                status = self._status(*args, **kwargs)
        except KeyboardInterrupt:  # once more, while the first one was told
            status = INTERRUPTED
        sys.exit(status)

    def _status(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except click.UsageError as error:
            help_at = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
            return _complain(error.format_message() + help_at, BAD_USAGE)
        except click.Abort as error:  # click's word for KeyboardInterrupt
            return _complain("interrupted", INTERRUPTED, error.__cause__)
        except _Terminated as error:
            return _complain("terminated", error.code, error)
        except Exception as error:
            if os.environ.get("CAPSOLVE_DEBUG"):
                raise
            return _complain(_reason(error), BAD_INPUT, error)


class _Terminated(SystemExit):
    """Somebody asked the process to end."""


def _terminate(number: int, _: Any) -> NoReturn:
    raise _Terminated(128 + number)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let signals that would end the process raise exceptions, for those who have files and workers to clear up.

    What a signal does that the user or the parent has set otherwise (``nohup``) stays, and afterwards all is as it was.
    """
    raising = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _terminate}
    if hasattr(signal, "SIGHUP"):
        raising[signal.SIGHUP] = _terminate
    try:
        before = {n: signal.signal(n, raises) for n, raises in raising.items() if signal.getsignal(n) is signal.SIG_DFL}
    except ValueError:  # not in the main thread, which no signal interrupts
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell_when_compiling(context: click.Context) -> None:
    """Let a line on standard error say why the first command of all takes seconds, until the command ends."""
    handler = _show_log(context, "capsolve.compiling", logging.INFO)
    # where all that is logged is shown, this line is among it
    handler.addFilter(lambda _: not logging.getLogger(capsolve.__name__).isEnabledFor(logging.DEBUG))


def _show_log(context: click.Context, name: str, level: int) -> logging.Handler:
    """Show what a logger says from a level on, on standard error, until the command ends."""
    logger = logging.getLogger(name)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("capsolve: %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)

    def end() -> None:
        logger.setLevel(before)
        logger.removeHandler(handler)

    context.call_on_close(end)
    return handler


def _complain(message: str, status: Any, error: BaseException | None = None) -> Any:
    message = "; ".join([message, *getattr(error, "__notes__", ())])
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


def _log(context: click.Context, _: click.Parameter, value: bool) -> None:
    """Let what capsolve logs appear on standard error until the command ends."""
    if not value or context.meta.get(__name__):  # twice: before and after the command
        return
    context.meta[__name__] = True
    _show_log(context, capsolve.__name__, logging.DEBUG)


verbose = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_log,
    help="Say which way is taken, why, and what is guessed.",
)


@verbose
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
    -D is the number of dimensions and - standard input or output everywhere.
    -o writes what a command is for: a table (profile, solve, measure), a
    picture (phase, incidental), a report (verify) or a folder (reproduce).

    \b
    Exit status: 0 done, 1 bad input, 2 bad usage, 3 done but not certified
    to be optimal, 4 done but verify finds disagreement, 130 interrupted,
    143 asked to end (SIGTERM).
    """  # noqa: D301  (click's mark for lines to be kept)
    _tell_when_compiling(context)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _module in (profile, solve, measure, phase, verify, incidental, reproduce):
    main.add_command(verbose(_module.command))
