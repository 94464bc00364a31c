"""Weights in files: every format gives the numbers that were stored, features first, or says what is wrong."""

import json
import os

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from capsolve.files import weights
from capsolve.files._layouts import DECODERS
from capsolve.files.weights import from_array, open_weights

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

SUFFIXES = [".safetensors", ".pt", ".npz", ".compressed.npz", ".npy", ".fortran.npy"]
STORED = [(suffix, dtype) for suffix in SUFFIXES for dtype in (np.float64, np.float32, np.float16)]
STORED += [(suffix, BFLOAT16) for suffix in SUFFIXES[:2]]  # NumPy's own formats have no bfloat16


@pytest.fixture
def W():
    """Seven features in three dimensions, exact in every type of number."""
    return np.random.default_rng(0).integers(-8, 9, (7, 3)) / 8.0


def rows(found):
    return np.concatenate(list(found.blocks()))


def save_torch(content, path):
    torch = pytest.importorskip("torch")
    torch.save(content, path)
    return torch


# every format


@pytest.mark.parametrize("block", [1, 6, 10**6])
@pytest.mark.parametrize("features", ["rows", "columns"])
@pytest.mark.parametrize(("suffix", "dtype"), STORED)
def test_what_was_stored_comes_back_in_blocks_features_first(tmp_path, monkeypatch, W, suffix, dtype, features, block):
    path = tmp_path / f"w{suffix}"
    stored = np.ascontiguousarray((W if features == "rows" else W.T).astype(dtype))
    if suffix == ".safetensors":
        save_file({"w": stored, "b": stored[0].copy()}, path)
    elif suffix == ".npz":
        np.savez(path, w=stored, b=stored[0])
    elif suffix == ".compressed.npz":
        np.savez_compressed(path, w=stored, b=stored[0])
    elif suffix == ".pt":
        torch = pytest.importorskip("torch")
        kind = {"float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
        exact = torch.from_numpy(stored.astype(np.float64)).to(kind.get(stored.dtype.name, torch.float32))
        torch.save({"w": exact, "b": exact[0].clone()}, path)
    else:
        np.save(path, np.asfortranarray(stored) if "fortran" in suffix else stored)
    monkeypatch.setattr(weights, "_BLOCK", block)
    found = open_weights(path, features=features)
    assert found.shape == W.shape
    assert found.dtype == stored.dtype.name
    assert found.key == (None if suffix.endswith(".npy") else "w")
    assert [len(part) for part in found.blocks()] == {1: [1] * 7, 6: [2, 2, 2, 1], 10**6: [7]}[block]
    for part in found.blocks():
        assert part.dtype == (np.float64 if dtype == np.float64 else np.float32)
        assert part.flags.c_contiguous
    np.testing.assert_array_equal(rows(found), W)


@pytest.mark.parametrize("order", [">f4", ">f8"])
def test_either_byte_order(tmp_path, W, order):
    np.save(tmp_path / "w.npy", W.astype(order))
    np.testing.assert_array_equal(rows(open_weights(tmp_path / "w.npy")), W)


def test_pth_and_nested_dictionaries(tmp_path, W):
    torch = pytest.importorskip("torch")
    content = {"step": 3, "model": {"decoder": {"weight": torch.nn.Parameter(torch.tensor(W.T))}}}
    save_torch(content, tmp_path / "w.pth")
    found = open_weights(tmp_path / "w.pth")
    assert (found.key, found.features, found.shape) == ("model.decoder.weight", "columns", (7, 3))
    np.testing.assert_array_equal(rows(found), W)


def test_a_bare_tensor(tmp_path, W):
    torch = pytest.importorskip("torch")
    save_torch(torch.tensor(W), tmp_path / "w.pt")
    found = open_weights(tmp_path / "w.pt")
    assert found.key is None
    np.testing.assert_array_equal(rows(found), W)


def test_arrays_in_memory(W):
    assert from_array(W).features == "rows"
    np.testing.assert_array_equal(rows(from_array(W.astype(np.float32))), W)
    np.testing.assert_array_equal(rows(from_array(W.T, "columns")), W)
    np.testing.assert_array_equal(rows(from_array([[1, 0], [0, 2]])), [[1, 0], [0, 2]])


# which matrix


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_decoder_is_found_among_other_matrices(tmp_path, W, decoder):
    save_file({"W_enc": W.T.copy(), decoder: W, "b_enc": W[:, 0].copy()}, tmp_path / "w.safetensors")
    assert open_weights(tmp_path / "w.safetensors").key == decoder


def test_a_key_chooses(tmp_path, W):
    save_file({"W_dec": W, "other": 2 * W}, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(rows(open_weights(tmp_path / "w.safetensors", key="other")), 2 * W)


@pytest.mark.parametrize("key", [None, "W_dec"])
def test_without_a_choice_the_keys_are_listed_with_their_shapes(tmp_path, W, key):
    save_file({"a": W, "b": W.T.copy(), "c": W[0].copy()}, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", a=W, b=W.T, c=W[0])
    np.savez_compressed(tmp_path / "c.npz", a=W, b=W.T, c=W[0])
    for name in ("w.safetensors", "w.npz", "c.npz"):
        with pytest.raises(ValueError, match=rf"{name}.*the keys are a \[7, 3\], b \[3, 7\], c \[3\]"):
            open_weights(tmp_path / name, key=key)


def test_an_empty_archive_has_no_keys(tmp_path):
    np.savez(tmp_path / "w.npz")
    with pytest.raises(ValueError, match=r"w\.npz: not a readable \.npz file: there are no arrays in it"):
        open_weights(tmp_path / "w.npz")


def test_a_key_is_not_for_a_single_array(tmp_path, W):
    np.save(tmp_path / "w.npy", W)
    with pytest.raises(ValueError, match=r"w\.npy: holds a single array without a name, got key 'W_dec'"):
        open_weights(tmp_path / "w.npy", key="W_dec")


# which file


def test_the_weights_in_a_folder_are_known_by_name(tmp_path, W):
    save_file({"sparsity": W[:, 0].copy()}, tmp_path / "sparsity.safetensors")
    save_file({"W_dec": W}, tmp_path / "sae_weights.safetensors")
    assert open_weights(tmp_path).path == tmp_path / "sae_weights.safetensors"


def test_the_only_file_in_a_folder(tmp_path, W):
    (tmp_path / "README.md").write_text("weights")
    np.savez(tmp_path / "any.npz", W_dec=W)
    assert open_weights(str(tmp_path)).path == tmp_path / "any.npz"


def test_weights_below_a_folder(tmp_path, W):
    (tmp_path / "checkpoints").mkdir()
    save_file({"decoder.weight": W.T.copy()}, tmp_path / "checkpoints" / "final.safetensors")
    assert open_weights(tmp_path).shape == (7, 3)


def test_folders_with_none_or_several(tmp_path, W):
    with pytest.raises(ValueError, match=r"there is no file of weights; looked for \.safetensors, \.npz"):
        open_weights(tmp_path)
    np.savez(tmp_path / "b.npz", W)
    np.save(tmp_path / "a.npy", W)
    with pytest.raises(ValueError, match=r"several files of weights, name one: a\.npy, b\.npz"):
        open_weights(tmp_path)


def test_missing_files_and_unknown_types(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_weights(tmp_path / "none.npy")
    (tmp_path / "w.gguf").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"w\.gguf: the file type must be one of \.safetensors, .* got \.gguf"):
        open_weights(tmp_path / "w.gguf")


# which axis


@pytest.mark.parametrize(
    ("cfg", "shape", "features", "reason"),
    [
        ({"d_in": 3, "d_sae": 7}, (7, 3), "rows", "cfg.json has d_in = 3, d_sae = 7"),
        ({"d_in": 3, "d_sae": 7}, (3, 7), "columns", "cfg.json has d_in = 3, d_sae = 7"),
        ({"d_in": 7, "d_sae": 3}, (7, 3), "columns", "cfg.json has d_in = 7, d_sae = 3"),  # fewer features: so be it
        ({"d_in": 3, "num_latents": 0}, (3, 7), "columns", "cfg.json has d_in = 3"),
        ({"d_in": 5, "d_out": 3, "d_sae": 7}, (3, 7), "columns", "cfg.json has d_in = 5, d_out = 3, d_sae = 7"),
        ({"d_in": 5, "d_sae": 5}, (5, 5), "columns", "b_dec"),  # says nothing; see below
    ],
)
def test_cfg_decides(tmp_path, cfg, shape, features, reason):
    decoder = "decoder.weight" if shape == (5, 5) else "W_dec"
    save_file({decoder: np.ones(shape)}, tmp_path / "sae.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    found = open_weights(tmp_path)
    assert (found.features, found.guessed) == (features, False)
    assert found.reason == ("the layout of decoder.weight" if shape == (5, 5) else reason)


@pytest.mark.parametrize(
    ("key", "features"), [("w_dec", "rows"), ("decoder.weight", "columns"), ("decoder_linear.weight", "columns")]
)
@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (5, 5)])
def test_known_layouts_decide(tmp_path, key, features, shape):
    save_file({key: np.ones(shape)}, tmp_path / "w.safetensors")
    found = open_weights(tmp_path)
    assert (found.features, found.reason, found.guessed) == (features, f"the layout of {key}", False)
    assert found.shape == (shape if features == "rows" else shape[::-1])


@pytest.mark.parametrize(("shape", "features"), [((7, 3), "rows"), ((3, 7), "columns")])
def test_biases_decide_for_the_name_that_projects_use_both_ways(tmp_path, shape, features):
    for size in (3, 7):  # also against the longer axis
        save_file({"W_dec": np.ones(shape), "b_dec": np.ones(size)}, tmp_path / "w.safetensors")
        found = open_weights(tmp_path)
        other = {"rows": "columns", "columns": "rows"}[features]
        assert (found.features, found.guessed) == (features if size == 3 else other, False)
        assert found.shape == (10 - size, size)


@pytest.mark.parametrize("bias", ["b_dec", "b_D", "decoder.bias", "b_enc", "encoder.bias", "sae.b_enc", "threshold"])
@pytest.mark.parametrize("shape", [lambda n: (n,), lambda n: (1, n), lambda n: (n, 1)])
@pytest.mark.parametrize("size", [6, 20])
def test_every_bias_is_evidence(tmp_path, bias, shape, size):
    save_file({"W_dec": np.ones((6, 20)), bias: np.ones(shape(size))}, tmp_path / "w.safetensors")
    found = open_weights(tmp_path)
    dimensions = size if bias in {"b_dec", "b_D", "decoder.bias"} else 26 - size
    assert (found.key, found.shape, found.guessed) == ("W_dec", (26 - dimensions, dimensions), False)
    assert found.reason.startswith(f"{bias} has {size} entries, one per ")


def test_biases_that_contradict_each_other_decide_nothing(tmp_path):
    save_file({"W_dec": np.ones((6, 20)), "b_dec": np.ones(6), "b_enc": np.ones(6)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"b_dec has 6 entries, one per dimension.*say whether"):
        open_weights(tmp_path)
    assert open_weights(tmp_path, features="rows").shape == (6, 20)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_a_bias_is_never_a_decoder_and_a_stack_is_measured_part_by_part(tmp_path, suffix):
    stack, path = np.random.default_rng(0).normal(size=(4, 2, 5)), tmp_path / f"toy{suffix}"
    arrays = {"W": stack, "b_final": np.ones((4, 5))}
    if suffix == ".pt":
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    else:
        np.savez(path, **arrays) if suffix == ".npz" else save_file(arrays, path)
    with pytest.raises(
        ValueError, match=r"W: parts × dimensions × features, 4 matrices of 2 × 5; part must be one of 0 … 3$"
    ):
        open_weights(path)
    for part in range(4):
        found = open_weights(path, part=part)
        assert (found.key, found.shape, found.guessed) == ("W", (5, 2), False)
        assert found.reason == "b_final has 5 entries, one per feature"
        np.testing.assert_array_equal(np.concatenate(list(found.blocks())), stack[part].T)
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match=f"part must be one of 0 … 3, got {wrong}"):
            open_weights(path, part=wrong)


def test_a_matrix_has_no_parts(tmp_path):
    np.save(tmp_path / "w.npy", np.ones((7, 3)))
    with pytest.raises(ValueError, match=r"a part is for arrays with three axes, got shape \[7, 3\], part 0"):
        open_weights(tmp_path, part=0)


def test_a_file_of_biases_only_has_no_decoder(tmp_path):
    save_file({"b_final": np.ones((4, 5)), "out.bias": np.ones((4, 5))}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="a key is needed"):
        open_weights(tmp_path)


def test_else_the_longer_axis_is_a_guess(tmp_path):
    for shape, features in (((7, 3), "rows"), ((3, 7), "columns")):
        save_file({"W_dec": np.ones(shape), "b_dec": np.ones(4)}, tmp_path / "w.safetensors")
        found = open_weights(tmp_path)
        assert (found.features, found.reason, found.guessed) == (features, "the longer axis", True)


def test_square_and_unknown_must_be_said(tmp_path):
    np.save(tmp_path / "w.npy", np.eye(4))
    with pytest.raises(ValueError, match=r"w\.npy: the shape is \[4, 4\]; say whether features are rows or columns"):
        open_weights(tmp_path)
    assert open_weights(tmp_path, features="columns").reason == "as given"


def test_features_overrides_all_but_cfg(tmp_path):
    save_file({"decoder.weight": np.ones((3, 7))}, tmp_path / "w.safetensors")
    assert open_weights(tmp_path, features="rows").shape == (3, 7)
    (tmp_path / "cfg.json").write_text('{"d_in": 3, "d_sae": 7}')
    assert open_weights(tmp_path, features="columns").shape == (7, 3)
    with pytest.raises(
        ValueError, match=r"features must be columns, .* \[3, 7\] and cfg.json has d_in = 3, .*got rows"
    ):
        open_weights(tmp_path, features="rows")


def test_a_cfg_of_something_else(tmp_path):
    save_file({"W_dec": np.ones((3, 7))}, tmp_path / "w.safetensors")
    (tmp_path / "cfg.json").write_text('{"d_in": 4, "d_sae": 7}')
    with pytest.raises(ValueError, match=r"\[3, 7\], but cfg.json has d_in = 4, d_sae = 7; say whether"):
        open_weights(tmp_path)
    assert open_weights(tmp_path, features="rows").shape == (3, 7)
    for nothing in ("[]", '{"d_in": null}', '{"lr": 0.1}'):
        (tmp_path / "cfg.json").write_text(nothing)
        assert open_weights(tmp_path).guessed
    (tmp_path / "cfg.json").write_text("{")
    with pytest.raises(ValueError, match=r"cfg\.json: not a readable \.json file"):
        open_weights(tmp_path)


def test_features_are_rows_or_columns(tmp_path, W):
    with pytest.raises(ValueError, match=r'features must be "rows" or "columns", got 0'):
        from_array(W, 0)
    with pytest.raises(ValueError, match=r'features must be "rows" or "columns", got \'row\''):
        open_weights(tmp_path, features="row")


# what cannot be read


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz", "w.npy", "w.pt"])
@pytest.mark.parametrize("keep", [0, 3, 60, 0.5, 0.999])
def test_truncated_files(tmp_path, name, keep):
    path, W = tmp_path / name, np.random.default_rng(0).standard_normal((200, 30))
    if name == "w.safetensors":
        save_file({"W_dec": W}, path)
    elif name == "w.npz":
        np.savez(path, W_dec=W)
    elif name == "w.npy":
        np.save(path, W)
    else:
        torch = pytest.importorskip("torch")
        torch.save({"W_dec": torch.tensor(W)}, path)
    assert open_weights(path).shape == W.shape
    size = path.stat().st_size
    os.truncate(path, keep if isinstance(keep, int) else int(keep * size))
    with pytest.raises(ValueError, match=rf"{name}: (not a readable|the file is empty)"):
        open_weights(path)


def test_a_stored_member_ends_where_it_ends(tmp_path, W):
    """What follows in the archive is not read as numbers of the member before."""
    import io
    import zipfile

    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        for name, part in (("W_dec", W[:5]), ("z", np.ones((2000, 3)))):
            file = io.BytesIO()
            np.save(file, part)
            archive.writestr(f"{name}.npy", file.getvalue().replace(b"(5, 3)", b"(9, 3)"))
    with pytest.raises(ValueError, match=r"w\.npz: not a readable \.npz file: 120 bytes of numbers are there, 216"):
        open_weights(tmp_path / "w.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_checksums_of_members_are_compared(tmp_path, W, save):
    save(tmp_path / "w.npz", W_dec=W)
    content = bytearray((tmp_path / "w.npz").read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 16] ^= 1  # the checksum
    (tmp_path / "w.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.npz: not a readable \.npz file: Bad CRC-32 for file 'W_dec\.npy'"):
        rows(open_weights(tmp_path / "w.npz"))


def test_checksums_are_compared_once(tmp_path, monkeypatch, W):
    import zipfile

    np.savez(tmp_path / "w.npz", W_dec=W)
    monkeypatch.setattr(weights, "_BLOCK", 3)
    found, opened = open_weights(tmp_path / "w.npz"), []
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_, kept=zipfile.ZipFile: opened.append(1) or kept(*_))
    np.testing.assert_array_equal(rows(found), W)
    np.testing.assert_array_equal(rows(found), W)
    assert opened == [1]


def test_whatever_a_library_raises_is_one_line_about_the_file(tmp_path, W):
    torch = pytest.importorskip("torch")
    deep = {"W": torch.tensor(W)}
    for _ in range(3000):
        deep = {"a": deep}
    wide = {}
    for _ in range(60):
        wide = {"a": wide, "b": wide}
    torch.save({"W": torch.empty(7, 3, device="meta")}, tmp_path / "meta.pt")
    torch.save(wide, tmp_path / "wide.pt")
    (tmp_path / "tokens.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((('")
    (tmp_path / "negative.npy").write_bytes(
        b"\x93NUMPY\x01\x00\x46\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (-7, 3), }".ljust(70)
    )
    (tmp_path / "huge.npy").write_bytes(
        b"\x93NUMPY\x01\x00\x80\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d, 3), }" % 10**60
    )
    (tmp_path / "deep").mkdir()
    save_file({"W_dec": W}, tmp_path / "deep" / "w.safetensors")
    (tmp_path / "deep" / "cfg.json").write_text("[" * 100_000)
    np.savez(tmp_path / "encrypted.npz", W=W)
    content = bytearray((tmp_path / "encrypted.npz").read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "encrypted.npz").write_bytes(content)
    for name in ("meta.pt", "wide.pt", "tokens.npy", "negative.npy", "huge.npy", "deep/w.safetensors", "encrypted.npz"):
        with pytest.raises((ValueError, MemoryError)) as caught:
            rows(open_weights(tmp_path / name, features="rows"))
        about = tmp_path / name if name != "deep/w.safetensors" else tmp_path / "deep" / "cfg.json"
        assert str(caught.value).startswith(f"{about}: ")
        assert str(caught.value).isprintable()


def test_types_that_cannot_be_computed_with(tmp_path):
    save_file({"W_dec": np.ones((2, 2), np.int8), "i": np.ones((2, 2), np.int64)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors, W_dec: numbers must be float64, .*, got int8"):
        open_weights(tmp_path)
    with pytest.raises(ValueError, match=r"got int64"):
        open_weights(tmp_path, key="i")
    for kind in ("complex128", "int64", "bool", "longdouble", "S3"):
        np.save(tmp_path / "w.npy", np.ones((2, 2)).astype(kind))
        with pytest.raises(ValueError, match=r"w\.npy: numbers must be float64, float32, float16, bfloat16, .*, got"):
            open_weights(tmp_path / "w.npy")


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_floats_of_eight_bits(tmp_path, W, kind, suffix):
    torch = pytest.importorskip("torch")
    W = W.round(1)
    stored = torch.tensor(W).to(getattr(torch, kind))
    if suffix == ".pt":
        torch.save({"W_dec": stored}, tmp_path / "w.pt")
    else:
        from safetensors.torch import save_file as save

        save({"W_dec": stored}, tmp_path / "w.safetensors")
    found = open_weights(tmp_path, features="rows")
    assert found.dtype == kind
    np.testing.assert_array_equal(rows(found), stored.to(torch.float32).numpy())


def test_files_of_torch_from_before_its_zip_format(tmp_path, W):
    torch = pytest.importorskip("torch")
    torch.save(
        {"a": torch.tensor(W), "b": torch.tensor(W.T)}, tmp_path / "w.ckpt", _use_new_zipfile_serialization=False
    )
    for key, expected in (("a", W), ("b", W.T)):
        np.testing.assert_array_equal(rows(open_weights(tmp_path, key=key, features="rows")), expected)


def test_a_model_in_several_files(tmp_path, W):
    save_file({"W_dec": W, "b_dec": W[0].copy()}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"other": 2 * W}, tmp_path / "model-00002-of-00002.safetensors")
    index, places = (
        tmp_path / "model.safetensors.index.json",
        {
            "W_dec": "model-00001-of-00002.safetensors",
            "b_dec": "model-00001-of-00002.safetensors",
            "other": "model-00002-of-00002.safetensors",
        },
    )
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    for source in (index, tmp_path):
        found = open_weights(source)
        assert (found.path, found.key, found.features) == (index, "W_dec", "rows")
        np.testing.assert_array_equal(rows(found), W)
        np.testing.assert_array_equal(rows(open_weights(source, key="other")), 2 * W)
    for wrong, message in (
        ("../x.safetensors", r"there is no file of weights \.\./x\.safetensors beside it"),
        ("model-00003-of-00003.safetensors", "there is no file of weights model-00003"),
        ("model-00002-of-00002.safetensors", "no key 'W_dec'"),
        (3, "there is no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": places | {"W_dec": wrong}}))
        with pytest.raises(ValueError, match=message):
            open_weights(tmp_path)


class Payload:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("w.npy", np.array([[Payload()]]))
    np.savez("w.npz", W_dec=np.array([[Payload()]]))
    np.savez_compressed("c.npz", W_dec=np.array([[Payload()]]))
    for name in ("w.npy", "w.npz", "c.npz"):
        with pytest.raises(ValueError, match="got object"):
            open_weights(name)
    assert not os.path.exists("harm")


def test_nothing_is_unpickled_by_torch(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.save({"W_dec": torch.ones(3, 2), "config": Payload()}, "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt: holds other objects than tensors, .*save the state_dict"):
        open_weights("w.pt")
    assert not os.path.exists("harm")


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (tmp_path / "w.pt").write_bytes(b"x")
    with pytest.raises(ImportError, match=r'pip install "capsolve\[torch\]"'):
        open_weights(tmp_path)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4, 5), ()])
def test_not_a_matrix(tmp_path, shape):
    np.save(tmp_path / "w.npy", np.ones(shape))
    with pytest.raises(ValueError, match=r"w\.npy: must be 2-D, features and dimensions, got shape"):
        open_weights(tmp_path)
    save_file({"W_dec": np.ones(shape)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors, W_dec: must be 2-D"):
        open_weights(tmp_path / "w.safetensors", key="W_dec")
    with pytest.raises(ValueError, match="W: must be 2-D"):
        from_array(np.ones(shape))


def test_an_empty_matrix(tmp_path):
    for shape in ((0, 3), (3, 0)):
        np.save(tmp_path / "w.npy", np.ones(shape))
        with pytest.raises(ValueError, match=r"w\.npy: must not be empty, got shape"):
            open_weights(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("features", ["rows", "columns"])
def test_where_a_number_is_not_finite(tmp_path, monkeypatch, W, value, features):
    monkeypatch.setattr(weights, "_BLOCK", 6)
    stored = W.copy() if features == "rows" else W.T.copy()
    stored[(5, 1) if features == "rows" else (1, 5)] = value
    place = "row 5, column 1" if features == "rows" else "row 1, column 5"
    np.savez(tmp_path / "w.npz", W_dec=stored)
    with pytest.raises(ValueError, match=rf"w\.npz, W_dec: must be finite, got {value} at {place}"):
        list(open_weights(tmp_path).blocks())
