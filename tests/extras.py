"""Libraries that are extras: where one is missing, the tests that need it are skipped and all others run."""

from importlib.util import find_spec

import pytest


def needs(library):
    """Return the mark of a test that is skipped without a library."""
    return pytest.mark.skipif(find_spec(library) is None, reason=f"needs {library}")


PARQUET = pytest.param(".parquet", marks=needs("pyarrow"))
