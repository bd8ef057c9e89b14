"""Case files and autosave on the disk."""
