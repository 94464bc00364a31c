"""The figures of Scherlis et al., arXiv 2210.01892, made again: picture, data, and what agrees with the paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from importlib import import_module
from pathlib import Path

from capsolve.files._paths import StrPath
from capsolve.reproduction._report import Result, Settings

FIGURES = ("fig2", "fig4", "fig6", "fig7", "incidental")
"""What `reproduce` can make: by the paper's number, and the experiments of arXiv 2312.03096."""


def reproduce(
    figure: str,
    folder: StrPath,
    *,
    cells: int | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> list[Path]:
    """Make a figure of the paper again, with its data and a text of what agrees with the published description.

    Parameters
    ----------
    figure : str
        ``"fig2"`` (marginal values and the price), ``"fig4"`` (phase diagram, exact and from optimised embeddings, and
        six cases of marginal values), ``"fig6"`` (capacities of small embeddings, and blocks), ``"fig7"`` (phase
        diagrams of nine sorts of trained networks; takes long, resumes after an interruption, and needs the extra
        ``train``), ``"incidental"`` (the experiments of arXiv 2312.03096 on features that collide by chance; the same
        holds), or ``"all"``.
    folder : path
        Where the files go; made if missing. Each figure has a ``.png``, a ``.pdf``, data as ``.csv`` or ``.npz``, and a
        ``.md`` with one line for every statement of the paper: whether it holds, and the numbers that say so.
    cells : int, optional
        Cells along each side of a diagram that is optimised cell by cell; by default 50 for
        ``"fig4"`` and 40 for ``"fig7"``; the number of widths, by default 16, for ``"incidental"``.
    executor : concurrent.futures.Executor, optional
        What the cells are given to, as in `capsolve.empirical_phase_diagram`. Finished ones are kept in the folder
        ``cells`` there, so that an interrupted figure resumes.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ValueError
        If there is no such figure, or ``cells`` is less than 2.
    OSError
        If the folder cannot be written.
    ImportError
        If what trains networks is not installed.

    Examples
    --------
    >>> import capsolve, tempfile
    >>> [path.name for path in capsolve.reproduce("fig2", tempfile.mkdtemp())]
    ['fig2.png', 'fig2.pdf', 'fig2.csv', 'fig2.md']
    """
    made = made_again(figure, folder, cells=cells, executor=executor, progress=progress)
    return [path for _, written in made for path in written]


def made_again(
    figure: str, folder: StrPath, *, cells: int | None, executor: Executor | None, progress: bool
) -> Iterator[tuple[Result, list[Path]]]:
    """Yield each figure that `reproduce` makes, once it is written, and its files."""
    if figure != "all" and figure not in FIGURES:
        raise ValueError(f"figure must be one of {', '.join(FIGURES)} or all, got {figure!r}")
    if cells is not None and cells < 2:
        raise ValueError(f"cells must be at least 2, got {cells}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(folder, cells, progress, executor)
    for name in FIGURES if figure == "all" else (figure,):
        make: Callable[[Settings], Result] = import_module(f"capsolve.reproduction.{name}").make
        result = make(settings)
        yield result, result.write(folder, name)
