"""`Refinement`, used by scripts, window and command line, and its parts."""
