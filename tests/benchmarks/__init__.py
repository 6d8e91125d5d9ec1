"""Benchmarks beside the rivals, in one run: ``python -m tests.benchmarks``. Ratios, not verdicts."""
