"""Profiles: what is accepted, what is refused, and kurtoses known in closed form."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse, stats

import capsolve
from capsolve import Profile, exponential, power_law


def test_a_profile_is_a_validated_read_only_copy():
    importance = np.array([2, 1, 0], dtype=np.float32)
    profile = Profile(importance, 4, ["a", "b", "c"])
    importance[0] = 9
    assert profile.importance.dtype == profile.kurtosis.dtype == np.float64
    np.testing.assert_array_equal(profile.importance, [2.0, 1.0, 0.0])
    np.testing.assert_array_equal(profile.kurtosis, [4.0, 4.0, 4.0])
    assert len(profile) == 3
    assert profile.names == ("a", "b", "c")
    assert profile.moments is None
    for array in (profile.importance, profile.kurtosis):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0
    with pytest.raises(AttributeError):
        profile.names = None


def test_repr():
    assert repr(Profile([1.0], 3)) == "Profile(1 feature, importance 1, kurtosis 3)"
    x = np.random.default_rng(0).standard_normal((50, 2)) * [1.0, 2.0]
    profile = Profile.from_activations(x, importance=[0.25, 0.5], names=["a", "b"])
    assert repr(profile).startswith("Profile(2 features, importance 0.25 … 0.5, kurtosis ")
    assert repr(profile).endswith(", named, measured)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, np.nan], 3), "importance must be finite, got nan at index 1"),
        (([1.0, -1.0], 3), "importance must be >= 0, got -1.0 at index 1"),
        (([], 3), "at least one feature"),
        (([[1.0]], 3), "importance must have 1 dimension"),
        ((["a"], 3), "importance must hold real numbers"),
        (([1.0], 0.5), "kurtosis must be >= 1, got 0.5"),
        (([1.0, 2.0], [3.0]), "2 features, got 1 entries"),
        (([1.0, 2.0], [3.0, np.inf]), "kurtosis must be finite, got inf at index 1"),
        (([1.0, 2.0], 3, ["a"]), "2 features, got 1 names"),
        (([1.0, 2.0], 3, "ab"), "single string 'ab'"),
        (([1.0, 2.0], 3, ["a", 2]), "names must be strings, got 2"),
    ],
)
def test_bad_profiles(arguments, message):
    with pytest.raises(ValueError, match=message):
        Profile(*arguments)


def test_moments_of_another_size_are_refused():
    x = np.random.default_rng(0).standard_normal((50, 2))
    with pytest.raises(ValueError, match="moments must be of 3 features, got 2"):
        Profile([1.0, 2.0, 3.0], 3, moments=Profile.from_activations(x).moments)


# ------------------------------------------------------------------ from activations


def test_importance_is_the_variance_unless_given():
    x = np.random.default_rng(1).laplace(size=(5000, 3)) * [1.0, 10.0, 1e-3] + [0.0, 5.0, 1.0]
    profile = Profile.from_activations(x, names=iter(["a", "b", "c"]))
    np.testing.assert_allclose(profile.importance, x.var(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(profile.importance, profile.moments.variance)
    np.testing.assert_allclose(profile.kurtosis, stats.kurtosis(x, fisher=False), rtol=1e-12)
    assert (np.abs(profile.kurtosis - 6) < 4 * profile.moments.kurtosis_error).all()
    assert profile.names == ("a", "b", "c")
    given = Profile.from_activations(x, importance=[3, 2, 1])
    np.testing.assert_array_equal(given.importance, [3.0, 2.0, 1.0])
    np.testing.assert_array_equal(given.kurtosis, profile.kurtosis)


def test_features_that_never_vary():
    x = np.random.default_rng(2).standard_normal((100, 3))
    x[:, 1] = 0.1  # whose computed variance is not exactly zero
    assert np.var(x[:, 1]) > 0
    profile = Profile.from_activations(x)
    assert profile.moments.constant.tolist() == [False, True, False]
    assert (profile.importance[1], profile.kurtosis[1]) == (0.0, 3.0)
    assert profile.moments.mean[1] == 0.1
    assert Profile.from_activations(x, importance=[1, 0, 1]).importance.tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match=r"columns 1 \(1 in all\) never vary.*importance must be 0"):
        Profile.from_activations(x, importance=[1, 1, 1])
    with pytest.raises(ValueError, match=r"columns dead \(1 in all\) never vary"):
        Profile.from_activations(x, importance=[1, 1, 1], names=["a", "dead", "b"])
    with pytest.raises(ValueError, match=r"columns 0, 1, 2, 3, 4, 5, 6, 7, 8 \(9 in all\) never vary"):
        Profile.from_activations(np.ones((50, 9)), importance=np.ones(9))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_a_variance_beyond_float64_needs_an_importance(scale):
    x = np.random.default_rng(3).standard_normal((100, 2))
    with pytest.raises(ValueError, match=r"columns 1 \(1 in all\) have a variance outside the range of float64"):
        Profile.from_activations(x * [1.0, scale])
    profile = Profile.from_activations(x * [1.0, scale], importance=[1.0, 1.0])
    np.testing.assert_allclose(profile.kurtosis, Profile.from_activations(x).kurtosis, rtol=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"importance": [1.0]}, "importance must have one entry per feature: 2 features, got 1"),
        ({"importance": [1.0, -1.0]}, "importance must be >= 0"),
        ({"names": ["a"]}, "2 features, got 1 names"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Profile.from_activations(np.random.default_rng(4).standard_normal((50, 2)), **options)


def test_sparse_activations():
    x = np.random.default_rng(5).laplace(size=(3000, 4)) * (np.random.default_rng(6).random((3000, 4)) < 0.1)
    profile, dense = Profile.from_activations(sparse.csr_matrix(x)), Profile.from_activations(x)
    np.testing.assert_allclose(profile.kurtosis, dense.kurtosis, rtol=1e-12)
    np.testing.assert_array_equal(profile.moments.density, (x != 0).mean(axis=0))


# ------------------------------------------------------------------ from distributions

BY_NAME = {
    "uniform": stats.uniform(-1, 2),
    "gaussian": stats.norm(),
    "laplace": stats.laplace(),
    "rademacher": stats.rv_discrete(values=([-1, 1], [0.5, 0.5])),
}


@pytest.mark.parametrize("name", BY_NAME)
def test_names_agree_with_scipy_and_with_samples(name):
    importance = power_law(3, 1.0)
    sparsity = np.array([0.0, 0.5, 0.9])
    profile = Profile.from_distribution(name, sparsity=sparsity, importance=importance)
    other = Profile.from_distribution(BY_NAME[name], sparsity=sparsity, importance=importance)
    np.testing.assert_allclose(profile.kurtosis, other.kurtosis, rtol=1e-14)
    np.testing.assert_array_equal(profile.importance, importance)
    rng = np.random.default_rng(7)
    x = BY_NAME[name].rvs(size=(200_000, 3), random_state=rng) * (rng.random((200_000, 3)) >= sparsity)
    measured = Profile.from_activations(x)
    assert (np.abs(measured.kurtosis - profile.kurtosis) <= 4 * measured.moments.kurtosis_error + 1e-12).all()
    wrong = Profile.from_distribution(name, sparsity=sparsity + 0.05, importance=importance)
    assert not (np.abs(measured.kurtosis - wrong.kurtosis) <= 4 * measured.moments.kurtosis_error + 1e-12).all()


@given(st.floats(0.0, 1.0, exclude_max=True), st.floats(1e-100, 1e100))
def test_sparsity_and_scale(sparsity, scale):
    profile = Profile.from_distribution(stats.norm(scale=scale), sparsity=sparsity, importance=[1.0])
    assert profile.kurtosis[0] == pytest.approx(3 / (1 - sparsity), rel=1e-15)


def test_one_distribution_per_feature():
    profile = Profile.from_distribution(stats.t(df=[5, 10]), importance=[1.0, 1.0])
    np.testing.assert_allclose(profile.kurtosis, [9.0, 4.0])


@pytest.mark.parametrize(
    ("distribution", "options", "message"),
    [
        ("cauchy", {}, "must be one of uniform, gaussian, laplace, rademacher, got 'cauchy'"),
        (stats.cauchy(), {}, "finite fourth moment"),
        (stats.t(df=4), {}, "finite fourth moment"),
        (stats.t(df=1.5), {}, "finite fourth moment"),
        (stats.norm(loc=1), {}, r"mean zero, got 1.0: shift it with loc="),
        (stats.expon(), {}, "mean zero"),
        (stats.t, {}, "frozen distribution"),
        (3.0, {}, "frozen distribution"),
        (np.random.default_rng(0), {}, "frozen distribution"),
        ("gaussian", {"sparsity": 1.0}, "sparsity must be < 1, got 1.0"),
        ("gaussian", {"sparsity": -0.1}, "sparsity must be >= 0, got -0.1"),
        ("gaussian", {"sparsity": np.nan}, "sparsity must be finite"),
        ("gaussian", {"sparsity": [0.1, 0.2, 0.3]}, r"sparsity must be one number or 2, one per feature"),
        ("gaussian", {"sparsity": [[0.1, 0.2]]}, r"sparsity must be one number or 2, one per feature"),
        (stats.t(df=[5, 6, 7]), {}, r"the distribution's kurtosis must be one number or 2"),
        ("gaussian", {"importance": [1.0, -1.0]}, "importance must be >= 0"),
        ("gaussian", {"importance": []}, "at least one feature"),
        ("gaussian", {"importance": 1.0}, "importance must have 1 dimension"),
        ("gaussian", {"names": ["a"]}, "2 features, got 1 names"),
    ],
)
def test_bad_distributions(distribution, options, message):
    with pytest.raises(ValueError, match=message):
        Profile.from_distribution(distribution, **{"importance": [1.0, 2.0], **options})


# ------------------------------------------------------------------ importances


@given(st.integers(2, 200), st.floats(0, 5))
def test_power_law_and_exponential(n, slope):
    power, exponent = power_law(n, slope), exponential(n, slope)
    assert power.shape == exponent.shape == (n,)
    assert power[0] == exponent[0] == 1.0
    i = np.arange(1, n + 1)
    np.testing.assert_allclose(np.log(power), -slope * np.log(i), rtol=1e-12, atol=1e-15)
    seen = exponent > 1e-300
    np.testing.assert_allclose(np.log(exponent[seen]), -slope * (i[seen] - 1), rtol=1e-12, atol=1e-15)
    assert (np.diff(power) <= 0).all()
    assert (np.diff(exponent) <= 0).all()


@pytest.mark.parametrize("law", [power_law, exponential])
def test_bad_laws(law):
    for features, slope, message in [
        (0, 1.0, "features must be >= 1, got 0"),
        (2.5, 1.0, "features must be an integer, got 2.5"),
        (3, -1.0, ">= 0, got -1.0"),
        (3, np.inf, "finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            law(features, slope)


def test_public_names():
    for name in ("Profile", "power_law", "exponential"):
        assert name in capsolve.__all__
        assert name in dir(capsolve)


def test_optional_libraries_are_not_loaded():
    optional = ("pyarrow", "safetensors", "ml_dtypes", "scipy.stats", "tqdm")
    code = f"import sys, capsolve.profile; print([m for m in {optional} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class Column(list):
    """A column of a data frame, which pandas calls a Series."""

    def __init__(self, values, index):
        super().__init__(values)
        self.index = index


@pytest.mark.parametrize(("index", "names"), [(["x", "x"], ("x", "x")), ([7, 3], ("7", "3")), (range(2), None)])
def test_the_index_of_a_data_frame_is_taken_for_the_names_unless_it_counts(index, names):
    assert Profile(Column([1.0, 2.0], index), 3.0).names == names
    assert Profile(Column([1.0, 2.0], index), 3.0, ["a", "b"]).names == ("a", "b")
