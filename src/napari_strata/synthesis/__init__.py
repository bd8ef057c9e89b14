"""Procedural anatomy, rendered as scans.

What the encoder learns from, the sample scans and the test phantoms.

Three separate stages: anatomy (which structure is where), appearance (how bright each
tissue is), artefacts (what the scanner does to it). Nothing here was measured on a
person.
"""
