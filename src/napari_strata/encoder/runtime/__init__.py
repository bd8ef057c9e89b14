"""Inference runtimes of the encoder: OpenVINO on CPUs, torch on GPUs and for other networks."""
