"""Arrays in files: parts of them, of every type of number, as NumPy and safetensors wrote them."""

import json

import numpy as np
import pytest

pytest.importorskip("ml_dtypes")
pytest.importorskip("safetensors")

import ml_dtypes
from safetensors.numpy import save_file

from capsolve.files.tensors import open_tensors, read_arrays, write_arrays

X = np.random.default_rng(0).integers(0, 9, (7, 3))
KINDS = [np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_]


def written(path, array):
    match path.suffix:
        case ".npy":
            np.save(path, array)
        case ".npz":
            (np.savez if path.name.startswith("plain") else np.savez_compressed)(path, x=array)
        case ".safetensors":
            save_file({"x": array}, path)
    return path


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", ["x.npy", "plain.npz", "small.npz", "x.safetensors"])
def test_parts_of_a_matrix(tmp_path, name, dtype):
    path = written(tmp_path / name, X.astype(dtype))
    ((key, tensor),) = open_tensors(path, path.suffix).items()
    assert key == ("" if name == "x.npy" else "x")
    assert (tensor.dtype, tensor.shape, tensor.real) == (np.dtype(dtype).name, (7, 3), True)
    for index in ((slice(None), slice(None)), (slice(2, 5), slice(None)), (slice(None), slice(1, 2))):
        part = tensor.read(index)
        assert part.dtype == dtype
        np.testing.assert_array_equal(part, X.astype(dtype)[index])


def test_what_are_real_numbers(tmp_path):
    header = {name: {"dtype": name, "shape": [1], "data_offsets": [0, 0]} for name in ()}
    start = 0
    for name, size in (("F8_E4M3", 1), ("BF16", 2), ("F32", 4), ("C64", 8)):
        header[name] = {"dtype": name, "shape": [1, 1], "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(start))
    found = open_tensors(path, ".safetensors")
    assert {name: tensor.real for name, tensor in found.items()} == {
        "F8_E4M3": True, "BF16": True, "F32": True, "C64": False,
    }  # fmt: skip
    assert found["BF16"].dtype == "bfloat16"
    assert found["BF16"].read((slice(None), slice(None))).dtype == ml_dtypes.bfloat16
    for kind, real in (("complex64", False), ("longdouble", True), ("S3", False), ("M8[s]", False), (">f4", True)):
        np.save(tmp_path / "x.npy", np.zeros((2, 2), dtype=kind))
        assert open_tensors(tmp_path / "x.npy", ".npy")[""].real == real


def test_all_arrays_at_once(tmp_path):
    path = tmp_path / "x.npz"
    write_arrays(path, {"a": X, "b": 1.5})
    write_arrays(path, {"a": X + 1}, compressed=False)  # takes the place of the first
    assert list(read_arrays(path)) == ["a"]
    np.testing.assert_array_equal(read_arrays(path)["a"], X + 1)
    with np.load(path) as file:
        np.testing.assert_array_equal(file["a"], X + 1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npz"]
