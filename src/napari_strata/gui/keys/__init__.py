"""Keys wherever the focus is, and the mouse wheel where it is not."""
