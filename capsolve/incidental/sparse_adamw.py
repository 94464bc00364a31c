"""AdamW with an L1 penalty on one-hot inputs, as published, at a fraction of its cost.

The loss of a network W, n features by m neurons, is Σ_i |ReLU(W w_i) - e_i|² + λ|W|₁. With G = W Wᵀ its gradient is
4 P W + λ sign W where P = ReLU(G) - I wherever G > 0 and 0 elsewhere: two matrix products, the first of them symmetric.

The penalty makes rows sparse. A weight that has come down to zero is not exactly zero under AdamW: its gradient is
±λ, and it trembles by a fraction of the learning rate. Nothing else depends on the trembling, so once few weights are
left it is not followed. From then on a network is the list of its *live* weights and of the pairs of live weights
that share a neuron, which is all that G - and the gradient of live weights - is made of. The others are zero, and from
time to time it is made sure that they would stay there: zero is where a weight rests while the rest of its gradient
is at most λ in size. Those for which it is more come back to life.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from capsolve._checks import BoolArray, FloatArray, IndexArray

Single = npt.NDArray[np.float32]

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8
"""AdamW's decay rates of the two moments, and what keeps it from dividing by zero."""

LOOK = 25  # steps between two looks at which weights are live
_PAIR = 7000  # multiplications of a dense step for each pair of live weights, at most, when the list takes over
_CHUNK = 2**15  # weights updated at once: what the cache next to a core holds, with their moments
_REST = 0.5  # a small weight goes to rest when the rest of its gradient is below this share of λ


@dataclass(frozen=True)
class AdamWConfig:
    """What AdamW is told."""

    penalty: float
    steps: int
    learning_rate: float
    weight_decay: float

    def pace(self, step: int) -> tuple[float, float]:
        """Return the factors of the sums of gradients and of the root of the sum of squares, after ``step`` steps."""
        first = self.learning_rate * (1.0 - FIRST) / (1.0 - FIRST**step)
        return first, math.sqrt((1.0 - SECOND) / (1.0 - SECOND**step))


class DenseNetwork:
    """One network, all weights."""

    def __init__(self, start: Single, recipe: AdamWConfig) -> None:
        self.recipe, self.step = recipe, 0
        self.W = start.copy()
        self.first, self.second, self._gradient = (np.zeros_like(start) for _ in range(3))
        self._rows = max(1, _CHUNK // start.shape[1])
        self._scratch = np.empty((self._rows, start.shape[1]), np.float32)

    def advance(self) -> None:
        """Take one step."""
        self.step += 1
        n = len(self.W)
        P = self.W @ self.W.T
        np.maximum(P, 0.0, out=P)
        P.ravel()[:: n + 1] -= 1.0
        P *= 4.0
        np.matmul(P, self.W, out=self._gradient)
        for row in range(0, n, self._rows):
            self._update(slice(row, row + self._rows))

    def _update(self, rows: slice) -> None:
        """Update some rows; the moments are kept as plain sums, their factors come in at the end."""
        W, g, first, second = self.W[rows], self._gradient[rows], self.first[rows], self.second[rows]
        t = self._scratch[: len(W)]
        recipe = self.recipe
        np.sign(W, out=t)
        t *= recipe.penalty
        g += t
        first *= FIRST
        first += g
        g *= g
        second *= SECOND
        second += g
        one, other = recipe.pace(self.step)
        np.sqrt(second, out=t)
        t *= other
        t += EPSILON
        np.divide(first, t, out=t)
        t *= one
        W *= 1.0 - recipe.learning_rate * recipe.weight_decay
        W -= t

    def live(self) -> BoolArray | None:
        """Return which weights are live if they are few enough to be followed as a list."""
        live = np.abs(self.W) > self.recipe.learning_rate
        n, m = live.shape
        count = np.count_nonzero(live, axis=0).astype(np.float64)
        return live if (count * (count - 1.0)).sum() / 2.0 * _PAIR <= n * n * m else None


class SparseNetwork:
    """Several networks of one size, as the list of their live weights.

    Networks are laid side by side: feature i of network b is row b n + i, neuron k column b m + k.
    """

    def __init__(self, features: int, neurons: int, recipe: AdamWConfig) -> None:
        self.n, self.m, self.recipe = features, neurons, recipe
        self.row = self.column = np.zeros(0, np.intp)
        self.w = self.first = self.second = np.zeros(0)
        self.networks = 0

    def join(self, number: int, network: DenseNetwork, live: BoolArray) -> None:
        """Take in a network; call `look` before the next step."""
        row, column = np.nonzero(live)
        self.row = np.concatenate([self.row, row + number * self.n])
        self.column = np.concatenate([self.column, column + number * self.m])
        self.w = np.concatenate([self.w, network.W[live]])
        self.first = np.concatenate([self.first, network.first[live]])
        self.second = np.concatenate([self.second, network.second[live]])
        self.networks = max(self.networks, number + 1)

    def look(self) -> None:
        """Let weights go to rest or come back to life, and list the pairs that share a neuron."""
        self._list()
        if self.w.size:
            self._deactivate()
            self._activate()
            self._list()

    def advance(self, step: int) -> None:
        """Take the step of the given number, counted from 1."""
        w, recipe = self.w, self.recipe
        g = 4.0 * self._products()
        g += recipe.penalty * np.sign(w)
        self.first = FIRST * self.first + g
        self.second = SECOND * self.second + g * g
        one, other = recipe.pace(step)
        move = one * self.first / (other * np.sqrt(self.second) + EPSILON)
        self.w = (1.0 - recipe.learning_rate * recipe.weight_decay) * w - move

    def network(self, number: int) -> tuple[IndexArray, IndexArray, FloatArray]:
        """Return feature, neuron and size of the live weights of a network."""
        mine = self.row // self.n == number
        return self.row[mine] % self.n, self.column[mine] % self.m, self.w[mine]

    def _list(self) -> None:
        """Sort by neuron and list the pairs of weights on one neuron, and which entry of G each is part of."""
        order = np.lexsort((self.row, self.column))
        self.row, self.column = self.row[order], self.column[order]
        self.w, self.first, self.second = self.w[order], self.first[order], self.second[order]
        firsts, seconds, apart = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)], 1
        while True:
            close = np.flatnonzero(self.column[apart:] == self.column[:-apart]) if apart < self.column.size else ()
            if not len(close):
                break
            firsts.append(np.asarray(close))
            seconds.append(firsts[-1] + apart)
            apart += 1
        self._one, self._other = np.concatenate(firsts), np.concatenate(seconds)
        size = self.networks * self.n
        entry, self._entry = np.unique(self.row[self._one] * size + self.row[self._other], return_inverse=True)
        self._pair = np.divmod(entry, max(size, 1))

    def _gram(self) -> tuple[FloatArray, FloatArray]:
        """Return P on its diagonal, and at the pairs of rows that share a neuron."""
        w, size = self.w, self.networks * self.n
        square = _sums(self.row, w * w, size)
        products = _sums(self._entry, w[self._one] * w[self._other], len(self._pair[0]))
        return square - 1.0, np.maximum(products, 0.0)

    def _products(self) -> FloatArray:
        """Return P W at the live weights."""
        w = self.w
        diagonal, pairs = self._gram()
        found: FloatArray = diagonal[self.row] * w
        between = pairs[self._entry]
        acts = np.flatnonzero(between)
        one, other, between = self._one[acts], self._other[acts], between[acts]
        for mine, its in ((one, other), (other, one)):
            found += _sums(mine, between * w[its], w.size)
        return found

    def _deactivate(self) -> None:
        small = np.abs(self.w) <= self.recipe.learning_rate
        calm = np.abs(4.0 * self._products()) <= _REST * self.recipe.penalty
        awake = ~(small & calm)
        self.row, self.column = self.row[awake], self.column[awake]
        self.w, self.first, self.second = self.w[awake], self.first[awake], self.second[awake]
        self._list()

    def _activate(self) -> None:
        """Add the weights at rest whose gradient without the penalty exceeds λ."""
        size = self.networks * self.n
        _, pairs = self._gram()
        acts = np.flatnonzero(pairs)
        i, j = self._pair[0][acts], self._pair[1][acts]
        both = (np.concatenate([pairs[acts]] * 2), (np.concatenate([i, j]), np.concatenate([j, i])))
        width = self.networks * self.m
        W = sparse.csr_array((self.w, (self.row, self.column)), shape=(size, width))
        force = (sparse.csr_array(both, shape=(size, size)) @ W).tocoo()
        strong = np.abs(4.0 * force.data) > self.recipe.penalty
        row, column = (np.asarray(c[strong], np.intp) for c in force.coords)
        new = ~np.isin(row * width + column, self.row * width + self.column)
        count = np.count_nonzero(new)
        self.row, self.column = np.concatenate([self.row, row[new]]), np.concatenate([self.column, column[new]])
        self.w, self.first = np.concatenate([self.w, np.zeros(count)]), np.concatenate([self.first, np.zeros(count)])
        resting = self.recipe.penalty**2 / (1.0 - SECOND)  # the sum of squares of gradients ±λ
        self.second = np.concatenate([self.second, np.full(count, resting)])


def _sums(index: IndexArray, values: FloatArray, size: int) -> FloatArray:
    """Return the sums of the values that share an index, shape (size,)."""
    return np.bincount(index, values, minlength=size).astype(np.float64, copy=False)


def train(starts: Iterable[Single], recipe: AdamWConfig) -> list[Single]:
    """Train networks of one size; return their weights."""
    ends: list[Single] = []
    joining: dict[int, list[tuple[int, DenseNetwork, BoolArray]]] = {}
    for number, start in enumerate(starts):
        network, live = DenseNetwork(start, recipe), None
        while network.step < recipe.steps and live is None:
            network.advance()
            if network.step % LOOK == 0:
                live = network.live()
        ends.append(network.W)
        if live is not None:
            joining.setdefault(network.step, []).append((number, network, live))
    if joining:
        _follow(joining, ends, recipe)
    return ends


def _follow(
    joining: dict[int, list[tuple[int, DenseNetwork, BoolArray]]], ends: list[Single], recipe: AdamWConfig
) -> None:
    """Train on as lists the networks that come in at the steps they are listed under; write down how they end."""
    n, m = ends[0].shape
    everybody = SparseNetwork(n, m, recipe)
    for step in range(min(joining), recipe.steps):
        if step % LOOK == 0:
            for arrival in joining.get(step, ()):
                everybody.join(*arrival)
            everybody.look()
        everybody.advance(step + 1)
    everybody.look()
    for number in (arrival[0] for arrivals in joining.values() for arrival in arrivals):
        feature, neuron, weight = everybody.network(number)
        ends[number][...] = 0.0
        ends[number][feature, neuron] = weight
