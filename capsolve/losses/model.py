"""What a solver may ask of a loss: the interface that `QuadraticLoss` and `TabulatedLoss` share."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from capsolve._checks import FloatArray


@runtime_checkable
class LossModel(Protocol):
    """A loss L(C) of the capacities C in [0, 1]ⁿ. Implementations are frozen and have validated their data."""

    @property
    def features(self) -> int:
        """The number of features, n."""
        ...

    @property
    def demand(self) -> float:
        """The most capacity that can be of use: with a budget from here upwards the price is 0."""
        ...

    @property
    def floor(self) -> float:
        """A lower bound on the loss for an unlimited budget, Σ min f_i."""
        ...

    def feature_loss(self, capacity: FloatArray) -> FloatArray:
        """Return f_i(C_i), shape (n,); its sum is the loss."""
        ...

    def marginal(self, capacity: FloatArray, *, growing: bool = True) -> FloatArray:
        """Return −∂L/∂C_i, shape (n,): what the next bit of capacity saves (the last bit, if not ``growing``)."""
        ...

    def response(self, price: float) -> FloatArray:
        """Return the capacities that minimise L(C) + price · ΣC, the smallest where several do; shape (n,)."""
        ...
