"""capsolve: optimal capacity allocation for features in superposition.

A network has D dimensions and more than D features. Each feature has an importance and an input kurtosis and
uses a capacity between 0 and 1; the capacities sum to at most D. capsolve computes the allocation with the least
loss, with a certificate of global optimality, builds embeddings that realise it and measures those that exist.

The theory is that of Scherlis, Sachan, Jermyn, Benton and Shlegeris, *Polysemanticity and Capacity in Neural
Networks*, arXiv 2210.01892.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> the module it lives in. Loaded on first use (PEP 562), so that `import capsolve` stays fast.
_HOME = {
    "Allocation": "allocation",
    "Phase": "allocation",
    "Status": "allocation",
    "allocate": "allocation",
    "certify": "allocation",
    "solve": "allocation",
    "CapacityPath": "path",
    "capacity_path": "path",
    "Sensitivity": "sensitivity",
    "QuadraticLoss": "losses.quadratic",
    "TabulatedLoss": "losses.tabulated",
    "Profile": "profile",
    "exponential": "profile",
    "power_law": "profile",
    "example": "examples",
    "read_activations": "files",
    "read_profile": "files",
    "write_profile": "files",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'capsolve' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"capsolve.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
