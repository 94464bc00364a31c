"""Many allocation problems at once: `solve_batch` and its answer."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray, ReadOnlyArrays, at_least, flag, read_only, real_array, scalar, valid_kurtosis
from capsolve.allocation import Allocation, phases
from capsolve.certificate import FINEST_TOLERANCE, STATUSES, Certificate, Status, certify_terms, status_of
from capsolve.losses.quadratic import QuadraticLoss
from capsolve.profile import problem_of
from capsolve.solvers.quadratic import solve_columns, usable_budget

# Numbers in one table of the search: it works on a dozen of these at a time, which should stay in the cache.
BLOCK = 1 << 15


@dataclass(frozen=True, eq=False, repr=False)
class AllocationBatch(ReadOnlyArrays):
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
    bias : bool
    tolerance : float
        The relative gap that was asked for.
    names : tuple of str or None
        What the features are called.
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
    bias: bool = field(default=True)
    tolerance: float = field(default=1e-9)
    names: tuple[str, ...] | None = field(default=None)

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
        phase: npt.NDArray[np.int8] = phases(self.capacity)
        return phase

    @functools.cached_property
    def status(self) -> npt.NDArray[np.object_]:
        """The `Status` of every problem, shape (...), judged as `Allocation.status` judges one."""
        convex = (self.kurtosis >= 3.0).all(axis=-1)
        index = status_of(self, self.capacity.sum(axis=-1), self.dimensions, self.tolerance, convex)
        names = np.array(STATUSES, dtype=object)
        return np.asarray(names[np.asarray(index, dtype=np.intp)], dtype=object)

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
        read_only(capacity)
        names = ("dimensions", "price", "scale", "loss", "lower_bound", "gap", "kkt_error", "budget_error")
        numbers: dict[str, Any] = {name: float(getattr(self, name)[where]) for name in names}
        return Allocation(
            model=QuadraticLoss(self.importance[where], self.kurtosis[where], self.bias),
            capacity=capacity,
            tolerance=self.tolerance,
            names=self.names,
            **numbers,
        )

    def __repr__(self) -> str:
        certified = int(np.count_nonzero(self.optimal))
        return f"AllocationBatch({self.shape} problems of {self.features} features, {certified} of {self.size} optimal)"


def solve_batch(
    importance: Any, kurtosis: Any = None, dimensions: Any = None, *, bias: bool = True, tolerance: float = 1e-9
) -> AllocationBatch:
    """Solve `capsolve.solve` for many problems with equally many features.

    Each problem is solved exactly, with the certificate of `solve` and its choice among ties.

    Parameters
    ----------
    importance : (..., n) array, v_i ≥ 0
        The last axis is that of the features, as in the other arguments with features; leading axes are those of
        the problems and broadcast. Or a `Profile`, which every problem shares: ``solve_batch(profile, dimensions=…)``.
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
    importance, kurtosis, names = problem_of(importance, kurtosis, dimensions)
    v = np.array(real_array("importance", importance))
    if v.ndim == 0 or v.shape[-1] == 0:
        raise ValueError(f"importance must have a last axis with at least one feature, got shape {v.shape}")
    at_least("importance", v, 0.0)
    k = np.array(real_array("kurtosis", kurtosis))
    valid_kurtosis(k)
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
    _raise_on_overflow(v, k)
    v, k = np.broadcast_to(v, (*shape, n)), np.broadcast_to(k, (*shape, n))
    budget = np.broadcast_to(budget, shape)
    batch = _solve(v.reshape(-1, n), k.reshape(-1, n), budget.reshape(-1), bias)
    arrays = {name: array.reshape(shape + array.shape[1:]) for name, array in batch.items()}
    read_only(v, k, budget, *arrays.values())
    return AllocationBatch(v, k, budget, bias=bias, tolerance=tolerance, names=names, **arrays)


def _raise_on_overflow(v: FloatArray, k: FloatArray) -> None:
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


def _solve(v: FloatArray, k: FloatArray, budget: FloatArray, bias: bool) -> dict[str, Any]:
    """Solve problems along the first axis, block by block, and certify them."""
    m, n = v.shape
    answer: dict[str, Any] = {name: np.empty(m) for name in Certificate._fields}
    answer["capacity"] = np.empty((m, n))
    step = max(1, BLOCK // n)
    for block in (slice(i, i + step) for i in range(0, m, step)):
        some_v, some_k = np.ascontiguousarray(v[block].T), np.ascontiguousarray(k[block].T)
        found = solve_columns(some_v, some_k, budget[block], bias)
        with np.errstate(over="ignore", under="ignore"):
            certificate = certify_terms(
                found.terms,
                features=n,
                dimensions=budget[block],
                budget=usable_budget(budget[block], found.multiplier, found.terms.used),
                multiplier=2.0 * np.square(found.multiplier),
                unit=found.unit,
                proved=found.proved,
            )
        for name, values in certificate._asdict().items():
            answer[name][block] = values
        answer["capacity"][block] = found.capacity.T
    return answer
