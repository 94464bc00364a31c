"""One thread of linear algebra for as long as any block asks for it; then as many as before."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import scipy.linalg  # noqa: F401  (SciPy brings a library of its own)
from threadpoolctl import threadpool_limits

from capsolve._threads import one_blas_thread
from tests.threads import blas_threads


@pytest.fixture
def two():
    """Start from two threads where the libraries can have them, without keeping the right to set their number."""
    limits = threadpool_limits(2, user_api="blas")
    with threadpool_limits(None):
        pass
    yield blas_threads()
    limits.restore_original_limits()
    with threadpool_limits(None):
        pass


def test_blocks_nest(two):
    with one_blas_thread():
        assert set(blas_threads()) <= {1}
        with one_blas_thread():
            pass
        assert set(blas_threads()) <= {1}
    assert blas_threads() == two


def test_an_error_sets_it_back(two):
    def fail():
        with one_blas_thread():
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert blas_threads() == two


def test_overlapping_blocks(two):
    """The first to begin is the first to end here: the other must go on with one thread, and none stays behind."""
    both_inside, one_left = Barrier(2, timeout=60), Barrier(2, timeout=60)

    def first():
        with one_blas_thread():
            both_inside.wait()
        one_left.wait()

    def second():
        with one_blas_thread():
            both_inside.wait()
            one_left.wait()
            return blas_threads()

    with ThreadPoolExecutor(2) as executor:
        executor.submit(first)
        assert set(executor.submit(second).result()) <= {1}
    assert blas_threads() == two
