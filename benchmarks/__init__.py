"""Benchmarks: one claim a file. Each prints JSON with machine, versions, repeats, median and interval."""
