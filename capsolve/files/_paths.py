"""What readers and writers of files share: paths, places, optional libraries, errors in one line that name the path."""

from __future__ import annotations

import errno
import glob
import logging
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from capsolve._checks import shown
from capsolve.files._locks import locked

logger = logging.getLogger(__name__)

StrPath = str | os.PathLike[str]

_PATIENCE = 5.0  # seconds that a folder may take to go
_LOCK = ".lock"

# How files of other types than text begin.
_MAGIC = {b"\x93NUMPY": ".npy", b"PAR1": ".parquet", b"PK\x03\x04": ".npz", b"\x80\x02": ".pt"}


def optional_module(module: str, extra: str) -> Any:
    """Import a module that an extra of capsolve brings, or raise an `ImportError` that names the extra."""
    try:
        return import_module(module)
    except ImportError:
        library = module.partition(".")[0]
        raise ImportError(f'{library} is needed for this: pip install "capsolve[{extra}]"') from None


@contextmanager
def readable_file(path: Path, *broken: type[Exception]) -> Iterator[None]:
    """Turn what a library raises for a broken file, of some types or any, into one line that names the path."""
    try:
        yield
    except ImportError:
        raise
    except MemoryError:
        raise MemoryError(f"{path}: there is not enough memory to read it") from None
    except Exception as error:
        told = isinstance(error, ValueError) and str(error).startswith(f"{path}: ")
        if told or (broken and not isinstance(error, broken)):
            raise
        if isinstance(error, OSError) and error.errno in {errno.EIO, errno.ENOENT, errno.EACCES}:
            raise os_error(error.errno, path) from None
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not a readable {path.suffix} file: {shown(reason, 200)}") from None


def is_dataset(path: StrPath) -> bool:
    """Return whether `capsolve.open_profile` is what a path is meant for: a folder, or a pattern."""
    given = Path(path)
    return str(path) != "" and (given.is_dir() or (glob.has_magic(str(path)) and not given.exists()))


def require_path(path: StrPath) -> Path:
    """Return the path; an empty one, which would mean the current folder, is a `ValueError`."""
    if not os.fspath(path):
        raise ValueError("a path must not be empty")
    return Path(path)


def regular_file(path: StrPath) -> Path:
    """Return the path of a regular file: what every reader opens goes through here.

    A pipe or a device may have no end. Raises `ValueError` for one and for an empty path, and `OSError` for what is
    missing or a directory.
    """
    path = require_path(path)
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise os_error(errno.EISDIR, path)
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path}: must be a regular file, got a pipe, socket or device")
    return path


def existing_file(path: StrPath, *known: str) -> tuple[Path, str]:
    """Return the path and its suffix, of a readable regular file that is not empty."""
    path = regular_file(path)
    with path.open("rb") as file:  # unreadable: the operating system's own words
        kind = known_suffix(path, *known)
        if not file.read(1):
            raise ValueError(f"{path}: the file is empty")
    return path, kind


def copied(stream: IO[bytes], folder: Path) -> Path:
    """Copy a stream to a file in a folder, with the suffix of what its first bytes show; text is CSV."""
    path = folder / "input"
    with path.open("wb") as file:
        shutil.copyfileobj(stream, file)
    with path.open("rb") as file:
        start = file.read(300)
    suffix = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), ".csv")
    if start[8:9] == b"{":  # after the length of a header in JSON
        suffix = ".safetensors"
    if suffix == ".npz":  # or another zip file, as the name of what it holds first tells
        length = int.from_bytes(start[26:28], "little")
        suffix = ".npz" if start[30 : 30 + length].endswith(b".npy") else ".pt"
    logger.info("standard input is taken for a %s file, by its first bytes", suffix)
    return path.rename(path.with_suffix(suffix))


def known_suffix(path: StrPath, *known: str) -> str:
    """Return the suffix of a path in lower case; one that is not known is a `ValueError`."""
    kind = Path(path).suffix.lower()
    if kind not in known:
        raise ValueError(f"{path}: the file type must be one of {', '.join(known)}, got {kind or 'none'}")
    return kind


@contextmanager
def replacing(path: StrPath) -> Iterator[Path]:
    """Give the path of a temporary file, which takes the place of ``path`` if the block ends well and goes if not.

    It lies in the same directory and has the same suffix. Raises `OSError`, about ``path``, if that is a directory or
    cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise os_error(errno.EISDIR, path)
    if not target.parent.is_dir():
        raise os_error(errno.ENOENT, target.parent)
    if target.exists() and not os.access(target, os.W_OK):
        raise os_error(errno.EACCES, path)
    with _temporary(target, path) as temporary:
        yield temporary
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)


def write_text(path: StrPath, text: str) -> None:
    """Write text as UTF-8: the whole file or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(folder: StrPath) -> Iterator[Path]:
    """Give the path of a temporary folder, which becomes ``folder`` if the block ends well and goes if not.

    Raises `OSError` if there is something already.
    """
    target = require_new_folder(folder)
    with _temporary(target, folder) as temporary:
        temporary.mkdir()
        yield temporary
        temporary.replace(target)


def require_new_folder(folder: StrPath) -> Path:
    """Return the path of a folder that can be made; raise `OSError` if there is something already."""
    target = Path(os.path.realpath(folder))
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise os_error(errno.EEXIST, folder)
    if not target.parent.is_dir():
        raise os_error(errno.ENOENT, target.parent)
    return target


@contextmanager
def _temporary(target: Path, path: StrPath) -> Iterator[Path]:
    """Give a name beside ``target`` that nobody else uses, with its suffix; what bears it goes in the end.

    So does what bears such a name since a process was killed: nobody holds the lock beside it any more. Errors of the
    system are about ``path``.
    """
    start = f".{target.stem[:40]}."  # names have at most 255 bytes
    for left in target.parent.glob(f"{glob.escape(start)}*{_LOCK}"):
        if len(left.name) == len(f"{start}{uuid.uuid4().hex}{target.suffix}{_LOCK}"):
            with suppress(OSError), locked(left) as known:
                if known:
                    _remove(left.with_name(left.name.removesuffix(_LOCK)))
    temporary = target.with_name(f"{start}{uuid.uuid4().hex}{target.suffix}")
    lock = temporary.with_name(temporary.name + _LOCK)
    try:
        with locked(lock, wait=True):
            try:
                yield temporary
            finally:
                _remove(temporary)
    except OSError as error:
        if type(error) is OSError and error.errno is None:  # a library's own words
            raise OSError(f"{path}: {error}") from None
        if error.errno is not None and error.filename in (None, str(temporary), str(lock)):  # a full disk has no name
            raise os_error(error.errno, path) from None
        raise


def _remove(path: Path) -> None:
    """Remove a file or a folder that may be there."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    end = time.monotonic() + _PATIENCE
    while path.exists() and time.monotonic() < end:
        shutil.rmtree(path, ignore_errors=True)  # which fails if a thread that is still at work adds a file


def os_error(number: int, path: StrPath) -> OSError:
    """Return the operating system's own words about a path."""
    return OSError(number, os.strerror(number), str(path))
