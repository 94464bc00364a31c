"""Processes that share the work, and that end with the one that started them, however that ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from typing import Any

PER_PROCESSOR = 4
"""Workers beyond this number for each processor only take memory."""

_MOMENT, _PATIENCE = 0.2, 5.0  # seconds


def most_workers() -> int:
    """Return how many workers may be asked for."""
    most = PER_PROCESSOR * (os.cpu_count() or 1)
    return min(most, 61) if sys.platform == "win32" else most  # Windows waits for no more handles than that


@contextmanager
def worker_processes(workers: int) -> Iterator[Executor]:
    """Give processes that leave interruptions to this one.

    If the block is left by an exception they are stopped at once: what they would still find is not stored, and a task
    can take minutes. If this process is killed they end, too.

    Raises
    ------
    OSError
        If the system has no place for what processes share; a `ChildProcessError` if one of them dies.
    """
    others = active_children()
    try:
        # forking a process that runs threads of a numerical library may hang it
        executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare)
    except (OSError, ImportError, NotImplementedError) as error:
        raise OSError(
            f"several workers need semaphores (on Linux in /dev/shm): {error}; one worker needs none"
        ) from None
    with executor:
        try:
            with _held_back():
                for _ in range(workers):  # a process starts with its task, and takes over what is held back
                    executor.submit(os.getpid)
            yield executor
        except BaseException as error:
            with _held_back():
                manager = getattr(executor, "_executor_manager_thread", None)
                executor.shutdown(wait=False, cancel_futures=True)
                _wait_until_forgotten(manager)
                for process in active_children():
                    if process not in others:
                        process.terminate()
                if manager is not None:
                    manager.join(_PATIENCE)  # it waits for the processes
            if isinstance(error, BrokenProcessPool):
                raise ChildProcessError(
                    f"one of {workers} worker processes died, perhaps killed for want of memory; fewer need less"
                ) from None
            raise


def _wait_until_forgotten(manager: Any) -> None:
    """Let an executor's thread forget cancelled tasks: it stumbles over them where a process ends, and prints that.

    It takes a moment, which is longer where processors are busy.
    """
    end = time.monotonic() + _PATIENCE
    time.sleep(_MOMENT)
    while time.monotonic() < end:
        if not any(item.future.cancelled() for item in list(getattr(manager, "pending_work_items", {}).values())):
            return
        time.sleep(0.05)


@contextmanager
def _held_back() -> Iterator[None]:
    """Let interruptions and requests to end wait until the end of the block, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare() -> None:
    """Make a worker ignore interruptions, end with its parent, and let no semaphore of a progress bar outlive it."""
    from tqdm import tqdm  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # with which the parent ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
