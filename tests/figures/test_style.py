"""Pictures in notebooks, and room for what stands outside the axes."""

import itertools
import pickle

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from mpl_toolkits.mplot3d.art3d import Text3D

import capsolve
from capsolve import figures
from capsolve.figures._style import wrapped

LONG = [
    "mentions of the Golden Gate Bridge, San Francisco",
    "base64 encoded strings in source code",
    "Arabic script at the start of a line",
    "the letter q",
    "Python imports with an alias, relative",
    "legal boilerplate: hereinafter",
]
PROFILE = capsolve.Profile([4.0, 2.0, 1.0, 0.5, 0.25, 0.1], 9.0, LONG)


def allocation():
    return capsolve.solve(PROFILE, dimensions=3)


def drawn(figure):
    """Lay a figure out and return its renderer."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    return renderer


def beyond(axes):
    """Return the labels of ticks that are outside the view of their axis, or were once: these are not drawn."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        used = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        for tick in (*axis.majorTicks, *axis.minorTicks):
            if tick not in used or not low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)


def texts(figure):
    """Yield all texts that are drawn in the plane, each with its axes and box."""
    renderer = drawn(figure)
    hidden = {text for axes in figure.findobj(Axes) for text in beyond(axes)}
    for text in figure.findobj(Text):
        if text not in hidden and not isinstance(text, Text3D) and text.get_visible() and text.get_text():
            yield text.axes, text.get_text(), Text.get_window_extent(text, renderer)


def cut(figure):
    """Return the texts of a figure that reach beyond it."""
    frame = figure.bbox.padded(1.0)
    inside = (
        (text, frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)
        for _, text, box in texts(figure)
    )
    return [text for text, fits in inside if not fits]


def covered(figure):
    """Return the pairs of texts of different axes that cover each other."""
    return [
        (one, other)
        for (ax, one, box), (by, other, place) in itertools.combinations(texts(figure), 2)
        if ax is not by and box.overlaps(place)
    ]


PAIRS = {
    "level and diagram": (
        lambda ax: figures.water_level(allocation(), ax=ax),
        lambda ax: figures.phase_diagram(capsolve.phase_diagram(cells=10), ax=ax),
    ),
    "capacity and phases": (
        lambda ax: figures.capacity(allocation(), ax=ax),
        lambda ax: figures.phases(allocation(), ax=ax),
    ),
    "products and blocks": (
        lambda ax: figures.gram_matrix(allocation().embedding(), names=LONG, ax=ax),
        lambda ax: figures.block_graph(allocation().embedding(), names=LONG, ax=ax),
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_plain_subplots_have_room_for_titles_and_legends(pair):
    figure = Figure()
    axes = figure.subplots(1, 2)
    for ax, draw in zip(axes, PAIRS[pair], strict=True):
        assert draw(ax) is ax
    assert cut(figure) == covered(figure) == []


def test_places_that_somebody_chose_stay():
    chosen = Figure()
    chosen.subplots_adjust(left=0.3)
    free = Figure()
    for figure, ax in ((chosen, chosen.subplots()), (free, free.add_axes((0.1, 0.1, 0.3, 0.3)))):
        before = ax.get_position().bounds
        figures.capacity(allocation(), ax=ax)
        drawn(figure)
        assert figure.get_layout_engine() is None
        assert ax.get_position().bounds == before


@pytest.mark.parametrize("make", [figures.gram_matrix, figures.embedding, figures.vectors], ids=lambda f: f.__name__)
@pytest.mark.parametrize("D", [2, 3])
def test_long_names_are_inside_the_picture(make, D):
    made = make(capsolve.solve(PROFILE, dimensions=D).embedding(), names=LONG)
    assert cut(made if isinstance(made, Figure) else made.figure) == []


@pytest.mark.parametrize("D", [2, 3, 5])
def test_the_panels_of_an_embedding_with_long_names_do_not_overlap(D):
    figure = figures.embedding(capsolve.solve(PROFILE, dimensions=D).embedding(), names=LONG)
    assert covered(figure) == []
    names = [label.get_text() for ax in figure.axes for label in ax.get_yticklabels()]
    assert any("mentions of" in name for name in names)


NOTEBOOK = [
    lambda: figures.capacity(allocation()),
    lambda: figures.vectors(np.eye(3)),
    lambda: figures.allocation(allocation()),
    lambda: figures.embedding(np.eye(2)),
]


@pytest.mark.parametrize("make", NOTEBOOK)
def test_notebooks_show_a_picture_of_whatever_is_returned(make):
    made = make()
    assert made._repr_png_().startswith(b"\x89PNG")
    figure = made if isinstance(made, Figure) else made.figure
    assert pickle.loads(pickle.dumps(figure)).axes


def test_axes_of_somebody_elses_figure_are_shown_by_whoever_made_it():
    ax = figures.capacity(allocation(), ax=Figure().subplots())
    assert not hasattr(ax, "_repr_png_")
    assert not plt.get_fignums()


def test_titles_break_between_words_but_not_in_formulas():
    ax = Figure(figsize=(6.4, 4.8)).subplots(1, 2)[0]
    title = r"phase at price $\lambda$ = 2.88, with $a \cdot b$ and all that belongs to it"
    lines = wrapped(ax, title).split("\n")
    assert len(lines) > 1
    assert " ".join(lines) == title
    assert all(line.count("$") % 2 == 0 for line in lines)
    assert wrapped(ax, "one\ntwo") == "one\ntwo"
