"""solve → embedding → capacities and loss: the relaxation to capacities loses nothing."""

import numpy as np
import pytest
from hypothesis import given

from capsolve import Phase, Status, blocks, capacities, efficiency, embedding_loss, solve
from tests.oracles import profiles


def problem(seed, n):
    rng = np.random.default_rng(seed)
    k = 3 + rng.exponential(9, n)
    if seed % 2:
        k[rng.random(n) < 0.3] = rng.uniform(1.1, 3)
    return rng.lognormal(0, 1, n), k, int(rng.integers(1, n))


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 5, 14, 100, 2000])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rotate", [False, True])
def test_the_embedding_has_the_capacities_and_the_loss(n, seed, rotate):
    v, k, dimensions = problem(seed, n)
    allocation = solve(v, k, dimensions)
    W = allocation.embedding(rng=seed, rotate=rotate)
    assert W.shape == (n, dimensions)
    np.testing.assert_allclose(capacities(W), allocation.capacity, atol=1e-12)
    np.testing.assert_allclose((W**2).sum(axis=1), allocation.squared_norm, rtol=1e-12)
    assert embedding_loss(W, v, k) == pytest.approx(allocation.loss, rel=1e-12)
    assert efficiency(W) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_without_bias(seed):
    rng = np.random.default_rng(seed)
    n = 20
    v, k, dimensions = rng.lognormal(0, 1, n), 3 + rng.exponential(5, n), int(rng.integers(1, n))
    allocation = solve(v, k, dimensions, bias=False)
    W = allocation.embedding()
    np.testing.assert_allclose(capacities(W), allocation.capacity, atol=1e-12)
    assert embedding_loss(W, v, k, bias=False) == pytest.approx(allocation.loss, rel=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_one_block_and_the_monosemantic_axes(seed):
    v, k, dimensions = problem(2 * seed, 60)
    allocation = solve(v, k, dimensions)
    found = blocks(allocation.embedding(rng=seed, rotate=True))
    mono = set(np.flatnonzero(allocation.phase == Phase.MONOSEMANTIC).tolist())
    poly = set(np.flatnonzero(allocation.phase == Phase.POLYSEMANTIC).tolist())
    groups = [set(np.asarray(block.features).tolist()) for block in found]
    assert all({i} in groups for i in mono)
    assert poly in groups
    large = found[groups.index(poly)]
    assert large.dimension == dimensions - len(mono)
    assert large.scale == pytest.approx(allocation.scale, rel=1e-12)
    assert len(found) == len(mono) + 1


@given(profiles(max_features=8))
def test_nasty_profiles(problem):
    v, k, dimensions = problem
    allocation = solve(v, k, np.floor(dimensions))
    W = allocation.embedding()
    ordinary = (allocation.squared_norm == 0) | (allocation.squared_norm > 1e-140)
    if allocation.status is Status.OPTIMAL and ordinary.all() and allocation.squared_norm.max() < 1e140:
        # capacities of one block are known to an ulp of its dimension, squared norms to that many times the scale
        np.testing.assert_allclose(
            (W**2).sum(axis=1), allocation.squared_norm, rtol=1e-12, atol=1e-14 * allocation.scale
        )


def test_no_fractional_dimensions():
    with pytest.raises(ValueError, match=r"integer number of dimensions, got 1\.5"):
        solve([1.0, 1.0], 5.0, 1.5).embedding()
