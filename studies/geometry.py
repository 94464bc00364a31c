"""``python -m studies.geometry``: the geometry of trained networks, beside what is known of it.

* 400 equal features in 30 dimensions, ReLU autoencoder (Elhage et al. 2022): dimensions per represented feature,
  D* = D/‖W‖², over densities, and the capacities behind it. They report that D* sticks at 1 and at 1/2.
* 5 equal features in 2 dimensions: what they form at which density.
* Block sizes of 24 equal features in 8 dimensions: Scherlis et al. (arXiv 2210.01892) report one large block in the
  sum model and many small ones in the autoencoder.

Trained networks are not orthogonal to the last digit, so blocks are counted at the tolerances 0.1 and 0.2: two features
are linked where the cosine between them, or a little less for unequal lengths, is larger.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.timing import keep
from capsolve import blocks, efficiency
from capsolve.simulate import train

DENSITIES = (1.0, 0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.03, 0.01)
BINS = np.linspace(0, 1, 41)


def large(features: int, dimensions: int, steps: int) -> Iterator[dict[str, Any]]:
    for density in DENSITIES:
        start = time.process_time()
        result = train(
            "autoencoder-relu",
            np.ones(features),
            density,
            dimensions=dimensions,
            instances=1,
            objective="sampled",
            points=512,
            steps=steps,
            learning_rate=0.01,
            rng=0,
        )
        W = result.best_embedding.astype(np.float64)
        length = np.linalg.norm(W, axis=1)
        represented = length > length.max() / 2
        capacity = result.capacity[represented]
        yield {
            "experiment": "plateaus",
            "features": features,
            "dimensions": dimensions,
            "density": density,
            "steps": steps,
            "dimensions_per_feature": dimensions / float((W**2).sum()),
            "represented": int(represented.sum()),
            "capacity_quartiles": np.quantile(capacity, [0.25, 0.5, 0.75]).tolist(),
            "within_0.02_of_one_half": float((abs(capacity - 0.5) < 0.02).mean()),
            "efficiency": float(efficiency(W)),
            "relative_loss": float(result.best_loss / result.baseline),
            "histogram": np.histogram(result.capacity, BINS)[0].tolist(),
            "cpu_seconds": time.process_time() - start,
        }


def small() -> Iterator[dict[str, Any]]:
    result = train("autoencoder-relu", np.ones(5), DENSITIES, dimensions=2, rng=0)
    for cell, density in enumerate(DENSITIES):
        yield {
            "experiment": "five in two",
            "density": density,
            "capacity": np.sort(result.capacity[cell]).tolist(),
            "relative_loss": float(result.best_loss[cell] / result.baseline[cell]),
            "dispersion": float(result.dispersion[cell]),
        }


def block_sizes() -> Iterator[dict[str, Any]]:
    densities = (0.3, 0.1, 0.03, 0.01)
    for model in ("sum-quadratic", "sum-relu", "autoencoder-relu", "autoencoder-gelu"):
        result = train(model, np.ones(24), densities, dimensions=8, instances=4, points=1024, rng=0)
        for cell, density in enumerate(densities):
            W = result.best_embedding[cell]
            found = {
                str(tolerance): sorted(Counter(len(b.features) for b in blocks(W, tolerance=tolerance)).items())
                for tolerance in (0.1, 0.2)
            }
            yield {
                "experiment": "blocks",
                "model": model,
                "density": density,
                "sizes": found,  # pairs of a block's size and how many blocks have it
                "represented": int((result.capacity[cell] > 0.01).sum()),
                "efficiency": float(efficiency(W)),
                "relative_loss": float(result.best_loss[cell] / result.baseline[cell]),
            }


@click.command()
@click.option("--features", default=400, show_default=True)
@click.option("--dimensions", default=30, show_default=True)
@click.option("--steps", default=3000, show_default=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path(__file__).parent / "results/geometry.json"
)
def main(features: int, dimensions: int, steps: int, output: Path) -> None:
    """Train, and measure what came out."""
    records = []
    for record in itertools.chain(small(), block_sizes(), large(features, dimensions, steps)):
        records.append(record)
        shown = {k: np.round(v, 3).tolist() if isinstance(v, float | list) else v for k, v in record.items()}
        shown.pop("histogram", None)
        click.echo(" ".join(f"{key}={value}" for key, value in shown.items()))
    keep(output, records=records)


if __name__ == "__main__":
    main()
