"""The global optimum of the quadratic loss, for any mixture of kurtoses, by the route that suits its size.

Features with κ ≥ 3 have convex losses: one price search settles them (`capsolve.solvers.price`). Features with κ < 3
have strictly concave losses, of which at most one is fractional at an optimum (`capsolve.solvers.fractional`).
A `Route` says how: in plain numbers, among all breakpoints, or through passes over a source of the data
(`capsolve.solvers.two_pass`).
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from capsolve._checks import EPS, FloatArray
from capsolve.certificate import CertificateTerms, Solution, certificate_terms
from capsolve.losses.quadratic import (
    TINY,
    QuadraticLoss,
    ResponseCurve,
    column_sum,
    feature_terms,
    response_curve,
    solve_saddle,
    trace_of,
)
from capsolve.solvers.fractional import solve_fractional
from capsolve.solvers.newton import Root
from capsolve.solvers.price import WHOLE, resolve_ties, solve_knapsack
from capsolve.solvers.routes import COMPILED_FEATURES, NUMPY, Route, route_for
from capsolve.solvers.scalar import scalar_terms, solve_scalar
from capsolve.solvers.sources import (
    MODERATE,
    NONE_LISTED,
    NumPySource,
    PriceAndExceptions,
    ScaleInterval,
    Source,
)
from capsolve.solvers.two_pass import (
    BracketedProblem,
    TooSmall,
    bracket_all,
    bracket_price,
    solve_in_bracket,
    unit_of,
)

logger = logging.getLogger(__name__)


def solve_quadratic(model: QuadraticLoss, dimensions: float, route: Route | None = None) -> Solution:
    """Minimise L(C) subject to Σ C_i ≤ dimensions and 0 ≤ C_i ≤ 1.

    Where the optimum is not unique (features tied at the final price whose losses are linear or concave), those
    with κ < 3 are saturated first, whole, in the order of their index; those with κ = 3 share the rest equally.
    """
    if model.bias:
        return _solve_by_route(model, whole_budget(dimensions), route or route_for(model.features), log=True)
    logger.debug("%d features without a bias: a search for the trace", model.features)
    found = solve_columns(model.importance[:, None], model.kurtosis[:, None], np.array([dimensions]), bias=False)
    terms = CertificateTerms(*(part[0].item() for part in found.terms))
    multiplier, unit, proved = (float(part[0]) for part in found[2:])
    return Solution(found.capacity[:, 0], terms, multiplier, unit, proved)


def _solve_by_route(model: QuadraticLoss, budget: float, route: Route, *, log: bool = False) -> Solution:
    found = _solve_scalar(*model.numbers(), budget) if route.scalar else None
    route = NUMPY if route.scalar and found is None else route
    if log and logger.isEnabledFor(logging.DEBUG):  # which takes longer to write than a handful of features to solve
        early = model.features < COMPILED_FEATURES and route.name != "Numba"
        why = f"; compiled code is for {COMPILED_FEATURES} and more" if early else ""
        logger.debug("%d features are solved by %s%s", model.features, route.name, why)
    return found or solve_source(route.source(*model.given), budget, route)


def whole_budget(dimensions: Any) -> Any:
    """Return the budget, rounded where it is a whole number but for rounding: 0.57 · 100 is meant to be 57."""
    if isinstance(dimensions, float):
        nearest = float(round(dimensions))
        return nearest if abs(dimensions - nearest) <= WHOLE * dimensions else dimensions
    rounded = np.round(dimensions)
    return np.where(np.abs(dimensions - rounded) <= WHOLE * dimensions, rounded, dimensions)


def usable_budget(dimensions: Any, multiplier: Any, used: Any) -> Any:
    """Return what of the budget can be of use: all of it where it has a price, else what the optimum takes."""
    if isinstance(dimensions, float):
        budget = max(dimensions, whole_budget(dimensions))
        return budget if multiplier > 0.0 else min(budget, used)
    budget = np.maximum(dimensions, whole_budget(dimensions))
    return np.where(multiplier > 0.0, budget, np.minimum(budget, used))


def _solve_scalar(importance: list[float], kurtosis: list[float], budget: float) -> Solution | None:
    if min((v for v in importance if v > 0.0), default=math.inf) < TINY:
        return None
    features = list(zip(importance, kurtosis, strict=True))
    found = solve_scalar(features, budget)
    if found is None:
        return None
    capacity, scale = found
    unit = unit_of(scale)
    return Solution(np.array(capacity), scalar_terms(features, capacity, scale, unit), scale / unit, unit)


@np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")  # infinities at the limits are intended
def solve_source(source: Source, dimensions: float, route: Route = NUMPY) -> Solution:
    """Solve the problem with a bias for data that are seen through the passes of a `Source` only."""
    limits, local = route.limits, route.source
    if not isinstance(source, NumPySource):
        logger.debug("features are solved where they are, by passes over a %s", type(source).__name__)
    budget, near = whole_budget(dimensions), None
    all_free = isinstance(source, NumPySource) and source.features <= limits.all_free
    if isinstance(source, NumPySource) and limits.least_newton <= source.features <= limits.newton and budget > 0.0:
        root = source.newton_root(budget)
        if root is not None and MODERATE[0] < root.scale < MODERATE[1]:
            if root.slope < math.inf and (solution := _write_root(source, root, budget)):
                return solution
            stretch = 1.0 + 1024.0 / source.features  # so that some concave features are inside, however few there are
            near = ScaleInterval(root.scale / stretch, root.scale * stretch)
            all_free = all_free and source.features <= limits.few

    def load_bracket(interval: ScaleInterval | None) -> BracketedProblem | None:
        if all_free and isinstance(source, NumPySource):
            return bracket_all(source, budget, local)
        return bracket_price(source, budget, local, limits, interval or near)

    try:
        point = solve_in_bracket(load_bracket, budget, limits)
    except TooSmall as small:
        factor = small.factor()
        scaled = solve_source(source.scaled(factor), dimensions, route)
        return replace(scaled, unit=scaled.unit / factor)
    capacity, terms = source.write(point.answer, point.unit)
    return Solution(capacity, terms, point.answer.multiplier / point.unit, point.unit, point.proved)


def _write_root(source: NumPySource, root: Root, budget: float) -> Solution | None:
    """Return the optimum at the root that Newton's method has found; None where rounding leaves too much."""
    scale, correction = root.scale, 0.0
    for _ in range(3):  # what rounding has left of the budget is given away as well
        unit = unit_of(scale)
        capacity, terms = source.write(PriceAndExceptions(scale, correction, scale, *NONE_LISTED), unit)
        missing = budget - terms.used
        if abs(missing) <= 16.0 * EPS * budget:
            return Solution(capacity, terms, scale / unit, unit)
        if root.slope == 0.0:
            return None
        step = correction - missing / root.slope
        scale, correction = scale + step, step - ((scale + step) - scale)
    return None


class Columns(NamedTuple):
    """Optima of problems in columns: capacities (n, m), and what `Solution` has for each, (m,)."""

    capacity: FloatArray
    terms: CertificateTerms
    multiplier: FloatArray
    unit: FloatArray
    proved: FloatArray


@np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")  # infinities at the limits are intended
def solve_columns(v: FloatArray, k: FloatArray, dimensions: FloatArray, bias: bool) -> Columns:
    """Minimise the loss of each column's features, importance and kurtosis (n, m), for its budget (m,)."""
    factor = np.ones(dimensions.size)
    if not v.min() >= TINY:
        least = np.min(v, axis=0, where=v > 0.0, initial=math.inf)
        for column in np.flatnonzero(least < TINY):
            factor[column] = TooSmall(float(least[column]), float(v[:, column] @ k[:, column])).factor()
        v = v * factor
    budget = whole_budget(dimensions)
    optimise = _with_bias if bias else _without_bias
    scarce = budget < np.count_nonzero(v, axis=0)
    if scarce.all():
        capacity, scale, gap = optimise(v, k, budget)
    else:
        capacity = np.where(v > 0.0, 1.0, 0.0)
        scale, gap = np.zeros((2, budget.size))
        if scarce.any():
            found = optimise(v[:, scarce], k[:, scarce], budget[scarce])
            capacity[:, scarce], scale[scarce], gap[scarce] = found
    effective = v if bias else v + trace_of(v, k, capacity, column_sum) / (k - 1.0)
    unit = unit_of(scale)
    multiplier = scale / unit
    each = feature_terms(effective / unit, k, capacity, multiplier, target=None if bias else v / unit)
    terms = certificate_terms(capacity, each.loss, each.marginal, each.lagrangian_gap, total=column_sum)
    return Columns(capacity, terms, multiplier, unit / factor, gap * np.square(multiplier))


def _with_bias(v: FloatArray, k: FloatArray, budget: FloatArray) -> tuple[FloatArray, ...]:
    """Return capacities, the τ of the convex relaxation, and the duality gap in squares of that."""
    curve = response_curve(v, k)
    relaxation = solve_knapsack(curve, budget)
    capacity, whole, ends_inside = resolve_ties(relaxation, k, budget)
    gap = np.zeros(budget.size)
    inside = np.flatnonzero(ends_inside)
    if inside.size:
        curves = ResponseCurve(*(part[:, inside] for part in curve))
        given = v[:, inside], k[:, inside], curves, budget[inside], relaxation.scale[inside], whole[inside]
        found = solve_fractional(*given)
        capacity[:, inside], gap[inside] = found.capacity, found.duality_gap
    return capacity, relaxation.scale, gap


def _without_bias(v: FloatArray, k: FloatArray, budget: FloatArray) -> tuple[FloatArray, ...]:
    """Return capacities and τ of networks without bias; there is no duality gap (κ ≥ 3)."""

    def respond(effective: FloatArray, column: Any) -> tuple[FloatArray, FloatArray]:
        if budget.size == 1:  # by the route for so many features
            model = QuadraticLoss.unchecked(effective[:, 0], k[:, 0])
            found = _solve_by_route(model, float(budget[0]), route_for(len(v)))
            return found.capacity[:, None], np.array([found.multiplier * found.unit])
        relaxation = solve_knapsack(response_curve(effective, k[:, column]), budget[column])
        return relaxation.capacity, relaxation.scale

    capacity = solve_saddle(v, k, lambda *given: respond(*given)[0])
    effective = v + trace_of(v, k, capacity, column_sum) / (k - 1.0)
    return capacity, respond(effective, slice(None))[1], np.zeros(budget.size)
