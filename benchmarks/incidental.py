"""``python -m benchmarks.incidental``: the published collisions experiment beside eager PyTorch.

Eager PyTorch takes the same steps for all networks of a width at once, as its user would write them; a step costs the
same throughout, so that some are timed and the rest is multiplication. capsolve trains networks from the first step to
the last, a few of each width. Both have the same starts; the neurons and signs they end with are compared for a few
networks trained to the end by both with ``--compare``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import timing

FEATURES, STEPS, RATE, PENALTY, DECAY = 256, 7500, 1e-3, 1e-3, 0.01
SEED = 0


class Eager:
    """AdamW on ReLU(X W Wᵀ), X the identity, with automatic differentiation."""

    def __init__(self, starts: np.ndarray, published: bool) -> None:
        import torch

        self.torch, self.published = torch, published
        self.W = torch.nn.Parameter(torch.from_numpy(starts.copy()))
        self.target = torch.eye(starts.shape[1]).expand(len(starts), -1, -1)
        self.optimiser = torch.optim.AdamW([self.W], lr=RATE, weight_decay=DECAY)

    def step(self) -> None:
        torch = self.torch
        self.optimiser.zero_grad()
        hidden = torch.einsum("ibf,ifh->ibh", self.target, self.W) if self.published else self.W
        output = torch.relu(torch.einsum("ibh,ifh->ibf", hidden, self.W))
        loss = ((output - self.target) ** 2).sum() + PENALTY * self.W.abs().sum()
        loss.backward()
        self.optimiser.step()


def _starts(neurons: int, count: int) -> list[np.ndarray]:
    from capsolve.incidental.sweep import start_weights

    return [start_weights(FEATURES, neurons, number, SEED) for number in range(count)]


def measure(neurons: int, instances: int, ours: int, steps: int) -> dict[str, Any]:
    """Return seconds per network, from the first to the last of its steps."""
    from capsolve.incidental.sparse_adamw import AdamWConfig, train

    starts = _starts(neurons, instances)
    eager = {"published": Eager(np.stack(starts), True), "plain": Eager(np.stack(starts), False)}
    each: dict[str, list[float]] = {name: [] for name in eager}
    for network in eager.values():
        network.step()
    recipe, mine = AdamWConfig(PENALTY, STEPS, RATE, DECAY), []
    for k in range(ours):  # in turn, so that a busy machine is busy for both
        for name, network in eager.items():
            for _ in range(max(1, steps // ours)):
                began = time.perf_counter()
                network.step()
                each[name].append(time.perf_counter() - began)
        began = time.perf_counter()
        train([starts[k % instances]], recipe)
        mine.append(time.perf_counter() - began)
    per_network = {f"eager_{name}": float(np.median(s)) * STEPS / instances for name, s in each.items()}
    capsolve = float(np.median(mine))
    return {
        "neurons": neurons,
        "instances": instances,
        "capsolve": capsolve,
        **per_network,
        "ratio_published": per_network["eager_published"] / capsolve,
        "ratio_plain": per_network["eager_plain"] / capsolve,
    }


def compare(neurons: int, count: int) -> dict[str, Any]:
    """Train a few networks to the end by both; return how far they agree."""
    from capsolve.incidental import count_collisions, same_winner
    from capsolve.incidental.sparse_adamw import AdamWConfig, train

    starts = _starts(neurons, count)
    ours = np.stack(train(starts, AdamWConfig(PENALTY, STEPS, RATE, DECAY)))
    eager = Eager(np.stack(starts), False)
    for _ in range(STEPS):
        eager.step()
    theirs = eager.W.detach().numpy()
    return {
        "neurons": neurons,
        "networks": count,
        "polysemantic": count_collisions(ours).polysemantic.tolist(),
        "polysemantic_eager": count_collisions(theirs).polysemantic.tolist(),
        "features_on_the_same_neuron": same_winner(ours, theirs).tolist(),
    }


@click.command()
@click.option("--neurons", default="256,1024,4096", show_default=True, help="Widths, with commas.")
@click.option("--instances", default=16, show_default=True, type=click.IntRange(1), help="Networks of a step of eager.")
@click.option("--ours", default=2, show_default=True, type=click.IntRange(1), help="Networks that capsolve trains.")
@click.option("--steps", default=10, show_default=True, type=click.IntRange(1), help="Steps of eager that are timed.")
@click.option("--compare", "compared", default=0, show_default=True, help="Networks trained to the end by both.")
@click.option("--threads", type=click.IntRange(1), help="Of PyTorch and of NumPy's BLAS.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Keep the numbers as JSON.")
def main(
    neurons: str, instances: int, ours: int, steps: int, compared: int, threads: int | None, output: Path | None
) -> None:
    """Measure the collisions experiment beside eager PyTorch."""
    import torch
    from threadpoolctl import threadpool_limits

    if threads:
        torch.set_num_threads(threads)
    widths = [int(text) for text in neurons.split(",")]
    found: dict[str, Any] = {"machine": timing.machine(), "threads": threads, "records": [], "compared": []}
    with threadpool_limits(threads):
        for m in widths:
            record = measure(m, instances, ours, steps)
            found["records"].append(record)
            click.echo(
                f"{m:6d} neurons: capsolve {record['capsolve']:8.2f} s a network; eager PyTorch "
                f"{record['eager_plain']:8.1f} s ({record['ratio_plain']:.1f} ×), as published "
                f"{record['eager_published']:8.1f} s ({record['ratio_published']:.1f} ×)"
            )
            if compared:
                found["compared"].append(compare(m, compared))
                click.echo(f"        {found['compared'][-1]}")
    for name in ("plain", "published"):
        # widths measured stand for the whole: the experiment has as many networks of each
        total = sum(r[f"eager_{name}"] for r in found["records"]) / sum(r["capsolve"] for r in found["records"])
        click.echo(f"together, {name}: {total:.1f} ×")
    if output:
        timing.keep(output, **found)


if __name__ == "__main__":
    main()
