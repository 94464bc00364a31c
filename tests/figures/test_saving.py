"""Files of figures, and what importing and drawing leave alone."""

import errno
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import capsolve
from capsolve import figures


def problem(n=40):
    """Return the solved allocation of a power law."""
    return capsolve.solve(capsolve.power_law(n, 0.9), 9.0, 0.3 * n)


def test_drawing_leaves_pyplot_and_windows_alone(tmp_path):
    code = (
        "import sys, capsolve; from capsolve import figures;"
        "figures.save(figures.allocation(capsolve.solve([2, 1, 1], 9.0, 2)), sys.argv[1]);"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True)


DRAWINGS = {
    "capacity": lambda: figures.capacity(problem(n=12)),
    "phases": lambda: figures.phases(problem(n=12)),
    "water_level": lambda: figures.water_level(capsolve.solve([4, 2, 1, 0.5, 0.25, 0.1], 9.0, 3)),
    "phase_diagram": lambda: figures.phase_diagram(capsolve.phase_diagram(cells=10)),
}


@pytest.mark.slow
@pytest.mark.parametrize("look", ["default", figures.STYLE])
@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_titles_and_legends_stand_apart_in_any_style(draw, look):
    with style.context(look):
        ax = draw()
        FigureCanvasAgg(ax.figure).draw()
        title = ax._left_title.get_window_extent()
        page = ax.figure.bbox
        legend = ax.get_legend()
        if legend is not None:
            box = legend.get_window_extent()
            assert ax.bbox.y1 <= box.y0
            assert box.y1 <= title.y0
            assert page.x0 <= box.x0
            assert box.x1 <= page.x1
        assert page.y0 < ax.bbox.y1 < title.y0
        assert title.y1 <= page.y1


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".SVG", b"<?xml")])
def test_save_writes_the_format_of_the_suffix_reproducibly(tmp_path, suffix, magic):
    allocation = problem(n=12)
    files = []
    for name in ("a", "b"):
        path = tmp_path / (name + suffix)
        figures.save(figures.allocation(allocation), path)
        files.append(path.read_bytes())
    assert files[0].startswith(magic)
    assert files[0] == files[1]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_vector_files_of_many_features_stay_small(tmp_path):
    figures.save(figures.allocation(problem(n=100_000)), tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").stat().st_size < 500_000


@pytest.mark.parametrize("name", ["a.gif", "a", "png"])
def test_save_refuses_other_suffixes(tmp_path, name):
    with pytest.raises(ValueError, match=r"one of \.pdf, \.png, \.svg, got .*" + name):
        figures.save(Figure(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_save_to_nowhere(tmp_path):
    with pytest.raises(OSError, match="No such file or directory"):
        figures.save(Figure(), tmp_path / "missing" / "a.png")


@pytest.mark.parametrize("suffix", figures.FORMATS)
def test_names_in_any_script_are_saved_without_a_warning(tmp_path, suffix):
    profile = capsolve.Profile([4.0, 2.0, 1.0], 9.0, ["猫", "🙂 emoji", "हिन्दी"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figures.save(figures.allocation(capsolve.solve(profile, dimensions=2)), tmp_path / f"a{suffix}")
    said = [str(warning.message) for warning in caught]
    assert not [text for text in said if "Glyph" in text or "natively" in text]
    assert (tmp_path / f"a{suffix}").stat().st_size > 1000


def test_a_failing_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    figure = Figure()

    def fail(file, **_):
        with open(file, "wb") as half:
            half.write(b"half")
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="No space left on device"):
        figures.save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", figures.__all__)
def test_every_name_is_there(name):
    assert getattr(figures, name) is not None
    assert not callable(getattr(figures, name)) or getattr(figures, name).__doc__


def test_no_module_has_the_name_of_a_drawing():
    """A module that is imported later would take the function's place in the package."""
    modules = {path.stem for path in Path(figures.__file__).parent.glob("*.py")}
    assert len(modules) > 4
    assert not modules & set(figures.__all__)


def test_the_style_sheet_is_where_its_name_says():
    with style.context(figures.STYLE):
        assert mpl.rcParams["figure.figsize"] == [7.0, 3.4]
