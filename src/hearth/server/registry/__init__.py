"""The node as a registry of images: the OCI distribution API 1.1 beside API v2."""
