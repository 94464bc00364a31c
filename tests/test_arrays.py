"""Arrays of other libraries at every door: what they hold counts, not how a library holds it."""

import numpy as np
import pytest
from scipy import sparse

import capsolve
from capsolve import figures
from capsolve._arrays import cut_by_rows, to_numpy

W = np.random.default_rng(0).standard_normal((6, 3)) * [[1], [1], [0], [1], [2], [1]]
SAMPLES = np.random.default_rng(1).laplace(size=(200, 6)) * (np.random.default_rng(2).random((200, 6)) < 0.5)

# What a tensor may be besides numbers in a row, and what is the same to NumPy.
TENSORS = {
    "Parameter": lambda torch, t: torch.nn.Parameter(t),
    "result that requires grad": lambda torch, t: t.requires_grad_() * 1.0,
    "bfloat16": lambda torch, t: t.bfloat16(),
    "bfloat16 Parameter": lambda torch, t: torch.nn.Parameter(t.bfloat16()),
    "float16": lambda torch, t: t.half(),
    "float8": lambda torch, t: t.to(torch.float8_e4m3fn),
    "sparse": lambda torch, t: t.to_sparse(),
    "sparse rows": lambda torch, t: t.to_sparse_csr(),
    "sparse that requires grad": lambda torch, t: t.requires_grad_().to_sparse(),
    "negated view": lambda torch, t: torch.complex(t, -t).conj().imag,
}
DOORS = {
    "measure": lambda given: capsolve.measure(given(W)).capacity,
    "measure, activations": lambda given: capsolve.measure(W, activations=given(SAMPLES)).comparison.capacity,
    "blocks": lambda given: np.concatenate([block.capacity for block in capsolve.blocks(given(W))]),
    "capacities": lambda given: to_numpy(capsolve.capacities(given(W))),
    "leverages": lambda given: to_numpy(capsolve.leverages(given(W))),
    "interference": lambda given: to_numpy(capsolve.interference(given(W))),
    "efficiency": lambda given: to_numpy(capsolve.efficiency(given(W))),
    "stream_capacities": lambda given: to_numpy(next(capsolve.stream_capacities(lambda: [given(W)]))),
    "embedding_loss": lambda given: capsolve.embedding_loss(given(W), np.ones(6), 9.0),
    "figures.gram_matrix": lambda given: figures.gram_matrix(given(W)).images[0].get_array().data,
    "Profile": lambda given: capsolve.Profile(given(np.arange(6.0)), given(np.arange(1.0, 7.0))).kurtosis,
    "solve": lambda given: to_numpy(capsolve.solve(given(np.arange(6.0)), 9.0, 2).capacity),
    "solve_batch": lambda given: capsolve.solve_batch(given(np.eye(6)), 9.0, 2).capacity,
    "from_activations": lambda given: capsolve.Profile.from_activations(given(SAMPLES)).kurtosis,
    "from_activations, in chunks": lambda given: (
        capsolve.Profile.from_activations(given(rows) for rows in np.split(SAMPLES, 4)).kurtosis
    ),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
def test_tensors_are_the_numbers_they_hold(kind, door):
    torch = pytest.importorskip("torch")
    made = lambda array: TENSORS[kind](torch, torch.tensor(array))  # noqa: E731
    if kind == "sparse rows" and door in ("Profile", "solve"):
        pytest.skip("vectors have no rows")
    plain = lambda array: made(array).detach().to_dense().resolve_neg().to(torch.float64).numpy()  # noqa: E731
    found, wanted = DOORS[door](made), DOORS[door](plain)
    rough = kind in ("bfloat16", "bfloat16 Parameter", "float16", "float8")  # computed in float32 there
    np.testing.assert_allclose(found, wanted, rtol=1e-5 if rough else 1e-13, atol=1e-6 if rough else 1e-13)


@pytest.mark.parametrize("door", DOORS)
def test_matrices_of_scipy_and_short_floats_of_jax_are_the_numbers_they_hold(door):
    if door not in ("Profile", "solve", "from_activations, in chunks"):
        np.testing.assert_allclose(DOORS[door](sparse.coo_matrix), DOORS[door](np.asarray), rtol=1e-13, atol=1e-13)
    short = pytest.importorskip("ml_dtypes").bfloat16
    found, wanted = DOORS[door](lambda a: a.astype(short)), DOORS[door](lambda a: a.astype(short).astype(float))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("door", [name for name in DOORS if name != "from_activations, in chunks"])
def test_a_tensor_without_numbers_is_refused(door):
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="must hold numbers, got a tensor on the device 'meta', which has none"):
        DOORS[door](lambda array: torch.tensor(array, device="meta"))


def test_what_is_measured_from_bfloat16_says_so():
    torch = pytest.importorskip("torch")
    assert capsolve.measure(torch.tensor(W).bfloat16()).weights.dtype == "bfloat16"
    assert capsolve.measure(torch.tensor(W)).weights.dtype == "float64"


def test_sparse_samples_stay_sparse():
    torch = pytest.importorskip("torch")
    tall = torch.sparse_coo_tensor([[0, 5, 5], [1, 2, 2]], [1.0, 2.0, 3.0], (10**7, 4), check_invariants=True)
    rows = cut_by_rows(tall)
    assert sparse.issparse(rows)
    assert rows.tocsr()[5, 2] == 5.0
    profile = capsolve.Profile.from_activations(tall)
    assert profile.moments.samples == 10**7
    assert profile.importance[1] == pytest.approx(1e-7)


def test_lists_of_tensors_are_arrays():
    torch = pytest.importorskip("torch")
    rows = [torch.nn.Parameter(torch.tensor(row)) for row in W]
    np.testing.assert_array_equal(to_numpy(rows), W)
    np.testing.assert_allclose(capsolve.capacities(rows), capsolve.capacities(W), rtol=1e-13)
    assert capsolve.Profile.from_activations([row[:3] for row in torch.tensor(SAMPLES)]).importance.shape == (3,)


def test_numpy_arrays_are_not_copied():
    for array in (W, W.astype(np.float16)):
        assert to_numpy(array) is array
