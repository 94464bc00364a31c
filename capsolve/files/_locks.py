"""Locks: who is at work on a place, and what was left by those who are no more, on shared disks as well."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a lock file, made if missing, until the end of the block, when it goes, or of the process, when it stays.

    Gives whether the file system knows locks; where it does not, nobody is kept out. Raises `BlockingIOError` if
    somebody else holds it, in this process or another, unless asked to wait.
    """
    while True:
        with path.open("ab") as file:
            known = _lock(file.fileno(), wait)
            try:
                same = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                same = False
            if not same:  # who held it has removed it: this one keeps nobody out
                continue
            try:
                yield known
            finally:
                with suppress(OSError):  # Windows removes no open file
                    path.unlink()
                _unlock(file.fileno())
            return


def _lock(descriptor: int, wait: bool) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EAGAIN, errno.EDEADLK}:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
        return False
    return True


def _unlock(descriptor: int) -> None:
    """Let go, also where a process that was forked in the meantime has the file open."""
    if sys.platform != "win32":  # where closing it does
        import fcntl  # noqa: PLC0415

        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
