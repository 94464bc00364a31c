"""Hypothesis profiles: few examples by default, many with HYPOTHESIS_PROFILE=nightly. Threads and signals for all."""

import os
import signal

# Before NumPy is loaded: threads of a linear algebra library that wait for each other would make the many small
# problems here slow, and the last bits of a result depend on how many threads there were.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what runs in the background deaf to interruptions, and so would be the commands that are interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from hypothesis import HealthCheck, settings

quiet = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much]}
settings.register_profile("default", max_examples=100, derandomize=True, **quiet)
settings.register_profile("nightly", max_examples=10_000, **quiet)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
