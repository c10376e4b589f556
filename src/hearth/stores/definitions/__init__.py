"""Apps and routes."""
