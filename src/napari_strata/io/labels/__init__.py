"""What only labels need.

Whole numbers out of a file's values, names inside files, DICOM segmentations.
"""
