"""Recorders of a stage's numbers that show them elsewhere: rows of one table, a small file for each kind of backend."""
