"""Checkpoints: finished pieces are not computed again, interruptions lose the piece at work, others are refused."""

import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from capsolve.files import checkpoints
from capsolve.files.checkpoints import Checkpoint, StateFile, fingerprint, forget, run

PIECES = {f"p{i}": 1 for i in range(5)}


def pairs(missing):
    """Two pieces to a job."""
    for i in range(0, len(missing), 2):
        yield missing[i : i + 2], [int(name[1:]) for name in missing[i : i + 2]]


def squares(numbers):
    return [{"square": np.array(number**2), "text": np.array("π")} for number in numbers]


def opened(folder, **facts):
    return Checkpoint(folder, "a test", facts, fingerprint(facts))


def values(results):
    return {name: int(arrays["square"]) for name, arrays in results}


def test_fingerprints_tell_facts_shapes_and_numbers_apart():
    a = np.arange(6.0)
    marks = [
        fingerprint({"b": 1, "a": 2}, a),
        fingerprint({"b": 1, "a": 3}, a),
        fingerprint({"b": 1, "a": 2}, a.reshape(2, 3)),
        fingerprint({"b": 1, "a": 2}, a.astype(np.int64)),
        fingerprint({"b": 1, "a": 2}, a + 1e-15),
        fingerprint({"b": 1, "a": 2}, a[:3], a[3:]),
        fingerprint({"b": 1, "a": 2}),
    ]
    assert len(set(marks)) == len(marks)
    assert fingerprint({"a": 2, "b": 1}, np.arange(12.0)[::2] / 2) == marks[0]


@pytest.mark.parametrize("workers", [None, 2])
def test_only_what_is_missing_is_computed(tmp_path, workers):
    done = []

    def counted(numbers):
        done.extend(numbers)
        return squares(numbers)

    executor = None if workers is None else ThreadPoolExecutor(workers)
    whole = {f"p{i}": i**2 for i in range(5)}
    assert values(run(PIECES, pairs, counted, executor=executor)) == whole
    done.clear()
    store = opened(tmp_path / "kept", seed=1)
    for number, (name, _) in enumerate(run(PIECES, pairs, counted, checkpoint=store)):
        assert store.load(name) is not None  # before it is handed out
        if number == 2:  # the caller stops in the middle of a job
            break
    assert done == [0, 1, 2, 3]
    done.clear()
    store = opened(tmp_path / "kept", seed=1)
    assert values(run(PIECES, pairs, counted, checkpoint=store, executor=executor)) == whole
    assert sorted(done) == [3, 4]
    done.clear()
    assert values(run(PIECES, pairs, counted, checkpoint=store)) == whole
    assert done == []
    assert values(run({**PIECES, "p7": 1}, pairs, counted, checkpoint=store)) == {**whole, "p7": 49}  # one more piece
    assert done == [7]


def test_an_interruption_keeps_what_was_finished(tmp_path):
    def stopped(numbers):
        if 2 in numbers:
            raise KeyboardInterrupt
        return squares(numbers)

    store = opened(tmp_path / "kept")
    with pytest.raises(KeyboardInterrupt):
        list(run(PIECES, pairs, stopped, checkpoint=store))
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["p0.npz", "p1.npz", "settings.json"]


def test_jobs_that_have_not_begun_are_cancelled():
    begun = []

    def fails(numbers):
        begun.append(numbers)
        time.sleep(0.01)
        raise OSError("no")

    many = {f"p{i}": 1 for i in range(2000)}
    with ThreadPoolExecutor(1) as executor, pytest.raises(OSError, match="no"):
        list(run(many, pairs, fails, executor=executor))
    assert len(begun) < 1000


def test_the_bar_counts_sizes(tmp_path, capsys):
    store = opened(tmp_path / "kept")
    list(run(dict.fromkeys(PIECES, 10), pairs, squares, checkpoint=store, progress=True, unit="cell"))
    assert "50/50" in capsys.readouterr().err
    list(run(dict.fromkeys(PIECES, 10), pairs, squares, checkpoint=store, progress=False))
    assert capsys.readouterr().err == ""


def test_another_run_is_refused(tmp_path):
    store = opened(tmp_path / "a" / "kept", seed=1)  # folders are made
    store.save("p0", squares([3])[0])
    assert json.loads((tmp_path / "a" / "kept" / "settings.json").read_text())["seed"] == 1
    with pytest.raises(
        ValueError, match=r"kept: the checkpoint of a test with other arguments .* repeat that run .*, or"
    ):
        opened(tmp_path / "a" / "kept", seed=2)
    with pytest.raises(ValueError, match="the checkpoint of a test, not of another"):
        Checkpoint(tmp_path / "a" / "kept", "another", {}, fingerprint({"seed": 1}))
    foreign = opened(tmp_path / "b", seed=2)
    (tmp_path / "b" / "p0.npz").write_bytes((tmp_path / "a" / "kept" / "p0.npz").read_bytes())
    with pytest.raises(ValueError, match=r"p0\.npz: the checkpoint of a test with other arguments"):
        foreign.load("p0")


def cut(content):
    return content[: len(content) // 2]


def flipped(content):
    where = content.index(b"NUMPY") + 150  # in the numbers of an array
    return content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :]


@pytest.mark.parametrize("damage", [lambda _: b"", lambda _: b"half a fi", lambda _: b"PK\x03\x04", cut, flipped])
def test_damaged_pieces_are_computed_again(tmp_path, caplog, damage):
    store = opened(tmp_path / "kept")
    undisturbed = values(run(PIECES, pairs, squares, checkpoint=store))
    path = tmp_path / "kept" / "p2.npz"
    path.write_bytes(damage(path.read_bytes()))
    done = []

    def counted(numbers):
        done.extend(numbers)
        return squares(numbers)

    assert values(run(PIECES, pairs, counted, checkpoint=store)) == undisturbed
    assert done == [2]
    assert "p2.npz: not a checkpoint of a test" in caplog.text
    assert store.load("p2")["square"] == 4


def test_pieces_of_other_shapes_are_refused(tmp_path):
    store = opened(tmp_path / "kept")

    def stored(expected):
        return list(run({"p3": 1}, pairs, squares, checkpoint=store, shapes=lambda _: expected))

    assert len(stored({"square": (), "text": ()})) == 1
    for other, message in (
        ({"square": (1,), "text": ()}, r"square must have the shape \(1,\), got \(\)"),
        ({"square": ()}, r"text must not be there"),
        ({"square": (), "text": (), "more": (2,)}, r"more must have the shape \(2,\), got nothing"),
    ):
        with pytest.raises(ValueError, match=rf"p3\.npz: {message}; remove the file"):
            stored(other)


def test_two_runs_do_not_share_a_folder(tmp_path):
    store = opened(tmp_path / "kept")
    first = run(PIECES, pairs, squares, checkpoint=store)
    assert next(first)[0] == "p0"
    with pytest.raises(ValueError, match="kept: another run is at work there; wait until it has ended, or use another"):
        next(run(PIECES, pairs, squares, checkpoint=opened(tmp_path / "kept")))
    forget(tmp_path / "kept")  # as the first of them to end does
    assert store.load("p0") is not None
    late = opened(tmp_path / "kept")
    assert len(list(first)) == 4
    forget(tmp_path / "kept")
    assert not list(tmp_path.iterdir())
    assert len(list(run(PIECES, pairs, squares, checkpoint=late))) == 5
    assert sorted(path.suffix for path in (tmp_path / "kept").iterdir()) == [".json", *[".npz"] * 5]


def test_folders_of_something_else_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="not a checkpoint, and not empty"):
        opened(tmp_path)
    with pytest.raises(ValueError, match="checkpoint must be a folder"):
        opened(tmp_path / "thesis.tex")
    forget(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_finished_checkpoint_is_read_where_nobody_can_write(tmp_path, monkeypatch):
    store = opened(tmp_path)
    whole = values(run(PIECES, pairs, squares, checkpoint=store))

    numbers = iter([errno.EROFS, errno.EACCES, errno.ENOSPC])

    def fails(*_, **__):
        number = next(numbers)
        raise OSError(number, os.strerror(number), "run.lock")

    monkeypatch.setattr(checkpoints, "locked", fails)
    for _ in range(2):
        assert values(run(PIECES, pairs, None, checkpoint=opened(tmp_path))) == whole
    with pytest.raises(OSError, match=r"No space left on device: 'run\.lock'"):
        next(run(PIECES, pairs, None, checkpoint=opened(tmp_path)))


def test_a_run_that_was_killed_as_it_began_is_in_nobodys_way(tmp_path):
    (tmp_path / "run.lock").touch()
    left = tmp_path / f".settings.{'0' * 32}.json"
    left.write_text("{")
    left.with_name(f"{left.name}.lock").touch()
    assert len(list(run(PIECES, pairs, squares, checkpoint=opened(tmp_path)))) == 5
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", *[".npz"] * 5]


def test_what_is_forgotten_is_gone(tmp_path):
    for mine in ([], ["mine.txt"]):
        store = opened(tmp_path / "kept")
        store.save("p0", squares([3])[0])
        for name in mine:
            (tmp_path / "kept" / name).touch()
        forget(tmp_path / "kept")
        assert [path.name for path in tmp_path.glob("kept/*")] == mine
        assert (tmp_path / "kept").exists() == bool(mine)
    forget(tmp_path / "none")


def test_the_state_of_a_computation(tmp_path, monkeypatch):
    state = StateFile(tmp_path / "s.npz", "a test", "mark")
    assert state.load() is None
    state.offer({"step": 1}, {"a": np.arange(3)})  # too early
    assert state.load() is None
    monkeypatch.setattr(checkpoints, "_SECONDS", 0.0)
    state.offer({"step": 2}, {"a": np.arange(3)})
    facts, arrays = state.load()
    assert facts["step"] == 2
    np.testing.assert_array_equal(arrays["a"], [0, 1, 2])
    with pytest.raises(ValueError, match=r"s\.npz: the checkpoint of a test with other arguments"):
        StateFile(tmp_path / "s.npz", "a test", "another").load()
    with pytest.raises(ValueError, match=r"s\.npz: not a checkpoint of another test"):
        StateFile(tmp_path / "s.npz", "another test", "mark").load()
    with pytest.raises(ValueError, match=r"must be a \.npz file"):
        StateFile(tmp_path / "s.txt", "a test", "mark")
    with pytest.raises(ValueError, match="in a directory that exists"):
        StateFile(tmp_path / "none" / "s.npz", "a test", "mark")
