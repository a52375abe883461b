"""This room makes answers and scores."""
