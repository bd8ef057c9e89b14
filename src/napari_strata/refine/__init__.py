"""A proposal in a person's hands.

The owner table, edits, undo, teaching by strokes, and case files.
"""
