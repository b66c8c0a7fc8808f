"""What is inside a model: its attention, and what else can be measured on the weights that were trained."""
