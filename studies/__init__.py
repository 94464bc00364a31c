"""Experiments on trained networks, each with its stored results beside it in ``results``."""
