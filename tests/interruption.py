"""Interrupt a command of capsolve as a terminal, a scheduler or a lack of memory does."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

DEADLINE = 60  # seconds
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def start(*args, folder, code=None):
    """Start a command in a process group of its own; or Python code, with these arguments."""
    program = ["-m", "capsolve"] if code is None else ["-c", code]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        start_new_session=True,
    )


def wait_for(process, folder, pattern):
    """Wait until there is such a file in the folder."""
    deadline = time.monotonic() + DEADLINE
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ended(process):
    """Return the exit status and standard error of a process, once nobody it has started holds its streams."""
    try:
        _, message = process.communicate(timeout=DEADLINE)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what a failure leaves does not stay
    return process.returncode, message


def interrupt(process, folder, pattern, number=signal.SIGINT, to=os.killpg):
    """Send a signal to the whole group, as a terminal does, once there is such a file in the folder.

    Returns the times at which the files that are there at the end were written.
    """
    wait_for(process, folder, pattern)
    to(process.pid, number)
    status, message = ended(process)
    assert status == 128 + number, message
    assert message.strip().startswith(f"capsolve: error: {WORDS[number]}; finished "), message
    assert message.endswith(" and the same command resumes\n"), message
    assert message.strip().count("\n") == 0, message
    return written(folder, pattern)


def written(folder, pattern):
    """Return when each of these files was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(pattern)}
