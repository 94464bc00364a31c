"""Activations: every format gives the same moments; what is broken is named, and nothing is unpickled."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

pytest.importorskip("ml_dtypes")
pytest.importorskip("pyarrow")
pytest.importorskip("safetensors")

import ml_dtypes
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

import capsolve
from capsolve import Profile, read_activations, read_profile, write_profile

TABLES = [".csv", ".parquet"]
X = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)


def bits(array):
    return np.asarray(array, dtype=np.float64).tobytes()


@pytest.mark.parametrize("read", [read_profile, read_activations])
def test_places_that_cannot_be_read(tmp_path, read, monkeypatch):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises((IsADirectoryError, ValueError), match=r"folder\.csv"):
        read(tmp_path / "folder.csv")
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        read(tmp_path / "missing.csv")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(1))
    with pytest.raises(ValueError, match=r"x\.pkl: the file type must be one of \.\S+, .* got \.pkl"):
        read(tmp_path / "x.pkl")


def save(path, x=X, **arrays):
    match path.suffix:
        case ".npy":
            np.save(path, x)
        case ".npz":
            np.savez_compressed(path, **(arrays or {"x": x}))
        case ".csv":
            np.savetxt(path, x, delimiter=",", header="a,b,c", comments="", fmt="%.17g")
        case ".parquet":
            pq.write_table(pa.table(dict(zip("abc", x.T, strict=True))), path, row_group_size=7)
        case ".safetensors":
            save_file(arrays or {"x": x}, path)
    return path


KINDS = [".npy", ".npz", ".csv", ".parquet", ".safetensors"]


@pytest.mark.parametrize("kind", KINDS)
def test_activations_of_every_kind(tmp_path, kind):
    opened = read_activations(save(tmp_path / f"x{kind}"))
    wanted = Profile.from_activations(X).moments
    assert opened.names == (("a", "b", "c") if kind in TABLES else None)
    for _ in range(2):  # can be read again
        profile = Profile.from_activations(opened.data, names=opened.names)
        for field in ("mean", "variance", "kurtosis", "kurtosis_error", "density"):
            assert bits(getattr(profile.moments, field)) == bits(getattr(wanted, field))


@pytest.mark.parametrize(
    "dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int8, np.uint16, np.bool_]
)
def test_dtypes_of_safetensors(tmp_path, dtype):
    x = np.random.default_rng(2).integers(0, 5, size=(50, 3)).astype(dtype)
    opened = read_activations(save(tmp_path / "x.safetensors", x))
    assert bits(Profile.from_activations(opened.data).kurtosis) == bits(Profile.from_activations(x).kurtosis)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint8, np.bool_])
def test_dtypes_of_parquet(tmp_path, dtype):
    x = np.random.default_rng(3).integers(0, 5, size=(50, 3)).astype(dtype)
    opened = read_activations(save(tmp_path / "x.parquet", x))
    assert bits(Profile.from_activations(opened.data).kurtosis) == bits(Profile.from_activations(x).kurtosis)


def test_npy_is_memory_mapped_and_may_be_in_fortran_order(tmp_path):
    opened = read_activations(save(tmp_path / "x.npy", np.asfortranarray(X)))
    assert isinstance(opened.data, np.memmap)
    np.testing.assert_array_equal(opened.data, X)


@pytest.mark.parametrize("kind", [".npz", ".safetensors"])
def test_keys(tmp_path, kind):
    path = save(tmp_path / f"x{kind}", deep=X + 1, shallow=X)
    opened = read_activations(path, key="shallow")
    np.testing.assert_array_equal(opened.data[0:100], X)
    with pytest.raises(
        ValueError,
        match=r"a key is needed to choose one of the arrays; the keys are deep \[100, 3\], shallow \[100, 3\]",
    ):
        read_activations(path)
    with pytest.raises(ValueError, match=r"there is no key 'flat'; the keys are deep \[100, 3\], shallow \[100, 3\]"):
        read_activations(path, key="flat")


@pytest.mark.parametrize("kind", [".npy", ".csv", ".parquet"])
def test_keys_where_there_are_none(tmp_path, kind):
    with pytest.raises(ValueError, match="a key is for files of several arrays, got 'x'"):
        read_activations(save(tmp_path / f"x{kind}"), key="x")


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_and_foreign_files(tmp_path, kind):
    path = save(tmp_path / f"x{kind}", np.tile(X, (20, 1)))
    content = path.read_bytes()
    half = content[: len(content) // 2] if kind != ".csv" else content[: content.rindex(b",")]
    for broken in (half, b"\x80\x04K\x01." * 9, pickle.dumps(X), np.lib.format.magic(1, 0), b"PK\x03\x04\xff" * 99):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
            Profile.from_activations(read_activations(path).data)
        assert str(caught.value).startswith(f"{path}: ")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", [".npy", ".npz"])
def test_nothing_is_unpickled(tmp_path, kind):
    target = tmp_path / "exploded"
    bomb = np.empty((40, 2), dtype=object)
    bomb[:] = 1.0
    bomb[0, 0] = Bomb(target)
    path = save(tmp_path / f"x{kind}", bomb)
    np.load(path, allow_pickle=True)["x" if kind == ".npz" else ...]
    assert target.exists()  # the bomb is live
    target.unlink()
    with pytest.raises(ValueError, match="got dtype object"):
        read_activations(path)
    assert not target.exists()


@pytest.mark.parametrize("kind", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(9), r"must be samples × features or batch × position × feature, got shape \[9\]"),
        (np.ones((2, 3, 4, 5)), r"must be .* batch × position × feature, got shape \[2, 3, 4, 5\]"),
        (np.array(1.0), r"must be .* batch × position × feature, got shape \[\]"),
        (np.ones((40, 2), dtype=np.complex64), "must hold real numbers, got dtype (C64|complex64)"),
    ],
)
def test_arrays_that_are_no_activations(tmp_path, kind, x, message):
    path = save(tmp_path / f"x{kind}", x)
    with pytest.raises(ValueError, match=message) as caught:
        read_activations(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_floats_of_eight_bits_are_read(tmp_path):
    import ml_dtypes

    x = np.random.default_rng(0).standard_normal((50, 2)).astype(ml_dtypes.float8_e4m3fn)
    header = json.dumps({"x": {"dtype": "F8_E4M3", "shape": [50, 2], "data_offsets": [0, 100]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + x.tobytes())
    found = Profile.from_activations(tmp_path / "x.safetensors")
    np.testing.assert_allclose(found.importance, x.astype(float).var(axis=0))


@pytest.mark.parametrize("kind", [".npy", ".npz", ".safetensors", ".pt"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int16", "bool"])
def test_three_axes_are_batch_position_and_feature(tmp_path, monkeypatch, kind, dtype):
    x = np.random.default_rng(5).integers(0, 9, size=(12, 5, 3)).astype(dtype)
    path = tmp_path / f"x{kind}"
    if kind == ".pt":
        torch = pytest.importorskip("torch")
        torch.save(torch.tensor(x.astype(np.float64)).to(getattr(torch, dtype)), path)
    elif dtype == "bfloat16" and kind != ".safetensors":
        return  # NumPy's own formats do not have it
    else:
        save(path, x)
    monkeypatch.setattr("capsolve.files.activations._BLOCK", 40)
    opened = read_activations(path)
    assert opened.note == "12 batches of 5 positions, each a sample of 3 features"
    expected = x.astype(np.float64).reshape(60, 3)
    np.testing.assert_array_equal(np.concatenate(list(opened.data)), expected)
    assert bits(Profile.from_activations(opened).kurtosis) == bits(Profile.from_activations(expected).kurtosis)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "uint8", "bool"])
def test_torch_files(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    x = torch.tensor(np.random.default_rng(6).integers(0, 9, size=(50, 3))).to(getattr(torch, dtype))
    expected = Profile.from_activations(x.double().numpy())
    for content in (x, {"labels": torch.zeros(50), "layer": {"acts": x}}):
        torch.save(content, tmp_path / "x.pt")
        profile = Profile.from_activations(tmp_path / "x.pt")
        assert bits(profile.kurtosis) == bits(expected.kurtosis)
    torch.save(x.clone().float().requires_grad_(), tmp_path / "x.pt")
    assert bits(Profile.from_activations(tmp_path / "x.pt").kurtosis) == bits(expected.kurtosis)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
def test_sparse_matrices_of_scipy(tmp_path, kind):
    x = X * (X > 0.5)
    sparse.save_npz(tmp_path / "x.npz", getattr(sparse, f"{kind}_matrix")(x))
    profile = Profile.from_activations(tmp_path / "x.npz")
    np.testing.assert_allclose(profile.kurtosis, Profile.from_activations(x).kurtosis, rtol=1e-12)


def test_indices_of_sparse_matrices_are_checked(tmp_path):
    matrix = sparse.csr_matrix(X)
    matrix.indices[7] = 2**30  # compiled code would write there
    sparse.save_npz(tmp_path / "x.npz", matrix)
    with pytest.raises(ValueError, match=r"x\.npz: not a readable \.npz file: .*indices"):
        read_activations(tmp_path / "x.npz")
    sparse.save_npz(tmp_path / "x.npz", sparse.coo_matrix(([1.0], ([0], [0])), shape=(2**40, 3)))
    with pytest.raises(ValueError, match=r"x\.npz: .*must have at most"):
        read_activations(tmp_path / "x.npz")


@pytest.mark.parametrize("kind", KINDS)
def test_several_files_and_folders(tmp_path, kind):
    expected = Profile.from_activations(X)
    (tmp_path / "deep").mkdir()
    parts = [save(tmp_path / f"b{kind}", X[:30]), save(tmp_path / "deep" / f"a{kind}", X[30:])]
    (tmp_path / "cfg.json").write_text("{}")
    save(tmp_path / f".hidden{kind}", X)
    for given in (parts, map(str, parts), tmp_path):
        profile = Profile.from_activations(read_activations(given))
        assert profile.moments.samples == 100
        assert profile.names == (("a", "b", "c") if kind in TABLES else None)
        np.testing.assert_allclose(profile.kurtosis, expected.kurtosis, rtol=1e-12)
    assert Profile.from_activations(parts).moments.samples == 100


def test_files_that_do_not_belong_together(tmp_path):
    one = save(tmp_path / "one.npy")
    two = save(tmp_path / "two.npy", X[:, :2])
    with pytest.raises(ValueError, match=r"^\S+two\.npy: must have 3 columns, as \S+one\.npy has, got 2$"):
        Profile.from_activations([one, two])
    table, other = save(tmp_path / "t.csv"), tmp_path / "u.csv"
    other.write_text("a,c,b\n" + rows())
    with pytest.raises(
        ValueError, match=r"u\.csv: must have the columns of \S+t\.csv, names a, b, c, got names a, c, b"
    ):
        read_activations([table, other])
    other.write_text(rows())
    with pytest.raises(ValueError, match=r"u\.csv: must have the columns of .* names a, b, c, got none"):
        read_activations([table, other])
    with pytest.raises(ValueError, match=r"files of one of .*, got types \.csv, \.npy; name those to be read"):
        read_activations(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: a folder of activations must have files .* got no such file"):
        read_activations(tmp_path / "empty")
    with pytest.raises(ValueError, match="path must name at least one file"):
        read_activations([])
    with pytest.raises(ValueError, match=r"two\.npy: must be finite, got nan at row 7, column 1"):
        Profile.from_activations([one, save(two, np.where(np.arange(300).reshape(100, 3) == 22, np.nan, X))])


class Frame:
    """What pandas and Polars have in common."""

    def __init__(self, columns, values=X):
        self.columns, self.shape, self.values = columns, values.shape, values

    def __getitem__(self, rows):
        raise AssertionError("by label or by position?")

    def to_numpy(self):
        return self.values


def frames():
    """Return the data frames that people have, by what is special about them."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X.astype(np.float64), columns=list("abc"))
    indices = {
        "text": [f"token {i % 7}" for i in range(100)],
        "named": pandas.Index(range(100), name="sample"),
        "levels": pandas.MultiIndex.from_product([range(10), range(10)]),
        "dates": pandas.date_range("2024-01-01", periods=100),
        "fractions": np.arange(100) / 10,
    }
    return {
        "plain": frame,
        "ids": frame.set_axis([15, 203, 4077], axis=1),
        "numbered": frame.set_axis(range(3), axis=1),
        "shuffled": frame.set_axis(np.random.default_rng(0).permutation(100), axis=0),
        "reset": frame.reset_index(),
        **{name: frame.set_axis(index, axis=0) for name, index in indices.items()},
    }


REFUSED = {  # by what the refusal says, for these can be read in several ways
    "no name, and its numbers are no index": {("levels", "csv"), ("fractions", "csv")},
    "numbers the rows, as an index does": {("named", "csv")}
    | {("reset", how) for how in ("csv", "no index", "parquet", "polars", "frame")}
    | {
        (name, "no header")
        for name in ("plain", "ids", "numbered", "shuffled", "reset", "named", "levels", "fractions")
    },
    "say --header or --no-header": {("text", "no header"), ("dates", "no header")},
}


def test_what_pandas_and_polars_write_is_read_right_or_refused(tmp_path):
    polars = pytest.importorskip("polars")
    path, parquet = tmp_path / "x.csv", tmp_path / "x.parquet"
    expected = bits(Profile.from_activations(X).kurtosis)
    for name, frame in frames().items():
        named = frame.set_axis(frame.columns.map(str), axis=1)
        ways = {
            "csv": lambda frame=frame: frame.to_csv(path),
            "no index": lambda frame=frame: frame.to_csv(path, index=False),
            "no header": lambda frame=frame: frame.to_csv(path, header=False),
            "parquet": lambda named=named: named.to_parquet(parquet),
            "polars": lambda: polars.read_parquet(parquet).write_parquet(parquet),
            "frame": lambda: None,
        }
        for how, write in ways.items():
            write()
            given = {"frame": frame, "parquet": parquet, "polars": parquet}.get(how, path)
            refusal = [message for message, cases in REFUSED.items() if (name, how) in cases]
            if refusal:
                with pytest.raises(ValueError, match=refusal[0]):
                    Profile.from_activations(given)
            else:
                profile = Profile.from_activations(given)
                assert bits(profile.kurtosis) == expected, (name, how)
                assert profile.names == (None if how == "no header" else tuple(map(str, frame.columns))), (name, how)


def test_an_index_among_the_columns_of_a_data_frame():
    for labels in (
        np.arange(100),
        np.arange(100) / 10,
        np.arange(100) // 10,
        np.random.default_rng(0).permutation(1000)[:100],
    ):
        with pytest.raises(ValueError, match="column Unnamed: 0 numbers the rows"):
            Profile.from_activations(Frame(["Unnamed: 0", "a", "b", "c"], np.column_stack([labels, X])))


@pytest.mark.parametrize(("columns", "names"), [(["a", "b", "b"], ("a", "b", "b")), ([15, 203, 4], ("15", "203", "4"))])
def test_data_frames(columns, names):
    profile = Profile.from_activations(Frame(columns))
    assert profile.names == names
    assert bits(profile.kurtosis) == bits(Profile.from_activations(X).kurtosis)
    assert Profile.from_activations(Frame(columns), names=list("xyz")).names == ("x", "y", "z")
    assert Profile.from_activations(pa.table({"a": X[:, 0], "b": X[:, 1]})).names == ("a", "b")


def test_too_few_samples_in_an_empty_array(tmp_path):
    for kind in (".npy", ".npz", ".safetensors"):
        opened = read_activations(save(tmp_path / f"x{kind}", X[:0]))
        with pytest.raises(ValueError, match="at least 30 samples, got 0"):
            Profile.from_activations(opened.data)


def rows(x=X):
    return "".join(",".join(map(repr, row)) + "\n" for row in x.tolist())


def numbered(labels):
    return "".join(f"{label},{row}\n" for label, row in zip(labels, rows().splitlines(), strict=True))


@pytest.mark.parametrize(
    ("header", "names"),
    [("", None), ("a,b,c\n", ("a", "b", "c")), ('"0","1","2"\r\n', ("0", "1", "2")), ("\n\nx,,z\n", ("x", "", "z"))],
)
def test_headers(tmp_path, header, names):
    path = tmp_path / "x.csv"
    path.write_text(header + rows(), newline="")
    opened = read_activations(path)
    assert opened.names == names
    np.testing.assert_array_equal(np.concatenate(list(opened.data)), X)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,1,c\n" + rows(), "row 1 must be all numbers or all names, got numbers and 'a'"),
        ("a,b,c\n" + rows() + "1,2\n", "row 102 must have 3 cells, got 2"),
        ("a,b,c\n" + rows() + "\n1,2,x\n", "row 103, column c: must be a finite number, got 'x'"),
        (rows() + "1,,3\n", "row 101, column 1: must be a finite number, got ''"),
        (rows() + "1,nan,3\n", "row 101, column 1: must be a finite number, got 'nan'"),
        (rows() + "1,2,1e999\n", "row 101, column 2: must be a finite number, got '1e999'"),
        (rows() + "1_000,2,3\n", "row 101, column 0: must be a finite number, got '1_000'"),
        (rows() + '"1,2,3\n', "after row 100: unexpected end of data"),
    ],
)
def test_bad_text(tmp_path, content, message):
    path = tmp_path / "x.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        Profile.from_activations(read_activations(path).data)
    assert str(caught.value).startswith(f"{path}: ")


FLAGS = "--header or --no-header"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (",a,b,c\n" + numbered(range(100)), "abc"),  # as pandas writes a data frame
        ("Unnamed: 0,a,b,c\n" + numbered(range(100)), "abc"),  # and what it read so, without an index
        (",Unnamed: 0,a,b,c\n" + numbered(f"{i},{i}" for i in range(100)), "abc"),  # and with a second one
        (",a,b,c\n" + numbered(np.random.default_rng(0).permutation(1000)[:100]), "abc"),  # a part of the rows
        (",a,b,c\n" + numbered(f"token {i % 7}" for i in range(100)), "abc"),
        (",15,203,4077\n" + numbered(range(100)), ["15", "203", "4077"]),
        ('"","a","a","b"\n' + numbered(range(1, 101)), "aab"),  # R counts from 1; labels repeat
        ("15,203,4077\n" + rows(), ["15", "203", "4077"]),
        ("'=a,'b,''+\n" + rows(), ["=a", "'b", "'+"]),  # as tables are written
        ("0,1,2\n" + rows(X.round()), "012"),  # the body is written 1.0, -0.0: proof as well
        ("7\n" + rows(X[:, :1]), "7"),
        ("0,1,2,3,4,5\n" + "0,0,1,3,0,1\n" * 100, "012345"),
        ("1.5,2.5,3.5\n" + rows(X[1:]), None),
        ("3.0,4.0,5.0\n" + rows(X[1:].round()), None),
        ("0,0,0\n" + rows(X[1:]), None),
    ],
)
def test_names_and_index_of_text(tmp_path, text, names):
    path = tmp_path / "x.csv"
    path.write_text(text)
    opened = read_activations(path)
    data = np.concatenate(list(opened.data))
    assert opened.names == (None if names is None else tuple(names))
    assert data.shape == (100, 3 if names is None else len(names))
    if ",a," in text:
        np.testing.assert_array_equal(data, X)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n" + "0,1,4\n" * 50, FLAGS),  # counts, or the names of latents
        ("7\n" + "3\n" * 50, FLAGS),
        ("7\n" + "0\n0.5\n" * 50, FLAGS),
        ("15.0,203.0\n" + rows(X[:, :2]), FLAGS),
        ("a,1,c\n" + rows(), FLAGS),
        (",a\n" + "0.5,1\n" * 50, "column 1 has no name, and its numbers are no index"),
        (",a\n" + "1,1\n0,2\n" * 50, "column 1 has no name, and its numbers are no index"),
        ('""\n' + "a\n" * 50, "there are no columns, or none but an index"),
        ("index,a,b,c\n" + numbered(range(100)), "column index numbers the rows, as an index does: leave it out"),
        (numbered(range(100)), "column 0 numbers the rows"),
        (numbered(np.random.default_rng(0).permutation(1000)[:100]), "column 0 numbers the rows"),
    ],
)
def test_text_that_may_be_read_two_ways_is_refused(tmp_path, text, message):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        list(read_activations(path).data)
    assert str(caught.value).startswith(f"{path}: ")


def test_headers_as_they_are_said_to_be(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("1,2,3\n" + "0,1,4\n" * 50)
    with_names, without = read_activations(path, header=True), read_activations(path, header=False)
    assert (with_names.names, without.names) == (("1", "2", "3"), None)
    assert [len(np.concatenate(list(opened.data))) for opened in (with_names, without)] == [50, 51]
    with pytest.raises(ValueError, match=r"a header is for \.csv files, got header=False"):
        read_activations(save(tmp_path / "x.npy"), header=False)


def test_counts_that_happen_to_differ_are_no_index(tmp_path):
    x = np.column_stack([np.random.default_rng(0).permutation(1000)[:100], np.arange(100) % 3])
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + rows(x))
    np.testing.assert_array_equal(np.concatenate(list(read_activations(path).data)), x)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("__index_level_0__", '{"index_columns": ["__index_level_0__"]}'),
        ("sample", '{"index_columns": ["sample"]}'),
        ("__index_level_0__", None),  # another library copied the file
        ("__index_level_0__", "[" * 100_000),
    ],
)
@pytest.mark.parametrize("kind", ["numbers", "text"])
def test_the_index_of_a_data_frame_in_parquet_is_no_feature(tmp_path, index, said, kind):
    labels = list(range(100)) if kind == "numbers" else [f"token {i}" for i in range(100)]
    table = pa.table({"a": X[:, 0], index: labels, "a.b": X[:, 1]})
    pq.write_table(table.replace_schema_metadata({"pandas": said} if said else None), tmp_path / "x.parquet")
    opened = read_activations(tmp_path / "x.parquet")
    assert opened.names == ("a", "a.b")
    np.testing.assert_array_equal(np.concatenate(list(opened.data)), X[:, :2])


def test_a_parquet_column_that_numbers_the_rows(tmp_path):
    pq.write_table(pa.table({"index": np.arange(100), "a": X[:, 0]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet: column index numbers the rows"):
        list(read_activations(tmp_path / "x.parquet").data)


def test_long_text_in_chunks(tmp_path):
    x = np.random.default_rng(4).standard_normal((30_000, 4))
    path = tmp_path / "x.csv"
    path.write_text(rows(x))
    chunks = list(read_activations(path).data)
    assert len(chunks) == 2
    np.testing.assert_array_equal(np.concatenate(chunks), x)


def test_parquet_with_text_nulls_or_infinities(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": X[:, 0], "label": ["x"] * 100}), path)
    with pytest.raises(ValueError, match="column label must hold numbers, got string"):
        read_activations(path)
    for bad, shown in ((None, "None"), (np.inf, "inf")):
        values = X[:, 1].tolist()
        values[41] = bad
        pq.write_table(pa.table({"a": X[:, 0], "b": values}), path, row_group_size=10)
        with pytest.raises(ValueError, match=f"row 42, column b: must be a finite number, got {shown}"):
            Profile.from_activations(read_activations(path).data)


@pytest.mark.parametrize(("how", "least", "most"), [("streamed", 0, 4e6), ("at once", 12e6, np.inf)])
def test_parquet_is_read_by_row_groups(tmp_path, how, least, most):
    path = tmp_path / "x.parquet"
    x = np.random.default_rng(5).standard_normal((400_000, 4))  # 12.8 MB
    pq.write_table(pa.table(dict(zip("abcd", x.T, strict=True))), path, row_group_size=20_000)
    code = f"""
import capsolve, pyarrow, pyarrow.parquet
if {how!r} == "streamed":
    print(capsolve.Profile.from_activations(capsolve.read_activations({str(path)!r}).data).moments.samples)
else:
    print(pyarrow.parquet.ParquetFile({str(path)!r}).read().num_rows)
print(pyarrow.default_memory_pool().max_memory())
"""
    samples, peak = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(samples) == len(x)
    assert least < int(peak) < most


@pytest.mark.parametrize(
    ("missing", "suffix", "extra"),
    [
        ("pyarrow", ".parquet", "parquet"),
        ("pyarrow.parquet", ".parquet", "parquet"),
        ("safetensors", ".safetensors", "safetensors"),
        ("ml_dtypes", ".safetensors", "safetensors"),
    ],
)
def test_missing_extras_are_named(tmp_path, monkeypatch, missing, suffix, extra):
    path = save(tmp_path / f"x{suffix}")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'pip install "capsolve\[{extra}\]"'):
        read_activations(path)
    if suffix == ".parquet":
        with pytest.raises(ImportError, match="pyarrow"):
            write_profile(Profile([1.0], 3), tmp_path / "p.parquet")
        assert os.listdir(tmp_path) == [path.name]


def test_public_names():
    for public in ("read_profile", "write_profile", "read_activations"):
        assert public in capsolve.__all__
        assert getattr(capsolve, public) is globals()[public]
