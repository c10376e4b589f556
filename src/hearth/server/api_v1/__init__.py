"""The API v1: apps, routes, calls, logs."""
