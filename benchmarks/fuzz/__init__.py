"""Damaged files, made at random by the ten thousand.

Every one is read right or refused in one line. See `__main__.py`.
"""
