"""Embeddings found by descent on the exact loss, from many starts: what the theory predicts, without its theory.

Nothing here knows about capacity, prices or frames. Each start is one run of SciPy's L-BFGS on the expected loss of
`capsolve.embedding_loss` and its gradient; the best of them is polished by Newton steps on the gradient alone, which
has digits left where the loss has none.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, minres
from tqdm import tqdm

from capsolve._checks import FloatArray, at_least, flag, real_array, whole
from capsolve.geometry.blocks import Block, blocks
from capsolve.geometry.capacities import capacities
from capsolve.geometry.loss import embedding_loss

_GRADIENT = 1e-9  # at which a descent ends, relative to what `_Problem` scales it by
_SMALLEST, _LARGEST = 0.1, 1.0  # |w_i| at the start, relative to √v_i
_AGREE = 1e-9
_NEWTON_STEPS = 6


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
        The embedding with the least loss.
    losses : (..., restarts) array
        Where each start ended; the entry of the best one is after its polish.
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
        rounding = 1e-15 * _loss_at_zero(self.importance, self.kurtosis, self.bias)[..., None]
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
    A descent ends when the gradient is 1e-9 of its scale. The best embedding then takes Newton steps, solved by MINRES
    because rotations and the freedom of tight frames make the Hessian singular, while they shrink the gradient: the
    loss ends within a few units of rounding of a stationary value, and capacities, where the optimum has only one set
    of them, within about 1e-15 over the curvature.

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
    processes = whole("workers", workers)
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
    residual: FloatArray = np.empty(len(problems))
    with _mapper(processes, len(tasks)) as run, tqdm(total=len(tasks), disable=not progress, unit="start") as bar:
        for j, (W, loss) in enumerate(run(_descend, tasks)):
            p, r = divmod(j, starts)
            losses[p, r] = loss
            if loss <= losses[p, :r].min(initial=math.inf):
                best[p] = W
            bar.update()
        for p, (W, loss, left) in enumerate(run(_polish, list(zip(problems, best, strict=True)))):
            best[p], losses[p, np.argmin(losses[p])], residual[p] = W, loss, left
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

    def hessian(self, W: FloatArray, M: FloatArray, own: FloatArray) -> Any:
        """Return the Hessian at W as a linear operator on flattened changes of W."""

        def product(x: FloatArray) -> FloatArray:
            P = x.reshape(W.shape)
            change = 2.0 * np.vecdot(W, P)  # of |w_i|²
            of_own = (4.0 * self.kurtosis - 12.0) * change
            if not self.bias:
                of_own += 4.0 * change.sum()
            cross = W.T @ P
            result: FloatArray = own[:, None] * P + of_own[:, None] * W + 8.0 * (P @ M + W @ (cross + cross.T))
            return result.ravel() / self.size

        return LinearOperator((W.size, W.size), matvec=product, dtype=np.float64)

    def loss(self, W: FloatArray) -> float:
        """Return the loss in the units of the problem that was given, with all its digits."""
        return embedding_loss(W * self.unit, self.importance, self.kurtosis, self.bias)


def _descend(task: tuple[_Problem, int, float]) -> tuple[FloatArray, float]:
    """Return where one start leads, and the loss there."""
    problem, seed, size = task
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
    W = found.x.reshape(n, D)
    return W, problem.loss(W)


def _polish(task: tuple[_Problem, FloatArray]) -> tuple[FloatArray, float, float]:
    """Return the embedding after Newton steps, in the problem's units, its loss and what is left of the gradient."""
    problem, W = task
    loss = problem.loss(W)
    _, gradient, M, own = problem.derivatives(W)
    left = float(np.abs(gradient).max())
    for _ in range(_NEWTON_STEPS):
        step, _ = minres(problem.hessian(W, M, own), -gradient.ravel(), rtol=1e-8, maxiter=min(5 * W.size, 1000))
        next_W = W + step.reshape(W.shape)
        next_loss = problem.loss(next_W)
        _, gradient, M, own = problem.derivatives(next_W)
        next_left = float(np.abs(gradient).max())
        # Towards a saddle point the gradient shrinks as well, but the loss grows by more than rounding.
        if not (next_left < 0.5 * left and next_loss <= loss * (1.0 + 1e-12) + 1e-15 * problem.size * problem.unit**4):
            break
        W, loss, left = next_W, next_loss, next_left
    return W * problem.unit, loss, left


def _loss_at_zero(v: FloatArray, k: FloatArray, bias: bool) -> Any:
    total = np.sum((k - 1.0) * v**2, axis=-1)
    return total if bias else total + np.sum(v, axis=-1) ** 2


@contextmanager
def _mapper(processes: int, tasks: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Give a `map` over this process or several."""
    if processes == 1:
        yield map
        return
    # Forking a process that runs threads of a numerical library may hang it.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
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
