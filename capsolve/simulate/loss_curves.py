"""What a feature of a trained network still costs at a given capacity, measured on networks of equal features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from capsolve._checks import FloatArray, at_least, flag, real_array, scalar, whole
from capsolve.losses.tabulated import TabulatedLoss
from capsolve.simulate.inputs import Inputs
from capsolve.simulate.networks import train

_FINE = 20  # points of a smooth curve for each one that was measured


@dataclass(frozen=True, eq=False)
class LossCurve:
    """The loss per feature of networks of n equal features of importance 1, for D = 0, 1, …, n.

    Attributes
    ----------
    model : str
        One of `capsolve.simulate.MODELS`.
    inputs : Inputs
    density : float
        The probability that a feature is active.
    capacity : (n + 1,) array
        D/n, what each feature has if all have the same.
    loss : (n + 1,) array
        The least loss of all networks with that many dimensions or fewer, over n. At D = 0 that of the mean.
    measured : (n + 1,) array
        The least loss of the networks with that many dimensions, over n. It exceeds ``loss`` where training failed.
    spread : (n + 1,) array
        The standard deviation of the capacities in the best network. Where it is large the features did not share
        alike, and the value is an average over unequal capacities: the convex envelope of a curve, not the curve.
    """

    model: str
    inputs: Inputs
    density: float
    capacity: FloatArray
    loss: FloatArray
    measured: FloatArray
    spread: FloatArray

    def loss_model(self, importance: Any, *, smooth: bool = True) -> TabulatedLoss:
        """Return the separable loss Σ s_i f(C_i) that this curve predicts, s_i = v_i² (sum model) or I_i (autoencoder).

        Between the points that were measured f is a monotone cubic interpolant (PCHIP), or linear if not ``smooth``,
        which is better where the curve is known to have kinks on the grid.

        Examples
        --------
        >>> import numpy as np
        >>> line = np.linspace(0, 1, 3)
        >>> curve = LossCurve("sum-relu", Inputs(), 0.1, line, np.array([1.0, 0.3, 0.0]), 1 - line, 0 * line)
        >>> curve.loss_model([2.0, 1.0], smooth=False).feature_loss([0.5, 0.75])
        array([1.2 , 0.15])
        """
        v = real_array("importance", importance, ndim=1)
        at_least("importance", v, 0.0)
        weight = v**2 if self.model.startswith("sum") else v
        if not flag("smooth", smooth):
            return TabulatedLoss(self.loss, self.capacity, weight)
        fine = np.linspace(0.0, 1.0, _FINE * (self.capacity.size - 1) + 1)
        values = np.asarray(PchipInterpolator(self.capacity, self.loss)(fine))
        return TabulatedLoss(np.maximum(values, 0.0), fine, weight)


def measure_loss_curve(
    model: str,
    density: float,
    *,
    features: int = 8,
    inputs: Inputs | None = None,
    instances: int = 8,
    rng: Any = None,
    progress: bool = False,
    **settings: Any,
) -> LossCurve:
    """Measure the loss curve f(C) of an architecture: train n equal features in D = 1, …, n dimensions.

    If a loss is separable in capacities, L = Σ s_i f(C_i), and convex, then n features of weight 1 share D dimensions
    alike, C_i = D/n, and f(D/n) = L/n. Where f is not convex the optimum is a mixture and L/n its convex envelope,
    which is all that matters for the least total loss. For the quadratic sum model both statements are theorems
    (arXiv 2210.01892, section 4); for other architectures they are a guess, which `transfer` puts to the test.

    Parameters
    ----------
    model : str
        One of `capsolve.simulate.MODELS`.
    density : float
        The probability that a feature is active, in (0, 1].
    features : int
        n ≥ 2, which is also the number of points of the curve.
    inputs, instances, rng, progress, **settings
        As for `capsolve.simulate.train`; the best instance counts. ``points`` is 4096 unless given.

    Raises
    ------
    ImportError
        If JAX or Optax is missing: the extra ``train``.
    ValueError
        For bad arguments, and when all instances of one size diverged.

    Examples
    --------
    >>> from capsolve.simulate import measure_loss_curve
    >>> curve = measure_loss_curve("sum-quadratic", 0.2, features=2, instances=2, steps=500, rng=0)
    >>> (curve.loss / curve.loss[0]).round(2)  # theory: (1 - C) / (1 + 3C)
    array([1. , 0.2, 0. ])
    """
    p = scalar("density", density, low=0.0, high=1.0)
    n = whole("features", features, low=2)
    generator = np.random.default_rng(rng)
    measured: FloatArray = np.empty(n + 1)
    spread: FloatArray = np.zeros(n + 1)
    for D in range(1, n + 1):
        found = train(
            model,
            np.ones(n),
            p,
            dimensions=D,
            inputs=inputs,
            instances=instances,
            rng=int(generator.integers(2**31)),
            progress=progress,
            **{"points": 4096} | settings,
        )
        if found.diverged.all():
            raise ValueError(f"all networks with {n} features in {D} dimensions diverged: try a lower learning_rate")
        measured[0], measured[D] = found.baseline / n, found.best_loss / n
        spread[D] = found.capacity.std()
    return LossCurve(
        model=model,
        inputs=found.inputs,
        density=p,
        capacity=np.arange(n + 1) / n,
        loss=np.minimum.accumulate(measured),
        measured=measured,
        spread=spread,
    )
