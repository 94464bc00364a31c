"""``python -m studies.training``: how the settings of `capsolve.simulate.train` were chosen.

36 cells of the family of Fig. 4: one feature of importance 0.03 … 30 among five of importance 1, in 3 dimensions, at
densities 1 … 0.001. Every setting trains all six models there. What counts is the excess: how far the best loss of a
cell lies above the least loss that any of the runs here has found for it, and for the sum model with the quadratic
activation above the exact optimum; the share of cells in which it is below 1 %; and what one network
costs (blocks of 24 networks: those of large sweeps cost less).
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.timing import keep
from capsolve import embedding_loss, solve
from capsolve.simulate import MODELS, Training, train

IMPORTANCE, DENSITY = np.geomspace(0.03, 30, 6), np.geomspace(1, 0.001, 6)
CHOSEN = {"steps": 2000, "schedule": "cosine", "points": 512, "instances": 4}
RATE = {"sum": 0.3, "autoencoder": 0.03}
VARIANTS: list[dict[str, Any]] = [
    *({"learning_rate": rate} for rate in (0.01, 0.03, 0.1, 0.3)),
    {"steps": 500},
    {"schedule": "constant", "learning_rate": 0.01},
    *({"points": points} for points in (256, 2048)),
    {"instances": 16},
]


def settings(model: str, changed: dict[str, Any]) -> dict[str, Any]:
    return CHOSEN | {"learning_rate": RATE[model.partition("-")[0]]} | changed


def run(model: str, **changed: Any) -> tuple[Training, float]:
    """Train all cells; return the result and the seconds of processor time, with those of compiling."""
    importance = np.ones((IMPORTANCE.size, DENSITY.size, 6))
    importance[..., 0] = IMPORTANCE[:, None]
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # diverged instances are counted
        result = train(model, importance, DENSITY, dimensions=3, rng=0, **settings(model, changed))
    return result, time.process_time() - start


def exact(result: Training) -> dict[str, Any]:
    """Hold networks of the quadratic sum model against the exact optimum and the exact loss of their embeddings."""
    excess, error = np.empty(result.best.shape), np.empty(result.best.shape)
    for cell in np.ndindex(*result.best.shape):
        scale, kurtosis = result.inputs.variance(p := result.density[cell]), result.inputs.kurtosis(p)
        v = result.importance[cell] * scale
        best = solve(v, kurtosis, result.dimensions)
        W = result.best_embedding[cell].astype(np.float64) * np.sqrt(scale)
        excess[cell] = embedding_loss(W, v, kurtosis) / best.loss - 1
        error[cell] = abs(result.capacity[cell][0] - best.capacity[0])
    return {"excess_over_exact": spread(excess), "error_of_odd_capacity": spread(error)}


def spread(values: Any) -> dict[str, float]:
    median, high, most = np.nanquantile(values, [0.5, 0.9, 1.0])
    return {"median": median, "q90": high, "max": most}


def study(models: tuple[str, ...]) -> list[dict[str, Any]]:
    records = []
    for model in models:
        runs = []
        for changed in [v for v in VARIANTS if settings(model, v) != settings(model, {})] + [{}]:
            result, seconds = run(model, **changed)
            runs.append((changed, result, seconds))
        known = np.min([result.best_loss for _, result, _ in runs], axis=0)
        for changed, result, seconds in runs:
            excess = result.best_loss / known - 1
            record = {
                "model": model,
                **settings(model, changed),
                "cpu_milliseconds_per_network": 1e3 * seconds / result.loss.size,
            }
            record |= {"excess": spread(excess), "within_1_percent": float((excess < 0.01).mean())}
            record |= {"gradient": spread(result.gradient), "diverged": int(result.diverged.sum())}
            alone = result.loss / known[..., None] - 1
            record["one_instance_within_1_percent"] = float((alone < 0.01).mean())
            if model == "sum-quadratic":
                record |= exact(result)
            records.append(record)
            click.echo(
                f"{model:22s} {changed!s:44s} excess {record['excess']['median']:8.1e} {record['excess']['q90']:8.1e} "
                f"{record['excess']['max']:8.1e}  within 1 %: {record['within_1_percent']:4.0%} "
                f"(one instance {record['one_instance_within_1_percent']:4.0%})  gradient "
                f"{record['gradient']['median']:7.1e}  {record['cpu_milliseconds_per_network']:6.2f} ms  "
                + " ".join(
                    f"{record[k]['median']:.1e}" for k in ("excess_over_exact", "error_of_odd_capacity") if k in record
                )
            )
    return records


@click.command()
@click.option("--model", "models", multiple=True, type=click.Choice(MODELS), help="Default: all six.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path(__file__).parent / "results/training.json"
)
def main(models: tuple[str, ...], output: Path) -> None:
    """Compare settings of training."""
    records = study(models or MODELS)
    keep(output, chosen=CHOSEN | {"learning_rate": RATE}, records=records)


if __name__ == "__main__":
    main()
