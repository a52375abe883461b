"""Suites are where tasks come from. Each source is a function that reads tasks; `prepare` does the rest."""
