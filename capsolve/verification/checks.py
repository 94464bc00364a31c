"""Independent routes to the least loss of one problem, each held against the closed form."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from capsolve._checks import FloatArray, flag, former_function, whole
from capsolve.allocation import Allocation, certify, named, solve
from capsolve.certificate import Status
from capsolve.geometry.capacities import capacities
from capsolve.geometry.loss import embedding_loss, sampled_loss
from capsolve.losses.quadratic import QuadraticLoss
from capsolve.profile import problem_of
from capsolve.simulate.embeddings import optimise_embedding
from capsolve.verification.independent import convex_programme, exhaustive, loss_at_zero
from capsolve.verification.report import Check, Verdict, Verification

# Above these a route would take minutes, or more memory than a laptop has.
LARGEST_PROGRAMME = 10_000  # features
LARGEST_SEARCH = 100  # features
LARGEST_EMBEDDING = 2**26  # features × dimensions, constructed
LARGEST_DESCENT = 2_500  # features × dimensions, optimised
LARGEST_SAMPLE = 2**26  # random numbers

_ROUNDING = 1e-14  # of the loss at W = 0: what the sums of a loss, and a descent on it, may leave
_DESCENT = 1e-9  # relative: what is asked of an optimised embedding
_TOGETHER = 50.0  # samples in which the two rarest represented features are both active
_STANDARD_ERRORS = 5.0
_STARTS = (16, 64, 256)  # while none of them reaches the optimum

_RANDOM = 3  # problems of each random kind in the suite
_CELLS = ((0.9, 0.5), (0.9, 2.0), (0.3, 1.0), (0.1, 0.15), (0.1, 1.0), (0.1, 2.5), (0.01, 2.0))


def verify(
    importance: Any,
    kurtosis: Any = None,
    dimensions: Any = None,
    *,
    bias: bool = True,
    capacity: Any = None,
    samples: int = 200_000,
    rng: Any = None,
    title: str | None = None,
    progress: bool = False,
) -> Verification:
    """Hold the allocation of `capsolve.solve` against every other route to the least loss.

    The loss of the allocation, min L(C) subject to Σ C_i ≤ D and 0 ≤ C_i ≤ 1, is compared with

    * its certified lower bound;
    * a generic convex solver, CVXPY with Clarabel, that minimises over squared norms and capacities together. Features
      with κ_i < 3 enter it with their convex envelope: then its value must not exceed the loss;
    * with some κ_i < 3, a search over which of those features are full and which one is fractional;
    * `embedding_loss` and `capacities` of the constructed embedding;
    * an embedding found by descent on the exact loss from random starts (`capsolve.simulate.optimise_embedding`): at
      first 16, then 64 and 256 while none reaches the optimum. Its capacities are compared where all κ_i > 3, for then
      those of the features with v_i > 0 are unique;
    * the mean squared error of the sampled quadratic model, on inputs that are 0 or ±√κ_i.

    Parameters
    ----------
    importance, kurtosis, dimensions, bias
        As for `capsolve.solve`, a profile included: ``verify(profile, dimensions=16)``.
    capacity : array_like, shape (n,), optional
        Capacities to be judged in place of the solver's.
    samples : int
        The number of inputs of the Monte-Carlo estimate.
    rng : numpy.random.Generator or seed
        The source of starts and inputs; the same seed gives the same report.
    title : str, optional
        What the report calls the problem.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    Verification
        One `Check` per route with value, difference, tolerance and verdict. A route that cannot be taken (an embedding
        in 2.5 dimensions, a descent in too many variables, inputs too rare to be sampled) is there, as skipped, with
        the reason. A descent that ends above the optimum where some κ_i < 3 is inconclusive, not a disagreement.

    Raises
    ------
    ValueError
        For bad arguments, or losses that float64 cannot hold.

    Notes
    -----
    Tolerances: of the convex programme ten times the gap and the infeasibility that Clarabel keeps, 1e-11 or 1e-9 of
    the loss at C = 0 each, the latter at the price of the budget; of the search 1e-9, its refined grid being
    within 1e-12; of the constructed embedding 1e-12 of L + λD, to which its budget holds; of the descent 1e-9; all plus
    1e-14 of the loss at W = 0 for rounding. Where losses are strictly convex, L(C) − L* ≥ ½ Σ μ_i (C_i − C_i*)² with
    μ_i = v_i²(κ_i−1)²γ_i/(1+γ_i)³, the smallest second derivative of f_i: the tolerance of the optimised capacities is
    what this allows for the measured excess of the loss and its rounding. Monte Carlo: five standard errors.

    Examples
    --------
    >>> import capsolve
    >>> report = capsolve.verify([2, 1, 1, 1, 1, 1], 9.0, 3, samples=20_000, rng=0)
    >>> report
    Verification('6 features in 3 dimensions', AGREE: 7 agree)
    >>> wrong = capsolve.verify([2, 1, 1, 1, 1, 1], 9.0, 3, capacity=[0.5] * 6, samples=20_000, rng=0)
    >>> wrong.verdict
    <Verdict.DISAGREE: 'disagree'>

    References
    ----------
    arXiv 2210.01892, sections 3-4.
    """
    importance, kurtosis, names = problem_of(importance, kurtosis, dimensions)
    model = QuadraticLoss(importance, kurtosis, bias).to_numpy()
    count = whole("samples", samples, low=2)
    zero = loss_at_zero(model.importance, model.kurtosis, bias)
    if not math.isfinite(zero):
        raise ValueError(
            "importance and kurtosis must have a loss below 1.8e308; divide importances by a common factor"
        )
    if capacity is None:
        allocation = solve(model.importance, model.kurtosis, dimensions, bias=bias)
    else:
        allocation = certify(model, dimensions, capacity)
    allocation = named(allocation, names)
    show = flag("progress", progress)
    routes = _Routes(model, allocation, zero, np.random.default_rng(rng), count, show)
    name = title or f"{model.features} features in {allocation.dimensions:g} dimensions{'' if bias else ', no bias'}"
    checks = tqdm(routes.all(), disable=not show, unit="check", leave=False)
    return Verification(name, allocation, tuple(checks))


def verify_suite(*, rng: Any = None, progress: bool = False) -> list[Verification]:
    """Run `verify` on random problems of every kind, and on cells of the paper's phase diagram.

    Three problems each with all κ_i > 3, with mixed kurtosis, with all κ_i < 3 and without a bias, of 4 to 12 features
    with importances in [0.1, 10]; then cells of Fig. 4: six features in three dimensions, one of importance V and five
    of 1, inputs uniform but zero with probability 1 − p.

    Parameters
    ----------
    rng : numpy.random.Generator or seed
        The source of problems, starts and inputs.
    progress : bool
        Show a progress bar on standard error.

    Examples
    --------
    >>> from capsolve import verify_suite
    >>> [report.title for report in verify_suite() if report.verdict.value != "agree"]  # doctest: +SKIP
    []
    """
    generator = np.random.default_rng(rng)
    problems = [*_random(generator), *_figure_4()]
    bar = tqdm(problems, disable=not progress, unit="problem")
    return [verify(v, k, D, bias=bias, rng=generator, title=title) for title, v, k, D, bias in bar]


def _random(rng: np.random.Generator) -> Iterator[tuple[str, Any, Any, int, bool]]:
    for kind in ("convex", "mixed kurtosis", "low kurtosis", "no bias"):
        for number in range(1, _RANDOM + 1):
            n = int(rng.integers(4, 13))
            v = 10.0 ** rng.uniform(-1.0, 1.0, n)
            k = 3.0 + 10.0 ** rng.uniform(-1.0, 1.7, n)
            if kind in ("mixed kurtosis", "low kurtosis"):
                low = rng.uniform(1.0, 3.0, n)
                k = low if kind == "low kurtosis" else np.where(rng.random(n) < 0.5, low, k)
            D = int(rng.integers(1, n))
            yield f"{kind} {number}: {n} features in {D} dimensions", v, k, D, kind != "no bias"


def _figure_4() -> Iterator[tuple[str, Any, Any, int, bool]]:
    for density, odd in _CELLS:
        v = np.array([odd, 1.0, 1.0, 1.0, 1.0, 1.0])
        yield f"Fig. 4: density {density:g}, importance {odd:g}", v, 1.8 / density, 3, True


@dataclass(frozen=True)
class _Routes:
    """The routes to one problem."""

    model: QuadraticLoss
    allocation: Allocation
    zero: float  # the loss of nothing
    rng: np.random.Generator
    samples: int
    progress: bool

    def all(self) -> Iterator[Check]:
        yield self.certificate()
        yield self.programme()
        if not self.model.convex:
            yield self.search()
        yield from self.constructed()
        yield from self.optimised()
        yield self.sampled()

    # ------------------------------------------------------------------------------------------ capacities alone

    def certificate(self) -> Check:
        """Return what the allocation says of itself."""
        a = self.allocation
        verdict = Verdict.AGREE if a.status is Status.OPTIMAL else Verdict.DISAGREE
        note = f"status {a.status.value}, KKT error {a.kkt_error:.0e}"
        return self._check("closed form, lower bound", "loss", a.lower_bound, a.tolerance * self._size(), note, verdict)

    def programme(self) -> Check:
        route, n = "generic convex solver (CVXPY)", self.model.features
        if n > LARGEST_PROGRAMME:
            return _skipped(route, "loss", f"{n} features > {LARGEST_PROGRAMME}")
        try:
            value, kept = convex_programme(*self._data(), self.allocation.dimensions, self.model.bias)
        except ValueError as error:
            return _skipped(route, "loss", error)
        tolerance = 10 * kept * (self.zero + self._size()) + self._rounding()
        if self.model.convex:
            return self._check(route, "loss", value, tolerance)
        # Below the loss wherever the budget ends inside a feature with κ < 3.
        verdict = Verdict.AGREE if value <= self.allocation.loss + tolerance else Verdict.DISAGREE
        return self._check(route, "loss", value, tolerance, "a lower bound, from convex envelopes", verdict)

    def search(self) -> Check:
        route, n = "search over concave features", self.model.features
        if n > LARGEST_SEARCH:
            return _skipped(route, "loss", f"{n} features > {LARGEST_SEARCH}")
        return self._check(route, "loss", exhaustive(*self._data(), self.allocation.dimensions), self._relative(1e-9))

    # ------------------------------------------------------------------------------------------------ embeddings

    @functools.cached_property
    def embedding(self) -> FloatArray | str:
        """The constructed embedding, or why there is none."""
        if reason := self._obstacle(LARGEST_EMBEDDING):
            return reason
        try:
            return self.allocation.embedding()
        except ValueError as error:  # only capacities that are no optimum can be impossible
            return str(error)

    def constructed(self) -> Iterator[Check]:
        route, W = "constructed embedding", self.embedding
        if isinstance(W, str):
            verdict = Verdict.SKIPPED if self._obstacle(LARGEST_EMBEDDING) else Verdict.DISAGREE
            yield Check(route, "loss", None, None, None, verdict, W)
            yield Check(route, "capacity", None, None, None, verdict, W)
            return
        loss = embedding_loss(W, *self._data(), self.model.bias)
        yield self._check(route, "loss", loss, 1e-12 * self._size() + self._rounding())
        off = float(np.abs(np.asarray(capacities(W)) - self.allocation.capacity).max())
        yield _beside(route, "capacity", off, 0.0, 1e-9, "the largest deviation")

    def optimised(self) -> Iterator[Check]:
        route, D = "optimised embedding", self.allocation.dimensions
        if reason := self._obstacle(LARGEST_DESCENT):
            yield _skipped(route, "loss", reason)
            yield _skipped(route, "capacity", reason)
            return
        tolerance = self._relative(_DESCENT)
        for starts in _STARTS:
            found = optimise_embedding(
                *self._data(), int(D), bias=self.model.bias, restarts=starts, rng=self.rng, progress=self.progress
            )
            if found.loss <= self.allocation.loss + tolerance:
                break
        above = found.loss - self.allocation.loss
        if above > tolerance and not self.model.convex:
            note = (
                f"the best of {starts} starts is {above / self.allocation.loss:.2g} above, relatively: a local optimum"
            )
            yield self._check(route, "loss", found.loss, tolerance, note, Verdict.INCONCLUSIVE)
        else:
            yield self._check(route, "loss", found.loss, tolerance, f"{found.agreeing} of {starts} starts end here")
        wanted = self.model.importance > 0.0
        modulus = self._modulus()[wanted]
        if not (modulus.size and modulus.all()):
            yield _skipped(route, "capacity", "with kurtosis <= 3, or importance 0 only, there may be several optima")
            return
        excess = max(above, 0.0) + self._rounding()
        deviation = np.abs(found.capacity - self.allocation.capacity)[wanted]
        allowed = np.sqrt(2.0 * excess / modulus)
        worst = int(np.argmax(deviation / allowed))
        note = f"feature {np.flatnonzero(wanted)[worst]}, the worst beside its tolerance"
        yield _beside(route, "capacity", float(deviation[worst]), 0.0, float(allowed[worst]), note)

    def sampled(self) -> Check:
        route, W = "sampled model (Monte Carlo)", self.embedding
        if isinstance(W, str):
            return _skipped(route, "loss", "no constructed embedding")
        if (size := self.samples * self.model.features) > LARGEST_SAMPLE:
            return _skipped(route, "loss", f"{size} random numbers > {LARGEST_SAMPLE}")
        rare = np.sort(self.model.kurtosis[self.allocation.capacity > 0.0])[-2:].prod()
        if (together := self.samples / rare) < _TOGETHER:
            return _skipped(route, "loss", f"the two rarest features meet in {together:.2g} samples < {_TOGETHER:.0f}")
        mean, error = sampled_loss(W, *self._data(), self.model.bias, samples=self.samples, rng=self.rng)
        note = f"{_STANDARD_ERRORS:.0f} standard errors of {self.samples} samples"
        return self._check(route, "loss", mean, _STANDARD_ERRORS * error + self._rounding(), note)

    # ----------------------------------------------------------------------------------------- what they compare

    def _obstacle(self, largest: int) -> str:
        """Return why there can be no embedding with that many entries, or nothing."""
        D = self.allocation.dimensions
        if not (D.is_integer() and D >= 1):
            return f"no embedding has {D:g} dimensions"
        size = int(self.model.features * D)
        return f"{size} entries > {largest}" if size > largest else ""

    def _data(self) -> tuple[FloatArray, FloatArray]:
        return self.model.importance, self.model.kurtosis

    def _size(self) -> float:
        """Return L + λD, what capacities that are off by a relative error are off by in the loss."""
        allocation = self.allocation
        return allocation.loss + allocation.price * min(allocation.dimensions, self.model.saturation_budget)

    def _rounding(self) -> float:
        return _ROUNDING * self.zero

    def _relative(self, tolerance: float) -> float:
        return tolerance * self.allocation.loss + self._rounding()

    def _modulus(self) -> FloatArray:
        """Return the least second derivative of every f_i, 0 where it is not strictly convex."""
        v, k = self._data()
        gamma = np.maximum((k - 3.0) / 2.0, 0.0)
        modulus: FloatArray = v**2 * (k - 1.0) ** 2 * gamma / (1.0 + gamma) ** 3
        return modulus

    def _check(
        self,
        route: str,
        quantity: str,
        value: float,
        tolerance: float,
        note: str = "",
        verdict: Verdict | None = None,
    ) -> Check:
        return _beside(route, quantity, value, self.allocation.loss, tolerance, note, verdict)


def _beside(
    route: str,
    quantity: str,
    value: float,
    expected: float,
    tolerance: float,
    note: str = "",
    verdict: Verdict | None = None,
) -> Check:
    if verdict is None:
        verdict = Verdict.AGREE if abs(value - expected) <= tolerance else Verdict.DISAGREE
    return Check(route, quantity, value, expected, tolerance, verdict, note)


def _skipped(route: str, quantity: str, reason: object) -> Check:
    return Check(route, quantity, None, None, None, Verdict.SKIPPED, str(reason))


verify_battery = former_function("verify_battery", verify_suite)
