"""Solvers: who gets how much capacity."""
