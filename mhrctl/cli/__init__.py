"""The command line translates options to calls of stages, prints what they return, and maps errors to exit codes."""
