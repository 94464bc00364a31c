"""``capsolve measure``: what the library says of an embedding, in words and as JSON."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")

from safetensors.numpy import save_file

import capsolve
import capsolve.allocation
from capsolve.files import read_table, text
from tests.cli.helpers import strict_json


@pytest.fixture
def decoder(tmp_path):
    """A folder with five features in three dimensions, as SAELens writes them, in columns here."""
    W = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    (tmp_path / "sae").mkdir()
    save_file(
        {"W_dec": np.ascontiguousarray(W.T), "b_enc": W[:, 0].copy()}, tmp_path / "sae" / "sae_weights.safetensors"
    )
    (tmp_path / "sae" / "cfg.json").write_text('{"d_in": 3, "d_sae": 5}')
    return W


def test_measure_prints_what_the_library_says(run, decoder):
    status, out, err = run("measure", "sae", "-o", "c.csv", "--figure", "c.png")
    assert (status, err) == (0, "")
    found = capsolve.measure("sae")
    assert out == found.summary() + "\n\nwrote c.csv and c.png\n"
    assert "features are columns: cfg.json has d_in = 3, d_sae = 5" in out
    table = read_table("c.csv", {"feature": int, "capacity": float, "phase": text, "squared_norm": float})
    assert table["feature"] == list(range(5))
    assert table["capacity"] == found.capacity.tolist()
    np.testing.assert_allclose(table["capacity"], capsolve.capacities(decoder), rtol=1e-6)
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")


def test_measure_as_json(run, decoder):
    status, out, err = run("measure", "sae/sae_weights.safetensors", "--key", "W_dec", "--json")
    assert (status, err) == (0, "")
    content, found = strict_json(out), capsolve.measure("sae")
    assert content["columns"]["capacity"] == found.capacity.tolist()
    assert content["spectrum"] == found.spectrum.tolist()
    assert (content["features"], content["dimensions"], content["orientation"]) == (5, 3, "columns")
    assert content["total"] == sum(content["columns"]["capacity"])
    assert content["random"] == 5 * 3 / 7
    assert sum(content["histogram"]["features"]) == sum(content["phases"].values()) == 5
    assert content["most_monosemantic"] == np.argsort(-found.capacity).tolist()
    assert [block["features"] for block in content["blocks"]] == [[0, 1, 2, 3, 4]]
    assert content["comparison"] is None


def test_measure_with_activations(run, decoder, tmp_path):
    x = np.random.default_rng(1).laplace(size=(200, 5))
    np.savez(tmp_path / "x.npz", x=x, y=-x)
    args = ("measure", "sae", "--activations", "x.npz", "--activations-key", "x")
    status, out, err = run(*args, "--json", "--figure", "c.svg")
    assert (status, err) == (0, "")
    content, found = strict_json(out), capsolve.measure("sae", activations=x).comparison
    assert content["comparison"]["loss"] == found.loss
    assert content["comparison"]["relative_suboptimality"] == found.relative_suboptimality
    assert content["columns"]["active_capacity"] == found.capacity.tolist()
    assert content["columns"]["allocated"] == found.allocation.capacity.tolist()
    assert "suboptimal" in Path("c.svg").read_text(encoding="utf-8")
    assert f"suboptimality: at least {found.relative_suboptimality:.1%}" in run(*args)[1]


def test_measure_notes_a_guess_on_standard_error(run, tmp_path):
    np.save(tmp_path / "w.npy", np.ones((2, 7)))
    status, out, err = run("measure", "w.npy")
    assert status == 0
    assert out.startswith("w.npy: 7 features in 2 dimensions\n")
    assert err == (
        "capsolve: note: the columns are taken as features, being the longer axis; if they are not, use --features\n"
    )
    assert run("measure", "w.npy", "--features", "rows")[2] == ""


def test_measure_all_parts(run, fails, tmp_path):
    W = np.random.default_rng(0).standard_normal((4, 3, 5))
    np.savez(tmp_path / "toy.npz", W=W, b_final=np.ones((4, 5)))
    status, out, err = run("measure", "toy.npz", "--part", "all", "-o", "c.csv")
    assert (status, err) == (0, "")
    found = [capsolve.measure(one, feature_axis="columns") for one in W]
    lines = out.splitlines()
    assert lines[0] == "toy.npz, W: 4 times 5 features in 3 dimensions"
    for line, number, one in zip(lines[4:8], range(4), found, strict=True):
        assert line.split()[:4] == [
            str(number), f"{one.total_capacity:.6g}", f"{one.efficiency:.4f}", str(one.rank),
        ]  # fmt: skip
    total = sum(one.total_capacity for one in found)
    assert lines[8].split()[:4] == ["all", f"{total:.6g}", f"{total / 12:.4f}", "12"]
    content = strict_json(run("measure", "toy.npz", "--part", "all", "--json")[1])
    assert content["total"] == pytest.approx(total, rel=1e-14)
    assert [one["part"] for one in content["parts"]] == [0, 1, 2, 3]
    one = strict_json(run("measure", "toy.npz", "--part", "2", "--json")[1])
    assert content["parts"][2] | {"weights": one["weights"], "key": "W"} == one | {"part": 2}
    table = np.genfromtxt("c.csv", delimiter=",", names=True, usecols=("part", "feature", "capacity"))
    assert table["part"].tolist() == np.repeat(range(4), 5).tolist()
    np.testing.assert_allclose(table["capacity"], np.concatenate([one.capacity for one in found]))
    np.save(tmp_path / "w.npy", np.ones((7, 2)))
    assert "a part is for arrays with three axes" in fails(1, "measure", "w.npy", "--part", "all")
    assert "must be an integer or all, got x" in run("measure", "toy.npz", "--part", "x")[2]
    assert "--figure shows one matrix" in run("measure", "toy.npz", "--part", "all", "--figure", "a.png")[2]


def test_measure_standard_input(run, fails, tmp_path, monkeypatch):
    np.savez(tmp_path / "w.npz", W_dec=np.random.default_rng(0).standard_normal((7, 3)), b_dec=np.ones(3))
    content = (tmp_path / "w.npz").read_bytes()
    out, table = run("measure", "w.npz")[1], run("measure", "w.npz", "-o", "-")[1]

    def given(part):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(part)))

    given(content)
    assert run("measure", "-") == (0, out.replace("w.npz", "-"), "")
    given(content)
    assert run("measure", "-", "-o", "-")[1] == table
    assert table.startswith("feature,capacity,phase,squared_norm\n0,")
    given(content[:200])
    assert "error: standard input: not a readable .npz file" in fails(1, "measure", "-")
    assert "a path must not be empty" in fails(2, "measure", "")


def test_measure_refuses(fails, decoder, tmp_path):
    np.save(tmp_path / "one.npy", np.ones(3))
    np.save(tmp_path / "nan.npy", np.full((4, 2), np.nan))
    np.save(tmp_path / "x.npy", np.ones((40, 4)))
    whole = Path("sae/sae_weights.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty").mkdir()
    for args, message in (
        (["one.npy"], "one.npy: must be 2-D, features and dimensions, got shape [3]"),
        (["nan.npy"], "nan.npy: must be finite, got nan at row 0, column 0"),
        (["sae", "--key", "W"], "there is no key 'W'; the keys are W_dec [3, 5], b_enc [5]"),
        (["sae", "--features", "rows"], "features must be columns, for the shape is [3, 5] and cfg.json has d_in = 3"),
        (["half.safetensors"], "half.safetensors: not a readable .safetensors file"),
        (["empty"], "empty: there is no file of weights"),
        (["missing.npy"], "missing.npy: No such file or directory"),
        (["sae", "--activations", "x.npy"], "x.npy: must have one column per feature: 5 features, got 4 columns"),
    ):
        assert message in fails(1, "measure", *args, "-o", "out.csv", "--figure", "out.png")
    np.savetxt(tmp_path / "x.csv", np.ones((40, 5)), delimiter=",")
    assert "would replace the input" in fails(2, "measure", "sae", "--activations", "x.csv", "-o", "x.csv")
