"""The published experiment made short: against AdamW written plainly, what is measured, interruptions."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from capsolve._threads import one_blas_thread
from capsolve.files.checkpoints import forget
from capsolve.incidental import CollisionSweep, collision_sweep, sparse_adamw, sweep
from capsolve.incidental.sparse_adamw import LOOK, Dense, Live, Recipe, train

RECIPE = Recipe(penalty=4e-3, steps=4000, learning_rate=4e-3, weight_decay=0.01)


class Book:
    """AdamW with all weights, in double precision, by the book."""

    def __init__(self, W, recipe):
        self.W, self.recipe, self.step = W.astype(float), recipe, 0
        self.first, self.second = np.zeros_like(self.W), np.zeros_like(self.W)

    def advance(self):
        self.step += 1
        W, recipe = self.W, self.recipe
        G = W @ W.T
        gradient = 4.0 * np.where(G > 0, G - np.eye(len(W)), 0.0) @ W + recipe.penalty * np.sign(W)
        W -= recipe.learning_rate * recipe.weight_decay * W
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        size = np.sqrt(self.second / (1 - 0.999**self.step)) + 1e-8
        W -= recipe.learning_rate * self.first / (1 - 0.9**self.step) / size


def start(n, m, seed):
    return (np.random.default_rng(seed).normal(size=(n, m)) / np.sqrt(m)).astype(np.float32)


def test_the_first_steps_are_those_of_the_book():
    W, recipe = start(16, 24, 0), Recipe(1e-3, 30, 1e-3, 0.01)
    network, book = Dense(W, recipe), Book(W, recipe)
    for _ in range(30):
        network.advance()
        book.advance()
    # a weight whose gradient has changed its sign by rounding moves by up to 2 rates; none is so close to 0 here
    np.testing.assert_allclose(network.W, book.W, atol=2e-5)


@pytest.mark.parametrize("seed", range(3))
def test_lists_of_live_weights_go_where_all_weights_do(monkeypatch, seed):
    """Both are followed from look to look, each time from where the list is.

    Where two weights of a feature are nearly as large, rounding decides in the long run which of them survives. In the
    25 steps between two looks it cannot.
    """
    monkeypatch.setattr(sparse_adamw, "_PAIR", 100)  # networks so small do not need lists
    n, m = 24, 48
    network = Dense(start(n, m, seed), RECIPE)
    while (live := network.live()) is None:
        for _ in range(LOOK):
            network.advance()
    few = Live(n, m, RECIPE)
    few.join(0, network, live)
    book = Book(network.W, RECIPE)
    book.first, book.second = 0.1 * network.first.astype(float), 0.001 * network.second.astype(float)
    worst = []
    for begin in range(network.step, RECIPE.steps, LOOK):
        book.step = begin
        few.look()
        for step in range(begin, begin + LOOK):
            few.advance(step + 1)
            book.advance()
        weights = np.zeros((n, m))
        weights[few.row, few.column] = few.w
        worst.append(np.abs(book.W - weights).max() / RECIPE.learning_rate)
        book.W = weights
        # a weight at rest has no momentum, and gradients of ±λ behind it
        book.first, book.second = np.zeros((n, m)), np.full((n, m), RECIPE.penalty**2)
        book.first[few.row, few.column], book.second[few.row, few.column] = 0.1 * few.first, 0.001 * few.second
    assert few.w.size < 2 * n
    # A weight that trembles about 0 does so by less than a rate, and shifts the others by about as much. One that grows
    # from 0 in between is late by as many rates as steps: that is rare, and few do so at full speed.
    assert np.quantile(worst, 0.5) < 0.01
    assert np.quantile(worst, 0.9) < 1.0
    assert max(worst) < 0.5 * LOOK


def test_the_gradient_of_a_list_is_that_of_the_matrix():
    rng = np.random.default_rng(1)
    n, m = 10, 7
    networks = []
    everybody = Live(n, m, RECIPE)
    for number in range(2):
        network = Dense(start(n, m, number), RECIPE)
        network.W *= 2.0
        live = rng.random((n, m)) < 0.4
        networks.append(np.where(live, network.W, 0.0).astype(float))
        everybody.join(number, network, live)
    everybody._list()
    found = everybody._products()
    for number, W in enumerate(networks):
        G = W @ W.T
        wanted = np.where(G > 0, G - np.eye(n), 0.0) @ W
        mine = everybody.row // n == number
        row, column = everybody.row[mine] % n, everybody.column[mine] % m
        np.testing.assert_allclose(found[mine], wanted[row, column], atol=1e-14)


def test_weights_wake_up_just_where_zero_is_no_resting_place():
    n, m = 6, 9
    W = np.where(np.random.default_rng(2).random((n, m)) < 0.4, start(n, m, 3) * 2.0, 0.0).astype(np.float32)
    G = W.astype(float) @ W.T.astype(float)
    force = 4.0 * np.where(G > 0, G - np.eye(n), 0.0) @ W
    recipe = Recipe(penalty=float(np.quantile(np.abs(force[W == 0]), 0.7)), steps=1, learning_rate=1e-9, weight_decay=0)
    everybody = Live(n, m, recipe)
    everybody.join(0, Dense(W, recipe), W != 0)
    everybody.look()
    awake = np.zeros((n, m), bool)
    awake[everybody.row, everybody.column] = True
    expected = (W != 0) | (np.abs(force) > recipe.penalty)
    assert expected.sum() > (W != 0).sum()
    np.testing.assert_array_equal(awake, expected)


ARGUMENTS = {"penalty": 0.01, "steps": 600, "learning_rate": 0.01, "rng": 5}


def test_a_sweep_counts_what_its_networks_have():
    found = collision_sweep(12, [16, 40], instances=5, **ARGUMENTS)
    assert repr(found) == "CollisionSweep(12 features, 16, 40 neurons, 5 instances each)"
    seed = found.settings["seed"]
    for width, collisions, correlation in zip((16, 40), found.collisions, found.correlation, strict=True):
        starts = [sweep.start_weights(12, width, number, seed) for number in range(5)]
        with one_blas_thread():  # as the sweep does: all the bits have to be the same
            ends = np.stack(train(starts, Recipe(0.01, 600, 0.01, 0.01)))
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
    (path / "network-8-0.npz").write_bytes(b"not a file of arrays")
    with pytest.raises(ValueError, match="not a checkpoint of a collision sweep"):
        collision_sweep(6, [8], checkpoint=path, **ARGUMENTS)
    (path / "mine.txt").touch()
    forget(path)
    assert [file.name for file in path.iterdir()] == ["mine.txt"]


def test_a_saved_sweep(tmp_path):
    found = collision_sweep(4, [6], instances=2, **ARGUMENTS)
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
