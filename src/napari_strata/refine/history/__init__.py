"""The journal of edits: undo, redo, and how steps and states are stored."""
