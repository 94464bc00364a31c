"""Any convex loss, known by its response to a price: the root of the dual.

Minimising Σ f_i(C_i) with convex f_i subject to Σ C_i ≤ D and 0 ≤ C ≤ 1 is a search for the price λ at which the
responses use the budget (arXiv 2210.01892, eqs. 4–8). Σ C(λ) falls with λ, in jumps where losses have straight pieces;
there and within rounding the allocation is a convex combination of the responses on either side.
"""

from __future__ import annotations

import logging
import math

import numpy as np

from capsolve._checks import EPS
from capsolve.certificate import Solution, model_terms
from capsolve.losses.model import LossModel

logger = logging.getLogger(__name__)

# Prices below would lose their digits.
TINIEST = float(np.finfo(float).tiny)


def solve_separable(model: LossModel, dimensions: float) -> Solution:
    """Minimise L(C) subject to Σ C_i ≤ dimensions and 0 ≤ C_i ≤ 1 for a convex loss.

    Where the optimum is not unique, the features that are indifferent at the final price share in proportion to the
    capacity that they could have.

    Raises
    ------
    ValueError
        For a loss that is not convex.
    """
    if not model.convex:
        raise ValueError("loss_model must be convex, or a QuadraticLoss or a TabulatedLoss")
    if dimensions >= model.saturation_budget:
        capacity = model.response(0.0)
        return Solution(capacity, model_terms(model, capacity, 0.0), 0.0)
    logger.debug("%d convex losses are solved by the root of the dual", model.features)
    low, high = _bracket(model, dimensions)
    more, less = model.response(low), model.response(high)
    at_low, at_high = float(np.sum(more)), float(np.sum(less))
    part = min(1.0, max(0.0, (dimensions - at_high) / (at_low - at_high))) if at_low > at_high else 0.0
    capacity = less + part * (more - less)
    price = high + part * (low - high)
    return Solution(capacity, model_terms(model, capacity, price), math.sqrt(0.5 * price))


def _bracket(model: LossModel, dimensions: float) -> tuple[float, float]:
    """Return neighbouring prices, low and high, at which the responses use more than the budget and not more."""

    def affordable(price: float) -> bool:
        return float(np.sum(model.response(price))) <= dimensions

    high = max(float(np.max(model.average_gain(np.zeros(model.features)))), TINIEST)
    while not affordable(high):  # a response that still takes something at the largest marginal value, by rounding
        high *= 1.0 + 4.0 * EPS
    low, step = 0.5 * high, 0.5
    while affordable(low):
        step *= step
        low = high * step
    while low < (1.0 - 2.0 * EPS) * high:
        middle = math.sqrt(low) * math.sqrt(high) if low > 0.0 else 0.5 * high
        if not low < middle < high:
            break
        low, high = (low, middle) if affordable(middle) else (middle, high)
    return low, high
