"""Counting collisions: networks drawn by hand, random ones counted pair by pair, symmetries."""

import numpy as np
import pytest

from capsolve.incidental import (
    count_collisions,
    expected_neurons,
    expected_pairs,
    hidden_interference,
    same_winner,
    start_end_correlation,
)


def settled(rng, n, m):
    """Draw a network in which every feature has one weight of size 1."""
    W = np.zeros((n, m))
    W[np.arange(n), rng.integers(m, size=n)] = rng.choice([-1.0, 1.0], size=n)
    return W


@pytest.mark.parametrize("seed", range(5))
def test_counts_pair_by_pair(seed):
    rng = np.random.default_rng(seed)
    W = settled(rng, 12, 6) + rng.normal(scale=0.01, size=(12, 6))
    found = count_collisions(W)
    large = np.abs(W) > 0.5
    opposite = equal = 0
    shared = set()
    for i in range(12):
        for j in range(i):
            for k in np.flatnonzero(large[i] & large[j]):
                opposite += W[i, k] * W[j, k] < 0
                equal += W[i, k] * W[j, k] > 0
                shared.add(k)
    assert (found.opposite_pairs, found.equal_pairs, found.polysemantic) == (opposite, equal, len(shared))
    assert found.single == 1.0
    # neither the order of features and neurons nor the signs of whole neurons matter
    turned = (W * rng.choice([-1.0, 1.0], size=6))[rng.permutation(12)][:, rng.permutation(6)]
    other = count_collisions(turned)
    assert (other.opposite_pairs, other.equal_pairs) == (found.opposite_pairs, found.equal_pairs)
    assert other.excess == pytest.approx(found.excess, abs=1e-12)


def test_excess_is_one_for_each_pair_with_room_to_spare():
    W = np.zeros((4, 6))
    W[0, 0], W[1, 0], W[2, 1], W[3, 2] = 1.0, -1.0, 1.0, 1.0
    found = count_collisions(W)
    assert found.excess == pytest.approx(1.0, abs=1e-14)
    np.testing.assert_allclose(found.capacity, [0.5, 0.5, 1.0, 1.0], atol=1e-14)
    W[1] = 0.0
    W[1, 3] = -1.0
    assert count_collisions(W).excess == pytest.approx(0.0, abs=1e-14)
    # three features in two dimensions must share: pairs that are needed are no excess
    assert count_collisions([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]).excess == pytest.approx(0.0, abs=1e-14)


def test_the_window_decides_what_is_large():
    W = np.array([[0.79, 0.0], [-0.81, 0.0]])
    assert count_collisions(W).polysemantic == 0
    assert count_collisions(W, low=0.7).polysemantic == 1
    assert count_collisions(2 * W, low=0.7).polysemantic == 0
    assert count_collisions(W).single == 0.5


def test_random_draws_agree_with_the_expected_number_of_neurons():
    rng = np.random.default_rng(3)
    found = count_collisions(np.stack([settled(rng, 32, 32) for _ in range(400)]))
    counts = found.opposite_neurons
    error = counts.std() / 20
    assert abs(counts.mean() - expected_neurons(32, 32)) < 4 * error
    assert abs(counts.mean() - expected_neurons(32, 32, exclusive=True)) > 8 * error  # the other law is told apart


def test_hidden_interference_is_the_expected_number_of_pairs_before_and_the_number_after():
    rng = np.random.default_rng(1)
    start = rng.normal(size=(300, 24, 40)) / np.sqrt(40)
    found = hidden_interference(start)
    assert abs(found.mean() - expected_pairs(24, 40)) < 4 * found.std() / np.sqrt(300)
    W = np.zeros((4, 6))
    W[0, 0], W[1, 0], W[2, 1], W[3, 0] = 1.0, -1.0, 1.0, -1.0
    assert hidden_interference(W) == count_collisions(W).opposite_pairs == 2


def test_start_and_end():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(2, 5, 8))
    assert same_winner(start, 3.0 * start) == pytest.approx([1.0, 1.0])
    assert same_winner(start, -start) == pytest.approx([0.0, 0.0])
    found = start_end_correlation(start, 2.0 * start)
    np.testing.assert_allclose(np.diagonal(found, axis1=-2, axis2=-1), 1.0, atol=1e-14)
    assert np.abs(found).max() < 1 + 1e-14
    assert not start_end_correlation(start, np.zeros_like(start)).any()


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ([1.0, 2.0], {}, "weights must have shape"),
        ([[np.nan, 1.0]], {}, "weights must be finite"),
        ([[1j, 1.0]], {}, "weights must be finite real"),
        ([[1.0, 1.0]], {"low": 0.0}, "low must be"),
        ([[1.0, 1.0]], {"low": 0.8, "high": 0.7}, "high must be >= 0.8, got 0.7"),
    ],
)
def test_bad_weights(weights, options, message):
    with pytest.raises(ValueError, match=message):
        count_collisions(weights, **options)


def test_start_and_end_must_fit():
    with pytest.raises(ValueError, match="same shape"):
        same_winner(np.zeros((2, 3)), np.zeros((3, 2)))
