"""Folders of Parquet files: the answer that memory gives, complaints that name file, row and column, all or nothing."""

import itertools
import json

import numpy as np
import pytest
from click.testing import CliRunner

import capsolve
from capsolve.cli import main
from capsolve.files import parquet_folder

pytest.importorskip("dask.array")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def write(path, groups=1000, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path, row_group_size=groups)


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    return rng.lognormal(size=3000), np.exp(rng.uniform(np.log(1.2), np.log(100.0), 3000))


@pytest.fixture
def folder(tmp_path, columns, monkeypatch):
    """Write files of several row groups, which are read a few at a time."""
    monkeypatch.setattr(parquet_folder, "_ROWS", 500)
    v, k = columns
    ends = [0, 1, 800, 2000, 3000]
    for number, (start, stop) in enumerate(itertools.pairwise(ends)):
        write(tmp_path / "profile" / f"part-{number}.parquet", 200, kurtosis=k[start:stop], importance=v[start:stop])
    write(tmp_path / "profile" / ".being-written.parquet", nonsense=[1.0])
    return tmp_path / "profile"


def test_from_files_to_files(folder, columns, tmp_path):
    v, k = columns
    profile = capsolve.open_profile(folder)
    assert profile.features == 3000
    # groups of 200 rows, together up to 500: files of 1, 799, 1200 and 1000 rows
    assert profile.importance.chunks == ((1, 400, 399, 400, 400, 400, 400, 400, 200),)
    np.testing.assert_array_equal(profile.importance, v)
    np.testing.assert_array_equal(profile.kurtosis, k)
    allocation = capsolve.solve(profile.importance, profile.kurtosis, 300)
    expected = capsolve.solve(v, k, 300)
    capsolve.write_allocation(allocation, tmp_path / "allocation")
    assert [path.name for path in sorted((tmp_path / "allocation").iterdir())] == [
        f"part-{i}.parquet" for i in range(9)
    ]
    table = parquet.read_table(tmp_path / "allocation").to_pydict()
    wanted = expected.to_dict()
    assert table.keys() == wanted.keys()
    for name, column in wanted.items():
        if name in ("phase", "bias"):
            assert list(table[name]) == list(column)
        else:
            np.testing.assert_allclose(table[name], column, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(table["importance"], v)
    again = capsolve.open_profile(str(tmp_path / "alloc*" / "*.parquet"))
    np.testing.assert_array_equal(again.importance, v)
    one = capsolve.open_profile(folder / "part-1.parquet")
    np.testing.assert_array_equal(one.kurtosis, k[1:800])


def test_other_types_of_numbers(tmp_path):
    write(tmp_path / "a.parquet", importance=np.array([2, 1], np.int32), kurtosis=np.array([9, 9], np.float32))
    write(tmp_path / "sub" / "b.parquet", importance=np.array([1.0, 1.0], np.float32), kurtosis=np.array([9.0, 9.0]))
    profile = capsolve.open_profile(tmp_path)
    allocation = capsolve.solve(*profile, 2)
    assert allocation.capacity.dtype == float
    np.testing.assert_allclose(allocation.capacity, capsolve.solve([2, 1, 1, 1], 9, 2).capacity, atol=1e-15)


BAD = {
    "no column": ({"importance": [1.0], "kurt": [3.0]}, r"b\.parquet: column kurtosis is missing; the columns are"),
    "text": ({"importance": ["1"], "kurtosis": [3.0]}, r"b\.parquet: column importance must hold numbers, got string"),
    "null": ({"importance": [1.0, None], "kurtosis": [3.0] * 2}, r"b\.parquet: row 2, column importance: .* got None"),
    "NaN": ({"importance": [1.0] * 3, "kurtosis": [3.0, 3.0, np.nan]}, r"b\.parquet: row 3, column kurtosis: .* nan"),
    "range": (
        {"importance": [1.0], "kurtosis": [0.5]},
        r"row 1, column kurtosis: must be a finite number >= 1, got 0.5",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name, tmp_path):
    table, message = BAD[name]
    write(tmp_path / "a.parquet", importance=[1.0], kurtosis=[3.0])
    write(tmp_path / "b.parquet", groups=1, **table)
    with pytest.raises(ValueError, match=message):
        capsolve.solve(*capsolve.open_profile(tmp_path), 1)


def test_broken_and_missing_files(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "*.parquet"):
        with pytest.raises(ValueError, match=r"there are no \.parquet files"):
            capsolve.open_profile(path)
    write(tmp_path / "a.parquet", importance=np.empty(0), kurtosis=np.empty(0))
    with pytest.raises(ValueError, match="there are no rows"):
        capsolve.open_profile(tmp_path)
    write(tmp_path / "b.parquet", importance=[1.0, 2.0], kurtosis=[9.0, 9.0])
    profile = capsolve.open_profile(tmp_path)
    write(tmp_path / "b.parquet", importance=[1.0], kurtosis=[9.0])
    with pytest.raises(ValueError, match=r"b\.parquet: there were 2 rows from row 1 and now there are 1"):
        capsolve.solve(*profile, 1)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ValueError, match=r"b\.parquet: not a readable \.parquet file"):
        capsolve.open_profile(tmp_path)


def test_all_or_nothing(folder, tmp_path, monkeypatch):
    allocation = capsolve.solve(*capsolve.open_profile(folder), 300)
    target = tmp_path / "allocation"
    original = parquet.write_table

    def full_disk(table, path):
        original(table, path)
        if "part-5" in path.name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet, "write_table", full_disk)
    with pytest.raises(OSError, match="No space left"):
        capsolve.write_allocation(allocation, target)
    assert [path.name for path in tmp_path.iterdir()] == ["profile"]
    monkeypatch.undo()
    target.mkdir()
    capsolve.write_allocation(allocation, target)  # an empty folder will do
    before = {path: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(FileExistsError):
        capsolve.write_allocation(allocation, target)
    assert before == {path: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(FileNotFoundError):
        capsolve.write_allocation(allocation, tmp_path / "no" / "folder")
    with pytest.raises(ValueError, match="names"):
        capsolve.write_allocation(allocation, tmp_path / "other", names=["a"] * 3000)


def test_missing_libraries_are_named(folder, monkeypatch):
    modules = __import__("sys").modules
    with monkeypatch.context() as missing:
        missing.setitem(modules, "dask.array", None)
        with pytest.raises(ImportError, match=r'pip install "capsolve\[dask\]"'):
            capsolve.open_profile(folder)
    monkeypatch.setitem(modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r'pip install "capsolve\[parquet\]"'):
        capsolve.open_profile(folder)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command(folder, columns, tmp_path):
    expected = capsolve.solve(*columns, 300)
    target = tmp_path / "allocation"
    done = run("solve", "-o", target, folder, "-D", 300)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[:6] == expected.summary().splitlines()[:6]
    assert f"wrote {target}" in done.stdout
    np.testing.assert_allclose(parquet.read_table(target)["capacity"], expected.capacity, atol=1e-12)
    content = json.loads(run("solve", f"{folder}/*.parquet", "-D", 300, "--json").stdout)
    assert content["phases"] == expected.counts()
    assert content["loss"] == pytest.approx(expected.loss, rel=1e-12)
    assert "columns" not in content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "profile"], "File exists"),
        (["-o", "answer.parquet"], "a folder is written to a folder"),
        (["-o", "no/where"], "No such file or directory"),
        (["--figure", "a.png"], "too many features for a figure"),
        (["--no-bias"], "bias=False needs the features in memory"),
    ],
)
def test_bad_commands(folder, arguments, message, monkeypatch):
    monkeypatch.chdir(folder.parent)
    done = run("solve", "profile", "-D", 300, *arguments)
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_without_profiles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "empty", "empty.csv"):
        (tmp_path / name).mkdir()
    for name in ("empty", "empty.csv", "nothing/*.parquet"):
        done = run("solve", name, "-D", 1)
        assert done.exit_code == 1
        assert f"{name}: there are no .parquet files" in done.stderr
    assert run("solve", "digits", "-D", 16).exit_code == 0  # the example
