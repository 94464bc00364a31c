"""Fair timing on noisy machines: everything in turn, round after round, and medians."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("numpy", "scipy", "numba", "cvxpy-base", "clarabel", "array-api-compat", "jax", "optax", "torch")


def interleave(
    calls: Mapping[str, Callable[[], Any]], rounds: int, patience: float = 20.0, least: float = 0.0
) -> dict[str, list[float]]:
    """Return the seconds of every call, after one uncounted call of each to warm up.

    In each round every call runs once, or as often as takes ``least`` seconds, of which the mean counts: else short
    calls find the caches full of what others have left. The order turns from round to round. A call that has used up
    its ``patience`` (seconds) sits out the later rounds; its warm-up counts if it takes that long.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        took = _time(call)
        if took > patience / 2:
            seconds[name].append(took)
    names = list(calls)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if sum(seconds[name]) < patience / 2:
                seconds[name].append(_mean_time(calls[name], least))
    return seconds


def _mean_time(call: Callable[[], Any], least: float) -> float:
    total, runs = _time(call), 1
    while total < least:
        total, runs = total + _time(call), runs + 1
    return total / runs


def summary(seconds: list[float]) -> dict[str, float | int]:
    """Return median, quartiles, extremes and number of runs."""
    low, q1, median, q3, high = np.percentile(seconds, [0, 25, 50, 75, 100])
    return {"median": median, "q1": q1, "q3": q3, "min": low, "max": high, "runs": len(seconds)}


def _time(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def machine() -> dict[str, Any]:
    """Return what a reader needs to place the numbers: processor, cores, load, versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": list(os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def keep(path: Path, **found: Any) -> None:
    """Write what was found as JSON, with the machine it was found on: how it is now, or as given."""
    from capsolve.files import replacing

    text = json.dumps({"machine": machine(), **found}, indent=1)
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as file:
        file.write_text(text + "\n")


def in_fresh_process(code: str) -> str:
    """Run Python code in a process of its own and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the measuring process failed:\n{done.stderr}")
    return done.stdout.strip()


def peak_memory(call: Callable[[], Any]) -> int | None:
    """Return how many bytes of memory a call added at its peak, what it returns included; None where unknown.

    Linux only: the kernel's high-water mark of the resident set is reset before the call.
    """
    try:
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
        with open("/proc/self/statm") as pages:
            before = int(pages.read().split()[1]) * resource.getpagesize()
        call()
        with open("/proc/self/status") as lines:
            peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except OSError:
        return None
    return peak - before
