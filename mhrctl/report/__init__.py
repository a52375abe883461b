"""The paper's printed numbers and formulas, and tables that set ours beside them."""
