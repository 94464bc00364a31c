"""Is it true? Routes to the optimum that share nothing but the problem, side by side: see `capsolve.verify`."""
