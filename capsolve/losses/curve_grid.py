"""Sampling loss curves given as functions: one common grid, as fine as the most demanding of them needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray

Curve = Callable[[FloatArray], npt.ArrayLike]

START = 64  # intervals before the first bisection: a feature narrower than that may be overlooked
BISECTIONS = 40  # of any one of them, down to a width of 2⁻⁴⁶
LARGEST_GRID = 100_000
LARGEST_TABLE = 20_000_000  # values of all functions together: 160 MB
LARGEST_LOSS = 1e300  # sums and slopes of larger numbers overflow
# Where an interval is tested, as fractions of it: the middle, which becomes a grid point if the test fails,
# and the two Gauss points, irrational so that no oscillation in step with the bisection stays hidden.
TESTS = np.array([0.5, 0.5 - np.sqrt(1 / 12), 0.5 + np.sqrt(1 / 12)])


def sample(functions: Sequence[Curve], accuracy: float) -> tuple[FloatArray, FloatArray]:
    """Return a grid (g,) on [0, 1] and the values (k, g) of ``functions`` on it.

    Every interval is bisected until at each of `TESTS` every function differs from its linear interpolant by
    at most ``accuracy`` times its range (the spread of all values seen so far).
    """
    left = np.linspace(0.0, 1.0, START + 1)
    values = np.stack([_evaluate(f, i, left) for i, f in enumerate(functions)])
    lowest, highest = values.min(axis=1), values.max(axis=1)
    done = [(np.ones(1), values[:, -1:])]
    left, right, at_left, at_right = left[:-1], left[1:], values[:, :-1], values[:, 1:]
    size, limit = START + 1, min(LARGEST_GRID, LARGEST_TABLE // len(functions))
    for _ in range(BISECTIONS + 1):
        points = left + TESTS[:, None] * (right - left)
        at_middle = np.empty_like(at_left)
        failed = np.zeros((len(functions), left.size), dtype=bool)
        for i, f in enumerate(functions):
            seen = _evaluate(f, i, points.ravel()).reshape(points.shape)
            lowest[i] = min(lowest[i], seen.min())
            highest[i] = max(highest[i], seen.max())
            error = np.abs(seen - at_left[i] - TESTS[:, None] * (at_right[i] - at_left[i])).max(axis=0)
            noise = 8 * np.finfo(float).eps * max(abs(lowest[i]), abs(highest[i]))
            failed[i] = error > accuracy * (highest[i] - lowest[i]) + noise
            at_middle[i] = seen[0]
        bad = failed.any(axis=0)
        done.append((left, at_left))
        if not bad.any():
            grid = np.concatenate([g for g, _ in done])
            order = np.argsort(grid)
            return grid[order], np.concatenate([v for _, v in done], axis=1)[:, order]
        size += int(np.count_nonzero(bad))
        if size > limit:
            raise ValueError(
                f"functions[{_first(failed)}] needs more than {limit} grid points for accuracy={accuracy:g}: "
                "it is too rough or noisy; ask for a lower accuracy"
            )
        i, where = _first(failed), float(left[np.argmax(failed[_first(failed)])])
        middle = points[0][bad]
        # the left halves keep their left ends, which are on the grid already
        done[-1] = (left[~bad], at_left[:, ~bad])
        left, at_left, right, at_right = (
            np.concatenate([left[bad], middle]),
            np.concatenate([at_left[:, bad], at_middle[:, bad]], axis=1),
            np.concatenate([middle, right[bad]]),
            np.concatenate([at_middle[:, bad], at_right[:, bad]], axis=1),
        )
    raise ValueError(
        f"functions[{i}] could not be sampled to accuracy={accuracy:g} near C = {where:.6g}: it jumps there "
        "or is too steep; ask for a lower accuracy, or give its values on a grid of your own"
    )


def _evaluate(function: Curve, index: int, points: FloatArray) -> FloatArray:
    values = np.asarray(function(points.copy()))
    if values.shape != points.shape or values.dtype.kind not in "biuf":
        raise ValueError(
            f"functions[{index}] must return one real number per capacity: it was given an array of shape "
            f"{points.shape} and returned shape {values.shape}, dtype {values.dtype}"
        )
    values = values.astype(np.float64)
    usable = np.abs(values) <= LARGEST_LOSS  # false for NaN
    if not usable.all():
        k = int(np.argmin(usable))
        raise ValueError(
            f"functions[{index}] must be finite on [0, 1] and at most {LARGEST_LOSS:g} in size, "
            f"got {values[k]} at C = {points[k]:.17g}"
        )
    return values


def _first(failed: npt.NDArray[np.bool_]) -> int:
    return int(np.argmax(failed.any(axis=1)))
