"""What compiled code is made of: Numba with arithmetic as it is written, and machine code kept on disk.

Importing this module imports Numba, which takes longer than most problems: whoever uses it imports it late, and does
without it where that fails.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import sys
import zlib
from types import ModuleType
from typing import Any

import numba as nb
from numba.core.caching import FunctionCache, NullCache
from numba.extending import intrinsic

logger = logging.getLogger(__name__)

# --- instructions -------------------------------------------------------------------------------------------------

FREE_ORDER = ("reassoc", "nsz")  # a sum may be split among the lanes of vector registers
NO_NAN = ("nnan", "nsz")


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a·b + c, rounded once."""
    return nb.float64(nb.float64, nb.float64, nb.float64), lambda _c, builder, _s, args: builder.fma(*args)


@intrinsic
def plus(typing: Any, a: Any, b: Any) -> Any:
    """Return a + b as part of a sum in any order."""
    return nb.float64(nb.float64, nb.float64), lambda _c, builder, _s, args: builder.fadd(*args, flags=FREE_ORDER)


def _chosen(relation: str) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(relation, *args, flags=NO_NAN), *args, flags=NO_NAN)

    return build


@intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """Return the maximum of two numbers."""
    return nb.float64(nb.float64, nb.float64), _chosen(">")


@intrinsic
def smaller(typing: Any, a: Any, b: Any) -> Any:
    """Return the minimum of two numbers."""
    return nb.float64(nb.float64, nb.float64), _chosen("<")


# --- compilation --------------------------------------------------------------------------------------------------


def checksums(*modules: ModuleType) -> tuple[int, ...]:
    """Return what tells the sources of modules apart from others."""
    return tuple(zlib.crc32(inspect.getsource(module).encode()) for module in modules)


# Machine code holds what it took from other modules: when one is another, it is compiled again. Those are this one, and
# what a module with compiled functions says in a variable of the name TAKEN_FROM.
OWN = checksums(sys.modules[__name__])


@functools.cache
def _announce() -> None:
    """Say, once in a process, what is going to take seconds: ``capsolve`` shows it on the command line."""
    logging.getLogger("capsolve.compiling").info("compiling, once: this takes some seconds")


class _Cache(FunctionCache):
    """Machine code on disk; what cannot be read there is compiled again, and written if that is possible."""

    options: tuple[Any, ...] = ()

    def _index_key(self, *given):
        taken = self._py_func.__globals__.get("TAKEN_FROM")
        return (*super()._index_key(*given), OWN, taken, self.options)

    def load_overload(self, *given):
        """Return the code for a signature, or None."""
        found = None
        try:
            found = super().load_overload(*given)
        except Exception as reason:  # damaged files raise all that pickle can raise
            logger.debug("the cache of %s cannot be read: %r", self._name, reason)
        if found is None:
            _announce()
        return found

    def save_overload(self, *given):
        """Keep the code for a signature, in place of a damaged index if there is one."""
        try:
            super().save_overload(*given)
        except Exception as reason:
            logger.debug("the cache of %s cannot be written: %r", self._name, reason)
            with contextlib.suppress(Exception):
                self.flush()
                super().save_overload(*given)


class _NoCache(NullCache):
    """What stands for a cache where there is no folder for one."""

    def load_overload(self, *given):
        """Return None."""
        _announce()


def compiled(function: Any, **options: Any) -> Any:
    """Compile a function for one core; give it a cache, as ``cache=True`` does, if there is a folder for it."""
    made = nb.njit(error_model="numpy", nogil=True, **options)(function)
    try:
        made._cache = _Cache(function)
        made._cache.options = tuple(options.items())
    except Exception as reason:
        made._cache = _NoCache()
        logger.debug("no cache: %r", reason)
    return made


def internal(function: Any) -> Any:
    """Compile a function that only compiled ones call: nothing is made that Python would call it by."""
    return compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def on_all_cores(function: Any) -> Any:
    """Compile a function whose loops over ``prange`` run on all cores."""
    return compiled(function, parallel=True)


# Where LLVM inlines, constants are known before loops are vectorised, and Numba has typed the function once.
inlined = nb.njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
