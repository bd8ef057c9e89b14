"""Everything that leaves Strata besides labels: the region table, and later meshes and DICOM SEG."""
