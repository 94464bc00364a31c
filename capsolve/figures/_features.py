"""The features' axis: who comes when, what they are called, and where the dots go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray
from capsolve.allocation import Allocation, Phase
from capsolve.figures._style import COLOURS, CROWD, MARKERS, whole_numbers
from capsolve.losses.quadratic import QuadraticLoss

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 32  # up to so many features are labelled one by one
LONGEST = 20  # characters of a name
LINEAR = 2000  # up to so many ranks are spaced evenly; more are spaced by their logarithm


@dataclass(frozen=True)
class FeatureAxis:
    """The features' axis: who comes when, and where the dots go."""

    order: npt.NDArray[np.intp]
    """Feature of each rank."""
    title: str
    labels: list[str] | None
    """One per rank, if there are few."""

    @property
    def rank(self) -> FloatArray:
        return np.arange(1.0, self.order.size + 1.0)

    @property
    def logarithmic(self) -> bool:
        return self.order.size > LINEAR

    @property
    def limits(self) -> tuple[float, float]:
        return (0.8, 1.15 * self.order.size) if self.logarithmic else (0.5, self.order.size + 0.5)

    def sample(self, count: int) -> npt.NDArray[np.intp]:
        """Return about ``count`` different positions, the first and the last included, evenly on the axis."""
        n = self.order.size
        spaced = np.geomspace(1.0, n, count) if self.logarithmic else np.linspace(1.0, n, count)
        return np.unique(np.rint(spaced).astype(np.intp)) - 1

    @property
    def diameter(self) -> FloatArray:
        """In points: smaller where dots are closer, larger than their distance where they are very close."""
        low, high = np.log(self.limits) if self.logarithmic else self.limits
        distance = 400.0 / (high - low) / (self.rank if self.logarithmic else np.ones(self.order.size))
        return np.clip(2.2 * distance**0.35, 0.6, 6.0)


def called(names: Sequence[str] | None, features: int, which: npt.NDArray[np.intp], most: int = LONGEST) -> list[str]:
    """Return names of the features ``which``, cut in the middle; `ValueError` if there is not one for each of all."""
    if names is not None and len(names) != features:
        raise ValueError(f"names must have one entry per feature: {features} features, got {len(names)} names")
    return [_short(str(i if names is None else names[i]), most) for i in which.tolist()]


def sorted_features(allocation: Allocation, names: Sequence[str] | None) -> FeatureAxis:
    """Return the features in the order in which they are drawn, with their names if they are few."""
    model, names = allocation.model, allocation.names if names is None else names
    n = model.features
    if isinstance(model, QuadraticLoss):
        order = np.lexsort((-model.kurtosis, -model.importance))
        title = "features, most important first"
    else:
        order = np.argsort(-model.feature_loss(np.zeros(n)), kind="stable")
        title = "features, costliest to ignore first"
    labels = called(names, n, order if n <= NAMED else order[:0])
    return FeatureAxis(order, title, labels or None)


def _short(name: str, most: int) -> str:
    tail = most * 2 // 5
    return name if len(name) <= most else f"{name[: most - 1 - tail]}…{name[-tail:]}"


def draw_dots(ax: Axes, features: FeatureAxis, height: FloatArray, phase: npt.NDArray[np.int8]) -> None:
    """Draw one dot per feature, in one collection per phase or two: where all have one size, drawing is fast."""
    n = phase.size
    for kind in reversed(Phase):
        everyone = np.flatnonzero(phase[features.order] == kind)
        for some in np.split(everyone, [np.searchsorted(everyone, LINEAR)]):
            diameter = features.diameter[some]
            if diameter.size and (diameter == diameter[0]).all():
                diameter = diameter[:1]
            ax.scatter(
                features.rank[some],
                height[features.order[some]],
                s=diameter**2,
                marker=MARKERS[kind],
                color=COLOURS[kind],
                linewidths=(0.18 * diameter).tolist() if kind is Phase.IGNORED else 0.0,
                rasterized=n > CROWD,
                clip_on=False,
                zorder=3 + 2 * kind,
                label=kind.name.lower(),
            )


def label_features(ax: Axes, features: FeatureAxis) -> None:
    """Make the horizontal axis that of the features."""
    if features.logarithmic:
        ax.set_xscale("log")
    elif features.labels is not None:
        upright = sum(map(len, features.labels)) > 80
        ax.set_xticks(features.rank, features.labels, rotation=90 if upright else 0, parse_math=False)
    else:
        whole_numbers(ax.xaxis)
    ax.set_xlim(features.limits)
    ax.set_xlabel(features.title)
