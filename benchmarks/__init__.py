"""Speed, memory and accuracy of capsolve beside its peers, on the same inputs in the same run."""
