"""This room has params.yaml as typed models, the methods table, the paper's recipes, and what a cell runs with."""
