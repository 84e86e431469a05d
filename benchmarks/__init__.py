"""Benchmarks: run from the repository with ``python -m``."""
