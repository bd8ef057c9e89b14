"""Ways to propose: with the learned encoder, or with a Gaussian mixture and a Markov random field."""
