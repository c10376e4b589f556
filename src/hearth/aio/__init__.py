"""Waiting: time, deadlines, batches, threads. Knows nothing about functions."""
