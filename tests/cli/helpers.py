"""A profile, and what the tests of several commands do with one."""

import json
import subprocess
import sys

IMPORTANCE = [3.0, 1.0, 0.5, 0.25, 2.0, 0.0]
KURTOSIS = [2.0, 9.0, 30.0, 5.0, 1.5, 3.0]
NAMES = ["a", "b, c", "π", 'd"', "e", "f"]


def strict_json(output):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(output, parse_constant=refuse)


def command(*args, **options):
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "capsolve", *map(str, args)], capture_output=True, text=True, check=False, **options
    )
