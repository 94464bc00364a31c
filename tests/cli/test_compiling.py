"""The first command that needs compiled code says on standard error that it compiles; the next one does not."""

import os
import subprocess
import sys

import numpy as np
import pytest

from capsolve import Profile, write_profile
from capsolve.solvers.routes import COMPILED_FEATURES

pytest.importorskip("numba")


@pytest.mark.slow
def test_the_first_command_says_that_it_compiles(tmp_path):
    write_profile(Profile(np.arange(1.0, COMPILED_FEATURES + 1.0) ** -0.5, 9.0), tmp_path / "p.csv")
    command = [sys.executable, "-m", "capsolve", "solve", str(tmp_path / "p.csv"), "-D", "1000"]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    said = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert "100000 features in 1000 dimensions: optimal" in done.stdout
        said.append(done.stderr)
    assert said == ["capsolve: compiling, once: this takes some seconds\n", ""]
