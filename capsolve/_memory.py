"""How much memory there is, for what would be killed after minutes if it asked for more."""

from __future__ import annotations

import math
from pathlib import Path

_GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def free_memory() -> float:
    """Return how many bytes can still be had, as far as Linux says; elsewhere infinity."""
    found = math.inf
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found = 1024.0 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    for path in _GROUP_LIMITS:
        try:
            found = min(found, float(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return found


def require_memory(what: str, needed: float) -> None:
    """Raise a `ValueError` if what takes so many bytes cannot be had."""
    free = free_memory()
    if needed > free:
        raise ValueError(f"{what} would take {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")
