"""mhrctl: cross-task generalisation with routed adapters."""

__version__ = "0.1.0"
