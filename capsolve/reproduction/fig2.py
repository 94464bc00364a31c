"""Fig. 2: what the next bit of capacity is worth, and how the price decides the allocation."""

from __future__ import annotations

import itertools

import numpy as np

from capsolve import figures
from capsolve._checks import FloatArray
from capsolve.allocation import Allocation, Phase, solve
from capsolve.losses.quadratic import QuadraticLoss
from capsolve.reproduction._report import Finding, Result, Settings

IMPORTANCE = (4.0, 2.0, 1.4, 1.0, 0.7, 0.5, 0.25, 0.1)
KURTOSIS = 9.0
DIMENSIONS = 3.0
TRADE = 1e-3  # the capacity that changes hands in a trade, or all there is to give or take
ROUNDING = 1e-12


def make(settings: Settings) -> Result:
    """Solve eight features in three dimensions, and try every trade of capacity between two of them."""
    allocation = solve(IMPORTANCE, KURTOSIS, DIMENSIONS)
    model = QuadraticLoss(IMPORTANCE, KURTOSIS)
    marginal = model.marginal(allocation.capacity)
    trades = _trades(model, allocation)
    price = allocation.price
    shared, none, whole = (
        allocation.phase == phase for phase in (Phase.POLYSEMANTIC, Phase.IGNORED, Phase.MONOSEMANTIC)
    )
    spread = float(np.max(np.abs(marginal[shared] / price - 1.0)))
    findings = [
        Finding(
            "Features that share have the same marginal value.",
            spread < ROUNDING,
            f"{shared.sum()} polysemantic features, all at λ = {price:.6g} within a relative {spread:.1e}.",
        ),
        Finding(
            "Features whose marginal value is lower from the start are ignored.",
            bool((marginal[none] <= price).all()),
            f"{none.sum()} ignored features; the first bit of capacity would be worth at most "
            f"{marginal[none].max():.4g} to them.",
        ),
        Finding(
            "Features whose marginal value is higher to the end have a dimension of their own.",
            bool((marginal[whole] >= price).all()),
            f"{whole.sum()} monosemantic features; the last bit of capacity is worth at least "
            f"{marginal[whole].min():.4g} to them.",
        ),
        Finding(
            "No transfer of capacity between two features lowers the loss.",
            bool(trades.min() > 0.0),
            f"{trades.size} transfers of up to {TRADE:g} tried; the best one costs {trades.min():.2e} "
            f"(loss {allocation.loss:.6g}).",
        ),
        Finding(
            "More important features get more capacity.",
            bool((np.diff(allocation.capacity) <= 0.0).all()),
            f"C = {', '.join(f'{c:.4g}' for c in allocation.capacity)}.",
        ),
    ]
    with figures.page(7.0, 4.0) as figure:
        figures.water_level(allocation, names=[f"v = {v:g}" for v in IMPORTANCE], ax=figure.subplots())
    return Result(
        "Fig. 2: marginal values and the price of capacity",
        f"Quadratic model, kurtosis {KURTOSIS:g}, {len(IMPORTANCE)} features of importance "
        f"{', '.join(f'{v:g}' for v in IMPORTANCE)} in {DIMENSIONS:g} dimensions; the allocation is "
        f"{allocation.status.value}, its relative gap to the lower bound {allocation.gap:.1e}. The paper does not "
        "publish the numbers behind its figure; these show the same three phases.",
        {"": figure},
        findings,
        table=allocation.to_dict() | {"marginal_value": marginal},
    )


def _trades(model: QuadraticLoss, allocation: Allocation) -> FloatArray:
    """Return how much the loss rises when capacity changes hands, for all pairs of giver and taker."""
    cost = []
    for giver, taker in itertools.permutations(range(allocation.capacity.size), 2):
        amount = min(TRADE, allocation.capacity[giver], 1.0 - allocation.capacity[taker])
        if amount > 0.0:
            traded = np.array(allocation.capacity)
            traded[giver] -= amount
            traded[taker] += amount
            cost.append(float(model.feature_loss(traded).sum()) - allocation.loss)
    return np.array(cost)
