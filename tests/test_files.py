"""Files: what is written is read back to the last bit, what is broken is named, and no half-written file remains."""

from __future__ import annotations

import json
import os
import pickle
import stat
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import capsolve
from capsolve import Profile, read_activations, read_profile, write_profile
from capsolve.files import number, read_table, replacing, text, write_table

TABLES = [".csv", ".parquet"]
X = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
unprivileged = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


def bits(array):
    return np.asarray(array, dtype=np.float64).tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


# ---------------------------------------------------------------------------------------------------- profiles

name = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["a,b", 'a"b', "a\nb", "a\rb", "\r\n", " a ", "naïve β→", "", "1", "true", "#", "'"]
)
size = st.floats(0, sys.float_info.max) | st.sampled_from([5e-324, 0.1, 1 / 3, 1e23])


@pytest.mark.parametrize("suffix", TABLES)
@given(features=st.lists(st.tuples(name, size, size), min_size=1, unique_by=lambda f: f[0]), named=st.booleans())
def test_profiles_round_trip_to_the_last_bit(folder, suffix, features, named):
    names, importance, kurtosis = zip(*features, strict=True)
    profile = Profile(importance, np.maximum(kurtosis, 1.0), names if named else None)
    path = folder / f"profile{suffix}"
    write_profile(profile, path)
    back = read_profile(path)
    assert bits(back.importance) == bits(profile.importance)
    assert bits(back.kurtosis) == bits(profile.kurtosis)
    assert back.names == profile.names
    assert os.listdir(folder) == [path.name] or {Path(f).suffix for f in os.listdir(folder)} <= set(TABLES)
    assert not [f for f in os.listdir(folder) if f.startswith(".")]


@pytest.mark.parametrize("suffix", TABLES)
def test_measured_columns_are_written_and_passed_over(tmp_path, suffix):
    x = X.copy()
    x[:, 1] = 7.0
    profile = Profile.from_activations(x, names=["a", "b", "c"])
    path = tmp_path / f"p{suffix}"
    write_profile(profile, path)
    assert read_profile(path).moments is None
    parsers = dict.fromkeys(["mean", "variance", "kurtosis_error", "density", "samples"], number())
    table = read_table(path, parsers)
    for column in ("mean", "variance", "kurtosis_error", "density"):
        assert bits(table[column]) == bits(getattr(profile.moments, column))
    assert table["samples"] == [100.0] * 3
    truth = ["false", "true", "false"] if suffix == ".csv" else [False, True, False]
    assert read_table(path, {"constant": lambda cell: cell})["constant"] == truth


def test_other_programs_files(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(b'\xef\xbb\xbfextra,"kurtosis",importance\r\nx,3, 1e-3\r\n\r\n,4.5,2\r\n')  # BOM, CRLF, blank line
    profile = read_profile(path)
    assert profile.importance.tolist() == [0.001, 2.0]
    assert profile.kurtosis.tolist() == [3.0, 4.5]
    assert profile.names is None
    other = tmp_path / "P.PARQUET"
    pq.write_table(pa.table({"name": [17, 4], "importance": [1, 2], "kurtosis": pa.array([3, 4], pa.float32())}), other)
    assert read_profile(str(other)).names == ("17", "4")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"importance,kurtosis\n", "there are no rows"),
        (b"importance,kurt\n1,2\n", "column kurtosis is missing; the columns are importance, kurt"),
        (b"importance,kurtosis,importance\n1,2,1\n", "column importance is there 2 times"),
        (b"importance,kurtosis\n1,3\n1,x\n", "row 3, column kurtosis: must be a finite number >= 1, got 'x'"),
        (b"importance,kurtosis\n1,3\n\n1,\n", "row 4, column kurtosis: must be a finite number >= 1, got ''"),
        (b"importance,kurtosis\n-1,3\n", "row 2, column importance: must be a finite number >= 0, got '-1'"),
        (b"importance,kurtosis\n1,0.9\n", "row 2, column kurtosis: must be a finite number >= 1, got '0.9'"),
        (b"importance,kurtosis\nnan,3\n", "row 2, column importance: must be a finite number >= 0, got 'nan'"),
        (b"importance,kurtosis\n1,inf\n", "row 2, column kurtosis: must be a finite number >= 1, got 'inf'"),
        (b"importance,kurtosis\n1_0,3\n", "row 2, column importance: must be a finite number >= 0, got '1_0'"),
        (b"importance,kurtosis\n1,3,4\n", "row 2 must have 2 cells, got 3"),
        (b"importance,kurtosis\n1\n", "row 2 must have 2 cells, got 1"),
        (b'importance,kurtosis\n"1,3\n', "after row 1: unexpected end of data"),
        (b"importance,kurtosis\n1,\xff\n", "the text is not UTF-8"),
        (b"name,importance,kurtosis\na,1,3\na,1,3\n", "names must differ from each other, got 'a' 2 times"),
    ],
)
def test_bad_csv_profiles(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_profile(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"importance": [1.0]}, "column kurtosis is missing; the columns are importance"),
        ({"importance": [], "kurtosis": []}, "there are no rows"),
        ({"importance": [1.0, None], "kurtosis": [3.0, 3.0]}, "row 2, column importance: must be .* got None"),
        ({"importance": [1.0, 1.0], "kurtosis": [3.0, 0.5]}, "row 2, column kurtosis: must be .* >= 1, got 0.5"),
        ({"importance": [b"1"], "kurtosis": [[3.0]]}, r"row 1, column kurtosis: must be .* got \[3.0\]"),
        ({"importance": [1.0], "kurtosis": [3.0], "name": [None]}, "row 1, column name: must be text, got None"),
    ],
)
def test_bad_parquet_profiles(tmp_path, columns, message):
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(ValueError, match=message) as caught:
        read_profile(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_duplicate_columns_in_parquet(tmp_path):
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table([[1.0], [1.0], [3.0]], names=["importance", "importance", "kurtosis"]), path)
    with pytest.raises(ValueError, match="column importance is there 2 times"):
        read_profile(path)


# ------------------------------------------------------------------------------------------------------ tables


@pytest.mark.parametrize("suffix", TABLES)
def test_a_table_of_everything(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    columns = {
        "text": ["a", "b,\r\n", '"'],
        "np_text": np.array(["x", "y", "z"]),
        "float32": np.array([0.1, 1e-40, 3e38], dtype=np.float32),
        "strided": np.arange(6.0)[::2] / 7,
        "scalars": [np.float64(1 / 3), 2, np.int8(-1)],
        "int, 64": np.array([2**62, -1, 0]),
        "true": [True, np.bool_(False), True],
        "generator": (v for v in (1.0, float("nan"), float("-inf"))),
    }
    write_table(columns, path)
    raw = dict.fromkeys(columns, (lambda cell: cell) if suffix == ".parquet" else str)
    back = read_table(path, raw)
    assert back["text"] == columns["text"]
    assert back["np_text"] == ["x", "y", "z"]
    assert [float(v) for v in back["float32"]] == columns["float32"].tolist()
    assert [float(v) for v in back["strided"]] == columns["strided"].tolist()
    assert [float(v) for v in back["scalars"]] == [1 / 3, 2.0, -1.0]
    assert [int(v) for v in back["int, 64"]] == [2**62, -1, 0]
    assert [str(v).lower() for v in back["true"]] == ["true", "false", "true"]
    assert bits([float(v) for v in back["generator"]]) == bits([1.0, np.nan, -np.inf])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "columns of one length, got none"),
        ({"a": [1, 2], "b": [1]}, "columns of one length, got a 2, b 1"),
        ({"a": "xy"}, "column a must be a sequence, got 'xy'"),
        ({"a": [1.0, "x"]}, "column a must be all text or all numbers, got 'x'"),
        ({"a": ["x", 1.0]}, "column a must be all text or all numbers, got 1.0"),
        ({"a": np.ones((2, 2))}, "column a must be all text or all numbers, got"),
        ({"a": [1j]}, "column a must be all text or all numbers, got 1j"),
        ({"a": [None]}, "column a must be all text or all numbers, got None"),
    ],
)
def test_bad_tables(tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        write_table(columns, tmp_path / "t.csv")
    assert not list(tmp_path.iterdir())


def test_optional_columns_and_parsers_of_ones_own(tmp_path):
    path = tmp_path / "t.csv"
    write_table({"a": [1, 2], "b": ["x", "y"]}, path)
    assert read_table(path, {"a": int, "c": text}, optional=["c"]) == {"a": [1, 2]}
    with pytest.raises(ValueError, match="row 2, column b: invalid literal"):
        read_table(path, {"b": int})
    with pytest.raises(ValueError, match=r"row 3, column a: must be a finite number >= 0 <= 1, got '2'"):
        read_table(path, {"a": number(low=0, high=1)})


@pytest.mark.slow
@pytest.mark.parametrize("suffix", TABLES)
def test_a_million_rows_take_seconds(tmp_path, suffix):
    n = 10**6
    rng = np.random.default_rng(1)
    profile = Profile(rng.random(n), 1 + rng.random(n), [f"feature {i}" for i in range(n)])
    path = tmp_path / f"p{suffix}"
    start = time.process_time()
    write_profile(profile, path)
    back = read_profile(path)
    assert time.process_time() - start < 60  # 8 and 3 on a busy machine
    assert bits(back.kurtosis) == bits(profile.kurtosis)


# ------------------------------------------------------------------------------------------- whole files or none


@pytest.mark.parametrize("suffix", TABLES)
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    write_table({"a": ["old"]}, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="surrogates not allowed") as caught:
        write_table({"a": ["new"] * 1000 + ["\ud800"]}, path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_replacing(tmp_path):
    path = tmp_path / "a.txt"
    stopped = replacing(path)
    temporary = stopped.__enter__()
    temporary.write_text("half")
    assert (temporary.parent, temporary.suffix) == (tmp_path, ".txt")
    assert not stopped.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)  # it is not swallowed
    assert not list(tmp_path.iterdir())
    path.write_text("old")
    path.chmod(0o600)
    link = tmp_path / "link.txt"
    link.symlink_to(path)
    with path.open() as reader:
        with replacing(link) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert reader.read() == "old"  # whoever was reading goes on with the old file
    assert path.read_text() == "new"
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "link.txt"]


def test_places_that_cannot_be_written(tmp_path):
    profile = Profile([1.0], 3)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder\.csv"):
        write_profile(profile, tmp_path / "folder.csv")
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*missing'"):
        write_profile(profile, tmp_path / "missing" / "p.csv")
    with pytest.raises(ValueError, match=r"p\.xlsx: the file type must be one of \.csv, \.parquet, got \.xlsx"):
        write_profile(profile, tmp_path / "p.xlsx")
    with pytest.raises(ValueError, match="got none"):
        write_profile(profile, tmp_path / "p")
    assert os.listdir(tmp_path) == ["folder.csv"]


def test_an_error_of_the_system_names_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "p.txt"
    with pytest.raises(PermissionError) as caught, replacing(path) as temporary:
        raise PermissionError(13, "Permission denied", str(temporary))
    assert caught.value.filename == str(path)


@unprivileged
def test_write_protected_places(tmp_path):
    path = tmp_path / "p.csv"
    write_profile(Profile([1.0], 3), path)
    path.chmod(0o400)
    with pytest.raises(PermissionError, match=r"p\.csv"):
        write_profile(Profile([2.0], 3), path)
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"p\.csv"):
        read_profile(path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=r"q\.csv"):
            write_profile(Profile([2.0], 3), tmp_path / "q.csv")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("read", [read_profile, read_activations])
def test_places_that_cannot_be_read(tmp_path, read, monkeypatch):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder\.csv"):
        read(tmp_path / "folder.csv")
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        read(tmp_path / "missing.csv")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(1))
    with pytest.raises(ValueError, match=r"x\.pkl: the file type must be one of \.\S+, .* got \.pkl"):
        read(tmp_path / "x.pkl")


# ------------------------------------------------------------------------------------------------- activations


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
    with pytest.raises(ValueError, match="a key is needed to choose one of the arrays; the keys are deep, shallow"):
        read_activations(path)
    with pytest.raises(ValueError, match="there is no key 'flat'; the keys are deep, shallow"):
        read_activations(path, key="flat")


@pytest.mark.parametrize("kind", [".npy", ".csv", ".parquet"])
def test_keys_where_there_are_none(tmp_path, kind):
    with pytest.raises(ValueError, match=r"a key is for \.npz and \.safetensors files, got 'x'"):
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
    with pytest.raises(ValueError, match="not a readable"):
        read_activations(path)
    assert not target.exists()


@pytest.mark.parametrize("kind", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(9), r"must be 2-D, samples by features, got shape \(9,\)"),
        (np.ones((2, 3, 4)), r"must be 2-D, samples by features, got shape \(2, 3, 4\)"),
        (np.array(1.0), r"must be 2-D, samples by features, got shape \(\)"),
        (np.ones((40, 2), dtype=np.complex64), "must hold real numbers, got dtype (C64|complex64)"),
    ],
)
def test_arrays_that_are_no_activations(tmp_path, kind, x, message):
    path = save(tmp_path / f"x{kind}", x)
    with pytest.raises(ValueError, match=message) as caught:
        read_activations(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_floats_of_eight_bits_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    header = json.dumps({"x": {"dtype": "F8_E4M3", "shape": [4, 2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ValueError, match="must hold real numbers, got dtype F8_E4M3"):
        read_activations(path)


def test_too_few_samples_in_an_empty_array(tmp_path):
    for kind in (".npy", ".npz", ".safetensors"):
        opened = read_activations(save(tmp_path / f"x{kind}", X[:0]))
        with pytest.raises(ValueError, match="at least 30 samples, got 0"):
            Profile.from_activations(opened.data)


# ------------------------------------------------------------------------------------------ activations as text


def rows(x=X):
    return "".join(",".join(map(repr, row)) + "\n" for row in x.tolist())


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
        ("a,b,a\n" + rows(), "column a is there 2 times"),
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


def test_long_text_in_chunks(tmp_path):
    x = np.random.default_rng(4).standard_normal((30_000, 4))
    path = tmp_path / "x.csv"
    path.write_text(rows(x))
    chunks = list(read_activations(path).data)
    assert len(chunks) == 2
    np.testing.assert_array_equal(np.concatenate(chunks), x)


# ----------------------------------------------------------------------------------------- activations in Parquet


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


# ------------------------------------------------------------------------------------------------------- extras


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
