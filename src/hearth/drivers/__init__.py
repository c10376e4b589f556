"""Drivers create containers, and nothing else touches them."""
