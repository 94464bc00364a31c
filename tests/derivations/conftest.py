"""The derivations, proved once for all tests."""

import pytest

import derivations


@pytest.fixture(scope="session")
def proved():
    """Return every derivation by name, in reading order."""
    return {name: derivations.derive(name) for name in derivations.NAMES}
