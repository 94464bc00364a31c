"""Phase diagrams found numerically: embeddings by descent, or trained networks, cell by cell."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from capsolve._checks import FloatArray, IndexArray, flag, scalar, whole
from capsolve._threads import one_blas_thread
from capsolve.diagrams.agreement import Agreement, compare
from capsolve.diagrams.analytic import PhaseDiagram, phase_of, solved
from capsolve.diagrams.axes import KNOWN, Axis, restored_axes, stored_axes
from capsolve.diagrams.problems import Problems, problems_over
from capsolve.files._paths import StrPath
from capsolve.files.archives import reading_archive, write_archive
from capsolve.files.checkpoints import Checkpoint, fingerprint, require_seed, run
from capsolve.files.tensors import Arrays

_KIND = "an empirical phase diagram of capsolve"
_ARRAYS = ("capacities", "loss", "agreeing", "embedding")
_FEW, _MANY = 2, 16  # starts of descent where the loss is convex in the capacities, and where it is not
_INSTANCES = 4  # of a network
_BATCH = 50  # cells that are computed, and stored, together
QUADRATIC = "quadratic"


@dataclass(frozen=True, eq=False, repr=False)
class EmpiricalPhaseDiagram:
    """Embeddings found in every cell; arrays have the shape (y values, x values, ...) and are read-only.

    Attributes
    ----------
    x, y : Axis
    model : str
        "quadratic" for optimised embeddings, or the sort of network that was trained.
    capacities : (ny, nx, n) array
        C_i of every feature in the embedding with the least loss; NaN for features that a cell does not have, and where
        every training diverged.
    loss : (ny, nx) array
        The least loss.
    agreeing : (ny, nx) array
        The share of starts that ended within 1e-9 (networks: 1e-3) of the least loss, relatively.
    embedding : (ny, nx, n, D) array
        That embedding; NaN beyond the features and dimensions of a cell.
    tolerance : float
        A feature counts as ignored below this capacity and as monosemantic above 1 minus it.
    tracked : int
        The feature that ``capacity`` is about.
    description : str
        What is the same in all cells.
    """

    x: Axis
    y: Axis
    model: str
    capacities: FloatArray
    loss: FloatArray
    agreeing: FloatArray
    embedding: FloatArray
    tolerance: float
    tracked: int
    description: str
    problems: Problems | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.y.values.size, self.x.values.size

    @property
    def capacity(self) -> FloatArray:
        """The capacity of the tracked feature, shape (ny, nx)."""
        return self.capacities[..., self.tracked]

    @property
    def phase(self) -> npt.NDArray[np.int8]:
        """The `Phase` of every feature, shape (ny, nx, n), to within the tolerance; −1 where there is no capacity."""
        return phase_of(self.capacities, self.tolerance)

    def compare(self, analytic: PhaseDiagram | None = None, *, strip: float = 1.0) -> Agreement:
        """Hold the capacities of the tracked feature against the theory's, see `Agreement`.

        Parameters
        ----------
        analytic : PhaseDiagram, optional
            One over the same values; by default it is solved, but a diagram from a file does not know its problems and
            needs it.
        strip : float
            Cells as near as this to a line where the capacity jumps, in cells, are left out: two optima all but tie
            there.

        Raises
        ------
        ValueError
            If the axes differ, or there is nothing to solve.
        """
        if analytic is None:
            if self.problems is None:
                raise ValueError("analytic is needed: a diagram from a file does not know the problems of its cells")
            analytic = solved(self.problems, self.x, self.y, self.tracked, 1e-9)
        return compare(self.x, self.y, self.capacity, self.tolerance, analytic, strip)

    def save(self, path: StrPath) -> None:
        """Write everything to a NumPy .npz file, which replaces an older one as a whole."""
        facts, arrays = stored_axes(self.x, self.y)
        facts |= {name: getattr(self, name) for name in ("model", "tolerance", "tracked", "description")}
        write_archive(path, _KIND, facts, arrays | {name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, path: StrPath) -> EmpiricalPhaseDiagram:
        """Read what `save` wrote; raises `ValueError` for another kind of file."""
        with reading_archive(path, _KIND) as (facts, arrays):
            x, y = restored_axes(facts, arrays)
            return cls(
                x,
                y,
                str(facts["model"]),
                **{name: arrays[name] for name in _ARRAYS},
                tolerance=float(facts["tolerance"]),
                tracked=int(facts["tracked"]),
                description=str(facts["description"]),
            )

    def __repr__(self) -> str:
        ny, nx = self.shape
        lost = int(np.count_nonzero(np.isnan(self.loss)))
        without = f"; {lost} cells without an answer" if lost else ""
        return (
            f"EmpiricalPhaseDiagram({self.model}, {nx} × {ny} cells, {self.x.name} × {self.y.name}, "
            f"{self.description}{without})"
        )


def empirical_phase_diagram(
    x: Any = ("importance", 0.01, 100.0),
    y: Any = ("density", 1.0, 0.001),
    *,
    model: str = QUADRATIC,
    cells: int | tuple[int, int] = 50,
    restarts: int | None = None,
    training: dict[str, Any] | None = None,
    rng: Any = None,
    tracked: int = 0,
    tolerance: float | None = None,
    batch: int = _BATCH,
    executor: Executor | None = None,
    checkpoint: StrPath | None = None,
    progress: bool = False,
    **family: Any,
) -> EmpiricalPhaseDiagram:
    """Find the embedding of every cell numerically, over the same axes as `capsolve.phase_diagram`.

    Parameters
    ----------
    x, y, **family
        As in `capsolve.phase_diagram`. Dimensions must be integers ≥ 1.
    model : str
        "quadratic": descent on the exact expected loss, from several starts (`capsolve.simulate.optimise_embedding`).
        Or a sort of network, trained on the stratified expected loss (`capsolve.simulate.train`): "sum-quadratic",
        "sum-relu", "sum-gelu", "autoencoder-quadratic", "autoencoder-relu", "autoencoder-gelu". Networks need a density
        or sparsity and a uniform, Gaussian or Laplace distribution, and always have a bias. In autoencoders uniform
        inputs are those on [0, 1], and the importance multiplies the squared error; in all others it is inside the
        target.
    cells : int or (nx, ny)
        Values on axes given by their ends.
    restarts : int, optional
        Starts per cell; by default 2 for embeddings where all κ ≥ 3, 16 where not, 4 for networks.
    training : dict, optional
        Steps, learning_rate, schedule, objective and points of `capsolve.simulate.train`.
    rng : numpy.random.Generator or seed, optional
        Each embedding has starts of its own, from the seed and its place in the grid; networks start alike in
        every cell. The result does not depend on the executor or on interruptions, and for embeddings not on the size
        of the batches either.
    tracked : int
        The index of the feature that the diagram is about.
    tolerance : float, optional
        See `EmpiricalPhaseDiagram`; by default 1e-6 for embeddings and 0.02 for networks.
    batch : int
        Cells that are computed, and stored, together.
    executor : concurrent.futures.Executor, optional
        What the batches are given to, such as a `ProcessPoolExecutor` or ``dask.distributed.Client().get_executor()``;
        by default they are computed one after the other. Processes should be spawned, not forked.
    checkpoint : path, optional
        A folder, made if missing, where every finished batch is kept. If it has some from an interrupted run with the
        same arguments, those are not computed again. Needs a seed.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    EmpiricalPhaseDiagram

    Raises
    ------
    ValueError
        For bad arguments, naming them, and more cells than there is memory for; for a checkpoint of a diagram with
        other arguments, of one without a seed, or of another run that is at work.
    ImportError
        If networks are to be trained without JAX and Optax: the extra ``train``.

    Examples
    --------
    >>> import capsolve
    >>> found = capsolve.empirical_phase_diagram(cells=(5, 3), dimensions=2, features=4, rng=0)
    >>> found
    EmpiricalPhaseDiagram(quadratic, 5 × 3 cells, importance × density, 4 features, 2 dimensions, uniform inputs)
    >>> found.capacity.round(6)
    array([[0.      , 0.      , 1.      , 1.      , 1.      ],
           [0.      , 0.032211, 0.5     , 1.      , 1.      ],
           [0.005546, 0.063547, 0.5     , 1.      , 1.      ]])
    >>> found.compare().largest < 1e-9
    True
    """
    from capsolve.simulate import MODELS  # noqa: PLC0415  (SciPy and tqdm are loaded when they are needed)

    if model != QUADRATIC and model not in MODELS:
        raise ValueError(f"model must be one of {', '.join((QUADRATIC, *MODELS))}, got {model!r}")
    across, up, problems = problems_over(x, y, cells, **_known(family))
    settings = _Settings(
        model,
        None if restarts is None else whole("restarts", restarts, 1),
        tuple(sorted((training or {}).items())),
        problems.distribution,
        _seed(rng, checkpoint),
    )
    settings.check()
    known = 1e-6 if model == QUADRATIC else 0.02
    tolerance = known if tolerance is None else scalar("tolerance", tolerance, low=0.0, high=0.5)
    tracked = whole("tracked", tracked, 0)
    tasks = list(_tasks(problems, across, up, settings, whole("batch", batch, 1)))
    n = max(task.importance.shape[1] for task in tasks)
    if tracked >= n:
        raise ValueError(f"tracked must be below the number of features, {n}, got {tracked}")
    show = flag("progress", progress)
    shape = up.values.size, across.values.size
    count, widest = shape[0] * shape[1], max(task.dimensions for task in tasks)
    problems.require_memory(across, up, 8.0 * (widest + 3))
    arrays = {
        "capacities": np.full((count, n), np.nan),
        "loss": np.full(count, np.nan),
        "agreeing": np.full(count, np.nan),
        "embedding": np.full((count, n, widest), np.nan),
    }
    named = {f"batch-{i:05d}": task for i, task in enumerate(tasks)}
    results = run(
        {name: task.cell.size for name, task in named.items()},
        lambda missing: (((name,), named[name]) for name in missing),
        compute_cells,
        checkpoint=None if checkpoint is None else _checkpoint(checkpoint, tasks),
        executor=executor,
        progress=show,
        unit="cell",
        shapes=lambda name: named[name].shapes(),
    )
    for batch_name, found in results:
        for name, array in arrays.items():
            where: Any = (named[batch_name].cell, *(slice(size) for size in found[name].shape[1:]))
            array[where] = found[name]
    grids: dict[str, Any] = {name: array.reshape(*shape, *array.shape[1:]) for name, array in arrays.items()}
    for grid in grids.values():
        grid.setflags(write=False)
    return EmpiricalPhaseDiagram(
        across,
        up,
        model,
        **grids,
        tolerance=tolerance,
        tracked=tracked,
        description=problems.describe(),
        problems=problems,
    )


def _seed(rng: Any, checkpoint: StrPath | None) -> int:
    """Return one number that all starts follow from; a seed is that number itself."""
    require_seed("a diagram", rng, checkpoint)
    if rng is None or isinstance(rng, np.random.Generator):
        return int(np.random.default_rng(rng).integers(2**63))
    return whole("rng", rng, 0)


@dataclass(frozen=True)
class _Settings:
    """How cells are computed."""

    model: str
    restarts: int | None
    training: tuple[tuple[str, Any], ...]
    distribution: str
    seed: int

    def check(self) -> None:
        """Complain about what would fail in the first batch."""
        from capsolve.simulate.inputs import DISTRIBUTIONS  # noqa: PLC0415

        names = [name for name, _ in self.training]
        known = ("steps", "learning_rate", "schedule", "objective", "points")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"training may have {', '.join(known)}, got {unknown[0]!r}")
        if self.model == QUADRATIC and names:
            raise ValueError("training is for networks, not for the model 'quadratic'")
        if self.model != QUADRATIC and self.distribution not in DISTRIBUTIONS:
            raise ValueError(f"networks are trained on one of {', '.join(DISTRIBUTIONS)}, got {self.distribution!r}")


@dataclass(frozen=True, eq=False)
class _Task:
    """Cells that are computed together: all of n features in D dimensions, networks of one density too."""

    settings: _Settings
    cell: IndexArray  # places in the grid, row by row
    importance: FloatArray  # (k, n)
    kurtosis: FloatArray  # (k, n)
    density: float
    dimensions: int
    bias: bool

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what is found."""
        k, n = self.importance.shape
        return {"capacities": (k, n), "loss": (k,), "agreeing": (k,), "embedding": (k, n, self.dimensions)}


def _checkpoint(folder: StrPath, tasks: list[_Task]) -> Checkpoint:
    facts = {"settings": asdict(tasks[0].settings), "batches": len(tasks)}
    cells = [[task.density, task.dimensions, task.bias] for task in tasks]
    arrays = (array for task in tasks for array in (task.cell, task.importance, task.kurtosis))
    return Checkpoint(folder, "an empirical phase diagram", facts, fingerprint([facts, cells], *arrays))


def _tasks(problems: Problems, x: Axis, y: Axis, settings: _Settings, batch: int) -> Iterator[_Task]:
    """Cut a diagram into batches."""
    at_x, at_y = (points.ravel() for points in np.meshgrid(x.values, y.values))
    density = np.ones_like(at_x)
    if settings.model != QUADRATIC:
        given = problems.density(at_x, at_y)
        if given is None:
            raise ValueError(f"{settings.model} needs a density or sparsity: networks are trained on inputs")
        density = given
    for group in problems.groups(at_x, at_y):
        if settings.model != QUADRATIC and not group.bias:
            raise ValueError(f"{settings.model} always has a bias")
        bad = (group.dimensions < 1.0) | (group.dimensions != np.round(group.dimensions))
        if bad.any():
            raise ValueError(f"an embedding has an integer number of dimensions >= 1, got {group.dimensions[bad][0]:g}")
        keys, which = np.unique(np.stack([group.dimensions, density[group.which]]), axis=1, return_inverse=True)
        for i, (dimensions, p) in enumerate(keys.T):
            members = np.flatnonzero(which.ravel() == i)
            for part in (members[k : k + batch] for k in range(0, members.size, batch)):
                yield _Task(
                    settings,
                    group.which[part],
                    group.importance[part],
                    group.kurtosis[part],
                    float(p),
                    int(dimensions),
                    group.bias,
                )


def compute_cells(task: _Task) -> list[Arrays]:
    """Find a task's cells: capacities (k, n), loss (k,), share of agreeing starts (k,) and embedding (k, n, D)."""
    with one_blas_thread():  # matrices are small, and workers would get into each other's way
        return [_descend(task) if task.settings.model == QUADRATIC else _train(task)]


def _descend(task: _Task) -> Arrays:
    from capsolve.simulate import optimise_embedding  # noqa: PLC0415

    settings, found = task.settings, []
    for cell, v, k in zip(task.cell, task.importance, task.kurtosis, strict=True):
        starts = settings.restarts or (_FEW if (k >= 3.0).all() else _MANY)
        seed = np.random.default_rng([settings.seed, int(cell)])
        found.append(optimise_embedding(v, k, task.dimensions, bias=task.bias, restarts=starts, rng=seed))
    return {
        "capacities": np.stack([one.capacity for one in found]),
        "loss": np.array([one.loss for one in found]),
        "agreeing": np.array([one.agreeing / one.losses.shape[-1] for one in found]),
        "embedding": np.stack([one.embedding for one in found]),
    }


def _train(task: _Task) -> Arrays:
    from capsolve.simulate import Inputs, train  # noqa: PLC0415

    settings = task.settings
    inputs = None if settings.distribution == "uniform" else Inputs(settings.distribution)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # networks that diverged have the capacity NaN
        training = train(
            settings.model,
            task.importance,
            task.density,
            dimensions=task.dimensions,
            inputs=inputs,
            instances=settings.restarts or _INSTANCES,
            rng=settings.seed,
            **dict(settings.training),
        )
    least = training.best_loss
    near = training.loss <= (least * (1.0 + 1e-3))[:, None]  # NaN is not
    return {
        "capacities": training.capacity,
        "loss": least,
        "agreeing": near.mean(axis=-1),
        "embedding": training.best_embedding.astype(np.float64),
    }


def _known(family: dict[str, Any]) -> dict[str, Any]:
    """Refuse names that `capsolve.phase_diagram` does not know."""
    for name in family:
        if name not in {"family", "group", "distribution", *KNOWN}:
            raise TypeError(f"empirical_phase_diagram has no argument {name!r}")
    return family
