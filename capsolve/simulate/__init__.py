"""Embeddings found numerically, to hold the theory against: descent on the exact loss, and trained networks."""

import lazy_loader

# As in capsolve itself: the public names are listed in __init__.pyi and loaded on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
