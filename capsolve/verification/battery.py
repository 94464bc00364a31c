"""A battery of problems, of every kind that the theory treats differently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from capsolve.verification.report import Verification
from capsolve.verification.routes import verify

_RANDOM = 3  # problems of each random kind
_CELLS = ((0.9, 0.5), (0.9, 2.0), (0.3, 1.0), (0.1, 0.15), (0.1, 1.0), (0.1, 2.5), (0.01, 2.0))


def verify_battery(*, rng: Any = 0, progress: bool = False) -> list[Verification]:
    """Run `verify` on random problems of every kind, and on cells of the paper's phase diagram.

    Three problems each with all κ_i > 3, with mixed kurtosis, with all κ_i < 3 and without a bias, of 4 to 12 features
    with importances in [0.1, 10]; then cells of Fig. 4: six features in three dimensions, one of importance V and five
    of 1, inputs uniform but zero with probability 1 − p.

    Parameters
    ----------
    rng : numpy.random.Generator or seed
    progress : bool
        Show a progress bar on standard error.

    Examples
    --------
    >>> from capsolve import verify_battery
    >>> [report.title for report in verify_battery() if report.verdict.value != "agree"]  # doctest: +SKIP
    []
    """
    generator = np.random.default_rng(rng)
    problems = [*_random(generator), *_figure_4()]
    bar = tqdm(problems, disable=not progress, unit="problem")
    return [verify(v, k, D, bias=bias, rng=generator, title=title) for title, v, k, D, bias in bar]


def _random(rng: np.random.Generator) -> Iterator[tuple[str, Any, Any, int, bool]]:
    for kind in ("convex", "mixed kurtosis", "low kurtosis", "no bias"):
        for number in range(1, _RANDOM + 1):
            n = int(rng.integers(4, 13))
            v = 10.0 ** rng.uniform(-1.0, 1.0, n)
            k = 3.0 + 10.0 ** rng.uniform(-1.0, 1.7, n)
            if kind in ("mixed kurtosis", "low kurtosis"):
                low = rng.uniform(1.0, 3.0, n)
                k = low if kind == "low kurtosis" else np.where(rng.random(n) < 0.5, low, k)
            D = int(rng.integers(1, n))
            yield f"{kind} {number}: {n} features in {D} dimensions", v, k, D, kind != "no bias"


def _figure_4() -> Iterator[tuple[str, Any, Any, int, bool]]:
    for density, odd in _CELLS:
        v = np.array([odd, 1.0, 1.0, 1.0, 1.0, 1.0])
        yield f"Fig. 4: density {density:g}, importance {odd:g}", v, 1.8 / density, 3, True
