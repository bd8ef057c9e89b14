"""Tissues that have the same number in every scan of a cohort."""
