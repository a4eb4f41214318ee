"""The left-atrium benchmark: what :mod:`benchmarks.la` is made of."""
