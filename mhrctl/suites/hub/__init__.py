"""Any data set that `datasets` reads becomes tasks."""
