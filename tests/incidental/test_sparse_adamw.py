"""AdamW on lists of live weights: against AdamW written plainly, all weights, in double precision."""

import numpy as np
import pytest

from capsolve.incidental import sparse_adamw
from capsolve.incidental.sparse_adamw import LOOK, AdamWConfig, DenseNetwork, SparseNetwork

RECIPE = AdamWConfig(penalty=4e-3, steps=4000, learning_rate=4e-3, weight_decay=0.01)


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
    W, recipe = start(16, 24, 0), AdamWConfig(1e-3, 30, 1e-3, 0.01)
    network, book = DenseNetwork(W, recipe), Book(W, recipe)
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
    network = DenseNetwork(start(n, m, seed), RECIPE)
    while (live := network.live()) is None:
        for _ in range(LOOK):
            network.advance()
    few = SparseNetwork(n, m, RECIPE)
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
    everybody = SparseNetwork(n, m, RECIPE)
    for number in range(2):
        network = DenseNetwork(start(n, m, number), RECIPE)
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
    recipe = AdamWConfig(
        penalty=float(np.quantile(np.abs(force[W == 0]), 0.7)), steps=1, learning_rate=1e-9, weight_decay=0
    )
    everybody = SparseNetwork(n, m, recipe)
    everybody.join(0, DenseNetwork(W, recipe), W != 0)
    everybody.look()
    awake = np.zeros((n, m), bool)
    awake[everybody.row, everybody.column] = True
    expected = (W != 0) | (np.abs(force) > recipe.penalty)
    assert expected.sum() > (W != 0).sum()
    np.testing.assert_array_equal(awake, expected)
