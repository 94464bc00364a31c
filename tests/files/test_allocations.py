"""Allocations on disk: what is written is read back, and judged anew."""

import csv
import dataclasses

import numpy as np
import pytest

import capsolve
from capsolve import Status, read_allocation, write_allocation

PROFILE = capsolve.example("digits")
EPS = np.finfo(float).eps


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("dimensions", [8, 16.5, 61])
def test_round_trip(tmp_path, suffix, dimensions):
    allocation = capsolve.solve(PROFILE.importance, PROFILE.kurtosis, dimensions)
    path = tmp_path / f"allocation{suffix}"
    write_allocation(allocation, path, names=PROFILE.names)
    again = read_allocation(path)
    np.testing.assert_array_equal(again.capacity, allocation.capacity)
    np.testing.assert_array_equal(again.model.kurtosis, PROFILE.kurtosis)
    assert again.status is allocation.status is Status.OPTIMAL
    for name in ("price", "dimensions", "kkt_error"):
        assert getattr(again, name) == getattr(allocation, name)
    # sums of 64 positive numbers in another order, each of a few roundings; those of the bound are of this size
    size = allocation.loss + allocation.price * min(dimensions, 64)
    for name in ("loss", "lower_bound"):
        assert abs(getattr(again, name) - getattr(allocation, name)) <= 64 * np.finfo(float).eps * size


def test_without_bias(tmp_path):
    allocation = capsolve.solve([2.0, 1.0, 0.5], 9.0, 1.5, bias=False)
    write_allocation(allocation, tmp_path / "a.csv")
    again = read_allocation(tmp_path / "a.csv")
    assert again.model.bias is False
    assert again.status is Status.OPTIMAL
    assert again.loss == pytest.approx(allocation.loss, rel=8 * np.finfo(float).eps)  # three numbers, added twice


def edited(tmp_path, change):
    path = tmp_path / "a.csv"
    write_allocation(capsolve.solve([2.0, 1.0, 0.5], 9.0, 1.5), path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_file_changed_by_hand_is_not_optimal(tmp_path):
    def move_capacity(rows):
        rows[0]["capacity"] = str(float(rows[0]["capacity"]) - 0.01)
        rows[1]["capacity"] = str(float(rows[1]["capacity"]) + 0.01)

    assert read_allocation(edited(tmp_path, lambda rows: None)).status is Status.OPTIMAL
    assert read_allocation(edited(tmp_path, move_capacity)).status is Status.FEASIBLE


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_bound_in_a_file_is_a_claim_and_no_proof(tmp_path, suffix):
    """Wrong capacities of features with κ < 3, and a lower bound that is their loss: nothing else would betray them."""
    model = capsolve.QuadraticLoss([2.0, 1.9, 1.0], 2.0)
    wrong = capsolve.certify(model, 1.0, [0.0, 1.0, 0.0])
    claimed = dataclasses.replace(wrong, lower_bound=wrong.loss, gap=0.0)
    assert claimed.status is Status.OPTIMAL, "so the file says"
    write_allocation(claimed, tmp_path / f"a{suffix}")
    again = read_allocation(tmp_path / f"a{suffix}")
    assert again.status is Status.FEASIBLE
    assert again.lower_bound <= capsolve.solve([2.0, 1.9, 1.0], 2.0, 1.0).loss < again.loss


def test_an_optimum_whose_bound_costs_a_search_is_recognised(tmp_path):
    allocation = capsolve.solve([2.0, 1.9, 1.0], 2.0, 1.5)
    assert capsolve.certify(allocation.model, 1.5, allocation.capacity).status is Status.FEASIBLE
    write_allocation(allocation, tmp_path / "a.csv")
    assert read_allocation(tmp_path / "a.csv").status is Status.OPTIMAL


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("capacity", "1.5", r"a\.csv.*row 2.*capacity.*1\.5"),
        ("bias", "maybe", r"a\.csv.*row 2.*bias.*must be true or false"),
        ("dimensions", "2.5", r"a\.csv: column dimensions must be the same in all rows"),
        ("importance", "x", r"a\.csv.*row 2.*importance"),
    ],
)
def test_bad_cells_are_named(tmp_path, column, value, message):
    with pytest.raises(ValueError, match=message):
        read_allocation(edited(tmp_path, lambda rows: rows[0].update({column: value})))


def test_other_losses_cannot_be_read_back(tmp_path):
    allocation = capsolve.allocate(capsolve.TabulatedLoss([1.0, 0.0], weight=[1.0, 1.0]), 1.0)
    write_allocation(allocation, tmp_path / "a.csv")
    with pytest.raises(ValueError, match="importance"):
        read_allocation(tmp_path / "a.csv")
