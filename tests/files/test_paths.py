"""Files are replaced as a whole or not at all, and errors name the file that was asked for."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from capsolve.files import open_profile, read_activations, read_allocation, read_profile, replacing
from capsolve.files._paths import copied, is_dataset, new_folder, readable_file
from tests.extras import needs


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


HALF = """
import os, signal, sys
from pathlib import Path
from capsolve.files._paths import new_folder, replacing

with (new_folder if sys.argv[2] == "folder" else replacing)(sys.argv[1]) as temporary:
    (temporary / "part.csv" if temporary.is_dir() else temporary).write_text("half")
    if sys.argv[3:]:
        Path(sys.argv[3]).touch()
        sys.stdin.read()
    else:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_goes_with_the_next_of_its_kind(tmp_path, kind):
    path, other = tmp_path / "out.a.csv", tmp_path / "another.csv"
    for target in (path, other):
        killed = subprocess.run([sys.executable, "-c", HALF, target, kind], check=False)
        assert killed.returncode == -signal.SIGKILL
    (tmp_path / ".out.a.notes.csv.lock").write_text("not ours")
    left = {entry.name for entry in tmp_path.iterdir()}
    assert len(left) == 5
    with (new_folder if kind == "folder" else replacing)(path) as temporary:
        if kind == "file":
            temporary.write_text("whole")
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "out.a.csv",
        ".out.a.notes.csv.lock",
        *(name for name in left if name.startswith(".another.")),
    }


def test_what_another_process_is_writing_stays(tmp_path):
    path = tmp_path / "out.csv"
    program = [sys.executable, "-c", HALF, path, "file", tmp_path / "ready"]
    with subprocess.Popen(program, stdin=subprocess.PIPE) as process:
        while not (tmp_path / "ready").exists():
            assert process.poll() is None
            time.sleep(0.005)
        with replacing(path) as temporary:
            temporary.write_text("this one")
        assert path.read_text() == "this one"
        process.stdin.close()
    assert process.returncode == 0
    assert path.read_text() == "half"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.csv", "ready"]


def test_long_names_are_written(tmp_path):
    path = tmp_path / ("π" * 120 + ".csv")  # two bytes each
    with replacing(path) as temporary:
        temporary.write_text("a")
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_system_names_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "p.txt"
    with pytest.raises(PermissionError) as caught, replacing(path) as temporary:
        raise PermissionError(13, "Permission denied", str(temporary))
    assert caught.value.filename == str(path)


def test_a_full_disk_is_about_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: .*p\.txt") as caught, replacing(tmp_path / "p.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as writing to an open file raises it
    assert caught.value.filename == str(tmp_path / "p.txt")
    for error in (ConnectionError("lost"), TimeoutError("late")):  # of a cluster that computes what is written
        with pytest.raises(type(error), match=r"^(lost|late)$"), new_folder(tmp_path / "folder"):
            raise error
    with pytest.raises(FileNotFoundError, match=r"other\.txt"), replacing(tmp_path / "p.txt"):
        raise FileNotFoundError(errno.ENOENT, "gone", "other.txt")


def test_a_folder_goes_although_somebody_still_writes_into_it(tmp_path, monkeypatch):
    remove, calls = shutil.rmtree, []

    def late(path, **options):
        remove(path, **options)
        calls.append(path)
        if len(calls) < 3:
            path.mkdir()
            (path / "part-7.parquet").touch()

    monkeypatch.setattr(shutil, "rmtree", late)
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "folder"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    assert len(calls) == 3


READERS = [read_profile, read_activations, read_allocation, pytest.param(open_profile, marks=needs("dask"))]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_only_regular_files_are_read(tmp_path, monkeypatch, read, suffix):
    """A pipe would be waited for, a device would fill the memory, and an empty path would mean the current folder."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo(f"pipe{suffix}")
    Path(f"zero{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(ValueError, match=rf"^{name}\{suffix}: must be a regular file, got a pipe"):
            read(f"{name}{suffix}")
    with pytest.raises(ValueError, match="a path must not be empty"):
        read("")


@needs("dask")
@needs("pyarrow")
def test_pipes_in_folders(tmp_path):
    os.mkfifo(tmp_path / "a.parquet")
    for read in (read_activations, read_allocation, open_profile):
        with pytest.raises(ValueError, match=r"a\.parquet: must be a regular file"):
            read(tmp_path)


def test_an_empty_path_is_no_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_dataset(tmp_path)
    assert is_dataset(".")
    assert not is_dataset("")


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (KeyError("a"), ValueError, r"^x\.csv: not a readable \.csv file: 'a'$"),
        (RecursionError("too deep\nvery"), ValueError, r"^x\.csv: not a readable \.csv file: too deep$"),
        (ValueError("x" * 10_000), ValueError, r"^x\.csv: not a readable \.csv file: x{199}…$"),
        (ValueError("x.csv: row 3"), ValueError, r"^x\.csv: row 3$"),
        (OSError(errno.EINVAL, "no"), ValueError, r"^x\.csv: not a readable"),
        (OSError(errno.EIO, "no"), OSError, r"Input/output error: 'x\.csv'"),
        (MemoryError(), MemoryError, r"^x\.csv: there is not enough memory"),
        (ImportError("y"), ImportError, "^y$"),
    ],
)
def test_whatever_a_library_raises_is_one_line_about_the_file(raised, expected, message):
    with pytest.raises(expected, match=message), readable_file(Path("x.csv")):
        raise raised
    if not isinstance(raised, ImportError | MemoryError):
        with pytest.raises(type(raised)), readable_file(Path("x.csv"), ZeroDivisionError):
            raise raised


def npz(save):
    stream = io.BytesIO()
    save(stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        (b"a,b\n1,2\n", ".csv"),
        (b"", ".csv"),
        (npz(lambda stream: np.save(stream, np.eye(2))), ".npy"),
        (npz(lambda stream: np.savez(stream, np.eye(2))), ".npz"),
        (b"PK\x03\x04" + bytes(22) + b"\x10\0\0\0" + b"archive/data.pkl", ".pt"),
        (b"PAR1", ".parquet"),
        (b"\x02\0\0\0\0\0\0\0{}", ".safetensors"),
    ],
)
def test_streams_are_known_by_their_first_bytes(tmp_path, content, suffix):
    path = copied(io.BytesIO(content), tmp_path)
    assert path.suffix == suffix
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
