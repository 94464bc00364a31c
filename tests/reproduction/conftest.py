"""What a reproduction is asked for."""

import pytest

from capsolve.reproduction._report import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path)
