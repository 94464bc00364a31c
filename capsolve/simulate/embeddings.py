"""Embeddings found by descent on the exact loss, from many starts: what the theory predicts, without its theory.

Nothing here knows about capacity, prices or frames. Each start is one run of SciPy's L-BFGS on the expected loss of
`capsolve.embedding_loss` and its gradient, ended by Newton steps on the gradient alone, which has digits left where the
loss has none.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg
from tqdm import tqdm

from capsolve._checks import FloatArray, at_least, flag, real_array, whole
from capsolve._processes import most_workers, worker_processes
from capsolve._threads import one_blas_thread
from capsolve.geometry.blocks import Block, blocks
from capsolve.geometry.capacities import capacities
from capsolve.geometry.loss import embedding_loss

_GRADIENT = 1e-9  # at which Newton's method takes over, relative to what `_Problem` scales it by
_SMALLEST, _LARGEST = 0.1, 1.0  # |w_i| at the start, relative to √v_i
_AGREE = 1e-9
_ROUNDING = 1e-15  # of the loss at W = 0: losses nearer to each other are the same
_NEWTON_STEPS = 60


@dataclass(frozen=True, eq=False, repr=False)
class OptimisedEmbedding:
    """The best embeddings found, one for each problem of a batch; "..." stands for the axes of the batch.

    Attributes
    ----------
    importance, kurtosis : (..., n) arrays
        The problems.
    bias : bool
        Whether the model has an output bias.
    embedding : (..., n, D) array
        The embedding with the least loss; of several that are the same to rounding, the first.
    losses : (..., restarts) array
        Where each start ended.
    residual : (...) array
        What is left of the gradient at the embedding: max |∂L/∂W| times √(max v) over the loss at W = 0.
    """

    importance: FloatArray
    kurtosis: FloatArray
    bias: bool
    embedding: FloatArray
    losses: FloatArray
    residual: FloatArray

    @property
    def loss(self) -> Any:
        """The least loss, shape (...): a float for a single problem."""
        least = self.losses.min(axis=-1)
        return least if least.ndim else float(least)

    @functools.cached_property
    def capacity(self) -> FloatArray:
        """The capacities of the features in `embedding`, shape (..., n)."""
        found: FloatArray = np.asarray(capacities(self.embedding))
        return found

    @property
    def agreeing(self) -> Any:
        """How many starts ended within 1e-9 of the best loss, relatively, shape (...).

        Where it is 1 more restarts might find something better.
        """
        least = self.losses.min(axis=-1, keepdims=True)
        rounding = _ROUNDING * _loss_at_zero(self.importance, self.kurtosis, self.bias)[..., None]
        count = (self.losses <= least * (1.0 + _AGREE) + rounding).sum(axis=-1)
        return count if count.ndim else int(count)

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The orthogonal blocks of the embedding of a single problem; see `capsolve.blocks`."""
        if self.embedding.ndim != 2:
            raise ValueError(
                f"blocks are those of a single problem, and this is a batch of shape {self.embedding.shape[:-2]}; "
                "use capsolve.blocks(embedding[index])"
            )
        return blocks(self.embedding)

    def __repr__(self) -> str:
        *batch, n, D = self.embedding.shape
        size = f"{math.prod(batch)} problems of " if batch else ""
        loss = f"loss={self.loss:.6g}, " if not batch else ""
        agreeing = self.agreeing if not batch else f"{self.agreeing.min()} or more"
        return (
            f"OptimisedEmbedding({size}{n} features in {D} dimensions: "
            f"{loss}{agreeing} of {self.losses.shape[-1]} starts agree)"
        )


def optimise_embedding(
    importance: Any,
    kurtosis: Any,
    dimensions: int,
    *,
    bias: bool = True,
    restarts: int = 16,
    rng: Any = None,
    workers: int = 1,
    progress: bool = False,
) -> OptimisedEmbedding:
    """Minimise the expected loss of the quadratic model over embeddings, from many random starts.

    Minimises `capsolve.embedding_loss` over W in R^(n × D), for each problem of a batch: with G = W Wᵀ and m_i = G_ii,
    Σ (κ_i−1)(v_i−m_i)² + 2 Σ_{i≠j} G_ij², and without a bias (Σ (v_i−m_i))² more. The loss is not convex in W. Where
    all κ_i ≥ 3 no descent has been seen to end above the global optimum; where some are smaller, several subsets of
    features are local optima, and `OptimisedEmbedding.agreeing` says how many starts found the best one.

    Parameters
    ----------
    importance : array_like, shape (..., n)
        v_i ≥ 0. Leading axes are a batch of problems.
    kurtosis : array_like, broadcastable to (..., n)
        κ_i ≥ 1, Pearson's. Its own leading axes count as batch axes too.
    dimensions : int
        D ≥ 1, the number of columns.
    bias : bool
        Whether the model has an output bias, at its optimum; without one, κ_i < 3 is allowed here too.
    restarts : int
        Random starts for each problem. Row i starts as a Gaussian vector of length about s √v_i, with s from 0.1 for
        the first start to 1 for the last.
    rng : numpy.random.Generator or seed, optional
        The starts are the same whatever ``workers`` is.
    workers : int
        Processes that share the starts. They are spawned, so a script needs ``if __name__ == "__main__":``; that costs
        about half a second and pays from a few thousand starts on.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    OptimisedEmbedding

    Raises
    ------
    ValueError
        For arguments of the wrong shape or range, naming them; for one, when ``dimensions`` is not an integer.

    Notes
    -----
    A descent ends when the gradient is at the level of rounding of its terms, so that losses, and capacities where the
    optimum has only one set of them, are the same on every processor to a few units of rounding over the curvature.
    Where the curvature vanishes at the optimum itself, as on the line of a phase diagram where a feature just becomes
    monosemantic, the loss grows with the fourth power of the distance and capacities with its square: those are then
    known to (1e-16)^(2/3), about 1e-10. Matrix products run on one thread: more only cost where matrices are small, and
    the result would depend on their number.

    Examples
    --------
    >>> import capsolve
    >>> from capsolve.simulate import optimise_embedding
    >>> found = optimise_embedding([2, 1, 1, 1, 1, 1], 9.0, 3, restarts=4, rng=0)
    >>> found
    OptimisedEmbedding(6 features in 3 dimensions: loss=10.9091, 4 of 4 starts agree)
    >>> found.capacity.round(9)
    array([1. , 0.4, 0.4, 0.4, 0.4, 0.4])
    >>> abs(found.loss - capsolve.solve([2, 1, 1, 1, 1, 1], 9.0, 3).loss) < 1e-13
    True

    A whole row of a phase diagram at once:

    >>> found = optimise_embedding([[0.1, 1, 1], [1, 1, 1], [3, 1, 1]], 9.0, 2, restarts=2, rng=0)
    >>> found.capacity[:, 0].round(6)
    array([0.      , 0.666667, 1.      ])

    References
    ----------
    arXiv 2210.01892, eqs. 4-8 (the loss) and Fig. 4 (the same check, for six features in three dimensions).
    """
    v, k = _batch(importance, kurtosis)
    D = whole("dimensions", dimensions)
    starts = whole("restarts", restarts)
    processes = whole("workers", workers, high=most_workers())
    bias = flag("bias", bias)
    *batch, n = v.shape
    problems = [_Problem(*row, D, bias) for row in zip(v.reshape(-1, n), k.reshape(-1, n), strict=True)]
    seeds = np.random.default_rng(rng).integers(2**63, size=(len(problems), starts)).tolist()
    sizes = np.geomspace(_SMALLEST, _LARGEST, starts).tolist()
    tasks = [
        (problem, seed, size)
        for problem, row in zip(problems, seeds, strict=True)
        for seed, size in zip(row, sizes, strict=True)
    ]
    losses: FloatArray = np.empty((len(problems), starts))
    best: FloatArray = np.empty((len(problems), n, D))
    least: FloatArray = np.full(len(problems), math.inf)
    residual: FloatArray = np.empty(len(problems))
    same = _ROUNDING * np.ravel(_loss_at_zero(v, k, bias))
    # Below the bar of somebody who calls this, it goes when it is full.
    bar = tqdm(total=len(tasks), disable=not progress, unit="start", leave=None)
    with _mapper(processes, len(tasks)) as run, bar:
        for j, (W, loss, left) in enumerate(run(_descend, tasks)):
            p, r = divmod(j, starts)
            losses[p, r] = loss
            # A later start has to be better, not only better rounded: else each processor would choose another one.
            if loss < least[p] - same[p]:
                best[p], least[p], residual[p] = W, loss, left
            bar.update()
    return OptimisedEmbedding(
        importance=v,
        kurtosis=k,
        bias=bias,
        embedding=best.reshape(*batch, n, D),
        losses=losses.reshape(*batch, starts),
        residual=residual.reshape(batch),
    )


@dataclass(frozen=True)
class _Problem:
    """One problem, in units in which the largest importance is 1 and the loss at W = 0 is 1."""

    importance: FloatArray
    kurtosis: FloatArray
    dimensions: int
    bias: bool

    @functools.cached_property
    def v(self) -> FloatArray:
        return self.importance / self.unit**2

    @functools.cached_property
    def unit(self) -> float:
        return math.sqrt(self.importance.max()) or 1.0

    @functools.cached_property
    def size(self) -> float:
        return float(_loss_at_zero(self.v, self.kurtosis, self.bias)) or 1.0

    def derivatives(self, W: FloatArray) -> tuple[float, FloatArray, FloatArray, FloatArray]:
        """Return loss, gradient and, for the Hessian, WᵀW and what multiplies w_i in row i of the gradient."""
        M = W.T @ W
        m = np.vecdot(W, W)
        left = self.v - m
        own_error = (self.kurtosis - 1.0) * left
        loss = own_error @ left + 2.0 * (np.vdot(M, M) - m @ m)
        own = -4.0 * own_error - 8.0 * m
        if not self.bias:
            total = left.sum()
            loss += total * total
            own -= 4.0 * total
        return loss / self.size, (8.0 * (W @ M) + own[:, None] * W) / self.size, M, own

    def objective(self, x: FloatArray) -> tuple[float, FloatArray]:
        loss, gradient, *_ = self.derivatives(x.reshape(-1, self.dimensions))
        return loss, gradient.ravel()

    def hessian(self, W: FloatArray, M: FloatArray, own: FloatArray, damping: float = 0.0) -> Any:
        """Return the Hessian at W, and ``damping`` times the identity, as an operator on flattened changes of W."""

        def product(x: FloatArray) -> FloatArray:
            P = x.reshape(W.shape)
            change = 2.0 * np.vecdot(W, P)  # of |w_i|²
            of_own = (4.0 * self.kurtosis - 12.0) * change
            if not self.bias:
                of_own += 4.0 * change.sum()
            cross = W.T @ P
            result: FloatArray = own[:, None] * P + of_own[:, None] * W + 8.0 * (P @ M + W @ (cross + cross.T))
            return result.ravel() / self.size + damping * x

        return LinearOperator((W.size, W.size), matvec=product, dtype=np.float64)

    def loss(self, W: FloatArray) -> float:
        """Return the loss in the units of the problem that was given, with all its digits."""
        return embedding_loss(W * self.unit, self.importance, self.kurtosis, self.bias)


def _descend(task: tuple[_Problem, int, float]) -> tuple[FloatArray, float, float]:
    """Return where one start leads, the loss there, and what is left of the gradient, as in `OptimisedEmbedding`."""
    with one_blas_thread():
        return _from_start(*task)


def _from_start(problem: _Problem, seed: int, size: float) -> tuple[FloatArray, float, float]:
    n, D = problem.v.size, problem.dimensions
    # Without a bias an input of importance 0 may be of use: a row of zeros would stay one.
    length = size * np.sqrt(problem.v if problem.bias else np.maximum(problem.v, 1e-3))
    start = np.random.default_rng(seed).standard_normal((n, D)) * (length / math.sqrt(D))[:, None]
    found = minimize(
        problem.objective,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        # No test of the loss (ftol): near the optimum it stops changing long before the capacities do.
        options={"maxcor": 20, "ftol": 0.0, "gtol": _GRADIENT, "maxiter": 10_000, "maxfun": 20_000},
    )
    W, left = _newton(problem, found.x.reshape(n, D))
    return W * problem.unit, problem.loss(W), left


def _newton(problem: _Problem, W: FloatArray) -> tuple[FloatArray, float]:
    """Return an embedding with a gradient at the level of rounding, by Newton steps from near it; and that gradient.

    A rotation of W changes nothing, so the Hessian is singular at an optimum and a rounding error, divided by what is
    left of it there, would turn W by much. Steps are therefore taken at right angles to rotations. Other directions in
    which the loss is flat, the freedom of tight frames, have eigenvalues of the size of the gradient, of either sign:
    that is what is added to the Hessian (Levenberg-Marquardt), and more where a step fails.

    An optimum may have no curvature in some direction without being flat: along a valley the loss then grows as x⁴. Its
    gradient there is x³, its curvature x², and a step leaves 2/3 of x. It also leaves the bottom of the valley, which
    is bent, by a part of x² that can exceed x³ by far. So a step that seems to fail is corrected by a second one, which
    is solved only as far as the first was meant to come: it goes back to the bottom and not along it. Together they
    leave (2/3)³ = 0.3 of the gradient, 1e-10 after 19.

    Rounding: an entry of the gradient is a sum of terms that is computed to a few eps of the sum of their sizes, and W
    itself, known to eps, moves it by as much. Below 4 eps of these sums nothing is to be gained.
    """
    derivatives = problem.derivatives(W)
    left = damping = float(np.linalg.norm(derivatives[1]))
    for _ in range(_NEWTON_STEPS):
        size = np.abs(W)
        terms = np.linalg.norm(8.0 * size @ (size.T @ size) + np.abs(derivatives[3])[:, None] * size) / problem.size
        if left <= 4.0 * np.finfo(float).eps * float(terms) or damping > 1.0:
            break
        next_W, next_derivatives, next_left = W, derivatives, left
        for remainder in (1e-3, 0.4):
            next_W = next_W + _step(problem, next_W, *next_derivatives[1:], damping, remainder * left)
            next_derivatives = problem.derivatives(next_W)
            next_left = float(np.linalg.norm(next_derivatives[1]))
            if next_left < 0.5 * left:
                break
        # Towards a saddle point the gradient shrinks too, but the loss grows by more than the rounding of its terms.
        tolerance = 1e-14 * (1.0 + float(np.vdot(derivatives[2], derivatives[2])) / problem.size)
        if next_left < 0.5 * left and next_derivatives[0] <= derivatives[0] + tolerance:
            W, derivatives, left = next_W, next_derivatives, next_left
            damping = left
        else:
            damping *= 100.0
    return W, float(np.abs(derivatives[1]).max())


def _step(
    problem: _Problem,
    W: FloatArray,
    gradient: FloatArray,
    M: FloatArray,
    own: FloatArray,
    damping: float,
    remainder: float,
) -> FloatArray:
    """Return the damped Newton step at right angles to rotations, which predicts a gradient of norm ``remainder``."""
    across = _across_rotations(W, M)
    step, _ = cg(
        problem.hessian(W, M, own, damping),
        -across(gradient).ravel(),
        rtol=0.0,
        atol=remainder,
        maxiter=min(5 * W.size, 1000),
    )
    return across(step.reshape(W.shape))


def _across_rotations(W: FloatArray, M: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Return the projection of changes P of W to those at right angles to all rotations W Ω, Ωᵀ = -Ω.

    P - W Ω is, where WᵀP - PᵀW = M Ω + Ω M, which is solved between the eigenvectors of M = WᵀW.
    """
    values, vectors = np.linalg.eigh(M)
    total = values[:, None] + values
    # Dimensions that are used by nothing can be turned without an effect, which divides 0 by 0.
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > np.finfo(float).eps * values[-1])

    def project(P: FloatArray) -> FloatArray:
        cross = vectors.T @ (W.T @ P) @ vectors
        result: FloatArray = P - W @ (vectors @ ((cross - cross.T) * inverse) @ vectors.T)
        return result

    return project


def _loss_at_zero(v: FloatArray, k: FloatArray, bias: bool) -> Any:
    total = np.sum((k - 1.0) * v**2, axis=-1)
    return total if bias else total + np.sum(v, axis=-1) ** 2


@contextmanager
def _mapper(processes: int, tasks: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Give a `map` over this process or several."""
    if processes == 1:
        yield map
        return
    with worker_processes(processes) as pool:
        yield functools.partial(pool.map, chunksize=max(1, tasks // (8 * processes)))


def _batch(importance: Any, kurtosis: Any) -> tuple[FloatArray, FloatArray]:
    v, k = real_array("importance", importance), real_array("kurtosis", kurtosis)
    if v.ndim == 0 or v.size == 0:
        raise ValueError(f"importance must have a last axis of at least one feature, got shape {v.shape}")
    at_least("importance", v, 0.0)
    at_least("kurtosis", k, 1.0)
    try:
        shape = np.broadcast_shapes(v.shape, k.shape)
    except ValueError:
        shape = ()
    if shape[-1:] != v.shape[-1:]:
        raise ValueError(f"kurtosis must broadcast to the shape of importance {v.shape}, got {k.shape}")
    return np.broadcast_to(v, shape), np.broadcast_to(k, shape)
