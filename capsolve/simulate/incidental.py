"""The former place of `capsolve.incidental`, for one release."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

_NEW = "capsolve.incidental"


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_NEW), name)
    warnings.warn(f"{__name__} has moved: use {_NEW}.{name}", DeprecationWarning, stacklevel=2)
    return found


def __dir__() -> list[str]:
    return dir(import_module(_NEW))
