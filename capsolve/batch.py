"""Many allocation problems at once: `solve_batch` and its answer."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray, at_least, flag, real_array, scalar
from capsolve.allocation import BUDGET_TOLERANCE, FINEST_TOLERANCE, KKT_TOLERANCE, Allocation, Status, allocate
from capsolve.losses.quadratic import GIANT, QuadraticLoss
from capsolve.solvers.batch import Solutions, solve_columns, trace_of
from capsolve.solvers.columns import Curves, total

# Numbers in one table of the search: it works on a dozen of these at a time, which should stay in the cache.
BLOCK = 1 << 15


@dataclass(frozen=True, eq=False, repr=False)
class AllocationBatch:
    """Allocations of many problems of n features each, with their certificates.

    ``batch[index]`` is the `Allocation` of one problem: an integer for a batch with one axis, a tuple of integers for
    more. All arrays are read-only.

    Attributes
    ----------
    importance, kurtosis : (..., n) arrays
        The data, broadcast.
    dimensions : (...) array
        The budgets, broadcast.
    capacity : (..., n) array
        C_i in [0, 1], in dimensions.
    price, scale, loss, lower_bound, gap, kkt_error, budget_error : (...) arrays
        As in `Allocation`.
    boxes : (...) array of integers
        Number of convex relaxations solved.
    bias : bool
    tolerance : float
        The relative gap that was asked for.
    """

    importance: FloatArray
    kurtosis: FloatArray
    dimensions: FloatArray
    capacity: FloatArray
    price: FloatArray
    scale: FloatArray
    loss: FloatArray
    lower_bound: FloatArray
    gap: FloatArray
    kkt_error: FloatArray
    budget_error: FloatArray
    boxes: npt.NDArray[np.intp]
    bias: bool = field(default=True)
    tolerance: float = field(default=1e-9)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the batch, without the axis of features."""
        return self.dimensions.shape

    @property
    def size(self) -> int:
        """The number of problems."""
        return self.dimensions.size

    @property
    def features(self) -> int:
        """The number of features of each problem, n."""
        return int(self.capacity.shape[-1])

    @functools.cached_property
    def phase(self) -> npt.NDArray[np.int8]:
        """The `Phase` of every feature as small integers, shape (..., n): ignored C = 0, monosemantic C = 1."""
        phase: npt.NDArray[np.int8] = np.add(self.capacity > 0.0, self.capacity == 1.0, dtype=np.int8)
        return phase

    @functools.cached_property
    def status(self) -> npt.NDArray[np.object_]:
        """The `Status` of every problem, shape (...), judged as `Allocation.status` judges one."""
        slack = BUDGET_TOLERANCE * np.maximum(1.0, self.dimensions)
        on_budget = self.budget_error <= slack
        convex = (self.kurtosis >= 3.0).all(axis=-1)
        optimal = on_budget & (self.gap <= self.tolerance) & ((self.kkt_error <= KKT_TOLERANCE) | ~convex)
        infeasible = ~on_budget & (self.capacity.sum(axis=-1) > self.dimensions + slack)
        names = np.array([Status.FEASIBLE, Status.OPTIMAL, Status.INFEASIBLE], dtype=object)
        return np.asarray(names[np.where(infeasible, 2, optimal.astype(int))], dtype=object)

    @property
    def optimal(self) -> npt.NDArray[np.bool_]:
        """Which problems are certified to be optimal, shape (...)."""
        return np.asarray(self.status == Status.OPTIMAL)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a batch without axes is a single problem and has no length")
        return self.shape[0]

    def __getitem__(self, index: Any) -> Allocation:
        """Return the `Allocation` of the problem at ``index``: one integer per axis of the batch."""
        where = tuple(operator.index(k) for k in (index if isinstance(index, tuple) else (index,)))
        if len(where) != len(self.shape):
            raise IndexError(
                f"an index into a batch of shape {self.shape} has {len(self.shape)} integers, got {index!r}"
            )
        capacity = self.capacity[where].copy()
        capacity.setflags(write=False)
        names = ("dimensions", "price", "scale", "loss", "lower_bound", "gap", "kkt_error", "budget_error")
        numbers: dict[str, Any] = {name: float(getattr(self, name)[where]) for name in names}
        return Allocation(
            model=QuadraticLoss(self.importance[where], self.kurtosis[where], self.bias),
            capacity=capacity,
            tolerance=self.tolerance,
            boxes=int(self.boxes[where]),
            **numbers,
        )

    def __repr__(self) -> str:
        certified = int(np.count_nonzero(self.optimal))
        return f"AllocationBatch({self.shape} problems of {self.features} features, {certified} of {self.size} optimal)"


def solve_batch(
    importance: Any, kurtosis: Any, dimensions: Any, *, bias: bool = True, tolerance: float = 1e-9
) -> AllocationBatch:
    """Solve `capsolve.solve` for many problems with equally many features.

    Each problem is solved exactly, with the certificate of `solve` and its choice among ties. Where the budget ends
    inside a feature with κ < 3, all local optima are compared instead of branching and bounding; only with more than
    64 features such problems are solved one by one.

    Parameters
    ----------
    importance : (..., n) array, v_i ≥ 0
        The last axis is that of the features, as in the other arguments with features; leading axes are those of
        the problems and broadcast.
    kurtosis : (..., n) array or scalar, κ_i ≥ 1
        One number per problem has shape (..., 1).
    dimensions : (...) array or scalar, D ≥ 0
        The budget of each problem.
    bias, tolerance
        As in `solve`.

    Raises
    ------
    ValueError
        For bad arguments or shapes that do not broadcast, naming the argument, the value and its index.

    Examples
    --------
    One feature of growing importance among five others, in three dimensions:

    >>> import numpy as np
    >>> import capsolve
    >>> importance = np.ones((3, 6))
    >>> importance[:, 0] = [0.2, 1.0, 2.0]
    >>> batch = capsolve.solve_batch(importance, 9.0, 3)
    >>> batch
    AllocationBatch((3,) problems of 6 features, 3 of 3 optimal)
    >>> batch.capacity[:, 0].round(3)
    array([0. , 0.5, 1. ])
    >>> batch[2]
    Allocation(OPTIMAL, 6 features in 3 dimensions: 1 monosemantic, 5 polysemantic, 0 ignored; loss=..., gap=...)

    References
    ----------
    arXiv 2210.01892, eqs. 13–18.
    """
    v = np.array(real_array("importance", importance))
    if v.ndim == 0 or v.shape[-1] == 0:
        raise ValueError(f"importance must have a last axis with at least one feature, got shape {v.shape}")
    at_least("importance", v, 0.0)
    k = np.array(real_array("kurtosis", kurtosis))
    at_least("kurtosis", k, 1.0)
    budget = np.array(real_array("dimensions", dimensions))
    at_least("dimensions", budget, 0.0)
    bias = flag("bias", bias)
    tolerance = scalar("tolerance", tolerance, low=FINEST_TOLERANCE, high=1.0)
    if not bias and (k < 3.0).any():
        where = np.unravel_index(int(np.argmax(k < 3.0)), k.shape)
        at = f" at index {tuple(map(int, where))}" if where else ""
        raise ValueError(f"kurtosis must be >= 3 for every feature when bias=False, got {k[where]:g}{at}")
    n = v.shape[-1]
    if k.ndim and k.shape[-1] not in {1, n}:
        raise ValueError(f"kurtosis must have {n} features, or 1 that stands for all, got shape {k.shape}")
    try:
        shape = np.broadcast_shapes(v.shape[:-1], k.shape[:-1], budget.shape)
    except ValueError:
        raise ValueError(
            "importance, kurtosis and dimensions must broadcast: "
            f"their leading shapes are {v.shape[:-1]}, {k.shape[:-1]} and {budget.shape}"
        ) from None
    _refuse_overflow(v, k)
    v, k = np.broadcast_to(v, (*shape, n)), np.broadcast_to(k, (*shape, n))
    budget = np.broadcast_to(budget, shape)
    batch = _solve(v.reshape(-1, n), k.reshape(-1, n), budget.reshape(-1), bias, tolerance)
    arrays = {name: array.reshape(shape + array.shape[1:]) for name, array in batch.items()}
    for array in (v, k, budget, *arrays.values()):
        array.setflags(write=False)
    return AllocationBatch(v, k, budget, bias=bias, tolerance=tolerance, **arrays)


def _refuse_overflow(v: FloatArray, k: FloatArray) -> None:
    """Raise a `ValueError` where `QuadraticLoss` would."""
    with np.errstate(over="ignore"):
        if v.max(initial=0.0) * k.max(initial=1.0) * v.shape[-1] < np.finfo(float).max:
            return
        largest = v * k
        finite = np.isfinite(largest.sum(axis=-1))
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"importance × kurtosis must sum to less than {np.finfo(float).max:.3g} in each problem, got more at index "
            f"{where}; divide all importances by a common factor"
        )


def _solve(v: FloatArray, k: FloatArray, budget: FloatArray, bias: bool, tolerance: float) -> dict[str, Any]:
    """Solve problems along the first axis, block by block, and certify them."""
    m, n = v.shape
    names = ("price", "scale", "loss", "lower_bound", "gap", "kkt_error", "budget_error")
    answer: dict[str, Any] = {name: np.empty(m) for name in names}
    answer |= {"capacity": np.empty((m, n)), "boxes": np.ones(m, dtype=np.intp)}
    step = max(1, BLOCK // n)
    for block in (slice(i, i + step) for i in range(0, m, step)):
        some_v, some_k = np.ascontiguousarray(v[block].T), np.ascontiguousarray(k[block].T)
        solutions = solve_columns(some_v, some_k, budget[block], bias)
        for name, values in _certify(some_v, some_k, budget[block], bias, solutions).items():
            answer[name][block] = values
        answer["capacity"][block] = solutions.capacity.T
        for i in block.start + np.flatnonzero(solutions.unfinished):
            one = allocate(QuadraticLoss(v[i], k[i], bias), budget[i], tolerance=tolerance)
            for name, values in answer.items():
                values[i] = getattr(one, name)
    return answer


def _certify(
    v: FloatArray, k: FloatArray, budget: FloatArray, bias: bool, solutions: Solutions
) -> dict[str, FloatArray]:
    """Judge the capacities of each column by the loss alone, as `capsolve.certify` does for one problem."""
    c, k1 = solutions.capacity, k - 1.0
    empty = 1.0 - c
    ratio = k1 / _denominator(k, c)
    root = np.sqrt(ratio * empty)
    wanted = np.count_nonzero(v, axis=0)
    # Squares stay in range when importances are divided by a power of two: exactly, and only where they must be.
    largest = np.max(v * root, axis=0)
    extreme = (largest > 0.0) & ~((largest > 1e-100) & (largest < 1e100))
    exponent = np.where(extreme, np.minimum(np.frexp(largest)[1], 1023), 0)
    if extreme.any():
        with np.errstate(over="ignore", under="ignore"):
            v = np.ldexp(v, -exponent)
    v = np.minimum(v, GIANT / k)
    trace = np.zeros_like(budget) if bias else trace_of(v, k, c)
    effective = v if bias else v + trace / k1
    loss = total((v * root) * (effective * root))

    with np.errstate(over="ignore"):
        # at C = 1 the ratio is 2 exactly, also for κ = 1 where it is 0/0
        marginal = 0.5 * np.square(effective * np.where(empty == 0.0, 2.0, ratio))
    value = np.where(empty == 0.0, 0.0, marginal)
    price = np.max(value, axis=0)
    last = np.min(np.where(c > 0.0, marginal, np.inf), axis=0)
    priced = np.where(price > 0.0, price, 1.0)
    kkt_error = np.where(price > 0.0, np.maximum(0.0, price - last) / priced, 0.0)

    # The Lagrangian at the best average saving that more capacity could bring: the price, where losses are convex.
    concave = k < 3.0
    if concave.any():
        value = np.where(concave, np.where(empty == 0.0, 0.0, np.square(v * np.sqrt(ratio))), value)
    multiplier = np.max(value, axis=0)
    used = np.minimum(budget, wanted)
    cost = multiplier * used
    size = loss + cost
    with np.errstate(divide="ignore"):
        answer = np.where(multiplier > 0.0, Curves.of(effective, k).at(np.sqrt(0.5 * multiplier)), v > 0.0)
    denominator = _denominator(k, answer)
    left = (1.0 - answer) / denominator
    paid = total(np.square(v) * (k1 * left)) + multiplier * total(answer)
    if not bias:
        # The loss is the largest over all traces: whatever the trace is, the bound holds.
        paid += trace * (2.0 * total(v * left) - trace * (1.0 + total(0.5 * answer / denominator)))
    rounding = (8.0 + np.log2(len(v))) * np.finfo(float).eps
    bound = paid - cost - rounding * (paid + cost)
    bound = np.where(solutions.proved, np.maximum(bound, loss - rounding * size), bound)

    used_now = total(c)
    unit = np.ldexp(1.0, exponent)
    with np.errstate(over="ignore", under="ignore"):
        return {
            "price": price * unit * unit,
            "scale": np.sqrt(0.5 * price) * unit,
            "loss": loss * unit * unit,
            "lower_bound": np.minimum(bound, loss) * unit * unit,
            "gap": np.where(size > 0.0, np.maximum(0.0, loss - bound) / np.where(size > 0.0, size, 1.0), 0.0),
            "kkt_error": kkt_error,
            "budget_error": np.where(price > 0.0, np.abs(used_now - used), np.maximum(0.0, used_now - budget)),
        }


def _denominator(k: FloatArray, c: FloatArray) -> FloatArray:
    """Return 1 + γC, set to 1 for κ = 1 and C = 1, where numerators vanish with it."""
    denominator: FloatArray = 1.0 + 0.5 * (k - 3.0) * c
    denominator[denominator == 0.0] = 1.0
    return denominator
