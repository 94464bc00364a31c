"""Branch and bound on problems whose answer is known otherwise: sums of sines, and the 0/1 knapsack."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsolve.solvers.branch_and_bound import Relaxation, branch_and_bound

SLOPE = 40.0  # bounds |f'| of every curve below: Σ |a_k| k with |a_k| ≤ 1, k ≤ 8


class Wave:
    """f(x) = Σ a_k sin(k x + b_k) on [0, 1], bounded below on a node by its Lipschitz constant."""

    def __init__(self, amplitude, phase, slope=SLOPE):
        self.amplitude, self.phase, self.slope = np.array(amplitude), np.array(phase), slope

    def __call__(self, x):
        k = np.arange(1, self.amplitude.size + 1)
        return np.sin(np.multiply.outer(x, k) + self.phase) @ self.amplitude

    def relax(self, node):
        a, b = node
        middle = (a + b) / 2
        loss = float(self(middle))
        bound = loss - self.slope * (b - a) / 2
        return Relaxation(bound, loss, np.array([middle]), lambda: [(a, middle), (middle, b)])


def check(wave, outcome, tolerance, floor):
    """The outcome is what `branch_and_bound` promises, judged on a fine grid."""
    grid = wave(np.linspace(0.0, 1.0, 20_001))
    assert outcome.loss == float(wave(outcome.capacity[0]))
    assert outcome.lower_bound <= grid.min()
    assert outcome.loss - outcome.lower_bound <= tolerance * (outcome.loss - floor)


waves = st.builds(
    Wave,
    st.lists(st.floats(-1, 1), min_size=8, max_size=8),
    st.lists(st.floats(0, 2 * math.pi), min_size=8, max_size=8),
)


@given(waves)
def test_finds_the_least_value_of_a_wave(wave):
    check(wave, branch_and_bound(wave.relax, (0.0, 1.0), tolerance=1e-2, floor=-8.0), 1e-2, floor=-8.0)


def test_a_part_that_was_left_out_is_not_ruled_out():
    """The least value is in the half that `split` forgets: the bound of the whole node then stands."""
    wave = Wave([0, 1, 0, 0, 0, 0, 0, 0], [-1.0] * 8)  # least at 0, where the bound of [0, 1] is far below

    def forgetful(node):
        found = wave.relax(node)
        return Relaxation(found.bound, found.loss, found.capacity, lambda: list(found.split())[1:])

    outcome = branch_and_bound(forgetful, (0.0, 1.0), tolerance=1e-2, floor=-8.0)
    assert outcome.lower_bound <= float(wave(0.0)) < outcome.loss
    whole = branch_and_bound(wave.relax, (0.0, 1.0), tolerance=1e-2, floor=-8.0)
    empty = [None]  # told as empty, a part is no cover less
    assert (
        branch_and_bound(
            lambda node: (
                (found := wave.relax(node))
                and Relaxation(found.bound, found.loss, found.capacity, lambda: [*found.split(), *empty])
            ),
            (0.0, 1.0),
            tolerance=1e-2,
            floor=-8.0,
        )
        == whole
    )


def test_the_check_rejects_a_bound_that_is_none():
    wave = Wave([0, 0, 0, 0, 0, 0, 0, 1], [0.3] * 8, slope=0.1)  # the true slope reaches 8
    outcome = branch_and_bound(wave.relax, (0.0, 1.0), tolerance=1e-3, floor=-8.0)
    with pytest.raises(AssertionError):
        check(wave, outcome, 1e-3, floor=-8.0)


@given(waves, st.integers(1, 60))
def test_a_box_limit_leaves_an_honest_gap(wave, limit):
    outcome = branch_and_bound(wave.relax, (0.0, 1.0), tolerance=1e-3, floor=-8.0, node_limit=limit)
    assert outcome.nodes <= limit + 1  # the split under way is finished
    check(wave, outcome, math.inf, floor=-8.0)


def test_more_boxes_never_loosen_the_bound():
    wave = Wave(np.linspace(-1, 1, 8), np.arange(8.0))
    outcomes = [
        branch_and_bound(wave.relax, (0.0, 1.0), tolerance=0.0, floor=-8.0, node_limit=limit)
        for limit in range(1, 200, 10)
    ]
    assert (np.diff([o.lower_bound for o in outcomes]) >= 0).all()
    assert (np.diff([o.loss for o in outcomes]) <= 0).all()


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=9),
    st.integers(0, 40),
)
def test_knapsack_against_enumeration(items, room):
    """Leave out items of least total worth so that the rest fits; a node fixes items in (1) or out (0)."""
    items = sorted(items, key=lambda item: item[1] / item[0])  # worth per size, worst last to be put in

    def relax(fixed):
        left = room - sum(size for (size, _), f in zip(items, fixed, strict=True) if f == 1)
        if left < 0:
            return None
        bound, whole = 0.0, list(fixed)
        branching_feature = None
        for i in reversed(range(len(items))):
            size, worth = items[i]
            if fixed[i] == 0:
                bound += worth
            elif fixed[i] is None and size <= left and branching_feature is None:
                left, whole[i] = left - size, 1
            elif fixed[i] is None:
                bound += worth * (1 - left / size)
                left, whole[i], branching_feature = 0, 0, i if branching_feature is None else branching_feature
        loss = float(sum(worth for (_, worth), w in zip(items, whole, strict=True) if w == 0))

        def split():
            return [tuple(v if k == branching_feature else f for k, f in enumerate(fixed)) for v in (0, 1)]

        return Relaxation(bound, loss, np.array(whole, dtype=float), split)

    outcome = branch_and_bound(relax, (None,) * len(items), tolerance=1e-9)
    best = min(
        sum(worth for (_, worth), w in zip(items, which, strict=True) if not w)
        for which in itertools.product((0, 1), repeat=len(items))
        if sum(size for (size, _), w in zip(items, which, strict=True) if w) <= room
    )
    assert outcome.loss == best
    assert sum(size for (size, _), w in zip(items, outcome.capacity, strict=True) if w) <= room
    assert best - outcome.lower_bound <= 1e-9 * best


def test_a_weak_child_inherits_its_parents_bound():
    """Halves that know less than the whole must not make the bound worse."""
    bounds = {(0, 4): 0.9, (0, 2): 0.2, (2, 4): 0.5}

    def relax(node):
        a, b = node
        return Relaxation(bounds.get(node, 0.0), 1.0, np.zeros(1), lambda: [(a, (a + b) // 2), ((a + b) // 2, b)])

    assert branch_and_bound(relax, (0, 4), tolerance=0.0, node_limit=3).lower_bound == 0.9


def test_a_box_that_cannot_be_split_keeps_its_bound():
    def relax(node):
        if node == "root":
            return Relaxation(0.0, 3.0, np.zeros(1), lambda: ["stuck", "good", "empty"])
        if node == "empty":
            return None
        return Relaxation(0.5, 3.0, np.zeros(1), list) if node == "stuck" else Relaxation(2.0, 2.0, np.ones(1), list)

    outcome = branch_and_bound(relax, "root", tolerance=1e-9)
    assert (outcome.loss, outcome.lower_bound, outcome.nodes) == (2.0, 0.5, 4)
    assert outcome.capacity == 1.0


def test_the_tolerance_is_relative_to_what_can_be_saved():
    def relax(_):
        return Relaxation(100.0, 101.0, np.zeros(1), lambda: pytest.fail("split although the gap is closed"))

    assert branch_and_bound(relax, None, tolerance=0.01, floor=0.0).nodes == 1
    with pytest.raises(pytest.fail.Exception):
        branch_and_bound(relax, None, tolerance=0.01, floor=99.0)


def test_a_loss_at_its_floor_is_optimal_even_if_the_bound_rounds_below():
    def relax(_):
        return Relaxation(-1e-17, 0.0, np.zeros(1), lambda: pytest.fail("split at the floor"))

    outcome = branch_and_bound(relax, None, tolerance=0.0, floor=0.0)
    assert (outcome.loss, outcome.lower_bound) == (0.0, 0.0)


def test_an_empty_root_is_an_error():
    with pytest.raises(ValueError, match="feasible root"):
        branch_and_bound(lambda _: None, None, tolerance=1e-9)
