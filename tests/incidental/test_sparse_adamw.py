"""AdamW on lists of live weights: against AdamW written plainly, all weights, in double precision."""

import numpy as np

from capsolve.incidental import sparse_adamw
from capsolve.incidental.sparse_adamw import Dense, Live, Recipe, train

RECIPE = Recipe(penalty=4e-3, steps=4000, learning_rate=4e-3, weight_decay=0.01)


def plainly(start, recipe):
    """Train by AdamW with all weights, in double precision, by the book."""
    W = start.astype(float)
    first, second = np.zeros_like(W), np.zeros_like(W)
    for step in range(1, recipe.steps + 1):
        G = W @ W.T
        gradient = 4.0 * np.where(G > 0, G - np.eye(len(W)), 0.0) @ W + recipe.penalty * np.sign(W)
        W -= recipe.learning_rate * recipe.weight_decay * W
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        size = np.sqrt(second / (1 - 0.999**step)) + 1e-8
        W -= recipe.learning_rate * first / (1 - 0.9**step) / size
    return W


def start(n, m, seed):
    return (np.random.default_rng(seed).normal(size=(n, m)) / np.sqrt(m)).astype(np.float32)


def test_the_first_steps_are_those_of_the_book():
    W, recipe = start(16, 24, 0), Recipe(1e-3, 30, 1e-3, 0.01)
    network = Dense(W, recipe)
    for _ in range(30):
        network.advance()
    # a weight whose gradient has changed its sign by rounding moves by up to 2 rates; none is so close to 0 here
    np.testing.assert_allclose(network.W, plainly(W, recipe), atol=2e-5)


def test_lists_of_live_weights_end_where_all_weights_do(monkeypatch):
    monkeypatch.setattr(sparse_adamw, "_PAIR", 100)  # networks so small do not need lists
    starts = [start(24, 48, seed) for seed in range(3)]
    ends = train(starts, RECIPE)
    assert sum(np.count_nonzero(end) for end in ends) < 3 * 24 * 2  # they did take over
    for end, begin in zip(ends, starts, strict=True):
        book = plainly(begin, RECIPE)
        large = np.abs(book) > 0.5
        np.testing.assert_array_equal(np.abs(end) > 0.5, large)
        # weights near 0 tremble by less than a rate, which shifts the others by about as much
        np.testing.assert_allclose(end, book, atol=RECIPE.learning_rate)


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
