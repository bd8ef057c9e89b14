"""`Refinement`, what scripts and the window hold, and the parts it is made of."""
