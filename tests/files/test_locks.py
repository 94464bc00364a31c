"""One holder at a time, in this process and others; waiting ends when the holder does; nothing stays behind."""

import errno
import fcntl
import subprocess
import sys
import threading

import pytest

from capsolve.files._locks import locked

HOLD = """
import sys
from pathlib import Path
from capsolve.files._locks import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_has_one_holder(tmp_path):
    path = tmp_path / "a.lock"
    with locked(path) as known:
        assert known
        with pytest.raises(BlockingIOError), locked(path):
            pass
        with locked(tmp_path / "b.lock"):
            pass
    with locked(path):
        assert path.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_other_processes_are_kept_out_until_they_end(tmp_path, end):
    path = tmp_path / "a.lock"
    program = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().strip() == b"held"
        with pytest.raises(BlockingIOError), locked(path):
            pass
        if end == "kill":
            process.kill()
        process.stdin.close()
        process.wait(60)
    assert path.exists() == (end == "kill")
    with locked(path):
        pass
    assert not path.exists()


def test_many_who_wait_get_it_one_after_the_other(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(50):
            with locked(tmp_path / "a.lock", wait=True):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 200
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with locked(tmp_path / "a.lock") as known:
        assert not known
        with locked(tmp_path / "a.lock"):
            pass
