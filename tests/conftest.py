"""Settings of all tests."""

import os

# Before anything imports jax: the tests are made for the CPU, wherever they run.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile far more than they compute.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
