"""Numba kernels: NumPy arrays in, preallocated arrays out, one thread, no Python objects."""
