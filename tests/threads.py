"""How many threads the libraries of linear algebra in this process have."""

from threadpoolctl import threadpool_info


def blas_threads():
    """Return the number of threads of each library that can be told."""
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
