"""`solve` against its peers, family by family and size by size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numba
import numpy as np

import capsolve
from benchmarks import peers, timing
from benchmarks.instances import FAMILIES, Problem, problem
from benchmarks.reference import reference
from capsolve.solvers.routes import NUMPY, SCALAR, SCALAR_FEATURES, compiled_route

OURS = "capsolve.solve"
NUMPYS = "capsolve.solve without Numba"
FLOOR = "floor: write at a known price"
FRESH = "the same into a new array"


def records(
    sizes: Sequence[int], families: Sequence[str], dtypes: Sequence[str], rounds: int, threads: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yield one record per family, size, precision, number of threads and solver.

    The peers, which have one thread, run beside the runs with most threads.
    """
    for family in families:
        for n in sizes:
            given = problem(family, n)
            for dtype in dtypes:
                for count in threads:
                    numba.set_num_threads(count)
                    yield from _one(
                        family, given, dtype, count, rounds, everyone=dtype == "float64" and count == max(threads)
                    )
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)


def _one(
    family: str, given: Problem, dtype: str, threads: int, rounds: int, everyone: bool
) -> Iterator[dict[str, Any]]:
    compiled_route()  # loaded, as it is where larger problems have been solved before
    v, k = given.importance.astype(dtype), given.kurtosis.astype(dtype)
    exact = Problem(v.astype(np.float64), k.astype(np.float64), given.dimensions)  # the numbers as they were rounded
    allocation = capsolve.solve(v, k, given.dimensions)
    out = np.empty_like(exact.importance)
    answers: dict[str, Any] = {}
    calls = {
        FLOOR: lambda: peers.floor(v, k, allocation.scale, out),
        FRESH: lambda: peers.floor(v, k, allocation.scale, np.empty_like(out)),
        "np.copyto": lambda: np.copyto(out, exact.importance),
        OURS: lambda: answers.update({OURS: capsolve.solve(v, k, given.dimensions).capacity}),
    }
    if everyone and family != "D":  # the peers are methods for convex losses
        for name, (peer, largest) in peers.PEERS.items():
            if out.size <= largest:
                calls[name] = lambda name=name, peer=peer: answers.update({name: peer(exact)})
    if everyone:
        plain = SCALAR if out.size <= SCALAR_FEATURES else NUMPY
        calls[NUMPYS] = lambda: answers.update(
            {NUMPYS: capsolve.allocate(capsolve.QuadraticLoss(v, k), given.dimensions, route=plain).capacity}
        )
    seconds = timing.interleave(calls, rounds, least=0.05)
    at_floor = float(np.median(seconds[FLOOR]))
    truth = None if family == "D" else reference(exact)
    for name, taken in seconds.items():
        record = {
            "benchmark": "solve",
            "family": family,
            "description": FAMILIES[family][0],
            "features": out.size,
            "dtype": dtype,
            "threads": threads,
            "solver": name,
            "seconds": timing.summary(taken),
            "times_floor": float(np.median(taken)) / at_floor,
        }
        if name in answers:
            record |= _accuracy(exact, answers[name], truth)
        yield record


def _accuracy(exact: Problem, capacity: Any, truth: Any) -> dict[str, float | str]:
    """Judge an answer by the optimality conditions, and by its distance from the answer in extended precision."""
    judged = capsolve.certify(capsolve.QuadraticLoss(*exact[:2]), exact.dimensions, capacity.astype(np.float64))
    found = {"budget_error": judged.budget_error, "kkt_error": judged.kkt_error, "gap": judged.gap}
    if truth is not None:
        found["distance"] = float(np.max(np.abs(capacity - truth)))
    return found


def memory(family: str, n: int) -> dict[str, Any]:
    """Return what `solve` adds to the memory at its peak, the capacities included, in a process of its own."""
    code = (
        "import capsolve; from benchmarks import instances, timing;"
        f"capsolve.solve(*instances.problem({family!r}, 200_000));"  # compiled and warm
        f"given = instances.problem({family!r}, {n}); print(timing.peak_memory(lambda: capsolve.solve(*given)))"
    )
    added = timing.in_fresh_process(code)
    peak = None if added == "None" else int(added)
    return {"benchmark": "memory", "family": family, "features": n, "output_bytes": 8 * n, "peak_bytes": peak}
