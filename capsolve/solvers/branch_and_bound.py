"""Best-first branch and bound (Falk & Soland 1969): nodes, a convex relaxation of each, and the gap between.

The module knows nothing about capacity: a caller says how a node is relaxed and how it is split.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from capsolve._checks import FloatArray

Node = TypeVar("Node")


@dataclass(frozen=True)
class Relaxation(Generic[Node]):
    """What the convex relaxation of one node says."""

    bound: float  # no point of the node has a smaller loss
    loss: float  # the loss at `capacity`
    capacity: FloatArray  # a feasible point
    split: Callable[[], Iterable[Node | None]]  # parts that cover this node, for when loss > bound; None: an empty part


@dataclass(frozen=True)
class Outcome:
    """The best point found, a proved lower bound on every point, and the number of nodes relaxed."""

    capacity: FloatArray
    loss: float
    lower_bound: float
    nodes: int


def branch_and_bound(
    relax: Callable[[Node], Relaxation[Node] | None],
    root: Node,
    *,
    tolerance: float,
    floor: float = 0.0,
    node_limit: int = 20_000,
) -> Outcome:
    """Minimise over ``root`` until loss − lower bound ≤ tolerance · (loss − floor), or ``node_limit``.

    ``relax`` returns None for a node without a feasible point. The gap may end above the tolerance only when
    the limit was hit (the split under way is finished) or when a node had a gap but could not be split, being
    as small as rounding allows; `Outcome.lower_bound` is valid either way. ``floor`` is a known lower bound
    that makes the tolerance relative to what can still be saved.

    Raises
    ------
    ValueError
        When the root node has no feasible point.

    Examples
    --------
    The least value of x · (1 − x) + x / 10 on [0, 1], whose convex envelope is the chord; split where it is
    least or in the middle:

    >>> import numpy as np
    >>> def relax(node):
    ...     a, b = node
    ...     f = lambda x: x * (1 - x) + x / 10
    ...     x = a if f(a) <= f(b) else b
    ...     return Relaxation(f(x), f(x), np.array([x]), lambda: [(a, (a + b) / 2), ((a + b) / 2, b)])
    >>> branch_and_bound(relax, (0.0, 1.0), tolerance=1e-9)
    Outcome(capacity=array([0.]), loss=0.0, lower_bound=0.0, nodes=1)
    """
    best = relax(root)
    if best is None:
        raise ValueError("branch_and_bound needs a feasible root node")
    nodes, order, unsplit = 1, itertools.count(), math.inf  # unsplit: the least bound of nodes without a cover
    # Of a node only the bound and the way to split it are kept: the point is of no use unless it is the best.
    heap = [(max(best.bound, floor), next(order), best.split)]
    while heap and nodes < node_limit:
        bound, _, split = heap[0]
        if best.loss - bound <= tolerance * (best.loss - floor):
            break
        heapq.heappop(heap)
        halves = list(split())
        if len(halves) < 2:  # nothing less than two parts covers a node: its own bound stands
            unsplit = min(unsplit, bound)
        parts = [part for part in halves if part is not None]
        nodes += len(parts)
        for half in filter(None, map(relax, parts)):
            if half.loss < best.loss:
                best = half
            # the bound of a node holds for its parts, whose own may round below it
            inherited = max(half.bound, bound)
            if inherited < best.loss:
                heapq.heappush(heap, (inherited, next(order), half.split))
    lower_bound = min(best.loss, unsplit, heap[0][0] if heap else math.inf)
    return Outcome(best.capacity, best.loss, lower_bound, nodes)
