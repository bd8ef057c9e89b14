"""Everything that leaves Strata besides labels.

The region table, surface meshes, DICOM SEG and label descriptions of other programs
are written here.
"""
