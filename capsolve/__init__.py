"""capsolve: optimal capacity allocation for features in superposition.

A network has D dimensions and more than D features. Each feature has an importance and an input kurtosis and
uses a capacity between 0 and 1; the capacities sum to at most D. capsolve computes the allocation with the least
loss, with a certificate of global optimality, builds embeddings that realise it and measures those that exist.

The theory is that of Scherlis, Sachan, Jermyn, Benton and Shlegeris, *Polysemanticity and Capacity in Neural
Networks*, arXiv 2210.01892.
"""

import lazy_loader

__version__ = "0.1.0"

# The public names are listed in __init__.pyi and loaded on first use, so that `import capsolve` stays fast.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
