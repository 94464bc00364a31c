"""``python -m benchmarks.training``: a sweep of small trainings beside the same ones, one after another, in PyTorch.

100 networks of 6 features in 3 dimensions take 1,000 steps of Adam on the same points, from the same starts and with
the same learning rates: `capsolve.simulate.train` all at once, PyTorch (eager, CPU build) one at a time, as a loop over
seeds would. Rounds alternate between the two. PyTorch's time is that of a few of its trainings, scaled up to 100; ours
is given with compiling and without. The losses at the end are compared network by network.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.timing import keep, summary
from capsolve.simulate import Inputs, Training, train

FEATURES, DIMENSIONS, NETWORKS, STEPS, POINTS, RATE = 6, 3, 100, 1000, 512, 0.03
DENSITY = 0.05
SETS = 16  # of points, taken in turn
SPREAD = np.sqrt(2 / (FEATURES + DIMENSIONS))  # of the starts, as in `train`
IMPORTANCE = 0.7 ** np.arange(FEATURES)


def sweep(model: str) -> Training:
    return train(
        model,
        IMPORTANCE,
        DENSITY,
        dimensions=DIMENSIONS,
        inputs=Inputs(low=_low(model)),
        instances=NETWORKS,
        steps=STEPS,
        learning_rate=RATE,
        points=POINTS,
        rng=0,
    )


def one_in_torch(model: str, instance: int, sets: Any, finer: Any) -> float:
    """Train one network as PyTorch's users would write it; return its loss on the finer points."""
    import torch

    torch.set_num_threads(1)  # more only slow down matrices this small
    start = np.random.default_rng(0).standard_normal((NETWORKS, FEATURES, DIMENSIONS))[instance] * SPREAD
    v = torch.tensor(IMPORTANCE, dtype=torch.float32)
    W = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    c = torch.zeros(FEATURES, requires_grad=True)

    def loss(x: Any, w: Any) -> Any:
        if model == "sum-relu":
            residual = torch.relu(x) @ v - torch.relu(x @ (v[:, None] * W)).sum(dim=1)
            return w @ (residual - w @ residual) ** 2
        return w @ ((x - torch.relu(x @ W @ W.T + c)) ** 2 @ v)

    def nothing(x: Any, w: Any) -> Any:
        if model == "sum-relu":
            y = torch.relu(x) @ v
            return w @ (y - w @ y) ** 2
        return w @ (x - w @ x) ** 2 @ v

    tensors = [[torch.tensor(a, dtype=torch.float32) for a in points] for points in sets]
    unit = sum(nothing(x, w) for x, w in tensors) / len(tensors)
    optimiser = torch.optim.Adam([W] if model == "sum-relu" else [W, c], lr=RATE, eps=1e-12)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for k in range(STEPS):
        optimiser.zero_grad()
        (loss(*tensors[k % len(tensors)]) / unit).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return float(loss(*(torch.tensor(a, dtype=torch.float32) for a in finer)))


def compare(model: str, rounds: int) -> dict[str, Any]:
    inputs, generator = Inputs(low=_low(model)), np.random.default_rng(0)
    generator.standard_normal((NETWORKS, FEATURES, DIMENSIONS))
    seed = int(generator.integers(2**31))  # the points that `train` draws from the same seed
    sets = [inputs.points(FEATURES, DENSITY, POINTS, rng=seed + r) for r in range(SETS)]
    fine = inputs.points(FEATURES, DENSITY, SETS * POINTS, rng=seed + SETS)
    start = time.perf_counter()
    result = sweep(model)
    with_compiling = time.perf_counter() - start
    one_in_torch(model, 0, sets, fine)
    ours, theirs, losses = [], [], []
    for k in range(rounds):
        start = time.perf_counter()
        sweep(model)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        losses.append(one_in_torch(model, k, sets, fine))
        theirs.append(NETWORKS * (time.perf_counter() - start))
    difference = np.abs(np.array(losses) / result.loss[:rounds] - 1)
    return {
        "model": model,
        "networks": NETWORKS,
        "steps": STEPS,
        "points": POINTS,
        "capsolve_seconds": summary(ours),
        "capsolve_seconds_with_compiling": with_compiling,
        "torch_seconds_scaled_up": summary(theirs),
        "torch_trainings_timed": rounds,
        "ratio": float(np.median(theirs) / np.median(ours)),
        "ratio_with_compiling": float(np.median(theirs) / with_compiling),
        "largest_difference_of_losses": float(difference.max()),
        "spread_of_losses_between_starts": float(np.std(result.loss) / np.mean(result.loss)),
    }


def _low(model: str) -> float:
    return -1.0 if model == "sum-relu" else 0.0


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Trainings in PyTorch that are timed.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path(__file__).parent / "results/training.json"
)
def main(rounds: int, output: Path) -> None:
    """Time 100 trainings at once against PyTorch's one by one."""
    records = [compare(model, rounds) for model in ("sum-relu", "autoencoder-relu")]
    for r in records:
        click.echo(
            f"{r['model']}: capsolve {r['capsolve_seconds']['median']:.2f} s for all (with compiling "
            f"{r['capsolve_seconds_with_compiling']:.2f} s), PyTorch {r['torch_seconds_scaled_up']['median']:.1f} s "
            f"(from {rounds} trainings), ratio {r['ratio']:.0f} ({r['ratio_with_compiling']:.0f}); losses differ by "
            f"{r['largest_difference_of_losses']:.1e}, between starts by {r['spread_of_losses_between_starts']:.1e}"
        )
    keep(output, records=records)


if __name__ == "__main__":
    main()
