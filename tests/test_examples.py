"""The built-in examples, made again from the raw data in exact arithmetic."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from importlib import resources
from math import sqrt

import numpy as np
import pytest
from sklearn.datasets import load_digits

import capsolve
from capsolve import Profile, write_profile
from capsolve.examples import example, examples
from capsolve.moments import Moments


@pytest.fixture(scope="module")
def pixels():
    data = load_digits()
    assert data.data.shape == (1797, 64)
    assert np.array_equal(data.data, data.data.astype(int))  # so every moment is a rational number
    return data.data, tuple(data.feature_names)


def exact_profile(x, names):
    """The profile with every number rounded once (the standard error: twice) from its exact value."""
    n = len(x)
    columns = []
    for column in x.astype(int).T.tolist():
        # integers: n times the distances from the mean, and sums of their powers
        c = [n * value - sum(column) for value in column]
        s2, s3, s4 = (sum(v**p for v in c) for p in (2, 3, 4))
        if s2:
            # n times each sample's influence z⁴ − κ − 4 α₃ z − 2κ (z² − 1) on the kurtosis κ = n s4 / s2²
            influence = [s2 * n * (n * v**4 - s4 - 4 * s3 * v) - 2 * n * s4 * (n * v**2 - s2) for v in c]
            kurtosis = float(Fraction(n * s4, s2**2))
            error = sqrt(Fraction(sum(i * i for i in influence), n**2 * s2**6))
        else:
            kurtosis, error = 3.0, 0.0
        density = Fraction(sum(value != 0 for value in column), n)
        columns.append((Fraction(sum(column), n), Fraction(s2, n**3), kurtosis, error, density))
    mean, variance, kurtosis, error, density = np.array(columns, dtype=float).T
    moments = Moments(n, mean, variance, kurtosis, error, density, constant=np.ptp(x, axis=0) == 0)
    return Profile(variance, kurtosis, names, moments=moments)


def test_digits_is_what_the_images_say_to_the_last_bit(pixels, tmp_path):
    write_profile(exact_profile(*pixels), tmp_path / "digits.csv")
    shipped = resources.files("capsolve.examples") / "digits.csv"
    assert shipped.read_text(encoding="utf-8") == (tmp_path / "digits.csv").read_text(encoding="utf-8")


def test_digits_is_what_from_activations_measures(pixels):
    x, names = pixels
    exact, measured = exact_profile(x, names), Profile.from_activations(x, names=names)
    for field in ("mean", "variance", "kurtosis", "density"):
        np.testing.assert_allclose(getattr(measured.moments, field), getattr(exact.moments, field), rtol=1e-14)
    # the square of the error is a difference of terms up to 25 times larger: 25 · 100 eps
    np.testing.assert_allclose(measured.moments.kurtosis_error, exact.moments.kurtosis_error, rtol=1e-12)
    np.testing.assert_array_equal(measured.moments.constant, exact.moments.constant)
    np.testing.assert_allclose(example("digits").kurtosis, measured.kurtosis, rtol=1e-14)


def test_a_single_grey_level_would_be_noticed(pixels, tmp_path):
    x, names = pixels
    changed = x.copy()
    changed[1000, 20] += 1
    assert np.abs(exact_profile(changed, names).kurtosis / example("digits").kurtosis - 1).max() > 1e-6


def test_digits_needs_the_global_solver_and_has_blank_pixels():
    profile = example("digits")
    assert len(profile) == 64
    assert profile.names[:2] == ("pixel_0_0", "pixel_0_1")
    blank = profile.importance == 0
    assert [profile.names[i] for i in np.flatnonzero(blank)] == ["pixel_0_0", "pixel_4_0", "pixel_4_7"]
    assert (profile.kurtosis[blank] == 3).all()
    live = profile.kurtosis[~blank]
    assert (live < 3).sum() == 31
    assert (live > 100).sum() == 11
    assert 1.3 < live.min() < 1.4
    assert live.max() == pytest.approx(1795 + 1 / 1796)  # inked in a single image: N − 2 + 1/(N − 1)


def test_names(pixels):
    assert examples() == ["digits"]
    assert capsolve.example is example
    assert example("digits").names == pixels[1]
    for name in ("digit", "", "../files", "digits.csv"):
        with pytest.raises(ValueError, match=r"there is no example .*; the examples are digits"):
            example(name)


def test_origin_and_licence_are_stated_beside_the_data():
    note = (resources.files("capsolve.examples") / "README.md").read_text(encoding="utf-8")
    for word in ("Alpaydin", "Kaynak", "scikit-learn", "CC BY 4.0", "10.24432/C50P49"):
        assert word in note


def test_scikit_learn_is_not_needed():
    code = "import sys; sys.modules['sklearn'] = None; import capsolve; print(len(capsolve.example('digits')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "64\n"
