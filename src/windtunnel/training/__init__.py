"""Training: one loop that yields events, one folder a run."""
