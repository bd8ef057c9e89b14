"""Corrections of a proposal: edits, undo, scribbles, case files and teachings."""
