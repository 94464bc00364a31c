"""Theory transfer: predict the allocation of a trained network from the loss curve of equal features, then train it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from capsolve._checks import FloatArray, at_least, real_array
from capsolve.allocation import Allocation, allocate, solve
from capsolve.simulate.inputs import Inputs
from capsolve.simulate.loss_curves import LossCurve, measure_loss_curve
from capsolve.simulate.networks import Training, train


@dataclass(frozen=True, eq=False, repr=False)
class Transfer:
    """Predictions and trained networks; there are m profiles of importance, of n features each.

    Attributes
    ----------
    curve : LossCurve
        What the predictions come from.
    importance : (m, n) array
    predictions : tuple of m Allocation
        Made before any of these networks was trained.
    training : Training
        The networks; its cells are the m profiles.
    """

    curve: LossCurve
    importance: FloatArray
    predictions: tuple[Allocation, ...]
    training: Training

    @functools.cached_property
    def predicted(self) -> FloatArray:
        """The predicted capacities, shape (m, n)."""
        return np.stack([allocation.capacity for allocation in self.predictions])

    @functools.cached_property
    def trained(self) -> FloatArray:
        """The capacities of the best trained networks, shape (m, n)."""
        return self.training.capacity

    @property
    def predicted_loss(self) -> FloatArray:
        """The loss of the predictions, shape (m,)."""
        return np.array([allocation.loss for allocation in self.predictions])

    @property
    def trained_loss(self) -> FloatArray:
        """The loss of the best trained networks, shape (m,)."""
        return self.training.best_loss

    @functools.cached_property
    def rivals(self) -> dict[str, FloatArray]:
        """What one would say without having measured a curve, shape (m, n) each.

        Equal shares, D/n for all; the D most important features, whole; and the formula of the quadratic model with
        importance v_i, √I_i in the autoencoder, and kurtosis E x⁴/(E x²)².
        """
        m, n = self.importance.shape
        D, sum_model = self.training.dimensions, self.curve.model.startswith("sum")
        rank = np.argsort(np.argsort(-self.importance, axis=1, kind="stable"), axis=1)
        v = self.importance if sum_model else np.sqrt(self.importance)
        kurtosis = _kurtosis(self.curve.inputs, self.curve.density)
        return {
            "equal shares": np.full((m, n), min(1.0, D / n)),
            "the most important": (rank < D).astype(float),
            "quadratic formula": np.stack([solve(row, kurtosis, D).capacity for row in v]),
        }

    def errors(self) -> dict[str, float]:
        """Return the root mean square difference to the trained capacities, of the prediction and its rivals."""
        said = {"prediction": self.predicted, **self.rivals}
        return {name: float(np.sqrt(np.mean((values - self.trained) ** 2))) for name, values in said.items()}

    def summary(self) -> str:
        """Return a text for people: errors beside those of the rivals, the loss, and where it fails most."""
        m, n = self.importance.shape
        ratio = self.predicted_loss / self.trained_loss
        worst = np.unravel_index(np.argmax(np.abs(self.predicted - self.trained)), self.trained.shape)
        lines = [
            f"{self.curve.model} at density {self.curve.density:g}: {m} profiles of {n} features in "
            f"{self.training.dimensions} dimensions",
            "",
            f"{'capacity from':<20}{'rms difference to trained networks':>36}",
            *(f"{name:<20}{error:>36.3f}" for name, error in self.errors().items()),
            "",
            f"predicted / trained loss: {np.median(ratio):.3f} (median), {ratio.min():.3f} to {ratio.max():.3f}",
            f"worst feature: profile {worst[0]}, feature {worst[1]} of importance {self.importance[worst]:.3g}: "
            f"predicted {self.predicted[worst]:.3f}, trained {self.trained[worst]:.3f}",
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers and lists, ready for JSON."""
        names = ("predicted", "trained", "predicted_loss", "trained_loss")
        return {
            "model": self.curve.model,
            "density": self.curve.density,
            "dimensions": self.training.dimensions,
            "curve": {name: getattr(self.curve, name).tolist() for name in ("capacity", "loss", "measured", "spread")},
            "importance": self.importance.tolist(),
            **{name: getattr(self, name).tolist() for name in names},
            "dispersion": self.training.dispersion.tolist(),
            "errors": self.errors(),
        }

    def __repr__(self) -> str:
        m, n = self.importance.shape
        return (
            f"Transfer({self.curve.model}, {m} profiles of {n} features in {self.training.dimensions} dimensions: "
            f"capacities differ by {self.errors()['prediction']:.3f} rms)"
        )


def transfer(
    model: str,
    importance: Any,
    density: float,
    *,
    dimensions: int,
    curve: LossCurve | None = None,
    smooth: bool = True,
    inputs: Inputs | None = None,
    instances: int = 8,
    rng: Any = None,
    progress: bool = False,
    **settings: Any,
) -> Transfer:
    """Predict how a network shares its dimensions among unequal features, then train it and compare.

    The prediction minimises Σ s_i f(C_i) subject to Σ C_i ≤ D, 0 ≤ C_i ≤ 1, where f is the loss curve of equal features
    (`measure_loss_curve`) and s_i is v_i² in the sum model, I_i in the autoencoder. For the quadratic sum model this is
    the theory itself (arXiv 2210.01892), and the comparison a positive control. For others it assumes that their loss
    is separable in capacities, and that one curve serves all features: nothing says so.

    Parameters
    ----------
    model, density, dimensions
        As for `capsolve.simulate.train`, with a single density.
    importance : array_like, shape (n,) or (m, n)
        One or several profiles of importance, not all equal, for the prediction to have content.
    curve : LossCurve, optional
        A curve of this model, density and inputs; measured if not given.
    smooth : bool
        How the curve is interpolated; see `LossCurve.loss_model`.
    inputs, instances, rng, progress, **settings
        As for `capsolve.simulate.train`; ``points`` is 4096 unless given.

    Returns
    -------
    Transfer

    Raises
    ------
    ImportError
        If JAX or Optax is missing: the extra ``train``.
    ValueError
        For bad arguments, a curve of something else, and when all instances of one profile diverged.

    Examples
    --------
    >>> from capsolve.simulate import measure_loss_curve, transfer
    >>> curve = measure_loss_curve("sum-quadratic", 0.2, rng=0)  # doctest: +SKIP
    >>> report = transfer("sum-quadratic", [1.8, 1, 1], 0.2, dimensions=1, curve=curve, rng=0)  # doctest: +SKIP
    >>> report.predicted.round(1), report.trained.round(1)  # doctest: +SKIP
    (array([[0.6, 0.2, 0.2]]), array([[0.6, 0.2, 0.2]]))
    """
    v = real_array("importance", importance)
    if v.ndim not in (1, 2) or v.size == 0:
        raise ValueError(f"importance must have the shape (n,) or (m, n), got {v.shape}")
    v = np.atleast_2d(v)
    at_least("importance", v, 0.0)
    generator = np.random.default_rng(rng)
    seeds = generator.integers(2**31, size=2).tolist()
    given: dict[str, Any] = {"instances": instances, "progress": progress, "points": 4096} | settings
    if curve is None:
        curve = measure_loss_curve(model, density, inputs=inputs, rng=seeds[0], **given)
    if not isinstance(curve, LossCurve):
        raise ValueError(f"curve must be a capsolve.simulate.LossCurve, got {curve!r}")  # noqa: TRY004
    wanted = (model, density, inputs or curve.inputs)
    if (curve.model, curve.density, curve.inputs) != wanted:
        raise ValueError(f"curve must be that of {wanted}, got {(curve.model, curve.density, curve.inputs)}")
    predictions = tuple(allocate(curve.loss_model(row, smooth=smooth), dimensions) for row in v)
    training = train(model, v, density, dimensions=dimensions, inputs=curve.inputs, rng=seeds[1], **given)
    if (lost := training.diverged.all(axis=-1)).any():
        raise ValueError(f"all networks of profile {int(np.argmax(lost))} diverged: try a lower learning_rate")
    return Transfer(curve, v, predictions, training)


def _kurtosis(inputs: Inputs, density: float) -> float:
    """Return E x⁴ / (E x²)² of one feature, whose mean need not be 0."""
    if inputs.symmetric:
        return inputs.kurtosis(density)
    second, fourth = ((1.0 - inputs.low**power) / power / (1.0 - inputs.low) for power in (3, 5))
    return fourth / second**2 / density
