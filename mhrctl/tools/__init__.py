"""These are the plain functions of the commands that are no stages; a tool bears its command's name."""
