"""What readers and writers of files share: optional libraries, and errors in one line that name the path."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

StrPath = str | os.PathLike[str]


def optional_module(module: str, extra: str) -> Any:
    """Import a module that an extra of capsolve brings, or raise an `ImportError` that names the extra."""
    try:
        return import_module(module)
    except ImportError:
        library = module.partition(".")[0]
        raise ImportError(f'{library} is needed for this: pip install "capsolve[{extra}]"') from None


@contextmanager
def readable_file(path: Path, *broken: type[Exception]) -> Iterator[None]:
    """Turn what a library says of a broken file into one line that names the path."""
    try:
        yield
    except broken as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not a readable {path.suffix} file: {reason}") from None


def is_dataset(path: StrPath) -> bool:
    """Return whether `capsolve.open_profile` is what a path is meant for: a folder, or a pattern."""
    return Path(path).is_dir() or (glob.has_magic(str(path)) and not Path(path).exists())


def found_columns(path: Path, header: list[str], wanted: Iterable[str], optional: Collection[str] = ()) -> list[str]:
    """Return the wanted columns that are there; a missing one that is not optional is a `ValueError`."""
    refuse_duplicates(path, header)
    missing = [name for name in wanted if name not in header and name not in optional]
    if missing:
        there = ", ".join(header[:10]) + ", …" * (len(header) > 10)
        raise ValueError(f"{path}: column {missing[0]} is missing; the columns are {there}")
    return [name for name in wanted if name in header]


def refuse_duplicates(path: Path, names: Iterable[str]) -> None:
    """Raise a `ValueError` if a name is there twice."""
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{path}: column {name} is there {count} times")


def os_error(number_: int, path: StrPath) -> OSError:
    """Return the operating system's own words about a path."""
    return OSError(number_, os.strerror(number_), str(path))
