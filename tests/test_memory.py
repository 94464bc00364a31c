"""What there is not enough memory for is refused before it is begun."""

import math
from pathlib import Path

import pytest

from capsolve import _memory
from capsolve._memory import free_memory, require_memory


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux says how much memory is free")
def test_the_system_says_how_much_is_free():
    assert 2**24 < free_memory() < 2**60


@pytest.mark.parametrize(
    ("meminfo", "limit", "expected"),
    [
        ("MemTotal: 9 kB\nMemAvailable:       1000 kB\n", "max\n", 1_024_000.0),
        ("MemAvailable: 1000 kB\n", "5000\n", 5000.0),
        (None, "5000\n", 5000.0),
        ("nothing of this", None, math.inf),
    ],
)
def test_memory_is_what_the_machine_and_the_container_allow(monkeypatch, meminfo, limit, expected):
    def read(path, **options):
        text = {"/proc/meminfo": meminfo, _memory._GROUP_LIMITS[0]: limit}.get(str(path))
        if text is None:
            raise FileNotFoundError
        return text

    monkeypatch.setattr(Path, "read_text", read)
    assert free_memory() == expected


def test_what_would_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(_memory, "free_memory", lambda: 2e9)
    require_memory("this", 2e9)
    with pytest.raises(ValueError, match=r"^this would take 2\.5 GB of memory, and 2\.0 GB are free$"):
        require_memory("this", 2.5e9)
