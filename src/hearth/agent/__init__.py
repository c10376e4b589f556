"""The heart: from a request to a finished call. Sees interfaces only."""
