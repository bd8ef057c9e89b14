"""Case files and autosave on disk."""
