"""The front door: every public name is there, typed, and costs nothing until it is used."""

import importlib
import inspect
import subprocess
import sys

import pytest

import capsolve

HEAVY = ["scipy", "sympy", "cvxpy", "matplotlib", "pyarrow", "safetensors", "click", "tqdm", "torch", "jax", "sklearn"]


@pytest.mark.parametrize("name", capsolve.__all__)
def test_every_name_is_there_and_documented(name):
    assert getattr(capsolve, name).__doc__


def test_unknown_names_are_unknown():
    with pytest.raises(AttributeError, match="capsolve"):
        _ = capsolve.no_such_name
    assert set(capsolve.__all__) <= set(dir(capsolve))


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_loads_nothing_heavy():
    loaded = run("import capsolve, sys; print(*sys.modules)").split()
    assert "capsolve" in loaded
    assert not set(HEAVY) & set(loaded)


def test_solving_loads_no_optional_package():
    loaded = run("import capsolve, sys; capsolve.solve([2, 1], 9.0, 1); print(*sys.modules)").split()
    assert "numpy" in loaded
    assert not set(HEAVY) & set(loaded)


def test_nothing_is_logged_unless_somebody_asks():
    assert (
        run("import capsolve, logging; print(logging.getLogger('capsolve').handlers)") == "[<NullHandler (NOTSET)>]\n"
    )


def public_functions():
    for module in (capsolve, capsolve.simulate, capsolve.incidental, importlib.import_module("capsolve.figures")):
        for thing in (getattr(module, name) for name in module.__all__):
            if inspect.isclass(thing):
                yield from (function for _, function in inspect.getmembers(thing, inspect.isroutine))
            elif callable(thing):
                yield thing


def test_drawings_are_found_without_an_import():
    assert run("import capsolve; print('figures' in dir(capsolve), capsolve.figures.save.__name__)") == "True save\n"


def test_capacity_price_and_loss_are_numbers_and_never_methods():
    answers = [getattr(module, name) for module in (capsolve, capsolve.simulate) for name in module.__all__]
    found = {
        (answer.__name__, name)
        for answer in answers
        if inspect.isclass(answer)
        for name in ("capacity", "price", "loss", "phase", "names", "importance")
        if inspect.isfunction(inspect.getattr_static(answer, name, None))
    }
    assert not found


def test_what_is_saved_is_loaded_and_what_is_written_is_read():
    """``write_`` and ``read_`` are tables, for every program; ``save`` and ``load`` keep results for capsolve."""
    kept = 0
    for module in (capsolve, capsolve.incidental):
        for thing in (getattr(module, name) for name in module.__all__):
            if inspect.isclass(thing) and (hasattr(thing, "save") or hasattr(thing, "load")):
                kept += 1
                assert list(inspect.signature(thing.save).parameters) == ["self", "path"]
                assert list(inspect.signature(thing.load).parameters) == ["path"]
    assert kept >= 3
    written = {name.removeprefix("write_") for name in capsolve.files.__all__ if name.startswith("write_")}
    assert written == {"allocation", "profile", "table"}
    assert all(hasattr(capsolve.files, f"read_{name}") for name in written)


def test_a_word_for_an_argument_means_one_thing():
    """Chance is fresh unless a seed is given; ``features`` is how many; which axis counts them is ``feature_axis``."""
    drawing = 0
    for function in public_functions():
        try:
            arguments = inspect.signature(function).parameters
        except (TypeError, ValueError):  # written in C
            continue
        if "rng" in arguments and arguments["rng"].default is not inspect.Parameter.empty:
            drawing += 1
            assert arguments["rng"].default is None, function
        if "features" in arguments and function is not capsolve.measure:  # under its former name for one release
            assert "str" not in str(arguments["features"].annotation), function
    assert drawing >= 8
