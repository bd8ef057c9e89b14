"""DICOM series and single slices, each slice by its own header."""
