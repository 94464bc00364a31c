"""How the optimum moves with the data: derivatives of capacity, price and loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

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
        By the envelope theorem: the partial derivatives of L at fixed capacity.
    loss_dimensions : float
        −price.
    price_importance, price_kurtosis : (n,) arrays
    price_dimensions : float
    capacity_dimensions : (n,) array
        How an additional bit of budget is shared; sums to 1 (0 where the budget has slack).
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
    _local: FloatArray  # ∂C_i/∂(v_i, κ_i) at fixed price and trace, shape (2, n)
    _coupling: FloatArray  # ∂C_i/∂(price scale, trace) at fixed v and κ, shape (2, n)
    _shift: FloatArray  # ∂(scale, trace)/∂(v_j, κ_j), shape (2, 2, n)
    _absorber: int | None  # the κ = 3 feature whose capacity is what the others leave, if there is one

    def capacity_change(self, *, importance: Any = 0.0, kurtosis: Any = 0.0, dimensions: float = 0.0) -> FloatArray:
        """Return the derivative of all capacities, shape (n,), along the given direction of the data."""
        n = self.active.size
        change = self.capacity_dimensions * scalar("dimensions", dimensions)
        for k, (name, value) in enumerate((("importance", importance), ("kurtosis", kurtosis))):
            step = np.broadcast_to(real_array(name, value), (n,))
            moved = self._local[k] * step + self._coupling.T @ (self._shift[:, k] @ step)
            if self._absorber is not None:
                moved[self._absorber] = -moved.sum()
            change = change + moved
        return change

    def capacity_jacobian(self, parameter: str) -> FloatArray:
        """Return ∂C_i/∂p_j, shape (n, n), for ``parameter`` "importance" or "kurtosis"."""
        if parameter not in ("importance", "kurtosis"):
            raise ValueError(f'parameter must be "importance" or "kurtosis", got {parameter!r}')
        k = 0 if parameter == "importance" else 1
        jacobian = np.diag(self._local[k]) + self._coupling.T @ self._shift[:, k]
        if self._absorber is not None:
            jacobian[self._absorber] = -jacobian.sum(axis=0)
        return jacobian


def sensitivity(model: QuadraticLoss, capacity: FloatArray, scale: float) -> Sensitivity:
    """Differentiate the optimum of the quadratic loss; ``scale`` is τ = √(price/2) there.

    The optimum satisfies τ (2 + (κ_i−3) C_i) = v_i (κ_i−1) + T for the active features, Σ C_i = D, and
    T = Σ (v_i − m_i) with m_i = τ C_i (active) or v_i + T/(κ_i−1) (full); T = 0 with a bias. Implicit
    differentiation leaves two linear equations for the changes of τ and T.

    At a kink (a feature just entering or just full) the derivatives are those of a *growing* budget: features
    about to enter count as active, full ones stay full.

    Raises
    ------
    ValueError
        When two features with κ = 3 are tied at the price: their shares are arbitrary and have no derivatives.
    """
    v, k = model.importance, model.kurtosis
    a, e = k - 1.0, k - 3.0
    trace = model.trace(capacity)
    ve = model.effective_importance(trace)
    full = capacity == 1.0
    denominator = 1.0 + 0.5 * e * np.where(full, 0.0, capacity)
    share = np.where(full, 0.0, (1.0 - capacity) / denominator)
    inverse_a = np.zeros_like(a) if model.bias else 1.0 / a
    # f = v_e² a (1−C)/(1+γC), and L = Σ f − T² (1 + Σ 1/a) without bias, stationary in T.
    loss_v = 2.0 * a * ve * share
    loss_k = ve**2 * share * (1.0 - 0.5 * a * capacity / denominator) + trace * (trace - loss_v) * inverse_a**2

    price = 2.0 * scale**2
    entering = (capacity == 0.0) & (model.marginal(capacity) >= price * (1.0 - 1e-12))
    active = ~full & ((capacity > 0.0) | entering) & (scale > 0.0)
    n = v.size
    local, coupling, shift = np.zeros((2, n)), np.zeros((2, n)), np.zeros((2, 2, n))
    growth, grown = np.zeros(2), np.zeros(n)
    linear = np.flatnonzero(active & (e == 0.0))
    if active.any():
        # C_i = (v_i a_i + T − 2τ) / (τ e_i): its partial derivatives, for the features that are not linear
        i = active & (e != 0.0)
        local[:, i] = a[i] / (scale * e[i]), (v[i] / scale - capacity[i]) / e[i]
        coupling[0, i] = -(2.0 + e[i] * capacity[i]) / (scale * e[i])
        coupling[1, i] = 0.0 if model.bias else 1.0 / (scale * e[i])
        # Trace: R₂ = Σ_{not full} v − τ (D − #full) − T Σ_full 1/a − T
        system, rhs, budget = np.eye(2), np.zeros((2, 2, n)), np.zeros(2)
        if not model.bias:
            system[1] = -float(capacity[~full].sum()), -1.0 - float(inverse_a[full].sum())
            rhs[1] = np.where(full, 0.0, 1.0), np.where(full, trace * inverse_a**2, 0.0)
            budget[1] = -scale
        if linear.size > 1:
            raise ValueError(
                f"features {linear[0]} and {linear[1]} have kurtosis 3 and the same marginal value: how they share is "
                "arbitrary and has no derivative"
            )
        if linear.size:
            # R₁ = 2τ − v a − T of the linear feature fixes the price; it absorbs what the others leave.
            j = int(linear[0])
            system[0] = 2.0, (0.0 if model.bias else -1.0)
            rhs[0, :, j] = -a[j], scale * capacity[j] - v[j]
        else:
            system[0] = coupling.sum(axis=1)  # R₁ = Σ C − D
            rhs[0] = local
            budget[0] = -1.0
        shift[:] = -np.linalg.solve(system, rhs.reshape(2, -1)).reshape(2, 2, n)
        growth[:] = -np.linalg.solve(system, budget)
        grown = coupling.T @ growth
        if linear.size:
            grown[j] = 1.0 - grown.sum()
    return Sensitivity(
        loss_importance=loss_v,
        loss_kurtosis=loss_k,
        loss_dimensions=-price,
        price_importance=4.0 * scale * shift[0, 0],
        price_kurtosis=4.0 * scale * shift[0, 1],
        price_dimensions=float(4.0 * scale * growth[0]),
        capacity_dimensions=grown,
        active=active,
        _local=local,
        _coupling=coupling,
        _shift=shift,
        _absorber=int(linear[0]) if linear.size else None,
    )
