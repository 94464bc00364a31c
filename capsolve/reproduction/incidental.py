"""Incidental polysemanticity: rows become sparse, noise makes them so, and features collide by chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from capsolve import figures
from capsolve._checks import FloatArray
from capsolve.incidental import (
    NOISES,
    Autoencoders,
    CollisionSweep,
    RowFlow,
    collision_sweep,
    hidden_interference,
    integrate_row,
    train_autoencoders,
)
from capsolve.incidental.sparse_adamw import AdamWConfig, DenseNetwork
from capsolve.incidental.sweep import start_weights
from capsolve.reproduction._report import Finding, Result, Settings, table

SOURCE = (
    "Lecomte, Thaman, Schaeffer, Bashkansky, Chow, Koyejo, What Causes Polysemanticity? An Alternative Origin Story of "
    "Mixed Selectivity from Incidental Causes, arXiv 2312.03096"
)
SEED = 0
ROW, ROW_PENALTY, ROW_SPREAD = 10**5, 1e-5, 0.9
NOISE: dict[str, Any] = {
    "features": 8,
    "neurons": 16,
    "optimiser": "sgd",
    "learning_rate": 0.02,
    "steps": 100_000,
}
STANDARD_DEVIATIONS = (0.07, 0.1, 0.15)
KURTOSES = (1.0, 1.4, 1.8, 2.2, 2.6, 3.0, 3.5, 4.5, 6.0, 9.0)
REPEATS, MANY = 5, 20  # networks, as published, and where the kurtosis varies
FEATURES, WIDTHS = 256, 16  # up to 4096 neurons, in equal steps
SWEEP: dict[str, Any] = {"instances": 16}
WATCHED, LOOKS = 2, (0, 30, 100, 300, 1000, 2500)  # networks of a width, and the steps at which they are looked at

_SLOPE = 0.05  # relative
_RISE = 3.0  # of the fourth norm under Rademacher noise, at least
_ERRORS = 3.0  # standard errors


@dataclass(frozen=True)
class _Noisy:
    """Networks trained with noise."""

    published: Mapping[tuple[str, float], Autoencoders]
    by_kurtosis: Mapping[float, Autoencoders]

    def rise(self, kind: str, sigma: float) -> float:
        """Return the fourth norm at the end over that at the start."""
        mean = self.published[kind, sigma].fourth_norm[0]
        return float(mean[-1] / mean[0])

    def ends(self) -> tuple[FloatArray, FloatArray]:
        """Return the fourth norms at the end by kurtosis, with their errors."""
        last = [tuple(float(part[-1]) for part in found.fourth_norm) for found in self.by_kurtosis.values()]
        values = np.array(last)
        return values[:, 0], values[:, 1]


def make(settings: Settings) -> Result:
    """Make the four figures of the published experiments, and the one of noise by kurtosis."""
    draw = np.random.default_rng(SEED)
    flow = integrate_row(ROW_SPREAD / np.sqrt(ROW) * draw.standard_normal(ROW), ROW_PENALTY)
    noisy = _noisy(settings)
    widths = np.unique(np.rint(np.linspace(FEATURES, 16 * FEATURES, settings.cells or WIDTHS)).astype(int))
    sweep = collision_sweep(
        FEATURES,
        widths,
        rng=SEED,
        checkpoint=_folder(settings),
        executor=settings.executor,
        progress=settings.progress,
        **SWEEP,
    )
    return Result(
        "Incidental polysemanticity",
        f"A row of {ROW:,} weights from N(0, {ROW_SPREAD}²/m) under λ = {ROW_PENALTY:g}. Noise: {NOISE['features']} "
        f"features, {NOISE['neurons']} neurons, {NOISE['steps']:,} steps of SGD at {NOISE['learning_rate']}, one draw "
        f"of the noise for each network and step as published ({REPEATS} networks), and one for each input where the "
        f"kurtosis varies ({MANY} networks, σ = {STANDARD_DEVIATIONS[-1]}). Collisions: {FEATURES} features, "
        f"{sweep.instances} networks of each width, AdamW, λ = {sweep.settings['penalty']:g}, "
        f"{sweep.settings['steps']:,} steps. ± is one standard error.",
        {
            "-sparsification": _single(lambda ax: figures.sparsification(flow, ax=ax)),
            "-noise": _noise_figure(noisy),
            "-collisions": figures.collisions(sweep),
            "-start-end": _single(lambda ax: figures.start_end(sweep.correlation[-1], ax=ax), (4.4, 3.6)),
        },
        _findings(flow, noisy, sweep),
        table=sweep.table(),
        arrays={
            "time": flow.time,
            "survivors": flow.survivors,
            "norm": flow.norm,
            "step": next(iter(noisy.published.values())).step,
            "fourth": np.stack([found.fourth for found in noisy.published.values()]),
            "kurtosis": np.array(list(noisy.by_kurtosis)),
            "fourth_by_kurtosis": np.stack([found.fourth for found in noisy.by_kurtosis.values()]),
            "correlation": sweep.correlation,
        },
        appendix=_appendix(sweep, noisy),
        source=SOURCE,
    )


def _folder(settings: Settings) -> Any:
    folder = settings.folder / "cells"
    folder.mkdir(exist_ok=True)
    return folder / "incidental"


def _noisy(settings: Settings) -> _Noisy:
    published = {
        (kind, sigma): train_autoencoders(
            **NOISE, instances=REPEATS, noise=kind, noise_std=sigma, shared_noise=True, rng=SEED
        )
        for kind in ("rademacher", "gaussian")
        for sigma in STANDARD_DEVIATIONS
    }
    by_kurtosis = {
        kurtosis: train_autoencoders(
            **NOISE,
            instances=MANY,
            noise=kurtosis,
            noise_std=STANDARD_DEVIATIONS[-1],
            rng=SEED,
            progress=settings.progress,
        )
        for kurtosis in KURTOSES
    }
    return _Noisy(published, by_kurtosis)


def _findings(flow: RowFlow, noisy: _Noisy, sweep: CollisionSweep) -> list[Finding]:
    slopes = flow.slope("norm"), flow.slope("survivors")
    strong = STANDARD_DEVIATIONS[-1]
    ends, errors = noisy.ends()
    hidden = {m: _hidden(sweep, m) for m in sweep.neurons[[0, sweep.neurons.size // 4]].tolist()}
    kurtosis = np.array(KURTOSES)
    gauss = int(np.flatnonzero(kurtosis == NOISES["gaussian"])[0])
    effect, uncertain = ends - ends[gauss], np.hypot(errors, errors[gauss])
    others = np.arange(kurtosis.size) != gauss
    right = (np.sign(effect) == np.sign(3.0 - kurtosis)) & (np.abs(effect) > 2.0 * uncertain)
    chart = sweep.table()
    score = {
        name: (chart["polysemantic"] - chart[name]) / chart["polysemantic_error"]
        for name in ("expected_pairs", "expected_neurons", "expected_exclusive")
    }
    listed = {name: ", ".join(f"{value:+.1f}" for value in values) for name, values in score.items()}
    diagonal = np.array([np.diag(matrix).mean() for matrix in sweep.correlation])
    rest = np.array([np.abs(matrix - np.diag(np.diag(matrix))).mean() for matrix in sweep.correlation])
    return [
        Finding(
            "|w|₁ of a row falls like 1/(λt).",
            abs(slopes[0] + 1.0) < _SLOPE,
            f"slope {slopes[0]:.3f} on logarithmic axes, |w|₁ from {flow.norm.max() / 8:.0f} to 10.",
        ),
        Finding(
            "The number of weights left falls like 1/(λt)².",
            abs(slopes[1] + 2.0) < 2.0 * _SLOPE,
            f"slope {slopes[1]:.3f} in the same range; at |w|₁ = 10 there are {_left(flow):.0f}, against 100 by the "
            "published law m' = |w|₁².",
        ),
        Finding(
            f"Bipolar noise concentrates rows: their fourth norm rises at least {_RISE:g}-fold at σ = {strong}.",
            noisy.rise("rademacher", strong) >= _RISE,
            "; ".join(f"σ = {s}: {noisy.rise('rademacher', s):.2f}-fold" for s in STANDARD_DEVIATIONS) + ".",
        ),
        Finding(
            "Gaussian noise does not.",
            max(noisy.rise("gaussian", s) for s in STANDARD_DEVIATIONS) < 1.2,
            "; ".join(f"σ = {s}: {noisy.rise('gaussian', s):.2f}-fold" for s in STANDARD_DEVIATIONS) + ".",
        ),
        Finding(
            "Beyond the publication: the effect of noise has the sign of 3 - κ.",
            float(right[others].mean()),
            "fourth norm at the end by kurtosis: "
            + ", ".join(
                f"κ = {k:g}: {end:.3f} ± {error:.3f}" for k, end, error in zip(kurtosis, ends, errors, strict=True)
            )
            + ".",
        ),
        Finding(
            f"About n²/4m neurons are polysemantic (within {_ERRORS:g} standard errors; the share of widths).",
            float(np.mean(np.abs(score["expected_pairs"]) < _ERRORS)),
            f"deviations in standard errors, by width: {listed['expected_pairs']}.",
        ),
        Finding(
            "They are as many as when each feature draws a neuron and a sign independently.",
            float(np.mean(np.abs(score["expected_neurons"]) < _ERRORS)),
            f"deviations in standard errors: {listed['expected_neurons']}.",
        ),
        Finding(
            "They are as many as when no two features may have the same neuron and sign.",
            float(np.nanmean(np.abs(score["expected_exclusive"]) < _ERRORS)),
            f"deviations in standard errors: {listed['expected_exclusive']}.",
        ),
        Finding(
            "Collisions at the end are those that were drawn at the start.",
            min(values.min() / values[0] for values in hidden.values()) > 0.5,
            "interference that the ReLU hides, in pairs, after "
            f"{', '.join(f'{step:,}' for step in _looks(sweep))} steps, and colliding pairs at the end: "
            + "; ".join(
                f"m = {m}: {', '.join(f'{value:.1f}' for value in values)}, "
                f"{chart['opposite_pairs'][sweep.neurons == m][0]:.1f}"
                for m, values in hidden.items()
            )
            + ".",
        ),
        Finding(
            "Features that collide with equal signs push each other off; with opposite signs they stay.",
            float(chart["equal_pairs"].max()) == 0.0 and float(chart["opposite_pairs"].min()) > 0.0,
            f"pairs of equal sign, the mean over networks at most {chart['equal_pairs'].max():.2f}; of opposite sign "
            f"at least {chart['opposite_pairs'].min():.2f}.",
        ),
        Finding(
            "Collisions waste capacity that is there: one dimension each.",
            float(np.mean(np.abs(chart["excess"] - chart["opposite_pairs"]) < 0.5)),
            "excess of capacity over pairs: "
            + ", ".join(f"{a:.2f} / {b:.2f}" for a, b in zip(chart["excess"], chart["opposite_pairs"], strict=True))
            + ".",
        ),
        Finding(
            "Where a feature ends is correlated with where it began.",
            float((diagonal > 2.0 * rest).mean()),
            f"mean cosine of a feature with its own start {diagonal.min():.3f} to {diagonal.max():.3f}, with those of "
            f"others {rest.max():.4f} in size at most; ending where they began largest: "
            + ", ".join(f"{share:.1%}" for share in chart["kept"])
            + ".",
        ),
    ]


def _hidden(sweep: CollisionSweep, neurons: int) -> FloatArray:
    """Return the mean `hidden_interference` of some networks of the sweep, trained again, after each of `_looks`."""
    settings = sweep.settings
    recipe = AdamWConfig(
        settings["penalty"], int(settings["steps"]), settings["learning_rate"], settings["weight_decay"]
    )
    found = np.empty((WATCHED, len(_looks(sweep))))
    for number, values in enumerate(found):
        network = DenseNetwork(start_weights(sweep.features, neurons, number, int(settings["seed"])), recipe)
        for i, look in enumerate(_looks(sweep)):
            while network.step < look:
                network.advance()
            values[i] = hidden_interference(network.W)
    return np.asarray(found.mean(axis=0))


def _looks(sweep: CollisionSweep) -> list[int]:
    return [step for step in LOOKS if step <= sweep.settings["steps"]]


def _left(flow: RowFlow) -> float:
    return float(np.interp(-10.0, -flow.norm[flow.norm.argmax() :], flow.survivors[flow.norm.argmax() :]))


def _appendix(sweep: CollisionSweep, noisy: _Noisy) -> str:
    chart = sweep.table()
    names = ("polysemantic", "opposite_pairs", "equal_pairs", "excess")
    expected = ("expected_pairs", "expected_neurons", "expected_exclusive")
    rows = [
        [
            str(m),
            *(f"{chart[name][i]:.2f} ± {chart[name + '_error'][i]:.2f}" for name in names),
            *(f"{chart[name][i]:.2f}" for name in expected),
            f"{chart['kept'][i]:.1%}",
        ]
        for i, m in enumerate(sweep.neurons)
    ]
    heads = ["neurons", *names, "n(n-1)/4m", "independent", "exclusive", "kept"]
    return "\n".join(table([head.replace("_", " ") for head in heads], rows))


def _single(draw: Any, size: tuple[float, float] = (4.8, 3.4)) -> Figure:
    with figures.page(*size) as figure:
        draw(figure.subplots())
    return figure


def _noise_figure(noisy: _Noisy) -> Figure:
    """Draw fourth norms in time for the published noises, and at the end by kurtosis."""
    with figures.page(7.0, 3.2) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
        named = {f"{kind}, σ = {sigma}": found for (kind, sigma), found in noisy.published.items()}
        figures.fourth_norm(named, ax=left)
        ends, errors = noisy.ends()
        right.errorbar(KURTOSES, ends, 2 * errors, fmt="o-", color="black", markersize=3.5, capsize=2, linewidth=1)
        right.axvline(3.0, color="0.6", linewidth=0.9)
        right.annotate(
            "Gaussian", (3.0, right.get_ylim()[1]), xytext=(3, -8), textcoords="offset points", fontsize="small"
        )
        right.set_xscale("log")
        right.set_xticks([1, 2, 3, 6, 9], ["1", "2", "3", "6", "9"])
        right.set_xticks([], minor=True)
        right.set_xlabel("kurtosis of the noise")
        right.set_ylabel(r"mean of $\Sigma_k W_{ik}^4$ at the end")
    return figure
