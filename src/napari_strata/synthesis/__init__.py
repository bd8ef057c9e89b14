"""Synthetic scans of procedural anatomy, for pretraining, sample scans and test phantoms.

There are three separate stages: anatomy (a label map of structures), appearance (the
intensity of each tissue) and artefacts (effects of the scanner). Nothing here was
measured on a person.
"""
