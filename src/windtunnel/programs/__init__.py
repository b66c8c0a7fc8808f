"""Anybody's programs, and results that exist, as the arms of a comparison."""
