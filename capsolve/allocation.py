"""The optimal allocation: its capacities, its price, and its certificate."""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import array_api_compat as api
import numpy as np

from capsolve._checks import FloatArray, ReadOnlyArrays, capacity_vector, former_property, read_only, renamed, scalar
from capsolve.certificate import (
    BUDGET_TOLERANCE,
    FINEST_TOLERANCE,
    KKT_TOLERANCE,
    STATUSES,
    Solution,
    Status,
    certify_terms,
    lagrangian_excess,
    model_terms,
    status_of,
)
from capsolve.losses.model import LossModel, is_loss_model
from capsolve.losses.quadratic import QuadraticLoss
from capsolve.losses.tabulated import TabulatedLoss
from capsolve.profile import Profile, is_profile, problem_of
from capsolve.solvers.quadratic import solve_quadratic, solve_source, usable_budget
from capsolve.solvers.routes import COMPILED_FEATURES, Route, compiled_route
from capsolve.solvers.separable import solve_separable
from capsolve.solvers.sources import ArrayAPISource
from capsolve.solvers.tabulated import solve_tabulated

if TYPE_CHECKING:
    from capsolve.sensitivity import Sensitivity


class Phase(enum.IntEnum):
    """How a feature is represented."""

    IGNORED = 0
    POLYSEMANTIC = 1
    MONOSEMANTIC = 2


class Tally(NamedTuple):
    """Σ C_i, and how many features have C = 0 and C = 1."""

    used: float
    empty: int
    full: int


@dataclass(frozen=True, eq=False, repr=False)
class Allocation(ReadOnlyArrays):
    """An allocation of capacity with its certificate.

    Where the data were arrays of another library than NumPy, so are the capacities, phases and squared norms. The
    certificate is that of the capacities before they were rounded to the precision of those arrays. What is
    about every feature otherwise (`to_dict`, `sensitivity`, `embedding`) is computed in memory, from `to_numpy`.

    Attributes
    ----------
    model : QuadraticLoss, TabulatedLoss or another `LossModel`
        The loss that was minimised.
    dimensions : float
        The budget D.
    capacity : (n,) array
        C_i in [0, 1], in dimensions.
    price : float
        λ = −dL/dD, the loss that the next bit of budget would save (0 when the budget has slack). Where the loss has
        a kink in D this is the derivative to the right; where there are several optima, that of these capacities.
    scale : float
        τ = √(price / 2); for the quadratic loss |w_i|²/C_i of every polysemantic feature.
    loss, lower_bound : float
        The loss of these capacities, and a value that no allocation of the budget can beat. Infinite or 0 where the
        true number over- or underflows; the certificate is computed in scaled units and does not suffer.
    gap : float
        (loss − lower_bound) / (loss − floor + λ · min(dimensions, saturation_budget)): relative to the size of the
        terms of the Lagrangian, and so independent of the units of the loss. Always a sum over *all* features of how
        far each is from what it would choose at a price λ near the optimal one. Where the loss is not convex the bound
        may be a theorem on top of that sum: the problem's own duality gap, proved by comparing all local optima
        (quadratic loss) or by branch and bound (tabulated loss), is subtracted from it; so is what the last bits of
        the budget are worth at the optimum.
    kkt_error : float
        The largest relative violation of equal marginal loss: how far the marginal value of a represented feature
        falls below that of another feature that is not full, relative to the price.
    budget_error : float
        |Σ C_i − min(dimensions, saturation_budget)| when the price is positive, the excess over the budget when it is
        0.
    tolerance : float
        The relative gap that was asked for.
    nodes : int
        Number of convex relaxations solved; 1 for a convex problem.
    tally : Tally, optional
        What was counted when the capacities were computed.
    names : tuple of str, optional
        What the features are called, one name each.
    """

    model: LossModel
    dimensions: float
    capacity: Any
    price: float
    scale: float
    loss: float
    lower_bound: float
    gap: float
    kkt_error: float
    budget_error: float
    tolerance: float
    nodes: int = field(default=1)
    tally: Tally | None = field(default=None)
    names: tuple[str, ...] | None = field(default=None)

    boxes = former_property("boxes", "nodes")

    @functools.cached_property
    def status(self) -> Status:
        """`Status.OPTIMAL` only when the budget holds and the gap to the lower bound is within the tolerance.

        Convex losses must have equal marginal losses as well: that is a much sharper test there. Where the loss is not
        convex an answer may be within the tolerance without being stationary.
        """
        # asked only where it matters: of a model elsewhere it takes a pass over the data
        convex = not self.kkt_error <= KKT_TOLERANCE and self.model.convex
        return STATUSES[int(status_of(self, self._tally.used, self.dimensions, self.tolerance, convex))]

    @functools.cached_property
    def phase(self) -> Any:
        """The `Phase` of every feature as small integers, shape (n,): ignored C = 0, monosemantic C = 1."""
        return phases(self.capacity)

    @functools.cached_property
    def squared_norm(self) -> Any:
        """m_i = |w_i|² of the embedding that realises this allocation, shape (n,); quadratic loss only."""
        squared_norm = self._quadratic("squared_norm").squared_norm(self.capacity)
        read_only(squared_norm)
        return squared_norm

    def to_numpy(self) -> Allocation:
        """Return the allocation with NumPy arrays in float64, solved again in memory: itself where it has them.

        For capacities of lower precision that is more than a copy: these meet the budget to rounding error.
        """
        if isinstance(self.capacity, np.ndarray):
            return self
        model = self._quadratic("to_numpy").to_numpy()
        return named(allocate(model, self.dimensions, tolerance=self.tolerance), self.names)

    def sensitivity(self) -> Sensitivity:
        """Return the derivatives of capacity, price and loss in importance, kurtosis and dimensions.

        Quadratic loss only. At a kink they are those of a growing budget; see `capsolve.sensitivity`.

        Examples
        --------
        >>> import capsolve
        >>> change = capsolve.solve([1.0, 1.0, 1.0], 9.0, dimensions=2).sensitivity()
        >>> change.capacity_dimensions  # three equal features share the next bit equally
        array([0.333..., 0.333..., 0.333...])
        """
        from capsolve.sensitivity import sensitivity  # noqa: PLC0415

        given = self.to_numpy()
        return sensitivity(given._quadratic("sensitivity"), given.capacity, given.scale)

    def embedding(self, rng: Any = None, rotate: bool = False) -> FloatArray:
        """Return an embedding, shape (n, D), with these capacities and this loss, exactly; quadratic loss only.

        The polysemantic features form one tight frame of scale τ, each monosemantic feature has an axis of its own
        with |w_i|² = v_i, ignored features are zero rows. One of many: any rotation of the D-space, and many other
        arrangements of the frame, do as well. See `capsolve.construct_embedding`.

        Parameters
        ----------
        rng : numpy.random.Generator or seed
            Source of randomness for ``rotate``.
        rotate : bool
            Rotate the embedding by a random orthogonal matrix, so that the axes mean nothing.

        Raises
        ------
        ValueError
            When ``dimensions`` is not an integer: no embedding has a fraction of a dimension.

        Examples
        --------
        >>> import capsolve
        >>> allocation = capsolve.solve([2, 1, 1, 1, 1, 1], kurtosis=9.0, dimensions=3)
        >>> capsolve.capacities(allocation.embedding()).round(12)
        array([1. , 0.4, 0.4, 0.4, 0.4, 0.4])

        References
        ----------
        arXiv 2210.01892, section 4; that the optimum over capacities is reached is Schur–Horn.
        """
        from capsolve.geometry.construct import construct_embedding  # noqa: PLC0415

        if not self.dimensions.is_integer():
            raise ValueError(f"an embedding needs an integer number of dimensions, got {self.dimensions!r}")
        given = self.to_numpy()
        squared_norm = given._quadratic("embedding").squared_norm(given.capacity)
        return construct_embedding(
            given.capacity, squared_norm, dimensions=int(self.dimensions), rng=rng, rotate=rotate
        )

    def counts(self) -> dict[str, int]:
        """Return the number of features in each phase."""
        _, empty, full = self._tally
        return {"ignored": empty, "polysemantic": self.model.features - empty - full, "monosemantic": full}

    def summary(self) -> str:
        """Return a table for people: phases, capacity, price, loss and certificate."""
        n, counts = self.model.features, self.counts()
        used, _, full = self._tally
        taken = {Phase.MONOSEMANTIC: float(full), Phase.POLYSEMANTIC: max(0.0, used - full), Phase.IGNORED: 0.0}
        lines = [f"{n} features in {self.dimensions:g} dimensions: {self.status.value}", ""]
        lines.append(f"{'phase':<14}{'features':>10}{'capacity':>12}{'share':>9}")
        for phase in reversed(Phase):
            share = taken[phase] / used if used else 0.0
            lines.append(f"{phase.name.lower():<14}{counts[phase.name.lower()]:>10}{taken[phase]:>12.6g}{share:>9.1%}")
        lines += [
            "",
            f"loss           {self.loss:.12g}",
            f"lower bound    {self.lower_bound:.12g}   (relative gap {self.gap:.1e}, {self.nodes} relaxation(s))",
            f"price          {self.price:.12g}   (loss saved by one more dimension, at the margin)",
            f"budget error   {self.budget_error:.1e}",
            f"KKT error      {self.kkt_error:.1e}",
        ]
        return "\n".join(lines)

    def to_dict(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the allocation as columns of equal length, ready for a CSV or Parquet file or a data frame.

        Columns: name (`names`, or those of the allocation), importance and kurtosis (quadratic loss), capacity, phase,
        squared_norm (quadratic loss), loss; `dimensions`, `price`, `lower_bound` and `bias` are repeated in every row,
        so that the file can be read back on its own.
        """
        if not isinstance(self.capacity, np.ndarray):
            return self.to_numpy().to_dict(names)
        n = self.model.features
        names = self.names if names is None else names
        if names is not None and len(names) != n:
            raise ValueError(f"names must have one entry per feature: {n} features, got {len(names)} names")
        columns: dict[str, Any] = {} if names is None else {"name": [str(name) for name in names]}
        quadratic = self.model if isinstance(self.model, QuadraticLoss) else None
        if quadratic:
            columns |= {"importance": quadratic.importance, "kurtosis": quadratic.kurtosis}
        columns["capacity"] = self.capacity
        columns["phase"] = [Phase(p).name.lower() for p in self.phase.tolist()]
        if quadratic:
            columns["squared_norm"] = self.squared_norm
        columns["loss"] = self.model.feature_loss(self.capacity)
        for name in ("dimensions", "price", "lower_bound"):
            columns[name] = np.full(n, getattr(self, name))
        if quadratic:
            columns["bias"] = [quadratic.bias] * n
        return columns

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in reversed(self.counts().items()))
        problem = f"{self.model.features} features in {self.dimensions:g} dimensions"
        return (
            f"Allocation({self.status.name}, {problem}: {counts}; "
            f"loss={self.loss:.6g}, price={self.price:.6g}, gap={self.gap:.1e})"
        )

    @functools.cached_property
    def _tally(self) -> Tally:
        if self.tally is not None:
            return self.tally
        c = self.capacity
        return Tally(float(c.sum()), int(np.count_nonzero(c == 0.0)), int(np.count_nonzero(c == 1.0)))

    def _quadratic(self, what: str) -> QuadraticLoss:
        if not isinstance(self.model, QuadraticLoss):
            raise TypeError(f"{what} is defined for QuadraticLoss, not for {type(self.model).__name__}")
        return self.model


def solve(
    importance: Any, kurtosis: Any = None, dimensions: Any = None, *, bias: bool = True, tolerance: float = 1e-9
) -> Allocation:
    """Find the optimal allocation of capacity in the quadratic model.

    Minimises L(C) = Σ v_i² (κ_i−1)(1−C_i) / (1 + γ_i C_i), γ_i = (κ_i−3)/2, subject to Σ C_i ≤ D and 0 ≤ C_i ≤ 1,
    globally: shorthand for ``allocate(QuadraticLoss(importance, kurtosis, bias), dimensions)``.

    Parameters
    ----------
    importance : (n,) array, v_i ≥ 0, or Profile
        Coefficients of the target y = Σ v_i x_i² for inputs of unit variance. NumPy or anything like it; or an array of
        PyTorch, JAX, CuPy, Dask or another library with the array API, which stays where it is, in the precision
        that it has, and so does the answer. It is gone through in blocks, Dask arrays chunk by chunk. A profile stands
        for importance and kurtosis, as in ``solve(profile, dimensions=16)``, and its names are those of the answer.
    kurtosis : (n,) array or scalar, κ_i ≥ 1
        Pearson kurtosis of the inputs (Gaussian = 3); not with a profile, which has its own.
    dimensions : float, D ≥ 0
        The budget; any real number. From the number of features with v_i > 0 upwards all of those are monosemantic
        and the price is 0. A feature of importance 0 gets capacity 0 (without bias only from that budget upwards:
        below, a spare input can stand in for the missing bias).
    bias : bool
        Whether the network has an output bias; without one all kurtoses must be ≥ 3, and everything is computed in
        memory.
    tolerance : float
        The relative gap between loss and lower bound (see `Allocation`) up to which the answer counts as optimal, from
        1e-13 (what rounding allows) to 1. Convex problems (κ_i ≥ 3 for all i) are solved to rounding error anyway.

    Returns
    -------
    Allocation
        Capacities, price, loss and certificate. When the optimum is not unique: features with equal data and
        κ > 3 always get equal capacity; of features that tie with linear or concave losses, those with κ < 3 are
        served whole in the order of their index, those with κ = 3 equally.

    Raises
    ------
    ValueError
        For bad arguments, naming the argument, the value and the allowed range.

    Examples
    --------
    Six features in three dimensions, the first one twice as important as the others:

    >>> import capsolve
    >>> allocation = capsolve.solve([2, 1, 1, 1, 1, 1], kurtosis=9.0, dimensions=3)
    >>> allocation
    Allocation(OPTIMAL, 6 features in 3 dimensions: 1 monosemantic, 5 polysemantic, 0 ignored; loss=..., gap=...)
    >>> allocation.capacity
    array([1. , 0.4, 0.4, 0.4, 0.4, 0.4])

    References
    ----------
    arXiv 2210.01892, eqs. 13–18.
    """
    importance, kurtosis, names = problem_of(importance, kurtosis, dimensions)
    large = isinstance(importance, np.ndarray) and importance.size >= COMPILED_FEATURES
    if bias is True and large and compiled_route():
        # the first pass over so many numbers validates them as well
        model = QuadraticLoss.unchecked(importance, kurtosis)
    else:
        model = QuadraticLoss(importance, kurtosis, bias)
    return named(allocate(model, dimensions, tolerance=tolerance), names)


def named(allocation: Allocation, names: tuple[str, ...] | None) -> Allocation:
    """Return the same allocation of features of these names."""
    return allocation if names is None else replace(allocation, names=names)


def allocate(
    loss_model: LossModel | Profile, dimensions: Any, *, tolerance: float = 1e-9, route: Route | None = None
) -> Allocation:
    """Find the optimal allocation of capacity for any loss model.

    Minimises L(C) subject to Σ C_i ≤ dimensions and 0 ≤ C_i ≤ 1. Which optimum is returned when there are several
    is stated by `solve` for `QuadraticLoss` and by `capsolve.solvers.tabulated` for `TabulatedLoss`.

    Parameters
    ----------
    loss_model : QuadraticLoss, TabulatedLoss, another `capsolve.losses.model.LossModel`, or Profile
        Models of your own must be convex: see the recipe there. A profile stands for its quadratic loss, with a bias.
    dimensions : float
        The budget D ≥ 0.
    tolerance : float
        See `solve`.
    route : Route, optional
        How the quadratic loss with NumPy arrays is solved; by default the fastest for so many features.

    Raises
    ------
    ValueError
        For bad arguments.
    TypeError
        For a model that does not fulfil the protocol; functions become one by `TabulatedLoss.from_callables`.

    Examples
    --------
    One S-shaped loss curve for four features: sharing pays up to a point.

    >>> import capsolve
    >>> model = capsolve.TabulatedLoss([1.0, 0.9, 0.2, 0.1, 0.0], weight=[1, 1, 1, 1])
    >>> capsolve.allocate(model, dimensions=1).capacity
    array([0.5, 0.5, 0. , 0. ])
    """
    budget = scalar("dimensions", dimensions, low=0.0)
    tolerance = scalar("tolerance", tolerance, low=FINEST_TOLERANCE, high=1.0)
    model, names = _loss_model("loss_model", loss_model)
    if isinstance(model, QuadraticLoss):
        solution = solve_quadratic(model, budget, route) if model.in_memory else _solve_elsewhere(model, budget)
    elif isinstance(model, TabulatedLoss):
        solution = solve_tabulated(model, budget, tolerance)
    else:
        solution = solve_separable(model, budget)
    return named(_allocation(model, budget, solution, tolerance), names)


def _solve_elsewhere(model: QuadraticLoss, dimensions: float) -> Solution:
    """Solve for arrays of another library than NumPy, where they are."""
    if model.bias:
        if model.lazy:
            from capsolve.solvers.dask_source import DaskSource  # noqa: PLC0415

            return solve_source(DaskSource(model.importance, model.kurtosis), dimensions)
        return solve_source(ArrayAPISource(model.importance, model.kurtosis), dimensions)
    if model.lazy:
        raise ValueError("bias=False needs the features in memory: compute() the Dask arrays before")
    # without a bias every price is a search for the trace: that is for the host
    solution = solve_quadratic(model.to_numpy(), dimensions)
    return replace(solution, capacity=model.like_importance(solution.capacity))


def certify(
    model: LossModel | Profile,
    dimensions: Any,
    capacity: Any,
    *,
    lower_bound: float = -math.inf,
    tolerance: float = 1e-9,
    gap: float | None = None,
) -> Allocation:
    """Judge any capacities, shape (n,) in [0, 1], by the model alone and return them as an `Allocation`.

    The price is the largest marginal value among features that are not full. The lower bound is the Lagrangian's,
    min_C [L(C) + λ ΣC] − λ D, at the λ where no feature gains on average from more capacity (the price, when losses
    are convex); it needs nothing from the solver. A ``lower_bound`` on the loss of all allocations of this budget that
    was proved by other means is used where it is the better one. A profile stands for its quadratic loss. ``gap``,
    (loss − lower bound)/(loss − floor), is the former way to hand a bound on, and works for one release.

    Examples
    --------
    >>> import capsolve
    >>> model = capsolve.QuadraticLoss([1.0, 1.0], 9.0)
    >>> capsolve.certify(model, 1.0, [0.5, 0.5]).status
    <Status.OPTIMAL: 'optimal'>
    >>> capsolve.certify(model, 1.0, [0.6, 0.4]).gap > 0.005
    True
    """
    dimensions = scalar("dimensions", dimensions, low=0.0)
    tolerance = scalar("tolerance", tolerance, low=FINEST_TOLERANCE, high=1.0)
    if math.isnan(lower_bound) or lower_bound == math.inf:
        raise ValueError(f"lower_bound must be a number below the loss, got {lower_bound}")
    model, names = _loss_model("model", model)
    if isinstance(model, QuadraticLoss):
        model = model.to_numpy()
    capacity = np.array(capacity_vector(capacity, model.features))
    scaled, unit = model.normalised(capacity)
    if gap is not None:
        renamed("gap", "lower_bound")
        excess = float(np.sum(scaled.excess_loss(capacity))) * unit * unit
        lower_bound = model.floor + (1.0 - scalar("gap", gap, low=0.0, high=1.0)) * excess
    price = max(0.0, float(np.max(scaled.average_gain(capacity))))
    terms = model_terms(scaled, capacity, price)
    budget = min(dimensions, model.saturation_budget)
    lagrangian = terms.loss - lagrangian_excess(terms, price, budget)
    proved = max(0.0, lower_bound / unit / unit - scaled.floor - lagrangian)
    within = terms.used <= dimensions + BUDGET_TOLERANCE * max(1.0, dimensions)
    if within and lagrangian + proved > terms.loss + 1e-9 * (terms.loss + price * budget):
        reached = (terms.loss + scaled.floor) * unit * unit
        raise ValueError(f"lower_bound must be at most the loss of these capacities, {reached:g}, got {lower_bound:g}")
    solution = Solution(capacity, terms, math.sqrt(0.5 * price), unit, proved)
    return named(_allocation(model, dimensions, solution, tolerance, budget), names)


def _loss_model(name: str, model: Any) -> tuple[LossModel, tuple[str, ...] | None]:
    """Return the model, which for a profile is the quadratic one, and the names of the features."""
    if is_profile(model):
        return QuadraticLoss(model.importance, model.kurtosis), model.names
    if isinstance(model, QuadraticLoss | TabulatedLoss) or is_loss_model(model):
        return model, None
    wanted = f"{name} must be a QuadraticLoss, a TabulatedLoss or another LossModel"
    if isinstance(model, type):
        raise TypeError(f"{wanted}, got the class {model.__name__}")
    if callable(model) or (isinstance(model, list | tuple) and any(map(callable, model))):
        raise TypeError(f"{wanted}; TabulatedLoss.from_callables makes one of functions")
    raise TypeError(f"{wanted}, got {type(model).__name__}")


def _allocation(
    model: LossModel, dimensions: float, solution: Solution, tolerance: float, budget: float | None = None
) -> Allocation:
    """Put together what is known about capacities; ``budget`` is what of the dimensions can be of use."""
    terms, unit = solution.terms, solution.unit
    if budget is None:
        budget = usable_budget(dimensions, solution.multiplier, terms.used)
    certificate = certify_terms(
        terms,
        features=model.features,
        dimensions=dimensions,
        budget=budget,
        multiplier=2.0 * solution.multiplier * solution.multiplier,
        unit=unit,
        proved=solution.proved,
        floor=model.floor / unit / unit if model.floor else 0.0,  # the unit may underflow
    )
    read_only(solution.capacity)
    return Allocation(
        model,
        dimensions,
        solution.capacity,
        *certificate,
        tolerance,
        solution.nodes,
        Tally(terms.used, terms.empty, terms.full),
    )


def phases(capacity: Any, tolerance: float = 0.0) -> Any:
    """Return the `Phase` of capacities as small integers, ignored C ≤ tolerance and monosemantic C ≥ 1 − tolerance."""
    above, full = capacity > tolerance, capacity >= 1.0 - tolerance
    if isinstance(capacity, np.ndarray):
        phase = np.add(above, full, dtype=np.int8)
        read_only(phase)
        return phase
    xp = api.array_namespace(capacity)
    return xp.astype(above, xp.int8) + xp.astype(full, xp.int8)
