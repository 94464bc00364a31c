"""Drawings: allocations and their prices, where the phases lie, and what embeddings look like.

Nothing here opens a window or touches the state of pyplot: figures are plain `matplotlib.figure.Figure`
objects. Notebooks show what is returned, and `save` writes it. Functions that draw one panel take ``ax`` and return it,
so that they fit into figures and styles of your own; one that has no layout, as that of a plain ``plt.subplots(1, 2)``,
gets the constrained one, for titles and legends stand outside the axes. Whole figures come in the package's style
sheet, ``matplotlib.style.use("capsolve.figures.style")``.

Blue and orange are Okabe and Ito's, which survive the common colour blindnesses; each phase has its own marker
too, for print in grey. Capacities that fill an area are shown in viridis, which is even in lightness.
"""

import lazy_loader

# The public names are listed in __init__.pyi, as those of the whole package are.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
