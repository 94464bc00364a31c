"""Everything else that must be fast: small problems, many problems, paths, embeddings, the import."""

from __future__ import annotations

from typing import Any

import numpy as np

import capsolve
from benchmarks import timing
from benchmarks.instances import problem


def small(rounds: int) -> dict[str, Any]:
    """One problem of six features, lists in, certificate and all."""
    v, dimensions = [2.0, 1.0, 1.0, 1.0, 1.0, 1.0], 3
    repeats = 200

    def call() -> None:
        for _ in range(repeats):
            capsolve.solve(v, 9.0, dimensions)

    seconds = [taken / repeats for taken in timing.interleave({"solve": call}, rounds)["solve"]]
    first = timing.in_fresh_process(
        "import time, capsolve; start = time.perf_counter();"
        f"capsolve.solve({v}, 9.0, {dimensions}); print(time.perf_counter() - start)"
    )
    return {
        "benchmark": "small",
        "features": 6,
        "seconds": timing.summary(seconds),
        "first_call_seconds": float(first),
    }


def many(side: int, rounds: int) -> dict[str, Any]:
    """A square diagram of problems of six features in one call, against a loop over a sample of them."""
    importance = np.ones((side, side, 6))
    importance[..., 0] = np.geomspace(0.01, 100.0, side)
    density = np.geomspace(1.0, 0.001, side)
    kurtosis = np.broadcast_to((9.0 / 5.0 / density)[:, None, None], importance.shape)
    rng = np.random.default_rng(0)
    some = rng.integers(0, side, (min(1000, side * side), 2))

    def loop() -> None:
        for i, j in some:
            capsolve.solve(importance[i, j], kurtosis[i, j], 3)

    calls = {"batch": lambda: capsolve.solve_batch(importance, kurtosis, 3), "loop": loop}
    seconds = timing.interleave(calls, rounds)
    scaled = [taken * side * side / len(some) for taken in seconds["loop"]]
    return {
        "benchmark": "many",
        "problems": side * side,
        "features": 6,
        "seconds": timing.summary(seconds["batch"]),
        "loop_seconds": timing.summary(scaled),
        "loop_measured_on": len(some),
        "times_faster": float(np.median(scaled) / np.median(seconds["batch"])),
    }


def path(n: int, rounds: int) -> dict[str, Any]:
    """All budgets D = 1 … n against one sort of the 2n breakpoints."""
    given = problem("A", n)
    v, k, _ = given
    breakpoints = np.concatenate([0.5 * v * (k - 1.0), v])
    budgets = np.arange(1, n + 1)
    calls = {
        "path": lambda: capsolve.capacity_path(v, k, budgets),
        "sort": lambda: np.sort(breakpoints),
        "argsort": lambda: np.argsort(breakpoints),
    }
    seconds = timing.interleave(calls, rounds)
    median = {name: float(np.median(taken)) for name, taken in seconds.items()}
    return {
        "benchmark": "path",
        "features": n,
        "seconds": timing.summary(seconds["path"]),
        "sort_seconds": timing.summary(seconds["sort"]),
        "argsort_seconds": timing.summary(seconds["argsort"]),
        "times_sort": median["path"] / median["sort"],
        "times_argsort": median["path"] / median["argsort"],
    }


def embedding(n: int, dimensions: int, rounds: int) -> dict[str, Any]:
    """Capacities of a large embedding against the two bare matrix products that they need."""
    W = np.random.default_rng(0).standard_normal((n, dimensions), dtype=np.float32)
    product = np.empty_like(W)

    def bare() -> None:
        np.matmul(W, W.T @ W, out=product)

    seconds = timing.interleave(
        {"capacities": lambda: capsolve.capacities(W), "products": bare}, rounds, patience=120.0
    )
    ratio = float(np.median(seconds["capacities"]) / np.median(seconds["products"]))
    return {
        "benchmark": "capacities",
        "features": n,
        "dimensions": dimensions,
        "dtype": "float32",
        "seconds": timing.summary(seconds["capacities"]),
        "products_seconds": timing.summary(seconds["products"]),
        "times_products": ratio,
    }


def gram(n: int, dimensions: int, rounds: int) -> dict[str, Any]:
    """Capacities against the n × n Gram matrix that the definition names, where that fits into memory."""
    W = np.random.default_rng(0).standard_normal((n, dimensions), dtype=np.float32)

    def definition() -> np.ndarray:
        overlap = np.einsum("id,jd->ij", W, W, optimize=True)
        return np.diagonal(overlap) ** 2 / np.einsum("ij,ij->i", overlap, overlap)

    seconds = timing.interleave({"capacities": lambda: capsolve.capacities(W), "gram": definition}, rounds)
    return {
        "benchmark": "gram",
        "features": n,
        "dimensions": dimensions,
        "dtype": "float32",
        "seconds": timing.summary(seconds["capacities"]),
        "gram_seconds": timing.summary(seconds["gram"]),
        "times_faster": float(np.median(seconds["gram"]) / np.median(seconds["capacities"])),
        "largest_difference": float(np.max(np.abs(capsolve.capacities(W) - definition()))),
    }


def start_up(rounds: int) -> dict[str, Any]:
    """`import capsolve` in a fresh interpreter, and which heavy packages came with it."""
    heavy = ("numpy", "scipy", "sympy", "cvxpy", "matplotlib", "numba", "jax", "torch", "dask", "pyarrow")
    code = (
        "import sys, time; start = time.perf_counter(); import capsolve;"
        f"print(time.perf_counter() - start, *[name for name in {heavy} if name in sys.modules])"
    )
    lines = [timing.in_fresh_process(code).split() for _ in range(rounds)]
    return {
        "benchmark": "import",
        "seconds": timing.summary([float(line[0]) for line in lines]),
        "heavy_packages": sorted({name for line in lines for name in line[1:]}),
    }
