"""``python -m benchmarks.gpu``: a profile on one graphics card, timed against the card's own memory.

Importance log-normal, kurtosis 3 + exponential(20), D = n/10, made on the card from a fixed seed. The yardstick is the
time to copy an array on the same card, in the same run and by the same library: `floor` is what it takes at that
bandwidth to read both arrays twice, for the price and for the answer, and to write the answer. Needs a CUDA device.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import timing

COPY = 1 << 28  # numbers in the array that is copied


class Torch:
    """PyTorch on its current CUDA device."""

    def __init__(self) -> None:
        try:
            import torch
        except ImportError:
            raise click.ClickException("PyTorch is not installed: pip install torch, or use --library cupy") from None
        if not torch.cuda.is_available():
            raise click.ClickException("PyTorch finds no CUDA device on this machine")
        self.torch, self.name = torch, torch.cuda.get_device_name()
        self.generator = torch.Generator("cuda").manual_seed(20221004)

    def profile(self, features: int, dtype: str) -> tuple[Any, Any]:
        given = {"device": "cuda", "dtype": getattr(self.torch, dtype)}
        v = self.torch.empty(features, **given).log_normal_(generator=self.generator)
        k = self.torch.empty(features, **given).exponential_(1.0 / 20.0, generator=self.generator).add_(3.0)
        return v, k

    def copy(self, dtype: str) -> Callable[[], Any]:
        source = self.torch.zeros(COPY, device="cuda", dtype=getattr(self.torch, dtype))
        target = self.torch.empty_like(source)
        return lambda: target.copy_(source)

    def wait(self) -> None:
        self.torch.cuda.synchronize()

    def peak(self) -> int:
        return int(self.torch.cuda.max_memory_allocated())


class Cupy:
    """CuPy on its current device."""

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError:
            raise click.ClickException("CuPy is not installed: pip install cupy-cuda12x") from None
        try:
            self.name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["name"].decode()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise click.ClickException(f"CuPy finds no CUDA device on this machine: {error}") from None
        self.cupy, self.random = cupy, cupy.random.default_rng(20221004)

    def profile(self, features: int, dtype: str) -> tuple[Any, Any]:
        v = self.random.standard_normal(features, dtype=dtype)
        self.cupy.exp(v, out=v)
        k = self.random.standard_exponential(features, dtype=dtype)
        k *= 20.0
        k += 3.0
        return v, k

    def copy(self, dtype: str) -> Callable[[], Any]:
        source = self.cupy.zeros(COPY, dtype=dtype)
        target = self.cupy.empty_like(source)
        return lambda: self.cupy.copyto(target, source)

    def wait(self) -> None:
        self.cupy.cuda.Device().synchronize()

    def peak(self) -> int:
        return int(self.cupy.get_default_memory_pool().total_bytes())


def measure(card: Any, features: int, dtype: str, rounds: int) -> dict[str, Any]:
    """Return times of `solve` and of a copy, in turn."""
    import capsolve

    v, k = card.profile(features, dtype)
    copy, size = card.copy(dtype), np.dtype(dtype).itemsize
    seconds: dict[str, list[float]] = {"solve": [], "copy": []}
    for turn in range(rounds + 1):  # the first is to warm up
        for name, call in (("copy", copy), ("solve", lambda: capsolve.solve(v, k, 0.1 * features))):
            card.wait()
            start = time.perf_counter()
            answer = call()
            card.wait()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    bandwidth = 2 * COPY * size / float(np.median(seconds["copy"]))
    floor = (2 * 2 + 1) * features * size / bandwidth
    return {
        "benchmark": "gpu",
        "card": card.name,
        "features": features,
        "dtype": dtype,
        "seconds": timing.summary(seconds["solve"]),
        "copy_bytes_per_second": bandwidth,
        "floor_seconds": floor,
        "over_floor": float(np.median(seconds["solve"])) / floor,
        "peak_device_bytes": card.peak(),
        "status": answer.status.value,
        "gap": answer.gap,
        "budget_error": answer.budget_error,
        "counts": answer.counts(),
    }


@click.command()
@click.option("--features", default=10**9, show_default=True, type=click.IntRange(1))
@click.option("--library", default="torch", show_default=True, type=click.Choice(["torch", "cupy"]))
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "float64"]))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Keep the numbers as JSON.")
def main(features: int, library: str, dtype: str, rounds: int, output: Path | None) -> None:
    """Solve a profile on one card and compare with the card's own copy bandwidth."""
    card = {"torch": Torch, "cupy": Cupy}[library]()
    found = {"machine": timing.machine(), **measure(card, features, dtype, rounds)}
    click.echo(json.dumps(found, indent=1))
    if output:
        timing.keep(output, **found)


if __name__ == "__main__":
    main()
