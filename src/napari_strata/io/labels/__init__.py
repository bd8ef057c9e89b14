"""What only labels need: whole numbers out of a file's values, names inside files, DICOM segmentations."""
