"""Results in NumPy .npz files: arrays, and facts about them as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from capsolve._checks import shown
from capsolve.files._paths import StrPath
from capsolve.files.tensors import Arrays, read_arrays, write_arrays

FORMAT = 1


def write_archive(
    path: StrPath, kind: str, facts: Mapping[str, Any], arrays: Mapping[str, Any], *, compressed: bool = True
) -> None:
    """Write arrays and facts; the file replaces an older one as a whole.

    Raises `ValueError` if the path does not end in .npz, and `OSError` if the file cannot be written.
    """
    text = json.dumps({"kind": kind, "format": FORMAT, **facts})
    write_arrays(path, {"facts": np.array(text), **arrays}, compressed=compressed)


@contextmanager
def reading_archive(path: StrPath, kind: str) -> Iterator[tuple[dict[str, Any], Arrays]]:
    """Give facts and arrays of a file; whatever goes wrong with them in the block is about the file.

    Raises `ValueError` for another kind of file, or a broken one.
    """
    try:
        arrays = read_arrays(path)
        facts = json.loads(str(arrays.pop("facts")))
        if (facts["kind"], facts["format"]) != (kind, FORMAT):
            raise ValueError(f"it is {facts['kind']!r}, format {facts['format']}")  # noqa: TRY301
        yield facts, arrays
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = str(error).removeprefix(f"{path}: ").strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not {kind}: {shown(reason, 200)}") from None
