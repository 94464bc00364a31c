"""What must a loss know to be solved and certified? The protocol of all models, and a recipe for a new one.

A model with convex losses of its own is one class in one file. It derives from `ConvexLoss` and says four things; the
solver (`capsolve.solvers.separable`), the certificate, tables and figures then take it as they take the others:

>>> import numpy as np
>>> import capsolve
>>> from capsolve.losses.model import ConvexLoss
>>> class SquaredLoss(ConvexLoss):
...     '''f_i(C) = v_i (1 − C)²: what is left of each feature, squared.'''
...
...     def __init__(self, importance):
...         self.importance = np.asarray(importance, dtype=float)
...
...     @property
...     def features(self):
...         return self.importance.size
...
...     def feature_loss(self, capacity):
...         return self.importance * (1.0 - np.asarray(capacity)) ** 2
...
...     def marginal(self, capacity, *, growing=True):
...         return 2.0 * self.importance * (1.0 - np.asarray(capacity))
...
...     def response(self, price):  # where the marginal value is the price
...         safe = np.where(self.importance > 0.0, self.importance, 1.0)
...         return np.where(self.importance > 0.0, np.clip(1.0 - price / (2.0 * safe), 0.0, 1.0), 0.0)
>>> allocation = capsolve.allocate(SquaredLoss([4.0, 2.0, 1.0]), dimensions=1.5)
>>> allocation.status.value, allocation.capacity.round(6)
('optimal', array([0.785714, 0.571429, 0.142857]))

What is asked of it: f_i is convex on [0, 1], ``marginal`` is minus its derivative, and ``response`` its inverse,
between 0 and 1. A wrong response shows: the certificate uses the marginal values only. A wrong ``feature_loss`` beside
right marginal values does not: hold one against the other in a test, as ``tests/losses/test_neuron_noise.py`` does.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any, Protocol, TypeGuard

import numpy as np

from capsolve._checks import FloatArray, former_property, renamed

# Capacities at which a curve is drawn: closer together where rare inputs make it steep.
CURVE_GRID = np.unique(np.concatenate([np.geomspace(1e-8, 1e-2, 60), np.linspace(0.0, 1.0, 201)]))


class LossModel(Protocol):
    """A loss L(C) = Σ f_i(C_i) of capacities C in [0, 1]ⁿ. Implementations are frozen and have validated their data."""

    @property
    def features(self) -> int:
        """The number of features, n."""
        ...

    @property
    def convex(self) -> bool:
        """Whether every f_i is convex: then equal marginal loss is all there is to an optimum."""
        ...

    @property
    def saturation_budget(self) -> float:
        """The most capacity that can be of use: with a budget from here upwards the price is 0."""
        ...

    @property
    def floor(self) -> float:
        """A lower bound on the loss for an unlimited budget, Σ min f_i."""
        ...

    def feature_loss(self, capacity: Any) -> Any:
        """Return f_i(C_i), shape (n,); its sum is the loss."""
        ...

    def excess_loss(self, capacity: Any) -> Any:
        """Return by how much f_i(C_i) exceeds the least value of f_i, shape (n,), without what both have in common."""
        ...

    def marginal(self, capacity: Any, *, growing: bool = True) -> Any:
        """Return −∂L/∂C_i, shape (n,): what the next bit of capacity saves (the last bit, if not ``growing``)."""
        ...

    def average_gain(self, capacity: Any) -> Any:
        """Return max over C' > C_i of (f_i(C_i) − f_i(C')) / (C' − C_i), shape (n,), 0 where C_i = 1.

        The best average saving that more capacity could bring: the marginal value where f_i is convex, a chord's
        slope where it is not.
        """
        ...

    def lagrangian_gap(self, capacity: Any, price: float) -> Any:
        """Return by how much f_i(C_i) + price · C_i exceeds its least value over [0, 1], or more; shape (n,)."""
        ...

    def marginal_curve(self, feature: int, capacity: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return capacities from 0 to 1 and what the next bit would be worth to one feature there."""
        ...

    def response(self, price: float) -> FloatArray:
        """Return the capacities that minimise L(C) + price · ΣC, the smallest where several do; shape (n,)."""
        ...

    def normalised(self, capacity: FloatArray) -> tuple[LossModel, float]:
        """Return an equivalent model whose loss at ``capacity`` neither over- nor underflows, and a unit.

        Losses of this model are those of the other times the square of the unit.
        """
        ...


class FormerNames:
    """The former names of methods of `QuadraticLoss` and `TabulatedLoss`."""

    demand = former_property("demand", "saturation_budget")

    def steepest(self: Any, capacity: Any) -> Any:
        """Return `average_gain`."""
        renamed("steepest", "average_gain")
        return self.average_gain(capacity)

    def lower_bound(self: Any, price: float, dimensions: float) -> float:
        """Return `capsolve.certificate.lagrangian_bound`."""
        from capsolve.certificate import lagrangian_bound  # noqa: PLC0415

        renamed("lower_bound(price, dimensions)", "capsolve.certificate.lagrangian_bound(model, price, dimensions)")
        return lagrangian_bound(self, price, dimensions)


def is_loss_model(model: Any) -> TypeGuard[LossModel]:
    """Return whether an object fulfils the protocol; its properties are not evaluated for that."""
    names = [name for name in vars(LossModel) if not name.startswith("_")]
    return not isinstance(model, type) and all(hasattr(type(model), name) for name in names)


class ConvexLoss(ABC):
    """A model of convex losses f_i that needs to say four things only: see the module for the recipe."""

    @property
    @abstractmethod
    def features(self) -> int:
        """The number of features, n."""

    @abstractmethod
    def feature_loss(self, capacity: Any) -> FloatArray:
        """Return f_i(C_i), shape (n,)."""

    @abstractmethod
    def marginal(self, capacity: Any, *, growing: bool = True) -> FloatArray:
        """Return −f_i'(C_i), shape (n,): to the right, or to the left if not ``growing``."""

    @abstractmethod
    def response(self, price: float) -> FloatArray:
        """Return the smallest C_i in [0, 1] that minimise f_i(C) + price · C, shape (n,)."""

    @property
    def convex(self) -> bool:
        """Whether every f_i is convex: yes."""
        return True

    @functools.cached_property
    def saturation_budget(self) -> float:
        """The most capacity that can be of use."""
        return float(np.sum(self.response(0.0)))

    @functools.cached_property
    def floor(self) -> float:
        """The loss with unlimited dimensions."""
        return float(np.sum(self.feature_loss(self.response(0.0))))

    def excess_loss(self, capacity: Any) -> FloatArray:
        """Return f_i(C_i) above its least value, shape (n,)."""
        return self.feature_loss(capacity) - self.feature_loss(self.response(0.0))

    def average_gain(self, capacity: Any) -> FloatArray:
        """Return the marginal value, shape (n,), 0 where C_i = 1."""
        return np.where(np.asarray(capacity) < 1.0, np.maximum(self.marginal(capacity), 0.0), 0.0)

    def lagrangian_gap(self, capacity: Any, price: float) -> FloatArray:
        """Return the tangents' bounds max(C (λ−m), (1−C) (m−λ)), shape (n,), m the marginal values."""
        c = np.asarray(capacity)
        last, following = self.marginal(c, growing=False), self.marginal(c)
        return np.maximum(np.maximum(c * (price - last), (1.0 - c) * (following - price)), 0.0)

    def marginal_curve(self, feature: int, capacity: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return `CURVE_GRID` and the marginal values of one feature there."""
        value = np.empty(CURVE_GRID.size)
        for i, c in enumerate(CURVE_GRID):
            there = np.array(capacity)
            there[feature] = c
            value[i] = self.marginal(there)[feature]
        return CURVE_GRID, value

    def normalised(self, capacity: FloatArray) -> tuple[LossModel, float]:
        """Return the model as it is."""
        return self, 1.0
