"""What an embedding looks like: its vectors, their inner products, and the blocks that do not interfere."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from capsolve._arrays import to_numpy
from capsolve._checks import FloatArray, IndexArray
from capsolve.allocation import Phase
from capsolve.figures._features import LONGEST, NAMED, called
from capsolve.figures._style import (
    COLOURS,
    CROWD,
    MARKERS,
    axes_or_new,
    line,
    new_figure,
    number,
    page,
    settle,
    shown,
    wrapped,
)
from capsolve.geometry.blocks import Block, blocks
from capsolve.geometry.capacities import capacities
from capsolve.geometry.second_moment import floating
from capsolve.profile import index_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure


DRAWN = 5000  # vectors, the longest; more would only cover each other
PIXELS = 400  # rows and columns of the picture of inner products
SMALLEST = 4.0  # points, of an inner product that is written into its cell
LISTED = 16  # up to so many its rows are named
SHORT = 12  # characters of a name that has room beside a vector, or beside its block in a third of a page
NARROW = 2.5  # inches, the width of axes up to which names are short
PILE = 0.15  # of the half width of the picture: names of tips that are closer would cover each other
PILED = 4  # lines of one label
ROWS = 14  # of kinds of blocks that are told apart


def embedding(W: Any, *, names: Sequence[str] | None = None, tolerance: float = 1e-5) -> Figure:
    """Draw an embedding on a page of its own: `vectors` (for up to three dimensions), `gram_matrix`, `block_graph`.

    Parameters
    ----------
    W : array_like, shape (n, D)
        One row per feature. If its largest entry is beyond 1e±100, W is drawn in units of that.
    names : sequence of n str, optional
        What to call the features; by default the index of a data frame, else their number.
    tolerance : float
        What counts as orthogonal, as in `capsolve.blocks`.

    Returns
    -------
    matplotlib.figure.Figure
        With three axes and a colour bar, or two if D > 3.

    Raises
    ------
    ValueError
        If there is not one name per feature, or W is not what `capsolve.blocks` takes.

    Examples
    --------
    >>> import capsolve
    >>> from capsolve import figures
    >>> W = capsolve.construct_blocks([([0], [1.0], 1.0), ([1, 2], [0.5, 0.5], 1.0)])
    >>> figures.embedding(W).get_suptitle()
    '3 features in 2 dimensions: total capacity 2, efficiency 1.000'

    References
    ----------
    arXiv 2210.01892, Figs. 5 and 6.
    """
    seen = _look(W, names, tolerance)
    D = seen.W.shape[1]
    rows = len(seen.W) if len(seen.W) <= NAMED else ROWS
    above, below = (2.9, 0.8 + 0.17 * rows) if seen.long_names else (max(2.9, 1.0 + 0.17 * rows), 0.0)
    with page(7.0, above + below) as figure:
        pictures = 2 if D <= 3 else 1
        if seen.long_names:  # these need the width of the page
            halves: Any = figure.subfigures(2, 1, height_ratios=(above, below))
            top, bottom = halves
            layout, last = top.add_gridspec(1, pictures), bottom.add_gridspec(1, 1)[0]
        else:
            top = bottom = figure
            layout = figure.add_gridspec(1, pictures + 1, width_ratios=(0.9, 1.1, 1.3)[-1 - pictures :])
            last = layout[0, -1]
        if D <= 3:
            _vectors(top.add_subplot(layout[0, 0], projection="3d" if D == 3 else None), seen)
        _gram(top.add_subplot(layout[0, pictures - 1]), seen)
        _graph(bottom.add_subplot(last), seen)
        figure.suptitle(seen.headline, x=0.01, ha="left", fontsize="medium")
        figure.legend(
            handles=[
                line(phase.name.lower(), linestyle="none", marker=MARKERS[phase], color=COLOURS[phase])
                for phase in reversed(Phase)
            ],
            loc="outside lower left",
            ncols=3,
        )
        settle(figure)
    return figure


def vectors(W: Any, *, names: Sequence[str] | None = None, tolerance: float = 1e-5, ax: Axes | None = None) -> Axes:
    """Draw the rows of W as arrows in one, two or three dimensions, coloured by phase.

    A feature that is orthogonal to all others is monosemantic, one no longer than the tolerance is ignored, every other
    one is polysemantic.

    Parameters
    ----------
    W, names, tolerance
        As for `embedding`, with D ≤ 3. Up to 32 vectors are named; of more than 5,000 the longest are drawn.
    ax : matplotlib.axes.Axes, optional
        Where to draw; for D = 3 one of projection "3d". On a new figure by default.

    Raises
    ------
    ValueError
        If D > 3, if ``ax`` has another projection, or as for `embedding`.
    """
    seen = _look(W, names, tolerance)
    D = seen.W.shape[1]
    if D > 3:
        raise ValueError(f"vectors are drawn in at most 3 dimensions, got shape {seen.W.shape}")
    if ax is None and D == 3:
        ax = shown(new_figure(layout="constrained").add_subplot(projection="3d"))
    ax = axes_or_new(ax)
    if (ax.name == "3d") != (D == 3):
        raise ValueError(f"ax must have projection {'3d' if D == 3 else 'rectilinear'!r} for D = {D}, got {ax.name!r}")
    _vectors(ax, seen)
    settle(ax.figure)
    return ax


def gram_matrix(W: Any, *, names: Sequence[str] | None = None, tolerance: float = 1e-5, ax: Axes | None = None) -> Axes:
    """Draw the inner products w_i · w_j as a picture, features of one block side by side.

    Parameters
    ----------
    W, names, tolerance
        As for `embedding`. Where there is room, inner products are written into the picture. Of more than 400
        features a sample is drawn.
    ax : matplotlib.axes.Axes, optional
        Where to draw, with a colour bar beside; on a new figure by default.

    Raises
    ------
    ValueError
        As for `embedding`.
    """
    ax = axes_or_new(ax)
    _gram(ax, _look(W, names, tolerance))
    settle(ax.figure)
    return ax


def block_graph(W: Any, *, names: Sequence[str] | None = None, tolerance: float = 1e-5, ax: Axes | None = None) -> Axes:
    """Draw which features share which dimensions: features on the left, blocks of dimensions on the right.

    A block is a set of features orthogonal to all others (`capsolve.blocks`); each of its dimensions is a square. An
    open square is a dimension that no feature uses. Above 32 features, blocks of one kind and size are drawn once.

    Parameters
    ----------
    W, names, tolerance
        As for `embedding`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; on a new figure by default.

    Raises
    ------
    ValueError
        As for `embedding`.

    References
    ----------
    arXiv 2210.01892, Fig. 5 and section 4.
    """
    ax = axes_or_new(ax)
    _graph(ax, _look(W, names, tolerance))
    return ax


@dataclass(frozen=True)
class _Seen:
    """An embedding with all that its pictures need."""

    W: FloatArray
    blocks: tuple[Block, ...]
    capacity: FloatArray
    phase: npt.NDArray[np.int8]
    order: IndexArray
    """The features, those of one block side by side, the ignored ones last."""
    names: Sequence[str] | None

    @property
    def headline(self) -> str:
        n, D = self.W.shape
        total = float(self.capacity.sum())
        return (
            f"{n:,} feature{'s' * (n != 1)} in {D:,} dimension{'s' * (D != 1)}: total capacity {number(total)}, "
            f"efficiency {total / D:.3f}"
        )

    @property
    def long_names(self) -> bool:
        """Whether there are names beside the pictures, and they are not short."""
        n = len(self.W)
        return n <= NAMED and max(map(len, self.called(np.arange(n)))) > SHORT

    def called(self, which: IndexArray, most: int = LONGEST) -> list[str]:
        return called(self.names, len(self.W), which, most)


def _look(W: Any, names: Sequence[str] | None, tolerance: float) -> _Seen:
    found = blocks(W, tolerance=tolerance)
    rows = to_numpy(floating("W", W)[1]).astype(float)
    unit = float(np.abs(rows).max())
    if unit > 0.0 and not 1e-100 < unit < 1e100:
        rows = rows / unit
    names = index_names(W) if names is None else names
    called(names, len(rows), np.arange(0))
    phase = np.full(len(rows), Phase.IGNORED, dtype=np.int8)
    for block in found:
        alone = block.features.size == 1
        phase[block.features] = Phase.MONOSEMANTIC if alone else Phase.POLYSEMANTIC
    order = np.concatenate([*(block.features for block in found), np.flatnonzero(phase == Phase.IGNORED)])
    return _Seen(rows, found, np.asarray(capacities(rows)), phase, order, names)


def _vectors(ax: Any, seen: _Seen) -> None:
    n, D = seen.W.shape
    length = np.linalg.norm(seen.W, axis=1)
    reach = 1.15 * (float(length.max()) or 1.0)
    drawn = np.argsort(-length, kind="stable")[:DRAWN]
    space = np.pad(seen.W, ((0, 0), (0, max(0, 2 - D))))
    for phase in Phase:
        some = drawn[seen.phase[drawn] == phase]
        if not some.size:
            continue
        tips = space[some]
        if n <= CROWD and phase is not Phase.IGNORED:
            spokes = np.stack([np.zeros_like(tips), tips, np.full_like(tips, np.nan)], axis=1).reshape(
                -1, tips.shape[1]
            )
            ax.plot(*spokes.T, color=COLOURS[phase], linewidth=1.4, zorder=2 + phase)
        size = 16.0 if n <= CROWD else 2.0
        ax.scatter(*tips.T, s=size, color=COLOURS[phase], marker=MARKERS[phase], zorder=3 + phase, rasterized=n > CROWD)
    for axis in ("x", "y", "z")[: max(2, D)]:
        getattr(ax, f"set_{axis}lim")(-reach, reach)
        getattr(ax, f"set_{axis}ticks")([])
    if D == 3:
        ax.set_box_aspect((1, 1, 1), zoom=1.7)
        for along in np.eye(3):
            ax.plot(*np.outer(along, [-reach, reach]), color="0.75", linewidth=0.6, zorder=0)
        ax.set_axis_off()
    else:
        ax.set_aspect("equal")
        ax.axhline(0.0, color="0.75", linewidth=0.6, zorder=0)
        ax.axvline(0.0, color="0.75", linewidth=0.6, zorder=0)
        ax.spines[:].set_visible(False)
    if n <= NAMED:
        _name_tips(ax, seen, space, reach)
    ax.set_title("vectors" if n <= DRAWN else "longest vectors", loc="left")


def _name_tips(ax: Any, seen: _Seen, tips: FloatArray, reach: float) -> None:
    """Write the names beyond the tips, on the side where these are; tips that nearly coincide share one label."""
    length = np.linalg.norm(tips, axis=1)
    flat = tips
    if tips.shape[1] == 3:
        from mpl_toolkits.mplot3d.proj3d import proj_transform  # type: ignore[import-untyped]  # noqa: PLC0415

        at = np.vstack([tips, np.zeros(3)])
        across, up, _ = proj_transform(*at.T, ax.get_proj())
        flat = np.column_stack([across[:-1] - across[-1], up[:-1] - up[-1]])
    piles: list[list[int]] = []
    for i in np.argsort(-length, kind="stable"):
        if seen.phase[i] != Phase.IGNORED:
            near = (pile for pile in piles if np.linalg.norm(tips[i] - tips[pile[0]]) < PILE * reach)
            pile = next(near, None)
            if pile is None:
                piles.append([int(i)])
            else:
                pile.append(int(i))
    for first, *others in piles:
        names = seen.called(np.sort([first, *others]), SHORT)
        text = "\n".join(names if len(names) <= PILED else [*names[: PILED - 1], f"and {len(names) - PILED + 1} more"])
        across, up = flat[first] / (np.linalg.norm(flat[first]) or 1.0)
        ax.text(
            *tips[first] * (1.0 + 0.08 * reach / length[first]),
            text,
            ha="left" if across > 0.4 else "right" if across < -0.4 else "center",
            va="bottom" if up > 0.4 else "top" if up < -0.4 else "center",
            fontsize="small",
            parse_math=False,
        )


def _gram(ax: Axes, seen: _Seen) -> None:
    n = len(seen.W)
    order = seen.order
    if n > PIXELS:
        order = order[np.rint(np.linspace(0, n - 1, PIXELS)).astype(np.intp)]
    gram = seen.W[order] @ seen.W[order].T
    largest = float(np.abs(gram).max()) or 1.0
    picture = ax.imshow(gram, cmap=_signed(), vmin=-largest, vmax=largest, interpolation="nearest")
    if n <= LISTED:
        ax.set_yticks(range(n), seen.called(order, _room(ax)), parse_math=False)
        ax.tick_params(length=0)
    else:
        ax.set_yticks([])
    ax.set_xticks([])
    ax.spines[:].set(visible=True, color="0.8", linewidth=0.5)
    ax.set_xlabel("features by block" if n <= PIXELS else f"{PIXELS} of {n:,} features by block")
    ax.set_title("inner products $w_i \\cdot w_j$", loc="left")
    ax.figure.colorbar(picture, cax=ax.inset_axes((1.04, 0.0, 0.06, 1.0)))
    if n <= LISTED:
        _write_products(ax, gram, largest)


def _write_products(ax: Axes, gram: FloatArray, largest: float) -> None:
    """Write the inner products into their cells, if these are large enough for all of them."""
    settle(ax.figure)  # only then it is known how large the axes are
    texts = [[number(round(value, 12) + 0.0, 2).replace("-", "−") for value in row] for row in gram.tolist()]
    room = ax.get_window_extent()
    cell = min(room.width, room.height) * 72.0 / ax.figure.dpi / len(gram)  # in points
    size = min(1.4 * cell / max(len(text) for row in texts for text in row), 7.0)
    if size >= SMALLEST:
        for row, column in itertools.product(range(len(gram)), repeat=2):
            colour = "white" if gram[row, column] > 0.6 * largest else "black"
            ax.text(column, row, texts[row][column], ha="center", va="center", fontsize=size, color=colour)


def _room(ax: Axes) -> int:
    """Return how many characters a name beside the axes may have: fewer where the names would be all there is."""
    return LONGEST if ax.get_window_extent().width > NARROW * ax.figure.dpi else SHORT


def _signed() -> Colormap:
    """Return white for 0, blue above and orange below: blue ends darker, so that the two differ in grey too."""
    from matplotlib.colors import LinearSegmentedColormap  # noqa: PLC0415

    blue, orange = COLOURS[Phase.MONOSEMANTIC], COLOURS[Phase.POLYSEMANTIC]
    ends = [(0.0, orange), (0.5, "white"), (0.85, blue), (1.0, "#003a5c")]
    return LinearSegmentedColormap.from_list("signed", ends, N=257)  # an odd number: one of them is white


@dataclass(frozen=True)
class _Kind:
    """One block, or several of one kind and size."""

    blocks: list[Block]
    name: str
    features: IndexArray

    @property
    def dimensions(self) -> int:
        return sum(block.dimension for block in self.blocks)

    @property
    def phase(self) -> Phase:
        return Phase.MONOSEMANTIC if all(b.features.size == 1 for b in self.blocks) else Phase.POLYSEMANTIC


def _kinds(seen: _Seen) -> list[_Kind]:
    if len(seen.W) <= NAMED:
        return [_Kind([block], block.name, block.features) for block in seen.blocks]
    grouped: dict[tuple[str, int, int], list[Block]] = {}
    for block in seen.blocks:
        grouped.setdefault((block.name, block.features.size, block.dimension), []).append(block)
    ranked = sorted(grouped.values(), key=lambda group: -sum(block.features.size for block in group))
    rest = list(itertools.chain.from_iterable(ranked[ROWS - 1 :]))
    several = ranked[: ROWS - 1] + ([rest] if rest else [])
    found = []
    for group in several:
        name = group[0].name if group is not rest else "other"
        if len(group) > 1:
            name = f"{len(group):,} × {name}"
        found.append(_Kind(group, name, np.concatenate([block.features for block in group])))
    return found


def _graph(ax: Axes, seen: _Seen) -> None:
    n, D = seen.W.shape
    single = n <= NAMED
    place = 0.0
    ticks: list[tuple[float, str]] = []
    for kind in _kinds(seen):
        rows = kind.features.size if single else 1
        squares = kind.dimensions if single else min(kind.dimensions, 1)
        height = max(rows, squares)
        centre = place + 0.5 * (height - 1)
        left = centre + np.arange(rows) - 0.5 * (rows - 1)
        right = centre + np.arange(squares) - 0.5 * (squares - 1)
        look: dict[str, Any] = {"color": COLOURS[kind.phase], "zorder": 2}
        for y, z in itertools.product(left, right):
            ax.plot([0.0, 1.0], [y, z], linewidth=0.9 if single else 2.0, alpha=0.7, **look)
        ax.plot(np.zeros(rows), left, linestyle="none", marker=MARKERS[kind.phase], markersize=5.0, **look)
        ax.plot(np.ones(squares), right, linestyle="none", marker="s", markersize=6.0, color="black", zorder=3)
        if single:
            names = seen.called(kind.features, _room(ax))
            share = [number(round(float(c), 3), 3) for c in seen.capacity[kind.features]]
            ticks += [(float(y), f"{name}: {c}") for y, name, c in zip(left, names, share, strict=True)]
        else:
            ticks.append((float(centre), f"{kind.features.size:,}"))
        dimensions = f"{kind.dimensions:,} dim{'s' * (kind.dimensions != 1)}"
        ax.text(1.12, centre, f"{kind.name}, {dimensions}", va="center", fontsize="small")
        place += height + 0.4
    ignored = np.flatnonzero(seen.phase == Phase.IGNORED)
    unused = D - sum(block.dimension for block in seen.blocks)
    if ignored.size:
        rows = ignored.size if single else 1
        y = place + np.arange(rows)
        ax.plot(np.zeros(rows), y, linestyle="none", marker="x", markersize=5.0, color=COLOURS[Phase.IGNORED])
        ticks += (
            list(zip(y.tolist(), [f"{k}: 0" for k in seen.called(ignored, _room(ax))], strict=True))
            if single
            else [(float(y[0]), f"{ignored.size:,}")]
        )
    if unused:
        y = place + np.arange(unused if single else 1)
        ax.plot(np.ones(y.size), y, linestyle="none", marker="s", markersize=6.0, color="black", fillstyle="none")
        ax.text(1.12, float(y.mean()), f"unused, {unused:,} dim{'s' * (unused != 1)}", va="center", fontsize="small")
    ax.set_xlim(-0.1, 1.1)
    ax.invert_yaxis()
    ax.set_xticks([])
    ax.set_yticks([y for y, _ in ticks], [text for _, text in ticks], parse_math=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(wrapped(ax, "features: capacity, by block" if single else "features by block"), loc="left")
