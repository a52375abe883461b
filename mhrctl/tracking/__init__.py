"""Recorders show a stage's numbers elsewhere: rows of one table, a small file for each kind of backend."""
