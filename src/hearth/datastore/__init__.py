"""Definitions and call records."""
