"""Fns and triggers."""
