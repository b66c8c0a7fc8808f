"""Statistics: plain functions, frozen results, always an interval. Knows nothing of models."""
