"""The front door: every public name is there, typed, and costs nothing until it is used."""

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
