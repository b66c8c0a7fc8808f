"""Runs: find them, make them from arms and seeds, train them on an executor, measure them."""
