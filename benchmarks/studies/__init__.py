"""Studies of a data set: what :mod:`benchmarks.study` is made of."""
