"""Tensors in, numbers out: what training has done to gradients and routing."""
