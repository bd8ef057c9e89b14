"""The server: the REST protocol of MONAI Label's clients, for 3D Slicer and OHIF.

Everything but `application`, `guard`, `run` and `routes` works without a web framework.
"""
