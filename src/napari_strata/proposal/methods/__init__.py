"""Ways to propose: with the learned encoder.

Or with a Gaussian mixture and a Markov random field.
"""
