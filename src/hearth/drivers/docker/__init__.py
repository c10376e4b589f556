"""Containers made by a Docker Engine."""
