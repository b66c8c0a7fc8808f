"""From a trained model to text, with the probability of every token and of what stood beside it."""
