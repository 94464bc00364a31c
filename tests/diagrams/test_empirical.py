"""Diagrams found numerically: against the theory, interrupted, spread over workers, stored."""

import itertools
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import capsolve
from capsolve import EmpiricalPhaseDiagram, empirical_phase_diagram, phase_diagram
from capsolve.diagrams import empirical
from capsolve.diagrams.agreement import near_jumps
from capsolve.files.archives import reading_archive, write_archive
from tests.extras import needs

SMALL = {"cells": (5, 4), "features": 4, "dimensions": 2, "batch": 3, "rng": 0}
ARRAYS = ("capacities", "loss", "agreeing", "embedding")


@pytest.fixture(scope="module")
def small():
    return empirical_phase_diagram(**SMALL)


def assert_equal(one, other):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_optimised_embeddings_agree_with_the_theory(small):
    agreement = small.compare(strip=1)
    assert agreement.cells + agreement.excluded == 20
    assert agreement.same_phase == agreement.close == 1.0
    assert agreement.largest < 1e-6
    exact = phase_diagram(cells=(5, 4), features=4, dimensions=2)
    np.testing.assert_allclose(small.loss, exact.loss, rtol=1e-9)
    np.testing.assert_allclose(capsolve.capacities(small.embedding), small.capacities, rtol=1e-12)
    assert ((small.agreeing > 0) & (small.agreeing <= 1)).all()


def test_disagreement_is_counted(small):
    """Negative control: cells that are wrong on purpose are found, and where."""
    wrong = small.capacities.copy()
    wrong[0, 0, 0], wrong[2, 4, 0] = 0.4, 0.985  # far from the jump, in a cell of C = 0 and one of C = 1
    changed = EmpiricalPhaseDiagram(
        small.x, small.y, "quadratic", wrong, small.loss, small.agreeing, small.embedding, 0.02, 0, "", small.problems
    )
    agreement = changed.compare(strip=0.5)
    assert agreement.close == pytest.approx(1 - 1 / agreement.cells)
    assert agreement.same_phase == agreement.close  # 0.985 counts as monosemantic
    assert agreement.largest == pytest.approx(0.4)
    np.testing.assert_allclose(agreement.where, [[small.x.values[0], small.y.values[0]]])
    assert agreement.difference[2, 4] == pytest.approx(-0.015)
    assert "largest 0.4" in agreement.summary()
    wrong[1, 1] = np.nan
    assert changed.phase[1, 1].tolist() == [-1] * 4
    assert changed.compare(strip=0.5).unknown == 1


def test_the_strip_is_around_jumps_only():
    diagram = phase_diagram(cells=(21, 11))  # V = 1 is column 10, p = 0.6 lies below row 0
    inside = near_jumps(diagram, 2.0)
    assert inside[0].nonzero()[0].tolist() == [8, 9, 10, 11, 12]
    assert inside.any(axis=1).nonzero()[0].tolist() == [0, 1, 2]  # two rows beyond the end at 0.74 rows
    assert not near_jumps(phase_diagram(y=("density", 0.5, 0.1), cells=5), 9.0).any()


def test_the_result_does_not_depend_on_workers_or_batches(small):
    with ThreadPoolExecutor(2) as executor:
        assert_equal(small, empirical_phase_diagram(**SMALL, executor=executor))
    assert_equal(small, empirical_phase_diagram(**{**SMALL, "batch": 20}))
    other = empirical_phase_diagram(**{**SMALL, "rng": 1})
    assert not np.array_equal(other.embedding, small.embedding)
    np.testing.assert_allclose(other.loss, small.loss, rtol=1e-9)


@pytest.mark.slow
def test_dask_workers_give_the_same():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(2, processes=True, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        spread = empirical_phase_diagram(**SMALL, executor=client.get_executor())
    assert_equal(spread, empirical_phase_diagram(**SMALL))


def test_a_finished_cell_is_never_computed_again(tmp_path, small, monkeypatch):
    computed = []
    compute = empirical.compute_cells

    def counted(task):
        if len(computed) == 4:
            raise KeyboardInterrupt
        computed.append(task.cell.tolist())
        return compute(task)

    monkeypatch.setattr(empirical, "compute_cells", counted)
    with pytest.raises(KeyboardInterrupt):
        empirical_phase_diagram(**SMALL, checkpoint=tmp_path / "cells")
    assert len(list((tmp_path / "cells").glob("batch-*.npz"))) == 4
    first, computed[:] = computed[:], []
    monkeypatch.setattr(empirical, "compute_cells", lambda task: computed.append(task.cell.tolist()) or compute(task))
    assert_equal(small, empirical_phase_diagram(**SMALL, checkpoint=tmp_path / "cells"))
    assert sorted(itertools.chain(*first, *computed)) == list(range(20))
    assert_equal(small, empirical_phase_diagram(**SMALL, checkpoint=tmp_path / "cells"))
    assert sorted(itertools.chain(*first, *computed)) == list(range(20))


def test_checkpoints_of_something_else_are_refused(tmp_path):
    settings = {"cells": (2, 2), "features": 3, "dimensions": 1, "rng": 0, "checkpoint": tmp_path / "cells"}
    whole = empirical_phase_diagram(**settings)
    for change in ({"rng": 1}, {"restarts": 3}, {"features": 4}, {"x": ("importance", 0.02, 100)}, {"batch": 2}):
        with pytest.raises(ValueError, match="other arguments or another seed"):
            empirical_phase_diagram(**{**settings, **change})
    piece = tmp_path / "cells" / "batch-00000.npz"
    stored = piece.read_bytes()
    piece.write_bytes(b"half a fi")
    np.testing.assert_array_equal(empirical_phase_diagram(**settings).embedding, whole.embedding)
    assert piece.read_bytes() == stored
    with reading_archive(piece, kind := "a checkpoint of an empirical phase diagram") as (facts, arrays):
        pass
    for name in arrays:  # each would be broadcast over all cells
        write_archive(piece, kind, facts, arrays | {name: arrays[name][:1]})
        with pytest.raises(ValueError, match=rf"batch-00000\.npz: {name} must have the shape \(4,.*, got \(1,"):
            empirical_phase_diagram(**settings)
    (tmp_path / "cells" / "settings.json").write_text("[]")
    with pytest.raises(ValueError, match=r"settings\.json: not the settings"):
        empirical_phase_diagram(**settings)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="not empty"):
        empirical_phase_diagram(**{**settings, "checkpoint": tmp_path / "full"})
    with pytest.raises(ValueError, match="must be a folder"):
        empirical_phase_diagram(**{**settings, "checkpoint": tmp_path / "full" / "thesis.tex"})


SCRIPT = """
    import capsolve, sys
    found = capsolve.empirical_phase_diagram(
        cells=(8, 5), features=5, dimensions=2, restarts=6, batch=2, rng=0, checkpoint=sys.argv[1]
    )
    found.save(sys.argv[2])
"""


@pytest.mark.slow
def test_a_real_signal_in_the_middle_changes_nothing(tmp_path):
    def start(name):
        arguments = [tmp_path / name, tmp_path / f"{name}.npz"]
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), *map(str, arguments)], stderr=subprocess.PIPE
        )

    interrupted = start("one")
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "one").glob("batch-*.npz"))) < 2:
        assert interrupted.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    interrupted.send_signal(signal.SIGINT)
    _, message = interrupted.communicate(timeout=60)
    assert b"KeyboardInterrupt" in message
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").glob("batch-*.npz")}
    assert 2 <= len(stored) < 20
    assert not (tmp_path / "one.npz").exists()
    assert not [path for path in (tmp_path / "one").iterdir() if path.name.startswith(".")]
    for name in ("one", "two"):
        process = start(name)
        assert (process.communicate(timeout=120)[1], process.returncode) == (b"", 0)
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_files_bring_everything_back(tmp_path, small):
    small.save(tmp_path / "found.npz")
    again = EmpiricalPhaseDiagram.load(tmp_path / "found.npz")
    assert repr(again) == repr(small)
    assert_equal(again, small)
    assert not again.capacities.flags.writeable
    with pytest.raises(ValueError, match="does not know the problems"):
        again.compare()
    exact = phase_diagram(cells=(5, 4), features=4, dimensions=2)
    assert again.compare(exact).largest == small.compare(exact).largest
    with pytest.raises(ValueError, match="axes of the diagrams differ"):
        again.compare(phase_diagram(cells=(4, 5), features=4, dimensions=2))
    exact.save(tmp_path / "exact.npz")
    with pytest.raises(ValueError, match="not an empirical phase diagram"):
        EmpiricalPhaseDiagram.load(tmp_path / "exact.npz")


def test_cells_of_several_sizes():
    found = empirical_phase_diagram(("features", 2, 4), ("dimensions", [1, 2]), kurtosis=9.0, importance=2.0, rng=0)
    assert found.embedding.shape == (2, 3, 4, 2)
    exact = phase_diagram(("features", 2, 4), ("dimensions", [1, 2]), kurtosis=9.0, importance=2.0)
    np.testing.assert_array_equal(np.isnan(found.capacities), np.isnan(exact.capacities))
    # Four features in two dimensions are where the first just becomes monosemantic: an optimum without curvature, where
    # a gradient of 100 eps leaves (100 eps)^(2/3) in the capacities.
    np.testing.assert_allclose(found.capacities, exact.capacities, rtol=0, atol=1e-9)
    assert np.isnan(found.embedding[0, 0, :, 1]).all()
    without = empirical_phase_diagram(("importance", 1, 3), ("kurtosis", 4, 9), cells=2, features=3, bias=False, rng=0)
    assert without.compare().largest < 1e-9


@needs("optax")
def test_trained_networks():
    """The sum model with squares is the theory's: its networks come near the theory's capacities."""
    training = {"steps": 300, "points": 512}
    found = empirical_phase_diagram(
        ("importance", 0.3, 4),
        ("density", 0.3, 0.03),
        model="sum-quadratic",
        cells=(4, 2),
        features=3,
        dimensions=2,
        restarts=2,
        rng=0,
        training=training,
    )
    assert found.compare().largest < 0.05
    assert found.embedding.shape == (2, 4, 3, 2)
    assert repr(found).startswith("EmpiricalPhaseDiagram(sum-quadratic, 4 × 2 cells")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "transformer"}, "model must be one of quadratic, sum-quadratic"),
        ({"dimensions": 2.5}, "an integer number of dimensions"),
        ({"dimensions": 0}, "an integer number of dimensions"),
        ({"tracked": 6}, "tracked must be below"),
        ({"training": {"steps": 3}}, "training is for networks"),
        ({"training": {"speed": 3}, "model": "sum-relu"}, "training may have steps"),
        ({"distribution": "rademacher", "model": "sum-relu"}, "networks are trained on one of"),
        ({"y": ("kurtosis", 3, 9), "model": "sum-relu"}, "needs a density or sparsity"),
        ({"bias": False, "model": "sum-relu"}, "always has a bias"),
        ({"restarts": 0}, "restarts must be >= 1"),
        ({"rng": 0.5}, "rng must be an integer"),
        ({"checkpoint": "cells"}, "needs a seed: rng must not be None"),
        ({"batch": 0}, "batch must be >= 1"),
        ({"tolerance": 0.9}, "tolerance must be in"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        empirical_phase_diagram(cells=2, **arguments)


def test_starts_are_fresh_unless_there_is_a_seed():
    few = {"cells": 2, "features": 3, "dimensions": 1, "restarts": 1}
    drawn = [empirical_phase_diagram(**few, rng=rng).embedding for rng in (None, None, np.random.default_rng(3))]
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[2], empirical_phase_diagram(**few, rng=np.random.default_rng(3)).embedding)


def test_unknown_arguments():
    with pytest.raises(TypeError, match="no argument 'colour'"):
        empirical_phase_diagram(colour="red")
