"""Edits as values: each takes a state and returns the next one."""
