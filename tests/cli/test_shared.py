"""What long runs share on the command line: faults of every kind change no file that they finish later.

Each command runs as a real process. A worker or a helper that stays behind would hold its streams open.
"""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from capsolve._processes import most_workers
from capsolve.cli import main
from tests.cli.helpers import command, strict_json
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


_TINY = "phase --features 4 --dimensions 2 --cells 6x4"
_SHORT = "incidental --features 6 --neurons 8,9 --instances 2 --steps 50"
OUTPUTS = {
    "phase -o": (f"{_TINY} -o", "a.png", b"\x89PNG"),
    "phase --figure": (f"{_TINY} --figure", "a.png", b"\x89PNG"),
    "phase --data": (f"{_TINY} --data", "a.npz", b"PK"),
    "phase --empirical": (f"{_TINY} --empirical quadratic --data", "a.npz", b"PK"),
    "incidental --data": (f"{_SHORT} --data", "a.csv", b"neurons,"),
    "incidental -o": (f"{_SHORT} -o", "a.png", b"\x89PNG"),
    "verify": ("verify profile.csv -D 2 -o", "a.md", b"# Verification"),
    "solve -o": ("solve profile.csv -D 2 -o", "a.csv", b"name,"),
    "solve --figure": ("solve profile.csv -D 2 --figure", "a.png", b"\x89PNG"),
    "measure": ("measure w.npy --features rows --figure", "a.png", b"\x89PNG"),
}


@pytest.fixture
def invoke(profile, tmp_path):
    """Run a command in this process with bytes as standard input; return its standard output and error as bytes."""
    np.save(tmp_path / "w.npy", np.random.default_rng(0).standard_normal((9, 4)))
    np.save(tmp_path / "x.npy", np.random.default_rng(1).standard_normal((200, 9)))

    def invoke(options, given=b"", status=0):
        ran = CliRunner().invoke(main, options.split(), input=given)
        assert ran.exit_code == status, ran.output
        return ran.stdout_bytes, ran.stderr

    return invoke


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_file_may_be_standard_output(invoke, tmp_path, name):
    options, file, start = OUTPUTS[name]
    summary, _ = invoke(f"{options} {file}")
    before = set(tmp_path.iterdir())
    content, aside = invoke(f"{options} -")
    assert content == (tmp_path / file).read_bytes()
    assert content.startswith(start)
    assert aside.strip() == summary.decode().partition(f"\nwrote {file}")[0].strip()
    assert set(tmp_path.iterdir()) == before
    assert "takes one file or the JSON object" in invoke(f"{options} - --json", status=2)[1]


def test_standard_output_takes_one_file(invoke):
    for options in (f"{_TINY} -o - --data -", f"{_SHORT} -o - --data -", "solve profile.csv -D 2 -o - --figure -"):
        assert "standard output takes one file" in invoke(options, status=2)[1]


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ("solve {} -D 2 --json", "profile.csv"),
        ("verify {} -D 2 --json", "profile.csv"),
        ("measure {} --features rows --json", "w.npy"),
        ("measure w.npy --features rows --json --activations {}", "x.npy"),
        ("profile {} --json", "x.npy"),
    ],
)
def test_every_input_may_be_standard_input(invoke, tmp_path, options, file):
    from_file, from_input = (
        invoke(options.format(file))[0],
        invoke(options.format("-"), (tmp_path / file).read_bytes())[0],
    )
    for name in ("standard input", "-"):
        from_input = from_input.replace(f'"{name}'.encode(), f'"{file}'.encode())
    assert strict_json(from_input) == strict_json(from_file)


def test_standard_input_is_read_once(invoke):
    assert "standard input is read once" in invoke("measure - --activations -", status=2)[1]


LIMITED = """
import resource, runpy, signal, sys

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
sys.argv[0] = "capsolve"
if __name__ == "__main__":  # and not in workers
    runpy.run_module("capsolve", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("what", ["piece", "result"])
def test_a_disk_that_fills_loses_no_finished_piece(undisturbed, tmp_path, what, workers):
    """Here files may not grow beyond a size, which is too small for a piece or for the result."""
    options, pattern, kept, whole = undisturbed
    most = 300 if what == "piece" else len(whole) - 1
    process = start(most, *options, "a.npz", "--workers", workers, folder=tmp_path, code=LIMITED)
    status, message = ended(process)
    assert status == 1, message
    assert message.count("\n") == 1, message
    assert "File too large" in message
    folder = tmp_path / f"a.npz.{kept}"
    stored = written(folder, pattern)
    assert message.endswith("and the same command resumes\n") == bool(stored)
    assert {path.name for path in folder.iterdir()} == {"settings.json", *stored}
    assert not (tmp_path / "a.npz").exists()
    resumed(undisturbed, tmp_path, stored)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_two_runs_with_one_output(undisturbed, tmp_path, workers):
    options, pattern, kept, whole = undisturbed
    first = start(*options, "a.npz", "--workers", workers, folder=tmp_path)
    wait_for(first, tmp_path / f"a.npz.{kept}", pattern)
    os.kill(first.pid, signal.SIGSTOP)  # it does not end meanwhile
    second = command(*options, "a.npz", cwd=tmp_path)
    other = command(*options, "a.npz", "--seed", 1, cwd=tmp_path)
    os.kill(first.pid, signal.SIGCONT)
    for refused, reason in (
        (second, "another run is at work there; wait until"),
        (other, "other arguments or another seed"),
    ):
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith(f"capsolve: error: a.npz.{kept}: ")
        assert reason in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert ended(first) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == whole


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize(
    "options", ["phase -o r/a.png", "phase --empirical quadratic --data r/a.npz", "incidental --data r/a.csv"]
)
def test_folders_that_are_read_only_are_known_before_the_work(fails, tmp_path, options):
    (tmp_path / "r").mkdir(mode=0o555)
    assert "cannot be written: permission denied" in fails(2, *options.split())


EARLY = """
import os, runpy, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == when:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

when = sys.argv[1]
sys.argv = ["capsolve", "phase", "--cells", "4"]
sys.meta_path.insert(0, Interrupting())
runpy.run_module("capsolve", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("when", "status", "message"),
    [
        ("lazy_loader", -signal.SIGINT, ""),
        ("capsolve.cli", -signal.SIGINT, ""),
        ("click", -signal.SIGINT, ""),
        ("capsolve.cli.verify", -signal.SIGINT, ""),
        ("capsolve.diagrams.analytic", 130, "capsolve: error: interrupted\n"),
        ("numpy", 130, "capsolve: error: interrupted\n"),
    ],
)
def test_an_interruption_at_the_start_shows_no_traceback(tmp_path, when, status, message):
    done = ended(start(when, folder=tmp_path, code=EARLY))
    assert (done[0], done[1].lstrip("\n")) == (status, message)


@pytest.mark.parametrize("options", ["phase --empirical quadratic --data a.npz", "incidental", "reproduce fig4 -o a"])
@pytest.mark.parametrize("workers", ["0", "-1", "1000000"])
def test_workers_are_bounded_before_any_is_started(fails, options, workers):
    message = fails(2, *options.split(), "--workers", workers)
    assert f"must be from 1 to {most_workers()}, 4 for each processor, got {workers}" in message
