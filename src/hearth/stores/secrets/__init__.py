"""Secrets of apps: stored encrypted, with a key that the database does not have."""
