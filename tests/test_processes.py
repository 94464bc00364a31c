"""Workers: interruptions are the caller's affair, a lost one is told, and none outlives what started it."""

import multiprocessing.synchronize
import os
import signal
import time
from multiprocessing import active_children

import pytest

from capsolve._processes import most_workers, worker_processes
from capsolve.simulate import optimise_embedding
from tests.interruption import ended, start, wait_for


@pytest.fixture
def begun():
    """The processes that a test has started."""
    others = active_children()
    return lambda: [process for process in active_children() if process not in others]


def test_workers_leave_interruptions_to_the_caller(begun):
    with worker_processes(2) as executor:
        workers = begun()
        assert len(workers) == 2
        for when in ("while they start", "while they wait"):
            for worker in workers:
                os.kill(worker.pid, signal.SIGINT)
            assert {executor.submit(os.getpid).result() for _ in range(8)} <= {worker.pid for worker in workers}, when
        assert all(worker.is_alive() for worker in workers)
    assert not begun()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lost_worker_is_told_in_one_line(begun, number):
    def lose_one():
        with worker_processes(2) as executor:
            executor.submit(os.getpid).result()
            waiting = executor.submit(time.sleep, 60)
            os.kill(begun()[0].pid, number)
            waiting.result()

    with pytest.raises(ChildProcessError, match=r"^one of 2 worker processes died, perhaps .* memory; fewer need"):
        lose_one()
    assert not begun()


def test_an_exception_stops_workers_at_once(begun):
    before = time.monotonic()
    with pytest.raises(KeyError), worker_processes(2) as executor:  # noqa: PT012
        for _ in range(4):
            executor.submit(time.sleep, 60)
        raise KeyError
    assert time.monotonic() - before < 30
    assert not begun()


def test_too_many_workers_are_refused():
    most = most_workers()
    assert most >= os.cpu_count()
    with pytest.raises(ValueError, match=rf"workers must be in \[1, {most}\], got 1000000"):
        optimise_embedding([1.0, 1.0], 9.0, 1, workers=1_000_000)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file or directory"), ImportError("no sem_open")])
def test_a_system_without_semaphores(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", fail)
    needed = pytest.raises(OSError, match=r"need semaphores \(on Linux in /dev/shm\): .*; one worker needs none")
    with needed, worker_processes(2):
        pass


ASLEEP = """
import sys, time
from pathlib import Path
from capsolve._processes import worker_processes

if __name__ == "__main__":
    with worker_processes(2) as executor:
        tasks = [executor.submit(time.sleep, 3600) for _ in range(2)]
        while not all(task.running() for task in tasks):
            time.sleep(0.01)
        Path("ready").touch()
        time.sleep(3600)
"""


def test_workers_end_with_a_caller_that_is_killed(tmp_path):
    process = start(code=ASLEEP, folder=tmp_path)
    wait_for(process, tmp_path, "ready")
    process.kill()
    status, _ = ended(process)  # its streams close when the last worker is gone
    assert status == -signal.SIGKILL
