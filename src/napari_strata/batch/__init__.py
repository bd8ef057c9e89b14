"""Many scans: find them, label each here or on Dask workers, write tables and a page.

A scan that fails is recorded with its reason, and the others continue. Running the batch
again makes only what is missing or changed.
"""
