"""mhrctl trains routed adapters, shared by tasks, for cross-task generalisation."""

__version__ = "0.1.0"
