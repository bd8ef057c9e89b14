"""Qt widgets without knowledge of a case."""
