"""Diagrams in NumPy .npz files: arrays, and facts about them as JSON."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from capsolve._files import StrPath
from capsolve.diagrams.axes import Axis
from capsolve.files import replacing

FORMAT = 1


def write(
    path: StrPath, kind: str, axes: tuple[Axis, Axis], facts: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    """Write a diagram; the file replaces an older one as a whole."""
    if Path(path).suffix.lower() != ".npz":
        raise ValueError(f"path must end in .npz, got {path}")
    named = [{"name": axis.name, "logarithmic": axis.logarithmic} for axis in axes]
    text = json.dumps({"kind": kind, "format": FORMAT, "axes": named, **facts})
    values = {name: axis.values for name, axis in zip("xy", axes, strict=True)}
    with replacing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, facts=np.array(text), **values, **arrays)


@contextmanager
def reading(path: StrPath, kind: str) -> Iterator[tuple[tuple[Axis, Axis], dict[str, Any], dict[str, Any]]]:
    """Give axes, facts and arrays of a file; whatever goes wrong with them in the block is about the file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        for array in arrays.values():
            array.setflags(write=False)
        facts = json.loads(str(arrays["facts"]))
        if (facts["kind"], facts["format"]) != (kind, FORMAT):
            raise ValueError(f"it is {facts['kind']!r}, format {facts['format']}")  # noqa: TRY301
        x, y = (Axis(a["name"], arrays[key], a["logarithmic"]) for a, key in zip(facts["axes"], "xy", strict=True))
        yield (x, y), facts, arrays
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a file of {kind}: {error}") from None
