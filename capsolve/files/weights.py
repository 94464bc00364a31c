"""One matrix out of a file of weights, features first, in blocks: any size, either orientation.

Every block is read by opening the file anew. So what has been mapped is given back with the block, and a file of any
size is measured in the memory of one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from capsolve._arrays import dtype_name, to_numpy
from capsolve._checks import shown
from capsolve.files._layouts import Evidence, choose, first_ten, listed_keys, name_says, possible, sizes_say
from capsolve.files._paths import StrPath, existing_file, require_path
from capsolve.files.tensors import INDEX, SUFFIXES, Index, Tensor, open_tensors, require_key

logger = logging.getLogger(__name__)

Axis = Literal["rows", "columns"]

# The weights in a folder, by the names that projects give them.
FILES = (
    "sae_weights.safetensors",  # SAELens
    "sae.safetensors",  # sparsify
    "params.npz",  # Gemma Scope
    "params.safetensors",  # Gemma Scope 2
    "ae.pt",  # dictionary_learning
    "checkpoints/final.safetensors",  # Llama Scope
    "model.safetensors.index.json",  # transformers, in several files
    "pytorch_model.bin.index.json",
    "model.safetensors",
    "pytorch_model.bin",
)
_LIKELY = (".safetensors", ".npz", ".npy", ".pt", ".pth")  # before .bin and .ckpt, which hold other things as well

_MOST_LOOKED_AT = 10_000  # entries of the folders below a folder

# The types of numbers that weights are computed with; there are others in files.
FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")

_BLOCK = 2**24  # entries read at a time


@dataclass(frozen=True, eq=False)
class Weights:
    """A matrix with one row per feature, that may lie in a file and there with one column per feature."""

    path: Path | None
    """The file; None for a matrix in memory."""
    key: str | None
    """Which of the file's matrices; None where there is but one without a name."""
    dtype: str
    """The type of the stored numbers, one of `FLOATS`."""
    shape: tuple[int, int]
    """(n, D): features, dimensions."""
    features: Axis
    """What stands for a feature in the file."""
    reason: str
    """How that was decided."""
    guessed: bool
    """Whether it was decided by nothing better than the longer axis."""
    read: Callable[[Index], npt.NDArray[Any]]
    """Return a part of the matrix as it is stored."""
    parts: int | None = None
    """How many matrices the array has, where it has three axes."""

    @property
    def guess(self) -> str:
        """What was guessed, for people."""
        return f"the {self.features} are taken as features, being the longer axis"

    @property
    def name(self) -> str:
        """Path and key, for messages."""
        return ", ".join(str(part) for part in (self.path, self.key) if part is not None) or "W"

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the rows in order, in blocks: float64 if they are stored so, float32 otherwise.

        Raises `ValueError`, with row and column of the file, for a NaN or an infinity.
        """
        n, D = self.shape
        step = max(1, _BLOCK // D)
        precision = np.float64 if self.dtype == "float64" else np.float32
        for start in range(0, n, step):
            part = slice(start, min(start + step, n))
            if self.features == "rows":
                block = np.array(self.read((part, slice(None))), dtype=precision, order="C")
            else:
                block = np.array(self.read((slice(None), part)).T, dtype=precision, order="C")
            if not np.isfinite(block).all():
                feature, dimension = np.argwhere(~np.isfinite(block))[0].tolist()
                value, place = block[feature, dimension], [start + feature, dimension]
                row, column = place if self.features == "rows" else reversed(place)
                raise ValueError(f"{self.name}: must be finite, got {value} at row {row}, column {column}")
            yield block


def from_array(W: Any, feature_axis: str | int | None = None, count: int | None = None) -> Weights:
    """Wrap a matrix in memory, one row per feature unless ``feature_axis`` says "columns".

    Raises `ValueError` if it is not a two-dimensional array of floating-point numbers, is empty, or has more columns
    than rows and neither ``feature_axis`` nor ``count``, the number of features, says which are meant: of the same
    numbers in a file the longer axis would be taken, against the rule that in an array the rows are features.
    """
    array = to_numpy(W, "W")
    if array.dtype.kind in "biu":
        array = array.astype(np.float64)
    given = dtype_name(W) if hasattr(W, "dtype") else ""  # bfloat16 becomes float32, but is no better known
    stored = Tensor(given if given in FLOATS else array.dtype.name, array.shape, array.__getitem__)
    _require_matrix("W", stored)
    rows, columns = stored.shape
    asked = _axis(feature_axis)
    if asked is None and rows < columns and count != rows:
        raise ValueError(
            f"W: {rows} rows and {columns} columns; say whether features are rows or columns (feature_axis=)"
        )
    axis = asked or "rows"
    reason = "as given" if asked else "the default for arrays"
    return Weights(None, None, stored.dtype, _features_first(stored.shape, axis), axis, reason, False, stored.read)


def open_weights(
    path: StrPath,
    *,
    key: str | None = None,
    feature_axis: str | int | None = None,
    part: int | None = None,
    count: int | None = None,
) -> Weights:
    """Find a matrix in a file or folder, and which of its axes counts the features.

    Parameters
    ----------
    path : path
        A .safetensors, .npz, .npy, .pt, .pth, .bin or .ckpt file, the .index.json file of a model in several files, or
        a folder with one such file, one of the names in `FILES`, or a single file in the folders below it.
        Arrays that are compressed inside an .npz file are read into memory, as are PyTorch files from before its
        version 1.6; all others are read in blocks.
    key : str, optional
        Which matrix. By default the decoder, known by the last part of its name, or the only matrix there is; a bias
        (``b_…``, ``….bias``, ``…_bias``) is none, whatever its shape, and an encoder only if it is asked for.
    feature_axis : {"rows", "columns"} or {-2, -1}, optional
        What stands for a feature, as a word or as the axis of the matrix that counts features. By default this follows
        from the sizes in ``cfg.json`` or ``config.json`` beside the weights (``d_in``, ``d_sae``, ``dict_size``,
        ``num_latents`` …), the layout that projects have under this name, and the lengths of biases, which have one
        entry per dimension (``b_dec``) or per feature (``b_enc``). Where there is nothing of these, the longer axis is
        taken, which is a guess.
    part : int, optional
        Which matrix of an array with three axes: one of several toy models, or one layer of a crosscoder, whether
        that is [layers, features, dimensions] or [features, layers, dimensions]; if both may be, along the first axis.
    count : int, optional
        How many features there are, if that is known.

    Raises
    ------
    ValueError
        If there is no such matrix (the keys there are, with their shapes, are listed), its numbers are not of a
        type in `FLOATS`, the file is broken or of an unknown type, a folder has no weights
        or several, an array has three axes and no ``part`` is given, or the orientation contradicts cfg.json, cannot
        be decided, or would be decided in two ways.
    OSError
        If the file is missing or unreadable.
    ImportError
        If an optional library is missing; it names the extra to install.
    """
    asked = _axis(feature_axis)
    path = require_path(path)
    if path.is_dir():
        path = _weights_in(path)
    path, kind = existing_file(path, *SUFFIXES, INDEX)
    stored = open_tensors(path, kind)
    name = _choose(path, key, stored)
    where = f"{path}, {shown(name, 80)}" if name else str(path)
    array = stored[name]
    _require_numbers(where, array)
    scale = next((other for other in (f"{name}_scale", f"{name}_scale_inv") if other in stored), None)
    if scale is not None and array.dtype.startswith("float8"):
        raise ValueError(f"{where}: its numbers count times those of {shown(scale)}; save the product")
    layout, reason, guessed = _layout(path, name, stored, asked, count)
    matrix = _part(where, array, layout, part)
    axis: Axis = "rows" if layout.index("f") < layout.index("d") else "columns"
    shape = _features_first(matrix.shape, axis)
    parts = array.shape[layout.index("p")] if "p" in layout else None
    logger.info("%s: the %s are features: %s", where, axis, "a guess, being the longer axis" if guessed else reason)
    return Weights(path, name or None, matrix.dtype, shape, axis, reason, guessed, matrix.read, parts)


# ------------------------------------------------------------------------------------- which file, which matrix


def _weights_in(folder: Path) -> Path:
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    there = _of_weights(folder.iterdir()) or _of_weights(islice(folder.rglob("*"), _MOST_LOOKED_AT))
    if len(there) == 1:
        logger.info("%s: %s is the only file of weights there", folder, there[0].name)
        return there[0]
    if not there:
        raise ValueError(f"{folder}: there is no file of weights; looked for {', '.join(SUFFIXES)}")
    names = first_ten(shown(str(entry.relative_to(folder)), 80) for entry in there)
    raise ValueError(f"{folder}: there are several files of weights, name one: {names}")


def _of_weights(entries: Iterable[Path]) -> list[Path]:
    found = sorted(entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry.is_file())
    return [entry for entry in found if entry.suffix.lower() in _LIKELY] or found


def _choose(path: Path, key: str | None, stored: Mapping[str, Tensor]) -> str:
    if list(stored) == [""]:
        if key is not None:
            raise ValueError(f"{path}: holds a single array without a name, got key {shown(repr(key))}")
        return ""
    if key is not None:
        return require_key(path, key, stored, listed_keys(stored))
    chosen = choose(path, stored)
    logger.info("%s: %s is taken, of the keys %s", path, shown(chosen, 80), listed_keys(stored))
    return chosen


def _part(name: str, stored: Tensor, layout: str, part: int | None) -> Tensor:
    """Return a matrix out of an array with three axes; a matrix itself has no parts."""
    if "p" not in layout:
        if part is not None:
            raise ValueError(
                f"{name}: a part is for arrays with three axes, got shape {list(stored.shape)}, part {part}"
            )
        return stored
    axis = layout.index("p")
    count, (rows, columns) = stored.shape[axis], (size for i, size in enumerate(stored.shape) if i != axis)
    if part is None and count == 1:
        part = 0
    if part is None or not 0 <= part < count:
        asked = ", or all on the command line" if part is None else f", got {part}"
        axes = " × ".join(_AXES[letter] for letter in layout)
        raise ValueError(
            f"{name}: {axes}, {count} matrices of {rows} × {columns}; part must be one of 0 … {count - 1}{asked}"
        )
    chosen = slice(part, part + 1)

    def read(index: Index) -> npt.NDArray[Any]:
        return stored.read((*index[:axis], chosen, *index[axis:])).squeeze(axis)

    return Tensor(stored.dtype, (rows, columns), read)


_AXES = {"p": "parts", "f": "features", "d": "dimensions"}


def _require_matrix(name: str, stored: Tensor) -> None:
    if len(stored.shape) != 2:
        raise ValueError(f"{name}: must be 2-D, features and dimensions, got shape {_sizes(stored.shape)}")
    _require_numbers(name, stored)


def _require_numbers(name: str, stored: Tensor) -> None:
    if len(stored.shape) not in {2, 3}:
        raise ValueError(f"{name}: must be 2-D, features and dimensions, got shape {_sizes(stored.shape)}")
    if 0 in stored.shape:
        raise ValueError(f"{name}: must not be empty, got shape {_sizes(stored.shape)}")
    if stored.dtype not in FLOATS:
        raise ValueError(f"{name}: numbers must be {', '.join(FLOATS)}, got {shown(stored.dtype)}")


def _sizes(shape: tuple[int, ...]) -> str:
    return shown(str(list(shape)), 100)


# ---------------------------------------------------------------------------------------------- orientation


def _axis(feature_axis: str | int | None) -> Axis | None:
    if feature_axis is None:
        return None
    words: dict[str | int, Axis] = {"rows": "rows", "columns": "columns", -2: "rows", -1: "columns"}
    if isinstance(feature_axis, bool) or feature_axis not in words:
        raise ValueError(f'feature_axis must be "rows" or "columns", or -2 or -1, got {shown(feature_axis)}')
    return words[feature_axis]


def _features_first(shape: tuple[int, ...], axis: Axis) -> tuple[int, int]:
    rows, columns = shape
    return (rows, columns) if axis == "rows" else (columns, rows)


def _layout(
    path: Path, key: str, stored: Mapping[str, Tensor], asked: Axis | None, count: int | None
) -> tuple[str, str, bool]:
    """Return the layout of an array, how that is known, and whether it is a guess."""
    shape = stored[key].shape
    what, say = f"{path}: the shape is {_sizes(shape)}", "say whether features are rows or columns"
    found, contradiction = sizes_say(path, key, stored, count)
    if asked is not None:
        return _as_asked(path, shape, asked, found), "as given", False
    if contradiction:
        raise ValueError(f"{what}, but {contradiction}; {say}")
    remaining = frozenset(possible(len(shape)))
    reasons: list[str] = []
    for item in found:
        if not remaining & item.layouts:
            raise ValueError(f"{what}, but {reasons[-1]} and {item.reason}; {say}")
        if remaining - item.layouts:
            remaining &= item.layouts
            reasons.append(item.reason)
    named = name_says(path, key, stored)
    if len(remaining) > 1 and named is not None and remaining & named.layouts:
        remaining &= named.layouts
        reasons.append(named.reason)
    if len(remaining) == 1:
        return next(iter(remaining)), " and ".join(reasons), False
    return _longer(path, shape, remaining)


def _as_asked(path: Path, shape: tuple[int, ...], asked: Axis, found: list[Evidence]) -> str:
    """Return the layout with the features that are asked for, which a configuration must allow."""
    order = {"rows": "fd", "columns": "df"}
    wanted = [layout for layout in possible(len(shape)) if layout.replace("p", "") == order[asked]]
    for item in found:
        agreeing = [layout for layout in wanted if layout in item.layouts]
        if not agreeing and item.configured:
            other = "columns" if asked == "rows" else "rows"
            got = f"the shape is {_sizes(shape)} and {item.reason}; got {asked}"
            raise ValueError(f"{path}: features must be {other}, for {got}")
        wanted = agreeing or wanted
    return wanted[0]


def _longer(path: Path, shape: tuple[int, ...], remaining: frozenset[str]) -> tuple[str, str, bool]:
    """Return the layout in which the features are the longer axis, where nothing else tells."""
    rows, columns = shape[-2:]
    layout = "p" * (len(shape) - 2) + ("fd" if rows > columns else "df")
    if "fpd" in remaining and shape[0] < max(rows, columns) and remaining == frozenset(possible(3)):
        remaining -= {"fpd"}  # the layers of a crosscoder are fewer than its features
    if rows == columns or layout not in remaining or "fpd" in remaining:
        raise ValueError(f"{path}: the shape is {_sizes(shape)}; say whether features are rows or columns")
    return layout, "the longer axis", True
