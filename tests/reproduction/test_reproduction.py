"""Reproductions: the same bytes every time, and clear refusals."""

import pytest

import capsolve


@pytest.mark.slow
def test_the_same_figure_is_the_same_to_the_byte(tmp_path):
    for name in "ab":
        capsolve.reproduce("fig2", tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"figure must be one of fig2, .* or all, got 'fig3'"):
        capsolve.reproduce("fig3", tmp_path)
    with pytest.raises(ValueError, match="cells must be at least 2, got 1"):
        capsolve.reproduce("fig2", tmp_path, cells=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        capsolve.reproduce("fig2", tmp_path / "file")
