"""What is measured in a file is what the library says of the same matrix in memory, and the comparison is exact."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

pytest.importorskip("ml_dtypes")
pytest.importorskip("safetensors")

import ml_dtypes
from safetensors.numpy import save_file

import capsolve
from capsolve import Phase, Profile, QuadraticLoss, capacities, measure, measurement, power_law
from capsolve.files import weights


@pytest.fixture(scope="module")
def dictionary():
    """A dictionary learned on the images of digits, 40 features in 64 dimensions, and the features' activations."""
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    decomposition = pytest.importorskip("sklearn.decomposition")
    images = sklearn_datasets.load_digits().data[:600]
    images = images - images.mean(axis=0)
    learner = decomposition.DictionaryLearning(
        40,
        alpha=10.0,
        max_iter=5,
        fit_algorithm="cd",
        transform_algorithm="lasso_cd",
        transform_alpha=10.0,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        codes = learner.fit(images).transform(images)
    return np.ascontiguousarray(learner.components_), codes


def profile_of(rng, n):
    return Profile(rng.pareto(1.5, n), 1.5 + 5 * rng.pareto(1.0, n))


# the same as in memory


def test_a_learned_dictionary_in_either_orientation(tmp_path, dictionary):
    W, _ = dictionary
    expected = capacities(W)
    found = {}
    for features, stored in (("rows", W), ("columns", np.ascontiguousarray(W.T))):
        folder = tmp_path / features
        folder.mkdir()
        save_file({"W_dec": stored}, folder / "sae_weights.safetensors")
        (folder / "cfg.json").write_text(json.dumps({"d_in": 64, "d_sae": 40}))
        found[features] = measure(folder)
        assert found[features].weights.features == features
        np.testing.assert_allclose(found[features].capacity, expected, rtol=1e-12)
        np.testing.assert_allclose(found[features].squared_norm, np.vecdot(W, W), rtol=1e-14)
    # eigenvalues are off by some eps of the largest
    spectrum = found["rows"].spectrum
    np.testing.assert_allclose(found["columns"].spectrum, spectrum, rtol=0, atol=1e-13 * spectrum.max())
    assert 0.5 < found["rows"].total_capacity < 40
    # negative control: as 64 features in 40 dimensions it is another embedding
    save_file({"W_dec": W}, tmp_path / "w.safetensors")
    assert measure(tmp_path / "w.safetensors", feature_axis="columns").capacity.shape == (64,)


@pytest.mark.parametrize("features", ["rows", "columns"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_streaming_is_the_same_as_in_memory(tmp_path, monkeypatch, dtype, features):
    W = np.random.default_rng(0).standard_normal((3000, 40)).astype(dtype)
    save_file({"W_dec": np.ascontiguousarray(W if features == "rows" else W.T)}, tmp_path / "w.safetensors")
    exact = capacities(W.astype(np.float64))
    whole = measure(tmp_path / "w.safetensors", feature_axis=features)
    monkeypatch.setattr(weights, "_BLOCK", 40 * 700)
    blocks = measure(tmp_path / "w.safetensors", feature_axis=features)
    assert len(list(blocks.weights.blocks())) == 5
    # Rounding errors of a sum of n products add up like a random walk, to about √n of them; see `capacities`.
    tolerance = np.sqrt(len(W)) * np.finfo(np.float64 if dtype == np.float64 else np.float32).eps
    np.testing.assert_allclose(whole.capacity, exact, rtol=tolerance)
    np.testing.assert_allclose(blocks.capacity, exact, rtol=tolerance)
    np.testing.assert_allclose(
        blocks.spectrum, np.linalg.eigvalsh(W.astype(float).T @ W.astype(float))[::-1], rtol=tolerance
    )


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 8), st.integers(1, 9))
def test_totals_are_consistent(seed, n, D, rank):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((n, min(rank, D))) @ rng.standard_normal((min(rank, D), D))
    found = measure(W, feature_axis="rows")
    assert found.rank == min(n, D, rank)
    assert found.total_capacity <= found.rank + 1e-9
    assert found.total_capacity == pytest.approx(found.efficiency * D, rel=1e-14)
    assert found.spectrum.shape == (D,)
    assert (np.diff(found.spectrum) <= 0).all()
    assert found.spectrum.sum() == pytest.approx((W**2).sum(), rel=1e-12)
    assert 1 - 1e-9 <= found.effective_dimensions <= found.rank + 1e-9
    assert sum(found.counts().values()) == n
    counts, edges = found.histogram()
    assert (counts.sum(), edges[0], edges[-1]) == (n, 0.0, found.capacity.max())


def test_rows_too_short_for_the_eigenvalues_of_their_moment_count_in_the_rank():
    pair = measure(np.array([[1, 0], [0, 1e-4], [0, -1e-4]], dtype=np.float32))
    assert (pair.rank, pair.total_capacity) == (2, pytest.approx(2.0))


@pytest.mark.parametrize("shape", [(400, 60), (60, 400), (3000, 12)])
@pytest.mark.parametrize(("kind", "smallest"), [(np.float32, 3e-4), (np.float64, 1e-12)])
def test_the_rank_is_that_of_the_stored_numbers(shape, kind, smallest):
    rng, D, eps = np.random.default_rng(0), shape[1], np.finfo(kind).eps
    left, right = (np.linalg.qr(rng.standard_normal((size, min(shape))))[0] for size in shape)
    for missing in (0, 1, 5):
        lengths = np.geomspace(1.0, smallest, min(shape)) * (np.arange(min(shape)) < min(shape) - missing)
        W = (1e30 * (left * lengths) @ right.T).astype(kind)
        found = measure(W, feature_axis="rows")
        singular = np.linalg.svd(W.astype(float), compute_uv=False)
        assert found.rank == min(shape) - missing == np.count_nonzero(singular > D * eps * singular[0])
        if missing == 0:  # negative control: the eigenvalues of M alone tell less
            assert found.rank > np.count_nonzero(found.spectrum > D * eps * found.spectrum[0])


def test_lengths_far_from_one():
    W = np.random.default_rng(0).standard_normal((20, 5))
    found, scaled = measure(W), measure(W * 1e100)
    np.testing.assert_allclose(scaled.capacity, found.capacity, rtol=1e-12)
    np.testing.assert_allclose(scaled.spectrum, found.spectrum * 1e200, rtol=1e-12)
    assert scaled.rank == 5
    huge = measure((W * 1e30).astype(np.float32))  # whose squares are beyond float32
    np.testing.assert_allclose(huge.squared_norm, np.vecdot(W, W) * 1e60, rtol=1e-6)


def test_nothing_at_all():
    found = measure(np.zeros((3, 2)))
    assert (found.total_capacity, found.rank, found.effective_dimensions, found.blocks) == (0.0, 0, 0.0, ())
    assert found.counts() == {"ignored": 3, "polysemantic": 0, "monosemantic": 0}
    assert "total capacity       0 of 2" in found.summary()


# phases, spectrum, blocks


def test_phases_of_an_optimal_embedding_are_those_of_the_allocation():
    allocation = capsolve.solve(power_law(60, 0.7), kurtosis=9.0, dimensions=16)
    W = allocation.embedding(rng=0, rotate=True)
    found = measure(W, tolerance=1e-6)
    np.testing.assert_array_equal(found.phase, allocation.phase)
    assert found.efficiency == pytest.approx(1.0, abs=1e-12)
    assert [block.name for block in found.blocks].count("monosemantic") == allocation.counts()["monosemantic"]
    # one tight frame: its eigenvalue τ stands once for each of its dimensions
    frame = np.isclose(found.spectrum, allocation.scale, rtol=1e-10)
    assert frame.sum() == 16 - allocation.counts()["monosemantic"]


def test_phases_at_the_tolerance():
    angle = np.arccos(np.sqrt(0.01))  # two features: C = 1 / (1 + cos²) = 1 / 1.01, or 0.990099
    found = measure([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])
    assert found.counts()["monosemantic"] == 2
    assert measure([[1.0, 0.0], [np.cos(angle), np.sin(angle)]], tolerance=0.009).counts()["polysemantic"] == 2
    # one short row along a long one has a capacity of 1e-4 / (1 + 1e-4), below 1 % of D/(n + D − 1) = 2/3
    short = measure([[1.0, 0.0], [0.0, 1.0], [0.01, 0.0]])
    assert short.phase.tolist() == [Phase.MONOSEMANTIC, Phase.MONOSEMANTIC, Phase.IGNORED]
    assert measure([[1.0, 0.0], [0.0, 1.0], [0.1, 0.0]]).phase[2] == Phase.POLYSEMANTIC


def test_blocks_at_the_accuracy_of_the_stored_numbers(tmp_path):
    layout = [([0, 1, 2], [2 / 3] * 3, 1.0), ([3, 4], [0.5, 0.5], 2.0), ([5], [1.0], 1.0)]
    exact = capsolve.construct_blocks(layout)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16):
        save_file({"w": (exact @ turn).astype(dtype)}, tmp_path / "w.safetensors")
        found = measure(tmp_path / "w.safetensors")
        assert [block.name for block in found.blocks] == ["triangle", "antipodal pair", "monosemantic"]
    # negative control: at the accuracy of float32 the numbers of bfloat16 are not orthogonal
    rounded = (exact @ turn).astype(ml_dtypes.bfloat16).astype(np.float32)
    assert len(measure(rounded).blocks) == 1


def test_blocks_are_sought_only_where_that_is_cheap(monkeypatch):
    W = np.eye(3)
    assert len(measure(W).blocks) == 3
    monkeypatch.setattr(measurement, "_BLOCKS_WORK", 26)
    found = measure(W)
    assert found.blocks is None
    assert "not sought" in found.summary()


def test_the_extremes_and_their_names():
    W = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 3.0, 0.0]]
    found = measure(W, activations=Profile([1.0] * 4, 9.0, ["a", "b", "c", "d"]))
    least, most = found.extremes(2)
    assert (least.tolist(), most.tolist()) == ([1, 2], [0, 3])
    assert "least monosemantic: b (0.07143), c (0.2857), d (0.6429), a (1)" in found.summary()
    assert found.to_dict()["name"] == ["a", "b", "c", "d"]
    assert measure(W).label(2) == "2"


# beside the optimum


@given(st.integers(0, 2**32), st.integers(2, 30), st.integers(1, 8))
def test_the_losses_are_those_of_the_embedding(seed, n, D):
    rng = np.random.default_rng(seed)
    profile, W = profile_of(rng, n), rng.standard_normal((n, D)) * rng.pareto(1.0, (n, 1))
    found = measure(W, activations=profile).comparison
    model = QuadraticLoss(profile.importance, profile.kurtosis)
    np.testing.assert_array_equal(found.capacity, measure(W, feature_axis="rows").capacity)  # inputs of unit variance

    def loss(log_scale):
        return capsolve.embedding_loss(np.exp(log_scale) * W, profile.importance, profile.kurtosis)

    start = 0.5 * np.log(profile.importance.sum() / (W**2).sum())
    best = minimize_scalar(loss, bracket=(start - 1.0, start + 1.0), tol=1e-10).fun
    assert found.embedding_loss <= best * (1 + 1e-10)
    assert found.embedding_loss >= best * (1 - 1e-6)  # a quadratic minimum: its value is surer than its place
    assert found.loss == pytest.approx(model.feature_loss(found.capacity).sum())
    assert found.zero_loss == pytest.approx(loss(-800.0))
    slack = 1e-9 * found.zero_loss
    assert found.allocation.loss - slack <= found.loss <= found.embedding_loss + slack <= found.zero_loss + 2 * slack
    assert 0.0 <= found.relative_suboptimality <= found.embedding_suboptimality + 1e-8 <= 1.0 + 1e-8


@given(st.integers(0, 2**32), st.integers(2, 40))
def test_the_optimum_leaves_nothing_on_the_table(seed, n):
    rng = np.random.default_rng(seed)
    profile = profile_of(rng, n)
    allocation = capsolve.solve(profile.importance, profile.kurtosis, int(rng.integers(1, n + 1)))
    W = allocation.embedding(rng=rng, rotate=True)
    found = measure(rng.pareto(1.0) * W, activations=profile).comparison
    np.testing.assert_allclose(found.capacity, allocation.capacity, atol=1e-9)
    assert found.relative_suboptimality == pytest.approx(0.0, abs=1e-8)
    assert found.embedding_suboptimality == pytest.approx(0.0, abs=1e-8)


def test_capacity_in_the_wrong_place_is_left_on_the_table():
    allocation = capsolve.solve(power_law(20, 1.0), kurtosis=9.0, dimensions=5)
    W, profile = allocation.embedding(rng=0, rotate=True), Profile(power_law(20, 1.0), 9.0)
    assert measure(W, activations=profile).comparison.correlation == pytest.approx(1.0)
    upside_down = measure(W[::-1], activations=profile).comparison
    assert upside_down.correlation < 0
    assert upside_down.relative_suboptimality > 0.9
    assert upside_down.capacity.sum() == pytest.approx(5.0)  # efficient all the same


def test_capacities_with_activations_are_squared_correlations():
    """C_i of the rows σ_i w_i is the squared correlation of x_i with (W Wᵀ x)_i, by simulation (App. E)."""
    rng = np.random.default_rng(0)
    W, deviation, samples = rng.standard_normal((6, 3)), np.array([1.0, 3.0, 0.1, 2.0, 0.5, 1.0]), 200_000
    x = rng.uniform(-1, 1, (samples, 6)) * deviation * np.sqrt(3) + 5.0
    found = measure(W, activations=x)
    readout = x @ W @ W.T
    simulated = np.array([np.corrcoef(x[:, i], readout[:, i])[0, 1] for i in range(6)]) ** 2
    # the standard error of a correlation r is (1 − r²)/√samples at most by a factor of order one; 5 of them
    allowed = 5 * 2 * np.sqrt(simulated) * (1 - simulated) / np.sqrt(samples) + 1e-4
    assert (np.abs(found.comparison.capacity - simulated) < allowed).all()
    assert (np.abs(found.capacity - simulated) > allowed).any()  # negative control: without the deviations
    np.testing.assert_allclose(found.comparison.squared_norm, x.var(axis=0) * np.vecdot(W, W), rtol=1e-9)


def test_a_feature_that_is_never_active_counts_for_nothing(dictionary):
    W, codes = dictionary
    silent = codes.copy()
    silent[:, 3] = 7.0
    found = measure(W, activations=silent)
    without = measure(np.delete(W, 3, axis=0), activations=np.delete(codes, 3, axis=1))
    assert (found.comparison.capacity[3], found.comparison.allocation.capacity[3]) == (0.0, 0.0)
    np.testing.assert_allclose(np.delete(found.comparison.capacity, 3), without.comparison.capacity, rtol=1e-12)
    assert found.comparison.relative_suboptimality == pytest.approx(without.comparison.relative_suboptimality, rel=1e-9)


def test_activations_from_a_file(tmp_path, dictionary):
    W, codes = dictionary
    np.save(tmp_path / "w.npy", W)
    np.save(tmp_path / "x.npy", codes)
    np.savez(tmp_path / "x.npz", x=codes, y=codes[::-1])
    names = [f"atom {i}" for i in range(40)]
    np.savetxt(tmp_path / "x.csv", codes, "%.17g", ",", header=",".join(names), comments="")
    expected = measure(W, activations=codes)
    for name, key in (("x.npy", None), ("x.npz", "x"), ("x.csv", None)):
        found = measure(tmp_path / "w.npy", feature_axis="rows", activations=tmp_path / name, activations_key=key)
        np.testing.assert_array_equal(found.comparison.capacity, expected.comparison.capacity)
        assert found.comparison.loss == expected.comparison.loss
        assert found.names == (tuple(names) if name == "x.csv" else None)
    columns = found.to_dict()
    assert list(columns)[:5] == ["name", "feature", "capacity", "phase", "squared_norm"]
    assert {len(column) for column in columns.values()} == {40}
    np.testing.assert_allclose(columns["importance"], codes.var(axis=0), rtol=1e-13)
    assert columns["loss"].sum() == pytest.approx(expected.comparison.loss)
    assert columns["allocated_loss"].sum() == pytest.approx(expected.comparison.allocation.loss)
    assert (
        f"at least {found.comparison.relative_suboptimality:.1%} of the loss that the optimum saves" in found.summary()
    )


# what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": 0.0}, r"tolerance must be > 0"),
        ({"tolerance": 0.6}, r"tolerance must be in \[0, 0\.5\], got 0\.6"),
        ({"key": "W_dec"}, "key and part are for files, got 'W_dec'"),
        ({"feature_axis": "both"}, 'feature_axis must be "rows" or "columns", or -2 or -1, got both'),
        (
            {"activations": np.zeros((50, 3))},
            "activations: must have one column per feature: 5 features, got 3 columns",
        ),
        (
            {"activations": [[1.0, 2.0]] * 50},
            "activations: must have one column per feature: 5 features, got 2 columns",
        ),
        ({"activations": Profile([1.0], 3.0)}, "activations: must have one column per feature: 5 features, got 1"),
        ({"activations": np.full((50, 5), np.nan)}, "activations must be finite"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        measure(np.random.default_rng(0).standard_normal((5, 2)), **arguments)


def test_bad_numbers(tmp_path):
    with pytest.raises(ValueError, match="W: must be 2-D"):
        measure([1.0, 2.0])
    with pytest.raises(ValueError, match="W: must be finite, got nan at row 1, column 0"):
        measure([[1.0, 2.0], [np.nan, 0.0]])
    np.save(tmp_path / "x.npy", np.full((50, 2), np.inf))
    with pytest.raises(ValueError, match=r"x\.npy: activations must be finite, got inf at row 0"):
        measure(np.eye(2), activations=tmp_path / "x.npy")


def test_an_array_and_a_file_never_have_different_features(tmp_path):
    W = np.random.default_rng(0).standard_normal((16, 100))
    np.save(tmp_path / "wide.npy", W)
    np.save(tmp_path / "tall.npy", W.T)
    with pytest.warns(UserWarning, match=r"wide\.npy: the columns are taken as features, being the longer axis"):
        assert measure(tmp_path / "wide.npy").features == 100
    with pytest.raises(ValueError, match="W: 16 rows and 100 columns; say whether features are rows or columns"):
        measure(W)
    assert (
        measure(W, feature_axis="columns").features == measure(tmp_path / "tall.npy").features == measure(W.T).features
    )
    assert (
        measure(W, feature_axis="rows").features == measure(tmp_path / "wide.npy", feature_axis="rows").features == 16
    )
    # the number of activations says what is meant
    profile = Profile([1.0] * 16, 9.0)
    assert (
        measure(W, activations=profile).features == measure(tmp_path / "wide.npy", activations=profile).features == 16
    )
    found = measure(tmp_path / "wide.npy", activations=profile).weights
    assert (found.reason, found.guessed) == ("there are activations of 16 features", False)


def test_more_dimensions_than_memory_has_room_for(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"W": torch.ones(1, 1).expand(10**7, 10**7)}, tmp_path / "w.pt")  # all entries are the same number
    with pytest.raises(MemoryError, match=r"w\.pt, W: there is not enough memory for 10000000 features in 10000000"):
        measure(tmp_path / "w.pt", feature_axis="rows")


def test_an_orientation_that_must_be_wrong(tmp_path):
    np.save(tmp_path / "w.npy", np.ones((20_000, 2)))
    with pytest.raises(ValueError, match=r"w\.npy: 2 features in 20000 dimensions .* are the features rows\?"):
        measure(tmp_path / "w.npy", feature_axis="columns")
    assert measure(tmp_path / "w.npy").features == 20_000


# at work


def test_a_measurement_cannot_be_written_to():
    found = measure(np.eye(3))
    for array in (found.capacity, found.squared_norm, found.spectrum):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2.0


def test_progress_is_shown_when_asked_for(capfd):
    measure(np.eye(3))
    assert capfd.readouterr() == ("", "")
    measure(np.eye(3), activations=Profile([1.0] * 3, 9.0), progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "12.0/12.0" in err  # three features, twice as they are and twice with their deviations


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
@pytest.mark.parametrize("shape", [(1_000_000, 256), (256, 1_000_000)])
def test_a_file_larger_than_the_memory_it_takes(tmp_path, shape):
    """A file of 512 MB, nearly all of it a hole that reads as zeros, in blocks of 2 MB: most is never resident."""
    size = 2 * shape[0] * shape[1]
    header = json.dumps({"W_dec": {"dtype": "BF16", "shape": shape, "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    with (tmp_path / "w.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(np.ones(1, ml_dtypes.bfloat16).tobytes())
        file.truncate(8 + len(header) + size)
    code = (
        "import sys, capsolve, capsolve.files.weights\n"
        "capsolve.files.weights._BLOCK = 2**20\n"
        "found = capsolve.measure(sys.argv[1])\n"
        # not getrusage: its peak is inherited from the process that started this one
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]\n"
        "print(found.total_capacity, found.weights.shape, int(peak) * 1024)"
    )
    run = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(
        run, capture_output=True, text=True, check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    )
    total, *shown, peak = result.stdout.split()
    assert (float(total), " ".join(shown)) == (1.0, "(1000000, 256)")
    assert int(peak) < 0.4 * size


def test_former_names_work_and_warn():
    W = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    found = measure(W, feature_axis="rows", activations=np.random.default_rng(0).laplace(size=(500, 3)))
    for old, new in (("total", "total_capacity"), ("random", "random_baseline")):
        with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
            assert getattr(found, old) == getattr(found, new)
    for old, new in (("left", "relative_suboptimality"), ("worst", "zero_loss")):
        with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
            assert getattr(found.comparison, old) == getattr(found.comparison, new)


def test_the_axis_of_the_features_is_said_as_everywhere():
    W = np.random.default_rng(0).standard_normal((3, 7))
    wanted = measure(W, feature_axis="columns").capacity
    np.testing.assert_array_equal(measure(W, feature_axis=-1).capacity, wanted)
    np.testing.assert_allclose(wanted, capsolve.capacities(W, feature_axis=-1), rtol=1e-13)
    assert measure(W, feature_axis=-2).features == 3
    with pytest.warns(DeprecationWarning, match="features= is now feature_axis="):
        assert measure(W, features="columns").features == 7
    with pytest.raises(ValueError, match='feature_axis must be "rows" or "columns", or -2 or -1, got'):
        measure(W, feature_axis=2)


def test_names_of_activations_are_those_of_the_optimum():
    profile = capsolve.Profile([2.0, 1.0, 0.5], 9.0, ["a", "b", "b"])
    found = measure(np.random.default_rng(0).standard_normal((3, 2)), activations=profile)
    assert (found.names, found.comparison.allocation.names) == (profile.names, profile.names)
