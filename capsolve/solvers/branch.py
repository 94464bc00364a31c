"""Best-first branch and bound (Falk & Soland 1969): boxes, a convex relaxation of each, and the gap between.

The module knows nothing about capacity: a caller says how a box is relaxed and how it is split.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from capsolve._checks import FloatArray

Box = TypeVar("Box")


@dataclass(frozen=True)
class Relaxation(Generic[Box]):
    """What the convex relaxation of one box says."""

    bound: float  # no point of the box has a smaller loss
    loss: float  # the loss at `capacity`
    capacity: FloatArray  # a feasible point
    split: Callable[[], Iterable[Box]]  # boxes that cover this one, for when loss > bound


@dataclass(frozen=True)
class Outcome:
    """The best point found, a proved lower bound on every point, and the number of boxes relaxed."""

    capacity: FloatArray
    loss: float
    lower_bound: float
    boxes: int


def branch_and_bound(
    relax: Callable[[Box], Relaxation[Box] | None],
    root: Box,
    *,
    tolerance: float,
    floor: float = 0.0,
    box_limit: int = 20_000,
) -> Outcome:
    """Minimise over ``root`` until loss − lower bound ≤ tolerance · (loss − floor), or ``box_limit`` is reached.

    ``relax`` returns None for a box without a feasible point. The loss may end above the tolerance only when the
    limit was hit; `Outcome.lower_bound` is valid either way. ``floor`` is a known lower bound that makes the
    tolerance relative to what can still be saved.
    """
    first = relax(root)
    if first is None:
        raise ValueError("branch_and_bound needs a feasible root box")
    best, boxes, order = first, 1, itertools.count()
    heap = [(first.bound, next(order), first)]
    closed = first.loss  # the least bound among boxes that were set aside
    while heap and boxes < box_limit:
        bound, _, node = heap[0]
        if best.loss - bound <= tolerance * (best.loss - floor):
            break
        heapq.heappop(heap)
        for box in node.split():
            child = relax(box)
            boxes += 1
            if child is None:
                continue
            if child.loss < best.loss:
                best = child
            # a child's own relaxation may round below its parent's, which bounds it too
            bound_here = max(child.bound, bound)
            if best.loss - bound_here > tolerance * (best.loss - floor):
                heapq.heappush(heap, (bound_here, next(order), child))
            else:
                closed = min(closed, bound_here)
    lower = min([best.loss, closed] + [heap[0][0]] * bool(heap))
    return Outcome(best.capacity, best.loss, lower, boxes)
