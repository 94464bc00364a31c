"""Interrupt a command of capsolve as a terminal does."""

import os
import signal
import subprocess
import sys
import time


def start(*args, folder):
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "capsolve", *map(str, args)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=folder,
        start_new_session=True,
    )


def interrupt(process, folder, pattern):
    """Send SIGINT to the whole group once there is such a file in the folder.

    Returns the times at which the files that are there at the end were written.
    """
    deadline = time.monotonic() + 60
    while not list(folder.glob(pattern)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to workers, too
    _, message = process.communicate(timeout=60)
    assert (process.returncode, message.strip()) == (130, b"capsolve: error: interrupted"), message.decode()
    return written(folder, pattern)


def written(folder, pattern):
    """Return when each of these files was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(pattern)}
