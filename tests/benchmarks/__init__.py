"""Benchmarks of django-wspbus and its rivals in the same run: ``python -m tests.benchmarks``.

They print ratios and set no limits.
"""
