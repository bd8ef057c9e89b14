"""Many scans: plan which they are, run each here or on Dask workers, collect tables and a page.

A scan that fails is recorded with its reason and the rest goes on; running again does
only what is missing or changed.
"""
