"""Compiled code is a bonus: whatever keeps Numba or its cache from working, large problems are solved all the same.

Each condition has a process of its own, which says in a debug log why it went another way.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from capsolve.solvers.quadratic import solve_source
from capsolve.solvers.routes import COMPILED_FEATURES
from capsolve.solvers.sources import NumPySource

pytest.importorskip("numba")

ROOT = Path(__file__).parent.parent.parent

# Solves the problem on stdin, writes the capacities to stdout and reports on stderr.
CHILD = """
import logging, sys
logging.basicConfig(level=logging.WARNING, format="%(message)s")
logging.getLogger("capsolve").setLevel(logging.DEBUG)
import numpy as np, capsolve
v, k = np.frombuffer(sys.stdin.buffer.read()).reshape(2, -1)
allocation = capsolve.solve(v, k, v.size / 10)
assert allocation.status is capsolve.Status.OPTIMAL, allocation
sys.stdout.buffer.write(allocation.capacity.tobytes())
from capsolve.solvers.routes import route_for
print("compiled:", getattr(route_for(v.size).source, "works", False), file=sys.stderr)
"""

# What a folder that cannot be written to does to whoever tries; root could write to it.
READ_ONLY = """
import tempfile
def refuse(*args, **kwargs):
    raise PermissionError(13, "Permission denied")
tempfile.TemporaryFile = refuse
"""
# All there is to say where nothing went wrong.
QUIET = f"{COMPILED_FEATURES} features are solved by Numba\ncompiled: True\n"
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"


def log_of(before="", **environment):
    """Solve in a process of its own, after ``before``; return its log when the answer is the one of NumPy."""
    rng = np.random.default_rng(0)
    v, k = rng.lognormal(size=COMPILED_FEATURES), rng.uniform(3.5, 12.0, size=COMPILED_FEATURES)
    rest = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    done = subprocess.run(
        [sys.executable, "-c", before + CHILD],
        input=np.array([v, k]).tobytes(),
        capture_output=True,
        cwd=ROOT,
        env=rest | environment,
        check=False,
        timeout=300,
    )
    log = done.stderr.decode()
    assert done.returncode == 0, log
    expected = solve_source(NumPySource(v, k), COMPILED_FEATURES / 10).capacity
    # The prices agree to the rounding of sums over 10^5 features, pairwise and in blocks, some 1e-14; and a capacity
    # C ≤ 1 has dC / d log τ = −v (κ − 1) / (τ (κ − 3)), at most (κ − 1) / (κ − 3) ≤ 5.
    np.testing.assert_allclose(np.frombuffer(done.stdout), expected, rtol=0.0, atol=1e-12)
    return log


def test_with_nothing_in_the_way_compiled_code_answers():
    assert log_of().endswith("compiled: True\n")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("NUMBA_DISABLE_JIT", "1", "pure-python"),
        ("NUMBA_NUM_THREADS", "0", "Number of threads"),
        ("NUMBA_NUM_THREADS", "-1", "Number of threads"),
        ("NUMBA_THREADING_LAYER", "nonsense", "threading layer"),
    ],
)
def test_where_numba_does_not_work_numpy_answers(name, value, reason):
    log = log_of(**{name: value})
    assert reason in log
    assert log.endswith("compiled: False\n")


@pytest.mark.parametrize("threads", ["1000", "x"])
def test_odd_numbers_of_threads_that_numba_accepts(threads):
    assert log_of(NUMBA_NUM_THREADS=threads).endswith("compiled: True\n")


@pytest.mark.slow
def test_without_a_folder_for_the_cache_code_is_compiled_again():
    log = log_of(READ_ONLY)
    assert "no locator available" in log
    assert log.count("compiling, once") == 1
    assert log.endswith("compiled: True\n")


@pytest.mark.slow
def test_a_full_disk_does_not_keep_the_answer(tmp_path):
    pytest.importorskip("resource")
    log = log_of(FULL, NUMBA_CACHE_DIR=str(tmp_path))
    assert "cannot be written: OSError(27, 'File too large')" in log
    assert log.endswith("compiled: True\n")


@pytest.mark.slow
def test_damaged_files_are_replaced(tmp_path):
    assert log_of(NUMBA_CACHE_DIR=str(tmp_path)) == QUIET.replace(
        "\n", "\ncompiling, once: this takes some seconds\n", 1
    )
    codes, (index,) = list(tmp_path.glob("*/*_screen-*.nbc")), tmp_path.glob("*/*_write-*.nbi")
    for code in codes:
        code.write_bytes(code.read_bytes()[:1000])
    index.write_bytes(b"nonsense")  # found when the price is known and the answer is to be written
    log = log_of(NUMBA_CACHE_DIR=str(tmp_path))
    assert log.count("cannot be read") == len(codes) + 1
    assert log.endswith("compiled: True\n")
    assert log_of(NUMBA_CACHE_DIR=str(tmp_path)) == QUIET
