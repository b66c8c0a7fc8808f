"""Scaling studies: the best size, tokens and loss for a budget of compute, fitted with intervals or refused."""
