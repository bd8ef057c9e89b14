"""Batches: throughput and memory, kills, a cluster, and the page."""
