"""capsolve: optimal capacity allocation for features in superposition.

A network has D dimensions and more than D features. Each feature has an importance and an input kurtosis and
uses a capacity between 0 and 1; the capacities sum to at most D. capsolve computes the allocation with the least
loss, with a certificate of global optimality, builds embeddings that realise it and measures those that exist.

The theory is that of Scherlis, Sachan, Jermyn, Benton and Shlegeris, *Polysemanticity and Capacity in Neural
Networks*, arXiv 2210.01892.
"""

import _signal
import sys

# While the command line is loading, an interruption ends it as it ends any program that has nothing to clear up;
# without this Python would print where in the imports it was. `capsolve.cli` takes over from here. Under ``-m`` the
# script has no name yet. A shell's background jobs are deaf to interruptions, and stay so. (`signal` itself takes
# milliseconds to import, in which interruptions come.)
_script = sys.argv[0].replace("\\", "/").rpartition("/")[2] if sys.argv else ""
_is_command = _script in {"capsolve", "capsolve.exe"} or (_script == "-m" and "capsolve" in sys.orig_argv)
if _is_command and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import logging  # noqa: E402

import lazy_loader  # noqa: E402

__version__ = "0.1.0"

# What modules log is for programs that ask for it, as ``capsolve --verbose`` does.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# The public names are listed in __init__.pyi and loaded on first use, so that `import capsolve` stays fast.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
