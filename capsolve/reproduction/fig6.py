"""Figs. 5 and 6: the capacities of small embeddings, and blocks that do not interfere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from capsolve import figures
from capsolve._checks import FloatArray
from capsolve.allocation import solve
from capsolve.geometry.blocks import blocks
from capsolve.geometry.capacities import capacities, efficiency
from capsolve.geometry.construct import construct_blocks
from capsolve.geometry.loss import embedding_loss
from capsolve.reproduction._report import Finding, Result, Settings

COLUMNS = ("embedding", "feature", "capacity", "published", "efficiency")
ROUNDING = 1e-14
IMPORTANCE = (2.0, 1.0, 1.0, 1.0, 1.0, 1.0)
KURTOSIS = 9.0
NUDGE = 0.01  # the length, relative to the rows, of what is added to break a block's structure


@dataclass(frozen=True)
class _Example:
    """An embedding, what it is, and the capacities that the paper gives for it."""

    name: str
    W: FloatArray
    published: tuple[float, ...] | None = None
    efficient: bool = True


def _examples() -> list[_Example]:
    angle = np.pi / 6.0
    pairs = construct_blocks([([0, 1], [0.5, 0.5], 1.0), ([2, 3], [0.5, 0.5], 1.0), ([4, 5], [0.5, 0.5], 1.0)])
    pairs[1::2] *= -1.0
    return [
        _Example("triangle", _ring(3), (2 / 3, 2 / 3, 2 / 3)),
        _Example("axis, antipodal pair", np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), (1.0, 0.5, 0.5)),
        _Example("two at 30°", np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]]), (4 / 7, 4 / 7), efficient=False),
        _Example("axis, pentagon", _best()),
        _Example("three antipodal pairs", pairs),
        _Example("tetrahedron", construct_blocks([(range(4), [0.75] * 4, 1.0)])),
    ]


def _ring(count: int) -> FloatArray:
    turn = 2.0 * np.pi * np.arange(count) / count
    return np.column_stack([np.cos(turn), np.sin(turn)])


def _best() -> FloatArray:
    """Return an axis and a pentagon, which are an optimum of `IMPORTANCE`: one of the many tight frames that are."""
    squared = solve(IMPORTANCE, KURTOSIS, 3).squared_norm
    W = np.zeros((6, 3))
    W[0, 2] = np.sqrt(squared[0])
    W[1:, :2] = np.sqrt(squared[1]) * _ring(5)
    return W


def make(settings: Settings) -> Result:
    """Measure the paper's three embeddings, and three that are block-semi-orthogonal."""
    rng = np.random.default_rng(0)
    findings = []
    rows = []
    for example in _examples():
        measured = capacities(example.W)
        share = float(efficiency(example.W))
        listed = ", ".join(f"{c:.4g}" for c in measured)
        if example.published is not None:
            error = float(np.abs(measured - example.published).max())
            findings.append(
                Finding(
                    f"{example.name}: capacities {', '.join(f'{c:.4g}' for c in example.published)}.",
                    error < ROUNDING,
                    f"{listed}; largest difference {error:.1e}.",
                )
            )
        if example.efficient:
            found = blocks(example.W)
            residual = max(block.residual for block in found)
            nudged = example.W + NUDGE * np.linalg.norm(example.W, axis=1, keepdims=True) * rng.standard_normal(
                example.W.shape
            )
            findings.append(
                Finding(
                    f"{example.name}: block-semi-orthogonal, so the capacities fill the dimensions.",
                    abs(share - 1.0) < ROUNDING and residual < 1e-12,
                    f"blocks: {', '.join(f'{b.name} of {b.features.size} in {b.dimension}' for b in found)}; "
                    f"eigenvalues of a block equal within {residual:.1e}; efficiency {share:.12g}, and "
                    f"{float(efficiency(nudged)):.6g} after a random change of {NUDGE:.0%}.",
                )
            )
        else:
            findings.append(
                Finding(f"{example.name}: not efficient.", share < 1.0 - ROUNDING, f"efficiency {share:.6g}; {listed}.")
            )
        if example.name == "axis, pentagon":
            best = solve(IMPORTANCE, KURTOSIS, 3).loss
            loss = float(embedding_loss(example.W, IMPORTANCE, KURTOSIS))
            findings.append(
                Finding(
                    f"{example.name}: block-semi-orthogonal embeddings are optimal.",
                    abs(loss / best - 1.0) < 1e-12,
                    f"with v = {', '.join(f'{v:g}' for v in IMPORTANCE)} and κ = {KURTOSIS:g} its loss is {loss:.12g}; "
                    f"the least loss of any embedding is {best:.12g}.",
                )
            )
        given = example.published or (np.nan,) * len(measured)
        for feature, (own, paper) in enumerate(zip(measured.tolist(), given, strict=True)):
            rows.append((example.name, feature, own, paper, share))
    return Result(
        "Figs. 5 and 6: embeddings and their blocks",
        "Capacities are measured on the vectors; blocks are the finest partition into orthogonal subspaces. An "
        "embedding is efficient (its capacities fill the dimensions) just where every block is a tight frame.",
        {"": _picture()},
        findings,
        table=dict(zip(COLUMNS, zip(*rows, strict=True), strict=True)),
        arrays={example.name.replace(",", "").replace(" ", "_"): example.W for example in _examples()},
    )


def _picture() -> Figure:
    examples = _examples()
    with figures.page(7.0, 1.75 * len(examples)) as figure:
        layout = figure.add_gridspec(len(examples), 3, width_ratios=(0.8, 0.9, 1.3))
        for row, example in enumerate(examples):
            solid = example.W.shape[1] == 3
            ax = figures.vectors(example.W, ax=figure.add_subplot(layout[row, 0], projection="3d" if solid else None))
            ax.set_title(example.name, loc="left")
            for column, draw in enumerate((figures.gram_matrix, figures.block_graph), start=1):
                ax = draw(example.W, ax=figure.add_subplot(layout[row, column]))
                if row > 0:
                    ax.set_title("", loc="left")
                if row < len(examples) - 1:
                    ax.set_xlabel("")
    return figure
