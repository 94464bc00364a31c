"""Pictures of embeddings: arrows, inner products and blocks are those of W."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from scipy.stats import ortho_group

import capsolve
from capsolve import Phase, figures


def ring(n):
    turn = 2 * np.pi * np.arange(n) / n
    return np.column_stack([np.cos(turn), np.sin(turn)])


def blocky():
    """Return an embedding of a pair, one alone, a triangle, and one ignored, with an unused dimension; rotated."""
    W = capsolve.construct_blocks(
        [([0, 3], [0.5, 0.5], 1.0), ([1], [1], 4.0), ([2, 4, 5], [2 / 3] * 3, 9.0)], features=7, dimensions=5
    )
    return W @ ortho_group.rvs(5, random_state=np.random.default_rng(0))


PHASES = [1, 2, 1, 1, 1, 1, 0]  # of `blocky`


@pytest.mark.parametrize("D", [1, 2, 3])
def test_arrows_end_where_the_rows_do(D):
    W = np.random.default_rng(0).standard_normal((6, D))
    ax = figures.vectors(W)
    (spokes,) = (line for line in ax.lines if len(line.get_xdata()) == 18)
    points = np.column_stack(spokes.get_data_3d() if D == 3 else spokes.get_data()).reshape(6, 3, max(D, 2))
    assert (points[:, 0] == 0).all()
    drawn = points[:, 1, :D]
    expected = W[np.argsort(-np.linalg.norm(W, axis=1))]
    np.testing.assert_array_equal(drawn, expected)
    assert (points[:, 1, D:] == 0).all()
    assert sorted("".join(text.get_text() for text in ax.texts).replace("\n", "")) == list("012345")


@pytest.mark.parametrize("D", [2, 3])
def test_parallel_vectors_have_one_label_between_them(D):
    W = np.pad([[1, 0], [1, 0.01], [-1, 0], [0, 1], [0, 1.0], [0, 0.5], [0, 0]], ((0, 0), (0, D - 2)))
    names = ["cat", "dog", "fish", "left", "right", "the name of what is halfway up", "nothing"]
    ax = figures.vectors(W, names=names)
    assert sorted(text.get_text() for text in ax.texts) == ["cat\ndog", "fish", "left\nright", "the nam…y up"]
    sides = {text.get_text(): (text.get_ha(), text.get_va()) for text in ax.texts}
    if D == 2:
        assert sides["cat\ndog"] == ("left", "center")
        assert sides["fish"] == ("right", "center")
        assert sides["left\nright"] == ("center", "bottom")
    many = figures.vectors(np.tile([1.0, 1.0], (9, 1)), names=list("abcdefghi"))
    assert [text.get_text() for text in many.texts] == ["a\nb\nc\nand 6 more"]


def test_vectors_in_more_than_three_dimensions_have_no_picture():
    with pytest.raises(ValueError, match=r"at most 3 dimensions, got shape \(2, 4\)"):
        figures.vectors(np.ones((2, 4)))


def test_vectors_need_axes_of_the_right_projection():
    with pytest.raises(ValueError, match="projection '3d' for D = 3, got 'rectilinear'"):
        figures.vectors(np.eye(3), ax=Figure().subplots())
    with pytest.raises(ValueError, match="projection 'rectilinear' for D = 2, got '3d'"):
        figures.vectors(np.eye(2), ax=Figure().add_subplot(projection="3d"))
    ax = Figure().add_subplot(projection="3d")
    assert figures.vectors(np.eye(3), ax=ax) is ax


def test_the_picture_of_inner_products_has_blocks_side_by_side():
    W = blocky()
    ax = figures.gram_matrix(W)
    order = [0, 3, 1, 2, 4, 5, 6]
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), (W @ W.T)[np.ix_(order, order)], atol=1e-14)
    assert [label.get_text() for label in ax.get_yticklabels()] == [str(i) for i in order]
    assert image.norm.vmin == -image.norm.vmax
    white = image.cmap(image.norm(0.0))
    assert white == (1.0, 1.0, 1.0, 1.0)


def test_both_signs_differ_in_grey():
    image = figures.gram_matrix(ring(3)).images[0]
    positive, negative = (np.dot([0.299, 0.587, 0.114], image.cmap(image.norm(v))[:3]) for v in (1.0, -1.0))
    assert negative - positive > 0.3


def test_few_inner_products_are_written():
    assert [text.get_text() for text in figures.gram_matrix(ring(3)).texts] == [
        *("1", "−0.5", "−0.5"),
        *("−0.5", "1", "−0.5"),
        *("−0.5", "−0.5", "1"),
    ]


def links(ax):
    """Return who is linked to which dimension: the set of (left, right) heights, with colours."""
    found = {}
    for line in ax.lines:
        if line.get_marker() == "None":
            left, right = line.get_ydata()
            found[float(left), float(right)] = line.get_color()
    return found


def test_the_graph_links_features_with_the_dimensions_of_their_block():
    ax = figures.block_graph(blocky())
    place = {label.get_text(): tick for tick, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)}
    assert list(place) == ["0: 0.5", "3: 0.5", "1: 1", "2: 0.667", "4: 0.667", "5: 0.667", "6: 0"]
    seen = links(ax)
    reached = {text: {right for left, right in seen if left == at} for text, at in place.items()}
    assert [len(squares) for squares in reached.values()] == [1, 1, 1, 2, 2, 2, 0]
    assert reached["0: 0.5"] == reached["3: 0.5"]
    assert reached["2: 0.667"] == reached["4: 0.667"] == reached["5: 0.667"]
    assert len(set().union(*reached.values())) == 4
    for (left, _), colour in seen.items():
        feature = int(next(text for text, at in place.items() if at == left).split(":")[0])
        assert colour == figures.COLOURS[Phase(PHASES[feature])]
    assert [text.get_text() for text in ax.texts] == [
        "antipodal pair, 1 dim",
        "monosemantic, 1 dim",
        "triangle, 2 dims",
        "unused, 1 dim",
    ]
    (unused,) = (line for line in ax.lines if line.get_fillstyle() == "none")
    assert len(unused.get_xdata()) == 1


def test_blocks_of_many_features_are_counted():
    W = np.zeros((203, 60))
    W[range(20), range(20)] = 1.0
    W[range(20, 60), np.repeat(range(20, 40), 2)] = 1.0
    for k in range(20):  # blocks of 3, 4, …, 22 parallel features: more kinds than the picture has room for
        W[60 + 7 * k : 60 + 7 * (k + 1), 40 + k] = 1.0
    ax = figures.block_graph(W)
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["20 × large block, 20 dims", "20 × antipodal pair, 20 dims", "20 × monosemantic, 20 dims"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["140", "40", "20", "3"]


def test_more_kinds_of_blocks_than_rows_are_summed_up():
    sizes = np.arange(1, 31)
    W = np.repeat(np.eye(30), sizes, axis=0)
    ax = figures.block_graph(W)
    labels = [int(label.get_text()) for label in ax.get_yticklabels()]
    assert len(labels) == 14
    assert sum(labels) == sizes.sum()
    assert ax.texts[-1].get_text() == "17 × other, 17 dims"


def test_the_page_has_vectors_only_where_they_can_be_drawn():
    for D, panels in ((1, 3), (2, 3), (3, 3), (4, 2)):
        assert len(figures.embedding(np.eye(D)).axes) == panels


def test_phases_are_coloured_alike_everywhere():
    W = ring(3)
    W = np.vstack([np.pad(W, ((0, 0), (0, 1))), [[0, 0, 2.0]], [[0, 0, 0]]])
    figure = figures.embedding(W)
    arrows = {line.get_color() for line in figure.axes[0].lines} - {"0.75"}
    assert arrows == {figures.COLOURS[Phase.POLYSEMANTIC], figures.COLOURS[Phase.MONOSEMANTIC]}
    assert set(links(figure.axes[-1]).values()) == arrows
    tips = [tuple(c) for dots in figure.axes[0].collections for c in dots.get_facecolors()]
    assert to_rgba(figures.COLOURS[Phase.MONOSEMANTIC])[:3] in [tip[:3] for tip in tips]


def test_names_are_checked():
    assert figures.vectors(np.eye(2), names=["$a$", "b"]).texts[0].get_text() == "$a$"
    for draw in (figures.embedding, figures.vectors, figures.gram_matrix, figures.block_graph):
        with pytest.raises(ValueError, match="names must have one entry per feature: 2 features, got 1 names"):
            draw(np.eye(2), names=["a"])
        with pytest.raises(ValueError, match="W must be finite"):
            draw([[np.nan, 1.0]])


@pytest.mark.parametrize(
    "W",
    [[[1.0]], np.zeros((2, 2)), np.eye(40), 1e-300 * np.eye(3), np.random.default_rng(0).standard_normal((20_000, 3))],
    ids=["one", "zeros", "many axes", "tiny", "crowd"],
)
def test_extreme_embeddings_can_be_drawn(W, tmp_path):
    figures.save(figures.embedding(W), tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").stat().st_size < 500_000


@pytest.mark.parametrize(("n", "written"), [(4, 16), (8, 64), (11, 0)])
def test_inner_products_stay_inside_their_cells(n, written):
    W = np.random.default_rng(0).standard_normal((n, 2)) * np.linspace(0.1, 2.0, n)[:, None]
    figure = Figure(figsize=(8.0, 4.0))
    ax = figures.gram_matrix(W, ax=figure.subplots(1, 2)[1])
    figure.canvas.draw()
    widths = [text.get_window_extent().width for text in ax.texts]
    assert len(widths) == written, "none where they would be too small to be read"
    assert max(widths, default=0.0) <= ax.get_window_extent().width / n
