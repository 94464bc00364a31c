"""Axes of diagrams from what users give."""

import numpy as np
import pytest

from capsolve import Axis


def test_importance_kurtosis_and_density_are_logarithmic_unless_told():
    axis = Axis.of(("importance", 0.01, 100), 5)
    np.testing.assert_allclose(axis.values, [0.01, 0.1, 1, 10, 100])
    assert axis.logarithmic
    assert Axis.of(("density", 1, 0.001), 4).values.tolist() == pytest.approx([1, 0.1, 0.01, 0.001])
    assert not Axis.of(("importance", 0, 3), 4).logarithmic
    assert Axis.of(("importance", 1, 3, "linear"), 3).values.tolist() == [1, 2, 3]
    assert Axis.of(("dimensions", 1, 100, "log"), 3).values.tolist() == pytest.approx([1, 10, 100])


def test_whole_numbers_stay_whole():
    assert Axis.of(("features", 2, 6), 250).values.tolist() == [2, 3, 4, 5, 6]
    assert Axis.of(("features", 6, 2), 250).values.tolist() == [6, 5, 4, 3, 2]
    assert Axis.of(("bias", (False, True)), 9).values.tolist() == [0, 1]
    assert Axis.of(("my own", [3.0, 1.0]), 9).values.tolist() == [3, 1]


def test_positions_and_values_are_inverse():
    axis = Axis("importance", [1.0, 10.0])
    np.testing.assert_allclose(axis.value(axis.position([1.0, 3.0, 10.0])), [1, 3, 10])
    assert repr(axis) == "Axis(importance, 2 values from 1 to 10, logarithmic)"
    assert not axis.values.flags.writeable
    assert Axis.of(axis, 3) is axis


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("importance", "an axis is"),
        (("importance",), "an axis is"),
        (("importance", 1, 1), "end elsewhere"),
        (("importance", 1, 2, "cubic"), "'log' or 'linear'"),
        (("importance", 0, 2, "log"), "between numbers > 0"),
        (("importance", -1, 2), r"importance must be >= 0, got -1 at index 0"),
        (("density", 1, 0), r"density must be in \(0, 1\]"),
        (("sparsity", 0, 1), r"sparsity must be in \[0, 1\)"),
        (("kurtosis", 0.5, 9), "kurtosis must be >= 1"),
        (("features", [2.5, 3]), "an integer >= 1"),
        (("bias", [0, 2]), "True or False"),
        (("importance", [1.0]), "at least 2 values"),
        (("importance", [1.0, 1.0]), "at least 2 values"),
        (("importance", [1.0, 3.0, 2.0]), "at least 2 values"),
        (("importance", [1.0, np.nan]), "finite"),
        (("importance", "a", 3), "real numbers"),
    ],
)
def test_bad_axes(given, message):
    with pytest.raises(ValueError, match=message):
        Axis.of(given, 5)
    with pytest.raises(ValueError, match="name"):
        Axis(3, [1.0, 2.0])
    with pytest.raises(ValueError, match="logarithmic"):
        Axis("exponent", [0.0, 1.0], logarithmic=True)
