"""Fits the confidence of proposals on labelled scans."""
