"""Archives: facts and arrays come back, another kind of file is refused and named."""

import json

import numpy as np
import pytest

from capsolve.files.archives import FORMAT, reading_archive, write_archive


@pytest.mark.parametrize("compressed", [True, False])
def test_facts_and_arrays_come_back_read_only(tmp_path, compressed):
    path = tmp_path / "a.npz"
    arrays = {"x": np.array([1.0, np.nan, np.inf]), "n": 3, "text": np.array(["a", "β"])}
    write_archive(path, "a thing", {"name": "ξ", "list": [1, 2.5]}, arrays, compressed=compressed)
    with reading_archive(path, "a thing") as (facts, found):
        assert (facts["name"], facts["list"]) == ("ξ", [1, 2.5])
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert not found[name].flags.writeable


def test_what_is_no_archive_of_this_kind(tmp_path):
    path = tmp_path / "a.npz"
    write_archive(path, "a thing", {}, {"x": 1})
    facts = {"kind": "a thing", "format": FORMAT + 1}
    np.savez(tmp_path / "newer.npz", facts=np.array(json.dumps(facts)))
    np.savez(tmp_path / "other.npz", a=1)
    np.savez(tmp_path / "text.npz", facts=np.array("{"))
    np.savez(tmp_path / "list.npz", facts=np.array("[]"))
    (tmp_path / "words.npz").write_text("no archive")
    (tmp_path / "half.npz").write_bytes(path.read_bytes()[:200])
    np.save(tmp_path / "single.npy", np.ones(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    (tmp_path / "folder.npz").mkdir()
    for name in ("newer", "other", "text", "list", "words", "half", "single", "folder"):
        with (
            pytest.raises(ValueError, match=rf"{name}\.npz: not a thing: "),
            reading_archive(tmp_path / f"{name}.npz", "a thing"),
        ):
            pass
    with (
        pytest.raises(ValueError, match="not another thing: it is 'a thing', format 1"),
        reading_archive(path, "another thing"),
    ):
        pass
    with pytest.raises(FileNotFoundError), reading_archive(tmp_path / "none.npz", "a thing"):
        pass


def test_what_is_missing_inside_is_said_of_the_file(tmp_path):
    write_archive(tmp_path / "a.npz", "a thing", {}, {"x": 1})
    with (
        pytest.raises(ValueError, match=r"a\.npz: not a thing: 'y'"),
        reading_archive(tmp_path / "a.npz", "a thing") as (_, arrays),
    ):
        arrays["y"]


def test_objects_are_not_pickled(tmp_path):
    with pytest.raises(TypeError, match="array x must hold numbers or text, got object"):
        write_archive(tmp_path / "a.npz", "a thing", {}, {"x": np.array([{}])})
    with pytest.raises(ValueError, match=r"the file type must be one of \.npz, got \.csv"):
        write_archive(tmp_path / "a.csv", "a thing", {}, {"x": 1})
    assert not list(tmp_path.iterdir())
