"""``python -m studies.transfer``: does the theory, given the loss curve of another architecture, predict it?

For every model and density the loss curve f(C) is measured on networks of 8 equal features in 1 … 8 dimensions. From it
come predictions for 8 random profiles of 6 unequal features in 3 dimensions, which are then trained. The sum model with
the quadratic activation is the positive control: there the theory is exact. Two more numbers look for reasons. ``size``
is how much the curve measured on 4 features in 1, 2, 3 dimensions differs from that of 8 in 2, 4, 6, where a loss that
is separable in capacities would have it the same. ``alone`` is what is left, relative to having learnt nothing, of a
single feature of importance 3 with a dimension of its own, which the prediction puts at the curve's end.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.timing import keep
from capsolve.simulate import measure_loss_curve, train, transfer

MODELS = ("sum-quadratic", "sum-relu", "sum-gelu", "autoencoder-relu")
DENSITIES = (0.3, 0.1, 0.03)
PROFILES, FEATURES, DIMENSIONS = 8, 6, 3
RESULTS = Path(__file__).parent / "results" / "transfer.json"


def profiles(model: str) -> Any:
    """Return importances whose weight in the loss spans a factor of 100: v = 10^[-1/2, 1/2] and I = v²."""
    v = 10 ** np.random.default_rng(1).uniform(-0.5, 0.5, (PROFILES, FEATURES))
    v = -np.sort(-v, axis=1)
    return v if model.startswith("sum") else v**2


def record(model: str, density: float, progress: bool) -> dict[str, Any]:
    """Measure, predict, train and compare."""
    start = time.perf_counter()
    given: dict[str, Any] = {"rng": 0, "progress": progress}
    curve = measure_loss_curve(model, density, **given)
    # An autoencoder's curve has a kink at 1/2, where pairs of features share a dimension: no cubic goes through it.
    smooth = model.startswith("sum")
    report = transfer(
        model, profiles(model), density, dimensions=DIMENSIONS, curve=curve, smooth=smooth, instances=16, **given
    )
    small = measure_loss_curve(model, density, features=4, **given)
    alone = train(model, [3.0], density, dimensions=1, **given)
    ratio = report.predicted_loss / report.trained_loss
    click.echo(report.summary() + "\n")
    return report.to_dict() | {
        "seconds": time.perf_counter() - start,
        "loss_ratio": {"median": np.median(ratio), "least": ratio.min(), "most": ratio.max()},
        "size": (small.measured[1:-1] / curve.measured[2:-1:2] - 1).tolist(),
        "alone": float(alone.best_loss / alone.baseline),
        "curve_end": float(curve.loss[-1] / curve.loss[0]),
    }


@click.command()
@click.argument("models", nargs=-1, type=click.Choice(MODELS))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS, show_default=True)
@click.option("--progress/--no-progress", default=False)
def main(models: tuple[str, ...], output: Path, progress: bool) -> None:
    """Measure loss curves, predict allocations, train networks and compare.

    Records of models that are not named stay in the output as they are.
    """
    old = json.loads(output.read_text())["records"] if output.exists() else []
    records = [entry for entry in old if models and entry["model"] not in models]
    for model in models or MODELS:
        records += [record(model, density, progress) for density in DENSITIES]
        keep(output, records=sorted(records, key=lambda entry: MODELS.index(entry["model"])))


if __name__ == "__main__":
    main()
