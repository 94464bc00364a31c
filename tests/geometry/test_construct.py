"""Round trips: capacities in, an embedding, the same capacities out."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit

from capsolve import blocks, capacities, construct_blocks, construct_embedding, efficiency, leverages

CASES = {
    "antipodal pairs": [1 / 2] * 6,
    "two kinds": [2 / 3] * 3 + [1 / 3] * 3,
    "three kinds": [1 / 4] * 8 + [1 / 2] * 4 + [3 / 4] * 4,
    "partial sums are integers": [0.5, 0.5, 0.3, 0.7, 0.4, 0.6, 0.9, 0.1],
    "tetrahedron": [3 / 4] * 4,
    "one dimension": [0.1, 0.2, 0.3, 0.4],
    "one less than features": [1 - 1 / 200] * 200,
    "unequal pair and axis": [0.1, 0.9, 1],
    "almost nothing, almost all": [1e-12, 1 - 1e-12],
    "five almost all": [1 - 1e-12] * 5 + [5e-12],
    "ends of the range": [1e-300, 1 - 1e-13, 1e-13, 1e-17, 0.5, 0.5],
    "nearest to one": [1 - 2**-53] * 3 + [0.5, 0.5, 3 * 2**-53],
    "only ones": [1.0, 1.0],
    "only zeros": [0.0, 0.0],
    "all kinds": [1, 0, 0.5, 0.25, 0.25, 1, 0.6, 0.4, 0],
}


def shares(rng, n, d, spread=1.5):
    """Random capacities strictly between 0 and 1 that sum to d."""
    x = spread * rng.standard_normal(n)
    return expit(x + brentq(lambda t: expit(x + t).sum() - d, -60, 60, xtol=1e-15))


def check(C, W, M=None):
    """C is reached to 1e-12, and WᵀW is the diagonal M to 1e-12."""
    D = W.shape[1]
    M = np.eye(D) if M is None else M
    scale = max(1.0, np.abs(M).max(initial=0))
    assert np.abs(W.T @ W - M).max(initial=0) < 1e-12 * scale
    if D:
        np.testing.assert_allclose(capacities(W), C, rtol=0, atol=1e-12)
        assert capacities(W).sum() == pytest.approx(round(np.sum(C)), abs=1e-12 * max(1, np.sum(C)))


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_cases(name, rotate):
    C = np.array(CASES[name])
    W = construct_embedding(C, scale=1.0, rotate=rotate, rng=0)
    assert W.shape == (C.size, round(C.sum()))
    check(C, W)
    np.testing.assert_array_equal(np.abs(W).max(axis=1, initial=0)[C == 0], 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 60), st.data())
def test_random_frames(seed, n, data):
    d = data.draw(st.integers(1, n - 1))
    spread = data.draw(st.sampled_from([0.0, 0.3, 2.0, 8.0]))
    C = shares(np.random.default_rng(seed), n, d, spread)
    W = construct_embedding(C, scale=1.0)
    check(C, W)
    # Row lengths are those asked for, to the last bit or two, except for what is moved to make ΣC an integer.
    np.testing.assert_allclose((W**2).sum(axis=1), C, rtol=1e-13, atol=1e-15 * n)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d"), [(2000, 300), (2000, 700), (2000, 1), (2000, 1999)])
def test_large_frames(n, d):
    C = shares(np.random.default_rng(n + d), n, d)
    check(C, construct_embedding(C, scale=1.0))


def test_extreme_frame():
    rng = np.random.default_rng(0)
    C = shares(rng, 600, 200, spread=10.0)
    assert C.min() < 1e-9
    assert C.max() > 1 - 1e-9
    check(C, construct_embedding(C, scale=1.0))


@pytest.mark.parametrize("name", [name for name in CASES if name not in {"only ones", "only zeros"}])
def test_the_frame_is_in_one_piece(name):
    C = np.array(CASES[name])
    frame = C[(C > 1e-11) & (C < 1 - 1e-11)]
    if frame.size < 2:
        return
    found = blocks(construct_embedding(C, scale=1.0, rotate=True, rng=1), tolerance=1e-7)
    large = [block for block in found if block.features.size > 1]
    assert len(large) == 1
    assert large[0].residual < 1e-10


@pytest.mark.parametrize(("n", "D"), [(12, 4), (100, 30), (700, 90), (2000, 250)])
@pytest.mark.parametrize("rotate", [False, True])
def test_round_trip_of_an_optimum(optimum, n, D, rotate):
    rng = np.random.default_rng(n)
    v, k = rng.lognormal(size=n), 3.5 + rng.exponential(3, size=n)
    C, m, _ = optimum(v, k, D)
    alone = np.count_nonzero(C == 1)
    assert 0 < alone < D
    W = construct_embedding(C, m, rotate=rotate, rng=rng)
    assert W.shape == (n, D)
    np.testing.assert_allclose(capacities(W), C, rtol=0, atol=1e-12)
    assert efficiency(W) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose((W**2).sum(axis=1), m, rtol=1e-9)
    found = blocks(W)
    assert sum(block.name == "monosemantic" for block in found) == alone
    (frame,) = (block for block in found if block.name != "monosemantic")
    assert frame.dimension == D - alone
    assert frame.residual < 1e-12
    np.testing.assert_array_equal(frame.features, np.flatnonzero((C > 0) & (C < 1)))
    assert frame.scale == pytest.approx(m[frame.features].sum() / frame.dimension, rel=1e-12)


def test_lengths_of_the_monosemantic_are_free():
    W = construct_embedding([1, 0.5, 1, 0.5], [100.0, 2.0, 1e-6, 2.0])
    np.testing.assert_allclose(W.T @ W, np.diag([100.0, 1e-6, 4.0]), rtol=1e-15, atol=1e-15)


def test_a_remainder_is_spread():
    C = np.array([0.5 + 2e-10, 0.5, 0.25, 0.75, 1.0, 0.0])
    W = construct_embedding(C, scale=1.0)
    check(C - 2e-10 * C * (1 - C) / (C * (1 - C)).sum(), W)
    W = construct_embedding([1.0, 1e-10], scale=1.0)
    np.testing.assert_array_equal(W, [[1.0], [0.0]])
    W = construct_embedding([1.0, 1 - 1e-10], scale=1.0)
    np.testing.assert_allclose(W, [[1.0, 0.0], [0.0, 1.0]], atol=1e-10)


def test_rotation_is_haar_and_reproducible():
    C = [1.0, 0.5, 0.5, 1.0]
    plain = construct_embedding(C, scale=1.0)
    one = construct_embedding(C, scale=1.0, rotate=True, rng=3)
    np.testing.assert_array_equal(one, construct_embedding(C, scale=1.0, rotate=True, rng=np.random.default_rng(3)))
    np.testing.assert_array_equal(plain, construct_embedding(C, scale=1.0, rng=5))
    np.testing.assert_allclose(one @ one.T, plain @ plain.T, atol=1e-15)
    # A unit row is uniform on the sphere of 3 dimensions: mean 0, mean square 1/3, mean fourth power 1/5.
    rng = np.random.default_rng(0)
    first = np.array([construct_embedding(C, scale=1.0, rotate=True, rng=rng)[0] for _ in range(4000)])
    for power, mean, second in ((1, 0, 1 / 3), (2, 1 / 3, 1 / 5), (4, 1 / 5, 1 / 9)):
        error = ((second - mean**2) / 4000) ** 0.5
        assert (np.abs((first**power).mean(axis=0) - mean) < 4.5 * error).all()


def test_more_dimensions_than_capacity():
    W = construct_embedding([1, 0.5, 0.5], scale=1.0, dimensions=4)
    assert W.shape == (3, 4)
    assert not W[:, 2:].any()
    rotated = construct_embedding([1, 0.5, 0.5], scale=1.0, dimensions=4, rotate=True, rng=0)
    np.testing.assert_allclose(capacities(rotated), [1, 0.5, 0.5], atol=1e-15)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_blocks_of_any_kind(seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(40)
    given_blocks = [
        (order[:7], shares(rng, 7, 3), 2.0),
        (order[7:8], np.ones(1), 0.1),
        (order[8:20], shares(rng, 12, 5), 5.0),
        (order[20:22], np.array([0.2, 0.8]), 2.0),
    ]
    W = construct_blocks(given_blocks, features=40, dimensions=12, rotate=True, rng=rng)
    assert W.shape == (40, 12)  # 18 zero rows, 2 free dimensions
    C = np.zeros(40)
    for features, capacity, scale in given_blocks:
        C[features] = capacity
        part = W[features]
        np.testing.assert_allclose(part @ part.T @ part, scale * part, atol=1e-13)  # a tight frame
    np.testing.assert_allclose(capacities(W), C, atol=1e-13)
    # Equality in C <= leverage and ΣC <= rank, and its loss as soon as a row is longer.
    np.testing.assert_allclose(leverages(W), C, atol=1e-13)
    found = blocks(W)
    assert sorted(tuple(block.features) for block in found) == sorted(tuple(np.sort(f)) for f, _, _ in given_blocks)
    features, capacity, _ = given_blocks[0]
    W[features[np.argmin(np.abs(capacity - 0.5))]] *= 2
    assert capacities(W).sum() < 10 - 1e-6
    assert (leverages(W) - capacities(W)).max() > 1e-6


def test_no_blocks():
    assert construct_blocks([], features=3, dimensions=2).shape == (3, 2)
    assert construct_blocks([]).shape == (0, 0)


BAD = {
    "no integer": (([0.5, 0.4],), {"scale": 1.0}, "capacity must sum to an integer"),
    "just beyond the tolerance": (([0.5, 0.5 + 2e-9],), {"scale": 1.0}, "capacity must sum to an integer"),
    "above 1": (([1.5, 0.5],), {"scale": 1.0}, r"capacity must be in \[0, 1\], got 1.5 at index 0"),
    "below 0": (([-0.5, 0.5],), {"scale": 1.0}, "capacity must be >= 0"),
    "NaN": (([np.nan, 0.5],), {"scale": 1.0}, "capacity must be finite"),
    "two axes": (([[0.5, 0.5]],), {"scale": 1.0}, "capacity must have 1 dimension"),
    "no length": (([0.5, 0.5],), {}, "exactly one of squared_norm and scale"),
    "both lengths": (([0.5, 0.5], [1, 1], 1.0), {}, "exactly one of squared_norm and scale"),
    "zero scale": (([0.5, 0.5],), {"scale": 0.0}, "scale must be > 0"),
    "another size": (([0.5, 0.5], [1.0]), {}, "squared_norm must have one entry per capacity: 2, got 1"),
    "length without capacity": (([1.0, 0.0], [1.0, 1.0]), {}, "squared_norm must be > 0 where capacity is.*index 1"),
    "capacity without length": (([1.0, 1.0], [1.0, 0.0]), {}, "squared_norm must be > 0 where capacity is.*index 1"),
    "two scales": (([0.5, 0.5, 1], [1.0, 1.01, 7]), {}, "must be the same for all features with 0 < capacity < 1"),
    "too few dimensions": (([1.0, 1.0],), {"scale": 1.0, "dimensions": 1}, "dimensions must be an integer >= "),
    "half a dimension": (([1.0, 1.0],), {"scale": 1.0, "dimensions": 2.5}, "dimensions must be an integer >= "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    arguments, options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        construct_embedding(*arguments, **options)


def test_bad_blocks():
    with pytest.raises(ValueError, match="feature 1 is in more than one block"):
        construct_blocks([([0, 1], [0.5, 0.5], 1.0), ([1], [1.0], 1.0)])
    with pytest.raises(ValueError, match="the capacity of block 1 must sum to an integer"):
        construct_blocks([([0, 1], [0.5, 0.5], 1.0), ([2], [0.9], 1.0)])
    with pytest.raises(ValueError, match="block 0 needs one feature index >= 0 per capacity"):
        construct_blocks([([0, -1], [0.5, 0.5], 1.0)])
    with pytest.raises(ValueError, match="features must be >= 3"):
        construct_blocks([([0, 2], [0.5, 0.5], 1.0)], features=2)


@pytest.mark.slow
def test_a_hundred_thousand_features():
    C = shares(np.random.default_rng(0), 100_000, 1_000)
    start = time.perf_counter()
    W = construct_embedding(C, scale=1.0)
    print(f"100,000 x 1,000 built in {time.perf_counter() - start:.1f} s")
    assert np.abs(W.T @ W - np.eye(1_000)).max() < 1e-12
    np.testing.assert_allclose(np.vecdot(W, W), C, rtol=0, atol=1e-12)
