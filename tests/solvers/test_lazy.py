"""Dask arrays: the answer that NumPy gets, in four passes at most, in constant memory, whatever happens to workers."""

import os
import threading
import warnings
import weakref

import numpy as np
import pytest

import capsolve

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")

EPS = np.finfo(float).eps
CHUNKS = 20
LENGTH = 5000


def columns_of(number, length=LENGTH):
    """Importance and kurtosis of one chunk, some features with κ < 3."""
    rng = np.random.default_rng(number)
    return np.stack([rng.lognormal(size=length), np.exp(rng.uniform(np.log(1.2), np.log(100.0), length))])


def lazy(make, chunks=CHUNKS, length=LENGTH):
    sizes = ((length,) * chunks,)
    return [da.map_blocks(make, row, chunks=sizes, dtype=float, meta=np.empty(0)) for row in range(2)]


def make(row, block_info=None):
    return columns_of(block_info[None]["chunk-location"][0])[row]


def in_memory():
    return np.concatenate([columns_of(number) for number in range(CHUNKS)], axis=1)


class Watched:
    """Makes chunks, counts them, and how many are in memory at a time."""

    def __init__(self):
        self.lock, self.made, self.alive, self.most = threading.Lock(), 0, 0, 0

    def __call__(self, row, block_info=None):
        chunk = make(row, block_info)
        with self.lock:
            self.made, self.alive = self.made + 1, self.alive + 1
            self.most = max(self.most, self.alive)
        weakref.finalize(chunk, self.drop)
        return chunk

    def drop(self):
        with self.lock:
            self.alive -= 1


def agrees(capacity, expected, dimensions):
    """The price is off by some ulps, which the features at the price share: none moves by more than ulps of D."""
    return bool(np.max(np.abs(np.asarray(capacity) - expected)) <= 16 * EPS * max(1.0, dimensions))


@pytest.fixture(autouse=True)
def two_threads():
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


@pytest.mark.parametrize("share", [0.001, 0.1, 0.6])
def test_four_passes_in_constant_memory(share):
    watched = Watched()
    dimensions = share * CHUNKS * LENGTH
    allocation = capsolve.solve(*lazy(watched), dimensions)
    assert watched.made == 3 * 2 * CHUNKS  # sample, partition, certificate; two columns
    assert allocation.status is capsolve.Status.OPTIMAL
    assert "OPTIMAL" in repr(allocation)
    assert "optimal" in allocation.summary()
    assert watched.made == 3 * 2 * CHUNKS
    capacity = allocation.capacity
    assert isinstance(capacity, da.Array)
    assert capacity.chunks == ((LENGTH,) * CHUNKS,)
    largest = capacity.max().compute()
    assert largest == 1.0
    assert watched.made == 4 * 2 * CHUNKS
    assert watched.most <= 8  # two workers, two columns, and what waits
    expected = capsolve.solve(*in_memory(), dimensions)
    assert agrees(capacity, expected.capacity, dimensions)
    assert not agrees(capacity * (1 + 1e-6), expected.capacity, dimensions)
    assert allocation.loss == pytest.approx(expected.loss, rel=1e-12)
    assert allocation.counts() == expected.counts()


def test_chunks_of_many_sizes_and_kinds():
    v, k = in_memory()
    v, k = v[:9000], k[:9000]
    expected = capsolve.solve(v, k, 700).capacity
    for chunks in [(9000,), (1, 8999), (0, 4000, 0, 5000), (150,) * 60]:
        importance = da.from_array(v, chunks=(chunks,))
        for kurtosis in (da.from_array(k, chunks=2000), k):
            allocation = capsolve.solve(importance, kurtosis, 700)
            assert agrees(allocation.capacity, expected, 700), chunks
    single = capsolve.solve(da.from_array(v.astype(np.float32), chunks=2000), 9.0, 700)
    assert single.capacity.dtype == single.capacity.compute().dtype == np.float32
    assert single.phase.dtype == np.int8
    same = capsolve.solve(v.astype(np.float32), 9.0, 700).capacity
    np.testing.assert_allclose(single.capacity, same, rtol=2.0**-23, atol=1e-12)
    np.testing.assert_array_equal(single.to_numpy().capacity, same)


BAD = {
    "NaN": ([1.0, 2.0, np.nan, 3.0], 9.0, "importance must be finite, got nan at index 2"),
    "two wrong": ([1.0, 2.0, -5.0, -3.0], 9.0, "importance must be >= 0, got -5.0 at index 2"),
    "kurtosis": ([1.0, 2.0, 5.0, 3.0], [3.0, 3.0, 3.0, 0.0], "kurtosis must be >= 1, got 0.0 at index 3"),
    "overflow": ([1.0, 2.0, 5.0, 1e300], 1e10, r"sum to less than .* at index 3"),
    "lengths": ([1.0, 2.0], [3.0, 3.0, 3.0], "one entry per feature"),
    "complex": ([1.0j, 2.0], 3.0, "importance must hold real numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data(name):
    v, k, message = BAD[name]
    v, k = (da.from_array(np.array(column), chunks=1) if isinstance(column, list) else column for column in (v, k))
    with pytest.raises(ValueError, match=message):
        capsolve.solve(v, k, 1)


def test_unknown_sizes_and_no_bias():
    v = da.from_array(np.arange(1.0, 6.0), chunks=2)
    with pytest.raises(ValueError, match=r"importance must have chunks of known sizes.*compute_chunk_sizes"):
        capsolve.solve(v[v > 2], 9.0, 1)
    with pytest.raises(ValueError, match=r"bias=False needs the features in memory"):
        capsolve.solve(v, 9.0, 1, bias=False)
    assert capsolve.solve(v[v > 2].compute_chunk_sizes(), 9.0, 1).counts()["polysemantic"] > 0


# ------------------------------------------------------------------------------------------------- worker processes


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # free ports and the like
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
            ) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield client


class Deadly:
    """Makes chunks; once, when it makes the middle one of the second pass, its process dies."""

    def __init__(self, folder):
        self.folder = folder
        for row in range(2):
            for lives in range(2):
                (folder / f"{row}{lives}").touch()

    def __call__(self, row, block_info=None):
        if block_info[None]["chunk-location"][0] == CHUNKS // 2:
            left = sorted(self.folder.glob(f"{row}?"))
            if left:
                left[0].unlink()
                if row == 0 and len(left) == 1:
                    os.kill(os.getpid(), 9)
        return make(row, block_info)


@pytest.mark.slow
def test_worker_processes_and_the_loss_of_one(client, tmp_path):
    dimensions = 0.1 * CHUNKS * LENGTH
    here = capsolve.solve(*lazy(make), dimensions)
    pids = client.run(os.getpid).values()
    assert len({os.getpid(), *pids}) == 3
    with client.as_current():
        there = capsolve.solve(*lazy(make), dimensions)
        capacity = there.capacity.compute()
        again = capsolve.solve(*lazy(Deadly(tmp_path)), dimensions)
        assert not list(tmp_path.iterdir())  # so one of them has died
        np.testing.assert_array_equal(again.capacity.compute(), capacity)
    np.testing.assert_array_equal(capacity, here.capacity.compute())
    assert numbers(again) == numbers(there) == numbers(here)


def numbers(allocation):
    return [
        getattr(allocation, name) for name in ("price", "scale", "loss", "lower_bound", "gap", "kkt_error", "tally")
    ]
