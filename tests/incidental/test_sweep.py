"""The published experiment made short: what is counted, interruptions, files."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from capsolve._threads import one_blas_thread
from capsolve.files.checkpoints import forget
from capsolve.incidental import CollisionSweep, collision_sweep, sweep
from capsolve.incidental.sparse_adamw import AdamWConfig, train

ARGUMENTS = {"penalty": 0.01, "steps": 600, "learning_rate": 0.01, "rng": 5}


def test_a_sweep_counts_what_its_networks_have():
    found = collision_sweep(12, [16, 40], instances=5, **ARGUMENTS)
    assert repr(found) == "CollisionSweep(12 features, 16, 40 neurons, 5 instances each)"
    seed = found.settings["seed"]
    for width, collisions, correlation in zip((16, 40), found.collisions, found.correlation, strict=True):
        starts = [sweep.start_weights(12, width, number, seed) for number in range(5)]
        with one_blas_thread():  # as the sweep does: all the bits have to be the same
            ends = np.stack(train(starts, AdamWConfig(0.01, 600, 0.01, 0.01)))
        positive = ((ends >= 0.8) & (ends <= 1.2)).sum(axis=1)
        negative = ((-ends >= 0.8) & (-ends <= 1.2)).sum(axis=1)
        np.testing.assert_array_equal(collisions.polysemantic, (positive + negative >= 2).sum(axis=1))
        np.testing.assert_array_equal(collisions.opposite_pairs, (positive * negative).sum(axis=1))
        assert np.diag(correlation).mean() > 0.2 > np.abs(correlation - np.diag(np.diag(correlation))).mean()
    table = found.table()
    counts = np.array([c.polysemantic for c in found.collisions])
    np.testing.assert_allclose(table["polysemantic"], counts.mean(axis=1))
    np.testing.assert_allclose(table["polysemantic_error"], counts.std(axis=1, ddof=1) / np.sqrt(5))
    np.testing.assert_allclose(table["kept_error"], found.kept.std(axis=1, ddof=1) / np.sqrt(5))
    assert table["expected_pairs"] == pytest.approx([12 * 11 / 64, 12 * 11 / 160])


def test_an_interrupted_sweep_goes_on(tmp_path, monkeypatch):
    path = tmp_path / "networks"
    calls = []

    def trained(task, networks=sweep._networks):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(task)
        return networks(task)

    monkeypatch.setattr(sweep, "_networks", trained)
    with pytest.raises(KeyboardInterrupt):
        collision_sweep(6, [8, 12], instances=5, checkpoint=path, **ARGUMENTS)
    monkeypatch.undo()
    whole = collision_sweep(6, [8, 12], instances=5, **ARGUMENTS)
    monkeypatch.setattr(sweep, "_networks", lambda task, n=sweep._networks: (calls.append(task), n(task))[1])
    with ThreadPoolExecutor(2) as executor:
        resumed = collision_sweep(6, [8, 12], instances=5, checkpoint=path, executor=executor, **ARGUMENTS)
    assert sorted(len(task[2]) for task in calls) == [1, 1, 4, 4]  # four tasks, none twice
    for name, column in whole.table().items():
        np.testing.assert_array_equal(column, resumed.table()[name])
    calls.clear()
    more = collision_sweep(6, [8, 12, 16], instances=5, checkpoint=path, **ARGUMENTS)
    assert {task[1] for task in calls} == {16}
    np.testing.assert_array_equal(more.mean("excess")[:2], whole.mean("excess"))
    with pytest.raises(ValueError, match="other arguments or another seed"):
        collision_sweep(6, [8], checkpoint=path, **{**ARGUMENTS, "rng": 6})
    calls.clear()
    (path / "network-8-0.npz").write_bytes(b"not a file of arrays")
    again = collision_sweep(6, [8, 12], instances=5, checkpoint=path, **ARGUMENTS)
    assert [task[1:3] for task in calls] == [(8, (0,))]
    np.testing.assert_array_equal(again.correlation, whole.correlation)
    (path / "mine.txt").touch()
    forget(path)
    assert [file.name for file in path.iterdir()] == ["mine.txt"]


def test_a_saved_sweep(tmp_path):
    found = collision_sweep(4, [6, 9], instances=2, **ARGUMENTS)
    assert np.isnan(collision_sweep(4, [6], instances=1, **ARGUMENTS).table()["kept_error"]).all()
    found.save(tmp_path / "sweep.npz")
    again = CollisionSweep.load(tmp_path / "sweep.npz")
    assert repr(again) == repr(found)
    assert again.settings == found.settings
    np.testing.assert_array_equal(again.correlation, found.correlation.astype(np.float16))
    for name, column in found.table().items():
        np.testing.assert_array_equal(again.table()[name], column)
    for one, other in zip(again.collisions, found.collisions, strict=True):
        for name, value in vars(other).items():
            np.testing.assert_array_equal(getattr(one, name), value)
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ValueError, match=r"other\.npz: not a collision sweep"):
        CollisionSweep.load(tmp_path / "other.npz")
    with pytest.raises(ValueError, match=r"must be one of \.npz"):
        found.save(tmp_path / "sweep.csv")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"neurons": [8, 8]}, "different integers"),
        ({"neurons": []}, "different integers"),
        ({"neurons": 2.5}, "neurons must be an integer, got 2.5"),
        ({"instances": 0}, "instances must be >= 1"),
        ({"penalty": -1.0}, "penalty must be >= 0, got -1.0"),
        ({"steps": 0}, "steps must be"),
        ({"high": 0.5}, "high must be >= 0.8"),
        ({"rng": None, "checkpoint": "a"}, "needs a seed"),
        ({"checkpoint": __file__}, "checkpoint must be a folder, got .*test_"),
    ],
)
def test_bad_arguments(changed, message):
    arguments = {"neurons": [8], **ARGUMENTS} | changed
    with pytest.raises(ValueError, match=message):
        collision_sweep(4, arguments.pop("neurons"), **arguments)
