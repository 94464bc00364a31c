r"""Autoencoders of one-hot inputs, many at once: gradient flow, SGD and AdamW, with an L1 penalty and noise.

.. math:: \sum_i |\mathrm{ReLU}(W (W^\top e_i + \xi_i)) - e_i|^2 + \lambda |W|_1

n features (rows of W), m neurons, noise ξ_i on the neurons. Without noise the gradient is 4 P W + λ sign W, where
P = ReLU(G) - I for G = W Wᵀ > 0 and 0 elsewhere.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from capsolve._checks import BoolArray, FloatArray, flag, real_array, renamed, scalar, whole
from capsolve.incidental.collisions import standard_error
from capsolve.incidental.sparse_adamw import Single

NOISES = {"rademacher": 1.0, "uniform": 1.8, "gaussian": 3.0, "laplace": 6.0}
"""Noise by name, and its kurtosis (Pearson's)."""

OPTIMISERS = ("flow", "sgd", "adamw")

_FASTEST = {"flow": 1.0}  # |w|² settles at the rate 2


@dataclass(frozen=True, eq=False, repr=False)
class Autoencoders:
    """Trained autoencoders, and how they came there.

    Attributes
    ----------
    start, embedding : (instances, n, m) float32 array
        W before and after.
    step : (k,) int array
        When the quantities below were looked at: steps taken, from 0 to the end, at about equal ratios.
    fourth : (k, instances, n) array
        Σ_k W_ik⁴: 1/m for a row of length 1 that is spread evenly, 1 for one on a single neuron.
    square, norm : (k, instances, n) array
        |w_i|² and |w_i|₁.
    survivors : (k, instances, n) int array
        The number of weights that are not 0. Under gradient flow only, weights that reach 0 are 0.
    diverged : (instances,) bool array
        Networks with numbers that are not finite.
    """

    start: Single
    embedding: Single
    step: npt.NDArray[np.int64]
    fourth: FloatArray
    square: FloatArray
    norm: FloatArray
    survivors: npt.NDArray[np.int64]
    diverged: BoolArray

    @property
    def fourth_norm(self) -> tuple[FloatArray, FloatArray]:
        """Return the mean of ``fourth`` over features and networks, and its standard error between networks, (k,).

        The error is NaN for a single network.
        """
        values = self.fourth.mean(axis=2)
        return values.mean(axis=1), standard_error(values)

    def __repr__(self) -> str:
        count, n, m = self.embedding.shape
        diverged = f"; {int(self.diverged.sum())} diverged" * bool(self.diverged.any())
        return f"Autoencoders({count} × {n} features, {m} neurons, {self.step[-1]} steps{diverged})"


def train_autoencoders(
    features: int,
    neurons: int,
    *,
    steps: int,
    learning_rate: float,
    optimiser: str = "adamw",
    instances: int = 1,
    penalty: float = 0.0,
    weight_decay: float = 0.01,
    noise: str | float | None = None,
    noise_std: float = 0.1,
    shared_noise: bool = False,
    start: Any = None,
    snapshots: int = 50,
    rng: Any = None,
    progress: bool = False,
    looks: int | None = None,
) -> Autoencoders:
    r"""Train autoencoders of one-hot inputs; see this module's text for what is minimised.

    Parameters
    ----------
    features, neurons : int
        n and m, in any order of size.
    steps : int
        Steps to take.
    learning_rate : float
        The step of SGD or AdamW. For ``"flow"`` it is the step of time of dW/dt = -¼ ∇L, below 1; its error is of first
        order.
    optimiser : {"adamw", "sgd", "flow"}
        The flow is followed by forward-backward steps: weights that the penalty takes to 0 stay there until another
        force is stronger. In SGD and AdamW the penalty has the gradient λ sign W, and weights tremble about 0.
    instances : int
        Networks, each from its own start with its own noise.
    penalty : float
        λ ≥ 0 of the loss, 4 times the L1 force of the flow.
    weight_decay : float
        Of AdamW.
    noise : {"rademacher", "uniform", "gaussian", "laplace"} or float, optional
        The distribution, or the Pearson kurtosis κ ≥ 1 of one of a family: up to 3 random signs plus a Gaussian, above
        a Gaussian that is present with the probability 3/κ. Not with ``"flow"``.
    noise_std : float
        σ of the noise.
    shared_noise : bool
        One draw per network and step for all inputs, as in the published code, instead of one for each input. (In
        the published code all networks share it, too.)
    start : array_like, shape (n, m) or (instances, n, m), optional
        The weights to start from; by default N(0, 1/m).
    snapshots : int
        How often the weights are looked at, at about equal ratios of steps; formerly ``looks``.
    rng : numpy.random.Generator or seed, optional
        The starts and the noise. The same seed gives the same result to the last bit on the same machine.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    Autoencoders

    Raises
    ------
    ImportError
        If JAX is missing: the extra ``train``.
    ValueError
        For unknown names, and arguments of the wrong shape or out of range.

    Examples
    --------
    >>> found = train_autoencoders(4, 8, optimiser="flow", learning_rate=0.1, steps=4000, penalty=0.04, rng=0)
    >>> found.survivors[-1]
    array([[1, 1, 1, 1]])

    References
    ----------
    arXiv 2312.03096, sections 2 and 4.
    """
    n, m, count = whole("features", features), whole("neurons", neurons), whole("instances", instances)
    if optimiser not in OPTIMISERS:
        raise ValueError(f"optimiser must be one of {', '.join(OPTIMISERS)}, got {optimiser!r}")
    kind, kurtosis = _noise(noise)
    if kind is not None and optimiser == "flow":
        raise ValueError("noise must be None for the flow: it has no gradient to follow but that of single draws")
    numbers = {
        "rate": scalar("learning_rate", learning_rate, low=0.0, high=_FASTEST.get(optimiser, math.inf)),
        "penalty": scalar("penalty", penalty, low=0.0),
        "decay": scalar("weight_decay", weight_decay, low=0.0),
        "sigma": scalar("noise_std", noise_std, low=0.0),
        "kurtosis": kurtosis,
    }
    total, shared, show = whole("steps", steps), flag("shared_noise", shared_noise), flag("progress", progress)
    if looks is not None:
        renamed("looks", "snapshots")
        snapshots = looks
    times = _times(total, whole("snapshots", snapshots))
    draw = np.random.default_rng(rng)
    W = _start(start, count, n, m, draw)
    try:
        import jax  # noqa: PLC0415
    except ImportError:
        raise ImportError('training autoencoders needs JAX: pip install "capsolve[train]"') from None
    from capsolve.incidental.optimisers import Steps  # noqa: PLC0415

    compiled = Steps(optimiser, kind, shared and kind is not None)
    constants = {name: np.float32(value) for name, value in numbers.items()}
    state = compiled.start(jax.numpy.asarray(W))
    key = jax.random.key(int(draw.integers(2**31)), impl="rbg")  # compiles in a third of the default's time
    seen = [W]
    with tqdm(total=total, unit="step", disable=not show) as bar:
        for step, stop in itertools.pairwise(times):
            state = compiled.advance(state, step, stop, constants, key)
            seen.append(np.asarray(state[0]))
            bar.update(int(stop - step))
    history = _history(seen)
    diverged = np.asarray(~np.isfinite(seen[-1]).all(axis=(1, 2)))
    return Autoencoders(W, seen[-1], times, *history, diverged)


def forces(weights: Any, penalty: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    r"""Return the three forces on every row; their sum is -¼ of the gradient of the loss without noise.

    .. math:: (1 - |w_i|^2)\, w_i, \qquad -\sum_{j \ne i} \mathrm{ReLU}(w_i \cdot w_j)\, w_j, \qquad
              -\tfrac{\lambda}{4} \operatorname{sign} w_i

    Parameters
    ----------
    weights : array_like, shape (..., n, m)
    penalty : float
        λ of the loss.

    Returns
    -------
    benefit, interference, sparsity : (..., n, m) arrays
        Feature benefit, interference between features, and what the penalty does.

    Examples
    --------
    Opposite features on one neuron do not feel each other; equal ones push each other off:

    >>> [force.ravel() for force in forces([[1.0], [-1.0]], 0.4)]
    [array([ 0., -0.]), array([-0., -0.]), array([-0.1,  0.1])]
    >>> forces([[1.0], [1.0]], 0.4)[1].ravel()
    array([-1., -1.])
    """
    W = real_array("weights", weights)
    if W.ndim < 2:
        raise ValueError(f"weights must have shape (..., n, m), got {W.shape}")
    lam = scalar("penalty", penalty, low=0.0)
    G = W @ np.swapaxes(W, -1, -2)
    square = np.diagonal(G, axis1=-2, axis2=-1)[..., None]
    others = np.maximum(np.where(np.eye(W.shape[-2], dtype=bool), 0.0, G), 0.0)
    return (1.0 - square) * W, -(others @ W), -lam / 4.0 * np.sign(W)


def _noise(noise: Any) -> tuple[str | None, float]:
    """Return the kind of noise the compiled part knows, and its kurtosis."""
    if noise is None:
        return None, 3.0
    if isinstance(noise, str):
        if noise == "bipolar":
            renamed("bipolar", "rademacher")
            noise = "rademacher"
        if noise not in NOISES:
            raise ValueError(f"noise must be one of {', '.join(NOISES)} or a kurtosis, got {noise!r}")
        return noise, NOISES[noise]
    kurtosis = scalar("noise", noise, low=1.0)
    return ("light" if kurtosis <= 3.0 else "sparse"), kurtosis


def _times(steps: int, snapshots: int) -> npt.NDArray[np.int64]:
    """Return 0 and then whole numbers up to ``steps`` at about equal ratios."""
    return np.unique(np.concatenate([[0], np.rint(np.geomspace(1, steps, snapshots)).astype(np.int64), [steps]]))


def _start(start: Any, count: int, n: int, m: int, draw: np.random.Generator) -> Single:
    if start is None:
        return draw.standard_normal((count, n, m), dtype=np.float32) / np.float32(math.sqrt(m))
    W = real_array("start", start)
    if W.shape not in ((n, m), (count, n, m)):
        raise ValueError(f"start must have shape {(n, m)} or {(count, n, m)}, got {W.shape}")
    return np.array(np.broadcast_to(W, (count, n, m)), dtype=np.float32)


def _history(seen: list[Single]) -> tuple[FloatArray, FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Return fourth, square, norm and survivors of every snapshot."""
    sizes = [np.abs(W).astype(np.float64) for W in seen]
    sums = [np.stack([(size**power).sum(axis=2) for size in sizes]) for power in (4, 2, 1)]
    return sums[0], sums[1], sums[2], np.stack([np.count_nonzero(size, axis=2) for size in sizes])
