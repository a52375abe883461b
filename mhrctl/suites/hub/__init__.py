"""Any data set that `datasets` reads, as tasks."""
