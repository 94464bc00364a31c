"""Everything else that must be fast: small problems, many problems, paths, embeddings, activations, the import."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from scipy import sparse

import capsolve
from benchmarks import timing
from benchmarks.instances import problem
from capsolve import moments
from capsolve.geometry.blocks import find_blocks
from capsolve.geometry.second_moment import SecondMoment


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


def activations(samples: int, features: int, rounds: int) -> list[dict[str, Any]]:
    """Eight moments of every feature, and what they cost beside a sum and a kurtosis of NumPy's."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, features), dtype=np.float32)
    zeros = x * (rng.random(x.shape, dtype=np.float32) < 0.02)
    stored = sparse.csr_array(zeros)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npy")
        np.save(path, x)
        command = [sys.executable, "-m", "capsolve", "profile", str(path)]
        with mock.patch.object(moments, "COMPILED_VALUES", 0):
            calls = {
                "sum": lambda: x.sum(axis=0, dtype=np.float64),
                "kurtosis by NumPy": lambda: _kurtosis(x),
                "moments": lambda: moments.measure(x),
                "moments without Numba": lambda: _without_numba(x),
                "moments, 98 % zeros": lambda: moments.measure(zeros),
                "moments, CSR": lambda: moments.measure(stored),
                "capsolve profile": lambda: subprocess.run(command, check=True, capture_output=True),
            }
            seconds = timing.interleave(calls, rounds, patience=120.0)
    by_sum = float(np.median(seconds["sum"])) / x.size
    values = {name: stored.nnz if name == "moments, CSR" else x.size for name in calls}
    return [
        {
            "benchmark": "moments",
            "samples": samples,
            "features": features,
            "dtype": "float32",
            "solver": name,
            "values": values[name],
            "seconds": timing.summary(taken),
            "times_sum_per_value": float(np.median(taken)) / values[name] / by_sum,
        }
        for name, taken in seconds.items()
    ]


def _kurtosis(x: np.ndarray) -> np.ndarray:
    mean, second, fourth = x.mean(axis=0, dtype=np.float64), 0.0, 0.0
    for start in range(0, len(x), 1024):
        square = (x[start : start + 1024] - mean) ** 2
        second, fourth = second + square.sum(axis=0), fourth + (square**2).sum(axis=0)
    return len(x) * fourth / second**2


def _without_numba(x: np.ndarray) -> moments.Moments:
    with mock.patch.object(moments, "_compiled", return_value=None):
        return moments.measure(x)


def orthogonal_blocks(n: int, dimensions: int, rounds: int) -> list[dict[str, Any]]:
    """The orthogonal blocks of one large component, and of many, against the capacities of the same embedding."""
    rng = np.random.default_rng(0)
    random = rng.standard_normal((n, dimensions), dtype=np.float32)
    owner = rng.integers(dimensions // 4, size=n)
    split = np.zeros((n, dimensions), np.float32)
    split[np.arange(n)[:, None], 4 * owner[:, None] + np.arange(4)] = rng.standard_normal((n, 4))
    records = []
    for family, W in (("one block", random), ("blocks of four dimensions", split)):
        capacity, moment = capsolve.capacities(W).astype(float), SecondMoment()
        moment.add(W)
        spectrum = moment.spectrum()
        calls = {
            "search in measure": lambda W=W, known=(capacity, lambda found=spectrum: found): find_blocks(
                W, 1e-5, *known
            ),
            "blocks": lambda W=W: capsolve.blocks(W),
            "capacities": lambda W=W: capsolve.capacities(W),
        }
        seconds = timing.interleave(calls, rounds, patience=120.0)
        one = float(np.median(seconds["capacities"]))
        records += [
            {
                "benchmark": "blocks",
                "family": family,
                "features": n,
                "dimensions": dimensions,
                "dtype": "float32",
                "solver": name,
                "seconds": timing.summary(taken),
                "times_capacities": float(np.median(taken)) / one,
            }
            for name, taken in seconds.items()
        ]
    return records


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
