"""Registries as a client sees them: references, credentials, pulls and pushes."""
