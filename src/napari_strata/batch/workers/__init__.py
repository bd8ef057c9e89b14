"""Executors of a batch: this process, several processes, a cluster; and memory."""
