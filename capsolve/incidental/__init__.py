"""Incidental polysemanticity: features that share a neuron by chance, although there is room for all.

A network ŷ = ReLU(W Wᵀ x) that learns to reproduce one-hot inputs has no reason to prefer one basis of its neurons to
another. An L1 penalty on its weights, or noise of negative excess kurtosis on its neurons, gives it one: every feature
then settles on one neuron, and two may by chance settle on the same one (Lecomte et al., arXiv 2312.03096).
"""

import lazy_loader

# As in capsolve itself: the public names are listed in __init__.pyi and loaded on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
