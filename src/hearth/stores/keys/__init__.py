"""The idempotency keys of requests, with their answers."""
