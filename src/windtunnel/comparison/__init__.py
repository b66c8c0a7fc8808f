"""Comparing: a plan of arms x seeds, its verdicts, and the record of both."""
