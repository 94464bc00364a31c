"""Solvers: the optimal allocation of capacity."""
