"""This room has the frozen backbone, and how adapters attach to it."""
