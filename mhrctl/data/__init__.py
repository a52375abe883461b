"""Text becomes batches here: tokenization, rows, splits, shots, windows, similarity."""
