"""The command line: ``capsolve profile`` measures features, ``solve`` allocates, ``measure`` looks at what exists.

Results go to standard output, for people or with ``--json`` for machines; all else goes to standard error,
errors in one line. The exit status is

    0    done
    1    bad input, or a file that cannot be read or written
    2    bad usage: an option or argument that makes no sense, found before any work is done
    3    done, but the allocation is not certified to be optimal within the tolerance
    4    done, but independent routes disagree (``verify``)
    130  interrupted

Modules that take long to import are imported by the commands that need them, so that help comes at once.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click

import capsolve
from capsolve.cli import incidental, measure, phase, profile, reproduce, solve, verify
from capsolve.cli._shared import BAD_INPUT, BAD_USAGE, INTERRUPTED


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


def _tell_when_compiling(context: click.Context) -> None:
    """Let a line on standard error say why the first command of all takes seconds, until the command ends."""
    logger = logging.getLogger("capsolve.compiling")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("capsolve: %(message)s"))
    # where all that is logged is shown, this line is among it
    handler.addFilter(lambda _: not logging.getLogger(capsolve.__name__).isEnabledFor(logging.DEBUG))
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    context.call_on_close(lambda: logger.removeHandler(handler))


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
    Exit status: 0 done, 1 bad input, 2 bad usage, 3 done but not certified
    to be optimal, 4 done but verify finds disagreement, 130 interrupted.
    """  # noqa: D301  (click's mark for lines to be kept)
    _tell_when_compiling(context)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _module in (profile, solve, measure, phase, verify, incidental, reproduce):
    main.add_command(_module.command)
