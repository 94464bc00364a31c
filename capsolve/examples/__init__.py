"""Measured profiles that come with the package; the README.md beside them states origin and licence of each."""

from __future__ import annotations

from importlib import resources

from capsolve.files.profiles import read_profile
from capsolve.profile import Profile


def examples() -> list[str]:
    """Return the names of the built-in examples.

    >>> examples()
    ['digits']
    """
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".csv") for file in files if file.name.endswith(".csv"))


def example(name: str) -> Profile:
    """Return a built-in example.

    ``digits``: the 64 pixels of 1,797 images of handwritten digits (E. Alpaydin and C. Kaynak, 1998, as scikit-learn
    ships them). Importance is the variance, in squared grey levels from 0 to 16. The kurtoses run from 1.3 to 1795, on
    both sides of 3, so the loss is not convex in the capacities. Three pixels are blank in all images: importance 0.

    Raises
    ------
    ValueError
        If there is no such example; the message lists those there are.

    Examples
    --------
    >>> example("digits")
    Profile(64 features, importance 0 … 42.72, kurtosis 1.337 … 1795, named)
    """
    if name not in examples():
        raise ValueError(f"there is no example {name!r}; the examples are {', '.join(examples())}")
    with resources.as_file(resources.files(__name__) / f"{name}.csv") as path:
        return read_profile(path)
