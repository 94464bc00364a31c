"""Workers of the command line: interruptions are the command's affair."""

import os
import signal
from multiprocessing import active_children

from capsolve.cli._shared import pool


def test_workers_leave_interruptions_to_the_command():
    others = active_children()
    with pool(2) as executor:
        workers = [process for process in active_children() if process not in others]
        assert len(workers) == 2
        for when in ("while they start", "while they wait"):
            for worker in workers:
                os.kill(worker.pid, signal.SIGINT)
            assert {executor.submit(os.getpid).result() for _ in range(8)} <= {worker.pid for worker in workers}, when
        assert all(worker.is_alive() for worker in workers)
