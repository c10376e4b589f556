"""API v2: apps, fns, triggers, and the calls of fns."""
