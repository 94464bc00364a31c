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
    def convex(self) -> bool:
        """Whether every f_i is convex: then equal marginal loss is all there is to an optimum."""
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

    def steepest(self, capacity: FloatArray) -> FloatArray:
        """Return max over C' > C_i of (f_i(C_i) − f_i(C')) / (C' − C_i), shape (n,), 0 where C_i = 1.

        The best average saving that more capacity could bring: the marginal value where f_i is convex, a chord's
        slope where it is not.
        """
        ...

    def response(self, price: float) -> FloatArray:
        """Return the capacities that minimise L(C) + price · ΣC, the smallest where several do; shape (n,)."""
        ...

    def lower_bound(self, price: float, dimensions: float) -> float:
        """Return min_C [L(C) + price · ΣC] − price · dimensions, which no allocation of that budget can beat."""
        ...

    def normalised(self, capacity: FloatArray) -> tuple[LossModel, float]:
        """Return an equivalent model whose loss at ``capacity`` neither over- nor underflows, and a unit.

        Losses of this model are those of the other times the square of the unit.
        """
        ...
