"""Autoencoders of one-hot inputs: forces against automatic differentiation, optimisers against others, noise."""

import numpy as np
import pytest

from capsolve.incidental import (
    count_collisions,
    expected_pairs,
    forces,
    integrate_row,
    same_winner,
    train_autoencoders,
)
from capsolve.incidental.sparse_adamw import AdamWConfig, train

jax = pytest.importorskip("jax")
optimisers = pytest.importorskip("capsolve.incidental.optimisers")


def loss(W, penalty, noise=0.0):
    """The loss, written as it is said."""
    jnp = jax.numpy
    n = W.shape[0]
    outputs = jax.nn.relu((jnp.eye(n) @ W + noise) @ W.T)
    return ((outputs - jnp.eye(n)) ** 2).sum() + penalty * jnp.abs(W).sum()


@pytest.mark.parametrize(("n", "m"), [(5, 9), (9, 4)])
def test_three_forces_are_a_quarter_of_the_downward_gradient(n, m):
    W = np.random.default_rng(n).normal(size=(n, m)) / np.sqrt(m)
    with jax.enable_x64(True):
        gradient = np.asarray(jax.jit(jax.grad(loss))(jax.numpy.asarray(W), 0.3))
    found = forces(W, 0.3)
    scale = sum(np.abs(force) for force in found)
    # sums of at most 9 products and 3 forces: some tens of roundings of the terms' size
    assert (np.abs(sum(found) + gradient / 4) <= 1e-14 * (1 + scale)).all()
    # and it is these three that are needed: without the interference the gradient is another one
    assert np.abs(found[0] + found[2] + gradient / 4).max() > 0.1


def test_the_flow_of_one_row_is_that_of_the_exact_row():
    start = np.random.default_rng(3).normal(size=40) / np.sqrt(40)
    penalty, step, until = 0.04, 0.01, 40.0
    found = train_autoencoders(
        1, 40, optimiser="flow", steps=4000, learning_rate=step, penalty=penalty, start=start[None], snapshots=1
    )
    exact = integrate_row(start, penalty / 4, until=until)
    assert 2 < exact.survivors[-1] < 30
    assert found.survivors[-1, 0, 0] == exact.survivors[-1]
    # of first order in the step: on the balance |w|² ≈ 1 the error is about step × rate of change
    np.testing.assert_allclose(found.embedding[0, 0], exact.weights(), atol=step)


def test_adamw_is_that_of_the_published_sweep():
    starts = [(np.random.default_rng(s).normal(size=(8, 12)) / np.sqrt(12)).astype(np.float32) for s in (0, 1)]
    wanted = train(starts, AdamWConfig(1e-3, 40, 1e-3, 0.01))
    found = train_autoencoders(
        8, 12, instances=2, steps=40, learning_rate=1e-3, penalty=1e-3, start=np.stack(starts), snapshots=3
    )
    np.testing.assert_allclose(found.embedding, np.stack(wanted), atol=2e-5)
    assert found.step.tolist() == [0, 1, 6, 40]


def test_features_settle_on_neurons_and_opposite_pairs_stay():
    found = train_autoencoders(
        8, 12, optimiser="flow", instances=64, steps=6000, learning_rate=0.2, penalty=0.04, rng=0, snapshots=4
    )
    counts = count_collisions(found.embedding)
    assert (counts.single == 1.0).mean() > 0.9
    assert counts.equal_pairs.sum() == 0  # equal signs push each other off, also where there are as many as features
    pairs = counts.opposite_pairs
    assert 0.3 < pairs.mean() / expected_pairs(8, 12) < 2.0
    settled = counts.single == 1.0
    np.testing.assert_allclose(counts.excess[settled], pairs[settled], atol=0.01)
    assert same_winner(found.start, found.embedding).mean() > 0.5


def test_three_features_on_one_neuron_leave_two():
    found = train_autoencoders(
        3, 1, optimiser="flow", instances=8, steps=20_000, learning_rate=0.2, penalty=0.04, rng=1, snapshots=1
    )
    alive = np.abs(found.embedding[:, :, 0]) > 0.5
    signs = np.sign(found.embedding[:, :, 0])
    for lives, sign in zip(alive, signs, strict=True):
        assert sorted(sign[lives]) in ([-1.0, 1.0], [1.0], [-1.0])


@pytest.mark.slow
def test_the_sign_of_what_noise_does_is_that_of_its_excess_kurtosis():
    settings = {
        "optimiser": "sgd",
        "instances": 32,
        "steps": 8000,
        "learning_rate": 0.05,
        "noise_std": 0.2,
        "snapshots": 1,
    }
    ends = {}
    for noise in ("rademacher", "gaussian", "laplace"):
        found = train_autoencoders(8, 16, noise=noise, rng=0, **settings)
        ends[noise] = found.fourth_norm[0][-1], found.fourth_norm[1][-1]
    # the effects are some 50 and 8 standard errors, which leaves room for another draw of the noise
    for noise, sign in (("rademacher", 1.0), ("laplace", -1.0)):
        difference, error = ends[noise][0] - ends["gaussian"][0], np.hypot(ends[noise][1], ends["gaussian"][1])
        assert sign * difference > 4 * error


def test_the_same_seed_gives_the_same_result():
    arguments = {"steps": 20, "learning_rate": 0.01, "optimiser": "sgd", "instances": 12, "snapshots": 1}
    one, two = (train_autoencoders(6, 8, noise="rademacher", rng=7, **arguments) for _ in range(2))
    np.testing.assert_array_equal(one.embedding, two.embedding)
    other = train_autoencoders(6, 8, noise="rademacher", rng=8, **arguments)
    assert not np.array_equal(one.embedding, other.embedding)
    assert repr(one) == "Autoencoders(12 × 6 features, 8 neurons, 20 steps)"


def test_divergence_is_reported():
    found = train_autoencoders(3, 4, optimiser="sgd", steps=200, learning_rate=10.0, rng=0)
    assert found.diverged.all()
    assert repr(found).endswith("; 1 diverged)")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optimiser": "adam"}, "optimiser must be one of flow, sgd, adamw"),
        ({"optimiser": "flow", "learning_rate": 2.0}, r"learning_rate must be in \[0, 1\], got 2.0"),
        ({"optimiser": "flow", "noise": "rademacher"}, "noise must be None for the flow"),
        ({"noise": "pink"}, "noise must be one of"),
        ({"noise": 0.5}, "noise must be >= 1, got 0.5"),
        ({"noise_std": -1.0}, "noise_std must be"),
        ({"steps": 0}, "steps must be"),
        ({"instances": 0}, "instances must be"),
        ({"snapshots": 0}, "snapshots must be"),
        ({"start": np.zeros((2, 2))}, r"start must have shape \(3, 4\) or \(1, 3, 4\)"),
        ({"shared_noise": 1}, "shared_noise must be True or False"),
        ({"penalty": -0.1}, "penalty must be"),
    ],
)
def test_bad_arguments(changed, message):
    with pytest.raises(ValueError, match=message):
        train_autoencoders(3, 4, **({"steps": 5, "learning_rate": 0.1} | changed))


def test_bad_weights_have_no_forces():
    with pytest.raises(ValueError, match="weights must have shape"):
        forces([1.0, 2.0], 0.1)


def test_former_names_work_and_warn():
    arguments = {"steps": 3, "instances": 1, "learning_rate": 0.01, "rng": 0}
    with pytest.warns(DeprecationWarning, match="bipolar is now rademacher"):
        former = train_autoencoders(4, 6, noise="bipolar", **arguments)
    np.testing.assert_array_equal(former.embedding, train_autoencoders(4, 6, noise="rademacher", **arguments).embedding)
    with pytest.warns(DeprecationWarning, match="looks is now snapshots"):
        train_autoencoders(4, 6, looks=2, **arguments)
