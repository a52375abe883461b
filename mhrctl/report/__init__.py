"""This room has the paper's printed numbers and formulas, and tables that set ours beside them."""
