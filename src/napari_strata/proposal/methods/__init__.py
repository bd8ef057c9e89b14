"""Clustering methods behind one interface, listed in `registry`."""
