"""Descent on the exact loss against the solver, on random problems; its derivatives; batches; bad arguments."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import capsolve
from capsolve.simulate import OptimisedEmbedding, embeddings, optimise_embedding
from capsolve.simulate.embeddings import _Problem
from tests.threads import blas_threads

FAMILIES = ["convex", "mixed", "low", "no bias"]


def problem(family, rng):
    """Draw (importance, kurtosis, dimensions, bias) with n <= 14; one problem in five has equal importances."""
    n = int(rng.integers(2, 15))
    v = np.ones(n) if rng.random() < 0.2 else 10 ** rng.uniform(-1, 1, n)
    high, low = 3 + 10 ** rng.uniform(-1, 2, n), rng.uniform(1, 3, n)
    k = {"convex": high, "no bias": high, "low": low, "mixed": np.where(rng.random(n) < 0.5, low, high)}[family]
    return v, k, int(rng.integers(1, n + 1)), family != "no bias"


def same_loss(loss, allocation, v, k, bias):
    """Whether a loss is the optimal one to 1e-9; where that is 0, to rounding of the terms that cancel."""
    nothing = capsolve.embedding_loss(np.zeros((v.size, 1)), v, k, bias)
    rounding = 1e-14 * nothing
    above_bound = loss * (1 + 1e-13) + rounding >= allocation.lower_bound
    return bool(above_bound) and abs(loss - allocation.loss) <= 1e-9 * allocation.loss + rounding


def unique(v, k, capacity):
    """Whether equal features (v_i = v_j, κ_i = κ_j ≤ 3) are served alike, and whole, so that none can be exchanged.

    Where κ > 3 the loss is strictly convex; coincidences between features that differ have probability 0 here.
    """
    twins = (v[:, None] == v) & (k[:, None] == k) & (k <= 3)
    np.fill_diagonal(twins, False)
    alike = (capacity[:, None] == capacity) & np.isin(capacity, (0.0, 1.0))
    return bool(alike[twins].all())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_descent_ends_at_the_solvers_optimum(family):
    rng = np.random.default_rng(2022)
    compared = 0
    for _ in range(50):
        v, k, dimensions, bias = problem(family, rng)
        allocation = capsolve.solve(v, k, dimensions, bias=bias, tolerance=1e-12)
        # With κ < 3 the starts may all end in worse local optima; then more of them are made.
        for restarts in (4, 64):
            found = optimise_embedding(v, k, dimensions, bias=bias, restarts=restarts, rng=rng)
            if same_loss(found.loss, allocation, v, k, bias) or (k >= 3).all():
                break
        assert same_loss(found.loss, allocation, v, k, bias), (v, k, dimensions)
        assert same_loss(capsolve.embedding_loss(found.embedding, v, k, bias), allocation, v, k, bias)
        if unique(v, k, allocation.capacity):
            compared += 1
            np.testing.assert_allclose(found.capacity, allocation.capacity, rtol=0, atol=1e-6)
        if (k >= 3).all():
            assert found.agreeing == found.losses.size
    assert compared >= 40


def test_the_checks_reject_what_is_wrong():
    rng = np.random.default_rng(3)
    v, k = np.array([2.0, 1.0, 0.9, 0.8]), np.array([9.0, 5.0, 9.0, 12.0])
    allocation = capsolve.solve(v, k, 2)
    found = optimise_embedding(v, k, 2, restarts=2, rng=rng)
    assert same_loss(found.loss, allocation, v, k, True)
    noisy = found.embedding * (1 + 1e-4 * rng.standard_normal((4, 1)))
    assert not same_loss(capsolve.embedding_loss(noisy, v, k), allocation, v, k, True)
    assert not same_loss(found.loss, capsolve.solve(v, k + 1e-6, 2), v, k, True)
    assert not same_loss(allocation.lower_bound * (1 - 1e-8), allocation, v, k, True)
    assert unique(v, k, allocation.capacity)
    assert not unique(np.ones(3), np.full(3, 2.0), np.array([1.0, 0.0, 0.0]))
    assert not unique(np.ones(2), np.full(2, 3.0), np.array([0.5, 0.5]))


@pytest.mark.parametrize("bias", [True, False])
def test_derivatives(bias):
    rng = np.random.default_rng(5)
    v, k = rng.uniform(0.5, 2, 5), rng.uniform(1, 9, 5)
    given = _Problem(v, k, 3, bias)
    W, P = rng.standard_normal((2, 5, 3))
    loss, gradient, M, own = given.derivatives(W)
    real = W * given.unit
    per_unit = given.size * given.unit**4
    assert loss * per_unit == pytest.approx(capsolve.embedding_loss(real, v, k, bias), rel=1e-13)
    expected = capsolve.embedding_loss_gradient(real, v, k, bias)
    np.testing.assert_allclose(gradient * per_unit / given.unit, expected, rtol=1e-12, atol=1e-12)
    # the gradient is cubic: central differences are exact up to h² times its third derivative, and eps/h
    h = 1e-5
    difference = (given.derivatives(W + h * P)[1] - given.derivatives(W - h * P)[1]) / (2 * h)
    product = given.hessian(W, M, own) @ P.ravel()
    np.testing.assert_allclose(product, difference.ravel(), atol=1e-8 * np.abs(product).max())


def test_best_of_several_optima():
    # All or nothing: starts end on different sets of features, the best of them on the most valuable ones.
    v, k = np.array([1.0, 0.98, 0.96, 0.94, 0.92]), 1.5
    found = optimise_embedding(v, k, 2, restarts=24, rng=0)
    assert found.agreeing < found.losses.size
    assert found.loss == found.losses.min()
    np.testing.assert_allclose(found.capacity, [1, 1, 0, 0, 0], atol=1e-12)
    assert [block.name for block in found.blocks] == ["monosemantic", "monosemantic"]


def test_one_large_block_beside_an_axis():
    found = optimise_embedding([3, 1, 1, 1, 1, 1], 9.0, 3, restarts=3, rng=1)
    assert sorted((block.features.size, block.dimension) for block in found.blocks) == [(1, 1), (5, 2)]
    assert found.residual < 1e-12


def test_without_bias_a_spare_input_stands_in_for_it():
    v, k = [2.0, 1.0, 0.0], 9.0
    allocation = capsolve.solve(v, k, 2, bias=False)
    found = optimise_embedding(v, k, 2, bias=False, restarts=4, rng=0)
    assert found.loss == pytest.approx(allocation.loss, rel=1e-12)
    np.testing.assert_allclose(found.capacity, allocation.capacity, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1e12, 1e60])
def test_units_do_not_matter(scale):
    v = np.array([2.0, 1.0, 1.0, 0.5])
    small, large = (optimise_embedding(v * s, 9.0, 2, restarts=2, rng=7) for s in (1.0, scale))
    np.testing.assert_allclose(large.capacity, small.capacity, atol=1e-12)
    lengths = np.linalg.norm(small.embedding, axis=1)
    np.testing.assert_allclose(np.linalg.norm(large.embedding / np.sqrt(scale), axis=1), lengths, rtol=1e-12)


def test_batches_and_processes():
    v = np.array([[[0.1, 1, 1]], [[3, 1, 1]]])
    k = np.array([[9.0], [30.0]])
    one = optimise_embedding(v, k, 2, restarts=2, rng=4)
    two = optimise_embedding(v, k, 2, restarts=2, rng=4, workers=2)
    assert one.embedding.shape == (2, 2, 3, 2)
    assert one.losses.shape == (2, 2, 2)
    assert one.capacity.shape == (2, 2, 3)
    assert one.residual.shape == one.agreeing.shape == (2, 2)
    for i in range(2):
        for j in range(2):
            allocation = capsolve.solve(v[i, 0], k[j, 0], 2)
            assert one.loss[i, j] == pytest.approx(allocation.loss, rel=1e-12)
            np.testing.assert_allclose(one.capacity[i, j], allocation.capacity, atol=1e-9)
    np.testing.assert_array_equal(one.embedding, two.embedding)
    np.testing.assert_array_equal(one.losses, two.losses)
    assert repr(one).startswith("OptimisedEmbedding(4 problems of 3 features in 2 dimensions: ")
    with pytest.raises(ValueError, match=r"batch of shape \(2, 2\); use capsolve.blocks\(embedding\[index\]\)"):
        _ = one.blocks


def test_nothing_to_represent():
    found = optimise_embedding([0.0, 0.0], 5.0, 1, rng=0)
    assert found.loss == 0.0
    assert found.agreeing == found.losses.size
    np.testing.assert_array_equal(found.capacity, [0.0, 0.0])


def test_loss_zero_is_reached_by_all_starts():
    """Each start ends with a gradient at the level of rounding, on any kernel of any linear algebra library."""
    v, k = np.array([2.0, 1.0, 0.5]), np.array([1.5, 3.0, 9.0])
    found = optimise_embedding(v, k, 3, restarts=5, rng=0)
    # Rows are known to some eps: v_i - m_i and G_ij to c eps v_i, and the loss is a sum of their squares. Here c < 100.
    eps = np.finfo(float).eps
    assert (found.losses < np.sum((k + 5) * (100 * eps * v) ** 2)).all()
    assert found.residual < 100 * eps
    assert found.agreeing == 5
    np.testing.assert_allclose(found.capacity, 1.0, rtol=0, atol=100 * eps)


@pytest.mark.parametrize("rng", range(4))
def test_an_optimum_without_curvature_is_reached(rng):
    """At v_0 = 2 the first feature just has a dimension of its own: the loss grows with the fourth power there.

    A gradient of c eps, c < 100, leaves a distance of (c eps)^(1/3), which changes capacities by its square.
    """
    found = optimise_embedding([2.0, 1.0, 1.0, 1.0], 9.0, 2, restarts=3, rng=rng)
    bound = 100 * np.finfo(float).eps
    assert found.residual < bound
    assert found.agreeing == 3
    np.testing.assert_allclose(found.capacity, [1, 1 / 3, 1 / 3, 1 / 3], rtol=0, atol=bound ** (2 / 3))


def test_descents_run_on_one_thread_of_linear_algebra(monkeypatch):
    seen = []

    def watched(*task, descend=embeddings._from_start):
        seen.extend(blas_threads())
        return descend(*task)

    monkeypatch.setattr(embeddings, "_from_start", watched)
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        optimise_embedding([1.0, 2.0, 3.0], 9.0, 2, restarts=1, rng=0)
        assert blas_threads() == before
    assert set(seen) == {1}


def test_progress_and_reproducibility(capsys):
    first = optimise_embedding([1, 1, 1], 9.0, 2, restarts=3, rng=1, progress=True)
    assert "3/3" in capsys.readouterr().err
    again = optimise_embedding([1, 1, 1], 9.0, 2, restarts=3, rng=np.random.default_rng(1))
    assert isinstance(first, OptimisedEmbedding)
    np.testing.assert_array_equal(first.embedding, again.embedding)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dimensions": 2.5}, "dimensions must be an integer, got 2.5"),
        ({"dimensions": 0}, "dimensions must be >= 1, got 0"),
        ({"dimensions": np.nan}, "dimensions must be finite"),
        ({"restarts": 0}, "restarts must be >= 1, got 0"),
        ({"restarts": 1.5}, "restarts must be an integer, got 1.5"),
        ({"workers": 0}, "workers must be in"),
        ({"importance": []}, r"importance must have a last axis of at least one feature, got shape \(0,\)"),
        ({"importance": 1.0}, r"importance must have a last axis of at least one feature, got shape \(\)"),
        ({"importance": [[1.0, -2.0]]}, r"importance must be >= 0, got -2.0 at index \(0, 1\)"),
        ({"kurtosis": [1.0, 0.5]}, "kurtosis must be >= 1, got 0.5 at index 1"),
        ({"kurtosis": [3.0, 4.0, 5.0]}, r"kurtosis must broadcast to the shape of importance \(2,\), got \(3,\)"),
        ({"importance": [1.0], "kurtosis": [3.0, 4.0]}, "kurtosis must broadcast"),
        ({"bias": 1}, "bias must be True or False"),
    ],
)
def test_bad_arguments(changed, message):
    given = {"importance": [1.0, 1.0], "kurtosis": 9.0, "dimensions": 1} | changed
    with pytest.raises(ValueError, match=message):
        optimise_embedding(**given)
