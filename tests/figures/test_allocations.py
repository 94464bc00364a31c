"""Figures are tested on what they hold: positions, colours, labels, borders, files; not on their pixels."""

import dataclasses

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import capsolve
from capsolve import Phase, figures
from capsolve.figures._style import number


def problem(seed=0, n=40, *, low=1.5, bias=True):
    """Return the solved allocation of a random heavy-tailed profile, in a random number of dimensions."""
    rng = np.random.default_rng(seed)
    kurtosis = low + rng.pareto(1.0, n) * 4
    return capsolve.solve(rng.pareto(1.5, n), kurtosis, rng.uniform(0, 0.8 * n), bias=bias)


def dots(ax):
    """Return the rank, height and phase of every dot, in order of rank."""
    found = []
    for collection in ax.collections:
        if type(collection) is PathCollection:
            phase = Phase[collection.get_label().upper()]
            for colour in collection.get_facecolors():
                assert tuple(colour) == to_rgba(figures.COLOURS[phase])
            found += [(*offset, phase) for offset in collection.get_offsets().tolist()]
    return np.array(sorted(found)).T


def tints(ax):
    """Return the outline of each phase's region."""
    return {
        Phase[region.get_label().removesuffix(" phase").upper()]: region.get_paths()
        for region in ax.collections
        if isinstance(region, FillBetweenPolyCollection)
    }


def astray(ax, kurtosis_above):
    """Return how many dots lie outside the region of their phase."""
    regions = tints(ax)
    return sum(
        not any(path.contains_point((rank, kurtosis)) for path in regions[Phase(int(phase))])
        for rank, kurtosis, phase in dots(ax).T
        if kurtosis > kurtosis_above
    )


def settled(allocation):
    """Return whether everybody would choose this allocation at its price: concave features take all or nothing."""
    model, price = allocation.model, allocation.price
    cost = model.feature_loss(allocation.capacity) + price * allocation.capacity
    concave = model.kurtosis < 3
    cost[concave] = np.minimum(model.importance**2 * (model.kurtosis - 1), price)[concave]
    return cost.sum() - price * allocation.dimensions > (1 - 1e-9) * allocation.loss


# what is drawn


@pytest.mark.parametrize("n", [1, 7, 64, 2500])
def test_dots_are_the_features_sorted_by_importance(n):
    allocation = problem(n=n)
    above, below = figures.allocation(allocation).axes
    order = np.argsort(-allocation.model.importance)
    for ax, height in ((above, allocation.capacity), (below, allocation.model.kurtosis)):
        rank, drawn, phase = dots(ax)
        np.testing.assert_array_equal(rank, np.arange(1, n + 1))
        np.testing.assert_array_equal(drawn, height[order])
        np.testing.assert_array_equal(phase, allocation.phase[order])
        low, high = ax.get_xlim()
        assert low < 1
        assert high > n
        low, high = ax.get_ylim()
        assert low < drawn.min()
        assert high > drawn.max()


def test_colours_and_markers_tell_the_phases_apart():
    assert len({to_rgba(colour) for colour in figures.COLOURS.values()}) == len(Phase)
    assert len(set(figures.MARKERS.values())) == len(Phase)
    # in grey too: the regions' shades on white paper, in the weights of ITU-R BT.601
    shade = {
        phase: 1 - figures.TINTS[phase] * (1 - np.dot([0.299, 0.587, 0.114], to_rgba(colour)[:3]))
        for phase, colour in figures.COLOURS.items()
    }
    ranked = sorted(shade.values())
    assert min(np.diff(ranked)) > 0.04


def test_legend_counts_the_phases():
    allocation = problem()
    legend = figures.capacity(allocation).get_legend()
    counts = allocation.counts()
    assert [text.get_text() for text in legend.get_texts()] == [
        f"{phase} ({counts[phase]})" for phase in ("monosemantic", "polysemantic", "ignored")
    ]
    assert [line.get_color() for line in legend.get_lines()] == [figures.COLOURS[p] for p in reversed(Phase)]
    assert [line.get_marker() for line in legend.get_lines()] == [figures.MARKERS[p] for p in reversed(Phase)]


def test_title_states_budget_status_price_and_loss():
    title = figures.capacity(capsolve.solve([2.0, 1.0, 1.0, 1.0], 9.0, 2)).get_title(loc="left")
    # L(D) of three equal features in one dimension: 3 · 8 · (2/3) / (1 + 3/3) = 8; λ = ½ 8² / (1 + 1)² = 8
    assert title == "4 features in 2 dimensions: optimal\nprice $\\lambda$ = 8, loss $L$ = 8"


def test_title_of_an_uncertified_allocation_says_so():
    allocation = capsolve.certify(capsolve.QuadraticLoss([2.0, 1.0], 9.0), 1.0, np.array([0.5, 0.5]))
    assert allocation.status is capsolve.Status.FEASIBLE
    assert ": feasible, relative gap 0." in figures.capacity(allocation).get_title(loc="left")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (0.00123456, "0.001235"),
        (724.0828, "724.1"),
        (16995.11137, "16,995.1"),
        (4.678e-6, r"$4.678\times10^{-6}$"),
        (1e9, "$10^{9}$"),
        (np.inf, "inf"),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_few_features_are_called_by_name():
    names = ["$x$", "a_very_long_name_of_a_feature_17", "{b}"]
    ax = figures.capacity(capsolve.solve([1.0, 3.0, 2.0], 9.0, 2), names=names)
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["a_very_long…ature_17", "{b}", "$x$"]
    assert not any(label.get_parse_math() for label in ax.get_xticklabels())


def test_few_features_without_names_are_called_by_index():
    ax = figures.capacity(capsolve.solve([1.0, 3.0, 2.0], 9.0, 2))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "0"]


def test_local_mean_preserves_the_budget():
    allocation = problem(n=5000)
    ax = figures.capacity(allocation)
    (line,) = ax.lines
    assert ax.get_legend().get_texts()[-1].get_text() == "local mean"
    centre, mean = line.get_data()
    start, counts = 1, []
    for middle in centre:  # a window of m ranks from `start` on has its centre at start + (m − 1)/2
        counts.append(round(2 * (middle - start)) + 1)
        start += counts[-1]
    assert start == 5001
    assert np.dot(counts, mean) == pytest.approx(allocation.dimensions, rel=1e-12)


def test_only_crowds_have_a_local_mean_and_a_raster():
    for n, crowd in ((200, False), (201, True)):
        ax = figures.capacity(problem(n=n))
        assert bool(ax.lines) is crowd
        assert all(collection.get_rasterized() is crowd for collection in ax.collections)


def test_ranks_are_logarithmic_only_for_many_features():
    assert [ax.get_xscale() for ax in figures.allocation(problem(n=2000)).axes] == ["linear"] * 2
    assert [ax.get_xscale() for ax in figures.allocation(problem(n=2001)).axes] == ["log"] * 2


def test_losses_without_importance_are_sorted_by_what_ignoring_costs():
    weight = np.array([0.3, 2.0, 1.0, 0.1])
    figure = figures.allocation(capsolve.allocate(capsolve.TabulatedLoss([1.0, 0.2, 0.0], weight=weight), 2))
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "0", "3"]
    assert "costliest" in ax.get_xlabel()


# where the borders between the phases run


@pytest.mark.parametrize("bias", [True, False])
def test_convex_features_lie_in_the_region_of_their_phase(bias):
    for seed in range(25):
        assert astray(figures.phases(problem(seed, low=3.01, bias=bias)), kurtosis_above=0) == 0


def test_convex_features_among_concave_ones_lie_in_the_region_of_their_phase():
    for seed in range(25):
        assert astray(figures.phases(problem(seed)), kurtosis_above=3) == 0


def test_concave_features_lie_in_the_region_of_their_phase_when_the_price_settles_all():
    chosen = [a for a in map(problem, range(25)) if settled(a)]
    assert len(chosen) > 5
    for allocation in chosen:
        assert astray(figures.phases(allocation), kurtosis_above=0) == 0


def test_features_lie_astray_at_a_wrong_price():
    allocation = problem(low=3.01)
    for factor in (0.8, 1.25):
        wrong = dataclasses.replace(allocation, scale=factor * allocation.scale)
        assert astray(figures.phases(wrong), kurtosis_above=0) > 0


def test_regions_of_a_sample_of_many_columns_meet_at_the_scale():
    allocation = problem(n=20_000)
    ax = figures.phases(allocation)
    full = np.count_nonzero(allocation.model.importance >= allocation.scale)
    for rank, phase in ((full + 0.4, Phase.MONOSEMANTIC), (full + 0.6, Phase.POLYSEMANTIC)):
        assert tints(ax)[phase][0].contains_point((rank, 0.9 * ax.get_ylim()[1]))


def test_phases_need_the_quadratic_loss():
    allocation = capsolve.allocate(capsolve.TabulatedLoss([1.0, 0.0], weight=[1.0, 1.0]), 1)
    with pytest.raises(TypeError, match="QuadraticLoss, not for TabulatedLoss"):
        figures.phases(allocation)


# manners


@pytest.mark.parametrize(
    "allocation",
    [
        capsolve.solve([1.0], 9.0, 0),
        capsolve.solve([0.0, 0.0], [1.0, 9.0], 1),
        capsolve.solve([1.0, 0.0, 2.0], [2.0, 3.0, 9.0], 5),
        capsolve.solve([1.0, 1.0, 1.0], 3.0, 1.5),
        capsolve.solve([1e-150, 1.0, 1e150], [1.0, 1e12, 3.0], 1.5),
        capsolve.solve([0.0, 1.0, 0.0], 9.0, 1.5, bias=False),
        capsolve.solve([5e-324, 1.0], [9.0, 9.0], 0.5),
    ],
    ids=repr,
)
def test_odd_allocations_are_drawn_without_a_warning(allocation, tmp_path):
    figures.save(figures.allocation(allocation), tmp_path / "a.png")


def test_a_name_per_feature():
    allocation = capsolve.solve([1.0, 2.0], 9.0, 1)
    for draw in (figures.allocation, figures.capacity, figures.phases):
        with pytest.raises(ValueError, match="names must have one entry per feature: 2 features, got 1 names"):
            draw(allocation, names=["a"])


def test_axes_are_the_callers_and_style_stays_inside():
    before = dict(mpl.rcParams)
    figure = Figure()
    ax = figure.subplots()
    allocation = problem()
    assert figures.capacity(allocation, ax=ax) is ax
    assert figures.phases(allocation, ax=figure.add_subplot()).figure is figure
    figures.allocation(allocation)
    assert dict(mpl.rcParams) == before
