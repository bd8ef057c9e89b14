"""A proposal in a person's hands: the owner table, edits, undo, teaching by strokes, and case files."""
