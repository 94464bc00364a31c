"""Allocations on disk: what is written is read back, and judged anew."""

import csv
import dataclasses

import numpy as np
import pytest

import capsolve
from capsolve import Status, read_allocation, write_allocation
from capsolve.losses.model import ConvexLoss
from capsolve.losses.neuron_noise import NeuronNoiseLoss
from tests.extras import PARQUET

PROFILE = capsolve.example("digits")


@pytest.mark.parametrize("suffix", [".csv", PARQUET])
@pytest.mark.parametrize("dimensions", [8, 16.5, 61])
def test_round_trip(tmp_path, suffix, dimensions):
    allocation = capsolve.solve(PROFILE.importance, PROFILE.kurtosis, dimensions)
    path = tmp_path / f"allocation{suffix}"
    write_allocation(allocation, path, names=PROFILE.names)
    again = read_allocation(path)
    np.testing.assert_array_equal(again.capacity, allocation.capacity)
    np.testing.assert_array_equal(again.model.kurtosis, PROFILE.kurtosis)
    assert again.status is allocation.status is Status.OPTIMAL
    assert (again.price, again.dimensions) == (allocation.price, allocation.dimensions)
    assert again.kkt_error == pytest.approx(allocation.kkt_error, abs=16 * np.finfo(float).eps)
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


@pytest.mark.parametrize("suffix", [".csv", PARQUET])
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


def test_mixed_kurtoses_whose_file_claims_too_much(tmp_path):
    """Capacities that are stationary but not the best, beside a bound that would make them so."""
    v, k = [2.0, 1.9, 1.0, 0.8], [2.0, 2.0, 9.0, 5.0]
    best = capsolve.solve(v, k, 1.5)
    wrong = capsolve.certify(capsolve.QuadraticLoss(v, k), 1.5, [0.0, 1.0, 0.5, 0.0])
    assert wrong.loss > best.loss * 1.01
    write_allocation(dataclasses.replace(wrong, lower_bound=wrong.loss, gap=0.0), tmp_path / "a.csv")
    again = read_allocation(tmp_path / "a.csv")
    assert again.status is Status.FEASIBLE
    assert again.lower_bound == pytest.approx(best.loss, rel=1e-9)
    write_allocation(best, tmp_path / "a.csv")
    assert read_allocation(tmp_path / "a.csv").status is Status.OPTIMAL


CURVES = np.array([[1.0, 0.9, 0.2, 0.0], [1.0, 0.3, 0.1, 0.0], [0.5, 0.1, 1 / 3, 1.0]])
LOSSES = {
    "curves": capsolve.TabulatedLoss(CURVES, [0.0, 0.1, 2 / 3, 1.0]),
    "shape": capsolve.TabulatedLoss([1.0, 0.9, 0.2, 0.1, 0.0], weight=[1.0, 0.7, 0.0]),
    "noise": NeuronNoiseLoss([2.0, 1.0, 0.1], 9.0, noise=0.7),
}


@pytest.mark.parametrize("suffix", [".csv", PARQUET])
@pytest.mark.parametrize("model", LOSSES.values(), ids=LOSSES)
def test_other_losses_come_back_to_the_last_bit(tmp_path, suffix, model):
    allocation = capsolve.allocate(model, 1.25)
    write_allocation(allocation, tmp_path / f"a{suffix}", names=["x", "=x", "x"])
    again = read_allocation(tmp_path / f"a{suffix}")
    assert type(again.model) is type(model)
    for name in ("curves", "grid", "weight", "importance", "kurtosis", "noise"):
        np.testing.assert_array_equal(getattr(again.model, name, None), getattr(model, name, None))
    np.testing.assert_array_equal(again.capacity, allocation.capacity)
    assert again.names == ("x", "=x", "x")
    assert again.status is allocation.status is Status.OPTIMAL


def test_a_bound_on_curves_is_a_claim_too(tmp_path):
    wrong = capsolve.certify(LOSSES["shape"], 1.0, [0.0, 0.75, 0.25])
    write_allocation(dataclasses.replace(wrong, lower_bound=wrong.loss, gap=0.0), tmp_path / "a.csv")
    again = read_allocation(tmp_path / "a.csv")
    assert again.status is Status.FEASIBLE
    assert again.lower_bound <= capsolve.allocate(LOSSES["shape"], 1.0).loss < again.loss


def test_curves_that_differ_where_they_must_not_are_named(tmp_path):
    write_allocation(capsolve.allocate(LOSSES["shape"], 1.0), tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").write_text(text.replace("0.9,0.2,0.1", "0.9,0.3,0.1", 1))
    with pytest.raises(ValueError, match=r"a\.csv: column loss at 0\.5 must be the same in all rows"):
        read_allocation(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text(text.replace("loss at 0.5", "loss at half"))
    with pytest.raises(ValueError, match=r"a\.csv: must be a finite number, got 'half'"):
        read_allocation(tmp_path / "a.csv")


class OwnLoss(ConvexLoss):
    features = 2

    def feature_loss(self, capacity):
        return (1.0 - np.asarray(capacity)) ** 2

    def marginal(self, capacity, *, growing=True):
        return 2.0 * (1.0 - np.asarray(capacity))

    def response(self, price):
        return np.full(2, max(0.0, 1.0 - price / 2.0))


def test_what_cannot_be_read_back_is_not_written(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="cannot be read back from a table if its loss is a OwnLoss"):
        write_allocation(capsolve.allocate(OwnLoss(), 1.0), tmp_path / "a.csv")
    monkeypatch.setattr("capsolve.files.allocations._MOST_VALUES", 11)
    with pytest.raises(ValueError, match="with more than 11 values of its curves, got 3 features × 4 grid points"):
        write_allocation(capsolve.allocate(LOSSES["curves"], 1.0), tmp_path / "a.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".csv", PARQUET])
def test_names_are_carried(tmp_path, suffix):
    allocation = dataclasses.replace(capsolve.solve([2.0, 1.0], 9.0, 1), names=("left", "left"))
    assert allocation.to_dict()["name"] == ["left", "left"]
    write_allocation(allocation, tmp_path / f"a{suffix}")
    assert read_allocation(tmp_path / f"a{suffix}").names == ("left", "left")
    write_allocation(allocation, tmp_path / f"a{suffix}", names=["a", "b"])
    assert read_allocation(tmp_path / f"a{suffix}").names == ("a", "b")
    assert read_allocation(edited(tmp_path, lambda rows: None)).names is None


def test_a_folder_of_parts_is_read_back(tmp_path):
    da = pytest.importorskip("dask.array")
    v = np.arange(1.0, 8.0)
    write_allocation(capsolve.solve(da.from_array(v, chunks=3), 9.0, 4), tmp_path / "a")
    again = read_allocation(tmp_path / "a")
    assert again.status is Status.OPTIMAL
    np.testing.assert_array_equal(again.model.importance, v)
    np.testing.assert_allclose(again.capacity, capsolve.solve(v, 9.0, 4).capacity, rtol=0, atol=1e-12)
