"""Weights in files: every format gives the numbers that were stored, features first, or says what is wrong."""

import errno
import json
import os

import numpy as np
import pytest

pytest.importorskip("ml_dtypes")
pytest.importorskip("safetensors")

import ml_dtypes
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
    found = open_weights(path, feature_axis=features)
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


def test_the_only_file_in_the_folders_below(tmp_path, W):
    below = tmp_path / "layer_20" / "width_16k"
    below.mkdir(parents=True)
    (tmp_path / "README.md").write_text("weights")
    np.savez(below / "params.npz", W_dec=W)
    assert open_weights(tmp_path).path == below / "params.npz"
    (tmp_path / "layer_21").mkdir()
    np.savez(tmp_path / "layer_21" / "params.npz", W_dec=W)
    with pytest.raises(
        ValueError, match=r"several files of weights, name one: layer_20/width_16k/params\.npz, layer_21"
    ):
        open_weights(tmp_path)
    np.savez(tmp_path / "params.npz", W_dec=2 * W)  # the nearest is meant
    assert open_weights(tmp_path).path == tmp_path / "params.npz"


def test_other_things_of_trainers_are_not_in_the_way(tmp_path, W):
    save_file({"W_dec": W}, tmp_path / "w.safetensors")
    for name in ("optimizer.bin", "training_args.bin", "last.ckpt"):
        (tmp_path / name).write_bytes(b"x")
    assert open_weights(tmp_path).path == tmp_path / "w.safetensors"


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
    assert open_weights(tmp_path, feature_axis="rows").shape == (6, 20)


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
        ValueError,
        match=r"W: parts × dimensions × features, 4 matrices of 2 × 5; part must be one of 0 … 3, or all on the",
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
    assert open_weights(tmp_path, feature_axis="columns").reason == "as given"


def test_features_overrides_all_but_cfg(tmp_path):
    save_file({"decoder.weight": np.ones((3, 7))}, tmp_path / "w.safetensors")
    assert open_weights(tmp_path, feature_axis="rows").shape == (3, 7)
    (tmp_path / "cfg.json").write_text('{"d_in": 3, "d_sae": 7}')
    assert open_weights(tmp_path, feature_axis="columns").shape == (7, 3)
    with pytest.raises(
        ValueError, match=r"features must be columns, .* \[3, 7\] and cfg.json has d_in = 3, .*got rows"
    ):
        open_weights(tmp_path, feature_axis="rows")


def test_a_cfg_of_something_else(tmp_path):
    save_file({"W_dec": np.ones((3, 7))}, tmp_path / "w.safetensors")
    (tmp_path / "cfg.json").write_text('{"d_in": 4, "d_sae": 7}')
    with pytest.raises(ValueError, match=r"\[3, 7\], but cfg.json has d_in = 4, d_sae = 7; say whether"):
        open_weights(tmp_path)
    assert open_weights(tmp_path, feature_axis="rows").shape == (3, 7)
    for nothing in ("[]", '{"d_in": null}', '{"lr": 0.1}'):
        (tmp_path / "cfg.json").write_text(nothing)
        assert open_weights(tmp_path).guessed
    (tmp_path / "cfg.json").write_text("{")
    with pytest.raises(ValueError, match=r"cfg\.json: not a readable \.json file"):
        open_weights(tmp_path)


def test_features_are_rows_or_columns(tmp_path, W):
    with pytest.raises(ValueError, match=r'feature_axis must be "rows" or "columns", or -2 or -1, got 0'):
        from_array(W, 0)
    with pytest.raises(ValueError, match=r'feature_axis must be "rows" or "columns", or -2 or -1, got row'):
        open_weights(tmp_path, feature_axis="row")


# whose file it is: name of the file, shapes of what is in it, configuration; then the key that is taken, its layout (of
# features, dimensions, parts) and features × dimensions, or what a refusal says

N, D, P = 12, 4, 3  # features, dimensions, parts
SAE = {"W_enc": (D, N), "b_enc": (N,), "W_dec": (N, D), "b_dec": (D,)}
SAELENS = {"architecture": "standard", "d_in": D, "d_sae": N, "hook_name": "blocks.3.hook_resid_pre"}
SPARSIFY = {"expansion_factor": 3, "normalize_decoder": True, "num_latents": 0, "k": 2, "d_in": D}
TRAINER = {"dict_class": "AutoEncoder", "activation_dim": D, "dict_size": N, "layer": 3}
LINEAR = {"encoder.weight": (N, D), "encoder.bias": (N,), "decoder.weight": (D, N), "bias": (D,)}
BERT = {"embeddings.word_embeddings.weight": (N, D), "encoder.layer.0.attention.self.query.weight": (D, D)}
SQUARE = {"W_enc": (D, D), "b_enc": (D,), "W_dec": (D, D), "b_dec": (D,)}
LINEAR_PART = {"encoder.weight": (N, D), "encoder.bias": (N,)}
ANY = "w.safetensors"


def only(*names, **shapes):
    return {name: SAE[name] for name in names} | shapes


def under(prefix, shapes):
    return {f"{prefix}{key}": shape for key, shape in shapes.items()}


LAYOUTS = {
    # SAELens
    "SAELens": ("sae_weights.safetensors", SAE, SAELENS, ("W_dec", "fd")),
    "SAELens jumprelu": ("sae_weights.safetensors", SAE | {"threshold": (N,)}, SAELENS, ("W_dec", "fd")),
    "SAELens gated": (
        "sae_weights.safetensors", SAE | {"b_gate": (N,), "b_mag": (N,), "r_mag": (N,)}, SAELENS, ("W_dec", "fd")
    ),
    "SAELens decoder alone": ("sae_weights.safetensors", only("W_dec"), SAELENS, ("W_dec", "fd")),
    "SAELens transcoder": (
        "sae_weights.safetensors", SAE | {"W_enc": (7, N)}, SAELENS | {"d_in": 7, "d_out": D}, ("W_dec", "fd")
    ),
    "SAELens square": ("sae_weights.safetensors", SQUARE, SAELENS | {"d_sae": D}, ("W_dec", "fd", D, D)),
    "SAELens square, other name": (ANY, SQUARE, SAELENS | {"d_sae": D}, ("W_dec", "fd", D, D)),
    "SAELens square, no configuration": ("sae_weights.safetensors", SQUARE, None, ("W_dec", "fd", D, D)),
    "SAELens, fewer features than dimensions": (
        "sae_weights.safetensors", {"W_dec": (3, 5), "b_dec": (5,)}, {"d_in": 5, "d_sae": 3}, ("W_dec", "fd", 3, 5)
    ),
    # sparsify
    "sparsify": ("sae.safetensors", only("W_dec", "b_dec") | LINEAR_PART, SPARSIFY, ("W_dec", "fd")),
    "sparsify num_latents": (
        "sae.safetensors", only("W_dec", "b_dec") | LINEAR_PART, {"num_latents": N, "d_in": D}, ("W_dec", "fd")
    ),
    "sparsify expansion factor alone": ("sae.safetensors", only("W_dec"), SPARSIFY, ("W_dec", "fd")),
    "sparsify square": (
        "sae.safetensors",
        {"encoder.weight": (D, D), "encoder.bias": (D,), "W_dec": (D, D), "b_dec": (D,)},
        {"expansion_factor": 1, "num_latents": 0, "d_in": D},
        ("W_dec", "fd", D, D),
    ),
    "sparsify square, no configuration": (
        ANY, {"encoder.weight": (D, D), "encoder.bias": (D,), "W_dec": (D, D)}, None, ("W_dec", "fd", D, D)
    ),
    "sparsify skip transcoder": (
        "sae.safetensors", only("W_dec", "b_dec") | LINEAR_PART | {"W_skip": (D, D)}, SPARSIFY, ("W_dec", "fd")
    ),
    "sparsify, a decoder for one target": (
        ANY, {"W_decs.0": (N, D), "b_decs.0": (D,)} | LINEAR_PART, None, ("W_decs.0", "fd")
    ),
    "sparsify, a short decoder for one target": (ANY, {"W_decs.0": (3, 5)}, None, ("W_decs.0", "fd", 3, 5)),
    "sparsify, several targets": (
        ANY, {"W_decs.0": (N, D), "W_decs.1": (N, D)} | LINEAR_PART, None,
        r"a key is needed.* W_decs\.0 \[12, 4\], W_decs\.1",
    ),
    # dictionary_learning
    "dictionary_learning": ("ae.pt", LINEAR, {"trainer": TRAINER}, ("decoder.weight", "df")),
    "dictionary_learning, no configuration": ("ae.pt", LINEAR, None, ("decoder.weight", "df")),
    "dictionary_learning gated": (
        "ae.pt",
        {"decoder_bias": (D,), "encoder.weight": (N, D), "r_mag": (N,), "gate_bias": (N,), "mag_bias": (N,),
         "decoder.weight": (D, N)},
        {"trainer": TRAINER},
        ("decoder.weight", "df"),
    ),
    "dictionary_learning batch top-k": (
        "ae.pt",
        {"b_dec": (D,), "k": (), "threshold": (), "decoder.weight": (D, N), "encoder.weight": (N, D),
         "encoder.bias": (N,)},
        {"trainer": TRAINER},
        ("decoder.weight", "df"),
    ),
    "dictionary_learning jumprelu": ("ae.pt", SAE | {"threshold": (N,)}, {"trainer": TRAINER}, ("W_dec", "fd")),
    "dictionary_learning jumprelu, square": (
        "ae.pt",
        SQUARE | {"threshold": (D,)},
        {"trainer": TRAINER | {"dict_size": D, "dict_class": "JumpReluAutoEncoder"}, "buffer": {"d_submodule": D}},
        ("W_dec", "fd", D, D),
    ),
    "dictionary_learning matryoshka": (
        "ae.pt", SAE | {"k": (), "threshold": (), "group_sizes": (2,)}, {"trainer": TRAINER}, ("W_dec", "fd")
    ),
    "dictionary_learning square": (
        "ae.pt", {"decoder.weight": (D, D), "encoder.weight": (D, D)}, None, ("decoder.weight", "df", D, D)
    ),
    "dictionary_learning crosscoder": (
        "ae.pt",
        {"encoder.weight": (P, D, N), "encoder.bias": (N,), "decoder.weight": (P, N, D), "decoder.bias": (P, D)},
        None,
        ("decoder.weight", "pfd"),
    ),
    "dictionary_learning crosscoder, decoder alone": (
        "ae.pt", {"decoder.weight": (P, N, D)}, None, ("decoder.weight", "pfd")
    ),
    # other projects
    "Gemma Scope": ("params.npz", SAE | {"threshold": (N,)}, None, ("W_dec", "fd")),
    "Gemma Scope square": ("params.npz", SQUARE | {"threshold": (D,)}, None, ("W_dec", "fd", D, D)),
    "Gemma Scope 2": (
        "params.safetensors",
        {"w_enc": (D, N), "w_dec": (N, D), "b_enc": (N,), "b_dec": (D,), "threshold": (N,)},
        {"width": N, "architecture": "jump_relu"},
        ("w_dec", "fd"),
    ),
    "Gemma Scope 2 square": (
        "params.safetensors", {"w_enc": (D, D), "w_dec": (D, D)}, {"width": D, "architecture": "jump_relu"},
        ("w_dec", "fd", D, D),
    ),
    "width alone": (ANY, only("W_dec"), {"width": N}, ("W_dec", "fd")),
    "Gemma Scope 2 crosscoder, layers first": (
        "params.safetensors", {"w_enc": (P, D, N), "w_dec": (P, N, D), "b_enc": (N,), "b_dec": (P, D)}, None,
        ("w_dec", "pfd"),
    ),
    "Gemma Scope 2 crosscoder, features first": (
        "params.safetensors", {"w_enc": (P, D, N), "w_dec": (N, P, D), "b_enc": (N,), "b_dec": (P, D)}, None,
        ("w_dec", "fpd"),
    ),
    "Llama Scope": ("checkpoints/final.safetensors", LINEAR, None, ("decoder.weight", "df")),
    "Language-Model-SAEs": (
        ANY, {"W_E": (D, N), "b_E": (N,), "W_D": (N, D), "b_D": (D,)}, {"d_model": D, "d_sae": N}, ("W_D", "fd")
    ),
    "Language-Model-SAEs square": (ANY, {"W_E": (D, D), "W_D": (D, D)}, None, ("W_D", "fd", D, D)),
    "Language-Model-SAEs crosscoder": (
        ANY, {"W_E": (P, D, N), "b_E": (P, N), "W_D": (P, N, D), "b_D": (P, D)}, None, ("W_D", "pfd")
    ),
    "Language-Model-SAEs crosscoder, decoder alone": (ANY, {"W_D": (P, N, D)}, None, ("W_D", "pfd")),
    "Qwen Scope": (
        "layer3.sae.pt", {"W_enc": (N, D), "W_dec": (D, N), "b_enc": (N,), "b_dec": (D,)}, None, ("W_dec", "df")
    ),
    "Goodfire": (
        "sae.pth", {"encoder_linear.weight": (N, D), "encoder_linear.bias": (N,), "decoder_linear.weight": (D, N),
                    "decoder_linear.bias": (D,)}, None, ("decoder_linear.weight", "df"),
    ),
    "OpenAI": (
        "5.pt", {"pre_bias": (D,), "latent_bias": (N,), "encoder.weight": (N, D), "decoder.weight": (D, N)}, None,
        ("decoder.weight", "df"),
    ),
    "a decoder by itself, and a dictionary of its encoder": (
        ANY, {"E": (D, N), "D": (N, D), "b_e": (N,)}, None, ("D", "fd")
    ),
    "the same, transposed": (ANY, {"E": (N, D), "D": (D, N), "b_e": (N,)}, None, ("D", "df")),
    # crosscoders and cross-layer transcoders
    "crosscoder, features first": (
        ANY, {"W_enc": (P, D, N), "W_dec": (N, P, D), "b_enc": (N,), "b_dec": (P, D)}, None, ("W_dec", "fpd")
    ),
    "crosscoder, layers first": (
        ANY, {"W_enc": (P, D, N), "W_dec": (P, N, D), "b_enc": (N,), "b_dec": (P, D)}, None, ("W_dec", "pfd")
    ),
    "crosscoder, by its configuration": (ANY, {"W_dec": (N, P, D)}, {"dict_size": N, "d_in": D}, ("W_dec", "fpd")),
    "crosscoder of which nothing is known": (
        ANY, {"W_dec": (N, P, D)}, None, r"the shape is \[12, 3, 4\]; say whether"
    ),
    "crosscoder with as many features as layers": (
        ANY, {"W_dec": (P, P, 8), "b_enc": (P,)}, None, r"the shape is \[3, 3, 8\]; say whether",
    ),
    "the same with both biases": (
        ANY, {"W_dec": (P, P, 8), "b_enc": (P,), "b_dec": (P, 8)}, None, "say whether",
    ),
    "cross-layer transcoder": ("W_dec_5.safetensors", {"W_dec_5": (N, P, D)}, None, ("W_dec_5", "fpd")),
    "cross-layer transcoder, last layer": ("W_dec_5.safetensors", {"W_dec_5": (N, 1, D)}, None, ("W_dec_5", "fpd")),
    "transcoder of one layer": (ANY, SAE | {"W_skip": (D, D)}, None, ("W_dec", "fd")),
    "transcoder, transposed": (
        ANY, {"W_enc": (N, D), "W_dec": (D, N), "b_enc": (N,), "b_dec": (D,)}, None, ("W_dec", "df")
    ),
    # toy models
    "toy models": ("toy.npz", {"W": (P, D, N), "b_final": (P, N)}, None, ("W", "pdf")),
    "toy models, features first": ("toy.npz", {"W": (P, N, D), "b_final": (P, N)}, None, ("W", "pfd")),
    "more toy models than features": ("toy.npz", {"W": (20, D, N), "b_final": (20, N)}, None, ("W", "pdf")),
    "more toy models than features, without a bias": ("toy.npz", {"W": (20, D, N)}, None, "say whether"),
    "one toy model": ("toy.npz", {"W": (D, N), "b_final": (N,)}, None, ("W", "df")),
    # prefixes
    "compiled": (ANY, under("_orig_mod.", SAE), None, ("_orig_mod.W_dec", "fd")),
    "on several cards": (ANY, under("module.", LINEAR), None, ("module.decoder.weight", "df")),
    "in a model": (ANY, under("model.", {"W_D": (N, D), "b_D": (D,)}), None, ("model.W_D", "fd")),
    "in a model, square": (
        ANY, under("model.sae.", {"decoder.weight": (D, D)}), None, ("model.sae.decoder.weight", "df", D, D)
    ),
    "with slashes": (ANY, {"params/W_dec": (N, D), "params/b_dec": (D,)}, None, ("params/W_dec", "fd")),
    "a checkpoint of a trainer": ("last.ckpt", under("state_dict.sae.", SAE), None, ("state_dict.sae.W_dec", "fd")),
    # language models
    "TransformerLens embedding": (ANY, {"embed.W_E": (N, D), "pos_embed.W_pos": (9, D)}, None, ("embed.W_E", "fd")),
    "TransformerLens unembedding": (ANY, {"unembed.W_U": (D, N), "unembed.b_U": (N,)}, None, ("unembed.W_U", "df")),
    "TransformerLens neurons": (
        ANY, {"blocks.0.mlp.W_in": (D, N), "blocks.0.mlp.W_out": (N, D)}, None, ("blocks.0.mlp.W_out", "fd")
    ),
    "TransformerLens, both": (
        ANY, {"embed.W_E": (N, D), "unembed.W_U": (D, N)}, None, r"a key is needed.*embed\.W_E \[12, 4\], unembed"
    ),
    "BERT": (
        ANY, BERT | {"encoder.layer.0.output.dense.weight": (D, N)}, None, ("encoder.layer.0.output.dense.weight", "df")
    ),
    "BERT's head": (ANY, {"cls.predictions.decoder.weight": (N, D)}, None, ("cls.predictions.decoder.weight", "fd")),
    "Llama": (
        "pytorch_model.bin", {"model.layers.0.mlp.down_proj.weight": (D, N), "model.norm.weight": (D,)}, {"d_model": D},
        ("model.layers.0.mlp.down_proj.weight", "df"),
    ),
    "Llama's tokens": (ANY, {"model.embed_tokens.weight": (N, D)}, None, ("model.embed_tokens.weight", "fd")),
    # what sizes say
    "bias [1, D]": (ANY, {"W_dec": (3, 5), "b_dec": (1, 5)}, None, ("W_dec", "fd", 3, 5)),
    "bias of the encoder alone": (ANY, {"W_dec": (3, 5), "b_enc": (3,)}, None, ("W_dec", "fd", 3, 5)),
    "bias of another module": (
        ANY, under("a.", SAE) | {"b.b_dec": (N,)}, None, ("a.W_dec", "fd")
    ),
    "biases that disagree": (
        ANY, {"W_dec": (N, D), "b_dec": (N,), "b_enc": (N,)}, None, "b_dec has 12 entries.* and b_enc has 12"
    ),
    "a layout against a bias": (ANY, {"decoder.weight": (N, D), "decoder.bias": (D,)}, None, ("decoder.weight", "fd")),
    "a configuration against a bias": (
        ANY, only("W_dec") | {"b_dec": (N,)}, SAELENS, "d_sae = 12 and b_dec has 12 entries.*say"
    ),
    "the configuration of something else": (
        ANY, only("W_dec"), {"d_in": 5, "d_sae": N}, "but cfg.json has d_in = 5, d_sae = 12; say"
    ),
    "a longer axis": (ANY, only("W_dec"), None, ("W_dec", "fd")),
    "square, whosever it is": (ANY, SQUARE, None, r"the shape is \[4, 4\]; say whether"),
    "square, of language models": (ANY, {"W": (D, D)}, {"d_model": D, "hidden_size": D}, "say whether"),
    # what is no decoder
    "an encoder": (ANY, {"W_enc": (D, N), "b_enc": (N,)}, None, r"a key is needed.*W_enc \[4, 12\]"),
    "a bias in two axes": (ANY, {"b_final": (P, N), "out.bias": (P, N)}, None, "a key is needed"),
    "a row of sparsities": (ANY, only("W_dec") | {"sparsity": (1, N), "b_dec": (D,)}, None, ("W_dec", "fd")),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name):
    file, shapes, cfg, expected = LAYOUTS[name]
    rng, path = np.random.default_rng(0), tmp_path / file
    arrays = {key: rng.standard_normal(shape) for key, shape in shapes.items()}
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file(arrays, path)
    else:
        torch = pytest.importorskip("torch")
        torch.save({key: torch.tensor(array) for key, array in arrays.items()}, path)
    if cfg is not None:
        (path.parent / ("config.json" if "trainer" in cfg else "cfg.json")).write_text(json.dumps(cfg))
    part = 0 if any(len(shape) == 3 for shape in shapes.values()) and isinstance(expected, tuple) else None
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected) as caught:
            open_weights(tmp_path, part=part)
        assert str(tmp_path) in str(caught.value)
        assert len(str(caught.value)) <= 500
        return
    key, layout, n, dimensions = (*expected, N, D)[:4]
    found = open_weights(tmp_path, part=part)
    array = arrays[key] if "p" not in layout else arrays[key].take(0, axis=layout.index("p"))
    assert (found.key, found.shape, found.parts) == (
        key, (n, dimensions), arrays[key].shape[layout.index("p")] if "p" in layout else None,
    )  # fmt: skip
    np.testing.assert_array_equal(rows(found), array if layout.replace("p", "") == "fd" else array.T)
    assert found.guessed == (name == "a longer axis")


def test_a_refusal_lists_ten_candidates_the_likely_ones_first(tmp_path):
    shapes = {f"model.layers.{i}.self_attn.q_proj.weight": (D, D) for i in range(40)}
    shapes |= {f"model.layers.{i}.mlp.down_proj.weight": (D, N) for i in range(30)} | {"x" * 5000: (D, N)}
    save_file({key: np.ones(shape, np.float32) for key, shape in shapes.items()}, tmp_path / "w.safetensors")
    for key in (None, "y" * 5000):
        with pytest.raises(ValueError, match="key") as caught:
            open_weights(tmp_path, key=key)
        said = str(caught.value)
        listed = said.partition("the keys are ")[2]
        assert listed.startswith("model.layers.0.mlp.down_proj.weight [4, 12], model.layers.1.mlp.down_proj.weight")
        assert 0 < listed.count("[") <= 10
        assert listed.endswith(f" and {71 - listed.count('[')} more")
        assert len(said) <= 500


def test_numbers_that_count_times_others(tmp_path):
    torch = pytest.importorskip("torch")
    stored = {
        "a.down_proj.weight": torch.ones(4, 12).to(torch.float8_e4m3fn),
        "a.down_proj.weight_scale_inv": torch.ones(2),
    }
    torch.save(stored, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"its numbers count times those of a\.down_proj\.weight_scale_inv"):
        open_weights(tmp_path)


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


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz", "w.npy", "w.pt"])
@pytest.mark.parametrize("change", ["shrinks", "goes", "fails"])
def test_files_that_change_while_they_are_read(tmp_path, monkeypatch, name, change):
    path, W = tmp_path / name, np.random.default_rng(0).standard_normal((200, 30))
    if name == "w.pt":
        save_torch({"W_dec": pytest.importorskip("torch").tensor(W)}, path)
    elif name == "w.safetensors":
        save_file({"W_dec": W}, path)
    else:
        np.savez(path, W_dec=W) if name == "w.npz" else np.save(path, W)
    found = open_weights(path, feature_axis="rows")
    if change == "shrinks":
        os.truncate(path, path.stat().st_size // 2)
    elif change == "goes":
        path.unlink()
    else:
        monkeypatch.setattr(np, "memmap", failing_disk)
        if name == "w.pt":
            monkeypatch.setattr("torch.load", failing_disk)
    with pytest.raises((ValueError, OSError), match=rf"{name}") as caught:
        rows(found)
    assert str(caught.value).isprintable()
    assert change != "fails" or caught.value.errno == errno.EIO


def failing_disk(*_, **__):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


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
            rows(open_weights(tmp_path / name, feature_axis="rows"))
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
    found = open_weights(tmp_path, feature_axis="rows")
    assert found.dtype == kind
    np.testing.assert_array_equal(rows(found), stored.to(torch.float32).numpy())


def test_files_of_torch_from_before_its_zip_format(tmp_path, W):
    torch = pytest.importorskip("torch")
    torch.save(
        {"a": torch.tensor(W), "b": torch.tensor(W.T)}, tmp_path / "w.ckpt", _use_new_zipfile_serialization=False
    )
    for key, expected in (("a", W), ("b", W.T)):
        np.testing.assert_array_equal(rows(open_weights(tmp_path, key=key, feature_axis="rows")), expected)


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
