"""``python -m derivations``: prove the results, print them, write them as a paper."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import click

from derivations import NAMES, Derivation, DerivationError, derive, render

WRITERS = {".tex": render.tex, ".md": render.markdown}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--list", "listing", is_flag=True, help="Name the results and stop.")
@click.option("--output", type=click.Path(path_type=Path), help="Also write them to FILE.tex or FILE.md.")
def main(names: tuple[str, ...], listing: bool, output: Path | None) -> None:
    """Prove the results NAME... (all of them by default), step by step, and print them."""
    if listing:
        click.echo("\n".join(NAMES))
        return
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise click.ClickException(f"no derivation is called {unknown[0]!r}; there are {', '.join(NAMES)}")
    if output is not None and output.suffix not in WRITERS:
        raise click.ClickException(f"--output must end in .tex or .md, got {str(output)!r}")
    if output is not None and not output.parent.is_dir():
        raise click.ClickException(f"--output: there is no folder {str(output.parent)!r}")
    start = time.perf_counter()
    derivations: list[Derivation] = []
    for name in names or NAMES:
        try:
            derivations.append(derive(name))
        except DerivationError as error:
            raise click.ClickException(f"not proved: {error}") from None
        click.echo(render.plain(derivations[-1], NAMES.index(name) + 1))
    if output is not None:
        write(output, WRITERS[output.suffix](derivations))
    steps = sum(len(derivation.steps) for derivation in derivations)
    click.echo(
        f"{len(derivations)} of {len(NAMES)} results, {steps} steps, all checked in {time.perf_counter() - start:.0f} s"
        + (f"; written to {output}" if output else "")
    )


def write(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` at once or not at all."""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise click.ClickException(f"cannot write {str(path)!r}: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
