"""What long runs share on the command line: faults of every kind change no file that they finish later.

Each command runs as a real process. A worker or a helper that stays behind would hold its streams open.
"""

import os
import signal
from pathlib import Path

import pytest

from capsolve._processes import most_workers
from tests.cli.helpers import command
from tests.interruption import ended, interrupt, start, wait_for, written

_PHASE = "phase --empirical quadratic --cells 24x12 --features 4 --dimensions 2 --restarts 1 --data"
_SWEEP = "incidental --features 12 --neurons 16:64:16 --instances 8 --steps 800 --learning-rate 0.01 --data"
RUNS = {"phase": (_PHASE.split(), "batch-*.npz"), "incidental": (_SWEEP.split(), "network-*.npz")}
KEPT = {"phase": "cells", "incidental": "networks"}


@pytest.fixture(scope="module", params=RUNS)
def undisturbed(request, tmp_path_factory):
    """A command, its name, and the file that it writes when nobody disturbs it."""
    folder = tmp_path_factory.mktemp(request.param)
    options, pattern = RUNS[request.param]
    done = command(*options, "whole.npz", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return options, pattern, KEPT[request.param], (folder / "whole.npz").read_bytes()


def resumed(undisturbed, folder, stored):
    """Run the command again, and require that it uses what is stored, finishes and leaves nothing but its file."""
    options, pattern, kept, whole = undisturbed
    done = command(*options, "a.npz", "--checkpoint", f"a.npz.{kept}", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert stored.items() <= written(folder / f"a.npz.{kept}", pattern).items()
    done = command(*options, "a.npz", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in folder.iterdir()] == ["a.npz"]
    assert (folder / "a.npz").read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("to", [os.kill, os.killpg])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_lose_no_finished_piece(undisturbed, tmp_path, number, to, workers):
    options, pattern, kept, _ = undisturbed
    folder = tmp_path / f"a.npz.{kept}"
    process = start(*options, "a.npz", "--workers", workers, folder=tmp_path)
    if number == signal.SIGKILL:
        wait_for(process, folder, pattern)
        to(process.pid, number)
        assert ended(process)[0] == -number
        stored = written(folder, pattern)
    else:
        stored = interrupt(process, folder, pattern, number, to)
    assert not (tmp_path / "a.npz").exists()
    resumed(undisturbed, tmp_path, stored)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
def test_a_lost_worker_is_told_and_the_rest_is_kept(undisturbed, tmp_path):
    options, pattern, kept, _ = undisturbed
    process = start(*options, "a.npz", "--workers", 2, folder=tmp_path)
    wait_for(process, tmp_path / f"a.npz.{kept}", pattern)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
    workers = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    status, message = ended(process)
    assert status == 1
    assert message.count("\n") == 1
    assert message.startswith("capsolve: error: one of 2 worker processes died, perhaps killed for want of memory")
    assert message.endswith(f"are kept in a.npz.{kept}, and the same command resumes\n")
    resumed(undisturbed, tmp_path, written(tmp_path / f"a.npz.{kept}", pattern))


@pytest.mark.parametrize("options", ["phase --empirical quadratic --data a.npz", "incidental", "reproduce fig4 -o a"])
@pytest.mark.parametrize("workers", ["0", "-1", "1000000"])
def test_workers_are_bounded_before_any_is_started(fails, options, workers):
    message = fails(2, *options.split(), "--workers", workers)
    assert f"must be from 1 to {most_workers()}, 4 for each processor, got {workers}" in message
