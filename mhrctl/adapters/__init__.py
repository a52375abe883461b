"""Routed adapters: layers, the inventory of skills with its routing, and the model that wears them."""
