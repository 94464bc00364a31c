"""Is it optimal, and how far from it at most? One definition, whatever engine found the capacities.

For any price λ ≥ 0 and any capacities C' within the budget D,

    L(C') ≥ min [L + λ Σ] − λ D = L(C) − Σ_i gap_i − λ (D − Σ C),

where gap_i is by how much f_i(C_i) + λ C_i exceeds its least value: the *Lagrangian gap* of feature i. So what is to be
known about capacities is a handful of sums and extremes over *all* features, the `CertificateTerms`. Every engine
fills them from the loss model in the pass that writes the capacities, never from its search: a wrong capacity shows in
the loss and in the gap, a wrong price in the gap, an overdrawn budget in its error.

Where losses are not convex, L(C) − Σ gap_i may lie below the optimum by the problem's own *duality gap*. A solver that
proves a better bound (branch and bound, or all local optima compared) says by how much it exceeds the Lagrangian's;
the terms are summed all the same, so that capacities other than the proved ones are still found out. No sum over
features can tell whether a search has left out a candidate: each solver checks, apart from its search, what its proof
rests on (`capsolve.solvers.fractional`), and claims nothing beyond the Lagrangian bound where that does not hold.

Everything here is arithmetic that numbers and arrays of numbers, one for each of many problems, have in common.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from capsolve._checks import EPS, FloatArray, outward, scalar

if TYPE_CHECKING:
    from capsolve.losses.model import LossModel

# What rounding may leave: capacities carry errors of a few ulps, their sum a few more.
BUDGET_TOLERANCE = 1e-12
KKT_TOLERANCE = 1e-10
FINEST_TOLERANCE = 1e-13
# Stands for the infinite marginal value where there is none, so that differences stay numbers.
NONE = 1e300


class Status(enum.Enum):
    """What the certificate says about an allocation."""

    OPTIMAL = "optimal"
    """The budget holds and no allocation is better by more than the tolerance; for convex losses, the marginal losses
    are equal as well."""
    FEASIBLE = "feasible"
    """The budget holds, but nothing shows that this is an optimum."""
    INFEASIBLE = "infeasible"
    """The budget is exceeded: a numerical failure worth reporting."""


class CertificateTerms(NamedTuple):
    """Sums and extremes over all features; importances count in some unit, losses in its square."""

    used: Any  # Σ C
    empty: Any  # features with C = 0
    full: Any  # features with C = 1
    loss: Any
    max_marginal_unsaturated: Any  # the largest marginal value of a feature with C < 1, 0 if there is none
    min_marginal_active: Any  # the smallest of a feature with C > 0, `NONE` if there is none
    lagrangian_gap: Any

    @classmethod
    def merge(cls, parts: Sequence[CertificateTerms]) -> CertificateTerms:
        """Return the terms of a whole from those of its parts."""
        used, empty, full, loss, unsaturated, active, gap = zip(*parts, strict=True)
        return cls(
            math.fsum(used),
            sum(map(int, empty)),
            sum(map(int, full)),
            math.fsum(loss),
            max(map(float, unsaturated)),
            min(map(float, active)),
            math.fsum(gap),
        )


@dataclass(frozen=True)
class Solution:
    """Capacities, and what a solver has found out about them; importances count in ``unit``, losses in its square.

    The terms are those of all features at these capacities, for the price 2 · ``multiplier``². ``proved`` is by how
    much a lower bound that the solver has proved exceeds the Lagrangian bound at that price.
    """

    capacity: Any
    terms: CertificateTerms
    multiplier: float
    unit: float = 1.0
    proved: float = 0.0
    nodes: int = 1


def certificate_terms(
    capacity: Any,
    loss: Any,
    marginal: Any,
    lagrangian_gap: Any,
    xp: Any = np,
    total: Callable[[Any], Any] | None = None,
) -> CertificateTerms:
    """Return the terms from arrays over features: along the first axis, each column being a problem, with ``total``.

    Without ``total`` all is one problem and the terms are scalars of the namespace ``xp``.
    """
    some: dict[str, Any] = {} if total is None else {"axis": 0}
    total = xp.sum if total is None else total
    zero = xp.zeros_like(marginal)
    return CertificateTerms(
        used=total(capacity),
        empty=xp.count_nonzero(capacity == 0.0, **some),
        full=xp.count_nonzero(capacity == 1.0, **some),
        loss=total(loss),
        max_marginal_unsaturated=xp.max(xp.where(capacity < 1.0, marginal, zero), **some),
        min_marginal_active=xp.min(xp.where(capacity > 0.0, marginal, zero + NONE), **some),
        lagrangian_gap=total(lagrangian_gap),
    )


def model_terms(model: LossModel, capacity: FloatArray, price: float) -> CertificateTerms:
    """Return the terms of any model at any capacities, in memory; losses count from the model's floor.

    No feature may be worth less at its last bit than another at its next: trades are between two features.
    """
    c = capacity
    following, last = model.marginal(c), model.marginal(c, growing=False)
    unsaturated = np.where(c < 1.0, np.maximum(following, 0.0), 0.0)
    terms = certificate_terms(c, model.excess_loss(c), unsaturated, model.lagrangian_gap(c, price))
    used, empty, full, loss, largest, _, gap = CertificateTerms.merge([terms])  # as plain numbers
    active, smallest = c > 0.0, NONE
    if active.any():
        first = int(np.argmax(unsaturated))
        rival = np.full(c.size, largest)
        rival[first] = np.max(np.delete(unsaturated, first), initial=0.0)
        smallest = largest - float(np.max((rival - last)[active]))
    return CertificateTerms(used, empty, full, loss, largest, smallest, gap)


def lagrangian_bound(model: LossModel, price: float, dimensions: float, *, above_floor: bool = False) -> float:
    """Return min_C [L(C) + price · ΣC] − price · dimensions, less what rounding may have added.

    No allocation of the budget has a smaller loss, whatever ``price`` ≥ 0 is: weak duality. For convex losses it is the
    optimal loss at the right price; for others the best price leaves a gap. With ``above_floor`` the loss is counted
    from the model's floor.

    Examples
    --------
    >>> import capsolve
    >>> model = capsolve.QuadraticLoss([2.0, 1.0, 1.0], 9.0)
    >>> allocation = capsolve.solve([2.0, 1.0, 1.0], 9.0, dimensions=2)
    >>> round(lagrangian_bound(model, allocation.price, 2.0) / allocation.loss, 12)
    1.0
    >>> lagrangian_bound(model, 2.0 * allocation.price, 2.0) < allocation.loss
    True
    """
    price, dimensions = scalar("price", price, low=0.0), scalar("dimensions", dimensions, low=0.0)
    c = model.response(price)
    loss = model.excess_loss(c) if above_floor else model.feature_loss(c)
    parts = [float(np.sum(loss)), price * float(np.sum(c)), -price * dimensions]
    return outward(math.fsum(parts), float(np.sum(np.abs(loss))) + parts[1] - parts[2], c.size)


class Certificate(NamedTuple):
    """What is certain about capacities: the attributes of the same names of `capsolve.Allocation`."""

    price: Any
    scale: Any
    loss: Any
    lower_bound: Any
    gap: Any
    kkt_error: Any
    budget_error: Any


def certify_terms(
    terms: CertificateTerms,
    *,
    features: int,
    dimensions: Any,
    budget: Any,
    multiplier: Any,
    unit: Any = 1.0,
    proved: Any = 0.0,
    floor: Any = 0.0,
) -> Certificate:
    """Return the certificate of capacities with these terms.

    Parameters
    ----------
    terms
        Of all features, with the Lagrangian gaps at the price ``multiplier``.
    features
        Their number, n: rounding errors of the sums grow with its logarithm.
    dimensions, budget
        The budget D, and what of it can be of use: the smaller of D and the model's saturation budget.
    multiplier
        Any price λ ≥ 0. The nearer to the optimal one, the tighter the bound.
    unit
        In which the terms count importances; of losses and prices its square is the unit.
    proved
        By how much a proved lower bound exceeds the Lagrangian bound at λ: the duality gap of a problem that is not
        convex. Where there is such a bound, `budget_rounding` is not counted as a gap.
    floor
        The loss that the terms count from: a lower bound for an unlimited budget.
    """
    price, used = terms.max_marginal_unsaturated, terms.used
    has_price = price > 0.0
    size = terms.loss + multiplier * budget
    rounding = (8.0 + math.log2(features)) * EPS * size
    excess = _positive(lagrangian_excess(terms, multiplier, budget) - proved) + rounding
    active = terms.min_marginal_active
    allowance = budget_rounding(active * (active < price) + price * (active >= price), dimensions) * (proved > 0.0)
    unit = unit * 1.0
    return Certificate(
        price=price * unit * unit,
        scale=(0.5 * price) ** 0.5 * unit,
        loss=(terms.loss + floor) * unit * unit,
        lower_bound=(terms.loss - excess + floor) * unit * unit,
        gap=_positive(excess - allowance) / (size + (size == 0.0)),
        kkt_error=_positive(price - terms.min_marginal_active) / (price + (price == 0.0)),
        budget_error=abs(used - budget) * has_price + _positive(used - dimensions) * (price == 0.0),
    )


def lagrangian_excess(terms: CertificateTerms, price: Any, budget: Any) -> Any:
    """Return by how much the loss exceeds the Lagrangian bound at a price: Σ gap_i + λ (D − Σ C)."""
    return terms.lagrangian_gap + price * _positive(budget - terms.used)


def budget_rounding(price: Any, dimensions: Any) -> Any:
    """Return what 16 ulps of the budget are worth at the marginal value of the features that could change.

    Capacities cannot spend a budget more exactly. Where the relaxation's price is smaller than that of the optimum by
    orders of magnitude (κ close to 1), that is much beside the terms of its Lagrangian.
    """
    return 16.0 * EPS * price * (1.0 + _positive(dimensions - 1.0))


def status_of(certificate: Any, used: Any, dimensions: Any, tolerance: float, convex: Any) -> Any:
    """Return the index into `STATUSES` of what a certificate says about capacities with the sum ``used``.

    Convex losses must have equal marginal losses as well: that is a much sharper test there. Where the loss is not
    convex an answer may be within the tolerance without being stationary.
    """
    slack = BUDGET_TOLERANCE * (1.0 + _positive(dimensions - 1.0))
    holds = certificate.budget_error <= slack
    stationary = (certificate.kkt_error <= KKT_TOLERANCE) | (convex == 0)
    optimal = holds & (certificate.gap <= tolerance) & stationary
    overdrawn = (certificate.budget_error > slack) & (used > dimensions + slack)
    return 1 * optimal + 2 * overdrawn


STATUSES = (Status.FEASIBLE, Status.OPTIMAL, Status.INFEASIBLE)


def _positive(x: Any) -> Any:
    """Return max(0, x), NaN for NaN."""
    if isinstance(x, float):
        return 0.0 if x <= 0.0 else x
    return np.where(x <= 0.0, 0.0, x)
