"""Containers that are child processes running bundles: no daemon, no root, no registry."""
