"""One matrix out of a file of weights, features first, in blocks: any size, either orientation.

Every block is read by opening the file anew. So what has been mapped is given back with the block, and a file of any
size is measured in the memory of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from capsolve._arrays import dtype_name, to_numpy
from capsolve.files._paths import StrPath, existing_file
from capsolve.files.tensors import INDEX, SUFFIXES, Index, Tensor, open_tensors, read_json, require_key

Axis = Literal["rows", "columns"]

# Where the features are in the decoder of a sparse autoencoder, by the name that its project gives it.
DECODERS: dict[str, Axis | None] = {
    "W_dec": None,  # rows: SAELens, Gemma Scope, sparsify; columns: Qwen Scope
    "w_dec": "rows",  # Gemma Scope 2
    "decoder.weight": "columns",  # the weight of a torch.nn.Linear: dictionary_learning, Llama Scope
    "decoder_linear.weight": "columns",  # the same: Goodfire
}

# Vectors beside a decoder, by the last part of their names: one entry per dimension, or one per feature.
PER_DIMENSION = ("b_dec", "b_d", "decoder.bias", "pre_bias")
PER_FEATURE = ("b_enc", "b_e", "encoder.bias", "b_final", "b_gate", "b_mag", "r_mag", "threshold", "log_threshold")

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
)

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


def from_array(W: Any, features: str | None = None) -> Weights:
    """Wrap a matrix in memory, one row per feature unless ``features`` says "columns".

    Raises `ValueError` if it is not a two-dimensional array of floating-point numbers, or is empty.
    """
    array = to_numpy(W, "W")
    if array.dtype.kind in "biu":
        array = array.astype(np.float64)
    given = dtype_name(W) if hasattr(W, "dtype") else ""  # bfloat16 becomes float32, but is no better known
    stored = Tensor(given if given in FLOATS else array.dtype.name, array.shape, array.__getitem__)
    _require_matrix("W", stored)
    axis = _axis(features) or "rows"
    reason = "as given" if features else "the default for arrays"
    return Weights(None, None, stored.dtype, _features_first(stored.shape, axis), axis, reason, False, stored.read)


def open_weights(
    path: StrPath, *, key: str | None = None, features: str | None = None, part: int | None = None
) -> Weights:
    """Find a matrix in a file or folder, and which of its axes counts the features.

    Parameters
    ----------
    path : path
        A .safetensors, .npz, .npy, .pt or .pth file, or a folder with one such file or one of the names in `FILES`.
        Arrays that are compressed inside an .npz file are read into memory; all others are read in blocks.
    key : str, optional
        Which matrix. By default the decoder, under one of the names in `DECODERS`, or the only matrix there is; a bias
        (``b_…``, ``….bias``, ``…_bias``) is none, whatever its shape.
    features : {"rows", "columns"}, optional
        What stands for a feature. By default this is decided by the first of these that can: ``d_in`` (or ``d_out``)
        and ``d_sae`` in a file ``cfg.json`` beside the weights; the layouts in `DECODERS`; the lengths of biases, which
        have one entry per dimension (``b_dec``) or per feature (``b_enc``); the longer axis, which is a guess.
    part : int, optional
        Which matrix of an array with three axes, along the first.

    Raises
    ------
    ValueError
        If there is no such matrix (the keys there are, with their shapes, are listed), its numbers are not of a
        type in `FLOATS`, the file is broken or of an unknown type, a folder has no weights
        or several, an array has three axes and no ``part`` is given, or the orientation contradicts cfg.json or cannot
        be decided.
    OSError
        If the file is missing or unreadable.
    ImportError
        If an optional library is missing; it names the extra to install.
    """
    asked = _axis(features)
    path = Path(path)
    if path.is_dir():
        path = _weights_in(path)
    path, kind = existing_file(path, *SUFFIXES, INDEX)
    stored = open_tensors(path, kind)
    name = _choose(path, key, stored)
    where = f"{path}, {name}" if name else str(path)
    matrix = _part(where, stored[name], part)
    _require_matrix(where, matrix)
    axis, reason, guessed = _orientation(path, name, matrix.shape, stored, asked)
    shape = _features_first(matrix.shape, axis)
    return Weights(path, name or None, matrix.dtype, shape, axis, reason, guessed, matrix.read)


# ------------------------------------------------------------------------------------- which file, which matrix


def _weights_in(folder: Path) -> Path:
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    there = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file())
    if len(there) == 1:
        return there[0]
    if not there:
        raise ValueError(f"{folder}: there is no file of weights; looked for {', '.join(SUFFIXES)}")
    listed = ", ".join(entry.name for entry in there[:10]) + ", …" * (len(there) > 10)
    raise ValueError(f"{folder}: there are several files of weights, name one: {listed}")


def _choose(path: Path, key: str | None, stored: Mapping[str, Tensor]) -> str:
    if list(stored) == [""]:
        if key is not None:
            raise ValueError(f"{path}: holds a single array without a name, got key {key!r}")
        return ""
    listed = ", ".join(f"{name} {list(entry.shape)}" for name, entry in sorted(stored.items())) or "none"
    if key is not None:
        return require_key(path, key, stored, listed)
    arrays = [name for name, entry in stored.items() if len(entry.shape) in {2, 3} and not _is_bias(name)]
    matrices = [name for name in arrays if len(stored[name].shape) == 2]
    decoders = [name for name in arrays if name in DECODERS]
    for found in (decoders, matrices, arrays):
        if len(found) == 1:
            return found[0]
    raise ValueError(f"{path}: a key is needed to choose a matrix; the keys are {listed}")


def _is_bias(key: str) -> bool:
    last = key.rpartition(".")[2]
    return last == "bias" or last.startswith("b_") or last.endswith("_bias")


def _part(name: str, stored: Tensor, part: int | None) -> Tensor:
    """Return a matrix out of an array with three axes; a matrix itself has no parts."""
    if len(stored.shape) != 3:
        if part is not None:
            raise ValueError(
                f"{name}: a part is for arrays with three axes, got shape {list(stored.shape)}, part {part}"
            )
        return stored
    count, rows, columns = stored.shape
    if part is None or not 0 <= part < count:
        asked = "" if part is None else f", got {part}"
        raise ValueError(f"{name}: {count} matrices of {rows} × {columns}; part must be one of 0 … {count - 1}{asked}")
    return Tensor(stored.dtype, (rows, columns), lambda index: stored.read((slice(part, part + 1), *index))[0])


def _require_matrix(name: str, stored: Tensor) -> None:
    if len(stored.shape) != 2:
        raise ValueError(f"{name}: must be 2-D, features and dimensions, got shape {list(stored.shape)}")
    if 0 in stored.shape:
        raise ValueError(f"{name}: must not be empty, got shape {list(stored.shape)}")
    if stored.dtype not in FLOATS:
        raise ValueError(f"{name}: numbers must be {', '.join(FLOATS)}, got {stored.dtype}")


# ---------------------------------------------------------------------------------------------- orientation


def _axis(features: str | None) -> Axis | None:
    if features not in (None, "rows", "columns"):
        raise ValueError(f'features must be "rows" or "columns", got {features!r}')
    return cast("Axis | None", features)


def _features_first(shape: tuple[int, ...], axis: Axis) -> tuple[int, int]:
    rows, columns = shape
    return (rows, columns) if axis == "rows" else (columns, rows)


def _orientation(
    path: Path, key: str, shape: tuple[int, ...], stored: Mapping[str, Tensor], asked: Axis | None
) -> tuple[Axis, str, bool]:
    """Return what stands for a feature, how that is known, and whether it is a guess."""
    said, what = _configured(path.parent / "cfg.json", shape)
    if asked is not None:
        if said is not None and said != asked:
            raise ValueError(f"{path}: features must be {said}, for the shape is {list(shape)} and {what}; got {asked}")
        return asked, "as given", False
    if said is not None:
        return said, what, False
    if what:
        raise ValueError(f"{path}: the shape is {list(shape)}, but {what}; say whether features are rows or columns")
    layout = DECODERS.get(key)
    if layout is not None:
        return layout, f"the layout of {key}", False
    rows, columns = shape
    said_by = _biases(shape, stored)
    if len(said_by) == 1:
        return *next(iter(said_by.items())), False
    if len(said_by) == 2:
        raise ValueError(
            f"{path}: the shape is {list(shape)}, but {' and '.join(said_by.values())}; "
            "say whether features are rows or columns"
        )
    if rows == columns:
        raise ValueError(f"{path}: the shape is {list(shape)}; say whether features are rows or columns")
    return "rows" if rows > columns else "columns", "the longer axis", True


def _biases(shape: tuple[int, ...], stored: Mapping[str, Tensor]) -> dict[Axis, str]:
    """Return which vectors in the file say that features are rows, and which that they are columns."""
    rows, columns = shape
    found: dict[Axis, str] = {}
    for key, entry in stored.items():
        length = ([size for size in entry.shape if size != 1] or [1])[-1]  # of [n], [1, n], [n, 1] or one for each part
        if rows == columns or length not in shape:
            continue
        name = key.lower()
        for names, axis, what in (
            (PER_DIMENSION, "rows" if length == columns else "columns", "dimension"),
            (PER_FEATURE, "columns" if length == columns else "rows", "feature"),
        ):
            if any(name == known or name.endswith("." + known) for known in names):
                found.setdefault(cast("Axis", axis), f"{key} has {length} entries, one per {what}")
    return found


def _configured(cfg: Path, shape: tuple[int, ...]) -> tuple[Axis | None, str]:
    """Return the only orientation that agrees with the file, if there is one, and what the file says of sizes."""
    if not cfg.is_file():
        return None, ""
    content = read_json(cfg)
    if not isinstance(content, dict):
        return None, ""
    sizes = {name: content[name] for name in ("d_in", "d_out", "d_sae") if isinstance(content.get(name), int)}
    widths = [sizes[name] for name in ("d_in", "d_out") if name in sizes]  # d_out: of a transcoder's decoder
    fitting: list[Axis] = []
    for axis in ("rows", "columns"):
        n, D = _features_first(shape, axis)
        if n == sizes.get("d_sae", n) and (not widths or D in widths):
            fitting.append(axis)
    if not sizes or len(fitting) == 2:
        return None, ""
    what = f"{cfg.name} has " + ", ".join(f"{name} = {size}" for name, size in sizes.items())
    return fitting[0] if fitting else None, what
