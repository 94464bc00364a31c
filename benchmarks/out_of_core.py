"""``python -m benchmarks.out_of_core``: a profile on disk, larger than the memory it is solved in.

A seeded data set is written as Parquet files, chunk by chunk; then it is solved, and the answer written to a folder
again, by worker processes on this machine. Printed as JSON: the time of each step; how often the data were read, by the
kernel's count of bytes; the largest resident set of all processes together, sampled ten times a second, and of each.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import timing

ROWS = 10**6  # of a file


def write_profile(folder: Path, features: int) -> None:
    """Write importance log-normal, kurtosis log-uniform in [1.2, 100]; each file has its own seed."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir()
    for number, start in enumerate(range(0, features, ROWS)):
        rng, size = np.random.default_rng((20221004, number)), min(ROWS, features - start)
        columns = {
            "importance": rng.lognormal(size=size),
            "kurtosis": np.exp(rng.uniform(np.log(1.2), np.log(100.0), size)),
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"part-{number:05}.parquet")


class Watch(threading.Thread):
    """Watches this process and all that it started: resident memory, and what was read from files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.peaks, self.read, self.done = 0, {}, {}, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.1):
            self.look()

    def look(self) -> None:
        import psutil

        this, total = psutil.Process(), 0
        for process in (this, *this.children(recursive=True)):
            try:
                total += process.memory_info().rss
                self.peaks[process.pid] = max(self.peaks.get(process.pid, 0), _peak(process.pid))
                self.read[process.pid] = process.io_counters().read_chars
            except (psutil.Error, OSError, AttributeError):
                continue
        self.most = max(self.most, total)

    def has_read(self) -> int:
        self.look()
        return sum(self.read.values())


def _peak(pid: int) -> int:
    with open(f"/proc/{pid}/status") as lines:
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def measure(folder: Path, features: int, workers: int) -> dict[str, Any]:
    """Make, solve and write; everything lies in ``folder`` and goes in the end."""
    import distributed

    import capsolve

    profile, answer = folder / "profile", folder / "allocation"
    watch, seconds, start = Watch(), {}, time.perf_counter()

    def step(name: str) -> None:
        nonlocal start
        now = time.perf_counter()
        seconds[name], start = now - start, now

    write_profile(profile, features)
    size = sum(file.stat().st_size for file in profile.iterdir())
    step("make the data")
    watch.start()
    with (
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit="1.5GiB",
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster),
    ):
        before = watch.has_read()
        step("start the workers")
        given = capsolve.open_profile(profile)
        allocation = capsolve.solve(given.importance, given.kurtosis, 0.1 * features)
        step("solve")
        solved = watch.has_read()
        capsolve.write_allocation(allocation, answer)
        step("write")
        written = watch.has_read()
    watch.done.set()
    watch.join()
    return {
        "benchmark": "out of core",
        "features": features,
        "workers": workers,
        "bytes": {"profile": size, "allocation": sum(file.stat().st_size for file in answer.iterdir())},
        "seconds": seconds,
        "passes": {"solve": (solved - before) / size, "write": (written - solved) / size},
        "peak_resident_bytes": {"together": watch.most, "each": sorted(watch.peaks.values())},
        "status": allocation.status.value,
        "gap": allocation.gap,
        "budget_error": allocation.budget_error,
        "counts": allocation.counts(),
    }


@click.command()
@click.option("--features", default=10**8, show_default=True, type=click.IntRange(1))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Processes of one thread each.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Where to put 80 bytes per feature.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Keep the numbers as JSON.")
def main(features: int, workers: int, folder: Path | None, output: Path | None) -> None:
    """Solve a profile from disk on worker processes; FOLDER (a temporary one by default) is emptied in the end."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        found = {"machine": timing.machine(), **measure(Path(work), features, workers)}
    click.echo(json.dumps(found, indent=1))
    if output:
        timing.keep(output, **found)


if __name__ == "__main__":
    main()
