"""Accepted calls: taken from the queue, run, recorded, acknowledged."""
