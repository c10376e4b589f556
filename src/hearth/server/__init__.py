"""HTTP: the invocation front and the API."""
