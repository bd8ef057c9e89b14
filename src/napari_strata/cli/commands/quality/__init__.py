"""The commands that judge labels, one module each."""
