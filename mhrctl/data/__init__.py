"""From text to batches: tokenization, rows, splits, shots, windows, similarity."""
