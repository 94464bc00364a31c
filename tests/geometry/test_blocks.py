"""The orthogonal partition against the n × n graph it stands for, under noise, and its names for known shapes."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import linalg
from scipy.sparse.csgraph import connected_components

from capsolve import blocks, capacities, construct_blocks, construct_embedding
from capsolve.geometry import blocks as module
from capsolve.geometry.blocks import _catalogue


def haar(rng, D):
    Q, R = np.linalg.qr(rng.standard_normal((D, D)))
    return Q * np.sign(np.diag(R))


def by_the_graph(W, tolerance):
    """The definition, with an n × n matrix."""
    W = np.asarray(W, float)
    length = np.linalg.norm(W, axis=1)
    cut = tolerance * length.max()
    rows = np.flatnonzero(length > cut)
    link = np.abs(W[rows] @ W[rows].T) > cut * np.maximum.outer(length[rows], length[rows])
    label = connected_components(link)[1]
    return {tuple(int(i) for i in rows[label == k]) for k in range(label.max() + 1)}


def groups(found):
    return {tuple(int(i) for i in block.features) for block in found}


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(
        np.int64, st.tuples(st.integers(1, 12), st.integers(1, 8)), elements=st.sampled_from([0, 0, 0, 1, -1, 2])
    )
)
def test_partition_of_integer_matrices(W):
    # All nonzero inner products are integers: there is nothing near the tolerance.
    if not W.any():
        assert blocks(W) == ()
        return
    found = blocks(W)
    assert groups(found) == by_the_graph(W, 1e-5)
    for block in found:
        assert block.dimension == np.linalg.matrix_rank(W[block.features])


def structured(rng):
    """An embedding of orthogonal blocks in a random basis, some of them tight, and its groups."""
    order = rng.permutation(30)
    W = np.zeros((32, 20))
    W[order[:6], :4] = rng.standard_normal((6, 4))
    W[order[6:9], 4:6] = 0.3 * rng.standard_normal((3, 2))
    tight = construct_blocks([(range(9), [5 / 9] * 9, 4.0), ([9], [1], 0.01), ([10, 11], [0.3, 0.7], 5.0)])
    W[order[9:21], 6:13] = tight
    W[order[21:29], 13:18] = 2 * rng.standard_normal((8, 5))
    cuts = [slice(0, 6), slice(6, 9), slice(9, 18), slice(18, 19), slice(19, 21), slice(21, 29)]
    return W @ haar(rng, 20), {tuple(sorted(int(i) for i in order[cut])) for cut in cuts}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1e-12, 1e-8, 1e-6, 4e-5]))
def test_noise_does_not_change_the_blocks(seed, level):
    rng = np.random.default_rng(seed)
    W, expected = structured(rng)
    clean = blocks(W, tolerance=1e-4)
    assert groups(clean) == expected
    noise = rng.standard_normal(W.shape)
    noise *= level * np.linalg.norm(W, axis=1).max() / np.linalg.norm(noise, axis=1, keepdims=True)
    noisy = blocks(W + noise, tolerance=1e-4)
    assert groups(noisy) == expected
    for one, other in zip(clean, noisy, strict=True):
        assert (one.dimension, one.name) == (other.dimension, other.name)
        # First-order perturbation of the spectrum, ‖W_B‖ ‖E‖, against the mean eigenvalue.
        weight = np.linalg.norm(W, axis=1).max() * (one.features.size / one.scale) ** 0.5
        assert abs(other.residual - one.residual) <= (2 * (1 + one.residual) ** 0.5 + 1) * 2 * level * weight + 1e-12
        assert other.scale == pytest.approx(one.scale, rel=4 * level * weight + 1e-12)


def test_noise_above_the_tolerance_joins_blocks():
    W, expected = structured(np.random.default_rng(0))
    noise = 1e-2 * np.random.default_rng(1).standard_normal(W.shape)
    assert groups(blocks(W + noise, tolerance=1e-4)) != expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_symmetries(seed):
    rng = np.random.default_rng(seed)
    W, expected = structured(rng)
    found = blocks(W)
    order = rng.permutation(len(W))
    position = np.argsort(order)
    moved = blocks(W[order] * rng.choice([-1, 1], (len(W), 1)) @ haar(rng, 20) * 1e100)
    assert groups(moved) == {tuple(sorted(int(position[i]) for i in group)) for group in expected}
    by_size = sorted(found, key=lambda block: block.scale)
    for one, other in zip(by_size, sorted(moved, key=lambda block: block.scale), strict=True):
        assert (one.name, one.dimension) == (other.name, other.dimension)
        assert other.scale == pytest.approx(one.scale * 1e200, rel=1e-12)
        assert other.residual == pytest.approx(one.residual, abs=1e-11)


def coupled(rng, n, D, size):
    """Two halves of rows in spaces of their own, but for one row that reaches ``size`` into the other's."""
    W = np.zeros((n, D))
    W[: n // 2, : D // 2] = rng.standard_normal((n // 2, D // 2))
    W[n // 2 :, D // 2 :] = rng.standard_normal((n - n // 2, D - D // 2))
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    W[n // 3, D // 2 :] = size * W[-1, D // 2 :]
    return W


def tiny_blocks(rng, n, D):
    """Blocks of one or two dimensions, far more rows than dimensions, of very different lengths."""
    owner = rng.integers(D // 2, size=n)
    W = np.zeros((n, D))
    W[np.arange(n), 2 * owner] = rng.standard_normal(n)
    W[np.arange(n), 2 * owner + 1] = rng.standard_normal(n) * (owner % 2)
    return W * 10.0 ** rng.uniform(-3, 0, (n, 1))


def chain(rng, n):
    """Each row is linked to its neighbours alone."""
    W = np.zeros((n, n + 1))
    W[np.arange(n), np.arange(n)] = 1.0
    W[np.arange(n), np.arange(n) + 1] = rng.choice([-1.0, 1.0], n)
    return W


EMBEDDINGS = {
    "random": lambda rng: rng.standard_normal((90, 12)),
    "of lower rank": lambda rng: rng.standard_normal((90, 5)) @ rng.standard_normal((5, 12)),
    "fewer rows than dimensions": lambda rng: rng.standard_normal((7, 12)),
    "orthogonal": lambda rng: np.diag(rng.uniform(0.1, 1.0, 30)),
    "nearly orthogonal": lambda rng: np.eye(30) + 3e-4 * rng.standard_normal((30, 30)),
    "orthogonal but for noise": lambda rng: np.eye(30) + 1e-6 * rng.standard_normal((30, 30)),
    "coupled by a little": lambda rng: coupled(rng, 80, 10, 1e-3),
    "coupled by too little": lambda rng: coupled(rng, 80, 10, 1e-6),
    "tiny blocks": lambda rng: tiny_blocks(rng, 200, 20),
    "a chain": lambda rng: chain(rng, 40),
    "two chains": lambda rng: np.kron(np.eye(2), chain(rng, 20)),
    "most in one, some in none": lambda rng: np.concatenate(
        [np.c_[rng.standard_normal((80, 8)), np.zeros((80, 2))], np.c_[np.zeros((2, 8)), np.eye(2)], np.zeros((3, 10))]
    ),
    "the longest alone": lambda rng: linalg.block_diag([[9.0]], rng.standard_normal((60, 6))),
    "short ones in one dimension": lambda rng: np.concatenate(
        [np.eye(20), np.c_[np.full((1, 19), 3e-4), 0.0], 1e-3 * np.eye(20)]
    ),
    "blocks": lambda rng: structured(rng)[0],
}


@pytest.mark.parametrize("some", [1, 16])
@pytest.mark.parametrize("name", EMBEDDINGS)
def test_the_partition_is_that_of_the_graph(name, some, monkeypatch):
    monkeypatch.setattr(module, "_SOME", some)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        W = EMBEDDINGS[name](rng)
        W = W[rng.permutation(len(W))] @ haar(rng, W.shape[1])
        found = blocks(W, tolerance=1e-4)
        assert groups(found) == by_the_graph(W, 1e-4)
        cut = 1e-4 * np.linalg.norm(W, axis=1).max()
        for block in found:
            singular = np.linalg.svd(W[block.features], compute_uv=False)
            assert block.dimension == np.count_nonzero(singular > cut)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_links_of_some_rows_change_nothing_but_the_way(name, monkeypatch):
    W = EMBEDDINGS[name](np.random.default_rng(0))
    found = blocks(W, tolerance=1e-4)
    monkeypatch.setattr(module, "_one_component", lambda *given: False)
    for one, other in zip(found, blocks(W, tolerance=1e-4), strict=True):
        assert (one.name, one.dimension, one.features.tolist()) == (
            other.name,
            other.dimension,
            other.features.tolist(),
        )
        assert one.scale == pytest.approx(other.scale, rel=1e-12)
        assert one.residual == pytest.approx(other.residual, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("scale", [1e-200, 1e-100, 1e100, 1e200])
def test_the_scale_of_one_block_where_squares_are_lost(scale):
    W = np.random.default_rng(0).standard_normal((50, 6))
    (found,), (moved,) = blocks(W), blocks(W * scale)
    assert (moved.name, moved.dimension) == (found.name, found.dimension)
    assert moved.residual == pytest.approx(found.residual, rel=1e-12)


@pytest.mark.parametrize(("tolerance", "accuracy"), [(1e-5, 1e-6), (1e-8, 1e-14)])
def test_one_block_in_float32(tolerance, accuracy):
    rng = np.random.default_rng(0)
    W = rng.standard_normal((500, 20), dtype=np.float32)
    (found,), (exact,) = blocks(W, tolerance=tolerance), blocks(W.astype(float), tolerance=tolerance)
    assert (found.name, found.dimension) == (exact.name, exact.dimension)
    assert found.scale == pytest.approx(exact.scale, rel=accuracy)
    assert found.residual == pytest.approx(exact.residual, rel=accuracy)


def test_a_tight_frame_of_float32_is_one():
    W = construct_embedding(np.full(500, 0.04), scale=1.0, rotate=True, rng=1).astype(np.float32)
    (found,) = blocks(W)
    assert (found.name, found.dimension) == ("large block", 20)
    assert found.residual < 1e-6


def test_many_blocks_of_one_scale():
    """Degenerate on purpose: M is a multiple of the identity, so its eigenvectors say nothing."""
    rng = np.random.default_rng(0)
    given_blocks = [(range(5 * k, 5 * k + 5), rng.dirichlet(np.ones(5)), 1.0) for k in range(40)]
    W = construct_blocks(given_blocks, rotate=True, rng=rng)
    np.testing.assert_allclose(W.T @ W, np.eye(40), atol=1e-12)
    found = blocks(W)
    assert groups(found) == {tuple(features) for features, _, _ in given_blocks}
    assert all(block.dimension == 1 and block.name == "large block" for block in found)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_blocks_do_not_depend_on_the_batch(monkeypatch, rows):
    monkeypatch.setattr("capsolve.geometry.blocks._ENTRIES", 20 * rows)
    W, expected = structured(np.random.default_rng(7))
    assert groups(blocks(W)) == expected


def test_values_of_a_block():
    W = np.zeros((6, 3))
    W[1] = [2, 0, 0]
    W[[0, 3], 1:] = [[3, 0], [0, 1]]
    W[5, 1:] = [1, 1]
    W[4] = 1e-9
    one, two = blocks(W)
    assert (one.name, list(one.features), one.dimension) == ("not tight", [0, 3, 5], 2)
    assert (two.name, list(two.features), two.dimension) == ("monosemantic", [1], 1)
    eigenvalues = np.linalg.eigvalsh(np.array([[10.0, 1.0], [1.0, 2.0]]))
    assert one.scale == pytest.approx(6, rel=1e-14)
    assert one.residual == pytest.approx((eigenvalues[1] - 6) / 6, rel=1e-14)
    np.testing.assert_array_equal(one.capacity, capacities(W)[[0, 3, 5]])
    assert two.scale == pytest.approx(4, rel=1e-14)
    assert two.residual == 0


def vertices(name):
    """Vertices by other formulas than the catalogue's."""

    def ring(count, turn=0.0):
        return np.array(
            [[np.cos(2 * np.pi * k / count + turn), np.sin(2 * np.pi * k / count + turn)] for k in range(count)]
        )

    def prism(count, height, turn):
        return np.concatenate(
            [np.c_[ring(count), np.full(count, height)], np.c_[ring(count, turn), np.full(count, -height)]]
        )

    pole = np.array([[0, 0, 5**0.5 / 2], [0, 0, -(5**0.5) / 2]])
    icosahedron = np.concatenate([prism(5, 1 / 2, np.pi / 5), pole])
    simplex = np.linalg.svd(np.eye(6) - 1 / 6)[0][:, :5]
    cosine = icosahedron @ icosahedron.T / 1.25
    faces = [
        icosahedron[[i, j, k]].sum(axis=0)
        for i in range(12)
        for j in range(i)
        for k in range(j)
        if min(cosine[i, j], cosine[j, k], cosine[i, k]) > 0.4
    ]
    cube = prism(4, 0.5**0.5, 0.0)
    edges = [cube[i] + cube[j] for i in range(8) for j in range(i) if 0.3 < cube[i] @ cube[j] / 1.5 < 0.4]
    return {
        "triangle": ring(3),
        "pentagon": ring(5),
        "hexagon": ring(6),
        "heptagon": ring(7),
        "octagon": ring(8),
        "tetrahedron": np.linalg.svd(np.eye(4) - 1 / 4)[0][:, :3],
        "simplex": simplex,
        "square antiprism": prism(4, 0.5**0.5, np.pi / 4),
        "cube": cube,
        "icosahedron": icosahedron,
        "icosahedron's diagonals": icosahedron[[0, 1, 2, 3, 4, 10]],
        "cuboctahedron": np.array(edges),
        "dodecahedron": np.array(faces),
    }[name]


NAMES = [name for name, _, _ in _catalogue()] + ["simplex"]


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    rng = np.random.default_rng(0)
    shape = vertices(name)
    n, D = shape.shape
    signs = rng.choice([-1, 1], (n, 1))
    W = (3 * shape * signs @ haar(rng, D))[rng.permutation(n)]
    (block,) = blocks(W + 1e-9 * rng.standard_normal(W.shape))
    assert (block.name, block.dimension) == (name, D)
    np.testing.assert_allclose(block.capacity, D / n, rtol=1e-7)
    # The same numbers of vectors and dimensions in another tight frame have no such name.
    C = np.linspace(-0.01, 0.01, n) + D / n
    (other,) = blocks(construct_embedding(C, scale=1.0, rotate=True, rng=1))
    assert other.name == "large block"
    # A bent one is not tight.
    bent = W.copy()
    bent[:, 0] *= 1.01
    assert {block.name for block in blocks(bent)} == {"not tight"}


def test_two_shapes_of_one_size_are_told_apart():
    assert blocks(vertices("cube"))[0].name == "cube"
    assert blocks(vertices("square antiprism"))[0].name == "square antiprism"
    assert {block.name for block in blocks([[1, 0], [0, 1], [-1, 0], [0, -1]])} == {"antipodal pair"}


def test_pairs_and_lines():
    W = construct_blocks([([0, 1], [0.1, 0.9], 1.0), ([2], [1], 1.0), ([3, 4, 5], [1 / 3] * 3, 1.0)])
    assert [block.name for block in blocks(W)] == ["antipodal pair", "monosemantic", "large block"]


def test_weak_links_count_when_above_the_tolerance():
    W = np.array([[1.0, 0.0], [1e-3, 1.0]])
    assert groups(blocks(W, tolerance=5e-4)) == {(0, 1)}
    assert groups(blocks(W, tolerance=2e-3)) == {(0,), (1,)}
    # A short row: how far it reaches along the long one, not the cosine.
    W = np.array([[1.0, 0.0], [1e-3, 1e-2]])
    assert groups(blocks(W, tolerance=5e-4)) == {(0, 1)}
    assert groups(blocks(W, tolerance=2e-3)) == {(0,), (1,)}
    assert groups(blocks(W, tolerance=2e-2)) == {(0,)}


def test_the_rank_of_rows_that_are_nearly_parallel(monkeypatch):
    monkeypatch.setattr("capsolve.geometry.blocks._ENTRIES", 1)
    rng = np.random.default_rng(0)
    Q = haar(rng, 20)
    chain = np.tril(np.full((8, 8), 1e-6))
    chain[:, 0] = 2.0  # each row goes 1e-6 further than the last, in a new direction
    W = np.concatenate([chain, rng.uniform(-0.5, 0.5, (20, 8))]) @ Q[:8]
    (block,) = blocks(W, tolerance=1e-8)
    assert block.dimension == 8


def test_a_shape_that_is_nearly_regular_has_no_name():
    for turn, name in ((0.0, "hexagon"), (np.pi / 60, "large block")):  # two triangles
        angle = np.concatenate([np.arange(3) * 2 * np.pi / 3, np.arange(3) * 2 * np.pi / 3 + turn])
        (block,) = blocks(np.column_stack([np.cos(angle), np.sin(angle)]))
        assert block.name == name
        assert block.residual < 1e-14


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -1.0, np.nan])
def test_bad_tolerance(tolerance):
    with pytest.raises(ValueError, match="tolerance must be"):
        blocks(np.eye(2), tolerance=tolerance)


def test_bad_shape():
    with pytest.raises(ValueError, match="W must have 2 dimensions"):
        blocks(np.ones((2, 2, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one block", "many blocks"])
def test_a_real_size(kind):
    n, D = 16_384, 2_304
    rng = np.random.default_rng(0)
    if kind == "one block":
        W = rng.standard_normal((n, D), dtype=np.float32)
        expected = 1
    else:  # 576 blocks of up to 4 dimensions, all mixed up
        owner = rng.integers(576, size=n)
        W = np.zeros((n, D), np.float32)
        W[np.arange(n)[:, None], 4 * owner[:, None] + np.arange(4)] = rng.standard_normal((n, 4))
        W = W @ haar(rng, D).astype(np.float32)
        expected = 576
    tracemalloc.start()
    start = time.perf_counter()
    try:
        found = blocks(W)
        print(f"{kind}: {time.perf_counter() - start:.1f} s, {tracemalloc.get_traced_memory()[1] / 1e6:.0f} MB")
    finally:
        tracemalloc.stop()
    assert len(found) == expected
    assert sum(block.dimension for block in found) == D
    assert sum(block.features.size for block in found) == n
    if kind == "many blocks":
        assert all((owner[block.features] == owner[block.features[0]]).all() for block in found)
