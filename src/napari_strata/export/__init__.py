"""Everything that leaves Strata besides labels.

The region table, and later meshes and DICOM SEG.
"""
