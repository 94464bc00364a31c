"""Small networks trained by gradient descent, all those of a sweep at once: where theory is only a guide.

Two architectures, each with σ quadratic (z²), ReLU or GeLU, and an embedding W of n features in D dimensions:

* the *sum* model (Scherlis et al., arXiv 2210.01892): y = Σ_i v_i σ(x_i), ŷ = Σ_a σ((xW)_a) + b, loss E (y - ŷ)². The
  importance v_i is a factor inside the target, so a feature's share of the loss goes like v_i². The bias b is at its
  optimum for every W, so what is minimised is the variance of y - Σ_a σ((xW)_a). With σ(z) = z² it is the model that
  `capsolve.solve` is about.
* the *autoencoder* (Elhage et al. 2022): x̂ = σ(W Wᵀ x + c), loss E Σ_i I_i (x_i - x̂_i)². The importance I_i
  multiplies the squared error. The target is x itself for every σ, so only inputs x ≥ 0 can be reconstructed well, and
  the default ones are uniform on [0, 1]; with σ(z) = z² even a feature that has a dimension of its own keeps an error.

The weights of the sum model are trained in units of √v_i (quadratic) or v_i (ReLU, GeLU), row by row: features whose
importances differ by orders of magnitude are then equally far from their optimum at the start. The loss is divided by
that of a network which has learnt nothing but the mean, so that one learning rate fits all densities. Starts are normal
with variance 2/(n + D) in these units.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from capsolve._checks import BoolArray, FloatArray, IndexArray, at_least, flag, real_array, scalar, whole
from capsolve.files._paths import StrPath
from capsolve.files.checkpoints import StateFile, fingerprint, require_seed
from capsolve.geometry.capacities import capacities
from capsolve.simulate.inputs import Inputs

MODELS = tuple(
    f"{kind}-{activation}" for kind in ("sum", "autoencoder") for activation in ("quadratic", "relu", "gelu")
)

# Of the rates 0.01, 0.03, 0.1, 0.3 the ones that end lowest: see studies/training.py. Autoencoders with ReLU
# die of large ones. Sums of rare features need them: what is left to learn there is worth as little as it is rare.
_RATES = {"sum": 0.3, "autoencoder": 0.03}
# Steps go round this many sets of points. Networks learn what is particular to one fixed set, above all where ReLU's
# kinks pass between its points: 16 sets of 512 end lower than one of 4,096, at an eighth of the price.
_SETS = 16
_LEAST_FINE = 4096  # points of the loss that is reported
_SMALLEST = 1e-9  # of the largest importance in a cell, whose square float32 must hold
_WORSE = 2.0  # times the loss of a network that has learnt nothing: not noise of the training any more
_CPU_NUMBERS, _GPU_NUMBERS = 2**19, 2**26  # in the largest array of a block of networks: what a cache holds
_SEGMENTS = 20  # of the steps of a block: an interruption loses less than one


@dataclass(frozen=True)
class Settings:
    """How networks were trained; see `train`."""

    steps: int
    learning_rate: float
    schedule: str
    objective: str
    points: int


@dataclass(frozen=True, eq=False, repr=False)
class Training:
    """Trained networks: "..." stands for the cells of the sweep, each trained from several starts (instances).

    Attributes
    ----------
    model : str
        One of `MODELS`.
    inputs : Inputs
        The distribution of the inputs.
    importance : (..., n) array
        v_i in the sum model, I_i in the autoencoder.
    density : (...) array
        The probability that a feature is active.
    dimensions : int
        D.
    settings : Settings
        How they were trained.
    embedding : (..., instances, n, D) float32 array
        NaN where the training diverged.
    bias : (..., instances, 1 or n) float32 array
        b of the sum model or c of the autoencoder.
    loss : (..., instances) array
        The expected loss on as many points as were trained on, 16 sets, but other ones; NaN where the training
        diverged.
    baseline : (...) array
        The loss of a network that has learnt nothing but the mean of its target, on the same points.
    gradient : (..., instances) array
        What is left of the gradient: the norm of that of loss/baseline in the units of training, on all points that
        were trained on, or for ``objective="sampled"`` on those of the loss. 0 at a stationary point.
    diverged : (..., instances) bool array
        Instances that ended with numbers that are not finite, or with a loss above twice the baseline.
    """

    model: str
    inputs: Inputs
    importance: FloatArray
    density: FloatArray
    dimensions: int
    settings: Settings
    embedding: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    loss: FloatArray
    baseline: FloatArray
    gradient: FloatArray
    diverged: BoolArray

    @property
    def best(self) -> IndexArray:
        """The instance with the least loss in each cell, shape (...); -1 where all diverged."""
        best = np.where(self.diverged, np.inf, self.loss).argmin(axis=-1)
        return np.where(self.diverged.all(axis=-1), -1, best)

    @property
    def best_loss(self) -> FloatArray:
        """The least loss in each cell, shape (...); NaN where all instances diverged."""
        return np.take_along_axis(self.loss, self.best[..., None], axis=-1)[..., 0]

    @property
    def best_embedding(self) -> npt.NDArray[np.float32]:
        """The embedding with the least loss in each cell, shape (..., n, D); NaN where all instances diverged."""
        return np.take_along_axis(self.embedding, self.best[..., None, None, None], axis=-3)[..., 0, :, :]

    @property
    def capacity(self) -> FloatArray:
        """The capacities of `best_embedding`, shape (..., n); NaN where all instances diverged."""
        return _capacities(self.best_embedding)

    @property
    def capacities(self) -> FloatArray:
        """The capacities of every instance, shape (..., instances, n); NaN where the training diverged."""
        return _capacities(self.embedding)

    @property
    def dispersion(self) -> FloatArray:
        """How far the worst instance ended above the best, relative to the best; shape (...). Diverged ones left out.

        NaN where all instances diverged.
        """
        worst = np.where(self.diverged, -np.inf, self.loss).max(axis=-1)
        spread: FloatArray = np.where(np.isnan(self.best_loss), np.nan, worst - self.best_loss)
        return spread / np.maximum(self.best_loss, np.finfo(np.float64).tiny)

    @property
    def message(self) -> str:
        """Which instances diverged, in words; empty if none did."""
        count = int(self.diverged.sum())
        if not count:
            return ""
        first = ", ".join(str(tuple(int(k) for k in where)) for where in np.argwhere(self.diverged)[:3])
        more = ", …" if count > 3 else ""
        return f"{count} of {self.diverged.size} instances diverged, at index {first}{more}: try a lower learning_rate"

    def __repr__(self) -> str:
        *cells, instances, n, D = self.embedding.shape
        diverged = f"; {int(self.diverged.sum())} diverged" * bool(self.diverged.any())
        return f"Training({self.model}, {n} features in {D} dimensions, cells {tuple(cells)} × {instances}{diverged})"


def train(
    model: str,
    importance: Any,
    density: Any = 1.0,
    *,
    dimensions: int,
    inputs: Inputs | None = None,
    instances: int = 8,
    steps: int = 2000,
    learning_rate: float | None = None,
    schedule: str = "cosine",
    objective: str = "expected",
    points: int = 512,
    rng: Any = None,
    checkpoint: StrPath | None = None,
    progress: bool = False,
) -> Training:
    """Train networks for every cell of a sweep, each from several starts.

    Parameters
    ----------
    model : str
        ``"sum-quadratic"``, ``"sum-relu"``, ``"sum-gelu"``, ``"autoencoder-quadratic"``, ``"autoencoder-relu"`` or
        ``"autoencoder-gelu"``; see this module's text for what each minimises.
    importance : array_like, shape (..., n)
        v_i ≥ 0 of the sum model, inside the target; I_i ≥ 0 of the autoencoder, on the squared error. The largest
        of a cell lies in [1e-9, 1e9].
    density : array_like, shape (...)
        The probability that a feature is active, in (0, 1]. Broadcast against the cells "..." of ``importance``.
    dimensions : int
        D ≥ 1.
    inputs : Inputs, optional
        By default uniform on [-1, 1] for the sum model and on [0, 1] for the autoencoder, independent.
    instances : int
        Starts per cell. They are the same in every cell.
    steps : int
        Steps of Adam.
    learning_rate : float, optional
        Of Adam, at the start: by default 0.3 for the sum model and 0.03 for the autoencoder.
    schedule : {"cosine", "constant"}
        The learning rate falls to 0 along a half-cosine, or stays.
    objective : {"expected", "sampled"}
        The expected loss, on points stratified by the number of active features (`Inputs.points`): 16 fixed sets of
        them, taken in turn. Or a fresh minibatch of plain samples for every step, the same for all networks of one
        density.
    points : int
        The number of points in a set, or the size of a minibatch.
    rng : numpy.random.Generator or seed, optional
        The starts, points and samples. The same seed gives the same result to the last bit on the same machine.
    checkpoint : path, optional
        A .npz file in which the state is kept, at least every 5 seconds and when interrupted. If it is there, the
        training goes on where it ended, to the same result as without interruption; a finished one is read and
        returned. Needs a seed.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    Training

    Raises
    ------
    ImportError
        If JAX or Optax is missing: the extra ``train``.
    ValueError
        For unknown names, arguments of the wrong shape or range, a checkpoint of another training or one without a
        seed.

    Warns
    -----
    RuntimeWarning
        If instances diverged; `Training.diverged` says which. They are never among the best.

    Examples
    --------
    >>> import capsolve, numpy as np
    >>> training = train("sum-quadratic", [2.0, 1.0, 1.0], density=0.2, dimensions=1, rng=0)
    >>> training.capacity.round(1), capsolve.solve([2.0, 1.0, 1.0], kurtosis=9, dimensions=1).capacity.round(1)
    (array([0.7, 0.2, 0.2]), array([0.7, 0.2, 0.2]))
    """
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}")
    v, p = _cells(importance, density)
    D = whole("dimensions", dimensions)
    if inputs is None:
        inputs = Inputs(low=-1.0 if model.startswith("sum") else 0.0)
    if not isinstance(inputs, Inputs):
        raise ValueError(f"inputs must be a capsolve.simulate.Inputs, got {inputs!r}")  # noqa: TRY004
    if schedule not in ("cosine", "constant"):
        raise ValueError(f"schedule must be 'cosine' or 'constant', got {schedule!r}")
    if objective not in ("expected", "sampled"):
        raise ValueError(f"objective must be 'expected' or 'sampled', got {objective!r}")
    if learning_rate is None:
        learning_rate = _RATES[model.partition("-")[0]]
    rate = scalar("learning_rate", learning_rate, low=0.0)
    settings = Settings(whole("steps", steps), rate, schedule, objective, whole("points", points))
    show = flag("progress", progress)
    require_seed("a training", rng, checkpoint)
    sweep = _Sweep(model, inputs, v, p, D, whole("instances", instances), settings, np.random.default_rng(rng))
    store = None if checkpoint is None else StateFile(checkpoint, "a training", sweep.fingerprint())
    result = sweep.run(store, show)
    if result.message:
        warnings.warn(result.message, RuntimeWarning, stacklevel=2)
    return result


class _Sweep:
    """All networks of a training, and the blocks of them that are trained together."""

    def __init__(
        self,
        model: str,
        inputs: Inputs,
        importance: FloatArray,
        density: FloatArray,
        dimensions: int,
        instances: int,
        settings: Settings,
        rng: np.random.Generator,
    ) -> None:
        self.model, self.inputs, self.settings = model, inputs, settings
        self.cells, n = density.shape, importance.shape[-1]
        self.importance, self.density = importance.reshape(-1, n), density.ravel()
        # Glorot's normal start, which Elhage et al. used. With rows of length 1, 400 features in 30 dimensions
        # interfere so much that they are still far from the pairs they end in after 1,500 steps.
        self.starts = math.sqrt(2 / (n + dimensions)) * rng.standard_normal((instances, n, dimensions))
        self.seed = int(rng.integers(2**31))
        for p in np.unique(self.density):
            inputs.strata(n, float(p))  # refuses what pairs cannot do

    def fingerprint(self) -> str:
        """Return a text that only a training with the same result shares."""
        facts = [self.model, asdict(self.inputs), asdict(self.settings), self.cells, self.seed, _SETS]
        return fingerprint(facts, self.importance, self.density, self.starts)

    def run(self, store: StateFile | None, show: bool) -> Training:
        """Train block after block."""
        jax, descent = self._compiled()
        instances, n, D = self.starts.shape
        total = self.density.size * instances
        done = {
            "W": np.zeros((total, n, D), np.float32),
            "bias": np.zeros((total, 1 if self.model.startswith("sum") else n), np.float32),
            "loss": np.zeros(total, np.float32),
            "gradient": np.zeros(total, np.float32),
            "nothing": np.zeros(total, np.float32),
        }
        blocks = list(self._blocks(jax.default_backend() == "cpu"))
        place, leaves = (0, 0), []
        saved = None if store is None else store.load()
        if saved is not None:
            place, arrays = tuple(saved[0]["place"]), saved[1]
            done = {name: arrays.pop(name) for name in done}
            leaves = [arrays[f"state{i}"] for i in range(len(arrays))]
        steps, segment = self.settings.steps, math.ceil(self.settings.steps / _SEGMENTS)
        bar = tqdm(total=len(blocks) * steps, initial=place[0] * steps + place[1], unit="step", disable=not show)
        now = _stage(place, leaves, done)
        try:
            for number in range(place[0], len(blocks)):
                members, p = blocks[number]
                block = _Block(self, jax, descent, members, p)
                step = place[1] if number == place[0] else 0
                if step:
                    block.restore(leaves)
                while step < steps:
                    stop = min(step + segment, steps)
                    block.advance(step, stop)
                    bar.update(stop - step)
                    step = stop
                    now = _stage((number, step), block.leaves(), done)
                    if store is not None:
                        store.offer(*now)
                found = block.finish()
                # a block is stored as a whole: an interruption between two arrays would be written down
                done = {name: _written(array, members, found[name]) for name, array in done.items()}
                now = _stage((number + 1, 0), [], done)
        finally:
            bar.close()
            if store is not None:
                store.save(*now)
        return self._result(done)

    def _compiled(self) -> tuple[Any, Any]:
        try:
            import jax  # noqa: PLC0415
            import optax  # noqa: F401, PLC0415
        except ImportError:
            raise ImportError('training networks needs JAX and Optax: pip install "capsolve[train]"') from None
        from capsolve.simulate._descent import Descent  # noqa: PLC0415

        architecture, activation = self.model.split("-")
        s = self.settings
        batch = s.points if s.objective == "sampled" else 0
        return jax, Descent(architecture, activation, self.inputs, s.steps, s.learning_rate, s.schedule, batch)

    def _blocks(self, cpu: bool) -> Iterator[tuple[IndexArray, float]]:
        """Yield the networks that are trained together, which share a density; all blocks have one size."""
        instances, n, D = self.starts.shape
        densities, which, counts = np.unique(self.density, return_inverse=True, return_counts=True)
        limit = max(1, (_CPU_NUMBERS if cpu else _GPU_NUMBERS) // (self.settings.points * max(n, D)))
        most = int(counts.max()) * instances
        size = math.ceil(most / math.ceil(most / limit))
        for i, p in enumerate(densities):
            cells = np.flatnonzero(which == i)
            members = (cells[:, None] * instances + np.arange(instances)).ravel()
            for start in range(0, members.size, size):
                block = members[start : start + size]
                yield np.pad(block, (0, size - block.size), mode="edge"), float(p)

    def _result(self, done: dict[str, Any]) -> Training:
        instances, n, D = self.starts.shape
        shape = (*self.cells, instances)
        loss, baseline = done["loss"].astype(np.float64), done["nothing"].astype(np.float64)
        diverged = ~(np.isfinite(done["W"]).all(axis=(1, 2)) & (loss <= _WORSE * baseline))
        return Training(
            self.model,
            self.inputs,
            self.importance.reshape(*self.cells, n),
            self.density.reshape(self.cells),
            D,
            self.settings,
            np.where(diverged[:, None, None], np.float32(np.nan), done["W"]).reshape(*shape, n, D),
            np.where(diverged[:, None], np.float32(np.nan), done["bias"]).reshape(*shape, -1),
            np.where(diverged, np.nan, loss).reshape(shape),
            baseline.reshape(shape)[..., 0],
            np.where(diverged, np.nan, done["gradient"]).reshape(shape).astype(np.float64),
            diverged.reshape(shape),
        )


class _Block:
    """Networks side by side on the device."""

    def __init__(self, sweep: _Sweep, jax: Any, descent: Any, members: IndexArray, density: float) -> None:
        self.jax, self.descent = jax, descent
        instances, n, _ = sweep.starts.shape
        cell, instance = np.divmod(members, instances)
        v = sweep.importance[cell].T.astype(np.float32)
        if sweep.model.startswith("autoencoder"):
            unit = np.ones_like(v)
        else:
            unit = np.sqrt(v) if sweep.model == "sum-quadratic" else v
        settings = sweep.settings
        draw = functools.partial(sweep.inputs.points, n, density, mirror=sweep.model != "sum-quadratic")
        fine = draw(max(_SETS * settings.points, _LEAST_FINE), rng=sweep.seed + _SETS)
        self.fine = self.coarse = _single(*fine)
        self.source = (jax.random.key(sweep.seed), np.float32(density))
        if settings.objective == "expected":
            sets = [draw(settings.points, rng=sweep.seed + r) for r in range(_SETS)]
            x, w = np.stack([points for points, _ in sets]), sets[0][1]
            self.source = _single(x, w)
            self.coarse = _single(x.reshape(-1, n), np.tile(w, _SETS) / _SETS)
        self.nothing = descent.nothing(v, *self.fine)
        self.cells = (v, unit, descent.nothing(v, *self.coarse))
        self.params = {"W": jax.numpy.asarray(sweep.starts[instance].transpose(1, 2, 0), jax.numpy.float32)}
        if sweep.model.startswith("autoencoder"):
            self.params["bias"] = jax.numpy.zeros((n, members.size), jax.numpy.float32)
        self.state = descent.start(self.params)

    def advance(self, step: int, stop: int) -> None:
        after = self.descent.advance(self.params, self.state, step, stop, self.cells, self.source)
        self.params, self.state = self.jax.block_until_ready(after)

    def finish(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return what is known of each network, instances first."""
        loss, _, bias = self.descent.evaluate(self.params, self.cells, *self.fine)
        _, gradient, _ = self.descent.evaluate(self.params, self.cells, *self.coarse)
        W = np.asarray(self.params["W"]) * self.cells[1][:, None]
        found = {"W": W.transpose(2, 0, 1), "bias": np.asarray(bias).T, "loss": loss}
        return {k: np.asarray(a) for k, a in (found | {"gradient": gradient, "nothing": self.nothing}).items()}

    def leaves(self) -> list[Any]:
        return [np.asarray(leaf) for leaf in self.jax.tree.leaves((self.params, self.state))]

    def restore(self, leaves: list[Any]) -> None:
        shape = self.jax.tree.structure((self.params, self.state))
        self.params, self.state = self.jax.tree.unflatten(shape, leaves)


def _stage(place: tuple[int, int], leaves: list[Any], done: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a checkpoint says: block and step, the state inside the block, what is done."""
    return {"place": place}, {f"state{i}": leaf for i, leaf in enumerate(leaves)} | done


def _single(*arrays: Any) -> tuple[Any, ...]:
    return tuple(array.astype(np.float32) for array in arrays)


def _written(array: Any, members: IndexArray, values: Any) -> Any:
    after = array.copy()
    after[members] = values
    return after


def _cells(importance: Any, density: Any) -> tuple[FloatArray, FloatArray]:
    """Return importance (..., n) and density (...), of the same cells."""
    v, p = real_array("importance", importance), real_array("density", density)
    if v.ndim == 0 or v.size == 0:
        raise ValueError(f"importance must have shape (..., n) with at least one feature, got {v.shape}")
    at_least("importance", v, 0.0)
    idle = (v == 0).all(axis=-1)
    if idle.any():
        where = tuple(int(k) for k in np.argwhere(idle)[0])
        raise ValueError(f"importance must not be 0 for all features, as it is in cell {where}")
    largest = v.max(axis=-1)
    if ((largest < _SMALLEST) | (largest > 1 / _SMALLEST)).any():
        raise ValueError(
            f"the largest importance must be in [{_SMALLEST:g}, {1 / _SMALLEST:g}], or losses do not fit into float32: "
            f"got {largest.min():g} to {largest.max():g}"
        )
    bad = (p <= 0) | (p > 1)
    if bad.any():
        raise ValueError(f"density must be in (0, 1], got {p[bad].flat[0]}")
    try:
        cells = np.broadcast_shapes(v.shape[:-1], p.shape)
    except ValueError:
        raise ValueError(f"density of shape {p.shape} does not fit the cells of importance, {v.shape[:-1]}") from None
    return np.broadcast_to(v, (*cells, v.shape[-1])), np.broadcast_to(p, cells)


def _capacities(embedding: npt.NDArray[np.float32]) -> FloatArray:
    known = np.asarray(np.isfinite(embedding).all(axis=(-1, -2)))
    found: FloatArray = capacities(np.where(known[..., None, None], embedding, 0.0).astype(np.float64))
    return np.where(known[..., None], found, np.nan)
