"""Mutated files of every format: each is read, or refused in one short line that names it."""

from __future__ import annotations

import json
import signal
import warnings
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
from scipy import sparse

pytest.importorskip("pyarrow")
pytest.importorskip("safetensors")

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

import capsolve
from capsolve import Profile, read_allocation, read_profile, write_allocation, write_profile

MUTANTS, LONGEST, PATIENCE = 2000, 500, 30  # files of each format, characters, seconds
X = np.random.default_rng(0).laplace(size=(60, 3)).round(3) * [1.0, 2.0, 0.5]
PROFILE = Profile([2.0, 1.0, 0.5, 0.1], [9.0, 2.0, 3.0, 30.0], ["=a", "b, c", "π", "a"])


def activations_csv(path):
    path.write_text(",a,b,c\n" + "".join(f"{i},{','.join(map(str, row))}\n" for i, row in enumerate(X.tolist())))


def activations_parquet(path):
    table = pa.table({"a": X[:, 0], "b": X[:, 1], "__index_level_0__": [str(i) for i in range(60)]})
    said = json.dumps({"index_columns": ["__index_level_0__"]})
    pq.write_table(table.replace_schema_metadata({"pandas": said}), path, row_group_size=20)


def sparse_matrix(path):
    sparse.save_npz(path, sparse.csr_matrix(X), compressed=False)


def profile(path):
    write_profile(PROFILE, path)


def allocation(path):
    write_allocation(capsolve.solve(PROFILE.importance, PROFILE.kurtosis, 1.5), path, names=PROFILE.names)


def curves(path):
    write_allocation(capsolve.allocate(capsolve.TabulatedLoss([[1.0, 0.9, 0.0], [1.0, 0.3, 0.1]]), 0.7), path)


def weights(path):
    """Write a decoder with a bias, in the format of the suffix; for JSON the decoder lies beside it."""
    W, b = np.random.default_rng(1).standard_normal((9, 4)), np.ones(4)
    match path.name:
        case "weights.npy":
            np.save(path, W)
        case "weights.npz":
            np.savez(path, W_dec=W, b_dec=b)
        case "small.npz":
            np.savez_compressed(path, W_dec=W, b_dec=b)
        case "weights.safetensors":
            save_file({"W_dec": W, "b_dec": b}, path)
        case "model.safetensors.index.json":
            save_file({"W_dec": W, "b_dec": b}, path.with_name("part.safetensors"))
            path.write_text(json.dumps({"weight_map": {"W_dec": "part.safetensors", "b_dec": "part.safetensors"}}))
        case "cfg.json":
            save_file({"W_dec": W}, path.with_name("sae.safetensors"))
            path.write_text(json.dumps({"architecture": "topk", "d_in": 4, "d_sae": 9, "trainer": {"k": 2}}))
        case _:
            torch = pytest.importorskip("torch")
            content = {"model": {"W_dec": torch.tensor(W), "b_dec": torch.tensor(b)}, "step": 3}
            torch.save(content, path, _use_new_zipfile_serialization=path.suffix != ".bin")


def measured(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the longer axis decides
        capsolve.measure(path.with_name("sae.safetensors") if path.name == "cfg.json" else path)


FORMATS = {
    "activations.csv": (activations_csv, Profile.from_activations),
    "activations.parquet": (activations_parquet, Profile.from_activations),
    "activations.npy": (lambda path: np.save(path, X), Profile.from_activations),
    "sparse.npz": (
        lambda path: sparse.save_npz(path, sparse.csr_matrix(X), compressed=False),
        Profile.from_activations,
    ),
    "profile.csv": (profile, read_profile),
    "profile.parquet": (profile, read_profile),
    "allocation.csv": (allocation, read_allocation),
    "allocation.parquet": (allocation, read_allocation),
    "curves.csv": (curves, read_allocation),
    **dict.fromkeys(
        (
            "weights.npy",
            "weights.npz",
            "small.npz",
            "weights.safetensors",
            "weights.pt",
            "weights.bin",
            "cfg.json",
            "model.safetensors.index.json",
        ),
        (weights, measured),
    ),
}
TOKENS = [
    b"\0",
    b"\xff" * 8,
    b"9" * 400,
    b'"',
    b",",
    b"\n",
    b"\r",
    b"1e999",
    b"nan",
    b"-",
    b"_",
    b"\xe2\x80\xa8",
    b"'=",
]
TOKENS += [b"x" * 2000, b"[" * 2000]


def mutated(content, rng):
    """Return a copy with a few bytes changed, cut out, doubled or put in."""
    for _ in range(rng.integers(1, 6)):
        start = int(rng.integers(len(content) + 1))
        end = min(len(content), start + int(rng.integers(1, 2 ** rng.integers(1, 8))))
        piece = [
            rng.bytes(1),
            b"",
            content[start:end] * 2,
            TOKENS[rng.integers(len(TOKENS))],
            bytes([content[start] ^ (1 << rng.integers(8))]) if start < len(content) else b"",
        ][rng.integers(5)]
        content = content[:start] + piece + content[start + (len(piece) == 1) if piece else end :]
    return content[: rng.integers(len(content) + 1)] if rng.random() < 0.1 else content


@contextmanager
def patience():
    def stop(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def complaint(read, path):
    """Return what is said of a file, None if it is read; anything but one short line about it is an error."""
    try:
        with patience():
            read(path)
    except (ValueError, OSError, MemoryError) as error:
        said = str(error)
    else:
        return None
    assert said.isprintable()
    assert len(said) <= LONGEST
    assert str(path) in said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write, read = FORMATS[name]
    path = type(tmp_path)(name)
    write(path)
    assert complaint(read, path) is None
    content, rng = path.read_bytes(), np.random.default_rng(zlib.crc32(name.encode()))
    said = []
    for _ in range(MUTANTS):
        path.write_bytes(mutated(content, rng))
        said.append(complaint(read, path))
    refused = sum(line is not None for line in said)
    assert MUTANTS // 10 < refused < MUTANTS, "mutations that are too weak or too strong show nothing"


@pytest.mark.parametrize(
    "error", [ValueError("other.csv: x"), ValueError("x.csv:\nx"), ValueError("x.csv: " + "x" * 500), KeyError("x.csv")]
)
def test_the_harness_finds_what_it_is_for(tmp_path, error):
    def read(path):
        raise error

    with pytest.raises((AssertionError, KeyError)):
        complaint(read, "x.csv")
