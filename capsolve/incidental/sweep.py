"""The published experiment: how many neurons end up with several features, against the number of neurons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray, flag, scalar, whole
from capsolve._threads import one_blas_thread
from capsolve.files._paths import StrPath
from capsolve.files.archives import reading_archive, write_archive
from capsolve.files.checkpoints import Checkpoint, fingerprint, require_seed, run
from capsolve.files.tensors import Arrays
from capsolve.incidental.collisions import (
    Collisions,
    count_collisions,
    same_winner,
    standard_error,
    start_end_correlation,
)
from capsolve.incidental.laws import expected_neurons, expected_pairs
from capsolve.incidental.sparse_adamw import AdamWConfig, train

_KIND = "a collision sweep of capsolve"
_MEASURED = ("opposite_pairs", "equal_pairs", "polysemantic", "opposite_neurons", "single", "capacity")
_TOGETHER = 4  # networks of one task: lists of live weights are followed side by side


@dataclass(frozen=True, eq=False, repr=False)
class CollisionSweep:
    """Collisions in networks of several widths, each trained from several starts.

    Attributes
    ----------
    features : int
        n.
    neurons : (k,) int array
        m of each width.
    settings : dict
        How the networks were trained.
    collisions : tuple of k Collisions
        Of the trained networks; each entry has shape (instances,).
    kept : (k, instances) array
        The share of features that ended on the neuron where they began largest, with the same sign.
    correlation : (k, n, n) array
        `start_end_correlation`, the mean over instances.
    """

    features: int
    neurons: npt.NDArray[np.int64]
    settings: Mapping[str, float]
    collisions: tuple[Collisions, ...]
    kept: FloatArray
    correlation: npt.NDArray[np.float32]

    @property
    def instances(self) -> int:
        """The number of networks of each width."""
        return int(self.kept.shape[1])

    def mean(self, quantity: str) -> FloatArray:
        """Return the mean over instances of an attribute of `Collisions`, shape (k,): say ``"polysemantic"``."""
        return np.asarray(self._values(quantity).mean(axis=1))

    def error(self, quantity: str) -> FloatArray:
        """Return the standard error of `mean`, shape (k,); NaN for a single instance.

        From the spread between instances, whatever the distribution.
        """
        return standard_error(self._values(quantity))

    def table(self) -> dict[str, npt.NDArray[Any]]:
        """Return one row per width: measured counts with standard errors, and what chance predicts."""
        wide = 2 * self.neurons >= self.features
        exclusive = np.full(self.neurons.shape, np.nan)
        exclusive[wide] = expected_neurons(self.features, self.neurons[wide], exclusive=True)
        columns: dict[str, npt.NDArray[Any]] = {"neurons": self.neurons}
        for name in ("polysemantic", "opposite_neurons", "opposite_pairs", "equal_pairs", "single", "excess"):
            columns[name], columns[f"{name}_error"] = self.mean(name), self.error(name)
        columns["kept"], columns["kept_error"] = self.kept.mean(axis=1), standard_error(self.kept)
        columns["expected_neurons"] = expected_neurons(self.features, self.neurons)
        columns["expected_exclusive"] = exclusive
        columns["expected_pairs"] = expected_pairs(self.features, self.neurons)
        return columns

    def save(self, path: StrPath) -> None:
        """Write everything to a NumPy .npz file, which replaces an older one as a whole.

        Counts have the shape (k, instances); the correlation is rounded to half precision.

        Raises
        ------
        ValueError
            If the suffix is another one.
        OSError
            If the file cannot be written.
        """
        first = self.collisions[0]
        facts = {"features": self.features, "low": first.low, "high": first.high, "settings": dict(self.settings)}
        arrays = {name: np.stack([getattr(found, name) for found in self.collisions]) for name in _MEASURED}
        arrays |= {"neurons": self.neurons, "kept": self.kept, "correlation": self.correlation.astype(np.float16)}
        write_archive(path, _KIND, facts, arrays)

    @classmethod
    def load(cls, path: StrPath) -> CollisionSweep:
        """Read what `save` wrote; raises `ValueError` for another kind of file."""
        with reading_archive(path, _KIND) as (facts, arrays):
            n, window = int(facts["features"]), (float(facts["low"]), float(facts["high"]))
            return cls(
                n,
                arrays["neurons"],
                facts["settings"],
                tuple(
                    Collisions(*window, n, int(m), *(arrays[name][i] for name in _MEASURED))
                    for i, m in enumerate(arrays["neurons"])
                ),
                arrays["kept"],
                arrays["correlation"].astype(np.float32),
            )

    def _values(self, quantity: str) -> FloatArray:
        return np.array([getattr(found, quantity) for found in self.collisions], dtype=np.float64)

    def __repr__(self) -> str:
        widths = ", ".join(str(m) for m in self.neurons)
        return f"CollisionSweep({self.features} features, {widths} neurons, {self.instances} instances each)"


def collision_sweep(
    features: int,
    neurons: Any,
    *,
    instances: int = 16,
    penalty: float = 1e-3,
    steps: int = 7500,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    low: float = 0.8,
    high: float = 1.2,
    rng: Any = None,
    checkpoint: StrPath | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> CollisionSweep:
    r"""Train autoencoders of one-hot inputs with AdamW and an L1 penalty, and count the features that share a neuron.

    Minimised is :math:`\sum_i |\mathrm{ReLU}(W W^\top e_i) - e_i|^2 + \lambda |W|_1` from weights drawn from N(0, 1/m).

    Parameters
    ----------
    features : int
        n.
    neurons : int or sequence of int
        m of each width, all different.
    instances : int
        Networks of each width.
    penalty : float
        λ ≥ 0 of the loss, four times that of the flow. Without it no neuron is preferred, and counts mean nothing.
    steps, learning_rate, weight_decay
        Of AdamW (decay rates 0.9 and 0.999).
    low, high : float
        What counts as a large weight; see `count_collisions`.
    rng : numpy.random.Generator or seed, optional
        The start of a network depends on the seed, its width and its number alone.
    checkpoint : path, optional
        A folder that keeps the networks that are done, made if missing; a later call with the same settings and seed
        goes on from there, with more widths or instances if you like. Needs a seed.
    executor : concurrent.futures.Executor, optional
        Where networks are trained, four at a time; by default here, one after the other.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    CollisionSweep

    Raises
    ------
    ValueError
        For numbers out of range, the same width twice, a checkpoint of other settings, of another run that is at work,
        or without a seed.

    Notes
    -----
    The steps are those of AdamW on all weights until few are left that are not close to 0; then on these alone, see
    `capsolve.incidental.sparse_adamw`. Matrix products run on one thread, so that the collisions are the same
    however many processors there are; an executor of several processes uses these. On another kind of processor some
    features may end elsewhere: rounding decides between neurons that are all but equal. Memory: five arrays of n × m
    single precision numbers for each network in training, and four such arrays until its group of four is done.

    Examples
    --------
    >>> sweep = collision_sweep(8, [16, 64], instances=3, penalty=0.01, steps=1500, learning_rate=0.01, rng=0)
    >>> sweep.mean("opposite_pairs"), sweep.table()["expected_pairs"]
    (array([...]), array([0.875  , 0.21875]))

    References
    ----------
    arXiv 2312.03096, section 3; the defaults are those of the published experiment.
    """
    n = whole("features", features)
    widths = [whole("neurons", m) for m in (neurons if np.ndim(neurons) else [neurons])]
    if not widths or len(set(widths)) < len(widths):
        raise ValueError(f"neurons must be one or more different integers, got {widths}")
    count = whole("instances", instances)
    recipe = AdamWConfig(
        scalar("penalty", penalty, low=0.0),
        whole("steps", steps),
        scalar("learning_rate", learning_rate, low=0.0),
        scalar("weight_decay", weight_decay, low=0.0),
    )
    window = scalar("low", low, low=float(np.finfo(float).tiny)), scalar("high", high, low=low)
    show = flag("progress", progress)
    require_seed("a sweep", rng, checkpoint)
    seed = int(np.random.default_rng(rng).integers(2**63))
    facts = {"features": n, "low": window[0], "high": window[1], "seed": seed, **asdict(recipe)}
    store = None if checkpoint is None else Checkpoint(checkpoint, "a collision sweep", facts, fingerprint(facts))
    networks = {f"network-{m}-{number}": (m, number) for m in widths for number in range(count)}

    def cut(missing: list[str]) -> Iterator[tuple[list[str], Task]]:
        for m, names in groupby(missing, lambda name: networks[name][0]):
            alike = list(names)
            for together in (alike[i : i + _TOGETHER] for i in range(0, len(alike), _TOGETHER)):
                yield together, (n, m, tuple(networks[name][1] for name in together), recipe, window, seed)

    results = run(
        dict.fromkeys(networks, 1),
        cut,
        _networks,
        checkpoint=store,
        executor=executor,
        progress=show,
        unit="network",
        shapes=lambda _: {**dict.fromkeys((*_MEASURED, "kept"), ()), "capacity": (n,), "correlation": (n, n)},
    )
    done = {networks[name]: found for name, found in results}
    return _gather(n, widths, count, window, done, {**asdict(recipe), "seed": seed})


Task = tuple[int, int, tuple[int, ...], AdamWConfig, tuple[float, float], int]


def _networks(task: Task) -> list[Arrays]:
    """Train networks of one width and measure them."""
    n, m, numbers, recipe, window, seed = task
    starts = [start_weights(n, m, number, seed) for number in numbers]
    with one_blas_thread():  # training is chaotic: a sum that is shared out otherwise may end in other collisions
        ends = train(starts, recipe)
    found: list[Arrays] = []
    for start, end in zip(starts, ends, strict=True):
        counts = count_collisions(end, low=window[0], high=window[1])
        entry: Arrays = {name: np.asarray(getattr(counts, name)) for name in _MEASURED}
        entry["kept"] = same_winner(start, end)
        entry["correlation"] = start_end_correlation(start, end).astype(np.float16)
        found.append(entry)
    return found


def start_weights(features: int, neurons: int, number: int, seed: int) -> npt.NDArray[np.float32]:
    """Return the weights that a network starts from: the seed, its width and its number decide."""
    draw = np.random.default_rng([seed, neurons, number])
    return draw.standard_normal((features, neurons), dtype=np.float32) / np.float32(np.sqrt(neurons))


def _gather(
    n: int,
    widths: list[int],
    count: int,
    window: tuple[float, float],
    done: Mapping[tuple[int, int], Arrays],
    settings: Mapping[str, float],
) -> CollisionSweep:
    def together(m: int, name: str) -> npt.NDArray[Any]:
        return np.stack([done[m, i][name] for i in range(count)])

    def collisions(m: int) -> Collisions:
        return Collisions(*window, n, m, *(together(m, name) for name in _MEASURED))

    return CollisionSweep(
        n,
        np.array(widths),
        settings,
        tuple(map(collisions, widths)),
        np.stack([together(m, "kept") for m in widths]),
        np.stack([together(m, "correlation").mean(axis=0, dtype=np.float32) for m in widths]),
    )
