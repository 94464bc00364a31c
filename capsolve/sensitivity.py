"""How the optimum moves with the data: derivatives of capacity, price and loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray, real_array, scalar
from capsolve.losses.quadratic import QuadraticLoss


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """First derivatives of the optimal loss, price and capacities.

    Each ``…_importance`` and ``…_kurtosis`` has shape (n,): entry j is the derivative with respect to v_j or κ_j.
    Capacities depend on every v_j and κ_j; `capacity_change` gives the response to any direction in O(n) and
    `capacity_jacobian` the full matrix.

    Attributes
    ----------
    loss_importance, loss_kurtosis : (n,) arrays
        By the envelope theorem: the partial derivatives of L at fixed capacity. Where the optimum is not unique, the
        least loss has a kink, and these belong to one side of it.
    loss_dimensions : float
        −price.
    price_importance, price_kurtosis : (n,) arrays
    price_dimensions : float
    capacity_dimensions : (n,) array
        How an additional bit of budget is shared; sums to 1, or is 0 where the price is 0.
    active : (n,) bool array
        The features that share the next bit of budget: all with 0 < C < 1, and those with C < 1 about to enter.
    """

    loss_importance: FloatArray
    loss_kurtosis: FloatArray
    loss_dimensions: float
    price_importance: FloatArray
    price_kurtosis: FloatArray
    price_dimensions: float
    capacity_dimensions: FloatArray
    active: Any
    # ∂(v_i (κ_i−1) + T)/∂(v_i, κ_i) − τ C_i ∂κ_i of the active features, shape (2, n)
    _local: FloatArray = field(repr=False)
    _rate: FloatArray = field(repr=False)  # 1/(τ (κ_i−3)), 0 for the others and for the absorber, shape (n,)
    _coupling: FloatArray = field(repr=False)  # −(κ_i−3) C_i, shape (n,)
    _shift: FloatArray = field(repr=False)  # ∂(x, τ)/∂(v_j, κ_j), shape (2, 2, n)
    _absorber: int | None = field(repr=False)  # the steepest active feature: its capacity is what the others leave

    def capacity_change(self, *, importance: Any = 0.0, kurtosis: Any = 0.0, dimensions: float = 0.0) -> FloatArray:
        """Return the derivative of all capacities, shape (n,), along the given direction of the data."""
        n = self.active.size
        change = self.capacity_dimensions * scalar("dimensions", dimensions)
        for k, (name, value) in enumerate((("importance", importance), ("kurtosis", kurtosis))):
            step = np.broadcast_to(real_array(name, value), (n,))
            x, tau = self._shift[:, k] @ step
            moved = self._rate * (self._local[k] * step + x + self._coupling * tau)
            if self._absorber is not None:
                moved[self._absorber] = -moved.sum()
            change = change + moved
        return change

    def capacity_jacobian(self, parameter: str) -> FloatArray:
        """Return ∂C_i/∂p_j, shape (n, n), for ``parameter`` "importance" or "kurtosis"."""
        if parameter not in ("importance", "kurtosis"):
            raise ValueError(f'parameter must be "importance" or "kurtosis", got {parameter!r}')
        k = 0 if parameter == "importance" else 1
        x, tau = self._shift[:, k]
        jacobian: FloatArray = self._rate[:, None] * (np.diag(self._local[k]) + x + np.outer(self._coupling, tau))
        if self._absorber is not None:
            jacobian[self._absorber] = -jacobian.sum(axis=0)
        return jacobian


@np.errstate(over="ignore")  # a derivative beyond the range of float64 is infinite; the others are not concerned
def sensitivity(model: QuadraticLoss, capacity: FloatArray, scale: float) -> Sensitivity:
    """Differentiate the optimum of the quadratic loss; ``scale`` is τ = √(price/2) there.

    The optimum satisfies τ (κ_i−3) C_i = v_i (κ_i−1) + T − 2τ for the active features, Σ C_i = D, and
    T = Σ (v_i − m_i) with m_i = τ C_i (active) or v_i + T/(κ_i−1) (full); T = 0 with a bias. Differentiating leaves two
    linear equations for the changes of τ and of x = T − 2τ. The steepest active feature, whose κ_i − 3 is the smallest,
    takes what the others leave: nothing is divided by that, and nothing cancels close to κ = 3 or on it.

    At a kink (a feature just entering or just full) the derivatives are those of a *growing* budget: features about to
    enter count as active, full ones stay full. With several optima they are those of the given capacities.

    Raises
    ------
    ValueError
        When two features with κ = 3 are tied at the price: their shares are arbitrary and have no derivatives.
    """
    v, k = model.importance, model.kurtosis
    a, e = k - 1.0, k - 3.0
    n = v.size
    trace = model.trace(capacity)
    ve = model.effective_importance(trace)
    full = capacity == 1.0
    denominator = 1.0 + 0.5 * e * np.where(full, 0.0, capacity)
    share = np.where(full, 0.0, (1.0 - capacity) / denominator)
    inverse_a = np.zeros(n) if model.bias else 1.0 / a
    price = 2.0 * float(np.square(scale))
    # f = v_e² a (1−C)/(1+γC), and L = Σ f − T² (1 + Σ 1/a) without bias, stationary in T.
    loss_v = 2.0 * a * ve * share
    loss_k = np.square(ve) * share * (1.0 - 0.5 * a * capacity / denominator)
    loss_k = loss_k + trace * (trace - loss_v) * inverse_a**2

    active = _active(ve * a, capacity, scale, k)
    local, rate, coupling, shift = np.zeros((2, n)), np.zeros(n), np.zeros(n), np.zeros((2, 2, n))
    growth, grown, absorber = np.zeros(2), np.zeros(n), None
    if active.any():
        candidates = np.flatnonzero(active)
        absorber = int(candidates[np.argmin(np.abs(e[candidates]))])
        rest = active.copy()
        rest[absorber] = False
        if e[absorber] == 0.0 and (e[rest] == 0.0).any():
            other = int(np.flatnonzero(rest & (e == 0.0))[0])
            raise ValueError(
                f"features {absorber} and {other} have kurtosis 3 and the same marginal value: how they share is "
                "arbitrary and has no derivative"
            )
        local[:, active] = a[active], (v - scale * capacity)[active]
        rate[rest] = 1.0 / (scale * e[rest])
        coupling[active] = -(e * capacity)[active]
        # R₁: the absorber's condition with its capacity replaced by D − Σ others, times its (κ−3) τ
        weight = np.where(rest, e[absorber] * scale * rate, 0.0)
        weight[absorber] = 1.0
        system = np.array([[weight.sum(), float(weight @ coupling)], [0.0, 0.0]])
        rhs, budget = np.zeros((2, 2, n)), np.array([-e[absorber] * scale, 0.0])
        rhs[0] = weight * local
        if model.bias:
            system[1] = 1.0, 2.0  # R₂: x = −2τ
        else:
            # R₂: T = Σ_{not full} v − τ (D − #full) − T Σ_full 1/a, and T = x + 2τ
            once = 1.0 + float(inverse_a[full].sum())
            system[1] = -once, -2.0 * once - float(capacity[~full].sum())
            rhs[1] = np.where(full, 0.0, 1.0), np.where(full, trace * inverse_a**2, 0.0)
            budget[1] = -scale
        shift[:] = -np.linalg.solve(system, rhs.reshape(2, -1)).reshape(2, 2, n)
        growth[:] = -np.linalg.solve(system, budget)
        grown = rate * (growth[0] + coupling * growth[1])
        grown[absorber] = 1.0 - grown.sum()
    return Sensitivity(
        loss_importance=loss_v,
        loss_kurtosis=loss_k,
        loss_dimensions=-price,
        price_importance=4.0 * scale * shift[1, 0],
        price_kurtosis=4.0 * scale * shift[1, 1],
        price_dimensions=float(4.0 * scale * growth[1]),
        capacity_dimensions=grown,
        active=active,
        _local=local,
        _rate=rate,
        _coupling=coupling,
        _shift=shift,
        _absorber=absorber,
    )


def _active(first: FloatArray, capacity: FloatArray, scale: float, kurtosis: FloatArray) -> npt.NDArray[np.bool_]:
    """Return who shares the next bit of budget: the fractional features and those whose first bit is worth the price.

    Of features with κ < 3 only one can be fractional: it enters only where nobody else is active, the first of equals.
    """
    inside = (capacity > 0.0) & (capacity < 1.0)
    if scale == 0.0:
        return np.zeros_like(inside)
    entering = (capacity == 0.0) & (0.5 * first >= scale * (1.0 - 1e-12))
    active: npt.NDArray[np.bool_] = inside | (entering & (kurtosis >= 3.0))
    if not active.any():
        active[np.flatnonzero(entering)[:1]] = True
    return active
