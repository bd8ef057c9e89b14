"""Many scans, one after another in this process: plan which they are, run each, collect the tables.

A scan that fails is recorded with its reason and the rest goes on; running again does only what is missing or changed.
Parallel and cluster runs come with a later version.
"""
