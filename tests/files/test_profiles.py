"""Profiles: what is written is read back to the last bit, and what is broken is named."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from capsolve import Profile, read_profile, write_profile
from capsolve.files import number, read_table

TABLES = [".csv", ".parquet"]
X = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
unprivileged = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


def bits(array):
    return np.asarray(array, dtype=np.float64).tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


name = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["a,b", 'a"b', "a\nb", "a\rb", "\r\n", " a ", "naïve β→", "", "1", "true", "#", "'"]
)
size = st.floats(0, sys.float_info.max) | st.sampled_from([5e-324, 0.1, 1 / 3, 1e23])


@pytest.mark.parametrize("suffix", TABLES)
@given(features=st.lists(st.tuples(name, size, size), min_size=1, unique_by=lambda f: f[0]), named=st.booleans())
def test_profiles_round_trip_to_the_last_bit(folder, suffix, features, named):
    names, importance, kurtosis = zip(*features, strict=True)
    profile = Profile(importance, np.clip(kurtosis, 1.0, 1e100), names if named else None)
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


def test_names_may_repeat(tmp_path):
    path = tmp_path / "p.csv"
    write_profile(Profile([1.0, 2.0], 3.0, ["a", "a"]), path)
    assert read_profile(path).names == ("a", "a")


@pytest.mark.parametrize(
    ("index", "names"),
    [(["left", "right"], ("left", "right")), ([15, 203], ("15", "203")), ([0, 1], None), ([1, 2], None)],
)
def test_the_index_of_a_data_frame_is_taken_for_the_names_unless_it_counts(tmp_path, index, names):
    text = "".join(f"{label},{i + 1},3,x\n" for i, label in enumerate(index))
    (tmp_path / "p.csv").write_text(",importance,kurtosis,other\n" + text)
    table = pa.table({"importance": [1, 2], "kurtosis": [3, 3], "f": index})
    pq.write_table(table.replace_schema_metadata({"pandas": '{"index_columns": ["f"]}'}), tmp_path / "p.parquet")
    for suffix in TABLES:
        profile = read_profile(tmp_path / f"p{suffix}")
        assert (profile.names, profile.importance.tolist()) == (names, [1.0, 2.0])
    (tmp_path / "p.csv").write_text(",importance,kurtosis,name\n" + text)
    assert read_profile(tmp_path / "p.csv").names == ("x", "x")


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
