"""Reading labels: whole numbers from a file's values, names inside files, DICOM SEG."""
