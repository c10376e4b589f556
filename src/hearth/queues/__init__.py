"""Accepted async calls."""
