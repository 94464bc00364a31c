"""Files are replaced as a whole or not at all, and errors name the file that was asked for."""

from __future__ import annotations

import os
import stat

import pytest

from capsolve.files import replacing


def test_replacing(tmp_path):
    path = tmp_path / "a.txt"
    stopped = replacing(path)
    temporary = stopped.__enter__()
    temporary.write_text("half")
    assert (temporary.parent, temporary.suffix) == (tmp_path, ".txt")
    assert not stopped.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)  # it is not swallowed
    assert not list(tmp_path.iterdir())
    path.write_text("old")
    path.chmod(0o600)
    link = tmp_path / "link.txt"
    link.symlink_to(path)
    with path.open() as reader:
        with replacing(link) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert reader.read() == "old"  # whoever was reading goes on with the old file
    assert path.read_text() == "new"
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "link.txt"]


def test_an_error_of_the_system_names_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "p.txt"
    with pytest.raises(PermissionError) as caught, replacing(path) as temporary:
        raise PermissionError(13, "Permission denied", str(temporary))
    assert caught.value.filename == str(path)
