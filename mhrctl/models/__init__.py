"""The frozen backbone, and how adapters attach to it."""
