"""What a loss model needs to know of each feature: its importance and the kurtosis of its input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from capsolve import _checks
from capsolve._checks import FloatArray, ReadOnlyArrays
from capsolve.moments import Moments, measure

# E x⁴ / (E x²)² of symmetric distributions about zero
_KURTOSIS = {"uniform": 9 / 5, "gaussian": 3.0, "laplace": 6.0, "rademacher": 1.0}


@dataclass(frozen=True, eq=False, repr=False)
class Profile(ReadOnlyArrays):
    """Importance and kurtosis of n features: the data of an allocation problem.

    Parameters
    ----------
    importance : array_like, shape (n,)
        v_i ≥ 0, the factor of x_i² in the target Σ v_i x_i², for inputs x_i scaled to unit variance.
    kurtosis : float or array_like, shape (n,)
        κ_i = E x_i⁴ / (E x_i²)² ≥ 1 of the zero-mean input x_i: Pearson's, 3 for a Gaussian. One number
        stands for all features.
    names : sequence of str, optional
        A name for each feature; several may share one. By default, where the importances are a column of a data frame
        whose index does not just count, its index.
    moments : Moments, optional
        What the profile was measured from, where it was (see `from_activations`).

    The arrays are copies of what was given and cannot be written to.

    Raises
    ------
    ValueError
        If an entry is not a finite number in its range, lengths differ, or there is no feature.

    Examples
    --------
    >>> Profile([1.0, 0.5, 0.5], kurtosis=9.0, names=["a", "b", "c"])
    Profile(3 features, importance 0.5 … 1, kurtosis 9, named)
    """

    importance: FloatArray
    kurtosis: FloatArray
    names: tuple[str, ...] | None
    moments: Moments | None

    def __init__(
        self,
        importance: Any,
        kurtosis: Any,
        names: Iterable[str] | None = None,
        *,
        moments: Moments | None = None,
    ) -> None:
        v, k = _checks.importance_and_kurtosis(importance, kurtosis)
        if moments is not None and moments.mean.size != v.size:
            raise ValueError(f"moments must be of {v.size} features, got {moments.mean.size}")
        object.__setattr__(self, "importance", _frozen(v))
        object.__setattr__(self, "kurtosis", _frozen(k))
        names = index_names(importance) if names is None else names
        object.__setattr__(self, "names", None if names is None else _one_per_feature(names, v.size))
        object.__setattr__(self, "moments", moments)

    def __len__(self) -> int:
        return self.importance.size

    def __repr__(self) -> str:
        extra = ", named" * (self.names is not None) + ", measured" * (self.moments is not None)
        importance, kurtosis = _span(self.importance), _span(self.kurtosis)
        noun = "feature" if len(self) == 1 else "features"
        return f"Profile({len(self)} {noun}, importance {importance}, kurtosis {kurtosis}{extra})"

    @classmethod
    def from_activations(
        cls,
        activations: Any,
        *,
        importance: npt.ArrayLike | None = None,
        names: Iterable[str] | None = None,
        progress: bool = False,
    ) -> Profile:
        """Measure a profile from samples of the features, in one pass and in bounded memory.

        The activations are centred and scaled: a feature of variance σ² with a unit readout is, in terms of
        inputs of unit variance, one of importance σ², and its kurtosis is that of x − E x. All moments are
        computed in float64 in a way that neither a large mean nor an extreme scale harms; dense samples give
        the same result to the last bit however they are cut into chunks.

        Parameters
        ----------
        activations : array, sparse matrix, or iterable of them; data frame; path or list of paths
            Anything that is cut by rows, shape (samples, n): NumPy arrays of any real dtype, memory-mapped ones
            included, datasets of h5py and the like, SciPy's sparse arrays and matrices, tensors of PyTorch (sparse
            ones, 16-bit ones, on any device, with gradients), nested lists. It is read in blocks of 2²⁰ values (at
            least 64 rows) by up to four threads, so a file larger than the memory will do: 50 MB and 500 numbers per
            feature are at work, and next to nothing where float32 or float64 lie in memory or in a mapped file. From
            2²⁵ values on the sums are compiled by Numba, if that is there. Sparse ones take time in proportion to
            their stored entries. Arrays of shape (batch, position, n) hold batch × position samples. Files are read
            as `capsolve.read_activations` does, and what that returns will do too; it has options for files that
            can be read in several ways.
        importance : array_like, shape (n,), optional
            Used as it is. By default the variance of each feature.
        names : iterable of str, optional
            A name for each feature; by default those in the file or data frame.
        progress : bool
            Show a progress bar on standard error.

        Returns
        -------
        Profile
            Its `moments` hold what was measured: mean, variance, kurtosis with its standard error, density. A
            feature that never varies has no kurtosis: it gets importance 0 and the kurtosis 3, and
            ``moments.constant`` says so.

        Raises
        ------
        ValueError
            If there are fewer than 30 samples; an entry is NaN, infinite or beyond ±2¹⁰⁰⁰ (its row and column
            are named); the data are not of two or three axes and real, or chunks differ in width; a positive
            importance is given to a feature that never varies; or a variance is outside the range of float64
            and no importance is given.

        Examples
        --------
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x = rng.laplace(scale=[1.0, 2.0], size=(100_000, 2)) * (rng.random((100_000, 2)) < 0.5)
        >>> profile = Profile.from_activations(x)
        >>> profile.importance.round(2)  # E x² of a Laplace distribution is twice its scale squared
        array([0.99, 3.96])
        >>> profile.kurtosis.round(1), profile.moments.kurtosis_error.round(1)  # 6/density = 12
        (array([12.1, 11.9]), array([0.3, 0.2]))
        """
        from capsolve.files.activations import as_activations  # noqa: PLC0415

        given = as_activations(activations)
        names = given.names if names is None else tuple(names)
        try:
            return cls._measured(given.data, importance, names, progress)
        except ValueError as error:
            if not given.sources or any(str(source) in str(error) for source in given.sources):
                raise
            more = f" and {len(given.sources) - 1} more" * (len(given.sources) > 1)
            raise ValueError(f"{given.sources[0]}{more}: {error}") from None

    @classmethod
    def _measured(
        cls, data: Any, importance: npt.ArrayLike | None, names: tuple[str, ...] | None, progress: bool
    ) -> Profile:
        moments = measure(data, progress=progress)
        if importance is None:
            lost = ~moments.constant & ~((moments.variance > 0) & np.isfinite(moments.variance))
            _refuse(
                lost,
                names,
                "have a variance outside the range of float64: rescale them or give their importance",
            )
            return cls(moments.variance, moments.kurtosis, names, moments=moments)
        v = _checks.real_array("importance", importance, ndim=1)
        if v.shape != moments.mean.shape:
            raise ValueError(
                f"importance must have one entry per feature: {moments.mean.size} features, got {v.size} entries"
            )
        profile = cls(v, moments.kurtosis, names, moments=moments)
        _refuse(
            moments.constant & (profile.importance > 0),
            names,
            "never vary, so their kurtosis is undefined: their importance must be 0",
        )
        return profile

    @classmethod
    def from_distribution(
        cls,
        distribution: Any,
        *,
        importance: npt.ArrayLike,
        sparsity: npt.ArrayLike = 0.0,
        names: Iterable[str] | None = None,
    ) -> Profile:
        """Make a profile of inputs that are zero with probability S and follow a distribution otherwise.

        Such an input has the kurtosis κ₀ / (1 − S), where κ₀ is that of the distribution.

        Parameters
        ----------
        distribution : {"uniform", "gaussian", "laplace", "rademacher"} or a frozen distribution of
        scipy.stats
            Of mean zero, for the theory is about inputs of mean zero. Its scale does not matter. By name, κ₀
            is 9/5, 3, 6 and 1; the uniform distribution is that on [−1, 1], and "rademacher" is ±1 with equal
            probability.
        importance : array_like, shape (n,)
            v_i ≥ 0, the factor of x_i² in the target for inputs x_i scaled to unit variance, zeros included.
        sparsity : float or array_like, shape (n,)
            S, the probability of zero, 0 ≤ S < 1.
        names : iterable of str, optional
            A name for each feature.

        Raises
        ------
        ValueError
            If the name is unknown, the distribution has a mean other than zero, no variance or no finite
            fourth moment, or the sparsity is outside [0, 1).

        Examples
        --------
        >>> Profile.from_distribution("uniform", sparsity=0.9, importance=power_law(100, 1.0))
        Profile(100 features, importance 0.01 … 1, kurtosis 18)
        >>> from scipy import stats
        >>> Profile.from_distribution(stats.t(df=10), importance=[2.0, 1.0]).kurtosis
        array([4., 4.])
        """
        s = _checks.real_array("sparsity", sparsity)
        _checks.at_least("sparsity", s, 0.0)
        if (s >= 1).any():
            raise ValueError(f"sparsity must be < 1, got {s.max()!s}")
        v = _checks.real_array("importance", importance, ndim=1)
        base = _kurtosis_of(distribution)
        for name, value in (("sparsity", s), ("the distribution's kurtosis", base)):
            if value.ndim > 1 or value.size not in (1, v.size):
                raise ValueError(f"{name} must be one number or {v.size}, one per feature, got shape {value.shape}")
        # the checks cannot be left to Profile: there, kurtosis is an argument that the caller never gave
        return cls(v, base / (1 - s), index_names(importance) if names is None else names)


def is_profile(value: Any) -> bool:
    """Return whether ``value`` is a profile, in memory or not."""
    return all(hasattr(value, name) for name in ("importance", "kurtosis", "names"))


def problem_of(importance: Any, kurtosis: Any, dimensions: Any) -> tuple[Any, Any, tuple[str, ...] | None]:
    """Return importance, kurtosis and names of a problem given as a profile, in memory or not, or as arrays."""
    names = index_names(importance)
    if is_profile(importance):
        if kurtosis is not None:
            raise ValueError("a profile has its own kurtosis: name what comes after it, as in (profile, dimensions=16)")
        importance, kurtosis, names = importance.importance, importance.kurtosis, importance.names
    for name, value in (("kurtosis", kurtosis), ("dimensions", dimensions)):
        if value is None:
            raise ValueError(f"{name} must be given: importance, kurtosis and dimensions, or a profile and dimensions")
    return importance, kurtosis, names


def power_law(features: int, exponent: float) -> FloatArray:
    """Return the importances v_i = i^−exponent, i = 1 … features, shape (features,).

    Raises `ValueError` unless ``features`` is an integer ≥ 1 and ``exponent`` is ≥ 0.

    >>> power_law(4, 1.0)
    array([1.        , 0.5       , 0.33333333, 0.25      ])
    """
    return np.arange(1.0, _checks.whole("features", features) + 1) ** -_checks.scalar("exponent", exponent, low=0.0)


def exponential(features: int, rate: float) -> FloatArray:
    """Return the importances v_i = exp(−rate · (i − 1)), i = 1 … features, shape (features,).

    Raises `ValueError` unless ``features`` is an integer ≥ 1 and ``rate`` is ≥ 0. Importances below 5e-324
    are 0.

    >>> exponential(3, 0.5)
    array([1.        , 0.60653066, 0.36787944])
    """
    return np.exp(-_checks.scalar("rate", rate, low=0.0) * np.arange(float(_checks.whole("features", features))))


def _kurtosis_of(distribution: Any) -> FloatArray:
    if isinstance(distribution, str):
        if distribution not in _KURTOSIS:
            raise ValueError(f"distribution must be one of {', '.join(_KURTOSIS)}, got {distribution!r}")
        return np.asarray(_KURTOSIS[distribution])
    try:
        mean, variance, excess = (np.asarray(m, dtype=np.float64) for m in distribution.stats(moments="mvk"))
    except (AttributeError, TypeError):
        raise ValueError(
            f"distribution must be one of {', '.join(_KURTOSIS)} or a frozen distribution of scipy.stats, "
            f"such as scipy.stats.norm(0, 1), got {distribution!r}"
        ) from None
    if not (np.isfinite(variance).all() and (variance > 0).all() and np.isfinite(excess).all()):
        raise ValueError(
            "distribution must have a variance > 0 and a finite fourth moment, got "
            f"variance {variance!s} and excess kurtosis {excess!s}"
        )
    # SciPy integrates numerically where it knows no formula: zero is zero to its accuracy
    if not (np.abs(mean) <= 1e-8 * np.sqrt(variance)).all():
        raise ValueError(f"distribution must have mean zero, got {mean!s}: shift it with loc=")
    return np.maximum(excess + 3.0, 1.0)


def _frozen(array: FloatArray) -> FloatArray:
    copy = np.array(array, dtype=np.float64)
    copy.setflags(write=False)
    return copy


def index_names(column: Any) -> tuple[str, ...] | None:
    """Return the index of a column of a data frame, unless it counts the rows."""
    index = getattr(column, "index", None)
    if index is None or callable(index):  # a list has a method of that name
        return None
    names = tuple(str(label) for label in index)
    return None if names == tuple(map(str, range(len(names)))) else names


def _one_per_feature(names: Iterable[str], features: int) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ValueError(f"names must be one string per feature, got the single string {_checks.shown(repr(names))}")  # noqa: TRY004
    names = tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"names must be strings, got {_checks.shown(name)}")  # noqa: TRY004
    if len(names) != features:
        raise ValueError(f"names must have one entry per feature: {features} features, got {len(names)} names")
    return tuple(map(str, names))


def _refuse(bad: npt.NDArray[np.bool_], names: tuple[str, ...] | None, what: str) -> None:
    """Raise a `ValueError` that lists the first bad columns and says what is wrong with them."""
    if bad.any():
        columns = np.flatnonzero(bad).tolist()
        which = _checks.listed(names[i] if names else str(i) for i in columns)
        raise ValueError(f"columns {which} ({len(columns)} in all) {what}")


def _span(array: FloatArray) -> str:
    low, high = array.min(), array.max()
    return f"{low:.4g}" if low == high else f"{low:.4g} … {high:.4g}"
