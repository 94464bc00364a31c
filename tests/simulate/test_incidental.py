"""The former place of `capsolve.incidental`: it still works, and says where to go."""

import pytest

import capsolve


def test_names_are_found_with_a_warning_that_names_the_new_place():
    with pytest.warns(DeprecationWarning, match=r"use capsolve\.incidental\.collision_sweep") as caught:
        from capsolve.simulate.incidental import collision_sweep
    assert collision_sweep is capsolve.incidental.collision_sweep
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=r"use capsolve\.incidental\.expected_pairs"):
        assert capsolve.simulate.incidental.expected_pairs(2, 1) == 0.5
    assert "Collisions" in dir(capsolve.simulate.incidental)
    with pytest.raises(AttributeError, match="no_such_name"):
        capsolve.simulate.incidental.no_such_name  # noqa: B018
