"""Long runs that survive an interruption: what is finished is stored at once, and the same run resumes from there.

A run is cut into pieces. Each is a set of arrays, stored as a whole in a file of its own; a computation inside one
process that cannot be cut keeps its state in one file instead. Either knows what decides its result, by a fingerprint,
and is refused by any other run. While a run is at work in a folder, no other one is let in.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from capsolve._checks import shown
from capsolve.files._locks import locked
from capsolve.files._paths import StrPath, write_text
from capsolve.files.archives import reading_archive, write_archive
from capsolve.files.tensors import Arrays

logger = logging.getLogger(__name__)

Job = TypeVar("Job")

_SETTINGS, _LOCK = "settings.json", "run.lock"
_SECONDS = 5.0  # between two writings of the state of a computation


def fingerprint(facts: Any, *arrays: Any) -> str:
    """Return a text that only the same facts (numbers, text, lists, dictionaries) and arrays share."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class Checkpoint:
    """A folder with a file for every finished piece, and one that says what they are pieces of."""

    def __init__(self, folder: StrPath, kind: str, facts: Mapping[str, Any], mark: str) -> None:
        """Make the folder, or resume what is in it.

        Parameters
        ----------
        folder : path
            Made if missing.
        kind : str
            What is computed, with its article.
        facts : mapping
            Settings, for people who look into the folder.
        mark : str
            The `fingerprint` of all that decides the pieces.

        Raises
        ------
        ValueError
            If the folder cannot be made, holds anything else, or belongs to a run with another mark.
        """
        self.folder, self.kind, self.mark, self.facts = Path(folder), kind, mark, facts
        self._open()  # to be learnt now, not after the first minutes of work

    def _open(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"checkpoint must be a folder, got {self.folder}: {error}") from None
        settings = self.folder / _SETTINGS
        if not settings.exists():
            # a run that begins at the same moment, or was killed then
            begun = (_LOCK, f".{Path(_SETTINGS).stem}.")
            if not all(path.name.startswith(begun) for path in self.folder.iterdir()):
                raise ValueError(f"{self.folder}: not a checkpoint, and not empty")
            facts = {"kind": self.kind, "fingerprint": self.mark, **self.facts}
            write_text(settings, json.dumps(facts, indent=1, default=str))
        try:
            known = json.loads(settings.read_text(encoding="utf-8"))
            found = known["kind"], known["fingerprint"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{settings}: not the settings of {self.kind}") from None
        _require_same(self.folder, self.kind, self.mark, *found)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep other runs out until the end of the block; raises `ValueError` if one is at work there."""
        self.folder.mkdir(parents=True, exist_ok=True)  # the last run may have removed it since
        with _alone(self.folder):
            self._open()
            yield

    def load(self, piece: str, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Arrays | None:
        """Return the arrays of a piece, or None if it is not there yet, or damaged.

        A piece of another run, or arrays that do not have the names and shapes that are said, are a `ValueError`.
        """
        path = self._path(piece)
        if not path.exists():
            return None
        try:
            with reading_archive(path, f"a checkpoint of {self.kind}") as (facts, arrays):
                found = facts["fingerprint"]
        except ValueError as error:
            logger.warning("%s; it is computed again", error)
            return None
        _require_same(path, self.kind, self.mark, self.kind, found)
        if shapes is not None:
            _require_shapes(path, shapes, arrays)
        return arrays

    def save(self, piece: str, arrays: Mapping[str, Any]) -> None:
        """Store a piece."""
        _save(self._path(piece), self.kind, self.mark, {}, arrays)

    def _path(self, piece: str) -> Path:
        return self.folder / f"{piece}.npz"


def require_seed(what: str, rng: Any, checkpoint: StrPath | None) -> None:
    """Raise a `ValueError` if what keeps a checkpoint has no seed: it could not be begun again."""
    if rng is None and checkpoint is not None:
        raise ValueError(f"{what} with a checkpoint needs a seed: rng must not be None")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / _LOCK))
        except BlockingIOError:
            raise ValueError(
                f"{folder}: another run is at work there; wait until it has ended, or use another folder or output"
            ) from None
        except OSError as error:  # where nobody can write, nobody is at work
            if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
                raise
        yield


def forget(checkpoint: StrPath) -> None:
    """Remove the files of a checkpoint where no run is at work, and the folder if nothing else is in it."""
    folder = Path(checkpoint)
    if (folder / _SETTINGS).exists():
        with suppress(ValueError), _alone(folder):
            for path in (*folder.glob("*.npz"), *folder.glob(".*.lock"), folder / _SETTINGS):
                path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            folder.rmdir()


def run(
    pieces: Mapping[str, int],
    cut: Callable[[list[str]], Iterable[tuple[Sequence[str], Job]]],
    compute: Callable[[Job], Sequence[Arrays]],
    *,
    checkpoint: Checkpoint | None = None,
    executor: Executor | None = None,
    progress: bool = False,
    unit: str = "piece",
    shapes: Callable[[str], Mapping[str, tuple[int, ...]]] | None = None,
) -> Iterator[tuple[str, Arrays]]:
    """Yield all pieces: first those that are stored, then the others as they come, each stored first.

    Parameters
    ----------
    pieces : mapping of names to sizes
        Sizes are what the progress bar counts.
    cut : function
        Takes the names of the pieces to be computed and returns jobs, each with the names of its pieces.
    compute : function
        Does a job and returns the arrays of its pieces. With an executor it runs there, wherever that is.
    checkpoint : Checkpoint, optional
    executor : concurrent.futures.Executor, optional
        By default jobs are done here, one after the other. If anything goes wrong or the caller stops, those that have
        not begun are cancelled.
    progress : bool
        Show a progress bar on standard error.
    unit : str
        What sizes count.
    shapes : function, optional
        Returns the arrays of a piece that may be believed, by name; others are a `ValueError`.
    """
    alone = nullcontext() if checkpoint is None else checkpoint.in_use()
    with alone, tqdm(total=sum(pieces.values()), disable=not progress, unit=unit) as bar:
        missing = []
        for name, size in pieces.items():
            found = None if checkpoint is None else checkpoint.load(name, shapes and shapes(name))
            if found is None:
                missing.append(name)
                continue
            bar.update(size)
            yield name, found
        if checkpoint is not None:
            logger.info("%s: %d of %d pieces are there", checkpoint.folder, len(pieces) - len(missing), len(pieces))
        for names, results in _computed(list(cut(missing)), compute, executor):
            for name, arrays in zip(names, results, strict=True):
                if checkpoint is not None:
                    checkpoint.save(name, arrays)
                bar.update(pieces[name])
                yield name, arrays


def _computed(
    jobs: list[tuple[Sequence[str], Job]], compute: Callable[[Job], Sequence[Arrays]], executor: Executor | None
) -> Iterator[tuple[Sequence[str], Sequence[Arrays]]]:
    if executor is None:
        for names, job in jobs:
            yield names, compute(job)
        return
    futures = {executor.submit(compute, job): names for names, job in jobs}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for future in futures:
            future.cancel()


class StateFile:
    """A file that holds how far one computation has come: facts and arrays."""

    def __init__(self, path: StrPath, kind: str, mark: str) -> None:
        """Take note of the place.

        Raises `ValueError` if it does not end in .npz or its directory does not exist.
        """
        self.path, self.kind, self.mark, self._written = Path(path), kind, mark, time.monotonic()
        if self.path.suffix != ".npz":
            raise ValueError(f"checkpoint must be a .npz file, got {path}")
        if not self.path.parent.is_dir():  # to be learnt now, not after the first minutes of work
            raise ValueError(f"checkpoint must be in a directory that exists, got {path}")

    def load(self) -> tuple[dict[str, Any], Arrays] | None:
        """Return what the file says, or None if it is not there; another run's or a broken one is a `ValueError`."""
        return _load(self.path, self.kind, self.mark) if self.path.exists() else None

    def offer(self, facts: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Store the state if the last one is some seconds old."""
        if time.monotonic() - self._written > _SECONDS:
            self.save(facts, arrays)

    def save(self, facts: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Store the state."""
        _save(self.path, self.kind, self.mark, facts, arrays)
        self._written = time.monotonic()


def _save(path: Path, kind: str, mark: str, facts: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    write_archive(path, f"a checkpoint of {kind}", {"fingerprint": mark, **facts}, arrays, compressed=False)


def _load(path: Path, kind: str, mark: str) -> tuple[dict[str, Any], Arrays]:
    with reading_archive(path, f"a checkpoint of {kind}") as (facts, arrays):
        found = facts["fingerprint"]
    _require_same(path, kind, mark, kind, found)
    return facts, arrays


def _require_same(path: Path, kind: str, mark: str, found_kind: str, found_mark: str) -> None:
    if found_kind != kind:
        raise ValueError(f"{path}: the checkpoint of {found_kind}, not of {kind}")
    if found_mark != mark:
        raise ValueError(
            f"{path}: the checkpoint of {kind} with other arguments or another seed; repeat that run "
            f"(see {_SETTINGS}), remove the checkpoint, or use another one"
        )


def _require_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]], arrays: Arrays) -> None:
    for name in {**shapes, **arrays}:
        got = f"{arrays[name].shape}" if name in arrays else "nothing"
        wanted = f"must have the shape {shapes[name]}, got {got}" if name in shapes else "must not be there"
        if name not in shapes or got != f"{shapes[name]}":
            raise ValueError(f"{path}: {shown(name)} {wanted}; remove the file")
