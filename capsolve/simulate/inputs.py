"""Sparse random inputs: what they are, how to draw them, and points that integrate over them.

Most inputs of a sparse feature are zero, and plain samples waste themselves on them. Here the expectation is instead
stratified over the number k of active features: the probability of every k is exact (binomial), the point k = 0 is
exact, k = 1 is integrated by a Gauss rule, and the values in the other strata are quasi-random (scrambled Sobol
points) on every set of k features, or on balanced random sets where there are too many. The points are fixed, so an
objective made of them is deterministic, and a density of 0.001 costs no more than one of 1.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from capsolve._checks import FloatArray, scalar

DISTRIBUTIONS = ("uniform", "gaussian", "laplace")
PAIRS = (None, "correlated", "anticorrelated")

_NODES = 8  # of the Gauss rule on either side of zero
_NEGLIGIBLE = 1e-4  # share of Σ_{k ≥ 2} P(k) k² that strata may be dropped with
_ENDS = {"gaussian": 12.0, "laplace": 40.0}  # beyond which less than 1e-23 of the fourth moment lies


@dataclass(frozen=True)
class Inputs:
    """The distribution of the inputs x_i where they are not zero, and how features depend on each other.

    Parameters
    ----------
    distribution : {"uniform", "gaussian", "laplace"}
        Of an active feature: uniform on [low, 1], or Gaussian or Laplace with mean 0 and variance 1.
    low : float
        The lower end of the uniform distribution, in [-1, 1): -1 for the theory's symmetric inputs, 0 for the inputs
        of Elhage et al. (2022). The other distributions do not use it.
    pairs : {None, "correlated", "anticorrelated"}
        None for independent features. Otherwise features 0 and 1, 2 and 3, … are pairs whose members are active
        together or never together; the values of active features are independent in any case, and every feature is
        active with the same probability, the density.

    Raises
    ------
    ValueError
        For an unknown distribution or pairing, or ``low`` outside its range.

    Examples
    --------
    >>> Inputs("laplace").kurtosis(0.1)
    60.0
    >>> points, weights = Inputs().points(features=6, density=0.01, count=1024)
    >>> round(float(weights @ points[:, 0] ** 2), 5)  # p/3
    0.00333
    """

    distribution: str = "uniform"
    low: float = -1.0
    pairs: str | None = None

    def __post_init__(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(f"distribution must be one of {', '.join(DISTRIBUTIONS)}, got {self.distribution!r}")
        if self.pairs not in PAIRS:
            raise ValueError(f"pairs must be None, 'correlated' or 'anticorrelated', got {self.pairs!r}")
        low = scalar("low", self.low, low=-1.0)
        if low >= 1:
            raise ValueError(f"low must be in [-1, 1), got {low!r}")
        object.__setattr__(self, "low", low)

    @property
    def symmetric(self) -> bool:
        """Whether x and -x have the same distribution."""
        return self.distribution != "uniform" or self.low == -1

    def variance(self, density: float) -> float:
        """Return the variance of a feature that is active with probability ``density``."""
        p = scalar("density", density, low=0.0, high=1.0)
        values, weights = rule(self)
        return float(p * (weights @ values**2) - (p * (weights @ values)) ** 2)

    def kurtosis(self, density: float) -> float:
        """Return Pearson's kurtosis E x⁴ / (E x²)² at this density: 9/(5p) uniform, 3/p Gaussian, 6/p Laplace.

        Raises `ValueError` for inputs whose mean is not zero and for densities outside (0, 1].
        """
        if not self.symmetric:
            raise ValueError(
                f"the kurtosis of the theory is that of inputs with mean 0: low must be -1, got {self.low}"
            )
        return {"uniform": 9 / 5, "gaussian": 3.0, "laplace": 6.0}[self.distribution] / _density(density)

    def quantile(self, u: FloatArray) -> FloatArray:
        """Return the values of an active feature that lie above a fraction ``u`` of the distribution."""
        if self.distribution == "uniform":
            return self.low + (1 - self.low) * u
        if self.distribution == "gaussian":
            return np.asarray(special.ndtri(u), dtype=np.float64)
        tail = np.minimum(u, 1 - u)
        return np.asarray(np.sign(u - 0.5) * -np.log(2 * tail) / math.sqrt(2), dtype=np.float64)

    def strata(self, features: int, density: float) -> FloatArray:
        """Return the probabilities of k = 0, 1, … active features, or active pairs if features come in pairs.

        Shape (units + 1,), the units being the features or the pairs. The sum is 1 up to rounding.
        """
        from scipy.stats import binom  # noqa: PLC0415  # heavy

        units, probability = self._units(features, _density(density))
        return np.asarray(binom.pmf(np.arange(units + 1), units, probability), dtype=np.float64)

    def points(
        self, features: int, density: float, count: int, *, mirror: bool = True, rng: Any = None
    ) -> tuple[FloatArray, FloatArray]:
        """Return fixed points and weights that integrate functions of the inputs.

        Every stratum gets points in proportion to P(k) k², about, in powers of two; none gets fewer than one per set of
        active features, or 16 where those sets are a sample. Strata that carry less than 1e-4 of Σ_{k≥2} P(k) k²
        together are left out and the others' weights scaled up: k² is what a squared error grows like.

        Parameters
        ----------
        features : int
            n ≥ 1, even for pairs.
        density : float
            The probability p that a feature is active, in (0, 1]; at most ½ for anticorrelated pairs.
        count : int
            The number of points; some of weight 0 may fill up.
        mirror : bool
            Use every x together with -x, where inputs are symmetric. No use for even functions.
        rng : numpy.random.Generator or seed, optional
            Scrambles the Sobol points.

        Returns
        -------
        points : ndarray, shape (count, n)
        weights : ndarray, shape (count,)
            Nonnegative, with sum 1.

        Raises
        ------
        ValueError
            For arguments outside their range, or a count that is too small for the strata; it says which would do.
        """
        generator = np.random.default_rng(rng)
        probability = self.strata(features, density)
        mass = probability * np.arange(probability.size) ** 2.0
        kept = _kept(mass)
        mirror = mirror and self.symmetric
        strata = [_Stratum(self, features, int(k), count // 4, mirror) for k in kept]
        sizes = _shares(strata, mass[kept], count)
        points, weights = np.zeros((count, features)), np.zeros(count)
        start = 0
        for stratum, size, share in zip(strata, sizes, probability[kept] / probability[kept].sum(), strict=True):
            x, w = stratum.points(size, generator)
            points[start : start + size] = x
            weights[start : start + size] = share * w
            start += size
        return points, weights

    def _units(self, features: int, density: float) -> tuple[int, float]:
        if self.pairs is None:
            return features, density
        if features % 2:
            raise ValueError(f"{self.pairs} pairs need an even number of features, got {features}")
        if self.pairs == "correlated":
            return features // 2, density
        if density > 0.5:
            raise ValueError(f"density must be in (0, 0.5] for anticorrelated pairs, got {density!r}")
        return features // 2, 2 * density


@functools.cache
def rule(inputs: Inputs) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights for one active feature: a Gauss rule on either side of zero.

    Exact for functions that are polynomials of degree up to 2 · 8 - 1 on each side.
    """
    if inputs.distribution == "uniform":
        sides = [(max(inputs.low, 0.0), 1.0)] + [(inputs.low, 0.0)] * (inputs.low < 0)
        rules = [_gauss(a, b, np.ones_like) for a, b in sides]
        return np.concatenate([x for x, _ in rules]), np.concatenate([w for _, w in rules]) / (1 - inputs.low)
    end = _ENDS[inputs.distribution]
    if inputs.distribution == "gaussian":
        x, w = _gauss(0.0, end, lambda x: np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))
    else:
        x, w = _gauss(0.0, end, lambda x: np.exp(-math.sqrt(2) * x) / math.sqrt(2))
    return np.concatenate([x, -x]), np.concatenate([w, w])


class _Stratum:
    """The inputs with k active units."""

    def __init__(self, inputs: Inputs, features: int, k: int, limit: int, mirror: bool) -> None:
        self.inputs, self.features, self.k = inputs, features, k
        self.active = 2 * k if inputs.pairs == "correlated" else k
        units = features if inputs.pairs is None else features // 2
        cases = math.comb(units, k) * (2**k if inputs.pairs == "anticorrelated" else 1)
        self.cases = cases if cases <= max(limit, 1) else 0  # 0: too many to go through
        nodes = rule(inputs)[0].size
        self.fixed = 0  # the number of points, where it is not free
        if k == 0:
            self.fixed = 1
        elif self.active == 1 and self.cases * nodes <= 2 * limit:
            self.fixed = self.cases * nodes
        self.mirror = mirror and not self.fixed
        self.least = self.fixed or (self.cases or 16) * (2 if self.mirror else 1)

    def points(self, size: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return ``size`` points and their weights, which sum to 1."""
        from scipy.stats import qmc  # noqa: PLC0415  # heavy

        x = np.zeros((size, self.features))
        if self.k == 0:
            return x, np.ones(1)
        if self.fixed:
            nodes, weights = rule(self.inputs)
            sets = np.array(list(self._sets()))[:, 0]
            x[np.arange(size), np.repeat(sets, nodes.size)] = np.tile(nodes, sets.size)
            return x, np.tile(weights, sets.size) / sets.size
        half = size // 2 if self.mirror else size
        sobol = qmc.Sobol(self.active, seed=rng).random_base2(math.ceil(math.log2(half)))[:half]
        values = self.inputs.quantile(np.clip(sobol, 2.0**-33, 1 - 2.0**-33))
        sets = np.array(list(self._sets())) if self.cases else self._some_sets(half, rng)
        # consecutive runs of 2^j Sobol points are spread evenly by themselves
        x[np.arange(half)[:, None], np.repeat(sets, half // len(sets), axis=0)] = values
        # few points leave the second moment of each feature a little off, and the size of the loss with it
        nodes, weights = rule(self.inputs)
        times = np.count_nonzero(x, axis=0)
        x *= np.sqrt(np.where(times, times * (weights @ nodes**2) / np.maximum((x**2).sum(axis=0), 1e-300), 1.0))
        if self.mirror:
            x[half:] = -x[:half]
        return x, np.full(size, 1 / size)

    def _sets(self) -> Iterable[tuple[int, ...]]:
        if self.inputs.pairs is None:
            yield from itertools.combinations(range(self.features), self.k)
            return
        for units in itertools.combinations(range(self.features // 2), self.k):
            if self.inputs.pairs == "correlated":
                yield tuple(i for u in units for i in (2 * u, 2 * u + 1))
            else:
                for side in itertools.product((0, 1), repeat=self.k):
                    yield tuple(2 * u + s for u, s in zip(units, side, strict=True))

    def _some_sets(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
        """Return random sets in which every feature occurs as often as any other, or nearly so."""
        units, sides = (self.features, 1) if self.inputs.pairs is None else (self.features // 2, 2)
        used = np.zeros((units, sides))
        chosen = np.empty((count, self.k), dtype=np.intp)
        for row in chosen:
            order = used.sum(axis=1) + rng.random(units)
            row[:] = np.argsort(order)[: self.k]
            if self.inputs.pairs == "anticorrelated":
                side = np.argmin(used[row] + rng.random((self.k, 2)), axis=1)
                used[row, side] += 1
                row[:] = 2 * row + side
            else:
                used[row] += 1
        if self.inputs.pairs == "correlated":
            return np.stack([2 * chosen, 2 * chosen + 1], axis=-1).reshape(count, -1)
        return chosen


def _kept(mass: FloatArray) -> npt.NDArray[np.intp]:
    """Return the strata that are used: the fewest, so that the others have less than 1e-4 of the interference."""
    order = np.argsort(mass[1:]) + 1
    drop = np.cumsum(mass[order]) <= _NEGLIGIBLE * mass[2:].sum()
    kept = np.zeros(mass.size, dtype=bool)
    kept[order[~drop]] = True
    kept[0] = True
    return np.flatnonzero(kept)


def _shares(strata: list[_Stratum], mass: FloatArray, count: int) -> list[int]:
    """Return how many points each stratum gets: doubled where P(k) k² per point is largest, while they last."""
    sizes = [stratum.least for stratum in strata]
    if sum(sizes) > count:
        # the limit on the sets to go through grows with the count too: this many are enough in any case
        raise ValueError(f"points must be at least {sum(sizes)} for these features and density, got {count}")
    growing = [i for i, stratum in enumerate(strata) if not stratum.fixed]
    while growing:
        i = max(growing, key=lambda i: mass[i] / sizes[i])
        if sum(sizes) + sizes[i] <= count:
            sizes[i] *= 2
        else:
            growing.remove(i)
    return sizes


def _gauss(a: float, b: float, density: Any) -> tuple[FloatArray, FloatArray]:
    """Return the Gauss rule with 8 nodes for a density on [a, b], from a fine rule by Lanczos's recursion."""
    x, w = special.roots_legendre(400)
    x, w = a + (b - a) * (x + 1) / 2, w * (b - a) / 2
    w = w * density(x)
    total = w.sum()
    basis, last = np.sqrt(w / total), np.zeros_like(w)
    diagonal, beside = np.empty(_NODES), np.zeros(_NODES)
    for j in range(_NODES):
        diagonal[j] = basis @ (x * basis)
        following = (x - diagonal[j]) * basis - beside[j - 1] * last
        if j < _NODES - 1:
            beside[j] = np.linalg.norm(following)
            last, basis = basis, following / beside[j]
    jacobi = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    nodes, vectors = np.linalg.eigh(jacobi)
    return nodes, total * vectors[0] ** 2


def _density(density: Any) -> float:
    p = scalar("density", density, low=0.0, high=1.0)
    if p == 0:
        raise ValueError("density must be in (0, 1], got 0.0")
    return p
