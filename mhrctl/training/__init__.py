"""Training has examples and batches, losses, optimizers, and the one loop that all stages use."""
