"""Reading and writing: profiles, allocations, activations, weights, results of long runs.

What is wrong with a file is said in one line that names the path, and in tables the row and the column. In a CSV file
the header is row 1; in all others the first row of numbers is. Files are written beside their final place and moved
there when complete, so that a failure leaves the old file or none. ``write_…`` and ``read_…`` are for tables, which
other programs read and write too; ``.save`` and ``.load`` of a result are for an .npz file with all that it holds. What
was written comes back to the last bit. Nothing is ever unpickled, but for tensors and plain containers in PyTorch
files.
"""

import lazy_loader

# As in capsolve itself: the public names are listed in __init__.pyi and loaded on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
