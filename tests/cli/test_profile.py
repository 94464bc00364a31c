"""``capsolve profile``: measured profiles, and what it says of bad activations."""

import io
import sys

import numpy as np
import pytest

from capsolve import Profile
from capsolve.files import read_profile
from tests.cli.helpers import strict_json
from tests.extras import PARQUET


@pytest.mark.parametrize("suffix", [".csv", PARQUET])
def test_profile_measures_and_writes(run, activations, tmp_path, suffix):
    status, out, err = run("profile", "x.npy", "-o", f"p{suffix}")
    assert (status, err) == (0, "")
    expected = Profile.from_activations(activations)
    found = read_profile(tmp_path / f"p{suffix}")
    np.testing.assert_array_equal(found.importance, expected.importance)
    np.testing.assert_array_equal(found.kurtosis, expected.kurtosis)
    assert out.startswith("4 features from 500 samples\n")
    assert f"{expected.kurtosis.max():>12.4g}\n" in out
    assert "\n1 never vary and get importance 0, with kurtosis 3 as a placeholder\n  2\n" in out
    assert out.endswith(f"\nwrote p{suffix}\n")
    assert run("solve", f"p{suffix}", "-D", 2)[0] == 0


def test_profile_prints_json(run, activations):
    status, out, err = run("profile", "x.npy", "--json")
    assert (status, err) == (0, "")
    expected = Profile.from_activations(activations)
    assert strict_json(out) == {
        "activations": "x.npy",
        "samples": 500,
        "features": 4,
        "columns": {
            "importance": expected.importance.tolist(),
            "kurtosis": expected.kurtosis.tolist(),
            "mean": expected.moments.mean.tolist(),
            "variance": expected.moments.variance.tolist(),
            "kurtosis_error": expected.moments.kurtosis_error.tolist(),
            "density": expected.moments.density.tolist(),
            "constant": [False, False, True, False],
        },
    }


def test_profile_keeps_names(run, tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2))
    np.savetxt(tmp_path / "x.csv", x, delimiter=",", header="left,right", comments="")
    _, out, _ = run("profile", "x.csv", "--json")
    assert strict_json(out)["columns"]["name"] == ["left", "right"]


def test_profile_is_told_whether_there_is_a_header(run, fails, tmp_path):
    (tmp_path / "x.csv").write_text("1,2\n" + "0,1\n2,3\n" * 20)
    err = fails(1, "profile", "x.csv")
    assert "x.csv: row 1 may hold the features' names or the first sample; say --header or --no-header" in err
    assert strict_json(run("profile", "x.csv", "--header", "--json")[1])["columns"]["name"] == ["1", "2"]
    assert strict_json(run("profile", "x.csv", "--no-header", "--json")[1])["samples"] == 41


def test_profile_of_constants_alone(run, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((40, 12)))
    status, out, err = run("profile", "x.npy")
    assert (status, err) == (0, "")
    assert out == (
        "12 features from 40 samples\n\n12 never vary and get importance 0, with kurtosis 3 as a placeholder\n"
        "  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …\n"
    )


def test_profile_takes_a_key(run, fails, activations, tmp_path):
    np.savez(tmp_path / "x.npz", a=activations, b=activations[:, :2])
    assert run("profile", "x.npz", "--key", "b")[1].startswith("2 features")
    assert "the keys are a [500, 4], b [500, 2]" in fails(1, "profile", "x.npz")
    assert "there is no key 'c'; the keys are a [500, 4], b [500, 2]" in fails(1, "profile", "x.npz", "--key", "c")
    assert "a key is for" in fails(1, "profile", "x.npy", "--key", "b")


def test_profile_of_several_files(run, fails, activations, tmp_path):
    (tmp_path / "parts").mkdir()
    np.save(tmp_path / "parts" / "1.npy", activations[:200])
    np.save(tmp_path / "parts" / "2.npy", activations[200:])
    one, folder, two = (
        strict_json(run("profile", "--json", *sources)[1])
        for sources in (["x.npy"], ["parts"], ["parts/1.npy", "parts/2.npy"])
    )
    assert (one.pop("activations"), folder.pop("activations")) == ("x.npy", "parts")
    assert two.pop("activations") == ["parts/1.npy", "parts/2.npy"]
    assert folder == two
    np.testing.assert_allclose(two["columns"]["kurtosis"], one["columns"]["kurtosis"], rtol=1e-12)
    np.save(tmp_path / "parts" / "2.npy", activations[:0])
    np.save(tmp_path / "parts" / "1.npy", activations[:20])
    assert "parts/1.npy and 1 more: activations must have at least 30 samples, got 20" in fails(
        1, "profile", "parts/1.npy", "parts/2.npy"
    )


def test_profile_says_how_it_read_three_axes(run, activations, tmp_path):
    np.save(tmp_path / "y.npy", activations.reshape(50, 10, 4))
    status, out, err = run("profile", "y.npy", "--json")
    assert (status, strict_json(out)["samples"]) == (0, 500)
    assert err == "capsolve: note: y.npy: 50 batches of 10 positions, each a sample of 4 features\n"


def standard_input(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_pipeline(run, fails, activations, tmp_path, monkeypatch):
    expected = run("profile", "x.npy", "--json")[1]
    standard_input(monkeypatch, (tmp_path / "x.npy").read_bytes())
    assert run("profile", "-", "--json")[1] == expected.replace("x.npy", "-")
    status, table, err = run("profile", "x.npy", "-o", "-")
    assert (status, err.startswith("4 features from 500 samples")) == (0, True)
    run("profile", "x.npy", "-o", "p.csv")
    assert table == (tmp_path / "p.csv").read_text()
    assert "wrote" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "x.npy"]
    standard_input(monkeypatch, b"a\n1\nx\n")
    assert "error: standard input: row 3, column a: must be" in fails(1, "profile", "-")
    standard_input(monkeypatch, b"")
    assert "error: standard input: the file is empty" in fails(1, "profile", "-")
    assert "standard output takes one file or the JSON object, not both" in fails(
        2, "profile", "x.npy", "--json", "-o", "-"
    )
    assert "standard output takes one file or the JSON object, not both" in fails(
        2, "profile", "x.npy", "-o", "-", "--json"
    )


def test_an_empty_path_is_not_the_current_folder(fails, activations):
    assert "a path must not be empty" in fails(2, "profile", "")


def test_progress_is_for_terminals(run, activations, monkeypatch):
    assert run("profile", "x.npy")[2] == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, out, err = run("profile", "x.npy", "--json")
    assert status == 0
    strict_json(out)
    assert "samples" in err


BAD_ACTIVATIONS = {
    "nan": (np.where(np.eye(40) > 0, np.nan, 1.0), "must be finite, got nan at row 0, column 0"),
    "inf": (np.full((40, 2), np.inf), "must be finite, got inf"),
    "few": (np.ones((10, 2)), "at least 30 samples, got 10"),
    "no columns": (np.ones((40, 0)), "column"),
    "1-D": (np.ones(40), "samples × features"),
    "complex": (np.ones((40, 2)) * 1j, "real numbers"),
    "strings": (np.full((40, 2), "x"), "real numbers"),
    "objects": (np.full((40, 2), None), "x.npy"),
}


@pytest.mark.parametrize(("array", "message"), BAD_ACTIVATIONS.values(), ids=BAD_ACTIVATIONS)
def test_bad_activations(fails, tmp_path, array, message):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    err = fails(1, "profile", "x.npy", "-o", "out.csv")
    assert err.startswith("capsolve: error: x.npy: ")
    assert message in err


def test_bad_activation_files(fails, tmp_path):
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04N.")
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n" * 40 + "1,?\n")
    for name, message in {
        "missing.npy": "missing.npy: No such file or directory",
        "folder.npy": "folder.npy: a folder of activations must have files",
        "x.pkl": "x.pkl: the file type must be one of",
        "broken.npy": "broken.npy: not a readable .npy file",
        "x.csv": "x.csv: row 42, column b: must be a finite number, got '?'",
    }.items():
        assert message in fails(1, "profile", name, "-o", "out.csv")


def test_missing_extras_are_named(fails, profile, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "x.safetensors").write_bytes(b"x")
    assert 'pip install "capsolve[safetensors]"' in fails(1, "profile", "x.safetensors")
