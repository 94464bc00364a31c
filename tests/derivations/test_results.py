"""All derivations: they hold, they export what they prove, and a wrong statement stops them."""

import importlib
import random

import pytest
import sympy as sp

import derivations
from derivations import NAMES, DerivationError
from derivations.core import ZERO


def module(name):
    return importlib.import_module(f"derivations.{name}")


def constants(name):
    """Return the names of the formulas that a module exports (not of its letters)."""
    public = {key: value for key, value in vars(module(name)).items() if key.isupper() and not key.startswith("_")}
    letters = {key for key, value in public.items() if getattr(value, "name", "").lower() == key.lower()}
    letters |= {key for key, value in public.items() if isinstance(value, sp.IndexedBase)}
    return [key for key, value in public.items() if isinstance(value, sp.Expr) and key not in letters]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_reads_as_a_paper_and_every_step_was_checked(proved, name):
    d = proved[name]
    assert d.name == name
    assert d.title
    assert d.statement.endswith(".")
    assert d.assumptions
    assert "arXiv" in d.source
    assert len(d.steps) >= 10
    assert d.results
    for item in d.steps:
        assert item.text
        assert item.check
        assert item.residuals or item.check != ZERO  # an equation keeps the differences that were shown to be 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_results_are_exported_under_their_names_and_nothing_is_exported_unproved(proved, name):
    results = proved[name].results
    assert {key: getattr(module(name), key) for key in results} == results
    assert sorted(constants(name)) == sorted(results)


def some_value(symbol, rng):
    if symbol.is_integer:
        return sp.Integer(rng.randint(2, 5))
    value = sp.Rational(rng.randint(1001, 5999), 997)  # no whole number, so that no pole is hit
    return -value if symbol.is_negative else value


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "inputs"])  # which has integrals only
def test_differences_vanish_numerically_too(proved, name):
    """Independently of any simplification: every explicit difference, at random exact points, to 20 digits."""
    rng, tried = random.Random(0), 0
    for item in proved[name].steps:
        for residual in item.residuals:
            if residual == 0 or residual.atoms(sp.core.function.AppliedUndef, sp.Sum, sp.Integral, sp.Limit):
                continue
            letters = residual.atoms(sp.Symbol, sp.Indexed)
            for _ in range(3):
                point = {letter: some_value(letter, rng) for letter in sorted(letters, key=str)}
                value = complex(sp.N(residual.xreplace(point), 30, maxn=200))
                assert abs(value) < 1e-20, (item.text, point)
                tried += 1
    assert tried >= 10


def wrong(value):
    """Return a statement that is plausible and false: with κ − 2 for κ − 1, or 1 more where there is no κ."""
    kappas = [s for s in value.free_symbols if isinstance(s, sp.Symbol) and s.name.startswith("kappa")]
    mistaken = value.subs({s: s - 1 for s in kappas}) if kappas else value
    return mistaken if mistaken != value else value + 1


SLOW_TO_REFUSE = {("without_bias", "LOSS"), ("without_bias", "TRACE")}  # sums over features, simplified at length
CONTROLS = [
    pytest.param(*pair, marks=pytest.mark.slow if pair in SLOW_TO_REFUSE else ())
    for pair in ((name, result) for name in NAMES for result in constants(name))
]


@pytest.mark.parametrize(("name", "result"), CONTROLS)
def test_a_wrong_statement_stops_the_derivation(monkeypatch, name, result):
    monkeypatch.setattr(module(name), result, wrong(getattr(module(name), result)))
    with pytest.raises(DerivationError, match=rf"^{name}, step \d+ "):
        module(name).derive()


def test_a_wrong_assumption_stops_the_derivations_that_rest_on_it(monkeypatch):
    mistaken = module("capacity_loss").FEATURE_LOSS * 2
    monkeypatch.setattr(module("capacity_loss"), "FEATURE_LOSS", mistaken)
    for name in ("capacity_loss", "equilibrium", "realisation", "without_bias", "concave", "sensitivities"):
        with pytest.raises(DerivationError):
            module(name).derive()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="capacity_loss"):
        derivations.derive("capacity_los")
