"""One thread of linear algebra around loops over small matrices."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_inside = 0
_limit: Any = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let NumPy and SciPy compute matrix products and factorisations on one thread within the block.

    For matrices of some dozens of rows a second thread costs more than it computes, and tens of times as much while
    another process is busy, for the threads wait for each other. And the last bits of a sum depend on how many shared
    it: with one, a descent ends alike however many processors there are.

    The number of threads belongs to the process. The first block to begin sets it and the last one to end sets it
    back, so that blocks may overlap in several threads of Python.
    """
    global _inside, _limit  # noqa: PLW0603
    with _lock:
        if _inside == 0:
            _limit = _libraries().limit(limits=1, user_api="blas")
            _disown()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _limit.restore_original_limits()
                _disown()


def _disown() -> None:
    """Let another thread of Python set the number next.

    Newer versions of threadpoolctl give that right to one thread until its last limit ends: here one that limits
    nothing. A limit that the caller has set in another thread and that has not ended goes before this module's.
    """
    with _libraries().limit(limits=None):
        pass


@functools.cache
def _libraries() -> Any:
    """Find the libraries of linear algebra in this process, which takes milliseconds: NumPy's and SciPy's are two."""
    import scipy.linalg  # noqa: F401, PLC0415
    from threadpoolctl import ThreadpoolController  # noqa: PLC0415

    return ThreadpoolController()
