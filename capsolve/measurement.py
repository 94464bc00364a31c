"""Measure an embedding that exists: what share of the dimensions each feature has, and what it would have at best."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray, former_property, renamed, scalar
from capsolve.allocation import Allocation, Phase, solve
from capsolve.files.activations import read_activations
from capsolve.files.weights import Axis, Weights, from_array, open_weights
from capsolve.geometry.blocks import Block, find_blocks
from capsolve.geometry.capacities import random_capacity
from capsolve.geometry.second_moment import SecondMoment
from capsolve.losses.quadratic import QuadraticLoss
from capsolve.profile import Profile, index_names

# Unit roundoff of the stored numbers, and the least that orthogonality is tested to.
_ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float8_e4m3fn": 2.0**-4, "float8_e5m2": 2.0**-3}
_ORTHOGONAL = 1e-5

# Blocks are sought where W takes 1.6 GB at most, and where that takes some seconds at most if there are several.
_BLOCKS_NUMBERS = 3 * 2**26
_BLOCKS_WORK = 2**39
_WIDE = 2**14  # dimensions beyond which, with fewer features than those, the orientation must be wrong


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """A measured embedding beside the optimum for the features' own importance and kurtosis.

    The theory is about inputs of unit variance. A feature of standard deviation σ_i that is written along w_i is one of
    unit variance along σ_i w_i, so it is these rows whose capacities compete (Scherlis et al., arXiv 2210.01892).

    Attributes
    ----------
    profile : Profile
        Importance v_i and kurtosis κ_i: measured from activations, v_i = σ_i².
    capacity : (n,) array
        The capacities of the rows σ_i w_i: the squared correlation between x_i and (W Wᵀ x)_i, its readout, for
        independent features (App. E).
    squared_norm : (n,) array
        |σ_i w_i|².
    allocation : Allocation
        The optimum for the same profile in the same number of dimensions.
    """

    profile: Profile
    capacity: FloatArray
    squared_norm: FloatArray
    allocation: Allocation

    left = former_property("left", "relative_suboptimality")
    worst = former_property("worst", "zero_loss")
    embedding_left = former_property("embedding_left", "embedding_suboptimality")

    @property
    def _model(self) -> QuadraticLoss:
        return cast(QuadraticLoss, self.allocation.model)  # of a Profile, which holds NumPy arrays

    @cached_property
    def loss(self) -> float:
        """Σ f_i(C_i): no embedding with these capacities has a smaller loss in the quadratic model.

        Each feature's part is taken at the length of its row that is best for its capacity. There need not be an
        embedding that has all of them at once, so its suboptimality is at least ``loss − allocation.loss``.
        """
        return float(np.sum(self._model.feature_loss(self.capacity)))

    @cached_property
    def embedding_loss(self) -> float:
        """The loss of the embedding itself, times the one factor that makes it smallest.

        With m_i = |σ_i w_i|² the interference of feature i with all others is m_i² (1/C_i − 1), so the loss at s W is
        Σ (κ_i − 1)(v_i − s² m_i)² + 2 s⁴ m_i² (1/C_i − 1), a parabola in s².
        """
        v, k = self.profile.importance, self.profile.kurtosis
        represented = self.capacity > 0.0
        unit = max(float(np.max(self.squared_norm)), np.finfo(float).tiny)
        m = self.squared_norm / unit
        spread = np.where(represented, 1.0 / np.where(represented, self.capacity, 1.0) - 1.0, 0.0)
        slope = float(np.sum((k - 1.0) * v * m))
        curve = float(np.sum(m**2 * (k - 1.0 + 2.0 * spread)))
        square = slope / curve if curve > 0.0 else 0.0
        return float(np.sum((k - 1.0) * (v - square * m) ** 2 + 2.0 * (square * m) ** 2 * spread))

    @cached_property
    def zero_loss(self) -> float:
        """The loss of representing nothing, Σ v_i² (κ_i − 1)."""
        return float(np.sum(self._model.feature_loss(np.zeros(self.capacity.size))))

    @property
    def relative_suboptimality(self) -> float:
        """The share of what the optimum saves that these capacities cannot save, 0 … 1: the suboptimality."""
        return self._share(self.loss)

    @property
    def embedding_suboptimality(self) -> float:
        """The same for the embedding itself, times its best factor; at least `relative_suboptimality`."""
        return self._share(self.embedding_loss)

    @cached_property
    def correlation(self) -> float:
        """Pearson's correlation of measured and allocated capacities; NaN if either are all equal."""
        if np.ptp(self.capacity) == 0.0 or np.ptp(self.allocation.capacity) == 0.0:
            return float("nan")
        return float(np.corrcoef(self.capacity, self.allocation.capacity)[0, 1])

    def _share(self, loss: float) -> float:
        best = self.allocation.loss
        return min(max((loss - best) / (self.zero_loss - best), 0.0), 1.0) if self.zero_loss > best else 0.0


@dataclass(frozen=True, eq=False, repr=False)
class Measurement:
    """What `measure` found: the capacities of an embedding W, shape (n, D), and the spectrum of M = WᵀW.

    Attributes
    ----------
    weights : Weights
        Where W came from: path, key, stored type, and which axis counts the features and why.
    capacity : (n,) array
        C_i, in dimensions.
    squared_norm : (n,) array
        |w_i|².
    spectrum : (D,) array
        The eigenvalues of M, largest first. An efficient embedding has one value τ per block, repeated as many times as
        the block has dimensions; a tight frame has only one value.
    rank : int
        The number of singular values of W above D·eps times the largest, eps being 2⁻⁵² if W is stored as float64, else
        2⁻²³. They are found from W: M has their squares, and rounding errors where those are small.
    tolerance : float
        How far from 1 and from nothing a capacity may be to count as such, see `phase`.
    blocks : tuple of Block or None
        The orthogonal blocks at the accuracy of the stored numbers (`capsolve.blocks`), where n·D ≤ 3·2²⁶ and
        n·D² ≤ 2³⁹; None beyond.
    names : tuple of str or None
        The features' names, where the activations have any, or the data frame that was measured.
    comparison : Comparison or None
        The optimum beside it, where activations were given.
    """

    weights: Weights
    capacity: FloatArray
    squared_norm: FloatArray
    spectrum: FloatArray
    rank: int
    tolerance: float
    blocks: tuple[Block, ...] | None = None
    names: tuple[str, ...] | None = None
    comparison: Comparison | None = None

    total = former_property("total", "total_capacity")
    random = former_property("random", "random_baseline")

    @property
    def features(self) -> int:
        """The number of features, n."""
        return self.weights.shape[0]

    @property
    def dimensions(self) -> int:
        """The number of dimensions, D."""
        return self.weights.shape[1]

    @cached_property
    def total_capacity(self) -> float:
        """Σ C_i, at most the rank of W."""
        return float(np.sum(self.capacity))

    @property
    def efficiency(self) -> float:
        """Σ C_i / D."""
        return self.total_capacity / self.dimensions

    @property
    def random_baseline(self) -> float:
        """Σ C_i of as many random directions, nD/(n + D − 1): the null."""
        return random_capacity(self.features, self.dimensions)

    @cached_property
    def effective_dimensions(self) -> float:
        """(Σ λ)² / Σ λ² over the eigenvalues of M: D for a tight frame, 1 if all rows are parallel."""
        relative = self.spectrum / (self.spectrum[0] or 1.0)
        squares = float(np.sum(relative**2))
        return float(np.sum(relative)) ** 2 / squares if squares else 0.0

    @cached_property
    def phase(self) -> npt.NDArray[np.int8]:
        """The `Phase` of every feature as small integers, shape (n,).

        Monosemantic where C ≥ 1 − tolerance. Ignored where C ≤ tolerance · D/(n + D − 1), that share of what a random
        direction has; zero rows among them. Polysemantic in between.
        """
        phase = np.full(self.features, Phase.POLYSEMANTIC, dtype=np.int8)
        phase[self.capacity <= self.tolerance * self.random_baseline / self.features] = Phase.IGNORED
        phase[self.capacity >= 1.0 - self.tolerance] = Phase.MONOSEMANTIC
        return phase

    def counts(self) -> dict[str, int]:
        """Return the number of features in each phase."""
        found = np.bincount(self.phase, minlength=len(Phase))
        return {phase.name.lower(): int(found[phase]) for phase in Phase}

    def extremes(self, count: int = 5) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the indices of the least and of the most monosemantic features, the extreme ones first."""
        order = np.argsort(self.capacity, kind="stable")
        return order[:count], order[::-1][:count]

    def histogram(self, bins: int = 10) -> tuple[npt.NDArray[np.intp], FloatArray]:
        """Return the number of features in each of so many equal bins from 0 to the largest capacity, and the edges."""
        return np.histogram(self.capacity, bins=bins, range=(0.0, float(self.capacity.max()) or 1.0))

    def label(self, feature: int) -> str:
        """Return what to call a feature: its name, or its index."""
        return self.names[feature] if self.names is not None else str(feature)

    def summary(self) -> str:
        """Return a table for people."""
        n, D, counts = self.features, self.dimensions, self.counts()
        stored = f"stored as {self.weights.dtype}, features are {self.weights.features}: {self.weights.reason}"
        lines = [f"{self.weights.name}: {n} features in {D} dimensions", f"({stored})", ""]
        lines.append(f"{'phase':<14}{'features':>10}{'capacity':>12}{'share':>9}")
        for phase in reversed(Phase):
            taken = float(self.capacity[self.phase == phase].sum())
            share = taken / self.total_capacity if self.total_capacity else 0.0
            lines.append(f"{phase.name.lower():<14}{counts[phase.name.lower()]:>10}{taken:>12.6g}{share:>9.1%}")
        few = self.tolerance * self.random_baseline / n
        lines += [
            f"monosemantic: C >= {1 - self.tolerance:g}; ignored: C <= {few:.3g}",
            "",
            f"total capacity       {self.total_capacity:.6g} of {D}: efficiency {self.efficiency:.4f}",
            f"random directions    {self.random_baseline:.6g} of {D}: efficiency {self.random_baseline / D:.4f}",
            f"rank                 {self.rank}, {self.effective_dimensions:.6g} effective dimensions",
            "",
            *self._histogram(),
            "",
            *self._spectrum(),
            *self._blocks(),
            "",
        ]
        for title, which in zip(("least", "most"), self.extremes(), strict=True):
            listed = ", ".join(f"{self.label(int(i))} ({self.capacity[i]:.4g})" for i in which)
            lines.append(f"{title} monosemantic: {listed}")
        return "\n".join(lines + self._comparison())

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement as columns of equal length, ready for a CSV or Parquet file or a data frame.

        Columns: name (if there are any), feature (the index), capacity, phase, squared_norm. With activations also
        importance, kurtosis, active_capacity (of the rows σ_i w_i), allocated (the optimal capacity), loss and
        allocated_loss (each feature's part at the two).
        """
        columns: dict[str, Any] = {} if self.names is None else {"name": list(self.names)}
        columns["feature"] = np.arange(self.features)
        columns["capacity"] = self.capacity
        columns["phase"] = [Phase(p).name.lower() for p in self.phase.tolist()]
        columns["squared_norm"] = self.squared_norm
        if self.comparison is not None:
            given, best, model = self.comparison, self.comparison.allocation, self.comparison._model
            columns |= {
                "importance": given.profile.importance,
                "kurtosis": given.profile.kurtosis,
                "active_capacity": given.capacity,
                "allocated": best.capacity,
                "loss": model.feature_loss(given.capacity),
                "allocated_loss": model.feature_loss(best.capacity),
            }
        return columns

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in reversed(self.counts().items()))
        problem = f"{self.features} features in {self.dimensions} dimensions"
        return f"Measurement({problem}: {counts}; total={self.total_capacity:.6g}, efficiency={self.efficiency:.4g})"

    def _histogram(self) -> list[str]:
        counts, edges = self.histogram()
        lines = [f"{'capacity':<20}{'features':>10}"]
        for count, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
            bar = "#" * round(40 * count / max(counts))
            lines.append(f"{f'{low:.3g} - {high:.3g}':<20}{count:>10}  {bar}".rstrip())
        return lines

    def _spectrum(self) -> list[str]:
        mean = float(self.spectrum.mean())
        low, middle, high = np.quantile(self.spectrum, [0.0, 0.5, 1.0]) / (mean or 1.0)
        return [
            f"spectrum of M = WᵀW  mean {mean:.4g}; smallest {low:.4g}, median {middle:.4g}, largest {high:.4g} of that"
        ]

    def _blocks(self) -> list[str]:
        if self.blocks is None:
            return ["orthogonal blocks    not sought: W is too large"]
        found = Counter(block.name for block in self.blocks)
        listed = ", ".join(f"{count} {name}" for name, count in found.most_common())
        return [f"orthogonal blocks    {listed or 'none'}"]

    def _comparison(self) -> list[str]:
        if self.comparison is None:
            return []
        given, best = self.comparison, self.comparison.allocation
        optimal = best.counts()
        return [
            "",
            f"{'with the activations':<34}{'measured':>12}{'optimal':>12}",
            f"{'total capacity':<34}{float(given.capacity.sum()):>12.6g}{float(best.capacity.sum()):>12.6g}",
            f"{'monosemantic':<34}{self._monosemantic(given.capacity):>12}{optimal['monosemantic']:>12}",
            f"{'loss at these capacities, at least':<34}{given.loss:>12.6g}{best.loss:>12.6g}",
            f"{'loss of the embedding, best scale':<34}{given.embedding_loss:>12.6g}",
            f"correlation of capacities {given.correlation:.4f}; the optimum is {best.status.value}",
            f"suboptimality: at least {given.relative_suboptimality:.1%} of the loss that the optimum saves",
        ]

    def _monosemantic(self, capacity: FloatArray) -> int:
        return int(np.count_nonzero(capacity >= 1.0 - self.tolerance))


def measure(
    source: Any,
    *,
    key: str | None = None,
    feature_axis: str | int | None = None,
    part: int | None = None,
    activations: Any = None,
    activations_key: str | None = None,
    tolerance: float = 0.01,
    progress: bool = False,
    features: str | None = None,
) -> Measurement:
    """Measure the capacities of an embedding, in a file of any size or in memory.

    The file is read twice, in blocks: once for M = WᵀW and once for C_i = |w_i|⁴ / (w_iᵀ M w_i); once more where M
    cannot tell the rank. With activations the first two passes are made again, for the rows σ_i w_i.

    Parameters
    ----------
    source : path or array_like
        A .safetensors, .npz, .npy, .pt, .pth, .bin or .ckpt file, the .index.json file of a model in several files, a
        folder that has one, or a matrix in memory, of any library.
    key : str, optional
        Which matrix of the file; by default its decoder. See `capsolve.files.weights.open_weights`.
    feature_axis : {"rows", "columns"} or {-2, -1}, optional
        What stands for a feature, as a word or as the axis that counts features in `capsolve.capacities`. In a file
        this is known from the configuration and the biases beside the matrix, from the layouts of projects or from the
        number of activations; else the longer axis is taken, and ``measurement.weights.guessed`` says so, with a
        warning if these are the columns. In memory rows are features; an array with more columns than rows needs this
        argument, for by the longer axis these would be features too.
    part : int, optional
        Which matrix of an array with three axes in a file: one of several toy models, one layer of a crosscoder.
    activations : path, array_like or Profile, optional
        Samples of the features, one column for each, or a file of these (see `capsolve.read_activations`): the optimum
        for their importance and kurtosis is put beside what was measured. A profile without moments stands for
        inputs of unit variance.
    activations_key : str, optional
        Which array of a file of activations that has several.
    tolerance : float
        In (0, 0.5]: how near to 1, or to nothing, a capacity counts as such. See `Measurement.phase`.
    progress : bool
        Show a progress bar on standard error.
    features
        Former name of ``feature_axis``.

    Returns
    -------
    Measurement

    Raises
    ------
    ValueError
        If the matrix cannot be found or read, its entries are not finite, its orientation contradicts cfg.json or
        cannot be told, or the activations are not of as many features.
    OSError
        If a file is missing or unreadable.
    ImportError
        If an optional library is missing; it names the extra to install.

    Notes
    -----
    O(nD²) time, and memory for O(D²) numbers, a block of rows and the n answers. Numbers of 16 and 32 bits are
    multiplied in float32: see `capsolve.capacities` for what that costs.

    Examples
    --------
    >>> import capsolve
    >>> W = capsolve.solve([2, 1, 1, 1, 1, 1], kurtosis=9.0, dimensions=3).embedding()
    >>> found = measure(W)
    >>> found
    Measurement(6 features in 3 dimensions: 1 monosemantic, 5 polysemantic, 0 ignored; total=3, efficiency=1)
    >>> [block.name for block in found.blocks]
    ['monosemantic', 'large block']
    """
    tolerance = scalar("tolerance", tolerance, low=0.0, high=0.5)
    if tolerance == 0.0:
        raise ValueError("tolerance must be > 0: measured capacities are never exactly 1")
    if features is not None:
        renamed("features=", "feature_axis=")
        feature_axis = features
    samples = None if activations is None else _samples(activations, activations_key)
    count = None if samples is None else samples.width
    if isinstance(source, str | os.PathLike):
        weights = open_weights(source, key=key, feature_axis=feature_axis, part=part, count=count)
    elif key is not None or part is not None:
        raise ValueError(f"key and part are for files, got {key!r} and {part!r}")
    else:
        weights = from_array(source, feature_axis, count)
    n, D = weights.shape
    if n < D > _WIDE:
        other = "columns" if weights.features == "rows" else "rows"
        raise ValueError(f"{weights.name}: {n} features in {D} dimensions is no embedding; are the features {other}?")
    if weights.guessed and weights.features == "columns":
        warnings.warn(f"{weights.name}: {weights.guess}; if they are not, use feature_axis=", stacklevel=2)
    profile = None if samples is None else _profile(samples, n, progress)
    try:
        found = _measurement(weights, profile, tolerance, progress)
    except MemoryError:
        raise MemoryError(f"{weights.name}: there is not enough memory for {n} features in {D} dimensions") from None
    labels = index_names(source if weights.features == "rows" else getattr(source, "T", None))
    return replace(found, names=labels) if found.names is None else found


def _measurement(weights: Weights, profile: Profile | None, tolerance: float, progress: bool) -> Measurement:
    n, D = weights.shape
    passes = 2 if profile is None else 4
    with _bar(passes * n, progress) as bar:
        capacity, squared_norm, moment = _stream(weights, None, bar)
        comparison = None
        if profile is not None:
            moments = profile.moments
            deviation = np.ones(n) if moments is None else np.sqrt(moments.variance)
            active, square, _ = _stream(weights, deviation, bar)
            comparison = Comparison(profile, active, square, solve(profile, dimensions=D))
    eps = float(np.finfo(np.float64 if weights.dtype == "float64" else np.float32).eps)
    rank = moment.rank(weights.blocks(), eps)
    names = None if profile is None else profile.names
    spectrum = moment.spectrum()
    spectrum.setflags(write=False)
    found = None
    if n * D <= _BLOCKS_NUMBERS and n * D * D <= _BLOCKS_WORK:
        accuracy = max(_ORTHOGONAL, 4 * _ROUNDOFF.get(weights.dtype, 0.0))
        found = find_blocks(np.concatenate(list(weights.blocks())), accuracy, capacity, lambda: spectrum)
    return Measurement(weights, capacity, squared_norm, spectrum, rank, tolerance, found, names, comparison)


def _stream(weights: Weights, factor: FloatArray | None, bar: Any) -> tuple[FloatArray, FloatArray, SecondMoment]:
    """Return the capacities, squared lengths and second moment of the rows, each times its factor."""
    moment = SecondMoment()
    for block in _blocks(weights, factor):
        moment.add(block)
        bar.update(len(block))
    capacity, square = [], []
    for block in _blocks(weights, factor):
        capacity.append(np.asarray(moment.capacities(block), dtype=np.float64))
        square.append(np.einsum("ij,ij->i", block, block, dtype=np.float64))
        bar.update(len(block))
    arrays = np.concatenate(capacity), np.concatenate(square)
    for array in arrays:
        array.setflags(write=False)
    return *arrays, moment


def _blocks(weights: Weights, factor: FloatArray | None) -> Iterator[npt.NDArray[Any]]:
    start = 0
    for block in weights.blocks():
        yield block if factor is None else block * factor[start : start + len(block), None].astype(block.dtype)
        start += len(block)


@dataclass(frozen=True)
class _Samples:
    """Activations, or what is known of them, and how many features they have, where that can be told at once."""

    where: str
    data: Any
    names: tuple[str, ...] | None
    width: int | None


def _samples(activations: Any, key: str | None) -> _Samples:
    where, data, names = "activations", activations, None
    if isinstance(activations, Profile):
        return _Samples(where, data, names, len(activations))
    if isinstance(activations, str | os.PathLike):
        opened = read_activations(activations, key=key)
        where, data, names = str(activations), opened.data, opened.names
    shape = getattr(data, "shape", ())
    return _Samples(where, data, names, len(names) if names is not None else shape[-1] if shape else None)


def _profile(samples: _Samples, features: int, progress: bool) -> Profile:
    """Return the profile of the activations of that many features."""
    where, data, width = samples.where, samples.data, samples.width
    if width not in (None, features):  # before reading them all
        raise _mismatch(where, width, features)
    if isinstance(data, Profile):
        return data
    try:
        profile = Profile.from_activations(data, names=samples.names, progress=progress)
    except ValueError as error:
        raise error if where in str(error) else ValueError(f"{where}: {error}") from None
    if len(profile) != features:
        raise _mismatch(where, len(profile), features)
    return profile


def _mismatch(where: str, width: int | None, features: int) -> ValueError:
    return ValueError(f"{where}: must have one column per feature: {features} features, got {width} columns")


def _bar(total: int, show: bool) -> Any:
    from tqdm import tqdm  # noqa: PLC0415

    return tqdm(total=total, unit=" features", unit_scale=True, disable=not show)


__all__ = ["Axis", "Comparison", "Measurement", "measure"]
