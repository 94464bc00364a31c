"""What tests need of their surroundings: threads, no display, interruptions; and Hypothesis profiles.

Few examples by default, many with HYPOTHESIS_PROFILE=nightly.
"""

import os
import signal

from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

# One thread of linear algebra, unless something else is asked for (.ci/kernels does): threads that wait for each other
# make the many small problems here slow, and tests run side by side already. First for the libraries that are still to
# be loaded, here and in the commands that tests start, then for those that a plugin of pytest has loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
threads = int(os.environ.get("OPENBLAS_NUM_THREADS", os.environ["OMP_NUM_THREADS"]))
threadpool_limits(threads, user_api="blas")
with threadpool_limits(None):  # the end of a limit leaves it to others to set the next one
    pass

os.environ["MPLBACKEND"] = "Agg"

# A shell starts what runs in the background deaf to interruptions, and so would be the commands that are interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

quiet = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much]}
settings.register_profile("default", max_examples=100, derandomize=True, **quiet)
settings.register_profile("nightly", max_examples=10_000, **quiet)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
