"""Outputs of a batch: files of each scan, tables, outlier scores and the page."""
