"""The formulas behind capsolve, each derived and checked with SymPy: one module per result.

Every module has a function ``derive()`` that returns a `derivations.core.Derivation`, or raises `DerivationError` at
the first step that does not hold, and exports its results as SymPy expressions. ``python -m derivations`` reads them
out.
"""

from __future__ import annotations

import importlib

from derivations.core import Derivation, DerivationError

NAMES = (
    "expected_loss",
    "capacity_loss",
    "equilibrium",
    "capacity_bounds",
    "realisation",
    "phase_boundaries",
    "inputs",
    "without_bias",
    "concave",
    "power_law",
    "sensitivities",
    "neuron_noise",
    "incidental",
)
"""The results, in the order in which they build on each other."""

__all__ = ["NAMES", "Derivation", "DerivationError", "derive"]


def derive(name: str) -> Derivation:
    """Prove one result by its name in `NAMES`."""
    if name not in NAMES:
        raise ValueError(f"no derivation is called {name!r}; there are {', '.join(NAMES)}")
    derivation: Derivation = importlib.import_module(f"derivations.{name}").derive()
    return derivation
